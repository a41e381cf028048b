//! The peer record: what a sidecar says about itself, signed by its hotkey, to whoever asks at its axon.
//!
//! It is how validators of different clusters find each other's service for the group, and how a peer proves that it is
//! alive: a record is made for the challenge of whoever asks, so that an old one proves nothing.
//!
//! What is signed are the lines `name: value` of [`PeerRecord::message`], in that order; no value can hold a line feed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sidecar_util::http::NodeKind;
use sidecar_util::{BlockHash, Hotkey, NetUid, ValueError};

use super::signatures::{PublicKeys, Statement};
use super::{Sign, UnixTime, parse_signature, signature_text};

/// Where it is served.
pub const PATH: &str = "/.well-known/mycelium";

/// Longest challenge taken.
pub const CHALLENGE_BYTES_MAX: usize = 64;

/// Largest record taken; an honest one has some 700 bytes.
pub const RECORD_BYTES_MAX: usize = 8 * 1024;

/// First line of what is signed.
const VERSION: &str = "mycelium-record-v1";

/// Longest text in a field.
const FIELD_BYTES_MAX: usize = 256;

/// How far the clock of a peer may be from ours.
const WINDOW: Duration = Duration::from_mins(2);

/// What a sidecar says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRecord {
    /// Who.
    pub hotkey: Hotkey,
    /// On which subnet.
    pub netuid: NetUid,
    /// Of which chain; absent until that was read.
    pub genesis_hash: Option<BlockHash>,
    /// What it stands beside.
    pub kind: NodeKind,
    /// Version of the sidecar.
    pub version: String,
    /// Schemes in which it takes requests.
    pub schemes: Vec<String>,
    /// `host:port` of its service for the group of validators, if it is in one.
    pub consensus_address: Option<String>,
    /// When it said so, in milliseconds since 1970.
    pub time_ms: u64,
    /// What it was asked with.
    pub challenge: String,
    /// Signature over all of this: `0x` and 128 hex digits.
    pub signature: String,
}

impl PeerRecord {
    /// Signs the record: fills in who and the signature.
    #[must_use]
    pub fn signed(self, sign: &dyn Sign) -> Self {
        let unsigned = Self { hotkey: sign.hotkey(), ..self };
        let signature = signature_text(&sign.sign(unsigned.message().as_bytes()));
        Self { signature, ..unsigned }
    }

    /// What is signed.
    pub fn message(&self) -> String {
        let kind = match self.kind {
            NodeKind::Validator => "validator",
            NodeKind::Miner => "miner",
        };
        [
            VERSION.to_owned(),
            format!("hotkey: {}", self.hotkey),
            format!("netuid: {}", self.netuid),
            format!("genesis_hash: {}", self.genesis_hash.map(|hash| hash.to_string()).unwrap_or_default()),
            format!("kind: {kind}"),
            format!("version: {}", self.version),
            format!("schemes: {}", self.schemes.join(" ")),
            format!("consensus_address: {}", self.consensus_address.as_deref().unwrap_or_default()),
            format!("time_ms: {}", self.time_ms),
            format!("challenge: {}", self.challenge),
        ]
        .join("\n")
    }

    /// Reads a record that was asked for with a challenge, and checks that this hotkey made it now.
    ///
    /// # Errors
    /// The field that is wrong, and how.
    pub fn read(bytes: &[u8], hotkey: &Hotkey, challenge: &str, now: UnixTime) -> Result<Self, ValueError> {
        let wrong = |field: &str, value: &str, expected: &str| Err(ValueError::new(field, value, expected));
        if bytes.len() > RECORD_BYTES_MAX {
            return wrong("record", &bytes.len().to_string(), "bytes are too many for a peer record");
        }
        let record: Self = match serde_json::from_slice(bytes) {
            Ok(record) => record,
            Err(error) => return wrong("record", &error.to_string(), "is why this is no peer record"),
        };
        let texts = [
            ("version", Some(&record.version)),
            ("consensus_address", record.consensus_address.as_ref()),
            ("challenge", Some(&record.challenge)),
        ];
        let schemes = record.schemes.iter().map(|scheme| ("schemes", Some(scheme)));
        for (field, text) in texts.into_iter().chain(schemes) {
            let plain =
                |text: &String| text.len() <= FIELD_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
            if let Some(text) = text.filter(|text| !plain(text)) {
                return wrong(field, text, "is not short visible ASCII without spaces");
            }
        }
        if record.hotkey != *hotkey {
            return wrong("hotkey", &record.hotkey.to_string(), &format!("is not {hotkey}, who was asked"));
        }
        if record.challenge != challenge {
            return wrong("challenge", &record.challenge, "is not what was asked with: the record is an old one");
        }
        if UnixTime::from_millis(record.time_ms).distance(now) > WINDOW {
            return wrong("time_ms", &record.time_ms.to_string(), "is more than 120 s away: set the peer's clock");
        }
        let statement = parse_signature(&record.signature).and_then(|signature| {
            Statement::new(&PublicKeys::new(), hotkey, record.message().into_bytes(), &signature)
        });
        if !statement.is_some_and(|statement| statement.holds()) {
            return wrong("signature", &record.signature, "is not the hotkey's over this record");
        }
        Ok(record)
    }
}

/// Refuses a challenge that a record cannot carry.
///
/// # Errors
/// What is expected.
pub fn check_challenge(challenge: &str) -> Result<(), ValueError> {
    let plain = challenge.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if plain && (1..=CHALLENGE_BYTES_MAX).contains(&challenge.len()) {
        return Ok(());
    }
    Err(ValueError::new("challenge", challenge, "is not 1 to 64 letters, digits, `-`, `_` or `.`"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::handshake::tests::key;

    const NOW: UnixTime = UnixTime::from_secs(1_764_000_000);

    fn record() -> PeerRecord {
        PeerRecord {
            hotkey: [0; 32].into(),
            netuid: NetUid(1),
            genesis_hash: Some(BlockHash([7; 32])),
            kind: NodeKind::Validator,
            version: "0.1.0".into(),
            schemes: vec!["plain".into(), "mycelium-v1".into()],
            consensus_address: Some("validator-a.example:9101".into()),
            time_ms: NOW.millis(),
            challenge: "abc".into(),
            signature: String::new(),
        }
        .signed(&key(1))
    }

    fn read(record: &PeerRecord) -> Result<PeerRecord, ValueError> {
        let bytes = serde_json::to_vec(record).unwrap_or_default();
        PeerRecord::read(&bytes, &key(1).hotkey(), "abc", NOW)
    }

    #[test]
    fn a_record_reads_back_and_no_field_can_be_changed() {
        let record = record();
        assert_eq!(read(&record).unwrap(), record);
        let refused = |changed: PeerRecord, field: &str| assert_eq!(read(&changed).unwrap_err().field, field);
        refused(PeerRecord { hotkey: key(2).hotkey(), ..record.clone() }, "hotkey");
        refused(PeerRecord { netuid: NetUid(2), ..record.clone() }, "signature");
        refused(PeerRecord { genesis_hash: None, ..record.clone() }, "signature");
        refused(PeerRecord { kind: NodeKind::Miner, ..record.clone() }, "signature");
        refused(PeerRecord { version: "0.2.0".into(), ..record.clone() }, "signature");
        refused(PeerRecord { schemes: vec![], ..record.clone() }, "signature");
        refused(PeerRecord { consensus_address: None, ..record.clone() }, "signature");
        refused(PeerRecord { time_ms: NOW.millis() + 1, ..record.clone() }, "signature");
        refused(PeerRecord { challenge: "abd".into(), ..record.clone() }, "challenge");
        refused(PeerRecord { version: "0.1.0\nkind: miner".into(), ..record.clone() }, "version");
        refused(PeerRecord { schemes: vec!["plain mycelium-v1".into()], ..record.clone() }, "schemes");
        refused(PeerRecord { signature: "0x".into(), ..record.clone() }, "signature");
        refused(PeerRecord { time_ms: NOW.millis() - 121_000, ..record }.signed(&key(1)), "time_ms");
    }

    #[test]
    fn challenges_are_short_and_plain() {
        check_challenge(&"a".repeat(64)).unwrap();
        for bad in ["", &"a".repeat(65), "a b", "a\nb", "ä"] {
            assert_eq!(check_challenge(bad).unwrap_err().field, "challenge");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            prop_assert!(PeerRecord::read(&bytes, &key(1).hotkey(), "abc", NOW).is_err());
        }
    }
}
