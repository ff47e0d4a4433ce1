//! The access log of `tollgate run --access-log -`: Envoy writes it into a file, because Envoy outlives us, and its lines are
//! passed on to standard output. The file is begun anew when it is long, so that it never fills a disk.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncSeekExt as _, BufReader};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::admin::EnvoyAdmin;
use crate::state::private;

/// How often it is looked whether there are more lines.
const LOOK: Duration = Duration::from_millis(200);
const BOUNDS: Bounds = Bounds { longest: 64 << 20, reopened: Duration::from_secs(3) };

/// A log that is passed on.
#[derive(Debug)]
pub struct AccessLog {
    path: PathBuf,
    /// Whoever drops it says that Envoy writes no more.
    last: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// A file that is longer is replaced by a new one.
    longest: u64,
    /// Envoy has opened a file again after this time. It does so when it writes next, which is each second.
    reopened: Duration,
}

struct Following<W> {
    path: PathBuf,
    admin: EnvoyAdmin,
    bounds: Bounds,
    to: W,
    reader: BufReader<File>,
    /// What is read of a line that Envoy has not ended yet.
    line: Vec<u8>,
    read: u64,
}

// === impl AccessLog ===

impl AccessLog {
    /// Begins to pass on what is written from now on. What an Envoy wrote while nobody ran is not passed on.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn follow(path: PathBuf, admin: EnvoyAdmin) -> io::Result<Self> {
        Self::passing(path, admin, BOUNDS, io::stdout()).await
    }

    async fn passing(
        path: PathBuf,
        admin: EnvoyAdmin,
        bounds: Bounds,
        to: impl io::Write + Send + 'static,
    ) -> io::Result<Self> {
        let _made = private::create_or_keep(&path)?;
        let mut file = File::open(&path).await?;
        let read = file.seek(SeekFrom::End(0)).await?;
        let reader = BufReader::new(file);
        let following = Following { path: path.clone(), admin, bounds, to, reader, line: Vec::new(), read };
        let (last, ended) = oneshot::channel();
        Ok(Self { path, last, task: tokio::spawn(following.run(ended)) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Passes on what is left. Envoy has ended, and its last lines are in the file.
    pub async fn end(self) {
        drop(self.last);
        let _panicked = self.task.await;
    }
}

// === impl Following ===

impl<W: io::Write> Following<W> {
    async fn run(mut self, mut ended: oneshot::Receiver<()>) {
        loop {
            let is_last = tokio::select! {
                () = sleep(LOOK) => false,
                _ = &mut ended => true,
            };
            let mut passed = self.pass_on().await;
            if passed.is_ok() && self.read > self.bounds.longest && !is_last {
                passed = self.renew().await;
            }
            if let Err(error) = passed {
                tracing::warn!(%error, "the access log is not passed on any more");
                return;
            }
            if is_last {
                return;
            }
        }
    }

    /// Whole lines, as far as there are any. Whoever reads them slowly holds up this thread and not Envoy.
    async fn pass_on(&mut self) -> io::Result<()> {
        loop {
            let read = self.reader.read_until(b'\n', &mut self.line).await?;
            self.read += read as u64;
            if !self.line.ends_with(b"\n") {
                return self.to.flush();
            }
            self.to.write_all(&self.line)?;
            self.line.clear();
        }
    }

    /// Begins a new file. Envoy goes on to write into the old one until it opens it again by its name.
    async fn renew(&mut self) -> io::Result<()> {
        std::fs::remove_file(&self.path)?;
        let _made = private::create_or_keep(&self.path)?;
        let file = File::open(&self.path).await?;
        if let Err(error) = self.admin.reopen_logs().await {
            // It opens its files when it starts.
            tracing::debug!(%error, "Envoy was not asked to open its log again");
        }
        sleep(self.bounds.reopened).await;
        self.pass_on().await?;
        self.reader = BufReader::new(file);
        self.line.clear();
        self.read = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was passed on.
    #[derive(Debug, Clone, Default)]
    struct Passed(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Passed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Passed {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        async fn becomes(&self, text: &str) {
            while self.text() != text {
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    fn append(path: &Path, text: &str) {
        let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    async fn following(dir: &Path, longest: u64) -> (AccessLog, Passed) {
        let passed = Passed::default();
        let admin = EnvoyAdmin::at(&dir.join("nobody")).unwrap();
        let bounds = Bounds { longest, reopened: Duration::from_secs(5) };
        (AccessLog::passing(dir.join("access.log"), admin, bounds, passed.clone()).await.unwrap(), passed)
    }

    #[tokio::test]
    async fn lines_from_now_on_are_passed_on_whole_and_the_last_ones_too() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("access.log"), "before\n").unwrap();
        let (log, passed) = following(dir.path(), 1 << 20).await;
        let path = log.path().to_owned();
        append(&path, "one\nha");
        passed.becomes("one\n").await;
        append(&path, "lf\nlast\n");
        log.end().await;
        assert_eq!(passed.text(), "one\nhalf\nlast\n");
    }

    #[tokio::test]
    async fn a_long_file_is_replaced_and_no_line_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (log, passed) = following(dir.path(), 6).await;
        let path = log.path().to_owned();
        // As Envoy, which keeps the file open.
        let mut old = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        old.write_all(b"short\n").unwrap();
        passed.becomes("short\n").await;
        sleep(LOOK * 2).await;
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 6, "it is no longer than it may be");
        old.write_all(b"longer\n").unwrap();
        while std::fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
            sleep(Duration::from_millis(10)).await;
        }
        old.write_all(b"late\n").unwrap();
        append(&path, "new\n");
        passed.becomes("short\nlonger\nlate\nnew\n").await;
        append(&path, "last\n");
        log.end().await;
        assert!(passed.text().ends_with("new\nlast\n"));
    }
}
