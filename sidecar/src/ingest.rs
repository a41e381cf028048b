//! From the chain to everybody who needs it: metagraph -> registry and verifier -> stakes for the group.

use std::collections::BTreeSet;
use std::sync::Arc;

use sidecar_consensus::{Consensus, StakeObservation};
use sidecar_peer::{Change, Rules};
use sidecar_util::Metagraph;
use sidecar_util::config::NetworkConfig;
use sidecar_util::http::NodeKind;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::app::{App, verify_rules};

/// Carries every metagraph on until `stop`.
pub(crate) async fn run(app: Arc<App>, stop: CancellationToken) {
    let (mut chain, mut networks, mut groups) = (app.chain.watch(), app.file.network.clone(), app.group.clone());
    let mut block_hash = None;
    loop {
        let view = chain.borrow_and_update().clone();
        let network = networks.borrow_and_update().clone();
        let group = groups.borrow_and_update().clone();
        if let Some(metagraph) = &view.metagraph {
            take_in(&app, metagraph, &network, group.as_ref());
            if block_hash.replace(metagraph.block_hash) != Some(metagraph.block_hash)
                && let Some(time) = view.refresh_time
            {
                app.metrics.chain_refresh(time);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = chain.changed() => if changed.is_err() {
                // The querier is gone, without which nothing here is worth anything.
                return;
            },
            Ok(()) = networks.changed() => {}
            Ok(()) = groups.changed() => {}
        }
    }
}

/// Taking in the same twice changes nothing, so nobody has to remember what was taken in last.
fn take_in(app: &App, metagraph: &Arc<Metagraph>, network: &NetworkConfig, group: Option<&Consensus>) {
    let members = network.group.iter().flat_map(|group| &group.members);
    let declared: BTreeSet<_> = members.map(|member| member.hotkey).collect();
    let rules = Rules { minimum_stake: network.minimum_stake, declared };
    app.verifier.set_rules(verify_rules(network));
    for change in app.registry.apply(metagraph, &rules) {
        announce(app, &change);
    }
    if let Some(group) = group {
        // Nobody has to hear from this member for it to live.
        if let Some(change) = app.registry.heard_from(&app.hotkey) {
            announce(app, &change);
        }
        let of_group = metagraph.neurons.iter().filter(|neuron| rules.declared.contains(&neuron.hotkey));
        group.observe_stakes(StakeObservation {
            block: metagraph.block,
            tempo: metagraph.tempo,
            tiers: network.tiers.clone(),
            stakes: of_group.map(|neuron| (neuron.hotkey, neuron.total_stake)).collect(),
        });
    }
}

/// Tells of a change in the registry whoever has to know.
pub(crate) fn announce(app: &App, change: &Change) {
    app.verifier.forget(&change.hotkey);
    let Some(event) = change.event() else { return };
    app.metrics.registry_event(event);
    let Some(entry) = change.after.as_ref().or(change.before.as_ref()) else { return };
    let (event, hotkey, uid, block) = (event.name(), entry.hotkey, entry.uid, entry.block);
    match entry.kind {
        NodeKind::Validator => {
            info!(event, %hotkey, %uid, stake = %entry.stake, reason = entry.reason, block, "registry changed");
        }
        // Hundreds of miners come and go; who wants to see them asks for it.
        NodeKind::Miner => debug!(event, %hotkey, %uid, reason = entry.reason, block, "registry changed"),
    }
}
