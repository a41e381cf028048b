//! Requests between validators and miners, for the user's own code: signed by the key that only this sidecar holds, and
//! verified with the stakes and nonces that only it knows. On the unix socket alone: who may use it is in this pod.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use sidecar_peer::handshake::receiver::{Claim, Request};
use sidecar_peer::handshake::refusal::Refusal;
use sidecar_peer::handshake::strict::RequestLine;
use sidecar_peer::handshake::{Scheme, UnixTime, body_hash};
use sidecar_util::{Hotkey, Uid, ValueError};
use warp::Filter;

use super::{Problem, Routes, outcome, with};
use crate::app::App;
use crate::axon::requests::{Requests, Senders};

/// Largest body of a request here. Larger bodies are hashed by who has them.
const BODY_BYTES_MAX: u64 = 12 * 1024 * 1024;

/// Longest path or query.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// `POST /v1/requests/sign`, `POST /v1/requests/verify`.
pub(crate) fn routes(app: &Arc<App>) -> Routes {
    let body = || warp::body::content_length_limit(BODY_BYTES_MAX).and(warp::body::bytes());
    let sign = warp::path!("v1" / "requests" / "sign")
        .and(warp::post())
        .and(with(app))
        .and(body())
        .map(|app: Arc<App>, body: bytes::Bytes| outcome(read(&body).and_then(|question| sign(&app, &question))));
    let verify = warp::path!("v1" / "requests" / "verify").and(warp::post()).and(with(app)).and(body()).then(
        |app: Arc<App>, body: bytes::Bytes| async move {
            outcome(match read(&body) {
                Ok(question) => verify(&app, &question).await,
                Err(problem) => Err(problem),
            })
        },
    );
    sign.or(verify).unify().boxed()
}

/// What is signed, as the user's code has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignQuestion {
    scheme: String,
    method: String,
    path: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    body_sha256: Option<String>,
    #[serde(default)]
    body: Option<String>,
    receiver_hotkey: String,
    #[serde(default)]
    symmetric_key_uuid: Option<String>,
}

/// The headers to be sent, in the order in which Fiber sends them.
#[derive(Debug, Serialize)]
struct SignAnswer {
    hotkey: Hotkey,
    scheme: &'static str,
    headers: Vec<(&'static str, String)>,
}

/// A request that came to the user's code.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyQuestion {
    method: String,
    path: String,
    #[serde(default)]
    query: String,
    headers: Vec<(String, String)>,
    #[serde(default)]
    body_sha256: Option<String>,
    #[serde(default)]
    body: Option<String>,
}

/// Whether it is genuine. A refusal is an answer, not a problem.
#[derive(Debug, Serialize)]
struct VerifyAnswer {
    verified: bool,
    /// One word.
    reason: &'static str,
    scheme: &'static str,
    /// Who sent it, if that is verified.
    hotkey: Option<Hotkey>,
    uid: Option<Uid>,
    /// With which status and body to refuse it.
    status: u16,
    detail: Option<serde_json::Value>,
    /// The content of an encrypted body, in base64.
    content: Option<String>,
}

fn read<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::InvalidField(ValueError::new("body", error, "is why this JSON cannot be taken")))
}

fn requests(app: &App) -> Result<&Arc<Requests>, Problem> {
    app.requests.get().ok_or_else(|| Problem::Internal("this sidecar has no key to sign with".to_owned()))
}

/// The hash of the body, given or computed; `None` where there is no body.
fn hash(body: Option<&String>, hash: Option<&String>) -> Result<(Option<String>, Option<Vec<u8>>), ValueError> {
    if let Some(given) = hash {
        if body.is_some() {
            return Err(ValueError::new("body_sha256", given, "is given beside `body`: give one of them"));
        }
        let digits = given.len() == 64 && given.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if !digits {
            return Err(ValueError::new("body_sha256", given, "is not 64 lower-case hex digits"));
        }
        return Ok((Some(given.clone()), None));
    }
    let Some(body) = body else { return Ok((None, None)) };
    let bytes = STANDARD.decode(body).map_err(|_| ValueError::new("body", body, "is not base64"))?;
    Ok(((!bytes.is_empty()).then(|| body_hash(&bytes)), Some(bytes)))
}

/// Method, path and query that can be part of a request line, and of what is signed.
fn line<'a>(method: &'a str, path: &'a str, query: &'a str) -> Result<RequestLine<'a>, ValueError> {
    if method.is_empty() || method.len() > 16 || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(ValueError::new("method", method, "is not an upper-case method such as POST"));
    }
    let plain = |text: &str| text.len() <= LINE_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !path.starts_with('/') || path.contains(['?', '#']) || !plain(path) {
        return Err(ValueError::new("path", path, "is not a percent-encoded path that begins with `/`"));
    }
    if query.contains('#') || !plain(query) {
        return Err(ValueError::new("query", query, "is not a percent-encoded query without its `?`"));
    }
    Ok(RequestLine { method, path, query })
}

fn sign(app: &App, question: &SignQuestion) -> Result<SignAnswer, Problem> {
    let requests = requests(app)?;
    let scheme = match question.scheme.as_str() {
        "plain" => Scheme::Plain,
        "encrypted" => Scheme::Encrypted,
        "strict" | "mycelium-v1" => Scheme::Strict,
        other => return Err(ValueError::new("scheme", other, "is not `plain`, `encrypted` or `strict`").into()),
    };
    let receiver: Hotkey = question
        .receiver_hotkey
        .parse()
        .map_err(|error: ValueError| Problem::InvalidField(error.of_field("receiver_hotkey")))?;
    let line = line(&question.method, &question.path, &question.query)?;
    let (hash, _) = hash(question.body.as_ref(), question.body_sha256.as_ref())?;
    let uuid = question.symmetric_key_uuid.as_deref().unwrap_or_default();
    let plain = uuid.len() <= 128 && uuid.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain || (scheme == Scheme::Encrypted) == uuid.is_empty() {
        let expected = "has to be 1 to 128 visible characters with the scheme `encrypted`, and absent with others";
        return Err(ValueError::new("symmetric_key_uuid", uuid, expected).into());
    }
    let headers = requests.sign(scheme, &receiver, line, hash.as_deref(), uuid);
    Ok(SignAnswer { hotkey: app.hotkey, scheme: scheme.name(), headers })
}

async fn verify(app: &App, question: &VerifyQuestion) -> Result<VerifyAnswer, Problem> {
    let requests = requests(app)?;
    let line = line(&question.method, &question.path, &question.query)?;
    let (hash, body) = hash(question.body.as_ref(), question.body_sha256.as_ref())?;
    let mut headers = HeaderMap::new();
    for (name, value) in &question.headers {
        let wrong = |expected: &str| Problem::InvalidField(ValueError::new("headers", name, expected));
        let header: HeaderName = name.parse().map_err(|_| wrong("is not the name of a header"))?;
        let value = HeaderValue::from_str(value).map_err(|_| wrong("has a value that no header can have"))?;
        headers.append(header, value);
    }
    let claim = match Claim::read(&headers) {
        Ok(claim) => claim,
        Err((scheme, refusal)) => return Ok(refused(scheme, &refusal)),
    };
    let verified = async {
        let admitted = requests.admit(app, &claim, Senders::Validators, None).await?;
        let request = Request { line, body_hash: hash.as_deref() };
        let verified = requests.prove(app, &claim, admitted, request).await?;
        let content = match &body {
            Some(token) if claim.scheme == Scheme::Encrypted && !token.is_empty() => {
                let sender = &verified.proof.sender;
                Some(requests.receiver.decrypt(&claim, sender, token, UnixTime::now())?)
            }
            _ => None,
        };
        Ok::<_, Refusal>((verified, content))
    };
    Ok(match verified.await {
        Err(refusal) => refused(claim.scheme, &refusal),
        Ok((verified, content)) => VerifyAnswer {
            verified: true,
            reason: "verified",
            scheme: claim.scheme.name(),
            hotkey: Some(verified.proof.sender),
            uid: Some(verified.uid),
            status: 200,
            detail: None,
            content: content.map(|content| STANDARD.encode(content)),
        },
    })
}

fn refused(scheme: Scheme, refusal: &Refusal) -> VerifyAnswer {
    VerifyAnswer {
        verified: false,
        reason: refusal.reason(),
        scheme: scheme.name(),
        hotkey: None,
        uid: None,
        status: refusal.status(),
        detail: Some(refusal.detail()),
        content: None,
    }
}
