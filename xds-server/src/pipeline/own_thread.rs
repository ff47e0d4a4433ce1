//! A thread of its own for the loop from a source to what is served.
//!
//! Each change takes memory for a moment, megabytes for a large folder. An allocator keeps that for the thread which gave
//! it back. A task moves among the threads of the runtime, so in the end each of them would hold as much; here the same
//! memory serves the first reading and every change after it.

use std::convert::Infallible;
use std::io;
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Runs the work until it ends, or until the task is aborted while the work waits.
///
/// # Errors
/// When the thread cannot be made.
pub fn spawn(name: &str, work: impl Future<Output = ()> + Send + 'static) -> io::Result<JoinHandle<()>> {
    let (held, aborted) = oneshot::channel::<Infallible>();
    let (done, ended) = oneshot::channel::<Infallible>();
    let runtime = Handle::current();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _done = done;
        runtime.block_on(async {
            tokio::select! {
                // While the runtime ends, tasks are dropped first, and timers end after them: work that is asked then would
                // panic at its timer.
                biased;
                _ = aborted => {}
                () = work => {}
            }
        });
    })?;
    Ok(tokio::spawn(async move {
        let _held = held;
        // An error when the thread drops the other half: nothing is ever sent.
        let _ = ended.await;
    }))
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;

    /// Tells when it is dropped.
    struct Alive(Arc<Notify>);

    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    #[tokio::test]
    async fn work_runs_on_the_thread_and_its_end_is_the_tasks_end() {
        let (sender, name) = oneshot::channel();
        let work = async move {
            tokio::task::yield_now().await;
            let _ = sender.send(thread::current().name().map(str::to_owned));
        };
        let task = spawn("source", work).unwrap();
        assert_eq!(name.await.unwrap().as_deref(), Some("source"));
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_is_aborted_ends_the_work() {
        let (began, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (begins, alive) = (Arc::clone(&began), Alive(Arc::clone(&dropped)));
        let task = spawn("source", async move {
            let _alive = alive;
            begins.notify_one();
            pending::<()>().await;
        })
        .unwrap();
        began.notified().await;
        assert!(!task.is_finished());
        task.abort();
        dropped.notified().await;
    }

    #[tokio::test]
    async fn work_that_panics_ends_the_task() {
        let task = spawn("source", async { panic!("in the loop") }).unwrap();
        task.await.unwrap();
    }
}
