use std::time::Duration;

use http::{HeaderName, HeaderValue};
use rand::SeedableRng;
use rand::rngs::StdRng;
use sidecar_util::Tao;

use super::*;
use crate::handshake::fernet::SymmetricKey;
use crate::handshake::tests::{TestKey, key};
use crate::handshake::{Header, Sign, body_hash};

const START: UnixTime = UnixTime::from_secs(1_764_000_000);
const BODY: &[u8] = br#"{"hi": "there"}"#;
const LINE: RequestLine<'static> = RequestLine { method: "POST", path: "/v1/chat", query: "a=b" };

fn sender() -> TestKey {
    key(1)
}

fn own() -> Hotkey {
    key(2).hotkey()
}

fn receiver() -> Receiver {
    Receiver::spawn(&own(), NonceLimits::default(), 1, START)
}

fn now() -> UnixTime {
    START.plus(Duration::from_secs(10))
}

fn map(headers: &[Header]) -> HeaderMap {
    let pair = |(name, value): &Header| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    headers.iter().map(pair).collect()
}

fn nonce() -> String {
    crate::handshake::nonce::fiber_nonce(now(), &mut StdRng::from_os_rng())
}

fn headers(scheme: Scheme, receiver: &Hotkey) -> HeaderMap {
    map(&match scheme {
        Scheme::Plain => plain::headers(&sender(), receiver, &nonce(), Some(BODY)),
        Scheme::Encrypted => encrypted::headers(&sender(), receiver, &nonce(), "uuid"),
        Scheme::Strict => {
            let nonce = strict::nonce(&mut StdRng::from_os_rng());
            strict::headers(&sender(), receiver, LINE, &body_hash(BODY), now(), &nonce)
        }
    })
}

async fn prove_at(
    receiver: &Receiver,
    headers: &HeaderMap,
    line: RequestLine<'_>,
    body: &[u8],
    now: UnixTime,
) -> Result<Proof, Refusal> {
    let claim = Claim::read(headers).map_err(|(_, refusal)| refusal)?;
    let hash = body_hash(body);
    let request = Request { line, body_hash: (!body.is_empty()).then_some(&*hash) };
    receiver.prove(&claim, &claim.sender()?, request, now).await
}

async fn prove(receiver: &Receiver, headers: &HeaderMap) -> Result<Proof, Refusal> {
    prove_at(receiver, headers, LINE, BODY, now()).await
}

#[tokio::test]
async fn every_scheme_proves_its_sender_once() {
    let receiver = receiver();
    for scheme in Scheme::ALL {
        let headers = headers(scheme, &own());
        let proof = prove(&receiver, &headers).await.unwrap();
        assert_eq!(proof, Proof { sender: sender().hotkey(), scheme });
        assert_eq!(prove(&receiver, &headers).await, Err(Refusal::Nonce(NonceProblem::Used)), "{scheme:?}");
    }
}

#[tokio::test]
async fn fiber_5_3_1_a_replay_after_the_window_is_refused() {
    let receiver = receiver();
    for scheme in Scheme::ALL {
        let headers = headers(scheme, &own());
        prove(&receiver, &headers).await.unwrap();
        for later in 1..400 {
            let at = now().plus(Duration::from_secs(later));
            let refused = prove_at(&receiver, &headers, LINE, BODY, at).await.unwrap_err();
            assert!(matches!(refused, Refusal::Nonce(_)), "{scheme:?} after {later} s: {refused}");
        }
    }
}

#[tokio::test]
async fn fiber_5_3_2_strangers_store_no_nonces() {
    let receiver = receiver();
    for scheme in Scheme::ALL {
        for _ in 0..50 {
            let mut headers = headers(scheme, &own());
            let name = if scheme == Scheme::Strict { strict::SIGNATURE } else { SIGNATURE };
            let forged = crate::handshake::signature_text(&key(9).sign(b"forged"));
            headers.insert(name, forged.parse().unwrap());
            assert_eq!(prove(&receiver, &headers).await, Err(Refusal::Signature));
        }
    }
    assert!(receiver.fiber_nonces.is_empty() && receiver.strict_nonces.is_empty());
}

#[tokio::test]
async fn fiber_5_3_3_a_request_for_another_receiver_is_refused_in_every_scheme() {
    let receiver = receiver();
    for scheme in Scheme::ALL {
        let headers = headers(scheme, &key(3).hotkey());
        assert_eq!(prove(&receiver, &headers).await, Err(Refusal::ForeignReceiver), "{scheme:?}");
    }
}

#[tokio::test]
async fn fiber_5_3_3_the_strict_scheme_signs_method_path_query_body_and_everybody() {
    let receiver = receiver();
    let honest = headers(Scheme::Strict, &own());
    for line in [
        RequestLine { method: "PUT", ..LINE },
        RequestLine { path: "/v1/other", ..LINE },
        RequestLine { query: "a=c", ..LINE },
        RequestLine { query: "", ..LINE },
    ] {
        assert_eq!(prove_at(&receiver, &honest, line, BODY, now()).await, Err(Refusal::Signature), "{line:?}");
    }
    assert_eq!(prove_at(&receiver, &honest, LINE, b"other", now()).await, Err(Refusal::Signature));
    assert_eq!(prove_at(&receiver, &honest, LINE, b"", now()).await, Err(Refusal::Signature));
    for (name, value) in [
        (strict::SENDER, key(3).hotkey().to_string()),
        (strict::TIME, (now().millis() + 1).to_string()),
        (strict::NONCE, "ab".repeat(16)),
    ] {
        let mut changed = honest.clone();
        changed.insert(name, value.parse().unwrap());
        assert_eq!(prove(&receiver, &changed).await, Err(Refusal::Signature), "{name}");
    }
    prove(&receiver, &honest).await.unwrap();
}

#[tokio::test]
async fn fiber_5_3_4_a_receiver_signs_its_answer() {
    // The protocol of Fiber has no place for it; ours has, see `strict`.
    let (name, value) = strict::response_header(&key(2), &sender().hotkey(), "ab", 200, b"answer");
    assert_eq!(name, strict::RESPONSE_SIGNATURE);
    assert!(strict::response_is_signed(&sender().hotkey(), &own(), "ab", 200, b"answer", &value));
}

#[tokio::test]
async fn fiber_5_3_6_malformed_signatures_and_tokens_are_4xx() {
    let receiver = receiver();
    let honest = headers(Scheme::Plain, &own());
    let signature = honest[SIGNATURE].to_str().unwrap().to_owned();
    for bad in ["0x", "nonsense", "0x12", "0xzz", &signature[..100], &format!("{signature}00")] {
        let mut changed = honest.clone();
        changed.insert(SIGNATURE, bad.parse().unwrap());
        assert_eq!(prove(&receiver, &changed).await.unwrap_err().status(), 401, "{bad}");
    }
    let mut bare = honest;
    bare.insert(SIGNATURE, signature.trim_start_matches("0x").parse().unwrap());
    prove(&receiver, &bare).await.unwrap();

    receiver.symmetric_keys().insert(&sender().hotkey(), "uuid", SymmetricKey::new(&[5; 32]), now()).unwrap();
    let claim = Claim::read(&headers(Scheme::Encrypted, &own())).unwrap();
    for bad in [&b""[..], b"gAAAAA", b"\xff\xff", &[b'A'; 500]] {
        let refused = receiver.decrypt(&claim, &sender().hotkey(), bad, now()).unwrap_err();
        assert!(matches!(refused, Refusal::Token(_)) && refused.status() == 400, "{refused}");
    }
}

#[tokio::test]
async fn fiber_5_3_7_many_requests_at_once_share_one_store_and_one_wins() {
    let receiver = receiver();
    let headers = headers(Scheme::Plain, &own());
    let all = (0..64).map(|_| prove(&receiver, &headers));
    let proved = futures::future::join_all(all).await;
    assert_eq!(proved.iter().filter(|proof| proof.is_ok()).count(), 1);
}

#[tokio::test]
async fn a_get_signs_no_body_and_a_get_with_a_body_signs_it() {
    let receiver = receiver();
    let get = RequestLine { method: "GET", ..LINE };
    let signed = |body: Option<&[u8]>| map(&plain::headers(&sender(), &own(), &nonce(), body));
    prove_at(&receiver, &signed(None), get, b"", now()).await.unwrap();
    assert_eq!(prove_at(&receiver, &signed(None), get, BODY, now()).await, Err(Refusal::Signature));
    prove_at(&receiver, &signed(Some(BODY)), get, BODY, now()).await.unwrap();
    prove_at(&receiver, &signed(Some(b"")), LINE, b"", now()).await.unwrap();
    assert_eq!(prove_at(&receiver, &signed(None), LINE, b"", now()).await, Err(Refusal::Signature));
}

#[tokio::test]
async fn a_tampered_body_is_refused_where_it_is_signed() {
    let receiver = receiver();
    for scheme in [Scheme::Plain, Scheme::Strict] {
        let headers = headers(scheme, &own());
        assert_eq!(prove_at(&receiver, &headers, LINE, b"tampered", now()).await, Err(Refusal::Signature));
    }
}

#[tokio::test]
async fn an_encrypted_body_is_taken_once_also_under_other_headers() {
    let receiver = receiver();
    let key = SymmetricKey::new(&[5; 32]);
    let started = UnixTime::now();
    let (hotkey, now) = (sender().hotkey(), UnixTime::now());
    receiver.symmetric_keys().insert(&hotkey, "uuid", key.clone(), started).unwrap();
    let inner = crate::handshake::nonce::fiber_nonce(now, &mut StdRng::from_os_rng());
    let token = key.encrypt(format!(r#"{{"hi": "there", "nonce": "{inner}"}}"#).as_bytes());
    let claim = Claim::read(&headers(Scheme::Encrypted, &own())).unwrap();
    assert!(receiver.decrypt(&claim, &hotkey, token.as_bytes(), now).is_ok());
    let again = receiver.decrypt(&claim, &hotkey, token.as_bytes(), now).unwrap_err();
    assert_eq!(again, Refusal::Nonce(NonceProblem::Used));
    // Other clients have no nonce inside, or something else under its name.
    for body in [r#"{"hi": "there"}"#, r#"{"nonce": 5}"#, r#"{"nonce": "mine"}"#, "no JSON"] {
        let token = key.encrypt(body.as_bytes());
        assert_eq!(receiver.decrypt(&claim, &hotkey, token.as_bytes(), now).unwrap(), body.as_bytes());
    }
    let unknown = Claim { uuid: Some("other".into()), ..claim };
    assert_eq!(receiver.decrypt(&unknown, &hotkey, token.as_bytes(), now).unwrap_err(), Refusal::NoSymmetricKey);
}

#[test]
fn headers_that_are_missing_or_twice_are_named() {
    let refused = |headers: &HeaderMap| Claim::read(headers).unwrap_err();
    let names = vec!["validator-hotkey", "signature", "miner-hotkey", "nonce"];
    assert_eq!(refused(&HeaderMap::new()), (Scheme::Plain, Refusal::MissingHeaders(names)));
    let mut headers = headers(Scheme::Encrypted, &own());
    headers.remove(NONCE);
    assert_eq!(refused(&headers), (Scheme::Encrypted, Refusal::MissingHeaders(vec!["nonce"])));
    headers.append(NONCE, HeaderValue::from_static("1_a"));
    headers.append(NONCE, HeaderValue::from_static("2_b"));
    assert_eq!(refused(&headers).1.reason(), "malformed_header");
    headers.insert(NONCE, HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(refused(&headers).1.status(), 422);
    headers.insert(NONCE, HeaderValue::from_static("1_a"));
    headers.insert(SYMMETRIC_KEY_UUID, HeaderValue::from_str(&"a".repeat(129)).unwrap());
    assert_eq!(refused(&headers).1.status(), 422);
    let mut strict = self::headers(Scheme::Strict, &own());
    strict.insert(strict::SCHEME, HeaderValue::from_static("mycelium-v2"));
    assert_eq!(
        refused(&strict),
        (
            Scheme::Strict,
            Refusal::MalformedHeader {
                header: strict::SCHEME,
                expected: "is not `mycelium-v1`, the one version there is",
            }
        )
    );
}

#[tokio::test]
async fn times_and_nonces_of_the_strict_scheme_have_one_form() {
    let receiver = receiver();
    let honest = headers(Scheme::Strict, &own());
    for (name, value) in [
        (strict::TIME, ""),
        (strict::TIME, "+1764000010000"),
        (strict::TIME, "1764000010000.5"),
        (strict::TIME, "99999999999999999999"),
        (strict::NONCE, "AB"),
        (strict::NONCE, "ABABABABABABABABABABABABABABABAB"),
    ] {
        let mut changed = honest.clone();
        changed.insert(name, value.parse().unwrap());
        let refused = prove(&receiver, &changed).await.unwrap_err();
        assert_eq!((refused.status(), refused.reason()), (422, "malformed_header"), "{name}: {value}");
    }
}

#[test]
fn the_stake_gate_has_fibers_words() {
    let verdict = VerifyBody {
        hotkey: own(),
        verified: false,
        reason: "below_minimum_stake".into(),
        uid: Some(Uid(3)),
        stake: Tao::from_rao(10_000_000_000),
        minimum_stake: Tao::ZERO,
        block: 1,
        cached: false,
    };
    assert_eq!(admit(&verdict).unwrap_err().detail(), "Insufficient stake of 10.0 ");
    assert_eq!(admit(&VerifyBody { uid: None, ..verdict.clone() }), Err(Refusal::UnknownHotkey));
    let no_permit = VerifyBody { reason: "no_validator_permit".into(), ..verdict.clone() };
    assert_eq!(admit(&no_permit), Err(Refusal::NoPermit));
    assert_eq!(admit(&VerifyBody { verified: true, ..verdict }), Ok(Uid(3)));
}
