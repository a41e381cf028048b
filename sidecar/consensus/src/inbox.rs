//! The snapshot that is coming in, chunk by chunk.
//!
//! One at a time: a member follows one leader. The receiver says where the sender should go on, so a lost chunk or a sender
//! that begins again costs nothing that already arrived.

use parking_lot::Mutex;

use crate::type_config::{SnapshotBytes, SnapshotMeta, Vote};
use crate::wire::SnapshotChunk;

/// See the module.
#[derive(Default)]
pub(crate) struct Inbox {
    incoming: Mutex<Option<Incoming>>,
}

/// A snapshot, whole or in part.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Incoming {
    /// Of the leader that sends it.
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    /// Size of the whole.
    total: u64,
    /// What has arrived.
    pub(crate) bytes: SnapshotBytes,
}

impl Inbox {
    /// Puts a chunk where it belongs. Returns the snapshot when it is whole, and otherwise the offset to go on from.
    pub(crate) fn put(&self, chunk: &SnapshotChunk) -> Result<Incoming, u64> {
        let mut incoming = self.incoming.lock();
        let is_same =
            |known: &Incoming| (known.vote, known.total) == (chunk.vote, chunk.total) && known.meta == chunk.meta;
        let mut known = incoming.take().filter(is_same).unwrap_or_else(|| Incoming {
            vote: chunk.vote,
            meta: chunk.meta.clone(),
            total: chunk.total,
            bytes: Vec::new(),
        });
        let fits = length(&known.bytes) + length(&chunk.bytes) <= chunk.total;
        if chunk.offset == length(&known.bytes) && fits {
            known.bytes.extend_from_slice(&chunk.bytes);
        }
        let next = length(&known.bytes);
        if next == known.total {
            return Ok(known);
        }
        *incoming = Some(known);
        Err(next)
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("no supported machine has lengths above 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(term: u64, offset: u64, bytes: &[u8]) -> SnapshotChunk {
        let vote = Vote::new_committed(term, 1);
        SnapshotChunk { vote, meta: SnapshotMeta::default(), total: 6, offset, bytes: bytes.to_vec() }
    }

    #[test]
    fn chunks_in_order_make_the_whole() {
        let inbox = Inbox::default();
        assert_eq!(inbox.put(&chunk(1, 0, b"abc")), Err(3));
        assert_eq!(inbox.put(&chunk(1, 3, b"def")).unwrap().bytes, b"abcdef");
        assert_eq!(inbox.put(&chunk(1, 3, b"def")), Err(0), "the next one begins anew");
    }

    #[test]
    fn a_repeated_or_early_chunk_is_answered_with_where_to_go_on() {
        let inbox = Inbox::default();
        assert_eq!(inbox.put(&chunk(1, 3, b"def")), Err(0));
        assert_eq!(inbox.put(&chunk(1, 0, b"abc")), Err(3));
        assert_eq!(inbox.put(&chunk(1, 0, b"abc")), Err(3), "a sender that began again goes on in the middle");
        assert_eq!(inbox.put(&chunk(1, 3, b"defg")), Err(3), "more than was announced");
        assert_eq!(inbox.put(&chunk(1, 3, b"def")).unwrap().bytes, b"abcdef");
    }

    #[test]
    fn a_new_leader_begins_anew() {
        let inbox = Inbox::default();
        assert_eq!(inbox.put(&chunk(1, 0, b"abc")), Err(3));
        assert_eq!(inbox.put(&chunk(2, 3, b"def")), Err(0));
        assert_eq!(inbox.put(&chunk(2, 0, b"uvw")), Err(3));
        assert_eq!(inbox.put(&chunk(2, 3, b"xyz")).unwrap().bytes, b"uvwxyz");
    }
}
