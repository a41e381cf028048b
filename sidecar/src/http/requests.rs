//! Requests between validators and miners, for the user's own code: signed by the key that only this sidecar holds, and
//! verified with the stakes and nonces that only it knows. On the unix socket alone: who may use it is in this pod.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use sidecar_peer::handshake::receiver::{Claim, Request};
use sidecar_peer::handshake::refusal::Refusal;
use sidecar_peer::handshake::strict::RequestLine;
use sidecar_peer::handshake::{Scheme, UnixTime, body_hash};
use sidecar_util::{Hotkey, Uid, ValueError};
use utoipa::ToSchema;
use warp::Filter;

use super::reject::SignerProblem;
use super::{Problem, Served, outcome, with};
use crate::app::App;
use crate::axon::requests::{Requests, Senders};
use crate::signer::Caller;

/// Largest body of a request here. Larger bodies are hashed by who has them.
pub(crate) const BODY_BYTES_MAX: usize = 12 * 1024 * 1024;

/// Longest path or query.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// `POST /v1/requests/sign`, `POST /v1/requests/verify`.
pub(crate) fn routes(app: &Arc<App>) -> Vec<Served> {
    let post = || warp::post().and(with(app)).and(warp::body::bytes());
    let sign = post().and(warp::ext::optional::<Caller>()).map(|app: Arc<App>, body: Bytes, caller: Option<Caller>| {
        outcome(sign(&app, &body, caller.unwrap_or_default()))
    });
    let verify = post().then(|app: Arc<App>, body: Bytes| async move { outcome(verify(&app, &body).await) });
    vec![("/v1/requests/sign", sign.boxed()), ("/v1/requests/verify", verify.boxed())]
}

/// What is signed, as the user's code has it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({
    "scheme": "strict", "method": "POST", "path": "/infer", "body": "e30=",
    "receiver_hotkey": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
})))]
pub(crate) struct SignQuestion {
    /// `plain`, `encrypted` or `strict`, which is also called `mycelium-v1`
    #[schema(pattern = "^(plain|encrypted|strict|mycelium-v1)$")]
    scheme: String,
    /// Method in upper case
    #[schema(pattern = "^[A-Z]{1,16}$")]
    method: String,
    /// Percent-encoded path
    #[schema(pattern = "^/[!-\"$->@-~]*$", max_length = 8192)]
    path: String,
    /// Percent-encoded query without its `?`
    #[serde(default)]
    #[schema(pattern = "^[!-\"$-~]*$", max_length = 8192)]
    query: String,
    /// SHA-256 of the body in lower-case hex, instead of `body`
    #[serde(default)]
    #[schema(pattern = "^[0-9a-f]{64}$")]
    body_sha256: Option<String>,
    /// The body in base64
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9+/]*={0,2}$")]
    body: Option<String>,
    /// Hotkey of the miner or validator that it is sent to
    #[schema(value_type = Hotkey)]
    receiver_hotkey: String,
    /// Name of the exchanged key, with the scheme `encrypted` only
    #[serde(default)]
    #[schema(pattern = "^[!-~]{0,128}$")]
    symmetric_key_uuid: Option<String>,
}

/// The headers to be sent, in the order in which Fiber sends them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignAnswer {
    /// Who signed
    hotkey: Hotkey,
    /// Name of the scheme
    scheme: &'static str,
    /// Names and values
    headers: Vec<(&'static str, String)>,
}

/// A request that came to the user's code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"method": "POST", "path": "/infer", "headers": [["nonce", "1"]], "body": "e30="})))]
pub(crate) struct VerifyQuestion {
    /// Method in upper case
    #[schema(pattern = "^[A-Z]{1,16}$")]
    method: String,
    /// Percent-encoded path
    #[schema(pattern = "^/[!-\"$->@-~]*$", max_length = 8192)]
    path: String,
    /// Percent-encoded query without its `?`
    #[serde(default)]
    #[schema(pattern = "^[!-\"$-~]*$", max_length = 8192)]
    query: String,
    /// Names and values of its headers
    headers: Vec<(String, String)>,
    /// SHA-256 of the body in lower-case hex, instead of `body`
    #[serde(default)]
    #[schema(pattern = "^[0-9a-f]{64}$")]
    body_sha256: Option<String>,
    /// The body in base64
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9+/]*={0,2}$")]
    body: Option<String>,
}

/// Whether it is genuine. A refusal is an answer, not a problem.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VerifyAnswer {
    /// Whether it is
    verified: bool,
    /// One word.
    reason: &'static str,
    /// Name of the scheme
    scheme: &'static str,
    /// Who sent it, if that is verified.
    hotkey: Option<Hotkey>,
    /// Its slot
    uid: Option<Uid>,
    /// With which status and body to refuse it.
    status: u16,
    /// The body of that refusal
    detail: Option<serde_json::Value>,
    /// The content of an encrypted body, in base64.
    content: Option<String>,
}

fn read<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::InvalidBody(format!("body: {error}: see /v1/openapi.json")))
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

/// Sign a request to a miner or validator
#[utoipa::path(
    post,
    path = "/v1/requests/sign",
    tag = "pod",
    request_body = SignQuestion,
    responses(
        (status = 200, description = "The headers", body = SignAnswer),
        (
            status = 400,
            description = "`urn:mycelium:invalid-parameter`: a field that cannot be used\n\n`urn:mycelium:invalid-body`: no such JSON",
        ),
        (status = 409, description = "`urn:mycelium:foreign-signer`: another process signs"),
        (status = 429, description = "`urn:mycelium:rate-limited`: not so often"),
        (status = 503, description = "`urn:mycelium:signer-not-held`: with its reason"),
    )
)]
pub(crate) fn sign(app: &App, body: &[u8], caller: Caller) -> Result<SignAnswer, Problem> {
    let question: SignQuestion = read(body)?;
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
        .map_err(|error: ValueError| Problem::from(error.of_field("receiver_hotkey")))?;
    let line = line(&question.method, &question.path, &question.query)?;
    let (hash, _) = hash(question.body.as_ref(), question.body_sha256.as_ref())?;
    let uuid = question.symmetric_key_uuid.as_deref().unwrap_or_default();
    let plain = uuid.len() <= 128 && uuid.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain || (scheme == Scheme::Encrypted) == uuid.is_empty() {
        let expected = "has to be 1 to 128 visible characters with the scheme `encrypted`, and absent with others";
        return Err(ValueError::new("symmetric_key_uuid", uuid, expected).into());
    }
    let signer = app.signer.get().ok_or(SignerProblem::Starting)?;
    let headers =
        signer.request(caller, scheme.name(), || requests.sign(scheme, &receiver, line, hash.as_deref(), uuid))?;
    Ok(SignAnswer { hotkey: app.hotkey, scheme: scheme.name(), headers })
}

/// Verify a request that came from a validator
#[utoipa::path(
    post,
    path = "/v1/requests/verify",
    tag = "pod",
    request_body = VerifyQuestion,
    responses(
        (status = 200, description = "Whether it is genuine, or why not", body = VerifyAnswer),
        (
            status = 400,
            description = "`urn:mycelium:invalid-parameter`: a field that cannot be used\n\n`urn:mycelium:invalid-body`: no such JSON",
        ),
    )
)]
pub(crate) async fn verify(app: &App, body: &[u8]) -> Result<VerifyAnswer, Problem> {
    let question: VerifyQuestion = read(body)?;
    let requests = requests(app)?;
    let line = line(&question.method, &question.path, &question.query)?;
    let (hash, body) = hash(question.body.as_ref(), question.body_sha256.as_ref())?;
    let mut headers = HeaderMap::new();
    for (name, value) in &question.headers {
        let wrong = |expected: &str| Problem::from(ValueError::new("headers", name, expected));
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
