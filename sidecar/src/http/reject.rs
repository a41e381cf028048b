//! Errors as problem details (RFC 9457): the only place that knows their status codes.

use std::convert::Infallible;

use http::StatusCode;
use sidecar_metagraph::ChainProblem;
use sidecar_peer::FactsError;
use sidecar_util::ValueError;
use sidecar_util::http::ProblemBody;
use warp::reject::{LengthRequired, MethodNotAllowed, PayloadTooLarge};
use warp::reply::Response;

use super::{Unmatched, typed};

/// What can be wrong with a request or with this sidecar.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The address in the path is none.
    InvalidHotkey(ValueError),
    /// A field of the body is wrong.
    InvalidField(ValueError),
    /// The body is too large, or does not say how large it is.
    BodySize(StatusCode),
    /// The chain was not read yet, or not lately enough.
    Chain { reason: &'static str, detail: String },
    /// Not ready to serve.
    NotReady(ChainProblem),
    /// Nothing is served under this path.
    NotFound,
    /// Something is served here, by another method.
    MethodNotAllowed,
    /// A bug.
    Internal(String),
}

impl From<ValueError> for Problem {
    fn from(error: ValueError) -> Self {
        Self::InvalidField(error)
    }
}

impl From<FactsError> for Problem {
    fn from(error: FactsError) -> Self {
        Self::Chain { reason: error.reason, detail: error.detail }
    }
}

impl Problem {
    fn body(self) -> ProblemBody {
        let (status, kind, title, detail) = match self {
            Self::InvalidHotkey(error) => {
                (StatusCode::BAD_REQUEST, "invalid-hotkey", "The hotkey is no valid SS58 address", error.to_string())
            }
            Self::InvalidField(error) => {
                (StatusCode::BAD_REQUEST, "invalid-field", "A field has a value that it cannot take", error.to_string())
            }
            Self::BodySize(status) => (
                status,
                "body-size",
                "The body has no length, or is too large",
                "send at most 12 MiB with a Content-Length, or the hash of the body in its place".to_owned(),
            ),
            Self::Chain { reason, detail } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "chain-unavailable",
                "The chain could not be read lately",
                format!("{reason}: {detail}"),
            ),
            Self::NotReady(problem) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "not-ready",
                "This sidecar is not ready",
                format!("{}: {problem}", problem.reason()),
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not-found",
                "Nothing is served under this path",
                "see /v1/status, /v1/metagraph, /v1/validators and /v1/validators/{hotkey}/verify".to_owned(),
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "This path is served by another method",
                "use GET".to_owned(),
            ),
            Self::Internal(detail) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", "This sidecar made a mistake", detail)
            }
        };
        let kind = format!("urn:mycelium:{kind}");
        ProblemBody { kind, title: title.to_owned(), status: status.as_u16(), detail }
    }

    pub(crate) fn into_response(self) -> Response {
        let body = self.body();
        let status = StatusCode::from_u16(body.status).expect("made from a status code above");
        let bytes = serde_json::to_vec(&body).expect("strings and a number always serialize");
        typed(status, "application/problem+json", bytes)
    }
}

/// Requests that no route took.
pub(crate) async fn recover(rejection: Unmatched) -> Result<Response, Infallible> {
    let problem = if rejection.is_not_found() {
        Problem::NotFound
    } else if rejection.find::<PayloadTooLarge>().is_some() {
        Problem::BodySize(StatusCode::PAYLOAD_TOO_LARGE)
    } else if rejection.find::<LengthRequired>().is_some() {
        Problem::BodySize(StatusCode::LENGTH_REQUIRED)
    } else if rejection.find::<MethodNotAllowed>().is_some() {
        Problem::MethodNotAllowed
    } else {
        Problem::Internal(format!("{rejection:?}"))
    };
    Ok(problem.into_response())
}
