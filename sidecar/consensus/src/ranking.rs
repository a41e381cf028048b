//! Who campaigns before whom.
//!
//! Every voter reckons with the same replicated table, so ranks agree across the group; a voter with an older table merely
//! campaigns one slot too early or too late. A voter without a weight comes last, and is never left out: it may be the only
//! one that has the newest log.

use std::cmp::Reverse;

use sidecar_store::WeightTable;
use sidecar_util::{Hotkey, Tao};

use crate::type_config::{Membership, NodeId};

/// Place in the campaign order; the smallest comes first.
pub(crate) type Place = (Reverse<u32>, Reverse<Tao>, Hotkey);

/// The place of a hotkey: band, then stake, then hotkey.
pub(crate) fn place(hotkey: &Hotkey, weights: Option<&WeightTable>) -> Place {
    let weight = weights.and_then(|table| table.entries.get(hotkey));
    let (band, stake) = weight.map_or((0, Tao::ZERO), |weight| (weight.band, weight.stake));
    (Reverse(band), Reverse(stake), *hotkey)
}

/// Voters of a membership, heaviest first.
pub(crate) fn campaign_order(membership: &Membership, weights: Option<&WeightTable>) -> Vec<NodeId> {
    let placed = membership.voter_ids().filter_map(|id| Some((place(&membership.get_node(&id)?.hotkey, weights), id)));
    let mut order: Vec<_> = placed.collect();
    order.sort();
    order.into_iter().map(|(_, id)| id).collect()
}

/// How many voters campaign before this one, not counting those of whom nothing is heard.
pub(crate) fn rank(order: &[NodeId], me: NodeId, is_silent: impl Fn(NodeId) -> bool) -> usize {
    order.iter().take_while(|id| **id != me).filter(|id| !is_silent(**id)).count()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use sidecar_store::weights::{Observation, next};

    use super::*;
    use crate::type_config::PeerNode;

    fn hotkey(seed: u8) -> Hotkey {
        Hotkey::from([seed; 32])
    }

    fn membership(nodes: &[(NodeId, u8)]) -> Membership {
        let node = |(id, seed): &(NodeId, u8)| (*id, PeerNode { hotkey: hotkey(*seed), address: String::new() });
        let voters: BTreeSet<NodeId> = nodes.iter().map(|(id, _)| *id).collect();
        Membership::new(vec![voters], nodes.iter().map(node).collect::<BTreeMap<_, _>>()).unwrap()
    }

    fn weights(stakes: &[(u8, u64)]) -> WeightTable {
        let stakes = stakes.iter().map(|(seed, rao)| (hotkey(*seed), Tao::from_rao(*rao))).collect();
        next(None, &Observation { epoch: 1, block: 1, tiers: Vec::new(), stakes }).unwrap()
    }

    #[test]
    fn voters_rank_by_weight_and_those_without_come_last() {
        let membership = membership(&[(10, 1), (20, 2), (30, 3), (40, 4)]);
        let table = weights(&[(1, 100), (2, 1000), (3, 1001)]);
        assert_eq!(campaign_order(&membership, Some(&table)), [30, 20, 10, 40]);
        assert_eq!(campaign_order(&membership, None), [10, 20, 30, 40]);
    }

    #[test]
    fn silent_voters_are_not_waited_for() {
        let order = [30, 20, 10, 40];
        assert_eq!(rank(&order, 10, |_| false), 2);
        assert_eq!(rank(&order, 10, |id| id == 30), 1);
        assert_eq!(rank(&order, 10, |id| id != 40), 0);
        assert_eq!(rank(&order, 30, |id| id == 30), 0, "a voter does not wait for itself");
    }
}
