//! Weights that nobody can read before a round of the drand beacon.
//!
//! The chain decrypts with what the beacon publishes for the round, in the format that the PyPI package `bittensor-drand`
//! writes: its cryptography is that of the crate `timelock`, its encoding that of an older version, in which the two masked
//! values of the header carry their length. So the encoding is done here. The tests hold ciphertexts made by that package.

use ark_serialize::{CanonicalDeserialize, CanonicalSerialize};
use rand_core::{OsRng, RngCore};
use sha2::{Digest, Sha256};
use sidecar_util::Hotkey;
use subxt::ext::codec::Encode;
use timelock::block_ciphers::AESGCMBlockCipherProvider;
use timelock::engines::EngineBLS;
use timelock::engines::drand::TinyBLS381;
use timelock::ibe::fullident::Identity;
use timelock::tlock::{TLECiphertext, tle};
use zeroize::Zeroizing;

/// Public key of the drand network "quicknet", which the chain follows.
const QUICKNET_KEY: &str = "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a";

/// Time of quicknet's first round, and between two rounds.
const QUICKNET_GENESIS_MS: u64 = 1_692_803_367_000;
const QUICKNET_PERIOD_MS: u64 = 3_000;

/// Blocks into the epoch of the reveal: the chain has to hold the round before it opens the commits, and no longer.
const REVEAL_OFFSET_BLOCKS: u64 = 3;

/// Why nothing was encrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimelockError {
    /// The cryptography refused its input.
    #[error("weights could not be encrypted for drand round {round}: {why}")]
    Encrypt {
        /// The round.
        round: u64,
        /// Why.
        why: String,
    },
}

/// The round that is published last at a time in milliseconds since 1970.
pub fn drand_round_at(unix_ms: u64) -> u64 {
    unix_ms.saturating_sub(QUICKNET_GENESIS_MS) / QUICKNET_PERIOD_MS
}

/// What decides the round of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RevealClock {
    /// The best block, and its time in milliseconds since 1970.
    pub(crate) block: u64,
    pub(crate) now_ms: u64,
    /// Block at which the subnet's next epoch starts.
    pub(crate) next_epoch: u64,
    pub(crate) tempo: u64,
    pub(crate) period_epochs: u64,
    pub(crate) block_ms: u64,
}

impl RevealClock {
    /// The first block of the epoch in which the chain opens a commit that is made now.
    pub(crate) fn reveal_block(&self) -> u64 {
        // The commit is in the next block at the earliest, and belongs to the next epoch if that one starts there.
        let skipped = u64::from(self.next_epoch <= self.block + 1);
        let later = self.period_epochs.max(1) - 1 + skipped;
        self.next_epoch.max(self.block).saturating_add(self.tempo.saturating_mul(later))
    }

    /// The round that is out when the chain opens the commit.
    pub(crate) fn round(&self) -> u64 {
        let blocks = self.reveal_block().saturating_sub(self.block).saturating_add(REVEAL_OFFSET_BLOCKS);
        drand_round_at(self.now_ms.saturating_add(blocks.saturating_mul(self.block_ms)))
    }
}

/// Encrypts a message for a round, as `bittensor-drand` does.
///
/// # Errors
/// The cryptography refused its input.
pub fn encrypt_for_round(message: &[u8], round: u64) -> Result<Vec<u8>, TimelockError> {
    let failed = |why: String| TimelockError::Encrypt { round, why };
    let key = hex::decode(QUICKNET_KEY).map_err(|error| failed(error.to_string()))?;
    let key = <TinyBLS381 as EngineBLS>::PublicKeyGroup::deserialize_compressed(key.as_slice())
        .map_err(|error| failed(error.to_string()))?;
    let identity = Identity::new(b"", &Sha256::digest(round.to_be_bytes()));
    let mut secret = Zeroizing::new([0; 32]);
    OsRng.fill_bytes(secret.as_mut_slice());
    let ciphertext: TLECiphertext<TinyBLS381> =
        tle::<TinyBLS381, AESGCMBlockCipherProvider, OsRng>(key, *secret, message, identity, OsRng)
            .map_err(|error| failed(format!("{error:?}")))?;
    let mut bytes = Vec::new();
    let TLECiphertext { header, body, cipher_suite } = ciphertext;
    // Vectors, not arrays: that is the difference to the encoding of the crate.
    let encoded = header
        .u
        .serialize_compressed(&mut bytes)
        .and_then(|()| header.v.to_vec().serialize_compressed(&mut bytes))
        .and_then(|()| header.w.to_vec().serialize_compressed(&mut bytes))
        .and_then(|()| body.serialize_compressed(&mut bytes))
        .and_then(|()| cipher_suite.serialize_compressed(&mut bytes));
    encoded.map_err(|error| failed(error.to_string()))?;
    Ok(bytes)
}

/// The payload of a timelocked commit of weights, encrypted.
///
/// # Errors
/// The cryptography refused its input.
pub fn timelocked_commit(
    hotkey: &Hotkey,
    uids: &[u16],
    values: &[u16],
    version_key: u64,
    round: u64,
) -> Result<Vec<u8>, TimelockError> {
    encrypt_for_round(&payload(hotkey, uids, values, version_key), round)
}

fn payload(hotkey: &Hotkey, uids: &[u16], values: &[u16], version_key: u64) -> Vec<u8> {
    (hotkey.as_bytes().to_vec(), uids, values, version_key).encode()
}

#[cfg(test)]
mod tests {
    use timelock::ibe::fullident::Ciphertext;
    use timelock::tlock::tld;

    use super::*;

    /// What the beacon published for round 1000.
    const ROUND: u64 = 1000;
    const SIGNATURE: &str =
        "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39";

    /// Decodes as the chain does, and opens.
    fn open(mut bytes: &[u8]) -> Result<Vec<u8>, String> {
        let reader = &mut bytes;
        let array = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).map_err(|_| "no 32 bytes".to_owned());
        let text = |error: ark_serialize::SerializationError| error.to_string();
        let u = <TinyBLS381 as EngineBLS>::PublicKeyGroup::deserialize_compressed(&mut *reader).map_err(text)?;
        let v = array(Vec::deserialize_compressed(&mut *reader).map_err(text)?)?;
        let w = array(Vec::deserialize_compressed(&mut *reader).map_err(text)?)?;
        let body = Vec::deserialize_compressed(&mut *reader).map_err(text)?;
        let cipher_suite = Vec::deserialize_compressed(&mut *reader).map_err(text)?;
        assert_eq!(reader.len(), 0, "bytes are left over");
        let ciphertext = TLECiphertext { header: Ciphertext { u, v, w }, body, cipher_suite };
        let signature = hex::decode(SIGNATURE).map_err(|error| error.to_string())?;
        let signature = <TinyBLS381 as EngineBLS>::SignatureGroup::deserialize_compressed(signature.as_slice());
        let signature = signature.map_err(text)?;
        tld::<TinyBLS381, AESGCMBlockCipherProvider>(ciphertext, signature).map_err(|error| format!("{error:?}"))
    }

    /// Made by PyPI bittensor-drand 2.0.0: `encrypt_at_round(b"hello timelock", 1000)`, without the SCALE envelope that
    /// holds the round beside it. A commit of weights has no envelope.
    const THEIRS: &str = include_str!("../../tests/vectors/drand-round-1000.hex");

    #[test]
    fn what_bittensor_drand_encrypted_is_opened_here() {
        let bytes = hex::decode(THEIRS.trim()).unwrap();
        assert_eq!(open(&bytes).unwrap(), b"hello timelock");
    }

    #[test]
    fn what_is_encrypted_here_has_their_shape_and_opens_with_the_rounds_signature() {
        let ours = encrypt_for_round(b"hello timelock", ROUND).unwrap();
        let theirs = hex::decode(THEIRS.trim()).unwrap();
        assert_eq!(ours.len(), theirs.len());
        assert_eq!(open(&ours).unwrap(), b"hello timelock");
        assert_ne!(ours, encrypt_for_round(b"hello timelock", ROUND).unwrap(), "every key is new");
        // Prints one for `bittensor_drand.decrypt_with_signature`, by hand.
        println!("{}", hex::encode(&ours));
    }

    #[test]
    fn another_round_does_not_open_it() {
        let other = encrypt_for_round(b"hello timelock", ROUND + 1).unwrap();
        assert!(open(&other).is_err());
    }

    #[test]
    fn the_payload_is_scale_of_hotkey_uids_values_and_version_key() {
        let hotkey = Hotkey::from(std::array::from_fn(|i| u8::try_from(i).unwrap()));
        let payload = payload(&hotkey, &[0, 1, 2], &[1, 2, 65535], 7);
        let expected = "80000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f0c0000010002000c01000200ffff0700000000000000";
        assert_eq!(hex::encode(payload), expected);
        let commit = timelocked_commit(&hotkey, &[0, 1, 2], &[1, 2, 65535], 7, ROUND).unwrap();
        // As long as `get_encrypted_commit_v2` of bittensor-drand 2.0.0 makes it for the same weights.
        assert_eq!(commit.len(), 299);
        assert_eq!(hex::encode(open(&commit).unwrap()), expected);
    }

    #[test]
    fn rounds_follow_the_clock() {
        assert_eq!(drand_round_at(QUICKNET_GENESIS_MS), 0);
        assert_eq!(drand_round_at(QUICKNET_GENESIS_MS + 3_000 * 1000 + 2_999), 1000);
        assert_eq!(drand_round_at(0), 0);
    }

    /// The same cases and answers as `get_encrypted_commit_v2` of bittensor-drand 2.0.0.
    #[test]
    fn the_round_is_the_one_that_the_sdk_computes() {
        let clock = |block, next_epoch, period_epochs| RevealClock {
            block,
            now_ms: QUICKNET_GENESIS_MS,
            next_epoch,
            tempo: 360,
            period_epochs,
            block_ms: 12_000,
        };
        let blocks = |clock: RevealClock| clock.round() / 4;
        assert_eq!(blocks(clock(120, 460, 1)), 343);
        assert_eq!(blocks(clock(120, 460, 2)), 703);
        // In the last block before an epoch a commit falls into the epoch, so it is opened one later.
        assert_eq!(blocks(clock(459, 460, 1)), 364);
        // A trigger of the owner brings the epoch forward.
        assert_eq!(blocks(clock(120, 130, 1)), 13);
    }

    #[test]
    fn bittensor_3383_dynamic_tempo_moves_the_reveal_round() {
        let clock = RevealClock {
            block: 1000,
            now_ms: QUICKNET_GENESIS_MS,
            next_epoch: 1100,
            tempo: 360,
            period_epochs: 2,
            block_ms: 12_000,
        };
        assert_eq!(clock.reveal_block(), 1460);
        // The owner shortens the tempo: the next epoch is the chain's word, those after it follow the new tempo.
        let shorter = RevealClock { tempo: 100, next_epoch: 1050, ..clock };
        assert_eq!(shorter.reveal_block(), 1150);
        assert!(shorter.round() < clock.round());
        // Blocks of 250 ms are no blocks of 12 s.
        let fast = RevealClock { block_ms: 250, ..clock };
        assert_eq!(fast.round(), (460 + 3) * 250 / 3_000);
    }
}
