//! The Consensus Manager: campaigns at the time that this voter's weight gives it.
//!
//! openraft's own elections are off. When the leader has been silent for its lease plus rank times slot, this voter asks for
//! votes, and asks again every 30 ms: peers' leases end a little earlier or later than its own, and a refused pre-vote
//! changes nothing anywhere. The heaviest live voter asks first and has won before the next one asks. If its log is too old
//! to win, its peers refuse, and the next rank follows one slot later.
//!
//! It never campaigns earlier than a lease, never grants or refuses anything, and needs nothing but openraft and the
//! replicated weights. Should it hang all the same, [`crate::fallback`] takes over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::{Instant as _, WatchReceiver};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::network::Link;
use crate::ranking::{campaign_order, rank};
use crate::state_machine::Replica;
use crate::timing::Timing;
use crate::type_config::{Membership, NodeId, PeerNode, Raft, TypeConfig, Vote};

/// Between two attempts of one campaign.
const RETRY: Duration = Duration::from_millis(30);

/// What a member knows of the leader at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// The ballot it follows.
    pub(crate) vote: Vote,
    /// How long nothing was heard of its owner; `None` if nothing was heard since the start.
    pub(crate) idle: Option<Duration>,
    pub(crate) state: ServerState,
}

impl Sample {
    /// Asks openraft. `None` once it has stopped.
    pub(crate) async fn take(raft: &Raft) -> Option<Self> {
        let look = |state: &openraft::RaftState<TypeConfig>| Self {
            vote: *state.vote_ref(),
            idle: state.vote_last_modified().map(|at| at.elapsed()),
            state: state.server_state,
        };
        raft.with_raft_state(look).await.ok()
    }

    /// Whether this member may campaign at all.
    pub(crate) fn may_campaign(&self) -> bool {
        matches!(self.state, ServerState::Follower | ServerState::Candidate)
    }
}

/// When something was last heard of the leader, as far as this member looked.
#[derive(Default)]
pub(crate) struct Contact {
    last: Mutex<Option<Instant>>,
}

impl Contact {
    /// Whether the leader was heard within a time.
    pub(crate) fn is_within(&self, time: Duration) -> bool {
        self.last.lock().is_some_and(|last| last.elapsed() <= time)
    }

    fn note(&self, sample: &Sample) {
        if let Some(at) =
            sample.idle.filter(|_| sample.vote.committed).and_then(|idle| Instant::now().checked_sub(idle))
        {
            *self.last.lock() = Some(at);
        }
    }
}

/// See the module.
pub(crate) struct Campaigner {
    pub(crate) raft: Raft,
    pub(crate) me: NodeId,
    pub(crate) link: Arc<Link>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) timing: Timing,
    pub(crate) contact: Arc<Contact>,
    pub(crate) tasks: TaskTracker,
}

impl Campaigner {
    /// Ends when openraft does.
    pub(crate) async fn run(self) {
        let started = Instant::now();
        let mut pings = Pings::default();
        let mut server = self.raft.server_metrics();
        while let Some(sample) = Sample::take(&self.raft).await {
            self.contact.note(&sample);
            let pause = self.step(&sample, started, &mut pings).await;
            tokio::select! {
                // Whoever may not campaign hears of it when that ends.
                _ = server.changed(), if !sample.may_campaign() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One look, and how long until the next.
    async fn step(&self, sample: &Sample, started: Instant, pings: &mut Pings) -> Duration {
        let suspicion = self.timing.suspicion();
        if !sample.may_campaign() {
            pings.forget();
            // A learner notes when it hears the leader, twice in the time after which that is forgotten.
            return if sample.state == ServerState::Leader { Duration::MAX } else { self.timing.lease };
        }
        let idle = sample.idle.unwrap_or_else(|| started.elapsed());
        if let Some(rest) = suspicion.checked_sub(idle).filter(|rest| !rest.is_zero()) {
            pings.forget();
            return rest;
        }
        let membership = self.membership();
        self.ping_voters(&membership, pings);
        let due = self.due(sample, &membership, pings);
        if let Some(rest) = due.checked_sub(idle).filter(|rest| !rest.is_zero()) {
            return rest.min(RETRY);
        }
        tracing::debug!(idle_ms = idle.as_millis(), due_ms = due.as_millis(), "campaigning");
        // A stopped openraft ends the loop at the next sample.
        let _ = self.raft.trigger().elect(true).await;
        // Without a quorum every attempt is in vain: after the last rank had its turn, ask less often.
        if idle < self.timing.fallback(campaign_order(&membership, None).len()) { RETRY } else { self.timing.slot }
    }

    /// After which silence this voter campaigns.
    fn due(&self, sample: &Sample, membership: &Membership, pings: &Pings) -> Duration {
        let order = campaign_order(membership, self.replica.read().state.weights());
        let silent_leader = Some(sample.vote.leader_id.node_id).filter(|_| sample.vote.committed);
        let unheard = self.timing.unheard_after();
        let rank = rank(&order, self.me, |id| Some(id) == silent_leader || pings.is_unheard(id, unheard));
        // A vote that is not committed is a campaign that did not get on, and nobody has a lease; but its owner may have
        // won just now, so its first heartbeat gets two slots.
        let base = if sample.vote.committed { self.timing.lease } else { self.timing.slot * 2 };
        base + self.timing.wait_of_rank(rank)
    }

    fn membership(&self) -> Membership {
        self.raft.server_metrics().borrow_watched().membership_config.membership().clone()
    }

    /// Pings the other voters once every heartbeat for as long as the leader is silent.
    fn ping_voters(&self, membership: &Membership, pings: &mut Pings) {
        if !pings.begin_round(self.timing.heartbeat) {
            return;
        }
        for id in membership.voter_ids().filter(|id| *id != self.me) {
            if let Some(node) = membership.get_node(&id) {
                self.ping(id, node.clone(), pings.heard.clone());
            }
        }
    }

    fn ping(&self, id: NodeId, node: PeerNode, heard: Arc<Mutex<Heard>>) {
        if !heard.lock().asked.insert(id) {
            return;
        }
        let link = self.link.clone();
        self.tasks.spawn(async move {
            let answered = link.ping(id, &node).await;
            let mut heard = heard.lock();
            heard.asked.remove(&id);
            if answered {
                heard.last.insert(id, Instant::now());
            }
        });
    }
}

/// Which voters answer while the leader is silent.
#[derive(Default)]
struct Pings {
    /// When this silence was noticed.
    since: Option<Instant>,
    last_round: Option<Instant>,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    last: BTreeMap<NodeId, Instant>,
    /// Asked and not yet answered: one ping at a time for each voter.
    asked: BTreeSet<NodeId>,
}

impl Pings {
    /// The leader is heard again.
    fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether it is time for another round.
    fn begin_round(&mut self, interval: Duration) -> bool {
        let now = Instant::now();
        if self.last_round.is_some_and(|last| now - last < interval) {
            return false;
        }
        self.since.get_or_insert(now);
        self.last_round = Some(now);
        true
    }

    /// Whether a voter gave no answer for this long, counted from the first question.
    fn is_unheard(&self, id: NodeId, time: Duration) -> bool {
        let last = self.heard.lock().last.get(&id).copied();
        last.max(self.since).is_some_and(|last| last.elapsed() > time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_voter_is_unheard_only_after_it_had_time_to_answer() {
        let time = Duration::from_millis(150);
        let mut pings = Pings::default();
        assert!(!pings.is_unheard(1, time), "nobody was asked yet");
        assert!(pings.begin_round(Duration::from_millis(50)));
        assert!(!pings.begin_round(Duration::from_millis(50)), "one round each interval");
        tokio::time::advance(time).await;
        assert!(!pings.is_unheard(1, time));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(pings.is_unheard(1, time));
        pings.heard.lock().last.insert(1, Instant::now());
        assert!(!pings.is_unheard(1, time));
        assert!(pings.is_unheard(2, time));
    }
}
