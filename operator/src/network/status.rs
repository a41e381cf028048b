//! What a Network reports: pure.

use crds::v1alpha1::conditions::{self as c};
use crds::v1alpha1::{Network, NetworkChainStatus, NetworkGroupStatus, NetworkStatus};
use jiff::Timestamp;

use super::Seen;
use crate::chains::ChainState;
use crate::status::{Verdict, conditions};

/// Reason: no leader is known.
const NO_LEADER: &str = "NoLeader";
/// Reason: there is no validator, so there is no group.
const NO_VALIDATORS: &str = "NoValidators";

/// The status of a Network.
pub(super) fn network_status(
    network: &Network,
    seen: &Seen,
    group: Option<NetworkGroupStatus>,
    now: Timestamp,
) -> NetworkStatus {
    let before = network.status.clone().unwrap_or_default();
    // Right after the start of an operator the chain was not read: what is on record stands until it has been.
    let on_record = before.conditions.iter().find(|condition| condition.type_ == c::CHAIN_SYNCED);
    let synced = match on_record {
        Some(condition) if !seen.chain.looked_at => Verdict::on_record(condition),
        _ => chain_synced(&seen.chain),
    };
    let led = group_led(seen, group.as_ref());
    let ready = [&synced, &led].into_iter().find(|verdict| verdict.status != "True").map_or_else(
        || Verdict::yes("the chain is read and the group is led"),
        |verdict| Verdict::no(&verdict.reason, verdict.message.clone()),
    );
    let generation = network.metadata.generation;
    let verdicts = [(c::READY, ready), (c::CHAIN_SYNCED, synced), (c::GROUP_LED, led)];
    NetworkStatus {
        observed_generation: generation,
        conditions: conditions(&before.conditions, verdicts, generation, now),
        chain: Some(chain_status(&seen.chain, before.chain.as_ref())),
        validators: seen.validators,
        miners: seen.miners,
        group,
    }
}

fn chain_synced(chain: &ChainState) -> Verdict {
    match (&chain.problem, &chain.metagraph) {
        _ if !chain.looked_at => Verdict::unknown("the chain was not read yet"),
        (Some(problem), _) => Verdict::no(problem.reason, problem.message.clone()),
        (None, Some(_)) => Verdict::yes("the chain is being read"),
        (None, None) => Verdict::unknown("the chain was not read yet"),
    }
}

fn group_led(seen: &Seen, group: Option<&NetworkGroupStatus>) -> Verdict {
    match group {
        Some(group) if group.leader.is_some() => Verdict::yes("the group of validators has a leader"),
        _ if seen.validators == 0 => Verdict { reason: NO_VALIDATORS.into(), ..Verdict::yes("there is no validator") },
        Some(group) if group.founded => {
            Verdict::no(NO_LEADER, "no validator leads: a majority of the voters must be up")
        }
        Some(_) => Verdict::no(NO_LEADER, "the group of validators is being founded"),
        None => Verdict::no(NO_LEADER, "no validator is registered on the subnet, so none can found the group"),
    }
}

fn chain_status(chain: &ChainState, before: Option<&NetworkChainStatus>) -> NetworkChainStatus {
    let before = before.cloned().unwrap_or_default();
    let metagraph = chain.metagraph.as_deref();
    NetworkChainStatus {
        endpoint: chain.endpoint.clone(),
        // The first one seen on a chain that serves the subnet stays: a Network never moves to another chain by itself.
        genesis_hash: before.genesis_hash.or_else(|| metagraph.and(chain.genesis_hash).map(|hash| hash.to_string())),
        spec_version: chain.spec_version.or(before.spec_version),
        block: metagraph.map(|metagraph| metagraph.block).or(before.block),
        tempo: metagraph.map(|metagraph| metagraph.tempo).or(before.tempo),
        neurons: metagraph
            .map(|metagraph| u32::try_from(metagraph.neurons.len()).unwrap_or(u32::MAX))
            .or(before.neurons),
    }
}

/// Whether a new status should be written over an old one: blocks alone are written once a tempo.
pub(super) fn worth_writing(old: &NetworkStatus, new: &NetworkStatus) -> bool {
    let block = |status: &NetworkStatus| status.chain.as_ref().and_then(|chain| chain.block);
    let without_block = |status: &NetworkStatus| {
        let mut status = status.clone();
        if let Some(chain) = &mut status.chain {
            chain.block = None;
        }
        status
    };
    if without_block(old) != without_block(new) || block(old).is_some() != block(new).is_some() {
        return true;
    }
    let tempo = new.chain.as_ref().and_then(|chain| chain.tempo).unwrap_or(u16::MAX);
    block(new).unwrap_or(0).abs_diff(block(old).unwrap_or(0)) >= u64::from(tempo)
}
