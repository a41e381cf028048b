//! Why a request is refused, and how each scheme says so.
//!
//! Fiber's clients look at the status and at `detail`, so its table of both is part of its protocol and stands here, not
//! with the sidecar's own problems. Where Fiber's server answers 500, this one answers 4xx in the same shape.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use sidecar_util::Tao;

use super::Scheme;
use super::nonce::NonceProblem;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Headers that the scheme demands are not there.
    #[error("headers are missing: {}", .0.join(", "))]
    MissingHeaders(Vec<&'static str>),
    /// A header that cannot be read.
    #[error("header `{header}` {expected}")]
    MalformedHeader {
        /// Its name.
        header: &'static str,
        /// What is wrong and expected, as the end of a sentence.
        expected: &'static str,
    },
    /// The body is not what is expected under this path.
    #[error("field `{field}` of the body {expected}")]
    MalformedBody {
        /// The field; empty for the body as a whole.
        field: &'static str,
        /// What is wrong and expected, as the end of a sentence.
        expected: &'static str,
    },
    /// The sender is not on the subnet.
    #[error("the sender's hotkey is not registered on this subnet: register it, or sign with one that is")]
    UnknownHotkey,
    /// The sender has not enough stake.
    #[error("the sender's stake of {0} TAO is below this receiver's minimum: add stake")]
    LowStake(Tao),
    /// The sender may not validate.
    #[error("the sender has no validator permit on this subnet: it needs more stake than its rivals")]
    NoPermit,
    /// The nonce, or the time beside it.
    #[error("{0}")]
    Nonce(NonceProblem),
    /// The signature does not fit.
    #[error("the signature is not the sender's over this request: sign exactly what is sent")]
    Signature,
    /// Signed for somebody else.
    #[error("the request is signed for another receiver: sign for the hotkey that is asked")]
    ForeignReceiver,
    /// The key that the body is encrypted with is not here.
    #[error("no symmetric key is known for this hotkey and uuid: exchange one")]
    NoSymmetricKey,
    /// The body cannot be decrypted.
    #[error("the body {0}: encrypt it with the symmetric key of its uuid, just before it is sent")]
    Token(&'static str),
    /// The wrapped key cannot be unwrapped.
    #[error("the symmetric key cannot be decrypted: ask for the public key again")]
    Undecryptable,
    /// The wrapped key is no key.
    #[error("the symmetric key has {0} bytes: send one of 32")]
    KeyLength(usize),
    /// The wrapped key is not the one that the headers are signed for.
    #[error("the symmetric key is not bound to its uuid: make the uuid from the key as `mycelium-key-v1` says")]
    UnboundKey,
    /// Too many keys of one hotkey or altogether.
    #[error("too many symmetric keys are held: use those exchanged before")]
    TooManyKeys,
    /// The body is larger than allowed.
    #[error("the body is larger than {max_bytes} bytes: send less")]
    TooLarge {
        /// The limit.
        max_bytes: u64,
    },
    /// Too many requests.
    #[error("too many requests: slow down")]
    RateLimited {
        /// When one more is taken.
        retry_after: Duration,
    },
    /// Nothing can be said about anybody's stake now.
    #[error("stakes cannot be read now ({reason}): try again")]
    Unavailable {
        /// One word.
        reason: &'static str,
    },
}

impl From<NonceProblem> for Refusal {
    fn from(problem: NonceProblem) -> Self {
        Self::Nonce(problem)
    }
}

impl Refusal {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::MissingHeaders(_) | Self::MalformedHeader { .. } | Self::MalformedBody { .. } => 422,
            Self::UnknownHotkey | Self::LowStake(_) | Self::NoPermit => 403,
            Self::Nonce(NonceProblem::Full) | Self::RateLimited { .. } | Self::TooManyKeys => 429,
            Self::Nonce(_) | Self::Signature | Self::ForeignReceiver | Self::Undecryptable | Self::UnboundKey => 401,
            Self::NoSymmetricKey | Self::Token(_) | Self::KeyLength(_) => 400,
            Self::TooLarge { .. } => 413,
            Self::Unavailable { .. } => 503,
        }
    }

    /// One word from a closed set, for logs, metrics and machines.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MissingHeaders(_) => "missing_headers",
            Self::MalformedHeader { .. } => "malformed_header",
            Self::MalformedBody { .. } => "malformed_body",
            Self::UnknownHotkey => "not_registered",
            Self::LowStake(_) => "below_minimum_stake",
            Self::NoPermit => "no_validator_permit",
            Self::Nonce(NonceProblem::Malformed | NonceProblem::TooLong) => "nonce_malformed",
            Self::Nonce(NonceProblem::OutsideWindow) => "nonce_outside_window",
            Self::Nonce(NonceProblem::BeforeStart) => "nonce_before_start",
            Self::Nonce(NonceProblem::Used) => "nonce_used",
            Self::Nonce(NonceProblem::Full) => "nonce_store_full",
            Self::Signature => "invalid_signature",
            Self::ForeignReceiver => "foreign_receiver",
            Self::NoSymmetricKey => "no_symmetric_key",
            Self::Token(_) => "malformed_token",
            Self::Undecryptable => "undecryptable_key",
            Self::KeyLength(_) => "key_length",
            Self::UnboundKey => "unbound_key",
            Self::TooManyKeys => "too_many_keys",
            Self::TooLarge { .. } => "body_too_large",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable { .. } => "stake_unavailable",
        }
    }

    /// Whole seconds of the header `Retry-After`, where waiting helps.
    pub fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after } => {
                Some(retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0))
            }
            // A second's worth of nonces is dropped every second, at the latest when a window has passed.
            Self::Nonce(NonceProblem::Full) | Self::TooManyKeys => Some(1),
            Self::Unavailable { .. } => Some(5),
            _ => None,
        }
    }

    /// The value of `detail`, word for word as Fiber's server has it where it has one.
    pub fn detail(&self) -> Value {
        match self {
            Self::MissingHeaders(names) => names
                .iter()
                .map(|name| json!({"type": "missing", "loc": ["header", name], "msg": "Field required", "input": null}))
                .collect(),
            Self::MalformedHeader { header, expected } => {
                json!([{"type": "value_error", "loc": ["header", header], "msg": expected, "input": null}])
            }
            Self::MalformedBody { field: "", expected } => {
                json!([{"type": "value_error", "loc": ["body"], "msg": expected, "input": null}])
            }
            Self::MalformedBody { field, expected } => {
                json!([{"type": "value_error", "loc": ["body", field], "msg": expected, "input": null}])
            }
            Self::UnknownHotkey => "Hotkey not found in metagraph".into(),
            Self::LowStake(stake) => format!("Insufficient stake of {:?} ", stake.as_f64()).into(),
            Self::Nonce(NonceProblem::Full) => self.to_string().into(),
            Self::Nonce(_) => "Oi, that nonce is not valid!".into(),
            Self::Signature => "Oi, invalid signature, you're not who you said you were!".into(),
            Self::ForeignReceiver => "Oi, invalid miner hotkey - that's not me!".into(),
            Self::NoSymmetricKey => "No symmetric key found for that hotkey and uuid".into(),
            Self::Undecryptable => "Oi, I can't decrypt that symmetric key, sorry".into(),
            other => other.to_string().into(),
        }
    }

    /// The whole body: `{"detail": …}` for Fiber's schemes, problem details for ours.
    pub fn body(&self, scheme: Scheme) -> Vec<u8> {
        let body = match scheme {
            Scheme::Plain | Scheme::Encrypted => json!({"detail": self.detail()}),
            Scheme::Strict => json!(Problem {
                kind: format!("urn:mycelium:{}", self.reason().replace('_', "-")),
                title: "The request was refused",
                status: self.status(),
                detail: self.to_string(),
            }),
        };
        body.to_string().into_bytes()
    }

    /// The type of [`Self::body`].
    pub fn content_type(scheme: Scheme) -> &'static str {
        match scheme {
            Scheme::Plain | Scheme::Encrypted => "application/json",
            Scheme::Strict => "application/problem+json",
        }
    }
}

#[derive(Serialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_fibers_word_for_word() {
        let check = |refusal: Refusal, status: u16, body: Value| {
            assert_eq!(refusal.status(), status);
            let got: Value = serde_json::from_slice(&refusal.body(Scheme::Plain)).unwrap();
            assert_eq!(got, json!({"detail": body}));
        };
        check(
            Refusal::MissingHeaders(vec!["nonce"]),
            422,
            json!([{"type": "missing", "loc": ["header", "nonce"], "msg": "Field required", "input": null}]),
        );
        check(Refusal::UnknownHotkey, 403, json!("Hotkey not found in metagraph"));
        check(Refusal::LowStake("10".parse().unwrap()), 403, json!("Insufficient stake of 10.0 "));
        check(NonceProblem::Used.into(), 401, json!("Oi, that nonce is not valid!"));
        check(Refusal::Signature, 401, json!("Oi, invalid signature, you're not who you said you were!"));
        check(Refusal::ForeignReceiver, 401, json!("Oi, invalid miner hotkey - that's not me!"));
        check(Refusal::NoSymmetricKey, 400, json!("No symmetric key found for that hotkey and uuid"));
        check(Refusal::Undecryptable, 401, json!("Oi, I can't decrypt that symmetric key, sorry"));
    }

    #[test]
    fn our_own_scheme_answers_with_problem_details() {
        let body: Value = serde_json::from_slice(&Refusal::from(NonceProblem::Used).body(Scheme::Strict)).unwrap();
        assert_eq!((body["type"].as_str(), body["status"].as_u64()), (Some("urn:mycelium:nonce-used"), Some(401)));
        assert!(body["detail"].as_str().unwrap().contains("make a new one"));
    }

    #[test]
    fn to_wait_is_said_in_whole_seconds_and_never_too_short() {
        let refusal = Refusal::RateLimited { retry_after: Duration::from_millis(1200) };
        assert_eq!((refusal.status(), refusal.retry_after_s()), (429, Some(2)));
        assert_eq!(Refusal::Signature.retry_after_s(), None);
    }
}
