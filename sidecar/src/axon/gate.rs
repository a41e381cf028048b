//! One request of a stranger, from its head to its answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Request as HttpRequest, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use serde_json::json;
use sidecar_peer::handshake::encrypted::{
    EXCHANGE_BYTES_MAX, EXCHANGE_SYMMETRIC_KEY_PATH, EXCHANGED, KeyExchange, PUBLIC_ENCRYPTION_KEY_PATH,
};
use sidecar_peer::handshake::receiver::{Claim, Request};
use sidecar_peer::handshake::record::{self, PeerRecord};
use sidecar_peer::handshake::refusal::Refusal;
use sidecar_peer::handshake::strict::{self, RequestLine};
use sidecar_peer::handshake::{Scheme, UnixTime, body_hash};
use sidecar_util::Hotkey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use super::forward::{Upstream, UpstreamProblem};
use super::requests::{Requests, Senders, Verified};
use crate::app::App;

/// Time for a whole body. Within limits on size this is slow even for a modem.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Memory for bodies that are being read or forwarded, in KiB. Whoever asks for more is told to come again: a hotkey is
/// public, so that anybody could claim one and then send large bodies slowly.
const BODIES_KIB: usize = 64 * 1024;

/// Largest answer that is signed: signing needs all of it before the first byte is sent.
const SIGNED_ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// With this header, whatever its value, the sender of a `mycelium-v1` request asks for a signature of the answer.
const SIGN_RESPONSE: &str = "mycelium-sign-response";

/// The body of an answer, held or streamed.
pub(crate) type Body = UnsyncBoxBody<Bytes, BrokenOff>;

/// The program behind the gate stopped in the middle of its answer.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub(crate) struct BrokenOff(#[from] reqwest::Error);

/// What stands between strangers and the user's container.
pub(crate) struct Gate {
    app: Arc<App>,
    requests: Arc<Requests>,
    exchange: Arc<KeyExchange>,
    upstream: Option<Upstream>,
    /// One permit for each KiB of [`BODIES_KIB`] that is not taken.
    bodies: Arc<Semaphore>,
}

/// Why there is no answer of the container.
enum Denied {
    /// The request is not taken.
    Refused(Scheme, Refusal),
    /// It is, and cannot be served.
    Failed(Scheme, StatusCode, &'static str),
}

impl Gate {
    pub(crate) fn new(
        app: Arc<App>,
        requests: Arc<Requests>,
        exchange: KeyExchange,
        upstream: Option<Upstream>,
    ) -> Self {
        let bodies = Arc::new(Semaphore::new(BODIES_KIB));
        Self { app, requests, exchange: Arc::new(exchange), upstream, bodies }
    }

    /// Answers a request that came from an address.
    pub(crate) async fn answer(&self, request: HttpRequest<Incoming>, ip: IpAddr) -> Response<Body> {
        let (parts, body) = request.into_parts();
        match self.serve(&parts, body, ip).await {
            Ok((scheme, response)) => {
                self.app.metrics.axon_request(scheme, "ok");
                response
            }
            Err(Denied::Refused(scheme, refusal)) => {
                debug!(%ip, scheme = scheme.name(), reason = refusal.reason(), "request refused");
                self.app.metrics.axon_request(scheme.name(), refusal.reason());
                refused(scheme, &refusal)
            }
            Err(Denied::Failed(scheme, status, detail)) => {
                debug!(%ip, scheme = scheme.name(), detail, "request failed");
                self.app.metrics.axon_request(scheme.name(), "failed");
                let body = json!({"detail": detail}).to_string();
                respond(status, "application/json", body)
            }
        }
    }

    async fn serve(&self, parts: &Parts, body: Incoming, ip: IpAddr) -> Result<(&'static str, Response<Body>), Denied> {
        let unsigned = |refusal| Denied::Refused(Scheme::Plain, refusal);
        self.requests.limits.ask_ip(ip, UnixTime::now()).map_err(unsigned)?;
        match (&parts.method, parts.uri.path()) {
            (&Method::GET, PUBLIC_ENCRYPTION_KEY_PATH) => {
                self.requests.limits.ask_unsigned(UnixTime::now()).map_err(unsigned)?;
                Ok(("none", self.public_key()))
            }
            (&Method::GET, record::PATH) => self.record(parts, ip).await,
            _ => {
                let (scheme, response) = self.verified(parts, body, ip).await?;
                Ok((scheme.name(), response))
            }
        }
    }

    fn public_key(&self) -> Response<Body> {
        let body = self.exchange.public_key(self.requests.key(), UnixTime::now());
        let body = serde_json::to_vec(&body).expect("strings and a finite number always serialize");
        respond(StatusCode::OK, "application/json", body)
    }

    /// The peer record. Whoever is registered may have it signed as often as its own limit allows; all others share one.
    async fn record(&self, parts: &Parts, ip: IpAddr) -> Result<(&'static str, Response<Body>), Denied> {
        let query = parts.uri.query().unwrap_or_default();
        let challenge = query.split('&').find_map(|pair| pair.strip_prefix("challenge=")).unwrap_or_default();
        let strict = |refusal| Denied::Refused(Scheme::Strict, refusal);
        if record::check_challenge(challenge).is_err() {
            let expected = "of the query is not 1 to 64 letters, digits, `-`, `_` or `.`";
            return Err(strict(Refusal::MalformedBody { field: "challenge", expected }));
        }
        let scheme = if parts.headers.contains_key(strict::SCHEME) {
            let claim = Claim::read(&parts.headers).map_err(|(scheme, refusal)| Denied::Refused(scheme, refusal))?;
            let admitted = self.requests.admit(&self.app, &claim, Senders::Neurons, Some(ip)).await.map_err(strict)?;
            let request = Request { line: line(parts), body_hash: None };
            self.requests.prove(&self.app, &claim, admitted, request).await.map_err(strict)?;
            Scheme::Strict.name()
        } else {
            self.requests.limits.ask_unsigned(UnixTime::now()).map_err(strict)?;
            "none"
        };
        let record = own_record(&self.app, &self.requests, challenge);
        let body = serde_json::to_vec(&record).expect("strings and numbers always serialize");
        Ok((scheme, respond(StatusCode::OK, "application/json", body)))
    }

    async fn verified(&self, parts: &Parts, body: Incoming, ip: IpAddr) -> Result<(Scheme, Response<Body>), Denied> {
        let claim = Claim::read(&parts.headers).map_err(|(scheme, refusal)| Denied::Refused(scheme, refusal))?;
        let scheme = claim.scheme;
        let refuse = |refusal| Denied::Refused(scheme, refusal);
        let admitted = self.requests.admit(&self.app, &claim, Senders::Validators, Some(ip)).await.map_err(refuse)?;
        let sender = admitted.0;

        let exchanging = parts.method == Method::POST && parts.uri.path() == EXCHANGE_SYMMETRIC_KEY_PATH;
        let body_bytes_max = self.requests.limits.policy().body_bytes_max;
        let max_bytes = if exchanging { EXCHANGE_BYTES_MAX } else { body_bytes_max };
        // Held until the answer begins.
        let (body, _memory) = self.read_body(scheme, parts, body, max_bytes).await?;
        let hash = body_hash(&body);
        let request = Request { line: line(parts), body_hash: (!body.is_empty()).then_some(&*hash) };
        let verified = self.requests.prove(&self.app, &claim, admitted, request).await.map_err(refuse)?;

        if exchanging {
            return Ok((scheme, self.exchange(&claim, sender, body).await.map_err(refuse)?));
        }
        let (content, decrypted) = match scheme {
            Scheme::Encrypted if !body.is_empty() => {
                let content = self.requests.receiver.decrypt(&claim, &sender, &body, UnixTime::now());
                (content.map_err(refuse)?.into(), true)
            }
            _ => (body, false),
        };
        let response = self.forward(parts, &verified, content, decrypted).await?;
        let wanted = scheme == Scheme::Strict && parts.headers.contains_key(SIGN_RESPONSE);
        let response = if wanted { self.sign(&claim, sender, response).await? } else { response };
        Ok((scheme, response))
    }

    async fn read_body(
        &self,
        scheme: Scheme,
        parts: &Parts,
        body: Incoming,
        max_bytes: u64,
    ) -> Result<(Bytes, OwnedSemaphorePermit), Denied> {
        let too_large = || Denied::Refused(scheme, Refusal::TooLarge { max_bytes });
        let failed = |status, detail| Denied::Failed(scheme, status, detail);
        let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let bytes = match announced.and_then(|length| length.parse::<u64>().ok()) {
            Some(bytes) if bytes > max_bytes => return Err(too_large()),
            Some(bytes) => bytes,
            None if body.is_end_stream() => 0,
            None => max_bytes,
        };
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let memory = self
            .bodies
            .clone()
            .try_acquire_many_owned(kib)
            .map_err(|_| Denied::Refused(scheme, Refusal::RateLimited { retry_after: Duration::from_secs(1) }))?;
        let limited = Limited::new(body, usize::try_from(max_bytes).unwrap_or(usize::MAX));
        match tokio::time::timeout(BODY_DEADLINE, limited.collect()).await {
            Err(_) => Err(failed(StatusCode::REQUEST_TIMEOUT, "the body did not come in time: send it again")),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(failed(StatusCode::BAD_REQUEST, "the body broke off: send it again")),
            Ok(Ok(body)) => Ok((body.to_bytes(), memory)),
        }
    }

    async fn exchange(&self, claim: &Claim, sender: Hotkey, body: Bytes) -> Result<Response<Body>, Refusal> {
        let Some(uuid) = claim.uuid.clone() else {
            return Err(Refusal::MissingHeaders(vec![sidecar_peer::handshake::encrypted::SYMMETRIC_KEY_UUID]));
        };
        self.requests.limits.ask_exchange(sender, UnixTime::now())?;
        let (exchange, name) = (self.exchange.clone(), uuid.clone());
        // A millisecond or two of arithmetic, during which other requests should not wait.
        let unwrapped = tokio::task::spawn_blocking(move || exchange.unwrap(&body, &name)).await;
        let key = unwrapped.map_err(|_| Refusal::Undecryptable)??;
        self.requests.receiver.symmetric_keys().insert(&sender, &uuid, key, UnixTime::now())?;
        Ok(respond(StatusCode::OK, "application/json", EXCHANGED))
    }

    async fn forward(
        &self,
        parts: &Parts,
        verified: &Verified,
        body: Bytes,
        decrypted: bool,
    ) -> Result<Response<Body>, Denied> {
        let scheme = verified.proof.scheme;
        let Some(upstream) = &self.upstream else {
            return Err(Denied::Failed(scheme, StatusCode::NOT_FOUND, "Not Found"));
        };
        upstream.send(parts, verified, body, decrypted).await.map_err(|problem| {
            let (status, detail) = match problem {
                UpstreamProblem::Path => (StatusCode::BAD_REQUEST, "the path is not in its simplest form: send it so"),
                UpstreamProblem::Unreachable => {
                    (StatusCode::BAD_GATEWAY, "the program behind this gate does not answer")
                }
                UpstreamProblem::Timeout => (StatusCode::GATEWAY_TIMEOUT, "the program behind this gate took too long"),
            };
            Denied::Failed(scheme, status, detail)
        })
    }

    async fn sign(&self, claim: &Claim, sender: Hotkey, response: Response<Body>) -> Result<Response<Body>, Denied> {
        let (mut parts, body) = response.into_parts();
        let collected = Limited::new(body, SIGNED_ANSWER_BYTES_MAX).collect().await.map_err(|_| {
            let detail = "the answer is too large to be signed, or broke off: ask without `mycelium-sign-response`";
            Denied::Failed(claim.scheme, StatusCode::BAD_GATEWAY, detail)
        })?;
        let body = collected.to_bytes();
        let status = parts.status.as_u16();
        let (name, value) = strict::response_header(self.requests.key(), &sender, &claim.nonce, status, &body);
        let value = HeaderValue::from_str(&value).expect("hex is ASCII");
        parts.headers.insert(name, value);
        Ok(Response::from_parts(parts, full(body)))
    }
}

/// What this sidecar says about itself to whoever asked with a challenge.
fn own_record(app: &App, requests: &Requests, challenge: &str) -> PeerRecord {
    let network = app.file.network.borrow().clone();
    let members = network.group.iter().flat_map(|group| &group.members);
    PeerRecord {
        hotkey: app.hotkey,
        netuid: network.netuid,
        genesis_hash: app.chain.view().genesis_hash,
        kind: app.kind,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schemes: Scheme::ALL.map(|scheme| scheme.name().to_owned()).to_vec(),
        consensus_address: members
            .into_iter()
            .find(|member| member.hotkey == app.hotkey)
            .map(|member| member.address.clone()),
        time_ms: UnixTime::now().millis(),
        challenge: challenge.to_owned(),
        signature: String::new(),
    }
    .signed(requests.key())
}

fn line(parts: &Parts) -> RequestLine<'_> {
    RequestLine { method: parts.method.as_str(), path: parts.uri.path(), query: parts.uri.query().unwrap_or_default() }
}

fn refused(scheme: Scheme, refusal: &Refusal) -> Response<Body> {
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = respond(status, Refusal::content_type(scheme), refusal.body(scheme));
    if let Some(seconds) = refusal.retry_after_s() {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn full(body: Bytes) -> Body {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}
