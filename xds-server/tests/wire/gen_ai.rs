//! OpenTelemetry's metrics of generative AI, as a real Prometheus reads them of a real control plane.

use serde_json::Value;
use tollgate_proto::measures::Measure;
use tollgate_proto::v1::{self, Operation, SyncRequest};

use super::prometheus::{self, Prometheus};
use super::support::Server;
use super::{call, consumer, gateway, used};

fn server() -> Server {
    let files = [("one.yaml", gateway("one", 18080, 18081)), ("consumers.yaml", consumer("alice", 'a', "'*'"))];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    Server::start(&files)
}

/// Streams of alice that all take so long, each with one token of output after the first one.
fn streams(count: u32, each_ms: u64) -> v1::Usage {
    let sum = u64::from(count) * each_ms;
    let values = [(Measure::InputTokens, 10), (Measure::OutputTokens, 2), (Measure::Duration, each_ms)];
    let values = values.into_iter().chain([(Measure::FirstToken, each_ms), (Measure::PerToken, each_ms * 1000)]);
    let spread = values.flat_map(|(measure, value)| [u32::try_from(measure.bucket(value)).unwrap(), count]).collect();
    v1::Usage {
        backend: "one".into(),
        operation: Operation::Chat.into(),
        requests: count.into(),
        input_tokens: 10 * u64::from(count),
        output_tokens: 2 * u64::from(count),
        duration_ms: sum,
        first_token_ms: sum,
        per_token_us: sum * 1000,
        spread,
        ..used("alice", "one", 0)
    }
}

/// Requests that ended with an error and cost nothing.
fn refused(count: u32, each_ms: u64) -> v1::Usage {
    let bucket = u32::try_from(Measure::Duration.bucket(each_ms)).unwrap();
    v1::Usage {
        backend: "one".into(),
        operation: Operation::Chat.into(),
        error_status: 503,
        requests: 0,
        duration_ms: u64::from(count) * each_ms,
        spread: vec![bucket, count],
        ..used("alice", "one", 0)
    }
}

async fn text(url: &str) -> String {
    reqwest::get(url).await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn a_real_prometheus_reads_how_requests_spread() {
    let server = server();
    let mut ledger = server.client("default/one").ledger(&server).await;
    // A million at once, some that an older filter reports, and one whose measures are nonsense.
    let usage = vec![streams(1 << 20, 100), streams(3, 2000), refused(4, 30), used("alice", "one", 7)];
    let nonsense = v1::Usage { spread: vec![1], ..streams(1, 1) };
    let report = SyncRequest { usage: [usage, vec![nonsense]].concat(), ..call(1) };
    for _ in 0..2 {
        // The same call again counts for nothing.
        ledger.sync(report.clone()).await.unwrap();
    }
    let rows = server.rows("/api/usage").await;
    let requests: u64 = rows.iter().map(|row| row["requests"].as_u64().unwrap()).sum();
    assert_eq!(requests, (1 << 20) + 5, "what cost nothing is in no book: {rows:?}");

    let public = text(&format!("http://{}/metrics", server.metrics)).await;
    assert!(!public.contains("alice"), "{public}");
    let admin = text(&format!("{}/metrics", server.admin)).await;
    let labels = r#"{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="one-model",tollgate_route="one",tollgate_backend="one",tollgate_consumer="alice"}"#;
    let line = format!("gen_ai_server_time_to_first_token_seconds_count{labels} 1048579\n");
    assert!(admin.contains(&line), "{line} is not in\n{admin}");
    let refused = "tollgate_ledger_refused_entries_total{entry=\"Measures\",reason=\"Nonsense\"} 1\n";
    assert!(admin.contains(refused), "{refused} is not in\n{admin}");

    if !prometheus::is_here() {
        return;
    }
    let prometheus = Prometheus::start(&[&server.metrics]).await.unwrap();
    let one = async |query: &str| -> f64 {
        let found = prometheus.query(query).await.unwrap();
        assert_eq!(found.len(), 1, "{query}: {found:?}");
        found[0].pointer("/value/1").and_then(Value::as_str).unwrap().parse().unwrap()
    };
    let duration = "gen_ai_server_request_duration_seconds";
    assert_eq!(one(&format!("{duration}_count{{error_type=\"\"}}")).await, 1_048_579.0);
    assert_eq!(one(&format!("{duration}_sum{{error_type=\"\"}}")).await, 104_863.6);
    assert_eq!(one(&format!("{duration}_count{{error_type=\"503\"}}")).await, 4.0);
    assert_eq!(one(&format!("{duration}_bucket{{error_type=\"\",le=\"0.16\"}}")).await, 1_048_576.0);
    assert_eq!(one(&format!("{duration}_bucket{{error_type=\"\",le=\"0.08\"}}")).await, 0.0);
    assert_eq!(one("gen_ai_server_time_per_output_token_seconds_bucket{le=\"0.1\"}").await, 1_048_576.0);
    assert_eq!(
        one("gen_ai_client_token_usage_bucket{le=\"16.0\",gen_ai_operation_name=\"chat\",gen_ai_token_type=\"input\"}")
            .await,
        1_048_580.0
    );
    // No token is missing, whichever filter has told of it.
    let sum = one("sum(gen_ai_client_token_usage_sum)").await;
    assert_eq!(sum, one("sum(tollgate_tokens_total)").await);
    assert_eq!(sum, 12.0 * 1_048_580.0 + 7.0);
    for metric in [duration, "gen_ai_client_token_usage", "gen_ai_server_time_to_first_token_seconds"] {
        let same = format!("sum({metric}_bucket{{le=\"+Inf\"}}) - sum({metric}_count)");
        assert_eq!(one(&same).await, 0.0, "{metric}");
    }
}
