//! Fiber's encrypted requests (`fiber.encrypted`, unchanged since 0.0.2), and the handshake before them.
//!
//! The receiver publishes an RSA key; the sender wraps a symmetric key with it and names that by a uuid; from then on
//! bodies are Fernet tokens under that key, and the headers sign `{nonce}:{miner_hotkey}:{uuid}`.
//!
//! # What Fiber leaves open, and what is done about it
//! - **The wrapped key is not signed**, so whoever stands between can put another one in. The uuid is signed, though, and
//!   the sender chooses it: ours is a hash of the symmetric key and of the public key it was wrapped with, under a prefix
//!   that says so ([`BOUND_PREFIX`]). A receiver that sees the prefix demands that the hash fits. Fiber's receivers take
//!   it as the string it is.
//! - **The public key is not signed.** Ours comes with the receiver's signature beside the two fields Fiber reads.
//! - **The body is not signed**, so a recorded body could be sent under the headers of a later request. A token has to be
//!   as young as a nonce, and the nonce which Fiber's clients put inside is taken once, like that of the headers.
//! - **Keys outlive their time** until a sweep; here they are looked at when they are used. They live in memory only: a
//!   file of them, encrypted under a constant, protected nothing.
//! - **Any number of keys** may be exchanged; here each hotkey has [`KEYS_PER_HOTKEY`], the oldest making room.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::{CryptoRng, RngCore};
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey, LineEnding};
use rsa::sha2::Sha256 as OaepHash;
use rsa::traits::PublicKeyParts;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sidecar_util::{Hotkey, ValueError};
use zeroize::Zeroizing;

use super::fernet::SymmetricKey;
use super::plain::{MINER_HOTKEY, NONCE, SIGNATURE, VALIDATOR_HOTKEY};
use super::refusal::Refusal;
use super::signatures::{PublicKeys, Statement};
use super::{Header, Sign, UnixTime, parse_signature, signature_text};
use crate::sync::Mutex;

/// Under which name the symmetric key was exchanged.
pub const SYMMETRIC_KEY_UUID: &str = "symmetric-key-uuid";

/// Where the receiver's public key is read.
pub const PUBLIC_ENCRYPTION_KEY_PATH: &str = "/public-encryption-key";

/// Where the wrapped symmetric key is sent.
pub const EXCHANGE_SYMMETRIC_KEY_PATH: &str = "/exchange-symmetric-key";

/// What the exchange answers.
pub const EXCHANGED: &str = r#"{"status":"Symmetric key exchanged successfully"}"#;

/// How long a symmetric key lives: Fiber's 18,000 seconds.
pub const KEY_TTL: Duration = Duration::from_hours(5);

/// Symmetric keys of one hotkey at a time. A validator needs one; several processes of it, a few.
pub const KEYS_PER_HOTKEY: usize = 16;

/// Symmetric keys altogether: that many for every validator of a full subnet.
pub const KEYS_MAX: usize = 16 * 256;

/// Longest uuid taken. Fiber's have 64 characters, ours 80.
pub const UUID_BYTES_MAX: usize = 128;

/// Body of the exchange: a blob of 344 characters in an object of one field.
pub const EXCHANGE_BYTES_MAX: u64 = 4096;

/// Size of the receiver's key. Fiber's clients take any size; its servers make this one.
const RSA_BITS: usize = 2048;

/// Begins the uuid of a symmetric key that it is the hash of.
pub const BOUND_PREFIX: &str = "mycelium-key-v1.";

/// What is signed: `construct_header_signing_message` of `fiber.encrypted.utils`.
pub fn message(nonce: &str, receiver: &str, uuid: &str) -> String {
    format!("{nonce}:{receiver}:{uuid}")
}

/// The headers of a request under an exchanged key, in Fiber's order. The exchange itself has a `Content-Type` beside.
pub fn headers(sign: &dyn Sign, receiver: &Hotkey, nonce: &str, uuid: &str) -> Vec<Header> {
    let receiver = receiver.to_string();
    let signature = sign.sign(message(nonce, &receiver, uuid).as_bytes());
    vec![
        (SYMMETRIC_KEY_UUID, uuid.to_owned()),
        (VALIDATOR_HOTKEY, sign.hotkey().to_string()),
        (MINER_HOTKEY, receiver),
        (NONCE, nonce.to_owned()),
        (SIGNATURE, signature_text(&signature)),
    ]
}

/// Answer under [`PUBLIC_ENCRYPTION_KEY_PATH`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublicKeyBody {
    /// PEM of the RSA key.
    pub public_key: String,
    /// When it was asked for, in seconds since 1970.
    pub timestamp: f64,
    /// Whose key it is. Fiber's receivers do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hotkey: Option<Hotkey>,
    /// That hotkey's signature over the key, so that nobody puts another one in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

impl PublicKeyBody {
    /// Whether the receiver vouches for the key. Fiber's receivers never do, which is not an error by itself.
    pub fn is_signed_by(&self, receiver: &Hotkey) -> bool {
        let signature = self.signature.as_deref().and_then(parse_signature);
        let statement = signature.and_then(|signature| {
            Statement::new(&PublicKeys::new(), receiver, public_key_message(&self.public_key), &signature)
        });
        statement.is_some_and(|statement| statement.holds())
    }
}

fn public_key_message(pem: &str) -> Vec<u8> {
    format!("mycelium-public-key-v1\n{pem}").into_bytes()
}

/// Body of the exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeBody {
    /// Standard base64 of the key under RSA-OAEP with SHA-256.
    pub encrypted_symmetric_key: String,
}

/// A symmetric key on its way to a receiver.
#[derive(Debug)]
pub struct Offer {
    /// The key.
    pub key: SymmetricKey,
    /// Its name.
    pub uuid: String,
    /// The body to be sent.
    pub body: ExchangeBody,
}

/// A new symmetric key for the receiver with this public key.
///
/// # Errors
/// The public key cannot be used.
pub fn offer(public_key_pem: &str, random: &mut impl CryptoRng) -> Result<Offer, ValueError> {
    let key = SymmetricKey::generate(random);
    let uuid = bound_uuid(&key, public_key_pem);
    let body = wrap(public_key_pem, key.bytes(), random)?;
    Ok(Offer { key, uuid, body })
}

/// A key as Fiber sends it.
///
/// # Errors
/// The public key cannot be used.
pub fn wrap(public_key_pem: &str, key: &[u8], random: &mut impl CryptoRng) -> Result<ExchangeBody, ValueError> {
    let wrong = |expected: &str| ValueError::new("public_key", public_key_pem, expected);
    let public = rsa::PublicKey::from_public_key_pem(public_key_pem)
        .map_err(|_| wrong("is not the PEM of an RSA public key: ask the receiver for it again"))?;
    if public.n().bits_precision() < 2048 {
        return Err(wrong("is an RSA key of fewer than 2048 bits: have the receiver make a longer one"));
    }
    let wrapped = public
        .oaep_encrypt_with_rng::<OaepHash, _>(&mut Random(random), key)
        .map_err(|_| wrong("cannot encrypt a symmetric key: ask the receiver for it again"))?;
    Ok(ExchangeBody { encrypted_symmetric_key: STANDARD.encode(wrapped) })
}

/// The uuid that says which key it names and which public key that was wrapped with.
pub fn bound_uuid(key: &SymmetricKey, public_key_pem: &str) -> String {
    let hash = Sha256::new()
        .chain_update(BOUND_PREFIX)
        .chain_update(key.bytes())
        .chain_update(public_key_pem.trim())
        .finalize();
    format!("{BOUND_PREFIX}{}", hex::encode(hash))
}

/// The receiver's RSA key, made anew by every process.
pub struct KeyExchange {
    private: rsa::PrivateKey,
    pem: String,
}

impl std::fmt::Debug for KeyExchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyExchange(..)")
    }
}

impl KeyExchange {
    /// A new key, which takes up to a second of computing.
    ///
    /// # Errors
    /// No primes were found with this randomness, which does not happen with any that deserves the name.
    pub fn generate(random: &mut impl CryptoRng) -> Result<Self, rsa::Error> {
        let private = rsa::PrivateKey::new(&mut Random(random), RSA_BITS)?;
        let pem = private.as_public_key().to_public_key_pem(LineEnding::LF).map_err(|_| rsa::Error::Internal)?;
        Ok(Self { private, pem })
    }

    /// A key that was made before.
    ///
    /// # Errors
    /// What is expected. The key is not repeated.
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, ValueError> {
        let wrong = || ValueError::new("private key", "(hidden)", "is not the PKCS#8 PEM of an RSA key");
        let private = rsa::PrivateKey::from_pkcs8_pem(pem).map_err(|_| wrong())?;
        let pem = private.as_public_key().to_public_key_pem(LineEnding::LF).map_err(|_| wrong())?;
        Ok(Self { private, pem })
    }

    /// The key that senders wrap with.
    pub fn public_key_pem(&self) -> &str {
        &self.pem
    }

    /// The answer to whoever asks for the key.
    #[expect(clippy::cast_precision_loss, reason = "Fiber's timestamp is a float, and nobody reads it")]
    pub fn public_key(&self, sign: &dyn Sign, now: UnixTime) -> PublicKeyBody {
        PublicKeyBody {
            public_key: self.pem.clone(),
            timestamp: now.millis() as f64 / 1e3,
            hotkey: Some(sign.hotkey()),
            signature: Some(signature_text(&sign.sign(&public_key_message(&self.pem)))),
        }
    }

    /// The symmetric key in the body of an exchange, whose headers were verified for this uuid.
    ///
    /// # Errors
    /// The body, the blob or the key cannot be used.
    pub fn unwrap(&self, body: &[u8], uuid: &str) -> Result<SymmetricKey, Refusal> {
        let body: ExchangeBody = serde_json::from_slice(body).map_err(|_| Refusal::MalformedBody {
            field: "encrypted_symmetric_key",
            expected: "is not there: send {\"encrypted_symmetric_key\": \"(base64)\"}",
        })?;
        let wrapped = STANDARD.decode(body.encrypted_symmetric_key.trim()).map_err(|_| Refusal::Undecryptable)?;
        let bytes = self.private.oaep_decrypt::<OaepHash>(&wrapped).map_err(|_| Refusal::Undecryptable)?;
        let bytes = Zeroizing::new(bytes);
        let key = bytes.as_slice().try_into().map_err(|_| Refusal::KeyLength(bytes.len()))?;
        let key = SymmetricKey::new(key);
        if uuid.starts_with(BOUND_PREFIX) && uuid != bound_uuid(&key, &self.pem) {
            return Err(Refusal::UnboundKey);
        }
        Ok(key)
    }
}

/// Symmetric keys that were exchanged.
#[derive(Debug, Default)]
pub struct SymmetricKeys {
    state: Mutex<HeldKeys>,
}

#[derive(Debug, Default)]
struct HeldKeys {
    /// Of each hotkey, the oldest first.
    keys: HashMap<Hotkey, VecDeque<HeldKey>>,
    total: usize,
}

#[derive(Debug)]
struct HeldKey {
    uuid: String,
    key: SymmetricKey,
    expires: UnixTime,
}

impl SymmetricKeys {
    /// No keys yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a key from now for [`KEY_TTL`]. The oldest key of a hotkey makes room for its newest.
    ///
    /// # Errors
    /// [`Refusal::TooManyKeys`] when others hold too many: a hotkey never pushes out another's.
    pub fn insert(&self, hotkey: &Hotkey, uuid: &str, key: SymmetricKey, now: UnixTime) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        if state.total >= KEYS_MAX {
            state.drop_expired(now);
        }
        let HeldKeys { keys, total } = &mut *state;
        let of_hotkey = keys.entry(*hotkey).or_default();
        let before = of_hotkey.len();
        of_hotkey.retain(|held| held.uuid != uuid && held.expires > now);
        while of_hotkey.len() >= KEYS_PER_HOTKEY {
            of_hotkey.pop_front();
        }
        *total -= before - of_hotkey.len();
        if *total >= KEYS_MAX {
            if of_hotkey.is_empty() {
                keys.remove(hotkey);
            }
            return Err(Refusal::TooManyKeys);
        }
        of_hotkey.push_back(HeldKey { uuid: uuid.to_owned(), key, expires: now.plus(KEY_TTL) });
        *total += 1;
        Ok(())
    }

    /// A key that has not expired.
    ///
    /// # Errors
    /// [`Refusal::NoSymmetricKey`], upon which clients exchange a new one.
    pub fn get(&self, hotkey: &Hotkey, uuid: &str, now: UnixTime) -> Result<SymmetricKey, Refusal> {
        let state = self.state.lock();
        let held = state.keys.get(hotkey).and_then(|keys| keys.iter().find(|held| held.uuid == uuid));
        held.filter(|held| held.expires > now).map(|held| held.key.clone()).ok_or(Refusal::NoSymmetricKey)
    }

    /// How many keys are held, those included that have expired and are not yet dropped.
    pub fn len(&self) -> usize {
        self.state.lock().total
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl HeldKeys {
    fn drop_expired(&mut self, now: UnixTime) {
        self.keys.retain(|_, keys| {
            keys.retain(|held| held.expires > now);
            !keys.is_empty()
        });
        self.total = self.keys.values().map(VecDeque::len).sum();
    }
}

/// This workspace's randomness as the newer traits of `rsa` want it.
struct Random<'a, R>(&'a mut R);

impl<R: RngCore> rsa::rand_core::TryRng for Random<'_, R> {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.0.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill_bytes(bytes);
        Ok(())
    }
}

impl<R: RngCore + CryptoRng> rsa::rand_core::TryCryptoRng for Random<'_, R> {}

#[cfg(test)]
pub(crate) mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::handshake::tests::key;

    /// One for all tests: making it is the slow part.
    pub(crate) fn exchange() -> &'static KeyExchange {
        static EXCHANGE: std::sync::LazyLock<KeyExchange> =
            std::sync::LazyLock::new(|| KeyExchange::generate(&mut StdRng::seed_from_u64(1)).unwrap());
        &EXCHANGE
    }

    fn random() -> StdRng {
        StdRng::seed_from_u64(2)
    }

    fn body(offer: &ExchangeBody) -> Vec<u8> {
        serde_json::to_vec(offer).unwrap()
    }

    const NOW: UnixTime = UnixTime::from_secs(1_000_000);

    #[test]
    fn a_key_goes_from_the_sender_to_the_receiver() {
        let offer = offer(exchange().public_key_pem(), &mut random()).unwrap();
        assert_eq!(offer.body.encrypted_symmetric_key.len(), 344, "as long as Fiber's");
        let unwrapped = exchange().unwrap(&body(&offer.body), &offer.uuid).unwrap();
        assert_eq!(unwrapped.bytes(), offer.key.bytes());
    }

    #[test]
    fn blobs_that_fiber_answers_with_500_are_answered_with_4xx() {
        let pem = exchange().public_key_pem();
        let short = wrap(pem, &[1; 31], &mut random()).unwrap();
        assert_eq!(exchange().unwrap(&body(&short), "uuid").unwrap_err(), Refusal::KeyLength(31));
        let blob = |text: &str| body(&ExchangeBody { encrypted_symmetric_key: text.to_owned() });
        for bad in ["", "%%%", "AAAA", "AAA", &STANDARD.encode([7; 256]), &STANDARD.encode([0xff; 256])] {
            assert_eq!(exchange().unwrap(&blob(bad), "uuid").unwrap_err(), Refusal::Undecryptable, "{bad}");
        }
        for bad in [&b""[..], b"{}", b"[]", b"{\"encrypted_symmetric_key\": 1}", b"\xff"] {
            assert_eq!(exchange().unwrap(bad, "uuid").unwrap_err().status(), 422);
        }
    }

    #[test]
    fn fiber_5_3_3_a_wrapped_key_that_was_swapped_is_noticed() {
        let pem = exchange().public_key_pem();
        let offer = offer(pem, &mut random()).unwrap();
        let swapped = wrap(pem, &[7; 32], &mut random()).unwrap();
        assert_eq!(exchange().unwrap(&body(&swapped), &offer.uuid).unwrap_err(), Refusal::UnboundKey);
        // And so is a public key that was: the sender has hashed the one it was given.
        let between = KeyExchange::generate(&mut random()).unwrap();
        let offer = super::offer(between.public_key_pem(), &mut random()).unwrap();
        let passed_on = wrap(pem, offer.key.bytes(), &mut random()).unwrap();
        assert_eq!(exchange().unwrap(&body(&passed_on), &offer.uuid).unwrap_err(), Refusal::UnboundKey);
        // Fiber's own uuid says nothing, and is taken.
        assert!(exchange().unwrap(&body(&swapped), &"ab".repeat(32)).is_ok());
    }

    #[test]
    fn the_public_key_is_signed_by_its_receiver() {
        let receiver = key(1);
        let answer = exchange().public_key(&receiver, NOW);
        assert!(answer.is_signed_by(&receiver.hotkey()));
        assert!(!answer.is_signed_by(&key(2).hotkey()));
        let another = KeyExchange::generate(&mut random()).unwrap().public_key_pem().to_owned();
        assert!(!PublicKeyBody { public_key: another, ..answer.clone() }.is_signed_by(&receiver.hotkey()));
        assert!(!PublicKeyBody { signature: None, ..answer }.is_signed_by(&receiver.hotkey()));
        let fibers = r#"{"public_key": "pem", "timestamp": 1764000000.5}"#;
        assert_eq!(serde_json::from_str::<PublicKeyBody>(fibers).unwrap().hotkey, None);
    }

    #[test]
    fn public_keys_that_cannot_be_used_are_refused() {
        for bad in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "hunter2"] {
            let error = offer(bad, &mut random()).unwrap_err().to_string();
            assert!(error.starts_with("public_key: `") && error.contains("RSA public key"), "{error}");
        }
    }

    #[test]
    fn keys_expire_when_they_are_used_and_not_when_somebody_sweeps() {
        let keys = SymmetricKeys::new();
        let hotkey = key(1).hotkey();
        keys.insert(&hotkey, "a", SymmetricKey::new(&[1; 32]), NOW).unwrap();
        assert!(keys.get(&hotkey, "a", NOW.plus(KEY_TTL).minus(Duration::from_secs(1))).is_ok());
        assert_eq!(keys.get(&hotkey, "a", NOW.plus(KEY_TTL)).unwrap_err(), Refusal::NoSymmetricKey);
        assert_eq!(keys.get(&key(2).hotkey(), "a", NOW).unwrap_err(), Refusal::NoSymmetricKey);
    }

    #[test]
    fn fiber_5_3_5_symmetric_keys_are_bounded_for_each_hotkey_and_in_all() {
        let keys = SymmetricKeys::new();
        let one = || SymmetricKey::new(&[1; 32]);
        let hotkey = |id: usize| -> Hotkey {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&(id as u64).to_le_bytes());
            bytes.into()
        };
        for uuid in 0..=KEYS_PER_HOTKEY {
            keys.insert(&hotkey(0), &uuid.to_string(), one(), NOW).unwrap();
        }
        assert_eq!(keys.len(), KEYS_PER_HOTKEY);
        assert!(keys.get(&hotkey(0), "0", NOW).is_err() && keys.get(&hotkey(0), "1", NOW).is_ok());
        for id in 1..=KEYS_MAX - KEYS_PER_HOTKEY {
            keys.insert(&hotkey(id), "a", one(), NOW).unwrap();
        }
        assert_eq!(keys.len(), KEYS_MAX);
        assert_eq!(keys.insert(&hotkey(9999), "a", one(), NOW).unwrap_err(), Refusal::TooManyKeys);
        assert!(keys.get(&hotkey(1), "a", NOW).is_ok(), "nobody's key made room for another's");
        keys.insert(&hotkey(1), "b", one(), NOW).unwrap_err();
        keys.insert(&hotkey(0), "new", one(), NOW).unwrap();
        keys.insert(&hotkey(9999), "a", one(), NOW.plus(KEY_TTL)).unwrap();
        assert_eq!(keys.len(), 1);
    }
}
