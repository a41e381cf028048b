//! Which change of the membership comes next: decided here, carried out by [`crate::leader`].
//!
//! - The number of voters is odd. Two voters stand still when either is away, so two are worse than one, and a group of two
//!   members has one voter and one learner until a third comes.
//! - A voter that is merely silent stays. It is replaced only when its hotkey answers under a new node id (its disk was
//!   wiped) or left the list.
//! - One change at a time, through joint consensus, and only if the voters that answer are a majority before and after;
//!   whoever becomes a voter answers and has the log.
//! - The leader never votes itself out: it hands over first, to the heaviest voter that has the log.
//! - A heavier learner replaces the lightest voter if its band is higher, once an epoch, while all voters answer. Bands move
//!   slowly by themselves (see [`sidecar_store::weights`]).

use std::collections::{BTreeMap, BTreeSet};

use sidecar_store::{MemberRecord, WeightTable};
use sidecar_util::Hotkey;

use crate::ranking::place;
use crate::type_config::{NodeId, PeerNode};

/// What the leader sees.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// The leader.
    pub(crate) me: NodeId,
    /// Who should be in the group, and where.
    pub(crate) listed: BTreeMap<Hotkey, String>,
    /// How many voters there should be at most.
    pub(crate) voters_wanted: usize,
    /// All nodes of the membership.
    pub(crate) nodes: BTreeMap<NodeId, PeerNode>,
    /// Its voters; those of the newer half of a joint membership.
    pub(crate) voters: BTreeSet<NodeId>,
    /// Whether the last change is committed and done.
    pub(crate) phase: Phase,
    /// The node that each hotkey is recorded as.
    pub(crate) recorded: BTreeMap<Hotkey, NodeId>,
    /// Node that answered at the listed address of a hotkey just now, fit to join: of this group and founding, with the
    /// same timing, and not retired.
    pub(crate) answering: BTreeMap<Hotkey, NodeId>,
    /// How replication to each other node stands.
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    /// The replicated weights.
    pub(crate) weights: Option<WeightTable>,
    /// Epoch of the weights in which this leader last exchanged a voter for a heavier one.
    pub(crate) exchanged_in: Option<u64>,
}

/// How far the last change of the membership is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Committed, and no change is under way.
    Settled,
    /// Its first half is committed: the leader that began it is gone.
    Joint,
    /// Not committed yet.
    Pending,
}

/// How replication to a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Peer {
    /// It acknowledged something within a lease.
    pub(crate) alive: bool,
    /// It acknowledged nothing for so long that another node may stand in for it.
    pub(crate) gone: bool,
    /// It lacks only a few entries.
    pub(crate) caught_up: bool,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Finish the change that an earlier leader began.
    Settle,
    /// Write down which node a hotkey is, before it joins.
    Record(MemberRecord),
    /// Let a node follow the log without a vote.
    AddLearner(NodeId, PeerNode),
    /// Note a node's new address.
    Move(NodeId, PeerNode),
    /// Stop replicating to a learner.
    Remove(NodeId),
    /// Change who votes; whoever loses the vote learns on.
    SetVoters {
        /// The voters afterwards.
        voters: BTreeSet<NodeId>,
        /// Whether it was for weight alone.
        exchange: bool,
    },
    /// Make another voter the leader, so that it can remove this one.
    HandOver(NodeId),
}

impl View {
    /// The next change, if one is needed and safe now.
    pub(crate) fn next_step(&self) -> Option<Step> {
        match self.phase {
            Phase::Pending => return None,
            Phase::Joint => return self.is_quorum(&self.voters).then_some(Step::Settle),
            Phase::Settled => {}
        }
        if !self.is_quorum(&self.voters) {
            return None;
        }
        self.record()
            .or_else(|| self.add_learner())
            .or_else(|| self.move_node())
            .or_else(|| self.remove_learner())
            .or_else(|| self.replace_stale_voter())
            .or_else(|| self.grow_or_shrink())
            .or_else(|| self.exchange())
    }

    /// Whether the leader is the only member, and is to be.
    pub(crate) fn is_alone(&self) -> bool {
        self.phase == Phase::Settled && self.nodes.len() <= 1 && self.listed.len() <= 1
    }

    fn record(&self) -> Option<Step> {
        let replaces = |hotkey: &Hotkey, node_id: NodeId| match self.recorded.get(hotkey) {
            None => true,
            Some(old) if *old == node_id => false,
            // Two nodes of one hotkey that both answer are two pods: the newcomer has to wait until the old one is gone.
            Some(old) => !self.nodes.contains_key(old) || self.peer(*old).gone,
        };
        let (hotkey, node_id) = self
            .identified()
            .find(|(hotkey, node_id)| self.listed.contains_key(hotkey) && replaces(hotkey, *node_id))?;
        let address = self.listed.get(&hotkey)?.clone();
        Some(Step::Record(MemberRecord { hotkey, node_id, address }))
    }

    fn add_learner(&self) -> Option<Step> {
        let joins = |(hotkey, node_id): &(Hotkey, NodeId)| {
            self.recorded.get(hotkey) == Some(node_id) && !self.nodes.contains_key(node_id)
        };
        let (hotkey, node_id) = self.identified().find(joins)?;
        let address = self.listed.get(&hotkey)?.clone();
        Some(Step::AddLearner(node_id, PeerNode { hotkey, address }))
    }

    /// Calls go to the listed address anyway; the membership follows for those who have no list. Only once the right node
    /// answered there: an address that leads to another one could make two quorums.
    fn move_node(&self) -> Option<Step> {
        let moved = |(hotkey, node_id): (Hotkey, NodeId)| {
            let address = self.listed.get(&hotkey)?;
            let node = self.nodes.get(&node_id).filter(|node| node.address != *address)?;
            Some(Step::Move(node_id, PeerNode { address: address.clone(), ..node.clone() }))
        };
        self.identified().find_map(moved)
    }

    fn remove_learner(&self) -> Option<Step> {
        let stale = self.nodes.keys().find(|id| !self.voters.contains(id) && self.is_stale(**id))?;
        Some(Step::Remove(*stale))
    }

    fn replace_stale_voter(&self) -> Option<Step> {
        let stale = *self.voters.iter().find(|id| self.is_stale(**id))?;
        if stale == self.me {
            return self.leave();
        }
        let candidates = self.candidates();
        let mut voters = self.voters.clone();
        voters.remove(&stale);
        if let Some(best) = candidates.first() {
            voters.insert(*best);
        } else if self.nodes.get(&stale).is_some_and(|node| self.listed.contains_key(&node.hotkey)) {
            // The same hotkey is about to be back under its new id.
            return None;
        } else if voters.len().is_multiple_of(2) {
            voters.remove(&self.lightest(&voters)?);
        }
        self.set_voters(voters, false)
    }

    /// This leader left the list: somebody else has to lead before it can be removed.
    fn leave(&self) -> Option<Step> {
        let heirs = self.by_weight(self.voters.iter().copied().filter(|id| *id != self.me));
        if let Some(heir) = heirs.into_iter().find(|id| self.is_ready(*id) && !self.is_stale(*id)) {
            return Some(Step::HandOver(heir));
        }
        let mut voters = self.voters.clone();
        voters.extend(self.candidates().into_iter().take(2));
        (voters != self.voters).then(|| self.set_voters(voters, false)).flatten()
    }

    fn grow_or_shrink(&self) -> Option<Step> {
        let mut voters = self.voters.clone();
        if voters.len() > self.voters_wanted {
            while voters.len() > self.voters_wanted || voters.len().is_multiple_of(2) {
                let lightest = self.lightest(&voters)?;
                voters.remove(&lightest);
            }
            return self.set_voters(voters, false);
        }
        let missing = if voters.len().is_multiple_of(2) { 1 } else { 2 };
        let candidates = self.candidates();
        if candidates.len() < missing || voters.len() + missing > self.voters_wanted {
            return None;
        }
        voters.extend(&candidates[..missing]);
        self.set_voters(voters, false)
    }

    fn exchange(&self) -> Option<Step> {
        let table = self.weights.as_ref()?;
        let all_answer = self.voters.iter().all(|id| *id == self.me || self.peer(*id).alive);
        if !all_answer || self.exchanged_in == Some(table.epoch) {
            return None;
        }
        let heavier = *self.candidates().first()?;
        let lightest = self.lightest(&self.voters)?;
        if self.band(heavier) <= self.band(lightest) {
            return None;
        }
        let mut voters = self.voters.clone();
        voters.remove(&lightest);
        voters.insert(heavier);
        self.set_voters(voters, true)
    }

    /// A change of voters, if it is safe now: both majorities have to answer until the change is done.
    fn set_voters(&self, voters: BTreeSet<NodeId>, exchange: bool) -> Option<Step> {
        let joining_are_ready = voters.difference(&self.voters).all(|id| self.is_ready(*id));
        let safe = !voters.is_empty() && joining_are_ready && self.is_quorum(&voters);
        safe.then_some(Step::SetVoters { voters, exchange })
    }

    fn is_quorum(&self, voters: &BTreeSet<NodeId>) -> bool {
        let answering = voters.iter().filter(|id| **id == self.me || self.peer(**id).alive).count();
        answering > voters.len() / 2
    }

    /// Hotkeys and the nodes that they are now, this leader included.
    fn identified(&self) -> impl Iterator<Item = (Hotkey, NodeId)> {
        let me = self.nodes.get(&self.me).map(|node| (node.hotkey, self.me));
        me.into_iter().chain(self.answering.iter().map(|(hotkey, node_id)| (*hotkey, *node_id)))
    }

    /// Learners that could vote at once, heaviest first.
    fn candidates(&self) -> Vec<NodeId> {
        let learners = self.nodes.keys().copied().filter(|id| !self.voters.contains(id));
        self.by_weight(learners.filter(|id| self.is_ready(*id) && !self.is_stale(*id)))
    }

    fn lightest(&self, voters: &BTreeSet<NodeId>) -> Option<NodeId> {
        self.by_weight(voters.iter().copied().filter(|id| *id != self.me)).pop()
    }

    fn by_weight(&self, ids: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
        let mut placed: Vec<_> =
            ids.filter_map(|id| Some((place(&self.nodes.get(&id)?.hotkey, self.weights.as_ref()), id))).collect();
        placed.sort();
        placed.into_iter().map(|(_, id)| id).collect()
    }

    fn band(&self, id: NodeId) -> u32 {
        let weight = |node: &PeerNode| Some(self.weights.as_ref()?.entries.get(&node.hotkey)?.band);
        self.nodes.get(&id).and_then(weight).unwrap_or(0)
    }

    /// Whether a node should not be in the membership any more.
    fn is_stale(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_none_or(|node| {
            let replaced = self.recorded.get(&node.hotkey).is_some_and(|current| *current != id);
            replaced || !self.listed.contains_key(&node.hotkey)
        })
    }

    fn is_ready(&self, id: NodeId) -> bool {
        let peer = self.peer(id);
        peer.alive && peer.caught_up
    }

    fn peer(&self, id: NodeId) -> Peer {
        self.peers.get(&id).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sidecar_store::weights::{Observation, next};
    use sidecar_util::Tao;

    use super::*;

    const READY: Peer = Peer { alive: true, gone: false, caught_up: true };
    const SILENT: Peer = Peer { alive: false, gone: false, caught_up: true };
    const GONE: Peer = Peer { alive: false, gone: true, caught_up: true };

    fn hotkey(seed: u8) -> Hotkey {
        Hotkey::from([seed; 32])
    }

    fn address(seed: u8) -> String {
        format!("{seed}:1")
    }

    fn node(seed: u8) -> PeerNode {
        PeerNode { hotkey: hotkey(seed), address: address(seed) }
    }

    /// Node ids are the seeds of the hotkeys; node 1 leads; everybody is recorded, listed and ready.
    fn view(voters: &[u8], learners: &[u8]) -> View {
        let everyone = || voters.iter().chain(learners).copied();
        View {
            me: 1,
            listed: everyone().map(|seed| (hotkey(seed), address(seed))).collect(),
            voters_wanted: 3,
            nodes: everyone().map(|seed| (u64::from(seed), node(seed))).collect(),
            voters: voters.iter().map(|seed| u64::from(*seed)).collect(),
            phase: Phase::Settled,
            recorded: everyone().map(|seed| (hotkey(seed), u64::from(seed))).collect(),
            answering: BTreeMap::new(),
            peers: everyone().filter(|seed| *seed != 1).map(|seed| (u64::from(seed), READY)).collect(),
            weights: None,
            exchanged_in: None,
        }
    }

    fn weigh(view: &mut View, stakes: &[(u8, u64)]) {
        let stakes = stakes.iter().map(|(seed, rao)| (hotkey(*seed), Tao::from_rao(*rao))).collect();
        view.weights = next(None, &Observation { epoch: 4, block: 1, tiers: Vec::new(), stakes });
    }

    fn set(voters: &[NodeId]) -> Step {
        Step::SetVoters { voters: voters.iter().copied().collect(), exchange: false }
    }

    #[test]
    fn a_settled_group_is_left_alone() {
        assert_eq!(view(&[1, 2, 3], &[]).next_step(), None);
    }

    #[test]
    fn a_newcomer_is_recorded_then_added_then_heard() {
        let mut view = view(&[1], &[]);
        view.listed.insert(hotkey(2), address(2));
        assert_eq!(view.next_step(), None, "it does not answer yet");
        view.answering.insert(hotkey(2), 2);
        let record = MemberRecord { hotkey: hotkey(2), node_id: 2, address: address(2) };
        assert_eq!(view.next_step(), Some(Step::Record(record)));
        view.recorded.insert(hotkey(2), 2);
        assert_eq!(view.next_step(), Some(Step::AddLearner(2, node(2))));
        view.nodes.insert(2, node(2));
        view.peers.insert(2, READY);
        assert_eq!(view.next_step(), None, "two voters are worse than one");
    }

    #[test]
    fn voters_come_in_pairs_and_the_heaviest_first() {
        let mut group = view(&[1], &[2, 3, 4]);
        weigh(&mut group, &[(2, 10), (3, 1000), (4, 100)]);
        assert_eq!(group.next_step(), Some(set(&[1, 3, 4])));
        group.peers.insert(3, Peer { caught_up: false, ..READY });
        assert_eq!(group.next_step(), Some(set(&[1, 2, 4])), "a learner without the log cannot vote");
        group.peers.insert(2, SILENT);
        assert_eq!(group.next_step(), None);
        let mut five = view(&[1, 2, 3], &[4, 5]);
        assert_eq!(five.next_step(), None, "three are wanted");
        five.voters_wanted = 5;
        assert_eq!(five.next_step(), Some(set(&[1, 2, 3, 4, 5])));
    }

    #[test]
    fn a_silent_voter_stays_however_long_it_is_away() {
        for peer in [SILENT, GONE] {
            let mut view = view(&[1, 2, 3], &[4]);
            weigh(&mut view, &[(4, 1 << 40)]);
            view.peers.insert(3, peer);
            assert_eq!(view.next_step(), None);
        }
    }

    #[test]
    fn a_wiped_voter_comes_back_under_its_new_id() {
        let mut view = view(&[1, 2, 3], &[]);
        view.peers.insert(3, SILENT);
        view.answering.insert(hotkey(3), 33);
        assert_eq!(view.next_step(), None, "the old node may still answer");
        view.peers.insert(3, GONE);
        let record = MemberRecord { hotkey: hotkey(3), node_id: 33, address: address(3) };
        assert_eq!(view.next_step(), Some(Step::Record(record)));
        view.recorded.insert(hotkey(3), 33);
        assert_eq!(view.next_step(), Some(Step::AddLearner(33, node(3))));
        view.nodes.insert(33, node(3));
        view.peers.insert(33, Peer { caught_up: false, ..READY });
        assert_eq!(view.next_step(), None, "the old voter counts until the new one has the log");
        view.peers.insert(33, READY);
        assert_eq!(view.next_step(), Some(set(&[1, 2, 33])));
        view.voters = [1, 2, 33].into();
        assert_eq!(view.next_step(), Some(Step::Remove(3)));
    }

    #[test]
    fn a_departed_voter_is_replaced_by_the_heaviest_learner() {
        let mut view = view(&[1, 2, 3], &[4, 5]);
        weigh(&mut view, &[(4, 10), (5, 20)]);
        view.listed.remove(&hotkey(3));
        assert_eq!(view.next_step(), Some(set(&[1, 2, 5])));
        view.peers.insert(3, GONE);
        assert_eq!(view.next_step(), Some(set(&[1, 2, 5])), "its voice is not needed");
    }

    #[test]
    fn without_a_learner_the_group_shrinks_to_an_odd_number() {
        let mut group = view(&[1, 2, 3], &[]);
        weigh(&mut group, &[(1, 1), (2, 100)]);
        group.listed.remove(&hotkey(3));
        assert_eq!(group.next_step(), Some(set(&[1])));
        let mut five = view(&[1, 2, 3, 4, 5], &[]);
        five.voters_wanted = 5;
        weigh(&mut five, &[(2, 100), (3, 10), (4, 1000)]);
        five.listed.remove(&hotkey(5));
        assert_eq!(five.next_step(), Some(set(&[1, 2, 4])));
    }

    #[test]
    fn nothing_changes_without_a_majority() {
        let mut group = view(&[1, 2, 3], &[4]);
        group.listed.remove(&hotkey(3));
        group.peers.insert(2, SILENT);
        group.peers.insert(3, SILENT);
        assert_eq!(group.next_step(), None);
        let mut lonely = view(&[1, 2, 3], &[]);
        lonely.listed.remove(&hotkey(2));
        lonely.peers.insert(3, SILENT);
        assert_eq!(lonely.next_step(), Some(set(&[1])), "a departing voter still helps to let it go");
    }

    #[test]
    fn a_departed_leader_hands_over_to_the_heaviest_voter_that_has_the_log() {
        let mut group = view(&[1, 2, 3], &[]);
        weigh(&mut group, &[(1, 1 << 50), (2, 10), (3, 1000)]);
        group.listed.remove(&hotkey(1));
        assert_eq!(group.next_step(), Some(Step::HandOver(3)));
        group.peers.insert(3, Peer { caught_up: false, ..READY });
        assert_eq!(group.next_step(), Some(Step::HandOver(2)));
        let mut alone = view(&[1], &[2]);
        alone.listed.remove(&hotkey(1));
        assert_eq!(alone.next_step(), Some(set(&[1, 2])), "it cannot leave before somebody else votes");
        alone.peers.insert(2, SILENT);
        assert_eq!(alone.next_step(), None);
    }

    #[test]
    fn a_heavier_learner_replaces_the_lightest_voter_once_an_epoch() {
        let mut group = view(&[1, 2, 3], &[4]);
        weigh(&mut group, &[(1, 1), (2, 100), (3, 10), (4, 1000)]);
        let exchanged = Some(Step::SetVoters { voters: [1, 2, 4].into(), exchange: true });
        assert_eq!(group.next_step(), exchanged, "never the leader, however light");
        group.exchanged_in = Some(4);
        assert_eq!(group.next_step(), None);
        group.exchanged_in = Some(3);
        group.peers.insert(2, SILENT);
        assert_eq!(group.next_step(), None, "not while a voter is away");
        group.peers.insert(2, READY);
        weigh(&mut group, &[(2, 100), (3, 10), (4, 15)]);
        assert_eq!(group.next_step(), None, "not within a band");
    }

    #[test]
    fn fewer_wanted_voters_take_the_vote_from_the_lightest() {
        let mut view = view(&[1, 2, 3, 4, 5], &[]);
        weigh(&mut view, &[(2, 1), (3, 1000), (4, 100), (5, 10)]);
        assert_eq!(view.next_step(), Some(set(&[1, 3, 4])));
    }

    #[test]
    fn an_address_is_followed_once_the_right_node_answers_there() {
        let mut view = view(&[1, 2, 3], &[]);
        view.listed.insert(hotkey(2), "new:1".into());
        assert_eq!(view.next_step(), None);
        view.answering.insert(hotkey(2), 2);
        let moved = PeerNode { hotkey: hotkey(2), address: "new:1".into() };
        assert_eq!(view.next_step(), Some(Step::Move(2, moved)));
    }

    #[test]
    fn a_change_under_way_comes_before_any_other() {
        let mut view = view(&[1], &[2, 3]);
        view.phase = Phase::Pending;
        assert_eq!(view.next_step(), None);
        view.phase = Phase::Joint;
        assert_eq!(view.next_step(), Some(Step::Settle));
    }

    fn peers() -> impl Strategy<Value = Peer> {
        (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(alive, gone, caught_up)| Peer {
            alive,
            gone: gone && !alive,
            caught_up,
        })
    }

    fn views() -> impl Strategy<Value = View> {
        let node = || (any::<bool>(), any::<bool>(), peers(), proptest::option::of(0..40_u32), any::<bool>());
        (proptest::collection::vec(node(), 1..8), prop_oneof![Just(3_usize), Just(5), Just(7)]).prop_map(
            |(nodes, voters_wanted)| {
                let mut view = view(&[1], &[]);
                view.voters_wanted = voters_wanted;
                let mut stakes = Vec::new();
                for (seed, (votes, listed, peer, stake, replaced)) in (1_u8..).zip(nodes) {
                    let id = u64::from(seed);
                    view.nodes.insert(id, self::node(seed));
                    view.peers.insert(id, peer);
                    view.recorded.insert(hotkey(seed), if replaced && seed != 1 { id + 100 } else { id });
                    if votes || seed == 1 {
                        view.voters.insert(id);
                    }
                    if listed {
                        view.listed.insert(hotkey(seed), address(seed));
                    } else {
                        view.listed.remove(&hotkey(seed));
                    }
                    stakes.extend(stake.map(|bits| (seed, 1 << bits)));
                }
                view.peers.remove(&1);
                weigh(&mut view, &stakes);
                view
            },
        )
    }

    proptest! {
        #[test]
        fn no_change_costs_the_quorum(view in views()) {
            let answers = |voters: &BTreeSet<NodeId>| {
                voters.iter().filter(|id| **id == view.me || view.peer(**id).alive).count() > voters.len() / 2
            };
            match view.next_step() {
                None => {}
                Some(Step::SetVoters { voters, .. }) => {
                    prop_assert!(answers(&view.voters) && answers(&voters));
                    prop_assert!(voters.contains(&view.me), "the leader stays until it handed over");
                    for joining in voters.difference(&view.voters) {
                        prop_assert!(view.is_ready(*joining) && !view.is_stale(*joining));
                    }
                    for leaving in view.voters.difference(&voters) {
                        let silent_member = !view.peer(*leaving).alive && !view.is_stale(*leaving);
                        let fewer_wanted = view.voters.len() > view.voters_wanted;
                        let shrinks = voters.len() < view.voters.len();
                        prop_assert!(!silent_member || fewer_wanted || shrinks);
                    }
                }
                Some(Step::Remove(id)) => prop_assert!(!view.voters.contains(&id) && view.is_stale(id)),
                Some(_) => prop_assert!(answers(&view.voters)),
            }
        }

        /// Applying steps until none is left ends, with an odd number of voters unless the leader has to leave.
        #[test]
        fn steps_lead_to_rest(view in views()) {
            let mut view = view;
            for _ in 0..40 {
                match view.next_step() {
                    None => {
                        return Ok(());
                    }
                    Some(Step::SetVoters { voters, exchange }) => {
                        view.voters = voters;
                        if exchange {
                            view.exchanged_in = view.weights.as_ref().map(|table| table.epoch);
                        }
                    }
                    Some(Step::Remove(id)) => {
                        view.nodes.remove(&id);
                    }
                    Some(Step::HandOver(heir)) => {
                        view.peers.insert(view.me, READY);
                        view.me = heir;
                    }
                    Some(step) => prop_assert!(false, "nobody answers a hello here: {step:?}"),
                }
            }
            prop_assert!(false, "no rest after 40 steps");
        }
    }
}
