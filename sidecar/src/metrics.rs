//! Metrics in the format of `OpenMetrics`. Labels come from closed sets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry as MetricRegistry, Unit};
use sidecar_consensus::Consensus;
use sidecar_metagraph::{EndpointHealth, EndpointState, QuerierHandle};
use sidecar_peer::{Event, Registry};
use sidecar_util::Hotkey;
use sidecar_util::http::{EntryState, GroupRole, NodeKind};
use tokio::sync::watch;

use crate::config::NetworkConfigError;
use crate::http::Refusal;
use crate::signer::SignerMetrics;

/// Upper ends of the buckets for the time of an answer, in seconds: from what the memory answers to the deadline of the chain.
const ANSWER_BUCKETS: [f64; 12] = [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 20.0];

/// Upper ends of the buckets for the time of a refresh, in seconds: from a node beside us to the deadline of a call.
const REFRESH_BUCKETS: [f64; 11] = [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0];

/// Results of a verification: the reasons of `VerifyBody`, those of a chain problem, and whatever else there may be one day.
/// The first is for what is none of the others.
const VERIFICATION_RESULTS: [&str; 15] = [
    "other",
    "verified",
    "not_registered",
    "below_minimum_stake",
    "no_validator_permit",
    "Connecting",
    "NoEndpoint",
    "EndpointDown",
    "GenesisMismatch",
    "SubnetMissing",
    "RequestRefused",
    "DecodeFailed",
    "NoNewBlock",
    "RateLimited",
    "FinalityStalled",
];

/// Every counter of the process, and where its gauges are read.
pub(crate) struct Metrics {
    registry: MetricRegistry,
    requests: Family<RequestLabels, Counter>,
    answers: Family<RouteLabels, Histogram, fn() -> Histogram>,
    connections_refused: Family<RefusalLabels, Counter>,
    chain_refreshes: Histogram,
    verifications: Family<VerificationLabels, Counter>,
    registry_events: Family<EventLabels, Counter>,
    peer_calls: Family<PeerLabels, Counter>,
    axon_requests: Family<AxonLabels, Counter>,
    probes: Family<ProbeLabels, Counter>,
    signer: SignerMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerificationLabels {
    result: &'static str,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AxonLabels {
    scheme: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbeLabels {
    result: &'static str,
}

impl Metrics {
    /// Counters at nought, and gauges over the parts given.
    pub(crate) fn new(
        (kind, hotkey): (NodeKind, Hotkey),
        chain: QuerierHandle,
        entries: Arc<Registry>,
        group: watch::Receiver<Option<Consensus>>,
        config_error: watch::Receiver<Option<NetworkConfigError>>,
    ) -> Self {
        let mut registry = MetricRegistry::with_prefix("mycelium_sidecar");
        let requests = Family::default();
        registry.register("http_requests", "Requests answered, by route and status", requests.clone());
        let answers: Family<RouteLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(ANSWER_BUCKETS));
        let help = "Time until the head of an answer, by route";
        registry.register_with_unit("http_request_duration", help, Unit::Seconds, answers.clone());
        let connections_refused = Family::default();
        registry.register("http_connections_refused", "Connections without a place", connections_refused.clone());
        let chain_refreshes = Histogram::new(REFRESH_BUCKETS);
        let help = "Time in which the chain answered a refresh of the metagraph";
        registry.register_with_unit("chain_refresh_duration", help, Unit::Seconds, chain_refreshes.clone());
        let kind = match kind {
            NodeKind::Validator => "validator",
            NodeKind::Miner => "miner",
        };
        let build = BuildLabels { version: env!("CARGO_PKG_VERSION"), kind };
        registry.register("build", "This program", Info::new(build));
        let verifications = Family::default();
        registry.register("verifications", "Verifications answered, by result", verifications.clone());
        let registry_events = Family::default();
        registry.register("registry_events", "Changes of registry entries", registry_events.clone());
        let peer_calls = Family::default();
        registry.register("peer_calls", "Calls between members of the group", peer_calls.clone());
        let axon_requests = Family::default();
        registry.register("axon_requests", "Requests at the axon gate, by scheme and result", axon_requests.clone());
        let probes = Family::default();
        registry.register("axon_probes", "Probes of axons, by what was found", probes.clone());
        let signer = SignerMetrics::register(&mut registry);
        registry.register_collector(Box::new(Gauges { hotkey, chain, entries, group, config_error }));
        Self {
            registry,
            requests,
            answers,
            connections_refused,
            chain_refreshes,
            verifications,
            registry_events,
            peer_calls,
            axon_requests,
            probes,
            signer,
        }
    }

    /// What the signer counts.
    pub(crate) fn signer(&self) -> SignerMetrics {
        self.signer.clone()
    }

    /// The metrics of one route, which whoever serves it keeps.
    pub(crate) fn route(&self, route: &'static str) -> RouteMetrics {
        RouteMetrics {
            route,
            requests: self.requests.clone(),
            answered: self.requests.get_or_create_owned(&RequestLabels { route, status: 200 }),
            duration: self.answers.get_or_create_owned(&RouteLabels { route }),
        }
    }

    /// A connection had no place.
    pub(crate) fn connection_refused(&self, refusal: Refusal) {
        let reason = match refusal {
            Refusal::Full => "full",
            Refusal::AddressFull => "address_full",
        };
        self.connections_refused.get_or_create(&RefusalLabels { reason }).inc();
    }

    /// The metagraph was read.
    pub(crate) fn chain_refresh(&self, time: Duration) {
        self.chain_refreshes.observe(time.as_secs_f64());
    }

    /// A verification was answered; `result` is a reason of `VerifyBody` or of a chain problem.
    pub(crate) fn verification(&self, result: &str, cached: bool) {
        let cached = if cached { "true" } else { "false" };
        let known = VERIFICATION_RESULTS.into_iter().find(|known| *known == result);
        let result = known.unwrap_or(VERIFICATION_RESULTS[0]);
        self.verifications.get_or_create(&VerificationLabels { result, cached }).inc();
    }

    /// A registry entry changed.
    pub(crate) fn registry_event(&self, event: Event) {
        self.registry_events.get_or_create(&EventLabels { event: event.name() }).inc();
    }

    /// A call to a member (`out`) or from one (`in`) came to its end.
    pub(crate) fn peer_call(&self, direction: &'static str, kind: &'static str, result: &'static str) {
        self.peer_calls.get_or_create(&PeerLabels { direction, kind, result }).inc();
    }

    /// A request at the axon gate was answered; `result` is `ok`, `failed`, or why it was refused.
    pub(crate) fn axon_request(&self, scheme: &'static str, result: &'static str) {
        self.axon_requests.get_or_create(&AxonLabels { scheme, result }).inc();
    }

    /// An axon was probed.
    pub(crate) fn probe(&self, result: &'static str) {
        self.probes.get_or_create(&ProbeLabels { result }).inc();
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

/// Metrics of one route.
pub(crate) struct RouteMetrics {
    route: &'static str,
    requests: Family<RequestLabels, Counter>,
    /// Of the requests, those answered with 200: nearly all, and found without looking.
    answered: Counter,
    duration: Histogram,
}

impl RouteMetrics {
    /// A request was answered.
    pub(crate) fn answered(&self, status: u16, after: Duration) {
        self.duration.observe(after.as_secs_f64());
        if status == 200 {
            self.answered.inc();
        } else {
            self.requests.get_or_create(&RequestLabels { route: self.route, status }).inc();
        }
    }
}

/// Read when they are asked for, so that nobody has to keep them current.
struct Gauges {
    hotkey: Hotkey,
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
            if let Some(own) = metagraph.by_hotkey(&self.hotkey) {
                let help = "Blocks since this hotkey set weights";
                gauge(encoder, "weights_age_blocks", help, metagraph.block.saturating_sub(own.last_update))?;
            }
        }
        if let Some(age) = view.age() {
            let age = ConstGauge::new(age.as_secs_f64());
            let help = "Time since the last refresh";
            let descriptor =
                encoder.encode_descriptor("metagraph_age", help, Some(&Unit::Seconds), age.metric_type())?;
            age.encode(descriptor)?;
        }
        endpoints(&view.endpoints, encoder)
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

/// Each endpoint by its place in the configuration: addresses of paid endpoints hold a key.
fn endpoints(endpoints: &[EndpointHealth], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let kind = ConstGauge::new(0_u64).metric_type();
    let help = "State of each chain endpoint, by its place in the configuration";
    let mut states = encoder.encode_descriptor("chain_endpoint_state", help, None, kind)?;
    for (place, health) in endpoints.iter().enumerate() {
        for state in EndpointState::ALL {
            let labels = [("endpoint", place.to_string()), ("state", state.name().to_owned())];
            ConstGauge::new(u64::from(health.state == state)).encode(states.encode_family(&labels)?)?;
        }
    }
    let help = "How good each chain endpoint is, from 0 to 1";
    let mut scores = encoder.encode_descriptor("chain_endpoint_score", help, None, kind)?;
    for (place, health) in endpoints.iter().enumerate() {
        ConstGauge::new(health.score).encode(scores.encode_family(&[("endpoint", place.to_string())])?)?;
    }
    let help = "Mean time of a call to each chain endpoint";
    let mut latencies = encoder.encode_descriptor("chain_endpoint_latency", help, Some(&Unit::Seconds), kind)?;
    for (place, health) in endpoints.iter().enumerate() {
        if let Some(latency_ms) = health.latency_ms {
            let latency = ConstGauge::new(latency_ms / 1000.0);
            latency.encode(latencies.encode_family(&[("endpoint", place.to_string())])?)?;
        }
    }
    Ok(())
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
