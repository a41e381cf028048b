//! Metrics in the format of `OpenMetrics`. Labels come from closed sets.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry as MetricRegistry, Unit};
use sidecar_consensus::Consensus;
use sidecar_metagraph::QuerierHandle;
use sidecar_peer::{Event, Registry};
use sidecar_util::http::{EntryState, GroupRole};
use tokio::sync::watch;

use crate::config::NetworkConfigError;
use crate::signer::SignerMetrics;

/// Every counter of the process, and where its gauges are read.
pub(crate) struct Metrics {
    registry: MetricRegistry,
    requests: Family<RequestLabels, Counter>,
    verifications: Family<VerificationLabels, Counter>,
    registry_events: Family<EventLabels, Counter>,
    peer_calls: Family<PeerLabels, Counter>,
    signer: SignerMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerificationLabels {
    result: String,
    cached: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabels {
    direction: &'static str,
    kind: &'static str,
    result: &'static str,
}

impl Metrics {
    /// Counters at nought, and gauges over the parts given.
    pub(crate) fn new(
        chain: QuerierHandle,
        entries: Arc<Registry>,
        group: watch::Receiver<Option<Consensus>>,
        config_error: watch::Receiver<Option<NetworkConfigError>>,
    ) -> Self {
        let mut registry = MetricRegistry::with_prefix("mycelium_sidecar");
        let requests = Family::default();
        registry.register("http_requests", "Requests answered, by route and status", requests.clone());
        let verifications = Family::default();
        registry.register("verifications", "Verifications answered, by result", verifications.clone());
        let registry_events = Family::default();
        registry.register("registry_events", "Changes of registry entries", registry_events.clone());
        let peer_calls = Family::default();
        registry.register("peer_calls", "Calls between members of the group", peer_calls.clone());
        let signer = SignerMetrics::register(&mut registry);
        registry.register_collector(Box::new(Gauges { chain, entries, group, config_error }));
        Self { registry, requests, verifications, registry_events, peer_calls, signer }
    }

    /// What the signer counts.
    pub(crate) fn signer(&self) -> SignerMetrics {
        self.signer.clone()
    }

    /// A request was answered.
    pub(crate) fn request(&self, route: &'static str, status: u16) {
        self.requests.get_or_create(&RequestLabels { route, status }).inc();
    }

    /// A verification was answered; `result` is a reason of `VerifyBody` or of a chain problem.
    pub(crate) fn verification(&self, result: &str, cached: bool) {
        let cached = if cached { "true" } else { "false" };
        self.verifications.get_or_create(&VerificationLabels { result: result.to_owned(), cached }).inc();
    }

    /// A registry entry changed.
    pub(crate) fn registry_event(&self, event: Event) {
        self.registry_events.get_or_create(&EventLabels { event: event.name() }).inc();
    }

    /// A call to a member (`out`) or from one (`in`) came to its end.
    pub(crate) fn peer_call(&self, direction: &'static str, kind: &'static str, result: &'static str) {
        self.peer_calls.get_or_create(&PeerLabels { direction, kind, result }).inc();
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub(crate) fn render(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Read when they are asked for, so that nobody has to keep them current.
struct Gauges {
    chain: QuerierHandle,
    entries: Arc<Registry>,
    group: watch::Receiver<Option<Consensus>>,
    config_error: watch::Receiver<Option<NetworkConfigError>>,
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauges").finish_non_exhaustive()
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.chain(&mut encoder)?;
        self.registry(&mut encoder)?;
        self.group(&mut encoder)?;
        let config_error = u64::from(self.config_error.borrow().is_some());
        gauge(&mut encoder, "network_file_error", "Whether the network file cannot be used", config_error)?;
        process(&mut encoder)
    }
}

impl Gauges {
    fn chain(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let view = self.chain.view();
        gauge(encoder, "chain_synced", "Whether the view of the chain is current", u64::from(view.is_synced()))?;
        if let Some(problem) = &view.problem {
            let help = "What keeps the view of the chain from being current";
            let metric = ConstGauge::new(1_u64);
            let mut descriptor = encoder.encode_descriptor("chain_problem", help, None, metric.metric_type())?;
            metric.encode(descriptor.encode_family(&[("reason", problem.reason())])?)?;
        }
        if let Some(metagraph) = &view.metagraph {
            gauge(encoder, "chain_block", "Block of the metagraph held", metagraph.block)?;
        }
        if let Some(age) = view.age() {
            let age = ConstGauge::new(age.as_secs_f64());
            let help = "Time since the last refresh";
            let descriptor =
                encoder.encode_descriptor("metagraph_age", help, Some(&Unit::Seconds), age.metric_type())?;
            age.encode(descriptor)?;
        }
        Ok(())
    }

    fn registry(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        const STATES: [(EntryState, &str); 5] = [
            (EntryState::Discovered, "discovered"),
            (EntryState::Verified, "verified"),
            (EntryState::Active, "active"),
            (EntryState::Inactive, "inactive"),
            (EntryState::BelowStake, "below_stake"),
        ];
        let status = self.entries.status();
        let help = "Validators and miners known, by state";
        let kind = ConstGauge::new(0_u64).metric_type();
        let mut descriptor = encoder.encode_descriptor("registry_entries", help, None, kind)?;
        for (state, name) in STATES {
            let count = status.states.get(&state).copied().unwrap_or_default() as u64;
            ConstGauge::new(count).encode(descriptor.encode_family(&[("state", name)])?)?;
        }
        Ok(())
    }

    fn group(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(group) = self.group.borrow().clone() else { return Ok(()) };
        let status = group.status();
        gauge(encoder, "group_leader", "Whether this member leads", u64::from(status.role == GroupRole::Leader))?;
        let voter = matches!(status.role, GroupRole::Leader | GroupRole::Follower | GroupRole::Candidate);
        gauge(encoder, "group_voter", "Whether this member votes", u64::from(voter))?;
        gauge(encoder, "group_has_leader", "Whether a leader is known", u64::from(status.leader.is_some()))?;
        gauge(encoder, "group_term", "Current term", status.term)?;
        gauge(encoder, "group_last_log_index", "Last entry of the log on disk", status.last_log_index)?;
        gauge(encoder, "group_applied_index", "Last entry applied", status.applied_index)
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

/// Memory in use, where the system tells.
fn process(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    // Pages are 4 KiB on every platform this runs on in practice; the kernel's own tools make the same assumption visible.
    const PAGE_BYTES: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let Some(pages) = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()) else {
        return Ok(());
    };
    let resident = ConstGauge::new(pages * PAGE_BYTES);
    let help = "Resident memory of the process";
    resident.encode(encoder.encode_descriptor("resident_memory", help, Some(&Unit::Bytes), resident.metric_type())?)
}
