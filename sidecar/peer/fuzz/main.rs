//! Fuzz targets for whatever strangers send to the axon: headers, tokens, wrapped keys, bodies and peer records.
//!
//! A target must refuse what it refuses with a status from 400 to 429: never 500.
#![expect(clippy::unwrap_used, reason = "a target that cannot go on stops and says so")]

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use e2e_fuzz::Fuzz;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use sidecar_peer::handshake::encrypted::{KeyExchange, PublicKeyBody};
use sidecar_peer::handshake::fernet::SymmetricKey;
use sidecar_peer::handshake::nonce::{FIBER_WINDOW, NonceLimits};
use sidecar_peer::handshake::receiver::{Claim, Receiver, Request};
use sidecar_peer::handshake::record::PeerRecord;
use sidecar_peer::handshake::refusal::Refusal;
use sidecar_peer::handshake::strict::RequestLine;
use sidecar_peer::handshake::{Scheme, UnixTime};
use sidecar_util::Hotkey;

const FUZZ: Fuzz = Fuzz { manifest_dir: env!("CARGO_MANIFEST_DIR"), seconds: 2, max_input: 4096, max_shrinks: 4096 };

/// What the corpus was made with.
static VECTORS: LazyLock<Value> = LazyLock::new(|| {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/fiber.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
});

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap());

static EXCHANGE: LazyLock<KeyExchange> =
    LazyLock::new(|| KeyExchange::from_pkcs8_pem(VECTORS["encrypted"]["private_key"].as_str().unwrap()).unwrap());

fn now() -> UnixTime {
    UnixTime::from_secs(VECTORS["second"].as_u64().unwrap())
}

fn miner() -> Hotkey {
    VECTORS["miner"].as_str().unwrap().parse().unwrap()
}

/// The key of the first case, in whose token the corpus's tokens are.
fn key() -> SymmetricKey {
    SymmetricKey::parse(VECTORS["encrypted"]["cases"][0]["symmetric_key"].as_str().unwrap()).unwrap()
}

fn receiver() -> Receiver {
    let _runtime = RUNTIME.enter();
    Receiver::spawn(&miner(), NonceLimits::default(), 1, now().minus(Duration::from_mins(1)))
}

fn refused_politely(refusal: &Refusal) {
    for scheme in Scheme::ALL {
        let body: Value = serde_json::from_slice(&refusal.body(scheme)).unwrap();
        assert!(!body["detail"].is_null(), "{refusal:?}");
    }
    assert!((400..=429).contains(&refusal.status()), "{refusal:?}");
}

/// Lines of `name: value`; a body after an empty one.
fn headers(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    let (head, body) = match bytes.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&bytes[..at], &bytes[at + 2..]),
        None => (bytes, &[][..]),
    };
    for line in head.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        let value = HeaderValue::from_bytes(line[at + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..at]), value) {
            headers.append(name, value);
        }
    }
    let hash = sidecar_peer::handshake::body_hash(body);
    let line = RequestLine { method: "POST", path: "/any", query: "" };
    let request = Request { line, body_hash: (!body.is_empty()).then_some(&*hash) };
    let proved = Claim::read(&headers).map_err(|(_, refusal)| refusal).and_then(|claim| {
        let sender = claim.sender()?;
        RUNTIME.block_on(receiver().prove(&claim, &sender, request, now()))
    });
    match proved {
        Ok(proof) => assert_eq!(proof.sender.to_string(), VECTORS["validator"].as_str().unwrap()),
        Err(refusal) => refused_politely(&refusal),
    }
}

/// A Fernet token.
fn tokens(bytes: &[u8]) {
    match key().decrypt(bytes, now(), FIBER_WINDOW) {
        Ok(content) => assert_eq!(content, VECTORS["encrypted"]["cases"][0]["content"].as_str().unwrap().as_bytes()),
        Err(refusal) => refused_politely(&refusal),
    }
}

/// The raw bytes that a wrapped key is the base64 of.
fn blobs(bytes: &[u8]) {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    bodies(format!("{{\"encrypted_symmetric_key\": \"{text}\"}}").as_bytes());
}

/// JSON in the place of every body.
fn bodies(bytes: &[u8]) {
    if let Err(refusal) = EXCHANGE.unwrap(bytes, "uuid") {
        refused_politely(&refusal);
    }
    if let Ok(body) = serde_json::from_slice::<PublicKeyBody>(bytes) {
        let _ = body.is_signed_by(&miner());
        let _ = sidecar_peer::handshake::encrypted::offer(&body.public_key, &mut rand::rng());
    }
    // As the content of a token, where a nonce is looked for.
    let (receiver, sender) = (receiver(), miner());
    receiver.symmetric_keys().insert(&sender, "uuid", key(), UnixTime::now()).unwrap();
    let claim = Claim {
        scheme: Scheme::Encrypted,
        sender: String::new(),
        receiver: String::new(),
        nonce: String::new(),
        time: None,
        signature: String::new(),
        uuid: Some("uuid".into()),
    };
    let token = key().encrypt(bytes);
    match receiver.decrypt(&claim, &sender, token.as_bytes(), UnixTime::now()) {
        Ok(content) => assert_eq!(content, bytes),
        Err(refusal) => refused_politely(&refusal),
    }
}

/// A peer record.
fn records(bytes: &[u8]) {
    if let Ok(record) = PeerRecord::read(bytes, &miner(), "00ff", now()) {
        assert_eq!((record.hotkey, record.challenge.as_str()), (miner(), "00ff"));
    }
}

e2e_fuzz::targets!(FUZZ: headers tokens blobs bodies records);

/// A corpus that no target takes would prove nothing about what comes after the first check.
#[test]
fn the_corpus_gets_past_the_first_checks() {
    let seed = |name: &str| FUZZ.corpus(name).remove(0);
    assert!(key().decrypt(&seed("tokens"), now(), FIBER_WINDOW).is_ok());
    assert!(PeerRecord::read(&seed("records"), &miner(), "00ff", now()).is_ok());
    assert!(EXCHANGE.unwrap(&seed("bodies"), "uuid").is_ok());
}
