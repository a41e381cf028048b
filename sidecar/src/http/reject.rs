//! Errors as problem details (RFC 9457): the only place that knows their status codes.

use std::convert::Infallible;

use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use sidecar_metagraph::ChainProblem;
use sidecar_metagraph::extrinsics::{FailureClass, SubmitError};
use sidecar_peer::FactsError;
use sidecar_util::ValueError;
use sidecar_util::http::ProblemBody;
use warp::reject::MethodNotAllowed;
use warp::reply::Response;

use super::{Unmatched, typed};
use crate::signer::Refusal;

/// Content type of every problem.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// What stands before the name of every kind of problem.
pub(crate) const URN: &str = "urn:mycelium:";

/// Seconds after which somebody who was refused because of the number of others may come back.
const RETRY_AFTER_S: u32 = 5;

/// What can be wrong with a request or with this sidecar.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The address in the path is none.
    InvalidHotkey(ValueError),
    /// Values of the request that cannot be used: all of them.
    InvalidParameters(Vec<ValueError>),
    /// The chain was not read yet, or not lately enough.
    Chain { reason: &'static str, detail: String },
    /// Not ready to serve.
    NotReady(ChainProblem),
    /// Nothing is served under this path.
    NotFound,
    /// No such node.
    UnknownNode(String),
    /// Nothing of the kind is on the chain.
    Absent(String),
    /// The list that a cursor belongs to is gone.
    CursorExpired,
    /// Something is served here, by another method.
    MethodNotAllowed { allow: String },
    /// Something is served here, but not to the network.
    SocketOnly,
    /// The body did not come in time.
    BodyTimeout,
    /// The body is larger than this route takes.
    BodyTooLarge { bytes_max: usize },
    /// The body is not of the type this route takes.
    UnsupportedMediaType { found: String },
    /// The body cannot be read.
    InvalidBody(String),
    /// The path with its query is too long.
    UriTooLong { bytes_max: usize },
    /// The headers are too many or too long.
    HeadersTooLarge { count_max: usize, bytes_max: usize },
    /// One address has too many connections.
    TooManyOfAddress { connections_max: usize },
    /// There are too many connections.
    TooManyConnections { connections_max: usize },
    /// There are too many watchers.
    TooManyWatchers { watchers_max: usize },
    /// The signer's own.
    Signer(Box<SignerProblem>),
    /// A bug.
    Internal(String),
}

impl From<FactsError> for Problem {
    fn from(error: FactsError) -> Self {
        Self::Chain { reason: error.reason, detail: error.detail }
    }
}

impl From<SignerProblem> for Problem {
    fn from(problem: SignerProblem) -> Self {
        Self::Signer(Box::new(problem))
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        SignerProblem::Refused(refusal).into()
    }
}

impl From<ValueError> for Problem {
    fn from(error: ValueError) -> Self {
        Self::InvalidParameters(vec![error])
    }
}

/// Status, name and title of a kind of problem.
type Kind = (StatusCode, &'static str, &'static str);

impl Problem {
    fn kind(&self) -> Kind {
        match self {
            Self::InvalidHotkey(_) => {
                (StatusCode::BAD_REQUEST, "invalid-hotkey", "The hotkey is no valid SS58 address")
            }
            Self::InvalidParameters(_) => {
                (StatusCode::BAD_REQUEST, "invalid-parameter", "The request has values that cannot be used")
            }
            Self::Chain { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "chain-unavailable", "The chain could not be read lately")
            }
            Self::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, "not-ready", "This sidecar is not ready"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "Nothing is served under this path"),
            Self::UnknownNode(_) => (StatusCode::NOT_FOUND, "unknown-node", "There is no such node on the subnet"),
            Self::Absent(_) => (StatusCode::NOT_FOUND, "absent", "The chain has nothing of the kind"),
            Self::CursorExpired => (StatusCode::GONE, "cursor-expired", "The list that the cursor belongs to is gone"),
            Self::MethodNotAllowed { .. } => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "This path is served by another method")
            }
            Self::SocketOnly => {
                (StatusCode::FORBIDDEN, "socket-only", "This is served on the unix socket of the pod only")
            }
            Self::BodyTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "body-timeout", "The body of the request did not come in time")
            }
            Self::BodyTooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body of the request is too large")
            }
            Self::UnsupportedMediaType { .. } => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "The body of the request is of another type than this path takes",
            ),
            Self::InvalidBody(_) => {
                (StatusCode::BAD_REQUEST, "invalid-body", "The body of the request cannot be understood")
            }
            Self::UriTooLong { .. } => {
                (StatusCode::URI_TOO_LONG, "uri-too-long", "The path with its query is too long")
            }
            Self::HeadersTooLarge { .. } => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers-too-large",
                "The headers of the request are too many or too long",
            ),
            Self::TooManyOfAddress { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-connections-of-address",
                "This address has too many connections",
            ),
            Self::TooManyConnections { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "too-many-connections", "This sidecar has too many connections")
            }
            Self::TooManyWatchers { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "too-many-watchers", "This sidecar has too many watchers")
            }
            Self::Signer(problem) => problem.kind(),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "This sidecar made a mistake"),
        }
    }

    fn detail(self) -> String {
        match self {
            Self::InvalidHotkey(error) => error.to_string(),
            Self::InvalidParameters(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            Self::Chain { reason, detail } => format!("{reason}: {detail}"),
            Self::NotReady(problem) => format!("{}: {problem}", problem.reason()),
            Self::NotFound => "see /v1/openapi.json for everything that is served".to_owned(),
            Self::UnknownNode(id) => {
                format!("`{id}` is not registered on this subnet: see /v1/nodes for those who are")
            }
            Self::Absent(what) => what,
            Self::CursorExpired => {
                "the block of the list is not kept any more: start again without `cursor`".to_owned()
            }
            Self::MethodNotAllowed { allow } => format!("use one of {allow}"),
            Self::SocketOnly => "ask through the socket that MYCELIUM_SOCKET names".to_owned(),
            Self::BodyTimeout => "send the whole body at once, or a smaller one".to_owned(),
            Self::BodyTooLarge { bytes_max } => format!("send at most {bytes_max} bytes"),
            Self::UnsupportedMediaType { found } => {
                format!("content-type: `{found}` is not taken: send application/json in UTF-8")
            }
            Self::UriTooLong { bytes_max } => format!("ask with at most {bytes_max} bytes, a list in several requests"),
            Self::HeadersTooLarge { count_max, bytes_max } => {
                format!("send at most {count_max} headers with at most {bytes_max} bytes together")
            }
            Self::TooManyOfAddress { connections_max } => {
                format!("one address may have {connections_max} connections: keep fewer, and use them again")
            }
            Self::TooManyConnections { connections_max } => {
                format!("there are {connections_max} already, and none is idle: try again in {RETRY_AFTER_S} s")
            }
            Self::TooManyWatchers { watchers_max } => {
                format!(
                    "there are {watchers_max} already: try again in {RETRY_AFTER_S} s, or ask /v1/nodes with its ETag"
                )
            }
            Self::Signer(problem) => problem.detail(),
            Self::InvalidBody(detail) | Self::Internal(detail) => detail,
        }
    }

    /// Status and body.
    pub(crate) fn into_body(self) -> (StatusCode, ProblemBody) {
        let (status, kind, title) = self.kind();
        let errors = match &self {
            Self::InvalidHotkey(error) => vec![error.clone().into()],
            Self::InvalidParameters(errors) => errors.iter().cloned().map(Into::into).collect(),
            _ => vec![],
        };
        let (kind, title) = (format!("{URN}{kind}"), title.to_owned());
        (status, ProblemBody { kind, title, status: status.as_u16(), detail: self.detail(), errors })
    }

    pub(crate) fn into_response(self) -> Response {
        let crowded = matches!(
            self,
            Self::TooManyOfAddress { .. } | Self::TooManyConnections { .. } | Self::TooManyWatchers { .. }
        );
        let retry_after_s = match &self {
            Self::Signer(problem) => problem.retry_after_s(),
            _ => crowded.then_some(RETRY_AFTER_S.into()),
        };
        let members = if let Self::Signer(problem) = &self { problem.members() } else { Map::new() };
        let allow = if let Self::MethodNotAllowed { allow } = &self { HeaderValue::from_str(allow).ok() } else { None };
        let (status, body) = self.into_body();
        let mut body = serde_json::to_value(&body).expect("strings and a number always serialize");
        if let Some(body) = body.as_object_mut() {
            body.extend(members);
        }
        let mut response = typed(status, PROBLEM_JSON, body.to_string().into_bytes());
        if let Some(seconds) = retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        response
    }
}

/// Requests that the filter of their route did not take.
pub(crate) async fn recover(rejection: Unmatched) -> Result<Response, Infallible> {
    let problem = if rejection.is_not_found() || rejection.find::<MethodNotAllowed>().is_some() {
        // Methods were checked before the filter was asked: what it does not know is not there.
        Problem::NotFound
    } else {
        Problem::Internal(format!("{rejection:?}"))
    };
    Ok(problem.into_response())
}

/// One of each kind, for the description of the API and its tests.
pub(crate) fn every_kind() -> Vec<Kind> {
    let value = || ValueError::new("field", "value", "is an example");
    [
        Problem::InvalidHotkey(value()),
        Problem::InvalidParameters(vec![]),
        Problem::Chain { reason: "", detail: String::new() },
        Problem::NotReady(ChainProblem::Connecting),
        Problem::NotFound,
        Problem::UnknownNode(String::new()),
        Problem::Absent(String::new()),
        Problem::CursorExpired,
        Problem::MethodNotAllowed { allow: String::new() },
        Problem::SocketOnly,
        Problem::BodyTimeout,
        Problem::BodyTooLarge { bytes_max: 0 },
        Problem::UnsupportedMediaType { found: String::new() },
        Problem::InvalidBody(String::new()),
        Problem::UriTooLong { bytes_max: 0 },
        Problem::HeadersTooLarge { count_max: 0, bytes_max: 0 },
        Problem::TooManyOfAddress { connections_max: 0 },
        Problem::TooManyConnections { connections_max: 0 },
        Problem::TooManyWatchers { watchers_max: 0 },
        Problem::Internal(String::new()),
    ]
    .iter()
    .map(Problem::kind)
    .chain(OF_SIGNER)
    .collect()
}

/// What can be wrong with a request to the signer, beside what can be wrong with any.
#[derive(Debug)]
pub(crate) enum SignerProblem {
    /// The signer is not there yet.
    Starting,
    /// Another body under a key that was used.
    KeyReused { key: String },
    /// The signer says no.
    Refused(Refusal),
}

/// Seconds after which somebody may ask again who was refused because the lease is not held.
const LEASE_RETRY_S: u64 = 5;

/// Seconds of a block of the public chain, for clients that count in seconds.
const BLOCK_S: u64 = 12;

const NOT_HELD: Kind = (StatusCode::SERVICE_UNAVAILABLE, "signer-not-held", "This sidecar may not sign now");
const POLICY_DENIED: Kind = (StatusCode::FORBIDDEN, "policy-denied", "The signer's policy does not allow this");
const RATE_LIMITED: Kind =
    (StatusCode::TOO_MANY_REQUESTS, "rate-limited", "The signer's policy does not allow this so often");
const FOREIGN_SIGNER: Kind = (StatusCode::CONFLICT, "foreign-signer", "Another process signs with this hotkey");
const KEY_REUSED: Kind =
    (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The key was used for another request");
const OUTCOME_PENDING: Kind =
    (StatusCode::GATEWAY_TIMEOUT, "outcome-pending", "The outcome is not known yet: ask again with the same key");
const CHAIN_REFUSED: Kind = (StatusCode::CONFLICT, "chain-refused", "The chain does not take it");

/// All of them.
const OF_SIGNER: [Kind; 7] =
    [NOT_HELD, POLICY_DENIED, RATE_LIMITED, FOREIGN_SIGNER, KEY_REUSED, OUTCOME_PENDING, CHAIN_REFUSED];

impl SignerProblem {
    fn kind(&self) -> Kind {
        let unavailable = || Problem::Chain { reason: "", detail: String::new() }.kind();
        match self {
            Self::KeyReused { .. } => KEY_REUSED,
            Self::Starting => NOT_HELD,
            Self::Refused(refusal) => match refusal {
                Refusal::Policy(_) => POLICY_DENIED,
                Refusal::Rate { .. } => RATE_LIMITED,
                Refusal::Foreign(_) => FOREIGN_SIGNER,
                Refusal::NotHeld(_) | Refusal::NotLooked(_) | Refusal::Memory { .. } => NOT_HELD,
                Refusal::NoSubmitter { .. } => unavailable(),
                Refusal::Submission(error) => match **error {
                    SubmitError::Argument { .. } | SubmitError::WrongKey { .. } => {
                        Problem::InvalidParameters(vec![]).kind()
                    }
                    SubmitError::KeyReused { .. } => KEY_REUSED,
                    SubmitError::Gate { .. } => NOT_HELD,
                    SubmitError::Pending { .. } => OUTCOME_PENDING,
                    SubmitError::Refused { .. } | SubmitError::Dispatch { .. } | SubmitError::NotOffered { .. } => {
                        CHAIN_REFUSED
                    }
                    _ => unavailable(),
                },
            },
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Starting => "the sidecar is starting: try again in a few seconds".to_owned(),
            Self::KeyReused { key } => {
                format!("Idempotency-Key: `{key}` was used for a request with another body: give each request its own")
            }
            Self::Refused(refusal) => refusal.to_string(),
        }
    }

    fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::Refused(Refusal::Rate { wait, .. }) => Some(wait.as_secs() + 1),
            Self::Refused(Refusal::Submission(error)) => match error.class() {
                FailureClass::RetryNow => Some(1),
                FailureClass::WaitBlocks(blocks) => Some(blocks.saturating_mul(BLOCK_S)),
                _ => None,
            },
            _ => (self.kind().0 == StatusCode::SERVICE_UNAVAILABLE).then_some(LEASE_RETRY_S),
        }
    }

    /// The members beside those that every problem has: what a program can act on.
    fn members(&self) -> Map<String, Value> {
        let mut members = Map::new();
        let mut tell = |name: &str, value: Value| members.insert(name.to_owned(), value);
        match self {
            Self::Refused(Refusal::Policy(error)) => {
                tell("field", error.field.as_str().into());
            }
            Self::Refused(Refusal::Submission(error)) => {
                tell("reason", error.chain_error().unwrap_or(error.reason()).into());
                tell("remedy", error.remedy().into());
                let class = match error.class() {
                    FailureClass::RetryNow => "retry_now",
                    FailureClass::WaitBlocks(_) => "wait_blocks",
                    FailureClass::Configuration => "configuration",
                    FailureClass::Stop => "stop",
                };
                tell("class", class.into());
                if let FailureClass::WaitBlocks(blocks) = error.class() {
                    tell("blocks", blocks.into());
                }
            }
            Self::Refused(refusal) => {
                tell("reason", refusal.reason().into());
            }
            Self::Starting => {
                tell("reason", "Starting".into());
            }
            Self::KeyReused { .. } => {}
        }
        if let Some(seconds) = self.retry_after_s() {
            tell("retry_after_s", seconds.into());
        }
        members
    }
}
