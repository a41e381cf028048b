//! Who asks? The three ways in which validators and miners sign HTTP requests to each other.
//!
//! | scheme | what is signed | spoken by |
//! |---|---|---|
//! | `plain` | nonce, receiver, hash of the body | Fiber 2 and later |
//! | `encrypted` | nonce, receiver, id of a key exchanged before; the body is a Fernet token | Fiber, all versions |
//! | `mycelium-v1` | method, path, query, body, sender, receiver, time, nonce | this project |
//!
//! The first two are Fiber's, byte for byte, with its faults closed where its bytes allow it:
//! - a nonce is remembered as long as it could be valid, not for a fixed time after it came ([`nonce`]);
//! - it is remembered only once its signature was checked, for each hotkey on its own, and within bounds;
//! - a request for another receiver is refused in every scheme;
//! - what is malformed is refused with the same shape of body as everything else, and never with 500;
//! - a body or a wrapped key that was recorded cannot be sent again under another request's headers ([`encrypted`]).
//!
//! What its bytes do not allow: method and path are signed by neither, which is what `mycelium-v1` is for.
//!
//! Everything here is pure: time and randomness come in as arguments, and nothing touches a socket.

pub mod encrypted;
pub mod fernet;
pub mod nonce;
pub mod plain;
pub mod receiver;
pub mod record;
pub mod refusal;
pub mod signatures;
pub mod strict;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use sidecar_util::Hotkey;

/// Signs in the name of a hotkey.
pub trait Sign: Send + Sync {
    /// In whose name.
    fn hotkey(&self) -> Hotkey;

    /// An sr25519 signature in the context `substrate`.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

/// A way to sign a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Fiber's, without encryption.
    Plain,
    /// Fiber's, with an encrypted body.
    Encrypted,
    /// Ours.
    Strict,
}

impl Scheme {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Encrypted, Self::Strict];

    /// Its name on the wire, in logs and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Encrypted => "encrypted",
            Self::Strict => strict::VERSION,
        }
    }
}

/// A moment by the wall clock, in nanoseconds since 1970: what Fiber's nonces begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// This moment.
    pub fn now() -> Self {
        // A clock before 1970 is refused by every window below; one after 2554 is nobody's problem.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// From nanoseconds since 1970.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// From milliseconds since 1970; the far future where that does not fit.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// From seconds since 1970; the far future where that does not fit.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since 1970.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Milliseconds since 1970.
    pub const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Seconds since 1970.
    pub const fn secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// How far two moments are apart, whichever comes first.
    pub const fn distance(self, other: Self) -> Duration {
        Duration::from_nanos(self.0.abs_diff(other.0))
    }

    /// Later by so much.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Earlier by so much.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A header of a request: its name and its value, in the order in which Fiber sends them.
pub type Header = (&'static str, String);

/// What is signed of a body: SHA-256 in lower-case hex.
pub fn body_hash(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

/// A signature as every scheme writes it.
pub(crate) fn signature_text(signature: &[u8; 64]) -> String {
    format!("0x{}", hex::encode(signature))
}

/// A signature out of a header: 128 hex digits, with `0x` or without. Fiber answers the latter with 500.
pub(crate) fn parse_signature(text: &str) -> Option<[u8; 64]> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mut signature = [0; 64];
    hex::decode_to_slice(digits, &mut signature).ok()?;
    Some(signature)
}

#[cfg(test)]
pub(crate) mod tests {
    use schnorrkel::Keypair;

    use super::*;

    /// A key for tests.
    pub(crate) struct TestKey(pub(crate) Keypair);

    pub(crate) fn key(id: u8) -> TestKey {
        let secret = schnorrkel::MiniSecretKey::from_bytes(&[id; 32]).unwrap();
        TestKey(secret.expand_to_keypair(schnorrkel::ExpansionMode::Ed25519))
    }

    impl Sign for TestKey {
        fn hotkey(&self) -> Hotkey {
            self.0.public.to_bytes().into()
        }

        fn sign(&self, message: &[u8]) -> [u8; 64] {
            self.0.sign_simple(b"substrate", message).to_bytes()
        }
    }

    #[test]
    fn signatures_are_read_with_and_without_their_prefix() {
        let signature = key(1).sign(b"message");
        let text = signature_text(&signature);
        assert_eq!(text.len(), 130);
        assert_eq!(parse_signature(&text), Some(signature));
        assert_eq!(parse_signature(&text[2..]), Some(signature));
        for bad in ["", "0x", "0x12", &text[..129], &format!("{text}00"), "0xzz", "0x0x"] {
            assert_eq!(parse_signature(bad), None, "{bad}");
        }
    }

    #[test]
    fn moments_far_away_do_not_wrap() {
        assert_eq!(UnixTime::from_secs(u64::MAX).nanos(), u64::MAX);
        assert_eq!(UnixTime::from_nanos(u64::MAX).plus(Duration::from_secs(1)).nanos(), u64::MAX);
        assert_eq!(UnixTime::from_nanos(5).minus(Duration::from_secs(1)).nanos(), 0);
    }
}
