//! The thread that writes the audit log. The file is for its owner alone. When another program moves or removes it, as
//! logrotate does, a new one is begun.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender};

use prometheus_client::metrics::{counter::Counter, family::Family};

use super::{Labels, Outcome};

pub enum Job {
    Line(String),
    Flush(SyncSender<()>),
}

pub enum Place {
    Stdout,
    File(PathBuf),
}

pub struct Writer {
    place: Place,
    /// None: standard output.
    file: Option<File>,
    lines: Family<Labels, Counter>,
    failing: bool,
}

// === impl Place ===

impl Place {
    pub fn of(path: &Path) -> Self {
        if path == Path::new("-") { Self::Stdout } else { Self::File(path.to_owned()) }
    }
}

// === impl Writer ===

impl Writer {
    pub fn open(place: Place, lines: Family<Labels, Counter>) -> io::Result<Self> {
        let file = match &place {
            Place::Stdout => None,
            Place::File(path) => Some(open(path)?),
        };
        Ok(Self { place, file, lines, failing: false })
    }

    /// Writes until nobody records any more.
    pub fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Line(line) => self.write(line),
                // Whoever waits has left if this is an error.
                Job::Flush(done) => drop(done.send(())),
            }
        }
    }

    fn write(&mut self, mut line: String) {
        line.push('\n');
        let written = self.keep_file().and_then(|()| match &mut self.file {
            Some(file) => file.write_all(line.as_bytes()),
            None => io::stdout().lock().write_all(line.as_bytes()),
        });
        if let Err(error) = &written
            && !self.failing
        {
            tracing::error!(%error, "the audit log cannot be written; what is recorded meanwhile is lost");
        }
        self.failing = written.is_err();
        let result = if self.failing { Outcome::Failed } else { Outcome::Written };
        self.lines.get_or_create(&Labels { result }).inc();
    }

    /// Opens the file again if another one or none has its name.
    fn keep_file(&mut self) -> io::Result<()> {
        let (Place::File(path), Some(file)) = (&self.place, &self.file) else { return Ok(()) };
        let ours = file.metadata()?;
        let is_ours = std::fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        if !is_ours {
            self.file = Some(open(path)?);
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}
