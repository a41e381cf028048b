//! Metrics, in one registry. Labels come from closed sets.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    kind: &'static str,
    error: &'static str,
}

/// The operator's metrics; cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    reconciles: Family<KindLabels, Counter>,
    failures: Family<FailureLabels, Counter>,
    durations: Family<KindLabels, Histogram, fn() -> Histogram>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("mycelium_operator");
        let reconciles = Family::default();
        registry.register("reconciles", "Reconciles that came to an end", reconciles.clone());
        let failures = Family::default();
        registry.register("reconcile_failures", "Reconciles that failed and are tried again", failures.clone());
        let durations: Family<KindLabels, Histogram, fn() -> Histogram> = Family::new_with_constructor(histogram);
        registry.register_with_unit("reconcile_duration", "Time of a reconcile", Unit::Seconds, durations.clone());
        Self { registry: Arc::new(registry), reconciles, failures, durations }
    }

    /// Counts a reconcile; `error` is the word of its failure.
    pub(crate) fn reconciled(&self, kind: &'static str, took: Duration, error: Option<&'static str>) {
        self.reconciles.get_or_create(&KindLabels { kind }).inc();
        self.durations.get_or_create(&KindLabels { kind }).observe(took.as_secs_f64());
        if let Some(error) = error {
            self.failures.get_or_create(&FailureLabels { kind, error }).inc();
        }
    }

    /// All metrics in the `OpenMetrics` text form.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// From a comparison in memory (1 ms) to an API server in trouble (8 s).
fn histogram() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.001, 2.0, 14))
}
