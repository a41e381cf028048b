//! Errors as problem details (RFC 9457): the only place that knows their status codes.

use std::convert::Infallible;

use http::{HeaderValue, StatusCode, header};
use sidecar_metagraph::ChainProblem;
use sidecar_peer::FactsError;
use sidecar_util::ValueError;
use sidecar_util::http::ProblemBody;
use warp::reject::MethodNotAllowed;
use warp::reply::Response;

use super::{Unmatched, typed};

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
    /// A bug.
    Internal(String),
}

impl From<FactsError> for Problem {
    fn from(error: FactsError) -> Self {
        Self::Chain { reason: error.reason, detail: error.detail }
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
            Self::InvalidBody(detail) => detail,
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
            Self::Internal(detail) => detail,
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
        let allow = if let Self::MethodNotAllowed { allow } = &self { HeaderValue::from_str(allow).ok() } else { None };
        let (status, body) = self.into_body();
        let bytes = serde_json::to_vec(&body).expect("strings and a number always serialize");
        let mut response = typed(status, PROBLEM_JSON, bytes);
        if crowded {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S.into());
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
    .collect()
}
