//! The life of a process that is not our child: whether it still runs, its end, and signals to it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;

/// A process by a descriptor of it ([pidfd_open(2)]). The kernel tells its end, and gives its id to no other meanwhile.
/// What `/proc` has of a process is no proof of life: while it becomes another program, its command line is empty.
///
/// [pidfd_open(2)]: https://man7.org/linux/man-pages/man2/pidfd_open.2.html
#[derive(Debug)]
pub struct Life {
    pid: Pid,
    /// It can be read as soon as the process has ended.
    descriptor: Arc<OwnedFd>,
    /// Closed at its end. A thread waits for that, because tokio waits for descriptors of this kind only by unsafe code.
    running: watch::Receiver<()>,
}

// === impl Life ===

impl Life {
    /// The process with this id. None: there is none (any more).
    ///
    /// # Errors
    /// When the kernel gives no descriptor.
    pub fn of(pid: Pid) -> io::Result<Option<Self>> {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => {
                let descriptor = Arc::new(descriptor);
                let running = until_it_ends(Arc::clone(&descriptor))?;
                Ok(Some(Self { pid, descriptor, running }))
            }
            Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The process with this id, if it was started with this argument. Ids are given out again.
    ///
    /// # Errors
    /// When the kernel gives no descriptor.
    pub fn of_started_with(pid: Pid, argument: &Path) -> io::Result<Option<Self>> {
        let life = Self::of(pid)?;
        let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
        let is_it = fs::read(path).is_ok_and(|arguments| {
            arguments.split(|byte| *byte == 0).any(|one| one == argument.as_os_str().as_encoded_bytes())
        });
        Ok(life.filter(|_| is_it))
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns when it has ended, even if nobody has asked for its exit code yet.
    pub async fn ended(&self) {
        while self.running.clone().changed().await.is_ok() {}
    }

    /// One that has ended needs no signal.
    ///
    /// # Errors
    /// When it belongs to somebody else.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.descriptor, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The thread ends with the process that it waits for, or with our own.
fn until_it_ends(descriptor: Arc<OwnedFd>) -> io::Result<watch::Receiver<()>> {
    let (sender, running) = watch::channel(());
    thread::Builder::new().name("envoy-life".to_owned()).spawn(move || {
        while let Ok(0) | Err(Errno::INTR) = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], None) {}
        drop(sender);
    })?;
    Ok(running)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    const SOON: Duration = Duration::from_millis(300);
    const PATIENCE: Duration = Duration::from_secs(120);

    /// A program that waits for its input's end, and that soon has no argument of its start any more.
    fn program() -> Child {
        Command::new("sh").args(["-c", "exec cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    fn pid(child: &Child) -> Pid {
        Pid::from_child(child)
    }

    #[tokio::test]
    async fn the_end_is_told_and_not_before() {
        let mut child = program();
        let life = Life::of(pid(&child)).unwrap().unwrap();
        assert_eq!(life.pid(), pid(&child));
        assert!(timeout(SOON, life.ended()).await.is_err(), "it runs");
        drop(child.stdin.take());
        timeout(PATIENCE, life.ended()).await.unwrap();
        timeout(PATIENCE, life.ended()).await.unwrap();
        child.wait().unwrap();
        assert!(Life::of(pid(&child)).unwrap().is_none(), "there is none any more");
        life.signal(Signal::TERM).unwrap();
    }

    #[tokio::test]
    async fn a_signal_reaches_it() {
        let mut child = program();
        let life = Life::of(pid(&child)).unwrap().unwrap();
        life.signal(Signal::KILL).unwrap();
        timeout(PATIENCE, life.ended()).await.unwrap();
        assert!(!child.wait().unwrap().success());
    }

    #[tokio::test]
    async fn another_process_with_the_same_id_is_not_it() {
        let folder = tempfile::tempdir().unwrap();
        let ours = folder.path().join("bootstrap.json");
        fs::write(&ours, "").unwrap();
        let mut with = Command::new("tail").arg("-f").arg(&ours).stdout(Stdio::null()).spawn().unwrap();
        let mut without = program();
        let found = timeout(PATIENCE, async {
            loop {
                match Life::of_started_with(pid(&with), &ours).unwrap() {
                    Some(life) => return life,
                    // It is still becoming its program.
                    None => sleep(Duration::from_millis(5)).await,
                }
            }
        });
        let life = found.await.unwrap();
        assert!(Life::of_started_with(pid(&with), folder.path()).unwrap().is_none());
        assert!(Life::of_started_with(pid(&without), &ours).unwrap().is_none());
        life.signal(Signal::KILL).unwrap();
        with.wait().unwrap();
        without.kill().unwrap();
        without.wait().unwrap();
    }
}
