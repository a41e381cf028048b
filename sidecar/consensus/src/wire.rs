//! Messages between members, and their bytes: a version, then the message by position.
//!
//! Every request names its group, the founding, the sender's node and the node it is meant for. A name leads to whoever
//! holds the address now, and a member with a wiped disk must not answer for the node it was before.

use std::fmt;

use serde::{Deserialize, Serialize};
use sidecar_util::Hotkey;
use sidecar_util::config::TimingProfile;

use crate::type_config::{
    AppendRequest, AppendResponse, NodeId, SnapshotMeta, SnapshotResponse, TransferRequest, TransferResponse, Vote,
    VoteRequest, VoteResponse,
};

/// Largest message, in bytes: what gRPC takes unless told otherwise. Appends are cut at 1 MiB or one entry, snapshots into
/// chunks of half a mebibyte.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Size of a snapshot's chunk, in bytes: small enough that a heartbeat on the same link waits for milliseconds only.
pub(crate) const CHUNK_BYTES: usize = 512 * 1024;
/// Largest snapshot taken, in bytes: four times the largest state there can be.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 4 * sidecar_store::KV_BYTES_MAX as u64;

/// Version of all messages. Members of two versions do not talk: a change here needs a transition of its own.
const VERSION: u8 = 1;

/// Kinds of traffic that should not wait for one another: give each its own connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes, heartbeats and pings: small, and late is as bad as lost.
    Control,
    /// Log entries.
    Data,
    /// Snapshots.
    Bulk,
}

/// A message to a member.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerRequest {
    /// Group it belongs to.
    pub(crate) cluster_id: String,
    /// Founding that the sender belongs to, 0 for none.
    pub(crate) incarnation: u64,
    /// Node that sends it.
    pub(crate) from: NodeId,
    /// Node that it is meant for, 0 for whoever is there.
    pub(crate) to: NodeId,
    pub(crate) body: RequestBody,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum RequestBody {
    /// Who are you?
    Hello,
    /// Are you alive?
    Ping,
    Append(AppendRequest),
    Vote(VoteRequest),
    PreVote(VoteRequest),
    Snapshot(SnapshotChunk),
    TransferLeader(TransferRequest),
}

/// A part of a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SnapshotChunk {
    /// Of the leader that sends it.
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    /// Size of the whole.
    pub(crate) total: u64,
    /// Where this part begins.
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

/// A member's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerReply {
    pub(crate) body: ReplyBody,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ReplyBody {
    Hello(Hello),
    Pong,
    Append(AppendResponse),
    /// Answers a vote and a pre-vote.
    Vote(VoteResponse),
    /// The snapshot is not complete: send from here.
    SnapshotMore(u64),
    SnapshotDone(SnapshotResponse),
    TransferLeader(TransferResponse),
    Refused(PeerRefusal),
}

/// Who a member is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) hotkey: Hotkey,
    pub(crate) node_id: NodeId,
    /// Founding it belongs to, 0 for none.
    pub(crate) incarnation: u64,
    /// Whether it holds a log or a vote of the group.
    pub(crate) initialized: bool,
    /// Its profile: unequal leases are unsafe.
    pub(crate) timing: TimingProfile,
}

/// Why a member did not take a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum PeerRefusal {
    #[error("belongs to group `{0}`")]
    ForeignCluster(String),
    #[error("belongs to another founding of the group")]
    ForeignFounding,
    #[error("is node {0}: its disk was replaced")]
    AnotherNode(NodeId),
    #[error("{0} is not a member")]
    NotAMember(Hotkey),
    #[error("node {node_id} belongs to {owner}, not to {sender}")]
    ForeignNode { node_id: NodeId, owner: Hotkey, sender: Hotkey },
    #[error("the ballot is that of node {ballot}, and node {sender} sent it")]
    ForeignBallot { ballot: NodeId, sender: NodeId },
    #[error("term {asked} is too far above {known}")]
    TermJump { asked: u64, known: u64 },
    #[error("has joined no group yet")]
    Outside,
    #[error("the leader's announcement of a hand-over does not come from the leader")]
    ForeignTransfer,
    #[error("snapshot of {0} bytes is too large")]
    SnapshotSize(u64),
    #[error("has stopped: {0}")]
    Stopped(String),
}

impl PeerRequest {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        decode(bytes)
    }

    /// Which traffic it belongs to.
    pub fn lane(&self) -> Lane {
        match &self.body {
            RequestBody::Append(append) if !append.entries.is_empty() => Lane::Data,
            RequestBody::Snapshot(_) => Lane::Bulk,
            _ => Lane::Control,
        }
    }

    /// Its kind as a word from a closed set, for metrics and traces.
    pub fn kind(&self) -> &'static str {
        match &self.body {
            RequestBody::Hello => "hello",
            RequestBody::Ping => "ping",
            RequestBody::Append(append) if append.entries.is_empty() => "heartbeat",
            RequestBody::Append(_) => "append",
            RequestBody::Vote(_) => "vote",
            RequestBody::PreVote(_) => "pre_vote",
            RequestBody::Snapshot(_) => "snapshot",
            RequestBody::TransferLeader(_) => "transfer_leader",
        }
    }
}

impl PeerReply {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        decode(bytes)
    }

    /// Why the member did not take the request, if it did not.
    pub fn refusal(&self) -> Option<impl fmt::Display> {
        match &self.body {
            ReplyBody::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl From<ReplyBody> for PeerReply {
    fn from(body: ReplyBody) -> Self {
        Self { body }
    }
}

impl From<PeerRefusal> for PeerReply {
    fn from(refusal: PeerRefusal) -> Self {
        Self { body: ReplyBody::Refused(refusal) }
    }
}

/// Bytes that are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// No bytes at all.
    #[error("empty message")]
    Empty,
    /// Too many bytes.
    #[error("message of `{bytes}` bytes: expected at most {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Size of the message.
        bytes: usize,
    },
    /// Another version.
    #[error("message of version `{found}`, expected {VERSION}: run the same release on all members")]
    Version {
        /// Version of the message.
        found: u8,
    },
    /// The rest does not decode.
    #[error("decoding a message")]
    Decode(#[source] postcard::Error),
}

fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_extend(message, vec![VERSION]).expect("no message holds a type that postcard refuses")
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, WireError> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(WireError::TooLarge { bytes: bytes.len() });
    }
    let (version, message) = bytes.split_first().ok_or(WireError::Empty)?;
    if *version != VERSION {
        return Err(WireError::Version { found: *version });
    }
    postcard::from_bytes(message).map_err(WireError::Decode)
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::vote::RaftLeaderId;
    use proptest::prelude::*;
    use sidecar_store::Command;

    use super::*;
    use crate::type_config::{Entry, LogId};

    fn request(body: RequestBody) -> PeerRequest {
        PeerRequest { cluster_id: "a".into(), incarnation: 7, from: 1, to: 2, body }
    }

    fn append(entries: Vec<Entry>) -> RequestBody {
        let vote = Vote::new_committed(3, 1);
        RequestBody::Append(AppendRequest { vote, prev_log_id: None, entries, leader_commit: None })
    }

    #[test]
    fn every_kind_of_request_round_trips() {
        let leader = openraft::impls::leader_id_adv::LeaderId::new(3, 1).to_committed();
        let log_id = LogId::new(leader, 9);
        let command = Command::Put { key: b"k".to_vec(), value: b"v".to_vec() };
        let entry = Entry { log_id, payload: EntryPayload::Normal(command) };
        let chunk = SnapshotChunk {
            vote: Vote::new_committed(3, 1),
            meta: SnapshotMeta { last_log_id: Some(log_id), ..SnapshotMeta::default() },
            total: 10,
            offset: 5,
            bytes: vec![1, 2, 3],
        };
        let vote = VoteRequest::new(Vote::new(4, 1), Some(log_id));
        let check = |body, kind, lane| {
            let sent = request(body);
            let got = PeerRequest::decode(&sent.encode()).unwrap();
            assert_eq!(format!("{got:?}"), format!("{sent:?}"));
            assert_eq!((got.kind(), got.lane()), (kind, lane));
        };
        check(RequestBody::Hello, "hello", Lane::Control);
        check(RequestBody::Ping, "ping", Lane::Control);
        check(append(Vec::new()), "heartbeat", Lane::Control);
        check(append(vec![entry]), "append", Lane::Data);
        check(RequestBody::Vote(vote.clone()), "vote", Lane::Control);
        check(RequestBody::PreVote(vote), "pre_vote", Lane::Control);
        check(RequestBody::Snapshot(chunk), "snapshot", Lane::Bulk);
        let transfer = TransferRequest::new(Vote::new_committed(3, 1), 2, Some(log_id));
        check(RequestBody::TransferLeader(transfer), "transfer_leader", Lane::Control);
    }

    #[test]
    fn other_versions_and_sizes_are_refused() {
        let mut bytes = request(RequestBody::Ping).encode();
        bytes[0] = 9;
        let error = PeerRequest::decode(&bytes).unwrap_err();
        assert_eq!(error, WireError::Version { found: 9 });
        assert!(error.to_string().contains("same release"));
        assert_eq!(PeerRequest::decode(&[]).unwrap_err(), WireError::Empty);
        let huge = vec![VERSION; FRAME_BYTES_MAX + 1];
        assert!(matches!(PeerReply::decode(&huge).unwrap_err(), WireError::TooLarge { .. }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 1..300)) {
            bytes[0] = VERSION;
            let _ = PeerRequest::decode(&bytes);
            let _ = PeerReply::decode(&bytes);
        }
    }
}
