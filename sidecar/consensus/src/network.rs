//! openraft's calls to other members, and ours.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::RPCOption;
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use sidecar_util::Hotkey;
use sidecar_util::config::{GroupConfig, Member};
use tokio::sync::watch;

use crate::disk::Disk;
use crate::timing::Timing;
use crate::transport::{PeerTransport, TransportError};
use crate::type_config::{
    AppendRequest, AppendResponse, NodeId, PeerNode, Snapshot, SnapshotBytes, SnapshotResponse, TransferRequest,
    TransferResponse, TypeConfig, Vote, VoteRequest, VoteResponse,
};
use crate::wire::{CHUNK_BYTES, Hello, PeerRequest, ReplyBody, RequestBody, SnapshotChunk};

/// A receiver that lost parts asks for them again; one that never gets on is given up and asked anew later.
const REWINDS_MAX: usize = 8;

/// Where members are.
///
/// The list that the operator keeps comes first and the membership in the log second: if all addresses change at once, no
/// quorum could be reached to write the new ones into the log.
#[derive(Clone)]
pub(crate) struct Directory {
    group: watch::Receiver<GroupConfig>,
}

impl Directory {
    pub(crate) fn new(group: watch::Receiver<GroupConfig>) -> Self {
        Self { group }
    }

    /// Where to call a node of the membership.
    pub(crate) fn resolve(&self, node: &PeerNode) -> Member {
        let listed = self.address(&node.hotkey);
        Member { hotkey: node.hotkey, address: listed.unwrap_or_else(|| node.address.clone()) }
    }

    /// Whether a hotkey may be part of the group.
    pub(crate) fn contains(&self, hotkey: &Hotkey) -> bool {
        self.group.borrow().members.iter().any(|member| member.hotkey == *hotkey)
    }

    fn address(&self, hotkey: &Hotkey) -> Option<String> {
        let group = self.group.borrow();
        group.members.iter().find(|member| member.hotkey == *hotkey).map(|member| member.address.clone())
    }
}

/// Everything needed to call another member.
pub(crate) struct Link {
    pub(crate) disk: Arc<Disk>,
    pub(crate) directory: Directory,
    pub(crate) transport: Arc<dyn PeerTransport>,
    pub(crate) timing: Timing,
}

impl Link {
    /// Calls a member; `to` is the node meant, 0 for whoever answers at its address. A refusal is an error like silence.
    pub(crate) async fn call(
        &self,
        peer: &Member,
        to: NodeId,
        body: RequestBody,
        timeout: Duration,
    ) -> Result<ReplyBody, TransportError> {
        let identity = self.disk.identity();
        let request = PeerRequest {
            cluster_id: identity.cluster_id,
            incarnation: identity.incarnation,
            from: identity.node_id,
            to,
            body,
        };
        let kind = request.kind();
        // The transport promises this too; a group must not hang on one that does not.
        let reply = tokio::time::timeout(timeout, self.transport.call(peer, request, timeout))
            .await
            .map_err(|_| TransportError::Timeout { address: peer.address.clone(), timeout })??;
        match reply.body {
            ReplyBody::Refused(refusal) => {
                tracing::debug!(peer = %peer.hotkey, kind, %refusal, "a member refused a message");
                Err(TransportError::Unreachable { address: peer.address.clone(), cause: refusal.to_string() })
            }
            body => Ok(body),
        }
    }

    /// Asks whoever answers at a member's address who it is. An answer under another hotkey is none.
    pub(crate) async fn hello(&self, peer: &Member) -> Option<Hello> {
        match self.call(peer, 0, RequestBody::Hello, self.timing.hello_timeout()).await {
            Ok(ReplyBody::Hello(hello)) if hello.hotkey == peer.hotkey => Some(hello),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(peer = %peer.hotkey, %error, "a member did not say who it is");
                None
            }
        }
    }

    /// Whether a node answers.
    pub(crate) async fn ping(&self, to: NodeId, node: &PeerNode) -> bool {
        let peer = self.directory.resolve(node);
        let reply = self.call(&peer, to, RequestBody::Ping, self.timing.unheard_after()).await;
        matches!(reply, Ok(ReplyBody::Pong))
    }
}

/// Makes a client for each node that openraft talks to.
pub(crate) struct Network {
    pub(crate) link: Arc<Link>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &PeerNode) -> Peer {
        Peer { link: self.link.clone(), target, node: node.clone() }
    }
}

/// One node, as openraft calls it.
pub(crate) struct Peer {
    link: Arc<Link>,
    target: NodeId,
    node: PeerNode,
}

impl Peer {
    async fn call(
        &self,
        kind: RPCTypes,
        body: RequestBody,
        timeout: Duration,
    ) -> Result<ReplyBody, RPCError<TypeConfig>> {
        let peer = self.link.directory.resolve(&self.node);
        self.link.call(&peer, self.target, body, timeout).await.map_err(|error| match error {
            TransportError::Timeout { .. } => RPCError::Timeout(Timeout {
                action: kind,
                id: self.link.disk.identity().node_id,
                target: self.target,
                timeout,
            }),
            error => RPCError::Unreachable(Unreachable::new(&error)),
        })
    }
}

/// A reply of another kind than the request's: a member of a broken version.
fn misplaced(reply: &ReplyBody) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::from_string(format!("a reply of the wrong kind: {reply:?}")))
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotBytes;

    async fn append_entries(
        &mut self,
        rpc: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendResponse, RPCError<TypeConfig>> {
        // openraft gives one heartbeat interval to both. Entries have to be written down before they are acknowledged,
        // and a disk that is slow for a moment should not make the leader send them again.
        let timeout = if rpc.entries.is_empty() { option.hard_ttl() } else { self.link.timing.lease };
        match self.call(RPCTypes::AppendEntries, RequestBody::Append(rpc), timeout).await? {
            ReplyBody::Append(response) => Ok(response),
            reply => Err(misplaced(&reply)),
        }
    }

    async fn vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, RPCError<TypeConfig>> {
        match self.call(RPCTypes::Vote, RequestBody::Vote(rpc), option.hard_ttl()).await? {
            ReplyBody::Vote(response) => Ok(response),
            reply => Err(misplaced(&reply)),
        }
    }

    async fn pre_vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Result<VoteResponse, RPCError<TypeConfig>> {
        match self.call(RPCTypes::Vote, RequestBody::PreVote(rpc), option.hard_ttl()).await? {
            ReplyBody::Vote(response) => Ok(response),
            reply => Err(misplaced(&reply)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot, option.hard_ttl()) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferRequest,
        option: RPCOption,
    ) -> Result<TransferResponse, RPCError<TypeConfig>> {
        match self.call(RPCTypes::TransferLeader, RequestBody::TransferLeader(req), option.hard_ttl()).await? {
            ReplyBody::TransferLeader(response) => Ok(response),
            reply => Err(misplaced(&reply)),
        }
    }
}

impl Peer {
    /// Sends chunk after chunk; the receiver says where to go on.
    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
        chunk_timeout: Duration,
    ) -> Result<SnapshotResponse, StreamingError<TypeConfig>> {
        let total = snapshot.snapshot.len();
        let (mut offset, mut rewinds) = (0, 0);
        loop {
            let end = total.min(offset + CHUNK_BYTES);
            let chunk = SnapshotChunk {
                vote,
                meta: snapshot.meta.clone(),
                total: wide(total),
                offset: wide(offset),
                bytes: snapshot.snapshot[offset..end].to_vec(),
            };
            match self.call(RPCTypes::InstallSnapshot, RequestBody::Snapshot(chunk), chunk_timeout).await? {
                ReplyBody::SnapshotDone(response) => return Ok(response),
                ReplyBody::SnapshotMore(next) => {
                    let next = usize::try_from(next).unwrap_or(usize::MAX).min(total);
                    rewinds += usize::from(next <= offset);
                    if rewinds > REWINDS_MAX {
                        let text = "the receiver asks for the same part of the snapshot again and again";
                        return Err(StreamingError::Network(NetworkError::from_string(text)));
                    }
                    offset = next;
                }
                reply => return Err(misplaced(&reply).into()),
            }
        }
    }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).expect("no supported machine has lengths above 64 bits")
}
