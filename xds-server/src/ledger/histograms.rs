//! Histograms of which others say how many values are in each bucket. The client library's own take one value at a time,
//! and a row of the ledger may have a million.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tollgate_proto::measures::Measure;

/// The most label sets of a metric. What comes later is counted together, because each series costs memory here and at
/// each scraper.
pub const MAX_SETS: usize = 1000;

/// The label of what is counted together, as OpenTelemetry's SDKs have it (`otel.metric.overflow`).
const OVERFLOW: (&str, &str) = ("otel_metric_overflow", "true");

pub type Labels = Vec<(&'static str, String)>;

/// One metric. Clones are the same.
#[derive(Debug, Clone)]
pub struct Histograms {
    measure: Measure,
    sets: Arc<Mutex<BTreeMap<Labels, Spread>>>,
}

/// How values spread.
#[derive(Debug, Default)]
struct Spread {
    /// Of each bucket, the last one of which is for what is larger than all bounds.
    counts: Vec<u64>,
    /// In the unit of the measure.
    sum: u64,
}

// === impl Histograms ===

impl Histograms {
    pub fn of(measure: Measure) -> Self {
        Self { measure, sets: Arc::default() }
    }

    /// Adds so many values to each bucket, and what they are together.
    pub fn add(&self, labels: Labels, counts: impl Iterator<Item = u64>, sum: u64) {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = sets.contains_key(&labels) || sets.len() < MAX_SETS;
        let labels = if is_known { labels } else { vec![(OVERFLOW.0, OVERFLOW.1.to_owned())] };
        let spread = sets.entry(labels).or_default();
        spread.counts.resize(self.measure.bounds().len() + 1, 0);
        for (all, more) in spread.counts.iter_mut().zip(counts) {
            *all = all.saturating_add(more);
        }
        spread.sum = spread.sum.saturating_add(sum);
    }

    /// How many of the measure's units are one of the metric's.
    fn per_unit(&self) -> f64 {
        match self.measure {
            Measure::InputTokens | Measure::OutputTokens => 1.0,
            Measure::Duration | Measure::FirstToken => 1e3,
            Measure::PerToken => 1e6,
        }
    }
}

impl EncodeMetric for Histograms {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = self.measure.bounds().iter().map(|bound| f64::from(*bound) / self.per_unit());
        let bounds: Vec<f64> = bounds.chain([f64::INFINITY]).collect();
        let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        for (labels, spread) in &*sets {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let buckets: Vec<(f64, u64)> = bounds.iter().copied().zip(spread.counts.iter().copied()).collect();
            let count = spread.counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
            let sum = spread.sum as f64 / self.per_unit();
            encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::{Registry, Unit};

    use super::*;

    fn text(histograms: &Histograms) -> String {
        let mut registry = Registry::default();
        registry.register_with_unit("took", "How long", Unit::Seconds, histograms.clone());
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        text
    }

    fn model(name: &str) -> Labels {
        vec![("model", name.to_owned())]
    }

    #[test]
    fn buckets_are_cumulative_and_in_the_unit_of_the_metric() {
        let took = Histograms::of(Measure::Duration);
        let counts = |first, last| {
            (0..15).map(move |place| {
                if place == 0 {
                    first
                } else if place == 14 {
                    last
                } else {
                    0
                }
            })
        };
        took.add(model("a\"b"), counts(2, 1), 100_030);
        took.add(model("a\"b"), counts(1, 0), 5);
        let text = text(&took);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..3],
            ["# HELP took_seconds How long.", "# TYPE took_seconds histogram", "# UNIT took_seconds seconds"]
        );
        for line in [
            r#"took_seconds_sum{model="a\"b"} 100.035"#,
            r#"took_seconds_count{model="a\"b"} 4"#,
            r#"took_seconds_bucket{le="0.01",model="a\"b"} 3"#,
            r#"took_seconds_bucket{le="81.92",model="a\"b"} 3"#,
            r#"took_seconds_bucket{le="+Inf",model="a\"b"} 4"#,
        ] {
            assert!(lines.contains(&line), "{line} is not in\n{text}");
        }
        assert_eq!(lines.iter().filter(|line| line.starts_with("took_seconds_bucket")).count(), 15);
        assert_eq!(lines.last(), Some(&"# EOF"));
    }

    #[test]
    fn the_units_of_measures_are_those_of_the_metrics() {
        for (measure, sum, bound) in [
            (Measure::OutputTokens, "3000000.0", "le=\"1.0\""),
            (Measure::FirstToken, "3000.0", "le=\"0.001\""),
            (Measure::PerToken, "3.0", "le=\"0.01\""),
        ] {
            let histograms = Histograms::of(measure);
            histograms.add(model("a"), [1].into_iter(), 3_000_000);
            let text = text(&histograms);
            assert!(text.contains(&format!("took_seconds_sum{{model=\"a\"}} {sum}\n")), "{text}");
            assert!(text.contains(bound), "{text}");
        }
    }

    #[test]
    fn what_is_beyond_the_most_sets_is_counted_together() {
        let took = Histograms::of(Measure::Duration);
        for at in 0..MAX_SETS + 2 {
            took.add(model(&format!("model-{at}")), [1].into_iter(), 10);
        }
        took.add(model("model-0"), [1].into_iter(), 10);
        let text = text(&took);
        assert_eq!(text.matches("took_seconds_count").count(), MAX_SETS + 1);
        assert!(text.contains("took_seconds_count{otel_metric_overflow=\"true\"} 2\n"), "{text}");
        assert!(text.contains("took_seconds_count{model=\"model-0\"} 2\n"), "{text}");
        assert!(!text.contains(&format!("model-{MAX_SETS}\"")), "{text}");
    }
}
