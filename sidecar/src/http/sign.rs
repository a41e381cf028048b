//! What the user's containers have signed: on the unix socket only.
//!
//! Everything is decided by the signer; here bodies become typed requests, and refusals become problems.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use sidecar_metagraph::extrinsics::{Served, Submitted, Wait, WeightsMethod};
use sidecar_util::http::{
    AcknowledgeRequest, AxonRequest, CommitmentRequest, SignBody, SignRequest, SignerBody, SignerStatus, SubmittedBody,
    WaitFor, WeightsRequest,
};
use sidecar_util::{AxonProtocol, ValueError};
use utoipa::{IntoParams, IntoResponses};
use warp::Filter;
use warp::reply::Response;

use super::reject::SignerProblem;
use super::{Problem, Served as Routed, outcome, with};
use crate::app::App;
use crate::signer::{AxonAddress, Caller, Signer, Weights};

/// Longest idempotency key: a UUID is 36 characters.
const KEY_BYTES_MAX: usize = 128;

/// Answers kept for repeated keys. They matter for the seconds in which a client tries again.
const REPLIES_MAX: usize = 1024;

/// `POST /v1/sign`, `/v1/weights`, `/v1/axon`, `/v1/commitments`, `/v1/signer/acknowledge`, and `GET /v1/signer`.
pub(crate) fn routes(app: &Arc<App>) -> Vec<Routed> {
    let replies = Arc::new(Replies::default());
    let sign = posted(app).map(move |posted: Posted| outcome(sign(&posted, &replies)));
    let signer = warp::get().and(with(app)).map(|app: Arc<App>| outcome(signer(&app)));
    let acknowledge = posted(app).map(|posted: Posted| outcome(acknowledge(&posted)));
    let weights = posted(app).then(|posted: Posted| async move { submission(weights(&posted).await) });
    let axon = posted(app).then(|posted: Posted| async move { submission(axon(&posted).await) });
    let commitments = posted(app).then(|posted: Posted| async move { submission(commitment(&posted).await) });
    vec![
        ("/v1/sign", sign.boxed()),
        ("/v1/signer", signer.boxed()),
        ("/v1/signer/acknowledge", acknowledge.boxed()),
        ("/v1/weights", weights.boxed()),
        ("/v1/axon", axon.boxed()),
        ("/v1/commitments", commitments.boxed()),
    ]
}

/// A request with its body, and who sent it.
pub(crate) struct Posted {
    app: Arc<App>,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
}

type Outcome<T> = Result<T, Problem>;

/// The header of what is done once.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `key` reads, for OpenAPI")]
struct KeyHeader {
    /// The same key is the same request, done once
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 128, pattern = "^[!-~]+$")]
    idempotency_key: Option<String>,
}

/// What every submission to the chain can be answered with, beside where it is.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes what `submission` answers, for OpenAPI")]
enum SubmissionAnswers {
    /// A node has it, and no block yet: asked for by `wait` = `none`
    #[response(status = 202)]
    OnItsWay(SubmittedBody),
    /// `urn:mycelium:invalid-parameter`: a value that cannot be used
    ///
    /// `urn:mycelium:invalid-body`: no such JSON
    #[response(status = 400)]
    Invalid,
    /// `urn:mycelium:policy-denied`: the policy does not allow it
    #[response(status = 403)]
    Denied,
    /// `urn:mycelium:chain-refused`: with `class`, `reason` and `remedy`
    ///
    /// `urn:mycelium:foreign-signer`: another process signs
    #[response(status = 409)]
    Refused,
    /// `urn:mycelium:idempotency-key-reused`: for another request
    #[response(status = 422)]
    KeyReused,
    /// `urn:mycelium:rate-limited`: not so often
    #[response(status = 429)]
    TooOften,
    /// `urn:mycelium:signer-not-held`: with its reason
    ///
    /// `urn:mycelium:chain-unavailable`: the chain cannot be used
    #[response(status = 503)]
    Unavailable,
    /// `urn:mycelium:outcome-pending`: ask again with the same key
    #[response(status = 504)]
    Pending,
}

fn posted(app: &Arc<App>) -> impl Filter<Extract = (Posted,), Error = warp::Rejection> + Clone + use<> {
    warp::post()
        .and(with(app))
        .and(warp::ext::optional::<Caller>())
        .and(warp::header::headers_cloned())
        .and(warp::body::bytes())
        .map(|app, caller: Option<Caller>, headers, body| Posted {
            app,
            caller: caller.unwrap_or_default(),
            headers,
            body,
        })
}

fn held(app: &App) -> Outcome<&Arc<Signer>> {
    app.signer.get().ok_or_else(|| SignerProblem::Starting.into())
}

/// What the signer may sign, and whether it does
#[utoipa::path(
    get,
    path = "/v1/signer",
    tag = "pod",
    responses(
        (status = 200, description = "Its state and its policy", body = SignerBody),
        (status = 503, description = "`urn:mycelium:signer-not-held`: the sidecar is starting"),
    )
)]
pub(crate) fn signer(app: &App) -> Outcome<SignerBody> {
    let signer = held(app)?;
    let policy = signer.policy();
    Ok(SignerBody {
        hotkey: signer.hotkey(),
        status: signer.status(),
        domains: policy.domains.iter().map(|domain| domain.name.clone()).collect(),
        calls: policy.calls.iter().map(|call| call.name().to_owned()).collect(),
    })
}

/// Sign a message of a domain of the policy
#[utoipa::path(
    post,
    path = "/v1/sign",
    tag = "pod",
    params(KeyHeader),
    request_body = SignRequest,
    responses(
        (status = 200, description = "The signature", body = SignBody),
        (
            status = 400,
            description = "`urn:mycelium:invalid-parameter`: a value that cannot be used\n\n`urn:mycelium:invalid-body`: no such JSON",
        ),
        (status = 403, description = "`urn:mycelium:policy-denied`: the policy does not allow it"),
        (status = 422, description = "`urn:mycelium:idempotency-key-reused`: for another request"),
        (status = 429, description = "`urn:mycelium:rate-limited`: not so often"),
        (status = 409, description = "`urn:mycelium:foreign-signer`: another process signs"),
        (status = 503, description = "`urn:mycelium:signer-not-held`: with its reason"),
    )
)]
pub(crate) fn sign(posted: &Posted, replies: &Replies) -> Outcome<SignBody> {
    let (request, fingerprint) = read::<SignRequest>(&posted.body)?;
    let message = bytes_of("message", request.message.as_deref(), request.text)?;
    let key = key(&posted.headers)?.map(|key| (posted.caller.uid, key));
    if let Some(key) = &key
        && let Some(reply) = replies.find(key, fingerprint)?
    {
        return Ok(reply);
    }
    let signer = held(&posted.app)?;
    let made = signer.sign_message(posted.caller, &request.domain, &message)?;
    let body = SignBody {
        signature: format!("0x{}", hex::encode(made.signature)),
        hotkey: made.hotkey,
        scheme: "sr25519".to_owned(),
        signed: BASE64.encode(&made.bytes),
        epoch: made.epoch,
    };
    if let Some(key) = key {
        replies.keep(key, fingerprint, &body);
    }
    Ok(body)
}

/// Take what others signed with the hotkey as in order
#[utoipa::path(
    post,
    path = "/v1/signer/acknowledge",
    tag = "pod",
    request_body = AcknowledgeRequest,
    responses(
        (status = 200, description = "The state from now on", body = SignerStatus),
        (status = 400, description = "`urn:mycelium:invalid-body`: no such JSON"),
        (status = 409, description = "`urn:mycelium:foreign-signer`: another process signs"),
        (status = 503, description = "`urn:mycelium:signer-not-held`: with its reason"),
    )
)]
pub(crate) fn acknowledge(posted: &Posted) -> Outcome<SignerStatus> {
    let (request, _) = read::<AcknowledgeRequest>(&posted.body)?;
    let signer = held(&posted.app)?;
    signer.acknowledge(request.before_block)?;
    Ok(signer.status())
}

/// Set weights, by the way that the subnet demands
#[utoipa::path(
    post,
    path = "/v1/weights",
    tag = "pod",
    params(KeyHeader),
    request_body = WeightsRequest,
    responses(
        (status = 200, description = "Where they are on the chain", body = SubmittedBody),
        SubmissionAnswers,
    )
)]
pub(crate) async fn weights(posted: &Posted) -> Outcome<SubmittedBody> {
    let (request, _) = read::<WeightsRequest>(&posted.body)?;
    let WeightsRequest { uids, weights, mechanism, version_key, idempotency_key, wait } = request;
    let wait = wait_of(wait.as_deref())?;
    let key = key_or_new(&posted.headers, idempotency_key)?;
    let wanted = Weights { uids, values: weights, mechanism, version_key };
    let done = held(&posted.app)?.set_weights(posted.caller, &key, wanted, wait).await?;
    let method = match done.method {
        WeightsMethod::Plain => "plain",
        WeightsMethod::HashCommit => "hash_commit",
        WeightsMethod::Timelocked => "timelocked",
    };
    Ok(SubmittedBody { reveal_round: done.reveal_round, ..submitted(method, key, &done.submitted) })
}

/// Publish an axon, unless the chain has it
#[utoipa::path(
    post,
    path = "/v1/axon",
    tag = "pod",
    params(KeyHeader),
    request_body = AxonRequest,
    responses(
        (status = 200, description = "Where it is on the chain", body = SubmittedBody),
        SubmissionAnswers,
    )
)]
pub(crate) async fn axon(posted: &Posted) -> Outcome<SubmittedBody> {
    let (request, _) = read::<AxonRequest>(&posted.body)?;
    let AxonRequest { ip, port, protocol, version, idempotency_key, wait } = request;
    let wait = wait_of(wait.as_deref())?;
    let key = key_or_new(&posted.headers, idempotency_key)?;
    let axon = AxonAddress { ip, port, protocol: protocol.unwrap_or(AxonProtocol::Tcp), version };
    let done = held(&posted.app)?.serve_axon(posted.caller, &key, axon, wait).await?;
    Ok(match done {
        Served::Now(done) => submitted("served", key, &done),
        Served::Already { block, finalized } => SubmittedBody {
            method: "already".to_owned(),
            idempotency_key: key,
            block: Some(block),
            block_hash: None,
            extrinsic: None,
            finalized,
            reveal_round: None,
        },
    })
}

/// Publish a commitment
#[utoipa::path(
    post,
    path = "/v1/commitments",
    tag = "pod",
    params(KeyHeader),
    request_body = CommitmentRequest,
    responses(
        (status = 200, description = "Where it is on the chain", body = SubmittedBody),
        SubmissionAnswers,
    )
)]
pub(crate) async fn commitment(posted: &Posted) -> Outcome<SubmittedBody> {
    let (request, _) = read::<CommitmentRequest>(&posted.body)?;
    let wait = wait_of(request.wait.as_deref())?;
    let key = key_or_new(&posted.headers, request.idempotency_key)?;
    let data = bytes_of("data", request.data.as_deref(), request.text)?;
    let done = held(&posted.app)?.set_commitment(posted.caller, &key, data, wait).await?;
    Ok(submitted("set", key, &done))
}

fn submitted(method: &str, key: String, done: &Submitted) -> SubmittedBody {
    let (extrinsic_hash, receipt) = match done {
        Submitted::Sent { extrinsic_hash } => (extrinsic_hash, None),
        Submitted::Included(receipt) => (&receipt.extrinsic_hash, Some(receipt)),
    };
    SubmittedBody {
        method: method.to_owned(),
        idempotency_key: key,
        block: receipt.map(|receipt| receipt.block),
        block_hash: receipt.map(|receipt| receipt.block_hash),
        extrinsic: Some(extrinsic_hash.to_string()),
        finalized: receipt.is_some_and(|receipt| receipt.finalized),
        reveal_round: None,
    }
}

/// What became of a submission, told from what is not known yet by the status as well.
fn submission(done: Outcome<SubmittedBody>) -> Response {
    let on_its_way = done.as_ref().is_ok_and(|body| body.block.is_none());
    let mut response = outcome(done);
    if on_its_way {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    response
}

/// What the request waits for. It comes as text, so that a word that is none is refused under its name.
fn wait_of(word: Option<&str>) -> Outcome<Wait> {
    let wait_for = word.map(str::parse).transpose()?.unwrap_or_default();
    Ok(match wait_for {
        WaitFor::None => Wait::Sent,
        WaitFor::Inclusion => Wait::Included,
        WaitFor::Finalization => Wait::Finalized,
    })
}

/// Bytes that are given either in base64 or as text.
fn bytes_of(field: &str, base64: Option<&str>, text: Option<String>) -> Outcome<Vec<u8>> {
    match (base64, text) {
        (Some(encoded), None) => BASE64.decode(encoded).map_err(|error| {
            let expected = format!("is not base64 ({error}): encode the bytes in the standard alphabet with padding");
            ValueError::new(field, encoded, expected).into()
        }),
        (None, Some(text)) => Ok(text.into_bytes()),
        _ => {
            let expected = format!("is needed once: give the bytes as base64 in `{field}`, or as text in `text`");
            Err(ValueError::new(field, "", expected).into())
        }
    }
}

/// The key of the header or of the body, which have to agree; where there is none, one that nobody else has.
fn key_or_new(headers: &HeaderMap, of_body: Option<String>) -> Outcome<String> {
    let of_header = key(headers)?;
    if let (Some(header), Some(body)) = (&of_header, &of_body)
        && header != body
    {
        let expected = format!("is not the Idempotency-Key of the header (`{header}`): give one of them");
        return Err(ValueError::new("idempotency_key", body, expected).into());
    }
    let key = of_header.or(of_body).unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    check_key("idempotency_key", key)
}

/// Reads a body of JSON. The number tells it from other bodies.
fn read<T: DeserializeOwned>(body: &Bytes) -> Outcome<(T, u64)> {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let read = serde_json::from_slice(body).map_err(|error| Problem::InvalidBody(error.to_string()))?;
    Ok((read, hasher.finish()))
}

/// The request's idempotency key.
fn key(headers: &HeaderMap) -> Outcome<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    check_key("Idempotency-Key", text.into_owned()).map(Some)
}

fn check_key(field: &str, key: String) -> Outcome<String> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.chars().all(|c| c.is_ascii_graphic()) {
        let expected = format!("is not 1 to {KEY_BYTES_MAX} printable characters without spaces: give a UUID");
        return Err(ValueError::new(field, key, expected).into());
    }
    Ok(key)
}

/// Answers by caller and key, the oldest dropped first: a request that is sent again gets the same signature.
#[derive(Default)]
pub(crate) struct Replies(Mutex<VecDeque<Reply>>);

struct Reply {
    key: (u32, String),
    fingerprint: u64,
    body: SignBody,
}

impl Replies {
    fn find(&self, key: &(u32, String), fingerprint: u64) -> Outcome<Option<SignBody>> {
        let replies = self.0.lock();
        let Some(reply) = replies.iter().find(|reply| reply.key == *key) else { return Ok(None) };
        if reply.fingerprint == fingerprint {
            return Ok(Some(reply.body.clone()));
        }
        Err(SignerProblem::KeyReused { key: key.1.clone() }.into())
    }

    fn keep(&self, key: (u32, String), fingerprint: u64, body: &SignBody) {
        let mut replies = self.0.lock();
        if replies.len() >= REPLIES_MAX {
            replies.pop_front();
        }
        replies.push_back(Reply { key, fingerprint, body: body.clone() });
    }
}
