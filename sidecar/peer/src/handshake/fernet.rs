//! Bodies of Fiber's encrypted protocol: Fernet tokens.
//!
//! Python's `Fernet` takes a key in either alphabet of base64, and Fiber relies on it: its handshake returns the standard
//! alphabet, and its users store the one for URLs. Tokens carry the time at which they were made, which Fiber ignores;
//! here a token that is older than a nonce could be is refused, or whoever recorded it could send it again.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use rand::CryptoRng;
use sidecar_util::ValueError;
use zeroize::Zeroizing;

use super::UnixTime;
use super::refusal::Refusal;

/// Length of a key: half of it signs, half of it encrypts.
pub const KEY_BYTES: usize = 32;

/// Version, time, vector and tag: what a token has beside its content, which comes in blocks of 16 bytes.
const TOKEN_BYTES_MIN: usize = 1 + 8 + 16 + 16 + 32;

/// The first byte of every token.
const VERSION: u8 = 0x80;

/// A symmetric key. It is wiped when it is dropped, and never printed.
#[derive(Clone)]
pub struct SymmetricKey {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    fernet: fernet::Fernet,
}

impl fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymmetricKey(..)")
    }
}

impl SymmetricKey {
    /// A new key.
    pub fn generate(random: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        random.fill_bytes(&mut *bytes);
        Self::new(&bytes)
    }

    /// A key of these bytes.
    #[expect(clippy::missing_panics_doc, reason = "32 bytes in base64 are what the library takes")]
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let text = Zeroizing::new(URL_SAFE.encode(bytes));
        let fernet = fernet::Fernet::new(&text).expect("32 bytes in the alphabet for URLs are a key");
        Self { bytes: Zeroizing::new(*bytes), fernet }
    }

    /// A key as Fiber's users have it: 32 bytes in base64, in either alphabet.
    ///
    /// # Errors
    /// What is expected. The key is not repeated.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let wrong = || ValueError::new("symmetric key", "(hidden)", "is not 32 bytes in base64");
        let decoded = Zeroizing::new(STANDARD.decode(standard(text.trim())).map_err(|_| wrong())?);
        let bytes: &[u8; KEY_BYTES] = decoded.as_slice().try_into().map_err(|_| wrong())?;
        Ok(Self::new(bytes))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// As `perform_handshake` returns it: the standard alphabet.
    pub fn to_standard_text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.bytes))
    }

    /// As `fernet_to_symmetric_key` returns it: the alphabet for URLs.
    pub fn to_url_safe_text(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE.encode(*self.bytes))
    }

    /// A token of this content, made now.
    pub fn encrypt(&self, content: &[u8]) -> String {
        self.fernet.encrypt(content)
    }

    /// The content of a token that was made at most `window` away from now.
    ///
    /// # Errors
    /// [`Refusal::Token`] with what is wrong with it.
    pub fn decrypt(&self, token: &[u8], now: UnixTime, window: Duration) -> Result<Vec<u8>, Refusal> {
        let text = std::str::from_utf8(token).map_err(|_| Refusal::Token("is not a Fernet token"))?;
        let token = standard(text.trim()).replace('+', "-").replace('/', "_");
        let made = made_at(&token)?;
        if made.distance(now) > window {
            return Err(Refusal::Token("is a Fernet token from another time"));
        }
        self.fernet.decrypt(&token).map_err(|_| Refusal::Token("is not a Fernet token of that symmetric key"))
    }
}

/// When a token was made. Anybody could write it, until the token is decrypted.
fn made_at(token: &str) -> Result<UnixTime, Refusal> {
    const MALFORMED: Refusal = Refusal::Token("is not a Fernet token");
    // 12 letters are the 9 bytes of version and time.
    let head = token.get(..12).ok_or(MALFORMED)?;
    let head = URL_SAFE.decode(head).map_err(|_| MALFORMED)?;
    let (version, time) = head.split_first().ok_or(MALFORMED)?;
    let time = time.try_into().map_err(|_| MALFORMED)?;
    // Before the allocations of decryption.
    if *version != VERSION || token.len() / 4 * 3 < TOKEN_BYTES_MIN {
        return Err(MALFORMED);
    }
    Ok(UnixTime::from_secs(u64::from_be_bytes(time)))
}

fn standard(text: &str) -> String {
    text.replace('-', "+").replace('_', "/")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_mins(2);

    /// Has both letters in which the alphabets differ.
    fn key() -> SymmetricKey {
        SymmetricKey::new(&[0xfb; KEY_BYTES])
    }

    #[test]
    fn keys_are_taken_in_both_alphabets_and_given_in_both() {
        let (standard, url_safe) = (key().to_standard_text(), key().to_url_safe_text());
        assert!(standard.contains('+') && standard.contains('/') && url_safe.contains('-') && url_safe.contains('_'));
        for text in [&standard, &url_safe] {
            assert_eq!(SymmetricKey::parse(text).unwrap().bytes(), key().bytes());
        }
        for bad in ["", "AAAA", &standard[..40], &format!("{}AAAA", *standard), "hunter2"] {
            let error = SymmetricKey::parse(bad).unwrap_err().to_string();
            assert_eq!(error, "symmetric key: `(hidden)` is not 32 bytes in base64");
        }
    }

    #[test]
    fn a_token_comes_back_for_its_key_and_its_time_only() {
        let token = key().encrypt(b"content");
        let now = UnixTime::now();
        assert_eq!(key().decrypt(token.as_bytes(), now, WINDOW).unwrap(), b"content");
        let standard = token.replace('-', "+").replace('_', "/");
        assert_eq!(key().decrypt(standard.as_bytes(), now, WINDOW).unwrap(), b"content");
        let other = SymmetricKey::new(&[1; KEY_BYTES]);
        assert!(other.decrypt(token.as_bytes(), now, WINDOW).is_err());
        for later in [now.plus(WINDOW * 2), now.minus(WINDOW * 2)] {
            let error = key().decrypt(token.as_bytes(), later, WINDOW).unwrap_err();
            assert_eq!(error, Refusal::Token("is a Fernet token from another time"));
        }
        let mut tampered = token.into_bytes();
        tampered[40] ^= 1;
        assert_eq!(key().decrypt(&tampered, now, WINDOW).unwrap_err().status(), 400);
    }

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{:?}", key()), "SymmetricKey(..)");
    }

    proptest! {
        #[test]
        fn no_bytes_make_decryption_panic(token: Vec<u8>) {
            let _ = key().decrypt(&token, UnixTime::from_secs(1), WINDOW);
        }

        #[test]
        fn no_time_in_a_token_makes_decryption_panic(time: u64, rest in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&[VERSION][..], &time.to_be_bytes(), &rest].concat();
            let now = UnixTime::from_secs(time);
            prop_assert!(key().decrypt(URL_SAFE.encode(bytes).as_bytes(), now, WINDOW).is_err());
        }
    }
}
