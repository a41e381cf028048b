//! The schemes against an independent implementation, in both directions.
//!
//! `vectors/fiber.json` is what a Fiber client sends, made by `vectors/generate.py`; it is read here. `vectors/mycelium.json`
//! is what this crate sends, written here with `UPDATE_GOLDEN=1`; `generate.py --check` reads it. Signatures of sr25519 are
//! random, so a golden file is compared by what it says, and its signatures are verified.

#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of tests for production code")]

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use rand::SeedableRng;
use rand::rngs::StdRng;
use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey};
use serde_json::{Value, json};
use sidecar_peer::handshake::encrypted::{self, KeyExchange};
use sidecar_peer::handshake::fernet::SymmetricKey;
use sidecar_peer::handshake::nonce::{FIBER_WINDOW, NonceLimits};
use sidecar_peer::handshake::receiver::{Claim, Receiver, Request};
use sidecar_peer::handshake::record::PeerRecord;
use sidecar_peer::handshake::strict::{self, RequestLine};
use sidecar_peer::handshake::{Header, Scheme, Sign, UnixTime, body_hash, plain};
use sidecar_util::http::NodeKind;
use sidecar_util::{BlockHash, Hotkey, NetUid};

struct Key(Keypair);

fn key(id: u8) -> Key {
    Key(MiniSecretKey::from_bytes(&[id; 32]).unwrap().expand_to_keypair(ExpansionMode::Ed25519))
}

impl Sign for Key {
    fn hotkey(&self) -> Hotkey {
        self.0.public.to_bytes().into()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign_simple(b"substrate", message).to_bytes()
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

fn vectors(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path(name)).unwrap()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn headers(value: &Value) -> HeaderMap {
    let pairs = value.as_array().unwrap().iter();
    pairs
        .map(|pair| (text(&pair[0]).parse::<HeaderName>().unwrap(), HeaderValue::from_str(text(&pair[1])).unwrap()))
        .collect()
}

fn names(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|pair| text(&pair[0])).collect()
}

fn at(vectors: &Value) -> UnixTime {
    UnixTime::from_secs(vectors["second"].as_u64().unwrap())
}

fn receiver(id: u8, now: UnixTime) -> Receiver {
    Receiver::spawn(&key(id).hotkey(), NonceLimits::default(), 1, now.minus(Duration::from_mins(1)))
}

async fn proves(receiver: &Receiver, headers: &HeaderMap, line: RequestLine<'_>, body: &[u8], now: UnixTime) -> Claim {
    let claim = Claim::read(headers).unwrap();
    let sender = claim.sender().unwrap();
    let hash = body_hash(body);
    let request = Request { line, body_hash: (!body.is_empty()).then_some(&*hash) };
    let proof = receiver.prove(&claim, &sender, request, now).await.unwrap();
    assert_eq!((proof.sender, proof.scheme), (sender, claim.scheme));
    claim
}

#[tokio::test]
async fn plain_requests_of_a_fiber_client_are_taken() {
    let vectors = vectors("fiber.json");
    assert_eq!(vectors["validator"], key(1).hotkey().to_string(), "the same seed is the same key");
    let (now, cases) = (at(&vectors), vectors["plain"].as_array().unwrap());
    let receiver = receiver(2, now);
    assert!(cases.len() >= 9 && cases.iter().any(|case| case["wrapped"] == true));
    for case in cases {
        let body = STANDARD.decode(text(&case["body"])).unwrap();
        let line = RequestLine { method: text(&case["method"]), path: "/any", query: "" };
        let claim = proves(&receiver, &headers(&case["headers"]), line, &body, now).await;
        assert_eq!(claim.scheme, Scheme::Plain);
        let hash = body_hash(&body);
        let hash = (line.method == "POST").then_some(&*hash);
        assert_eq!(plain::message(&claim.nonce, &claim.receiver, hash), text(&case["message"]));
    }
}

#[tokio::test]
async fn encrypted_requests_of_a_fiber_client_are_taken() {
    let vectors = vectors("fiber.json");
    let now = at(&vectors);
    let exchange = KeyExchange::from_pkcs8_pem(text(&vectors["encrypted"]["private_key"])).unwrap();
    assert_eq!(exchange.public_key_pem(), text(&vectors["encrypted"]["public_key"]), "the same PEM, byte for byte");
    let receiver = receiver(2, now);
    for case in vectors["encrypted"]["cases"].as_array().unwrap() {
        let line = RequestLine { method: "POST", path: "/any", query: "" };
        let claim = proves(&receiver, &headers(&case["headers"]), line, b"any", now).await;
        let (sender, uuid) = (claim.sender().unwrap(), claim.uuid.clone().unwrap());
        let key = exchange.unwrap(text(&case["exchange"]).as_bytes(), &uuid).unwrap();
        assert_eq!(*key.to_standard_text(), text(&case["symmetric_key"]));
        assert_eq!(*key.to_url_safe_text(), text(&case["symmetric_key_urlsafe"]));
        receiver.symmetric_keys().insert(&sender, &uuid, key, now).unwrap();
        let content = receiver.decrypt(&claim, &sender, text(&case["token"]).as_bytes(), now).unwrap();
        assert_eq!(content, text(&case["content"]).as_bytes());
    }
}

fn shown(headers: &[Header]) -> Value {
    headers.iter().map(|(name, value)| json!([name, value])).collect()
}

/// What this crate sends.
fn made() -> Value {
    let (sender, receiver) = (key(1), key(2));
    let own = receiver.hotkey();
    let now = UnixTime::from_secs(1_764_000_000);
    let mut random = StdRng::seed_from_u64(5);
    let pem = vectors("fiber.json")["encrypted"]["public_key"].clone();
    let bodies: [Option<&[u8]>; 4] =
        [Some(br#"{"hi": "there"}"#), Some(b""), None, Some("{\"a\":\"世界\"}".as_bytes())];
    let plain: Vec<Value> = bodies
        .iter()
        .map(|body| {
            let nonce = sidecar_peer::handshake::nonce::fiber_nonce(now, &mut random);
            json!({"headers": shown(&plain::headers(&sender, &own, &nonce, *body)), "body": body.map(|body| STANDARD.encode(body))})
        })
        .collect();
    let encrypted: Vec<Value> = (0..2)
        .map(|_| {
            let offer = encrypted::offer(text(&pem), &mut random).unwrap();
            let nonce = sidecar_peer::handshake::nonce::fiber_nonce(now, &mut random);
            let content = "{\"hi\": \"there\"}";
            json!({
                "headers": shown(&encrypted::headers(&sender, &own, &nonce, &offer.uuid)),
                "exchange": serde_json::to_string(&offer.body).unwrap(),
                "symmetric_key": *offer.key.to_standard_text(),
                "content": content,
                "token": offer.key.encrypt(content.as_bytes()),
            })
        })
        .collect();
    let lines = [
        RequestLine { method: "POST", path: "/v1/chat", query: "model=a&stream=1" },
        RequestLine { method: "GET", path: "/", query: "" },
        RequestLine { method: "DELETE", path: "/a%20b/%E4%B8%96", query: "q=%0a" },
    ];
    let strict: Vec<Value> = lines
        .iter()
        .map(|line| {
            let body: &[u8] = if line.method == "GET" { b"" } else { b"\x00\xffbody" };
            let nonce = strict::nonce(&mut random);
            let hash = body_hash(body);
            let (response_name, response) =
                strict::response_header(&receiver, &sender.hotkey(), &nonce, 200, b"answer");
            let (from, to) = (sender.hotkey().to_string(), own.to_string());
            json!({
                "method": line.method, "path": line.path, "query": line.query, "body": STANDARD.encode(body),
                "message": strict::message(*line, &hash, &from, &to, now, &nonce),
                "headers": shown(&strict::headers(&sender, &own, *line, &hash, now, &nonce)),
                "response": {"status": 200, "body": STANDARD.encode(b"answer"), response_name: response},
            })
        })
        .collect();
    let record = PeerRecord {
        hotkey: own,
        netuid: NetUid(1),
        genesis_hash: Some(BlockHash([7; 32])),
        kind: NodeKind::Miner,
        version: "0.1.0".into(),
        schemes: Scheme::ALL.map(|scheme| scheme.name().to_owned()).to_vec(),
        consensus_address: Some("validator-a.example:9101".into()),
        time_ms: now.millis(),
        challenge: "00ff".into(),
        signature: String::new(),
    };
    let bare = PeerRecord { genesis_hash: None, consensus_address: None, kind: NodeKind::Validator, ..record.clone() };
    let records = [record.signed(&receiver), bare.signed(&receiver)];
    json!({"second": now.secs(), "plain": plain, "encrypted": encrypted, "strict": strict, "records": records})
}

/// Blanks what is random by design.
fn without_randomness(mut value: Value) -> Value {
    match &mut value {
        Value::Array(items) => {
            if let [Value::String(name), Value::String(text)] = items.as_mut_slice()
                && name.contains("signature")
            {
                text.clear();
            }
            for item in items {
                *item = without_randomness(item.take());
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                let random = name.contains("signature") || name == "token" || name == "exchange";
                *field = if random { Value::Null } else { without_randomness(field.take()) };
            }
        }
        _ => {}
    }
    value
}

#[tokio::test]
async fn what_this_crate_sends_is_as_committed_and_is_taken() {
    let made = made();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path("mycelium.json"), serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let committed = vectors("mycelium.json");
    assert_eq!(without_randomness(made), without_randomness(committed.clone()), "UPDATE_GOLDEN=1 writes it anew");

    let now = at(&committed);
    let receiver = receiver(2, now);
    for case in committed["plain"].as_array().unwrap() {
        let body = case["body"].as_str().map(|body| STANDARD.decode(body).unwrap());
        let method = if body.is_some() { "POST" } else { "GET" };
        let line = RequestLine { method, path: "/any", query: "" };
        proves(&receiver, &headers(&case["headers"]), line, &body.unwrap_or_default(), now).await;
        assert_eq!(names(&case["headers"]), ["Content-Type", "validator-hotkey", "miner-hotkey", "nonce", "signature"]);
    }
    let exchange = KeyExchange::from_pkcs8_pem(text(&vectors("fiber.json")["encrypted"]["private_key"])).unwrap();
    for case in committed["encrypted"].as_array().unwrap() {
        let line = RequestLine { method: "POST", path: "/any", query: "" };
        let claim = proves(&receiver, &headers(&case["headers"]), line, b"any", now).await;
        let key = exchange.unwrap(text(&case["exchange"]).as_bytes(), claim.uuid.as_deref().unwrap()).unwrap();
        assert_eq!(key.bytes(), SymmetricKey::parse(text(&case["symmetric_key"])).unwrap().bytes());
        // Tokens carry the time at which they were made, which nobody can choose.
        let token = text(&case["token"]).as_bytes();
        let made = u64::from_be_bytes(
            base64::engine::general_purpose::URL_SAFE.decode(token).unwrap()[1..9].try_into().unwrap(),
        );
        let content = key.decrypt(token, UnixTime::from_secs(made), FIBER_WINDOW).unwrap();
        assert_eq!(content, text(&case["content"]).as_bytes());
        let order = ["symmetric-key-uuid", "validator-hotkey", "miner-hotkey", "nonce", "signature"];
        assert_eq!(names(&case["headers"]), order);
    }
    for case in committed["strict"].as_array().unwrap() {
        let body = STANDARD.decode(text(&case["body"])).unwrap();
        let line =
            RequestLine { method: text(&case["method"]), path: text(&case["path"]), query: text(&case["query"]) };
        let claim = proves(&receiver, &headers(&case["headers"]), line, &body, now).await;
        let answer = &case["response"];
        let (status, body) = (answer["status"].as_u64().unwrap(), STANDARD.decode(text(&answer["body"])).unwrap());
        let signature = text(&answer[strict::RESPONSE_SIGNATURE]);
        let (sender, own) = (claim.sender().unwrap(), key(2).hotkey());
        let status = u16::try_from(status).unwrap();
        assert!(strict::response_is_signed(&sender, &own, &claim.nonce, status, &body, signature));
    }
    for record in committed["records"].as_array().unwrap() {
        let bytes = serde_json::to_vec(record).unwrap();
        PeerRecord::read(&bytes, &key(2).hotkey(), "00ff", now).unwrap();
    }
}
