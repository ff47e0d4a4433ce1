//! A child process with its output in a file, signalled by its id and never left behind.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::poll;

pub struct Process {
    child: Child,
    log: PathBuf,
}

// === impl Process ===

impl Process {
    /// Starts it; standard output and error go to `log`, after what is there already.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self { child, log: log.to_path_buf() })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// An error with the end of its output if it is not running any more.
    pub fn ensure_running(&mut self) -> anyhow::Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("it ended ({status}):\n{}", tail(&self.log(), 30)),
        }
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        signal_process(self.id(), signal)
    }

    /// kill -9, and its end awaited.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end and waits until it has.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait().await
    }

    pub async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let child = &mut self.child;
        let log = &self.log;
        poll::until("the process ends", || {
            let ended = child.try_wait();
            async move { ended?.with_context(|| format!("still running; its log: {}", log.display())) }
        })
        .await
    }

    /// Ends it, gently if it can be.
    pub fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.signal(Signal::TERM);
            for _ in 0..50 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

pub fn signal_process(id: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(id)?).context("not a process id")?;
    kill_process(pid, signal).with_context(|| format!("cannot signal process {id}"))
}

/// Whether a process with this id is there and is not just waiting to be reaped.
pub fn is_alive(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}

/// The processes whose parent is `id`.
pub fn children(id: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|child| parent(*child) == Some(id))
        .collect()
}

fn parent(id: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // pid (name) state parent ...; the name may hold anything.
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}

/// A port of 127.0.0.1 that nobody uses now. It is below those that the kernel gives to connections, so none of the
/// thousands that other tests open takes it before it is listened on. No two calls return the same one, in this process or
/// in another that runs these tests.
pub fn free_port() -> anyhow::Result<u16> {
    static OURS: Mutex<Option<Block>> = Mutex::new(None);
    let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(port) = ours.as_mut().and_then(Block::next) {
            return Ok(port);
        }
        *ours = Some(Block::claim()?);
    }
}

/// Ports that belong to this process for as long as it listens on the one before them.
struct Block {
    _claim: TcpListener,
    ports: Range<u16>,
}

// === impl Block ===

impl Block {
    const FIRST: u16 = 20_000;
    const SIZE: u16 = 250;
    const COUNT: u16 = 40;

    /// One that is nobody's. Where to begin is random, so that what a run leaves behind is seldom in the way of the next.
    fn claim() -> anyhow::Result<Self> {
        let begin = rand::random_range(0..Self::COUNT);
        let mut firsts = (0..Self::COUNT).map(|number| Self::FIRST + (begin + number) % Self::COUNT * Self::SIZE);
        let claimed = firsts.find_map(|first| Some((first, TcpListener::bind(("127.0.0.1", first)).ok()?)));
        let (first, claim) = claimed.with_context(|| format!("no ports from {} on are free", Self::FIRST))?;
        Ok(Self { _claim: claim, ports: first + 1..first + Self::SIZE })
    }

    fn next(&mut self) -> Option<u16> {
        self.ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
    }
}

/// A port of 127.0.0.1 at which connections are refused, for as long as this value is there: it is taken, so that nobody
/// else gets it, and not listened on.
pub struct ClosedPort {
    _socket: tokio::net::TcpSocket,
    port: u16,
}

// === impl ClosedPort ===

impl ClosedPort {
    pub fn new() -> anyhow::Result<Self> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self { port: socket.local_addr()?.port(), _socket: socket })
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_block_of_ports_has_one_owner() -> anyhow::Result<()> {
        let (mut one, mut other) = (Block::claim()?, Block::claim()?);
        let (one, other) = (one.next().context("a port")?, other.next().context("a port")?);
        assert_ne!(one / Block::SIZE, other / Block::SIZE);
        Ok(())
    }

    #[tokio::test]
    async fn a_closed_port_refuses_and_is_taken() -> anyhow::Result<()> {
        let closed = ClosedPort::new()?;
        let at = ("127.0.0.1", closed.port());
        assert_eq!(
            std::net::TcpStream::connect(at).map_err(|error| error.kind()).err(),
            Some(ErrorKind::ConnectionRefused)
        );
        assert!(TcpListener::bind(at).is_err());
        Ok(())
    }
}
