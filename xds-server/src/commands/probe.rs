//! `tollgate probe`: asks URLs until each has answered well, within a time. `helm test` runs it in a Pod, whose image has no
//! curl.

use std::time::{Duration, Instant};

use tollgate_core::terms::duration;

use super::{Outcome, ask, print};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A status below 500 is well: a Gateway without a route for the path answers 404, and one that is not programmed does not
answer. What does not answer yet is asked again until the time is over.

Exit code 0: all are well; 1: one is not.")]
pub struct Args {
    #[arg(required = true, value_name = "URL")]
    urls: Vec<String>,
    /// For all of them together
    #[arg(long, default_value = "30s", value_parser = duration::parse, value_name = "TIME")]
    within: Duration,
}

const PAUSE: Duration = Duration::from_millis(500);
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn main(args: &Args) -> anyhow::Result<Outcome> {
    ask::block_on(async {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        let end = Instant::now() + args.within;
        let mut all = Outcome::Good;
        for url in &args.urls {
            let (is_well, said) = loop {
                let (is_well, said) = once(&client, url).await;
                if is_well || Instant::now() + PAUSE > end {
                    break (is_well, said);
                }
                tokio::time::sleep(PAUSE).await;
            };
            print(&format!("{} {url}: {said}\n", if is_well { "ok  " } else { "FAIL" }));
            if !is_well {
                all = Outcome::Findings;
            }
        }
        Ok(all)
    })
}

async fn once(client: &reqwest::Client, url: &str) -> (bool, String) {
    match client.get(url).send().await {
        Ok(answer) => (!answer.status().is_server_error(), answer.status().to_string()),
        Err(error) => (false, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request.
    fn answering(status: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes());
        });
        url
    }

    #[test]
    fn whoever_fails_or_does_not_answer_is_not_well() {
        let nobody = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            format!("http://{}/", listener.local_addr().unwrap())
        };
        let probe = |urls: Vec<String>| main(&Args { urls, within: Duration::ZERO }).unwrap();
        assert_eq!(probe(vec![answering("200 OK"), answering("404 Not Found")]), Outcome::Good);
        assert_eq!(probe(vec![answering("200 OK"), answering("503 Service Unavailable")]), Outcome::Findings);
        assert_eq!(probe(vec![nobody]), Outcome::Findings);
    }
}
