//! A state as bytes: `MYCS`, the format as two bytes, SHA-256 of the content, the content.

use sha2::{Digest, Sha256};

use crate::{SnapshotError, State};

const MAGIC: &[u8; 4] = b"MYCS";
/// Format written here. Older ones are read for as long as a member may hold them.
const FORMAT: u16 = 1;
const CONTENT_AT: usize = 4 + 2 + 32;

impl State {
    /// The whole state as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let content = self.content();
        let mut bytes = Vec::with_capacity(CONTENT_AT + content.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_be_bytes());
        bytes.extend_from_slice(&Sha256::digest(&content));
        bytes.extend_from_slice(&content);
        bytes
    }

    /// Reads what [`Self::encode`] wrote, in this version or an earlier one.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(SnapshotError::NotASnapshot)?;
        let (format, rest) = rest.split_first_chunk().ok_or(SnapshotError::Damaged)?;
        let found = u16::from_be_bytes(*format);
        if found > FORMAT {
            return Err(SnapshotError::TooNew { found, known: FORMAT });
        }
        let (checksum, content) = rest.split_first_chunk::<32>().ok_or(SnapshotError::Damaged)?;
        if Sha256::digest(content)[..] != checksum[..] {
            return Err(SnapshotError::Damaged);
        }
        postcard::from_bytes(content).map_err(SnapshotError::Decode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;

    #[test]
    fn damaged_foreign_and_newer_bytes_are_told_apart() {
        let mut state = State::default();
        state.apply(1, &Command::Put { key: b"k".to_vec(), value: b"v".to_vec() });
        let bytes = state.encode();
        assert_eq!(State::decode(&bytes).unwrap(), state);
        assert_eq!(State::decode(b"nothing"), Err(SnapshotError::NotASnapshot));
        assert_eq!(State::decode(&bytes[..20]), Err(SnapshotError::Damaged));
        for at in 6..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(State::decode(&damaged), Err(SnapshotError::Damaged), "byte {at}");
        }
        let mut newer = bytes;
        newer[5] = 2;
        assert_eq!(State::decode(&newer), Err(SnapshotError::TooNew { found: 2, known: 1 }));
    }
}
