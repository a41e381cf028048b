//! What a node reports: pure, from what was observed and what came of the plan.
//!
//! Values of the chain change with every block, so a status is written when something that people wait for changes
//! ([`worth_writing`]), and otherwise once a tempo.

use std::collections::BTreeMap;

use crds::v1alpha1::conditions::{self as c, reason};
use crds::v1alpha1::{AxonExposure, AxonStatus, GroupMemberStatus, NeuronStatus, NodeStatus, PodStatus, SidecarStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt as _;
use sidecar_util::http::{GroupRole, SignerState, StatusBody};
use sidecar_util::{Metagraph, Neuron, Score, Tao};

use crate::apply::Outcome;
use crate::node::{Kind, NodeObject};
use crate::observe::Observed;
use crate::plan::{Hold, hold};
use crate::sidecars::Answer;

/// A condition before it has a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) status: &'static str,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Verdict {
    pub(crate) fn yes(message: impl Into<String>) -> Self {
        Self { status: "True", reason: reason::AS_EXPECTED.into(), message: message.into() }
    }

    pub(crate) fn no(reason: &str, message: impl Into<String>) -> Self {
        Self { status: "False", reason: reason.into(), message: message.into() }
    }

    pub(crate) fn unknown(message: impl Into<String>) -> Self {
        Self { status: "Unknown", reason: reason::UNKNOWN.into(), message: message.into() }
    }

    /// What a condition said.
    pub(crate) fn on_record(condition: &Condition) -> Self {
        let status = match condition.status.as_str() {
            "True" => "True",
            "False" => "False",
            _ => "Unknown",
        };
        Self { status, reason: condition.reason.clone(), message: condition.message.clone() }
    }

    fn holds(&self) -> bool {
        self.status == "True"
    }
}

/// Gives verdicts their times: a status that stays keeps the time of its last change.
pub(crate) fn conditions(
    before: &[Condition],
    verdicts: impl IntoIterator<Item = (&'static str, Verdict)>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let turn = |(type_, verdict): (&'static str, Verdict)| {
        let old = before.iter().find(|old| old.type_ == type_ && old.status == verdict.status);
        Condition {
            type_: type_.into(),
            status: verdict.status.into(),
            reason: verdict.reason,
            message: verdict.message,
            observed_generation: generation,
            last_transition_time: old.map_or(Time(now), |old| old.last_transition_time.clone()),
        }
    };
    verdicts.into_iter().map(turn).collect()
}

/// The status of a node.
pub(crate) fn node_status(node: &NodeObject, observed: &Observed, outcome: &Outcome, now: Timestamp) -> NodeStatus {
    let neuron = neuron(node, observed);
    let verdicts = verdicts(node, observed, outcome, neuron);
    let hotkey = match &observed.hotkey {
        Some(Ok(hotkey)) => node.status.hotkey.clone().or_else(|| Some(hotkey.to_string())),
        _ => node.status.hotkey.clone(),
    };
    NodeStatus {
        observed_generation: node.generation,
        conditions: conditions(&node.status.conditions, verdicts, node.generation, now),
        hotkey,
        netuid: observed.network.as_ref().map(|network| network.spec.netuid),
        // What the chain said last stays while the chain cannot be read.
        neuron: match &observed.chain.metagraph {
            Some(metagraph) => neuron.map(|neuron| neuron_status(neuron, metagraph)),
            None => node.status.neuron.clone(),
        },
        sidecar: match &observed.sidecar {
            Answer::NotAsked => node.status.sidecar.clone(),
            answer => answer.body().map(sidecar_status),
        },
        group: match &observed.sidecar {
            Answer::NotAsked => node.status.group.clone(),
            answer => answer.body().and_then(group_status),
        },
        pod: observed.pod.as_ref().map(|pod| PodStatus {
            name: pod.name_any(),
            phase: pod.status.as_ref().and_then(|status| status.phase.clone()),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        }),
    }
}

/// The node's own neuron in the metagraph.
fn neuron<'a>(node: &NodeObject, observed: &'a Observed) -> Option<&'a Neuron> {
    let hotkey = match (&node.status.hotkey, &observed.hotkey) {
        (Some(hotkey), _) => hotkey.parse().ok()?,
        (None, Some(Ok(hotkey))) => *hotkey,
        _ => return None,
    };
    observed.chain.metagraph.as_ref()?.by_hotkey(&hotkey)
}

/// The chain's values as people read them.
pub(crate) fn neuron_status(neuron: &Neuron, metagraph: &Metagraph) -> NeuronStatus {
    let share = |score: Score| format!("{:.4}", score.as_f64());
    NeuronStatus {
        uid: neuron.uid.0,
        coldkey: neuron.coldkey.to_string(),
        registered_at_block: neuron.registered_at,
        stake: neuron.total_stake.to_string(),
        alpha_stake: neuron.alpha_stake.to_string(),
        tao_stake: neuron.tao_stake.to_string(),
        validator_permit: neuron.validator_permit,
        active: neuron.active,
        vtrust: share(neuron.vtrust),
        consensus: share(neuron.consensus),
        incentive: share(neuron.incentive),
        dividends: share(neuron.dividends),
        emission: neuron.emission.to_string(),
        last_weights_block: if has_set_weights(neuron) { neuron.last_update } else { 0 },
        weights_age_blocks: has_set_weights(neuron).then(|| metagraph.block.saturating_sub(neuron.last_update)),
        axon: neuron.axon.as_ref().map(|axon| AxonStatus {
            endpoint: std::net::SocketAddr::new(axon.ip, axon.port).to_string(),
            served_at_block: axon.block,
        }),
        block: metagraph.block,
    }
}

/// Registration counts as an update on chain; weights come after it.
fn has_set_weights(neuron: &Neuron) -> bool {
    neuron.last_update > neuron.registered_at
}

fn sidecar_status(sidecar: &StatusBody) -> SidecarStatus {
    SidecarStatus {
        version: sidecar.version.clone(),
        synced: sidecar.chain.synced,
        registry_size: u32::try_from(sidecar.registry.total).unwrap_or(u32::MAX),
    }
}

fn group_status(sidecar: &StatusBody) -> Option<GroupMemberStatus> {
    let group = sidecar.group.as_ref()?;
    Some(GroupMemberStatus {
        role: role_word(group.role).into(),
        leader: group.leader.map(|leader| leader.to_string()),
        node_id: group.node_id.to_string(),
        term: group.term,
        applied_index: group.applied_index,
        restored_index: group.restored_index,
    })
}

fn role_word(role: GroupRole) -> &'static str {
    match role {
        GroupRole::Leader => "leader",
        GroupRole::Follower => "follower",
        GroupRole::Candidate => "candidate",
        GroupRole::Learner => "learner",
        GroupRole::Outside => "outside",
    }
}

fn verdicts(
    node: &NodeObject,
    observed: &Observed,
    outcome: &Outcome,
    neuron: Option<&Neuron>,
) -> Vec<(&'static str, Verdict)> {
    let hold = hold(node, observed);
    let validator = node.key.kind == Kind::Validator;
    let invalid = invalid(hold.as_ref(), outcome);
    let mut verdicts = vec![
        (c::INVALID_SPEC, invalid.clone()),
        (c::HOTKEY_RESERVED, reserved(hold.as_ref(), observed)),
        (c::PAUSED, paused(node)),
        (c::CHAIN_SYNCED, chain_synced(observed)),
        (c::REGISTERED, registered(node, observed, neuron)),
    ];
    if validator {
        verdicts.push((c::STAKE_SUFFICIENT, stake_sufficient(observed, neuron)));
        verdicts.push((c::VALIDATOR_PERMIT, permit(neuron)));
        verdicts.push((c::WEIGHTS_CURRENT, weights_current(neuron)));
        verdicts.push((c::VOTER, voter(observed)));
    }
    verdicts.push((c::STATE_DURABLE, durable(observed)));
    verdicts.push((c::SIGNER_HELD, signer_held(observed)));
    verdicts.push((c::AXON_PUBLISHED, axon_published(node, neuron)));
    keep_what_is_not_known_yet(&mut verdicts, node, observed);
    verdicts.push((c::UP_TO_DATE, up_to_date(observed, outcome, hold.as_ref())));
    let ready = ready(&verdicts, node, observed);
    verdicts.insert(0, (c::READY, ready));
    verdicts
}

/// Right after the start of an operator the chain was not read and the sidecars were not asked: what is on record stands
/// until they have been.
fn keep_what_is_not_known_yet(verdicts: &mut [(&'static str, Verdict)], node: &NodeObject, observed: &Observed) {
    const OF_CHAIN: [&str; 6] = [
        c::CHAIN_SYNCED,
        c::REGISTERED,
        c::STAKE_SUFFICIENT,
        c::VALIDATOR_PERMIT,
        c::WEIGHTS_CURRENT,
        c::AXON_PUBLISHED,
    ];
    for (type_, verdict) in verdicts {
        let chain_unknown = OF_CHAIN.contains(type_) && !observed.chain.looked_at;
        let sidecar_unknown =
            [c::VOTER, c::SIGNER_HELD].contains(type_) && matches!(observed.sidecar, Answer::NotAsked);
        if chain_unknown || sidecar_unknown {
            let on_record = node.status.conditions.iter().find(|condition| condition.type_ == *type_);
            *verdict = on_record.map_or_else(|| Verdict::unknown("not looked at yet"), Verdict::on_record);
        }
    }
}

fn invalid(hold: Option<&Hold>, outcome: &Outcome) -> Verdict {
    match (hold, &outcome.rejected) {
        (Some(Hold::Invalid { reason, message }), _) => {
            Verdict { status: "True", reason: (*reason).into(), message: message.clone() }
        }
        (_, Some(words)) => Verdict { status: "True", reason: reason::REJECTED.into(), message: words.clone() },
        _ => Verdict::no(reason::AS_EXPECTED, "the spec can be acted on"),
    }
}

fn reserved(hold: Option<&Hold>, observed: &Observed) -> Verdict {
    use crate::observe::Reservation;
    match (hold, &observed.reservation) {
        (_, Reservation::Taken(holder)) => {
            let message = format!(
                "the hotkey is run by {} {}/{}: one hotkey must have one signer, so delete that one first or use another hotkey",
                holder.kind, holder.namespace, holder.name
            );
            Verdict::no(reason::HOTKEY_TAKEN, message)
        }
        (_, Reservation::Held) => Verdict::yes("no other resource may run this hotkey"),
        (Some(Hold::WaitingForChain), _) => {
            let message =
                "the hotkey is reserved on a chain, and the chain's genesis is not known yet: see ChainSynced";
            Verdict { status: "Unknown", reason: reason::WAITING_FOR_CHAIN.into(), message: message.into() }
        }
        _ => Verdict::unknown("not reserved yet"),
    }
}

fn paused(node: &NodeObject) -> Verdict {
    if node.spec.suspend {
        Verdict {
            status: "True",
            reason: reason::SUSPENDED.into(),
            message: "spec.suspend is true: the pod is stopped".into(),
        }
    } else {
        Verdict::no(reason::AS_EXPECTED, "not suspended")
    }
}

fn chain_synced(observed: &Observed) -> Verdict {
    match (&observed.chain.problem, &observed.chain.metagraph) {
        (Some(problem), _) => Verdict::no(problem.reason, problem.message.clone()),
        (None, Some(_)) => Verdict::yes("the chain is being read"),
        (None, None) => Verdict::unknown("the chain was not read yet"),
    }
}

fn registered(node: &NodeObject, observed: &Observed, neuron: Option<&Neuron>) -> Verdict {
    let Some(metagraph) = &observed.chain.metagraph else { return Verdict::unknown("the chain was not read yet") };
    let netuid = metagraph.netuid;
    let Some(neuron) = neuron else {
        let hotkey = node.status.hotkey.as_deref().unwrap_or("the hotkey");
        let message = format!("{hotkey} has no uid on subnet {netuid}: register it with its coldkey");
        return Verdict::no(reason::NOT_REGISTERED, message);
    };
    match &node.spec.coldkey {
        Some(coldkey) if *coldkey != neuron.coldkey.to_string() => {
            let message =
                format!("uid {} is owned by coldkey {}, but spec.coldkey is {coldkey}", neuron.uid, neuron.coldkey);
            Verdict::no("ForeignColdkey", message)
        }
        _ => Verdict::yes(format!("uid {} on subnet {netuid}", neuron.uid)),
    }
}

fn stake_sufficient(observed: &Observed, neuron: Option<&Neuron>) -> Verdict {
    let (Some(network), Some(neuron)) = (&observed.network, neuron) else {
        return Verdict::unknown("not registered, or the chain was not read yet");
    };
    let minimum = network.spec.minimum_stake.0;
    if neuron.total_stake >= minimum {
        Verdict::yes(format!("total stake reaches the Network's minimum of {minimum} TAO"))
    } else {
        let message = format!(
            "total stake is {} TAO, the Network's minimum is {minimum} TAO: \
             add stake to the hotkey, or lower spec.minimumStake of the Network",
            neuron.total_stake
        );
        Verdict::no(reason::BELOW_MINIMUM_STAKE, message)
    }
}

fn permit(neuron: Option<&Neuron>) -> Verdict {
    match neuron {
        None => Verdict::unknown("not registered, or the chain was not read yet"),
        Some(neuron) if neuron.validator_permit => Verdict::yes("the chain counts this validator's weights"),
        Some(_) => Verdict::no(
            reason::NO_PERMIT,
            "not among the heaviest validators at the last epoch: permits are given at each epoch, by stake",
        ),
    }
}

fn weights_current(neuron: Option<&Neuron>) -> Verdict {
    match neuron {
        None => Verdict::unknown("not registered, or the chain was not read yet"),
        Some(neuron) if !has_set_weights(neuron) => {
            Verdict::no(reason::NEVER_SET, "no weights were set since registration")
        }
        Some(neuron) if neuron.active => Verdict::yes("the chain counts the last weights"),
        Some(neuron) => {
            let message =
                format!("the last weights are of block {} and too old to count: set new ones", neuron.last_update);
            Verdict::no(reason::WEIGHTS_STALE, message)
        }
    }
}

fn axon_published(node: &NodeObject, neuron: Option<&Neuron>) -> Verdict {
    match neuron {
        None => Verdict::unknown("not registered, or the chain was not read yet"),
        Some(neuron) if neuron.axon.is_some() => Verdict::yes("the chain holds an axon for the hotkey"),
        Some(_) if node.spec.axon.exposure == AxonExposure::None => {
            Verdict::no(reason::NOT_EXPOSED, "spec.axon.exposure is None")
        }
        Some(_) => Verdict::no(reason::NOT_SERVED, "the chain holds no axon for the hotkey: serve one"),
    }
}

fn durable(observed: &Observed) -> Verdict {
    let phase = observed.claim.as_ref().and_then(|claim| claim.status.as_ref()?.phase.clone());
    match phase.as_deref() {
        Some("Bound") => Verdict::yes("the volume is bound"),
        Some(phase) => Verdict::no(reason::VOLUME_PENDING, format!("the volume claim is {phase}")),
        None => Verdict::unknown("there is no volume claim yet"),
    }
}

fn voter(observed: &Observed) -> Verdict {
    let Some(sidecar) = observed.sidecar.body() else { return silent() };
    match sidecar.group.as_ref().map(|group| group.role) {
        Some(GroupRole::Leader | GroupRole::Follower | GroupRole::Candidate) => Verdict::yes("votes in the group"),
        Some(GroupRole::Learner) => Verdict::no(reason::LEARNER, "follows the group without a vote"),
        Some(GroupRole::Outside) | None => Verdict::no(
            reason::OUTSIDE,
            "not part of the group yet: the group's leader takes it in once it is reachable",
        ),
    }
}

/// What the sidecar says of its signer, in its words. What passes by itself at every start and end is no verdict yet.
fn signer_held(observed: &Observed) -> Verdict {
    let Some(sidecar) = observed.sidecar.body() else { return silent() };
    let Some(signer) = &sidecar.signer else { return Verdict::unknown("the sidecar is starting") };
    let message = signer.detail.clone().unwrap_or_default();
    match signer.state {
        SignerState::Held => Verdict::yes("the sidecar holds the signing lease of the hotkey"),
        SignerState::Starting | SignerState::Released => {
            Verdict { reason: signer.reason.clone(), ..Verdict::unknown(message) }
        }
        SignerState::Waiting | SignerState::Unreachable | SignerState::MessagesOnly | SignerState::ForeignSigner => {
            Verdict::no(&signer.reason, message)
        }
    }
}

fn silent() -> Verdict {
    Verdict { reason: reason::SIDECAR_SILENT.into(), ..Verdict::unknown("the sidecar does not answer") }
}

fn up_to_date(observed: &Observed, outcome: &Outcome, hold: Option<&Hold>) -> Verdict {
    match (&observed.pod, hold, &outcome.rejected) {
        (_, Some(hold), _) if *hold != Hold::Suspended => {
            Verdict::unknown("the spec is not acted on: see the other conditions")
        }
        (_, _, Some(words)) => Verdict::no(reason::REJECTED, words.clone()),
        (None, Some(_), _) => Verdict::yes("suspended, and there is no pod"),
        (None, None, _) => Verdict::no(reason::POD_STARTING, "the pod is being created"),
        (Some(pod), _, _) if pod.metadata.deletion_timestamp.is_some() => {
            Verdict::no(reason::REPLACING, "the old pod is on its way out")
        }
        (Some(_), _, _) if outcome.notes.iter().any(crate::events::Note::is_pod_deletion) => {
            Verdict::no(reason::REPLACING, "the old pod is on its way out")
        }
        (Some(_), _, _) => Verdict::yes("the pod is as the spec asks for"),
    }
}

/// Ready is the first thing that is missing, in the order in which a user would mend it.
fn ready(verdicts: &[(&'static str, Verdict)], node: &NodeObject, observed: &Observed) -> Verdict {
    let by_type: BTreeMap<&str, &Verdict> = verdicts.iter().map(|(type_, verdict)| (*type_, verdict)).collect();
    let copy = |type_: &str| by_type.get(type_).map(|verdict| Verdict::no(&verdict.reason, verdict.message.clone()));
    let failing = |type_: &str| by_type.get(type_).is_some_and(|verdict| !verdict.holds());
    if by_type.get(c::INVALID_SPEC).is_some_and(|verdict| verdict.holds()) {
        return copy(c::INVALID_SPEC).unwrap_or_else(|| Verdict::unknown("unknown"));
    }
    if node.spec.suspend {
        return Verdict::no(reason::SUSPENDED, "spec.suspend is true: the pod is stopped");
    }
    for type_ in [c::HOTKEY_RESERVED, c::CHAIN_SYNCED, c::REGISTERED, c::STAKE_SUFFICIENT, c::UP_TO_DATE] {
        if failing(type_) {
            return copy(type_).unwrap_or_else(|| Verdict::unknown("unknown"));
        }
    }
    pod_ready(observed.pod.as_ref())
}

/// What keeps a pod from being ready, in its own words.
fn pod_ready(pod: Option<&Pod>) -> Verdict {
    let Some(pod) = pod else { return Verdict::no(reason::POD_STARTING, "the pod is being created") };
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let condition = |type_: &str| conditions.iter().find(|condition| condition.type_ == type_);
    if condition("Ready").is_some_and(|ready| ready.status == "True") {
        return Verdict::yes("the pod is ready, the chain is read, the hotkey is registered");
    }
    if let Some(scheduled) = condition("PodScheduled").filter(|scheduled| scheduled.status == "False") {
        let message = scheduled.message.clone().unwrap_or_else(|| "the pod has no node".into());
        return Verdict::no(reason::POD_UNSCHEDULABLE, message);
    }
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    if let Some(message) = containers.clone().find_map(failure) {
        return Verdict::no(reason::POD_FAILING, message);
    }
    let waiting: Vec<String> =
        containers.filter(|container| !container.ready).map(|container| format!("`{}`", container.name)).collect();
    Verdict::no(
        reason::POD_STARTING,
        format!("not ready yet: {}", if waiting.is_empty() { "the pod".into() } else { waiting.join(", ") }),
    )
}

/// A container that does not come up by itself, and the last words of it.
fn failure(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let why = waiting.reason.as_deref()?;
    // These two are steps of every start.
    if matches!(why, "ContainerCreating" | "PodInitializing") {
        return None;
    }
    let last_words = || container.last_state.as_ref()?.terminated.as_ref()?.message.clone();
    let detail = last_words().or_else(|| waiting.message.clone()).unwrap_or_default();
    // The kubelet may give the end of the log, of which the last line says what happened.
    let detail = detail.trim_end().lines().next_back().unwrap_or_default();
    Some(format!("container `{}`: {why}: {detail}", container.name))
}

/// Whether a new status should be written over an old one.
pub(crate) fn worth_writing(old: &NodeStatus, new: &NodeStatus, tempo: Option<u16>) -> bool {
    if without_chain_drift(old) != without_chain_drift(new) {
        return true;
    }
    let block = |status: &NodeStatus| status.neuron.as_ref().map_or(0, |neuron| neuron.block);
    let due = block(new).abs_diff(block(old)) >= u64::from(tempo.unwrap_or(u16::MAX));
    due && old != new
}

/// Whether a metagraph is news for a node, so that its status should be looked at again.
pub(crate) fn chain_news(
    node: &NodeStatus,
    neuron: Option<&Neuron>,
    metagraph: &Metagraph,
    minimum_stake: Tao,
) -> bool {
    let after = NodeStatus { neuron: neuron.map(|neuron| neuron_status(neuron, metagraph)), ..node.clone() };
    let sufficient = |condition: &&Condition| condition.type_ == c::STAKE_SUFFICIENT;
    let stake_turned = node.conditions.iter().find(sufficient).is_some_and(|condition| {
        neuron.is_some_and(|neuron| (neuron.total_stake >= minimum_stake) != (condition.status == "True"))
    });
    stake_turned || worth_writing(node, &after, Some(metagraph.tempo))
}

/// A status without the values that move by themselves from block to block.
fn without_chain_drift(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    if let Some(neuron) = &mut status.neuron {
        // What stays counts at once: uid, owner, permit, activity, axon, and that weights were set.
        *neuron = NeuronStatus {
            uid: neuron.uid,
            coldkey: std::mem::take(&mut neuron.coldkey),
            registered_at_block: neuron.registered_at_block,
            validator_permit: neuron.validator_permit,
            active: neuron.active,
            last_weights_block: neuron.last_weights_block,
            axon: neuron.axon.take(),
            ..NeuronStatus::default()
        };
    }
    if let Some(group) = &mut status.group {
        group.applied_index = 0;
    }
    status
}

#[cfg(test)]
mod tests;
