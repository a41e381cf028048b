//! Errors as problem details (RFC 9457): the only place that knows their status codes.

use std::convert::Infallible;

use http::StatusCode;
use sidecar_metagraph::ChainProblem;
use sidecar_metagraph::extrinsics::{FailureClass, SubmitError};
use sidecar_peer::FactsError;
use sidecar_util::ValueError;
use sidecar_util::http::ProblemBody;
use warp::reject::MethodNotAllowed;
use warp::reply::Response;

use super::{Unmatched, typed};
use crate::signer::Refusal;

/// What can be wrong with a request or with this sidecar.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The address in the path is none.
    InvalidHotkey(ValueError),
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
    } else if rejection.find::<MethodNotAllowed>().is_some() {
        Problem::MethodNotAllowed
    } else {
        Problem::Internal(format!("{rejection:?}"))
    };
    Ok(problem.into_response())
}

/// What can be wrong with a request to the signer.
#[derive(Debug)]
pub(crate) enum SignerProblem {
    /// The signer is not there yet.
    Starting,
    /// The body is no JSON.
    MediaType(String),
    /// The body is too large.
    TooLarge { bytes_max: usize },
    /// The body cannot be understood.
    Body(String),
    /// A value of the body or of a header.
    Field(ValueError),
    /// Another body under a key that was used.
    KeyReused { key: String },
    /// The signer says no.
    Refused(Refusal),
}

/// Seconds after which somebody may ask again who was refused because the lease is not held.
const LEASE_RETRY_S: u64 = 5;

/// Seconds of a block of the public chain, for clients that count in seconds.
const BLOCK_S: u64 = 12;

/// What a submission that failed looks like from outside.
fn submission_kind(error: &SubmitError) -> (StatusCode, &'static str, &'static str) {
    match error {
        SubmitError::Argument { .. } | SubmitError::WrongKey { .. } => {
            (StatusCode::BAD_REQUEST, "invalid-parameter", "A value cannot be used")
        }
        SubmitError::KeyReused { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The key was used for another request")
        }
        SubmitError::Gate { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "signer-not-held", "This sidecar may not sign now")
        }
        SubmitError::Pending { .. } => (
            StatusCode::GATEWAY_TIMEOUT,
            "outcome-pending",
            "The outcome is not known yet: ask again with the same key",
        ),
        SubmitError::Refused { .. } | SubmitError::Dispatch { .. } | SubmitError::NotOffered { .. } => {
            (StatusCode::CONFLICT, "chain-refused", "The chain does not take it")
        }
        _ => (StatusCode::SERVICE_UNAVAILABLE, "chain-unavailable", "The chain could not be used"),
    }
}

/// The problem as an answer. What a program can act on stands beside the text: `reason`, `field`, `retry_after_s`.
pub(crate) fn signer_problem(problem: &SignerProblem) -> Response {
    let (status, kind, title) = match problem {
        SignerProblem::MediaType(_) => (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "The body is of another type than this path takes",
        ),
        SignerProblem::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
        SignerProblem::Body(_) => (StatusCode::BAD_REQUEST, "invalid-body", "The body cannot be understood"),
        SignerProblem::Field(_) => (StatusCode::BAD_REQUEST, "invalid-parameter", "A value cannot be used"),
        SignerProblem::KeyReused { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The key was used for another request")
        }
        SignerProblem::Refused(Refusal::Policy(_)) => {
            (StatusCode::FORBIDDEN, "policy-denied", "The signer's policy does not allow this")
        }
        SignerProblem::Refused(Refusal::Rate { .. }) => {
            (StatusCode::TOO_MANY_REQUESTS, "rate-limited", "The signer's policy does not allow this so often")
        }
        SignerProblem::Refused(Refusal::Foreign(_)) => {
            (StatusCode::CONFLICT, "foreign-signer", "Another process signs with this hotkey")
        }
        SignerProblem::Refused(Refusal::Submission(error)) => submission_kind(error),
        SignerProblem::Refused(Refusal::NoSubmitter { .. }) => {
            (StatusCode::SERVICE_UNAVAILABLE, "chain-unavailable", "Extrinsics cannot be made now")
        }
        SignerProblem::Starting
        | SignerProblem::Refused(Refusal::NotHeld(_) | Refusal::NotLooked(_) | Refusal::Memory { .. }) => {
            (StatusCode::SERVICE_UNAVAILABLE, "signer-not-held", "This sidecar may not sign now")
        }
    };
    let detail = match problem {
        SignerProblem::Starting => "the sidecar is starting: try again in a few seconds".to_owned(),
        SignerProblem::MediaType(found) => format!("content-type: `{found}` is not taken: send application/json"),
        SignerProblem::TooLarge { bytes_max } => format!("send at most {bytes_max} bytes"),
        SignerProblem::Body(detail) => detail.clone(),
        SignerProblem::Field(error) => error.to_string(),
        SignerProblem::KeyReused { key } => {
            format!("Idempotency-Key: `{key}` was used for a request with another body: give each request its own")
        }
        SignerProblem::Refused(refusal) => refusal.to_string(),
    };
    let retry_after_s = match problem {
        SignerProblem::Refused(Refusal::Rate { wait, .. }) => Some(wait.as_secs() + 1),
        SignerProblem::Refused(Refusal::Submission(error)) => match error.class() {
            FailureClass::RetryNow => Some(1),
            FailureClass::WaitBlocks(blocks) => Some(blocks.saturating_mul(BLOCK_S)),
            _ => None,
        },
        _ if status == StatusCode::SERVICE_UNAVAILABLE => Some(LEASE_RETRY_S),
        _ => None,
    };
    let mut body = serde_json::json!({
        "type": format!("urn:mycelium:{kind}"), "title": title, "status": status.as_u16(), "detail": detail,
    });
    match problem {
        SignerProblem::Refused(Refusal::Policy(error)) | SignerProblem::Field(error) => {
            body["field"] = error.field.as_str().into();
        }
        SignerProblem::Refused(Refusal::Submission(error)) => {
            body["reason"] = error.chain_error().unwrap_or(error.reason()).into();
            body["remedy"] = error.remedy().into();
            body["class"] = match error.class() {
                FailureClass::RetryNow => "retry_now",
                FailureClass::WaitBlocks(_) => "wait_blocks",
                FailureClass::Configuration => "configuration",
                FailureClass::Stop => "stop",
            }
            .into();
            if let FailureClass::WaitBlocks(blocks) = error.class() {
                body["blocks"] = blocks.into();
            }
        }
        SignerProblem::Refused(refusal) => body["reason"] = refusal.reason().into(),
        SignerProblem::Starting => body["reason"] = "Starting".into(),
        _ => {}
    }
    if let Some(seconds) = retry_after_s {
        body["retry_after_s"] = seconds.into();
    }
    let mut response = typed(status, "application/problem+json", body.to_string().into_bytes());
    if let Some(seconds) = retry_after_s {
        response.headers_mut().insert(http::header::RETRY_AFTER, seconds.into());
    }
    response
}
