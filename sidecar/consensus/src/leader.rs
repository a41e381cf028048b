//! What only the leader does: it turns stakes into the replicated weights, and steers the membership step by step.
//!
//! Every member runs this task; it rests until the member leads. It keeps nothing that a successor would need.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use openraft::async_runtime::{Instant as _, WatchReceiver};
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{ChangeMembers, Precondition, ServerState};
use sidecar_store::weights::{Observation, next};
use sidecar_store::{Command, Reply};
use sidecar_util::config::{GroupConfig, Member, Tier};
use sidecar_util::{Hotkey, Tao};
use tokio::sync::watch;

use crate::membership::{Peer, Phase, Step, View};
use crate::network::Link;
use crate::state_machine::Replica;
use crate::timing::Timing;
use crate::type_config::{NodeId, PeerNode, Raft, TypeConfig};
use crate::wire::Hello;

/// Entries that a learner may lack and still become a voter: it gets them within a round trip.
const LAG_MAX: u64 = 64;
/// Steps in a row without a pause; more than a group of seven can need, so a loop would show.
const STEPS_MAX: usize = 32;

/// Stakes as one metagraph shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StakeObservation {
    /// Block of the metagraph.
    pub block: u64,
    /// Blocks between two epochs of the subnet; bands move once an epoch.
    pub tempo: u16,
    /// Tiers of the Network, in any order.
    pub tiers: Vec<Tier>,
    /// Total stake by hotkey; who is not part of the group is left out, and a member that is missing has none.
    pub stakes: Vec<(Hotkey, Tao)>,
}

/// See the module.
pub(crate) struct Steward {
    pub(crate) raft: Raft,
    pub(crate) link: Arc<Link>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) timing: Timing,
    pub(crate) group: watch::Receiver<GroupConfig>,
    pub(crate) stakes: watch::Receiver<Option<Arc<StakeObservation>>>,
    /// Epoch in which this leader last exchanged a voter.
    pub(crate) exchanged_in: Option<u64>,
}

impl Steward {
    pub(crate) async fn run(mut self) -> Infallible {
        let mut server = self.raft.server_metrics();
        loop {
            self.group.mark_unchanged();
            self.stakes.mark_unchanged();
            let leads = server.borrow_and_update().state == ServerState::Leader;
            let at_rest = if leads {
                self.replicate_weights().await & self.change_membership().await
            } else {
                self.exchanged_in = None;
                true
            };
            let pause = if at_rest { Duration::MAX } else { self.timing.steward_interval() };
            tokio::select! {
                Ok(()) = self.group.changed() => {}
                Ok(()) = self.stakes.changed() => {}
                Ok(()) = server.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Returns whether the weights are those that the stakes make.
    async fn replicate_weights(&self) -> bool {
        let Some(seen) = self.stakes.borrow().clone() else { return true };
        let observation = observe(&seen, &self.group.borrow());
        let table = next(self.replica.read().state.weights(), &observation);
        let Some(table) = table else { return true };
        let (epoch, entries) = (table.epoch, table.entries.len());
        let done = matches!(self.propose(Command::ReplaceWeights(table)).await, Some(Reply::Done));
        if done {
            tracing::info!(epoch, block = seen.block, entries, "weights replicated");
        }
        done
    }

    /// Returns whether nothing is left to do, and nobody else is there whose answers and progress have to be looked at.
    async fn change_membership(&mut self) -> bool {
        for _ in 0..STEPS_MAX {
            let Some(view) = self.look().await else { return false };
            let Some(step) = view.next_step() else { return view.is_alone() };
            tracing::info!(?step, "changing the membership");
            let done = self.take(step, &view).await;
            if !done {
                return false;
            }
        }
        tracing::error!("the membership does not come to rest: please report this with the log of this member");
        false
    }

    /// Carries out one step. Returns whether to go on at once.
    async fn take(&mut self, step: Step, view: &View) -> bool {
        match step {
            Step::Settle => self.change(ChangeMembers::ReplaceAllVoters(view.voters.clone())).await,
            Step::Record(record) => matches!(self.propose(Command::RecordMember(record)).await, Some(Reply::Done)),
            Step::AddLearner(id, node) => self.change(ChangeMembers::AddNodes([(id, node)].into())).await,
            Step::Move(id, node) => self.change(ChangeMembers::SetNodes([(id, node)].into())).await,
            Step::Remove(id) => self.change(ChangeMembers::RemoveNodes([id].into())).await,
            Step::SetVoters { voters, exchange } => {
                if exchange {
                    self.exchanged_in = view.weights.as_ref().map(|table| table.epoch);
                }
                self.change(ChangeMembers::ReplaceAllVoters(voters)).await
            }
            Step::HandOver(to) => {
                hand_over(&self.raft, to, self.timing).await;
                false
            }
        }
    }

    /// Proposes a change, if the membership is still the one that was looked at. Whoever loses the vote stays a learner.
    async fn change(&self, members: ChangeMembers<NodeId, PeerNode>) -> bool {
        let based_on = *self.raft.server_metrics().borrow_watched().membership_config.log_id();
        let guard = Precondition::LastMembershipLogId { last_membership_log_id: based_on };
        self.finish(self.raft.change_membership_if(members, true, [guard])).await.is_some()
    }

    async fn propose(&self, command: Command) -> Option<Reply> {
        let reply = self.finish(self.raft.client_write(command)).await?.data;
        if let Reply::Refused(refusal) = &reply {
            tracing::warn!(%refusal, "the group refused a change");
        }
        Some(reply)
    }

    /// Waits for a proposal within bounds: without a quorum it would wait for ever, and the next look finds out.
    async fn finish(
        &self,
        proposal: impl Future<
            Output = Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>,
        >,
    ) -> Option<ClientWriteResponse<TypeConfig>> {
        match tokio::time::timeout(self.timing.lease * 10, proposal).await {
            Ok(Ok(response)) => Some(response),
            Ok(Err(error)) => {
                tracing::info!(%error, "a change of the group did not take effect");
                None
            }
            Err(_) => {
                tracing::warn!("a change of the group is not committed yet");
                None
            }
        }
    }

    /// What the leader sees now; `None` if it does not lead any more.
    async fn look(&self) -> Option<View> {
        let group = self.group.borrow().clone();
        let mut view = self.look_inside(&group)?;
        view.answering = self.ask(&group, &view).await;
        // The answers took a moment; what openraft says may be newer than they are, never older.
        let answering = view.answering;
        Some(View { answering, ..self.look_inside(&group)? })
    }

    fn look_inside(&self, group: &GroupConfig) -> Option<View> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let (Some(replication), Some(heartbeats)) = (&metrics.replication, &metrics.heartbeat) else { return None };
        let membership = &metrics.membership_config;
        let configs = membership.get_joint_config();
        let phase = match (metrics.committed_membership_config.log_id() == membership.log_id(), configs.len()) {
            (false, _) => Phase::Pending,
            (true, 0 | 1) => Phase::Settled,
            (true, _) => Phase::Joint,
        };
        let last = metrics.last_log_index.unwrap_or(0);
        let peer = |id: &NodeId| {
            let silence = heartbeats.get(id).copied().flatten().map(|acked| acked.elapsed());
            let matched = replication.get(id).copied().flatten().map(|log_id| log_id.index());
            Peer {
                alive: silence.is_some_and(|silence| silence <= self.timing.lease),
                gone: silence.is_none_or(|silence| silence > self.timing.replaced_after()),
                caught_up: matched.is_some_and(|matched| matched + LAG_MAX >= last),
            }
        };
        let nodes: BTreeMap<NodeId, PeerNode> = membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
        let applied = self.replica.read();
        let recorded = |hotkey: &Hotkey| Some((*hotkey, applied.state.member(hotkey)?.node_id));
        let hotkeys = nodes.values().map(|node| &node.hotkey).chain(group.members.iter().map(|member| &member.hotkey));
        Some(View {
            me: metrics.id,
            listed: group.members.iter().map(|member| (member.hotkey, member.address.clone())).collect(),
            voters_wanted: usize::from(group.voters),
            voters: configs.last().cloned().unwrap_or_default(),
            phase,
            recorded: hotkeys.filter_map(recorded).collect(),
            answering: BTreeMap::new(),
            peers: nodes.keys().map(|id| (*id, peer(id))).collect(),
            nodes,
            weights: applied.state.weights().cloned(),
            exchanged_in: self.exchanged_in,
        })
    }

    /// Asks those listed members who they are of whom this is in question; in a settled group that is nobody.
    async fn ask(&self, group: &GroupConfig, view: &View) -> BTreeMap<Hotkey, NodeId> {
        let in_question = |member: &&Member| {
            let known = view.recorded.get(&member.hotkey).and_then(|id| Some((id, view.nodes.get(id)?)));
            known.is_none_or(|(id, node)| {
                let alive = *id == view.me || view.peers.get(id).is_some_and(|peer| peer.alive);
                !alive || node.address != member.address
            })
        };
        let me = self.link.disk.identity().hotkey;
        let asked: Vec<&Member> =
            group.members.iter().filter(|member| member.hotkey != me).filter(in_question).collect();
        let answers = join_all(asked.iter().map(|member| self.link.hello(member))).await;
        let fit = answers.into_iter().flatten().filter(|hello| self.is_fit(hello));
        fit.map(|hello| (hello.hotkey, hello.node_id)).collect()
    }

    fn is_fit(&self, hello: &Hello) -> bool {
        let incarnation = self.link.disk.identity().incarnation;
        let foreign = hello.incarnation != 0 && hello.incarnation != incarnation;
        let refusal = self.replica.read().state.check_member(&hello.hotkey, hello.node_id).err();
        let problem = if foreign {
            "its disk belongs to another founding of this group: wipe it".to_owned()
        } else if hello.timing != self.timing.profile {
            "it runs with another timing profile: restart it with the group's".to_owned()
        } else if let Some(refusal) = refusal {
            refusal.to_string()
        } else {
            return true;
        };
        tracing::warn!(hotkey = %hello.hotkey, node_id = hello.node_id, problem, "a member cannot join");
        false
    }
}

/// The leader's transfer of leadership. openraft takes no writes from then on until somebody leads, so the caller makes sure
/// that the heir answers and has the log; if it dies all the same, the others elect after a lease.
pub(crate) async fn hand_over(raft: &Raft, to: NodeId, timing: Timing) {
    let me = *raft.node_id();
    let mut server = raft.server_metrics();
    if raft.trigger().transfer_leader(to).await.is_err() {
        return;
    }
    let somebody_else = async {
        while server.borrow_watched().current_leader.is_none_or(|leader| leader == me) {
            if server.changed().await.is_err() {
                return;
            }
        }
    };
    if tokio::time::timeout(timing.lease, somebody_else).await.is_err() {
        tracing::warn!(to, "the hand-over took longer than a lease: the others will elect");
    }
}

/// The part of an observation that concerns the group.
fn observe(seen: &StakeObservation, group: &GroupConfig) -> Observation {
    let stakes: BTreeMap<Hotkey, Tao> = seen.stakes.iter().copied().collect();
    let stake = |member: &Member| (member.hotkey, stakes.get(&member.hotkey).copied().unwrap_or_default());
    Observation {
        epoch: seen.block / u64::from(seen.tempo.max(1)),
        block: seen.block,
        tiers: seen.tiers.clone(),
        stakes: group.members.iter().map(stake).collect(),
    }
}

/// How long a leader that shuts down waits for its successor.
pub(crate) const HAND_OVER_LEASES: u32 = 2;

/// Heaviest voter that answers and has the log: who leads after this leader.
pub(crate) fn heir(order: &[NodeId], me: NodeId, raft: &Raft, timing: Timing) -> Option<NodeId> {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let last = metrics.last_log_index.unwrap_or(0);
    let ready = |id: &NodeId| {
        let acked = metrics.heartbeat.as_ref().and_then(|all| all.get(id).copied().flatten());
        let matched = metrics.replication.as_ref().and_then(|all| all.get(id).copied().flatten());
        let fresh = acked.is_some_and(|acked| acked.elapsed() <= pre_flight(timing));
        fresh && matched.is_some_and(|matched| matched.index() + LAG_MAX >= last)
    };
    order.iter().copied().find(|id| *id != me && ready(id))
}

/// An heir must have acknowledged a heartbeat this recently.
fn pre_flight(timing: Timing) -> Duration {
    timing.heartbeat * 2 + timing.heartbeat / 2
}
