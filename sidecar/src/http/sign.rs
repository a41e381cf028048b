//! What the user's containers have signed: on the unix socket only.
//!
//! Everything is decided by the signer; here bodies become typed requests, and refusals become problems.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::pin::pin;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, BytesMut};
use futures::{Stream, StreamExt as _};
use http::{HeaderMap, header};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use sidecar_metagraph::extrinsics::{Receipt, Served, WeightsMethod};
use sidecar_util::http::{
    AcknowledgeRequest, AxonRequest, CommitmentRequest, SignBody, SignRequest, SignerBody, SignerStatus, SubmittedBody,
    WeightsRequest,
};
use sidecar_util::{AxonProtocol, ValueError};
use warp::Filter;
use warp::reply::Response;

use super::reject::{SignerProblem, signer_problem};
use super::{Routes, json, with};
use crate::app::App;
use crate::signer::{AxonAddress, Caller, Signer, Weights};

/// Largest body: the weights of a whole subnet are some 30 kB.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Longest idempotency key: a UUID is 36 characters.
const KEY_BYTES_MAX: usize = 128;

/// Answers kept for repeated keys. They matter for the seconds in which a client tries again.
const REPLIES_MAX: usize = 1024;

/// `POST /v1/sign`, `/v1/weights`, `/v1/axon`, `/v1/commitments`, `/v1/signer/acknowledge`, and `GET /v1/signer`.
pub(crate) fn routes(app: &Arc<App>) -> Routes {
    let replies = Arc::new(Replies::default());
    let signing = warp::path!("v1" / "sign").and(warp::post()).and(posted(app)).then(move |posted, body| {
        let replies = replies.clone();
        async move { respond(sign(posted, body, &replies).await) }
    });
    let acknowledging = warp::path!("v1" / "signer" / "acknowledge")
        .and(warp::post())
        .and(posted(app))
        .then(|posted: Posted, body| async move { respond(acknowledge(&posted, body).await) });
    let signer = warp::path!("v1" / "signer").and(warp::get()).and(with(app)).map(|app: Arc<App>| {
        respond(signer(&app).map(|signer| {
            let policy = signer.policy();
            SignerBody {
                hotkey: signer.hotkey(),
                status: signer.status(),
                domains: policy.domains.iter().map(|domain| domain.name.clone()).collect(),
                calls: policy.calls.iter().map(|call| call.name().to_owned()).collect(),
            }
        }))
    });
    let weights = warp::path!("v1" / "weights")
        .and(warp::post())
        .and(posted(app))
        .then(|posted: Posted, body| async move { respond(weights(&posted, body).await) });
    let axon = warp::path!("v1" / "axon")
        .and(warp::post())
        .and(posted(app))
        .then(|posted: Posted, body| async move { respond(axon(&posted, body).await) });
    let commitments = warp::path!("v1" / "commitments")
        .and(warp::post())
        .and(posted(app))
        .then(|posted: Posted, body| async move { respond(commitment(&posted, body).await) });
    let calls = weights.or(axon).unify().or(commitments).unify();
    signing.or(acknowledging).unify().or(signer).unify().or(calls).unify().boxed()
}

/// What comes with every body.
pub(crate) struct Posted {
    app: Arc<App>,
    caller: Caller,
    headers: HeaderMap,
}

type Outcome<T> = Result<T, SignerProblem>;

fn posted(
    app: &Arc<App>,
) -> impl Filter<
    Extract = (Posted, impl Stream<Item = Result<impl Buf + use<>, warp::Error>> + Send + use<>),
    Error = warp::Rejection,
> + Clone
+ use<> {
    with(app)
        .and(warp::ext::optional::<Caller>())
        .and(warp::header::headers_cloned())
        .map(|app, caller: Option<Caller>, headers| Posted { app, caller: caller.unwrap_or_default(), headers })
        .and(warp::body::stream())
}

fn respond<T: serde::Serialize>(outcome: Outcome<T>) -> Response {
    match outcome {
        Ok(body) => json(&body),
        Err(problem) => signer_problem(&problem),
    }
}

fn signer(app: &App) -> Outcome<&Arc<Signer>> {
    app.signer.get().ok_or(SignerProblem::Starting)
}

async fn sign<B: Buf>(
    posted: Posted,
    body: impl Stream<Item = Result<B, warp::Error>>,
    replies: &Replies,
) -> Outcome<SignBody> {
    let (request, fingerprint) = read::<SignRequest, B>(&posted.headers, body).await?;
    let message = bytes_of("message", request.message.as_deref(), request.text)?;
    let key = key(&posted.headers)?.map(|key| (posted.caller.uid, key));
    if let Some(key) = &key
        && let Some(reply) = replies.find(key, fingerprint)?
    {
        return Ok(reply);
    }
    let signer = signer(&posted.app)?;
    let made = signer.sign_message(posted.caller, &request.domain, &message).map_err(SignerProblem::Refused)?;
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

async fn acknowledge<B: Buf>(
    posted: &Posted,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Outcome<SignerStatus> {
    let (request, _) = read::<AcknowledgeRequest, B>(&posted.headers, body).await?;
    let signer = signer(&posted.app)?;
    signer.acknowledge(request.before_block).map_err(SignerProblem::Refused)?;
    Ok(signer.status())
}

async fn weights<B: Buf>(posted: &Posted, body: impl Stream<Item = Result<B, warp::Error>>) -> Outcome<SubmittedBody> {
    let (request, _) = read::<WeightsRequest, B>(&posted.headers, body).await?;
    let WeightsRequest { uids, weights, mechanism, version_key, idempotency_key } = request;
    let key = key_or_new(&posted.headers, idempotency_key)?;
    let wanted = Weights { uids, values: weights, mechanism, version_key };
    let done = signer(&posted.app)?.set_weights(posted.caller, &key, wanted).await.map_err(SignerProblem::Refused)?;
    let method = match done.method {
        WeightsMethod::Plain => "plain",
        WeightsMethod::HashCommit => "hash_commit",
        WeightsMethod::Timelocked => "timelocked",
    };
    Ok(SubmittedBody { reveal_round: done.reveal_round, ..submitted(method, key, &done.receipt) })
}

async fn axon<B: Buf>(posted: &Posted, body: impl Stream<Item = Result<B, warp::Error>>) -> Outcome<SubmittedBody> {
    let (request, _) = read::<AxonRequest, B>(&posted.headers, body).await?;
    let AxonRequest { ip, port, protocol, version, idempotency_key } = request;
    let key = key_or_new(&posted.headers, idempotency_key)?;
    let axon = AxonAddress { ip, port, protocol: protocol.unwrap_or(AxonProtocol::Tcp), version };
    let done = signer(&posted.app)?.serve_axon(posted.caller, &key, axon).await.map_err(SignerProblem::Refused)?;
    Ok(match done {
        Served::Now(receipt) => submitted("served", key, &receipt),
        Served::Already { block } => SubmittedBody {
            method: "already".to_owned(),
            idempotency_key: key,
            block,
            block_hash: None,
            extrinsic: None,
            finalized: true,
            reveal_round: None,
        },
    })
}

async fn commitment<B: Buf>(
    posted: &Posted,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Outcome<SubmittedBody> {
    let (request, _) = read::<CommitmentRequest, B>(&posted.headers, body).await?;
    let key = key_or_new(&posted.headers, request.idempotency_key)?;
    let data = bytes_of("data", request.data.as_deref(), request.text)?;
    let receipt =
        signer(&posted.app)?.set_commitment(posted.caller, &key, data).await.map_err(SignerProblem::Refused)?;
    Ok(submitted("set", key, &receipt))
}

fn submitted(method: &str, key: String, receipt: &Receipt) -> SubmittedBody {
    SubmittedBody {
        method: method.to_owned(),
        idempotency_key: key,
        block: receipt.block,
        block_hash: Some(receipt.block_hash),
        extrinsic: Some(receipt.extrinsic_hash.to_string()),
        finalized: receipt.finalized,
        reveal_round: None,
    }
}

/// Bytes that are given either in base64 or as text.
fn bytes_of(field: &str, base64: Option<&str>, text: Option<String>) -> Outcome<Vec<u8>> {
    match (base64, text) {
        (Some(encoded), None) => BASE64.decode(encoded).map_err(|error| {
            let expected = format!("is not base64 ({error}): encode the bytes in the standard alphabet with padding");
            SignerProblem::Field(ValueError::new(field, encoded, expected))
        }),
        (None, Some(text)) => Ok(text.into_bytes()),
        _ => {
            let expected = format!("is needed once: give the bytes as base64 in `{field}`, or as text in `text`");
            Err(SignerProblem::Field(ValueError::new(field, "", expected)))
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
        return Err(SignerProblem::Field(ValueError::new("idempotency_key", body, expected)));
    }
    let key = of_header.or(of_body).unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    check_key("idempotency_key", key)
}

/// Reads a body of JSON within its bound. The number tells it from other bodies.
pub(crate) async fn read<T: DeserializeOwned, B: Buf>(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Outcome<(T, u64)> {
    let found = headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let kind = found.as_deref().and_then(|found| found.split(';').next()).unwrap_or_default();
    if !kind.trim().eq_ignore_ascii_case("application/json") {
        return Err(SignerProblem::MediaType(found.unwrap_or_default()));
    }
    let (mut body, mut whole) = (pin!(body), BytesMut::new());
    while let Some(part) = body.next().await {
        let mut part = part.map_err(|error| SignerProblem::Body(format!("the body broke off: {error}")))?;
        if whole.len() + part.remaining() > BODY_BYTES_MAX {
            return Err(SignerProblem::TooLarge { bytes_max: BODY_BYTES_MAX });
        }
        whole.extend_from_slice(&part.copy_to_bytes(part.remaining()));
    }
    let mut hasher = DefaultHasher::new();
    whole.hash(&mut hasher);
    let read = serde_json::from_slice(&whole).map_err(|error| SignerProblem::Body(error.to_string()))?;
    Ok((read, hasher.finish()))
}

/// The request's idempotency key.
pub(crate) fn key(headers: &HeaderMap) -> Outcome<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    check_key("Idempotency-Key", text.into_owned()).map(Some)
}

fn check_key(field: &str, key: String) -> Outcome<String> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.chars().all(|c| c.is_ascii_graphic()) {
        let expected = format!("is not 1 to {KEY_BYTES_MAX} printable characters without spaces: give a UUID");
        return Err(SignerProblem::Field(ValueError::new(field, key, expected)));
    }
    Ok(key)
}

/// Answers by caller and key, the oldest dropped first: a request that is sent again gets the same signature.
#[derive(Default)]
struct Replies(Mutex<VecDeque<Reply>>);

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
        Err(SignerProblem::KeyReused { key: key.1.clone() })
    }

    fn keep(&self, key: (u32, String), fingerprint: u64, body: &SignBody) {
        let mut replies = self.0.lock();
        if replies.len() >= REPLIES_MAX {
            replies.pop_front();
        }
        replies.push_back(Reply { key, fingerprint, body: body.clone() });
    }
}
