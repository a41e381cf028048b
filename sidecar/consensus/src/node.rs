//! A member of the group, as the rest of the sidecar sees it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::{Instant as _, WatchReceiver};
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader, RaftError};
use parking_lot::Mutex;
use sidecar_store::{Command, Reply, State};
use sidecar_util::Hotkey;
use sidecar_util::config::GroupConfig;
use sidecar_util::http::{GroupRole, GroupStatus, WeightBody};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::campaign::{Campaigner, Contact};
use crate::disk::Disk;
use crate::error::ConsensusError;
use crate::fallback::Fallback;
use crate::founding::Founder;
use crate::guard::{self, Transfers};
use crate::heartbeat::Heartbeat;
use crate::inbox::Inbox;
use crate::leader::{HAND_OVER_LEASES, StakeObservation, Steward, hand_over, heir};
use crate::log_store::LogStore;
use crate::network::{Directory, Link, Network};
use crate::ranking::campaign_order;
use crate::state_machine::{Replica, StateMachine};
use crate::timing::Timing;
use crate::transport::PeerTransport;
use crate::type_config::{Membership, NodeId, Raft, Snapshot, TypeConfig};
use crate::wire::{
    Hello, PeerRefusal, PeerReply, PeerRequest, ReplyBody, RequestBody, SNAPSHOT_BYTES_MAX, SnapshotChunk,
};

/// How long a proposal may take. An election takes two leases at most, so a group that lives has answered by then.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the last users of the disk may take to let go of it at a shutdown.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a member needs to know about itself. Everything about the group comes with the group.
#[derive(Debug, Clone)]
pub struct ConsensusConfig {
    /// Folder for log and snapshots, this validator's alone.
    pub data_dir: PathBuf,
    /// Its hotkey.
    pub hotkey: Hotkey,
}

/// A running member of the group. Clones are handles to the same member.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    hotkey: Hotkey,
    node_id: NodeId,
    raft: Raft,
    replica: Arc<Replica>,
    timing: Timing,
    group: watch::Receiver<GroupConfig>,
    contact: Arc<Contact>,
    /// Index that was applied when the disk had been read.
    restored_index: u64,
    transfers: Transfers,
    inbox: Inbox,
    stakes: watch::Sender<Option<Arc<StakeObservation>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// The Consensus Manager, for tests that do without.
    #[cfg(test)]
    campaigner: Mutex<Option<AbortHandle>>,
    /// `None` after the shutdown, so that the folder can be opened again.
    link: Mutex<Option<Arc<Link>>>,
}

impl Consensus {
    /// Starts a member. It founds its group, waits to be added to it, or goes on where its disk left off.
    ///
    /// Later changes of the group's members, founder and number of voters are followed; its id and timing are those of the
    /// start.
    ///
    /// # Errors
    /// The disk cannot be used or belongs to somebody else, or the group cannot work as described.
    pub async fn start(
        config: ConsensusConfig,
        transport: Arc<dyn PeerTransport>,
        group: watch::Receiver<GroupConfig>,
    ) -> Result<Self, ConsensusError> {
        let described = group.borrow().clone();
        check_group(&described)?;
        let timing = Timing::of(described.timing);
        let (disk, machine) = open(&config, &described.cluster_id).await?;
        let disk = Arc::new(disk);
        let node_id = disk.identity().node_id;
        let directory = Directory::new(group.clone());
        let link = Arc::new(Link { disk: disk.clone(), directory, transport, timing });
        let replica = machine.replica();
        let raft = Raft::new(
            node_id,
            Arc::new(timing.config(&described.cluster_id)),
            Network { link: link.clone() },
            LogStore::new(disk),
            machine,
        )
        .await
        .map_err(|error| ConsensusError::Stopped { cause: error.to_string() })?;
        let inner = Inner {
            hotkey: config.hotkey,
            node_id,
            raft,
            restored_index: replica.applied_index(),
            replica,
            timing,
            group,
            contact: Arc::default(),
            transfers: Transfers::new(),
            inbox: Inbox::default(),
            stakes: watch::Sender::new(None),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            #[cfg(test)]
            campaigner: Mutex::new(None),
            link: Mutex::new(Some(link.clone())),
        };
        tracing::info!(node_id, restored_index = inner.restored_index, "member of the group started");
        inner.spawn_tasks(&link, described);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Answers a message of another member. `from` is its hotkey where the transport has proved it; with it, nobody can
    /// speak for another member's node.
    pub async fn handle(&self, request: PeerRequest, from: Option<Hotkey>) -> PeerReply {
        self.inner.handle(request, from).await.map_or_else(PeerReply::from, PeerReply::from)
    }

    /// This member's view of the group. Cheap; never waits.
    pub fn status(&self) -> GroupStatus {
        self.inner.status()
    }

    /// Who leads, as far as this member knows: nobody, once the leader has been silent for too long.
    pub fn leader(&self) -> Option<Hotkey> {
        self.inner.leader()
    }

    /// Proposes a command and waits until this member, the leader, has applied it.
    ///
    /// # Cancel safety
    /// A dropped proposal may still take effect.
    ///
    /// # Errors
    /// This member does not lead, has no quorum, or cannot tell whether the command took effect.
    pub async fn propose(&self, command: Command) -> Result<Reply, ConsensusError> {
        match tokio::time::timeout(PROPOSAL_TIMEOUT, self.inner.raft.client_write(command)).await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(error)) => Err(proposal_error(error)),
            Err(_) => Err(ConsensusError::OutcomeUnknown { cause: "no majority confirmed it in time".into() }),
        }
    }

    /// Reads the replicated state as this member has applied it, which may be older than the leader's.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.inner.replica.read().state)
    }

    /// Tells this member what the chain says about stakes. Tell every member every metagraph: whoever leads turns it into
    /// the replicated weights, once an epoch and when members come or go.
    pub fn observe_stakes(&self, observation: StakeObservation) {
        self.inner.stakes.send_replace(Some(Arc::new(observation)));
    }

    /// Waits until the member stops, and says why: the disk failed, a bug, or [`Self::shutdown`]. A member that stopped by
    /// itself does not recover; end the process, and start it from what is on the disk.
    pub async fn stopped(&self) -> String {
        // The metrics of the server change seldom and end with openraft. Those of everything change fifty times a second.
        let mut server = self.inner.raft.server_metrics();
        while server.changed().await.is_ok() {}
        let metrics = self.inner.raft.metrics();
        let ended = &metrics.borrow_watched().running_state;
        ended.as_ref().err().map_or_else(|| "openraft has ended".into(), ToString::to_string)
    }

    /// Stops the member. A leader hands over first, so that the others need not wait for its lease to end. The folder can
    /// be opened again when this returns.
    pub async fn shutdown(&self) {
        self.inner.shutdown().await;
    }
}

impl Inner {
    fn spawn_tasks(&self, link: &Arc<Link>, described: GroupConfig) {
        let founder = Founder { raft: self.raft.clone(), link: link.clone(), group: self.group.clone() };
        let campaigner = Campaigner {
            raft: self.raft.clone(),
            me: self.node_id,
            link: link.clone(),
            replica: self.replica.clone(),
            timing: self.timing,
            contact: self.contact.clone(),
            tasks: self.tasks.clone(),
        };
        let fallback = Fallback { raft: self.raft.clone(), timing: self.timing };
        let heartbeat = Heartbeat { raft: self.raft.clone(), timing: self.timing };
        let steward = Steward {
            raft: self.raft.clone(),
            link: link.clone(),
            replica: self.replica.clone(),
            timing: self.timing,
            group: self.group.clone(),
            stakes: self.stakes.subscribe(),
            exchanged_in: None,
        };
        self.spawn(founder.run());
        let campaign = self.spawn(campaigner.run());
        #[cfg(test)]
        self.campaigner.lock().replace(campaign);
        #[cfg(not(test))]
        drop(campaign);
        self.spawn(fallback.run());
        self.spawn(heartbeat.run());
        self.spawn(steward.run());
        self.spawn(watch_group(self.group.clone(), described));
    }

    /// A task that is dropped at the shutdown, wherever it is: whatever it waits for may take long without a quorum.
    fn spawn<T: Send>(&self, task: impl Future<Output = T> + Send + 'static) -> AbortHandle {
        let stop = self.stop.clone();
        let spawned = self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
        spawned.abort_handle()
    }

    fn membership(&self) -> Membership {
        self.raft.server_metrics().borrow_watched().membership_config.membership().clone()
    }

    fn link(&self) -> Result<Arc<Link>, PeerRefusal> {
        self.link.lock().clone().ok_or_else(|| PeerRefusal::Stopped("shut down".into()))
    }

    async fn handle(&self, request: PeerRequest, from: Option<Hotkey>) -> Result<ReplyBody, PeerRefusal> {
        let link = self.link()?;
        let me = link.disk.identity();
        guard::check(&request, from, &me, &self.membership(), &link.directory)?;
        if matches!(request.body, RequestBody::Append(_) | RequestBody::Snapshot(_)) {
            let bound = link.disk.bind(request.incarnation, false).await.map_err(|error| stopped(&error))?;
            if !bound {
                return Err(PeerRefusal::ForeignFounding);
            }
        }
        match request.body {
            RequestBody::Hello => {
                let initialized = self.raft.is_initialized().await.map_err(|error| stopped(&error))?;
                Ok(ReplyBody::Hello(Hello {
                    hotkey: me.hotkey,
                    node_id: me.node_id,
                    incarnation: me.incarnation,
                    initialized,
                    timing: self.timing.profile,
                }))
            }
            RequestBody::Ping => Ok(ReplyBody::Pong),
            RequestBody::Append(append) => {
                self.raft.append_entries(append).await.map(ReplyBody::Append).map_err(|error| stopped(&error))
            }
            RequestBody::Vote(vote) => {
                guard::check_term(&vote, self.term())?;
                let vote = self.transfers.authorise(vote, self.timing.heartbeat).await;
                self.raft.vote(vote).await.map(ReplyBody::Vote).map_err(|error| stopped(&error))
            }
            RequestBody::PreVote(mut vote) => {
                guard::check_term(&vote, self.term())?;
                vote.leadership_transfer = false;
                self.raft.pre_vote(vote).await.map(ReplyBody::Vote).map_err(|error| stopped(&error))
            }
            RequestBody::Snapshot(chunk) => self.take_chunk(chunk).await,
            RequestBody::TransferLeader(transfer) => {
                let followed = self.raft.server_metrics().borrow_watched().vote;
                self.transfers.announce(&transfer, &followed)?;
                let handled = self.raft.handle_transfer_leader(transfer).await;
                handled.map(ReplyBody::TransferLeader).map_err(|error| stopped(&error))
            }
        }
    }

    fn term(&self) -> u64 {
        self.raft.server_metrics().borrow_watched().vote.leader_id.term
    }

    async fn take_chunk(&self, chunk: SnapshotChunk) -> Result<ReplyBody, PeerRefusal> {
        if chunk.total > SNAPSHOT_BYTES_MAX {
            return Err(PeerRefusal::SnapshotSize(chunk.total));
        }
        let complete = match self.inbox.put(&chunk) {
            Ok(complete) => complete,
            Err(next) => return Ok(ReplyBody::SnapshotMore(next)),
        };
        // openraft takes a snapshot that does not install for a broken disk, and stops.
        if let Err(error) = State::decode(&complete.bytes) {
            tracing::warn!(%error, "a snapshot was not taken");
            return Ok(ReplyBody::SnapshotMore(0));
        }
        let snapshot = Snapshot { meta: complete.meta, snapshot: complete.bytes };
        let installed = self.raft.install_full_snapshot(complete.vote, snapshot).await;
        installed.map(ReplyBody::SnapshotDone).map_err(|error| stopped(&error))
    }

    fn role(&self) -> GroupRole {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let listed = self.group.borrow().members.iter().any(|member| member.hotkey == self.hotkey);
        let membership = metrics.membership_config.membership();
        if !listed || membership.get_node(&self.node_id).is_none() {
            return GroupRole::Outside;
        }
        match metrics.state {
            ServerState::Leader => {
                let alone = membership.voter_ids().count() == 1;
                let acked = metrics.last_quorum_acked.map(|acked| acked.elapsed());
                // openraft calls itself leader for as long as nobody tells it otherwise; without its lease it can commit
                // nothing, and others may have elected.
                if alone || acked.is_some_and(|acked| acked <= self.timing.lease) {
                    GroupRole::Leader
                } else {
                    GroupRole::Candidate
                }
            }
            ServerState::Candidate => GroupRole::Candidate,
            ServerState::Follower => GroupRole::Follower,
            ServerState::Learner | ServerState::Shutdown => GroupRole::Learner,
        }
    }

    fn leader(&self) -> Option<Hotkey> {
        match self.role() {
            GroupRole::Leader => return Some(self.hotkey),
            GroupRole::Candidate | GroupRole::Outside => return None,
            GroupRole::Follower | GroupRole::Learner => {}
        }
        let server = self.raft.server_metrics();
        let server = server.borrow_watched();
        let leader = server.current_leader.filter(|_| self.contact.is_within(self.timing.lease * 2))?;
        server.membership_config.get_node(&leader).map(|node| node.hotkey)
    }

    fn status(&self) -> GroupStatus {
        let (role, leader) = (self.role(), self.leader());
        let (applied_index, state_hash) = self.replica.hash();
        let weights = self.replica.read().state.weights().map_or_else(Vec::new, |table| {
            let body = |(hotkey, weight): (&Hotkey, &sidecar_store::Weight)| WeightBody {
                hotkey: *hotkey,
                tier: weight.tier.clone(),
                band: weight.band,
                stake: weight.stake,
            };
            table.campaign_order().into_iter().map(body).collect()
        });
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.committed_membership_config.membership();
        // While a change is under way, the voters are still those of before: their majority is needed until it is done,
        // and whoever counts on the new ones must not be told too early.
        let voters = membership.get_joint_config().first().cloned().unwrap_or_default();
        let hotkeys = |votes: bool| {
            let chosen = membership.nodes().filter(|(id, _)| voters.contains(id) == votes);
            let hotkeys: BTreeSet<Hotkey> = chosen.map(|(_, node)| node.hotkey).collect();
            hotkeys.into_iter().collect()
        };
        GroupStatus {
            cluster_id: self.raft.config().cluster_name.clone(),
            node_id: self.node_id,
            role,
            term: metrics.current_term,
            leader,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            applied_index,
            restored_index: self.restored_index,
            state_hash,
            voters: hotkeys(true),
            learners: hotkeys(false),
            weights,
        }
    }

    async fn shutdown(&self) {
        self.stop.cancel();
        if self.role() == GroupRole::Leader {
            let order = campaign_order(&self.membership(), self.replica.read().state.weights());
            if let Some(heir) = heir(&order, self.node_id, &self.raft, self.timing) {
                let bound = self.timing.lease * HAND_OVER_LEASES;
                // Going on without a successor is what a crash does, too.
                let _ = tokio::time::timeout(bound, hand_over(&self.raft, heir, self.timing)).await;
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "openraft did not end in order");
        }
        let link = self.link.lock().take();
        if let Some(disk) = link.map(|link| link.disk.clone()) {
            close(disk).await;
        }
    }
}

/// Waits until this is the last handle to the disk, and closes it off the runtime: closing waits for the writer.
async fn close(mut disk: Arc<Disk>) {
    let deadline = tokio::time::Instant::now() + CLOSE_TIMEOUT;
    loop {
        match Arc::try_unwrap(disk) {
            Ok(disk) => {
                // The writer thread cannot panic while it is joined; nothing is left to report.
                let _ = tokio::task::spawn_blocking(move || drop(disk)).await;
                return;
            }
            Err(shared) if tokio::time::Instant::now() < deadline => disk = shared,
            Err(_) => {
                tracing::warn!("the log is still in use: it is closed when the process ends");
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn open(config: &ConsensusConfig, cluster_id: &str) -> Result<(Disk, StateMachine), ConsensusError> {
    let (config, cluster_id) = (config.clone(), cluster_id.to_owned());
    let open = move || {
        let disk = Disk::open(&config.data_dir, &cluster_id, config.hotkey)?;
        let machine = StateMachine::open(&config.data_dir)
            .map_err(|source| ConsensusError::Disk { path: config.data_dir.join("snapshot"), source })?;
        Ok((disk, machine))
    };
    tokio::task::spawn_blocking(open).await.map_err(|error| ConsensusError::Stopped { cause: error.to_string() })?
}

fn check_group(group: &GroupConfig) -> Result<(), ConsensusError> {
    let wrong = |field, value: String, expected| Err(ConsensusError::Group { field, value, expected });
    if group.cluster_id.is_empty() {
        return wrong("cluster_id", String::new(), "is empty: give the group a name that no other group has");
    }
    if ![3, 5, 7].contains(&group.voters) {
        return wrong("voters", group.voters.to_string(), "is not 3, 5 or 7");
    }
    Ok(())
}

/// Says that a change of the group needs a restart, where it does.
async fn watch_group(mut group: watch::Receiver<GroupConfig>, started: GroupConfig) {
    while group.changed().await.is_ok() {
        let now = group.borrow_and_update();
        if now.cluster_id != started.cluster_id {
            tracing::error!(started = %started.cluster_id, now = %now.cluster_id, "the group's id changed: ignored until a restart");
        }
        if now.timing != started.timing {
            tracing::warn!(started = ?started.timing, now = ?now.timing, "the group's timing changed: restart all members");
        }
    }
}

fn stopped(error: &impl std::error::Error) -> PeerRefusal {
    PeerRefusal::Stopped(error.to_string())
}

fn proposal_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ConsensusError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => not_leader(&to),
        RaftError::APIError(error) => ConsensusError::OutcomeUnknown { cause: error.to_string() },
        RaftError::Fatal(fatal) => ConsensusError::Stopped { cause: fatal.to_string() },
    }
}

fn not_leader(to: &ForwardToLeader<TypeConfig>) -> ConsensusError {
    match to.reason {
        ForwardReason::LeaseExpired => ConsensusError::NoQuorum,
        ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
            ConsensusError::NotLeader { leader: to.leader_node.as_ref().map(|node| node.hotkey) }
        }
    }
}

#[cfg(test)]
mod tests;
