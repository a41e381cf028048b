//! What is counted of signatures. Labels come from closed sets.

use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// What was to be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A message of a domain.
    Message,
    /// A request to another neuron, by one of the typed schemes.
    Request,
    /// An extrinsic.
    Extrinsic,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Request => "request",
            Self::Extrinsic => "extrinsic",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    kind: &'static str,
    result: &'static str,
}

/// What gauges show of the signer at the moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gauges {
    pub(crate) held: bool,
    pub(crate) lease_left_s: f64,
    pub(crate) epoch: u64,
    pub(crate) foreign: bool,
}

/// Reads the gauges.
type Source = Arc<dyn Fn() -> Gauges + Send + Sync>;

/// Counters of the signer, and where its gauges are read; a clone counts the same.
#[derive(Clone, Default)]
pub(crate) struct SignerMetrics {
    signatures: Family<Labels, Counter>,
    source: Arc<OnceLock<Source>>,
}

impl SignerMetrics {
    /// Counters at nought in a registry.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("signatures", "Signatures asked for, by kind and result", metrics.signatures.clone());
        registry.register_collector(Box::new(metrics.clone()));
        metrics
    }

    /// Where gauges are read from now on.
    pub(crate) fn read_from(&self, source: impl Fn() -> Gauges + Send + Sync + 'static) {
        // A process has one signer; a second one would be a mistake that shows in the gauges.
        let _ = self.source.set(Arc::new(source));
    }

    /// A signature was made (`signed`), or refused for a reason from a closed set.
    pub(crate) fn signature(&self, kind: Kind, result: &'static str) {
        self.signatures.get_or_create(&Labels { kind: kind.name(), result }).inc();
    }
}

impl std::fmt::Debug for SignerMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignerMetrics").finish_non_exhaustive()
    }
}

impl Collector for SignerMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Some(source) = self.source.get() else { return Ok(()) };
        let Gauges { held, lease_left_s, epoch, foreign } = source();
        for (name, help, value) in [
            ("signer_held", "Whether this process may sign", u64::from(held)),
            ("signer_epoch", "Epoch of the signing lease held, or 0", epoch),
            ("signer_foreign_seen", "Whether another process was seen to sign with the hotkey", u64::from(foreign)),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let left = ConstGauge::new(lease_left_s);
        let help = "Time for which the signing lease is good without being renewed";
        let descriptor =
            encoder.encode_descriptor("signer_lease_left", help, Some(&Unit::Seconds), left.metric_type())?;
        left.encode(descriptor)
    }
}
