//! Waiting for an outcome: bounded, and the last thing seen is in the error.

use std::future::Future;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(50);
/// Generous, because a slow or busy machine is no failure; tests that pass never wait for it. It is the one bound of the
/// end-to-end tests, whatever they wait for.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Repeats `look` until it gives `Ok`.
pub async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    within(LIMIT, what, &mut look).await
}

/// The same with a bound of its own.
pub async fn within<T, F>(limit: Duration, what: &str, mut look: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let end = tokio::time::Instant::now() + limit;
    loop {
        let last = match look().await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        if tokio::time::Instant::now() >= end {
            return Err(last.context(format!("waited {} s for: {what}", limit.as_secs())));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
