//! Metrics for Prometheus, under the names that Substrate's nodes use where those have the same.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::faults::Faults;
use crate::node::{Node, PoolError};

/// Label of calls to methods that do not exist: names of a client's choosing must not become labels.
const UNKNOWN_METHOD: &str = "unknown";

/// Every metric of the process.
pub struct Metrics {
    registry: Mutex<Registry>,
    height: Family<StatusLabel, Gauge>,
    ready: Gauge,
    sockets: Gauge,
    spec_version: Gauge,
    calls: Family<CallLabels, Counter>,
    call_time: Family<MethodLabel, Histogram, fn() -> Histogram>,
    block_time: Histogram,
    extrinsics: Counter,
    submitted: Family<ResultLabel, Counter>,
    faults: Family<FaultLabel, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    is_error: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabel {
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabel {
    kind: &'static str,
}

/// From a tenth of a millisecond to ten seconds.
fn time_histogram() -> Histogram {
    Histogram::new(exponential_buckets(1e-4, 10f64.sqrt(), 11))
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::default()),
            height: Family::default(),
            ready: Gauge::default(),
            sockets: Gauge::default(),
            spec_version: Gauge::default(),
            calls: Family::default(),
            call_time: Family::new_with_constructor(time_histogram),
            block_time: time_histogram(),
            extrinsics: Counter::default(),
            submitted: Family::default(),
            faults: Family::default(),
        };
        {
            let mut registry = metrics.registry.lock();
            registry.register("substrate_block_height", "Height of the chain", metrics.height.clone());
            let help = "Extrinsics in the pool";
            registry.register("substrate_ready_transactions_number", help, metrics.ready.clone());
            registry.register("substrate_rpc_sessions", "Open sockets", metrics.sockets.clone());
            registry.register("devchain_spec_version", "Spec version of the runtime", metrics.spec_version.clone());
            registry.register("substrate_rpc_calls_finished", "JSON-RPC calls answered", metrics.calls.clone());
            let help = "Seconds from a JSON-RPC call to its answer";
            registry.register("substrate_rpc_calls_time", help, metrics.call_time.clone());
            let help = "Seconds to build a block";
            registry.register("substrate_proposer_block_constructed", help, metrics.block_time.clone());
            let help = "Extrinsics in blocks, those of the chain itself not counted";
            registry.register("devchain_extrinsics", help, metrics.extrinsics.clone());
            let help = "Extrinsics that were submitted, by what the pool said";
            registry.register("devchain_submissions", help, metrics.submitted.clone());
            registry.register("devchain_faults_struck", "Injected faults that struck", metrics.faults.clone());
        }
        metrics
    }
}

impl Metrics {
    /// A block was made.
    pub(crate) fn block_made(&self, took: Duration, extrinsics: usize) {
        self.block_time.observe(took.as_secs_f64());
        self.extrinsics.inc_by(extrinsics as u64);
    }

    /// An extrinsic was submitted; the pool took it unless there is an error.
    pub(crate) fn submitted(&self, error: Option<&PoolError>) {
        let result = match error {
            None => "accepted",
            Some(PoolError::BadFormat(_)) => "bad_format",
            Some(PoolError::Invalid(_)) => "invalid",
            Some(PoolError::Unknown(_)) => "unknown_validity",
            Some(PoolError::TemporarilyBanned) => "temporarily_banned",
            Some(PoolError::AlreadyImported(_)) => "already_imported",
            Some(PoolError::TooLowPriority { .. }) => "priority_too_low",
            Some(PoolError::ImmediatelyDropped) => "dropped",
        };
        self.submitted.get_or_create(&ResultLabel { result }).inc();
    }

    /// A JSON-RPC call was answered; there is no name where there is no such method.
    pub(crate) fn called(&self, method: Option<&'static str>, took: Duration, is_error: bool) {
        let method = method.unwrap_or(UNKNOWN_METHOD);
        let is_error = if is_error { "true" } else { "false" };
        self.calls.get_or_create(&CallLabels { method, is_error }).inc();
        self.call_time.get_or_create(&MethodLabel { method }).observe(took.as_secs_f64());
    }

    /// Everything as text.
    pub(crate) fn encode(&self, node: &Node) -> String {
        let height = |status: &'static str, number: u32| {
            self.height.get_or_create(&StatusLabel { status }).set(number.into());
        };
        height("best", node.best().header.number);
        height("finalized", node.finalized().header.number);
        self.ready.set(as_gauge(node.pool_len()));
        self.sockets.set(as_gauge(node.faults().open_sockets()));
        if let Ok(spec_version) = node.spec_version() {
            self.spec_version.set(spec_version.into());
        }
        self.set_faults(node.faults());
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = text::encode(&mut text, &self.registry.lock());
        text
    }

    fn set_faults(&self, faults: &Faults) {
        for (kind, struck) in faults.totals() {
            let label = FaultLabel { kind: kind.name() };
            self.faults.get_or_create(&label).set(i64::try_from(struck).unwrap_or(i64::MAX));
        }
    }
}

fn as_gauge(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
