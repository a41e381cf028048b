//! The receiving side of all three schemes: from headers to a proof of who sent them.
//!
//! Cheap refusals come first, in this order: headers, (stake, which the caller asks for), receiver, nonce, form of the
//! signature; then the signature, and only then is the nonce stored. A claim that is not yet proved changes nothing here.

use http::HeaderMap;
use sidecar_util::http::VerifyBody;
use sidecar_util::{Hotkey, Uid};

use super::encrypted::{SYMMETRIC_KEY_UUID, SymmetricKeys, UUID_BYTES_MAX};
use super::nonce::{FIBER_WINDOW, NonceLimits, NonceProblem, NonceStore, fiber_nonce_time};
use super::plain::{MINER_HOTKEY, NONCE, SIGNATURE, VALIDATOR_HOTKEY};
use super::refusal::Refusal;
use super::signatures::Signatures;
use super::strict::RequestLine;
use super::{Scheme, UnixTime, encrypted, parse_signature, plain, strict};

/// What the headers of a request claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// In which scheme.
    pub scheme: Scheme,
    /// Who sent it, as written. An address that is none is unknown like any other.
    pub sender: String,
    /// Who is meant to receive it.
    pub receiver: String,
    /// Taken once.
    pub nonce: String,
    /// When, where it is not a part of the nonce.
    pub time: Option<String>,
    /// Over what the scheme signs.
    pub signature: String,
    /// Under which symmetric key the body is.
    pub uuid: Option<String>,
}

/// The signed parts of a request beside its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Method, path and query.
    pub line: RequestLine<'a>,
    /// SHA-256 of the body in lower-case hex; `None` where there is no body at all.
    pub body_hash: Option<&'a str>,
}

/// A claim that was found true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Who sent the request.
    pub sender: Hotkey,
    /// In which scheme.
    pub scheme: Scheme,
}

/// Verifies claims for one hotkey.
#[derive(Debug)]
pub struct Receiver {
    hotkey: String,
    signatures: Signatures,
    fiber_nonces: NonceStore,
    strict_nonces: NonceStore,
    symmetric_keys: SymmetricKeys,
}

impl Receiver {
    /// A receiver that starts now.
    ///
    /// # Panics
    /// Outside of a tokio runtime: its [`Signatures`] are tasks.
    pub fn spawn(hotkey: &Hotkey, limits: NonceLimits, lanes: usize, started: UnixTime) -> Self {
        Self {
            hotkey: hotkey.to_string(),
            signatures: Signatures::spawn(lanes),
            fiber_nonces: NonceStore::new(FIBER_WINDOW, limits, started),
            strict_nonces: NonceStore::new(strict::WINDOW, limits, started),
            symmetric_keys: SymmetricKeys::new(),
        }
    }

    /// Keys that senders exchanged.
    pub fn symmetric_keys(&self) -> &SymmetricKeys {
        &self.symmetric_keys
    }

    /// What can be refused without looking at the signature.
    ///
    /// # Errors
    /// Why the claim cannot be true.
    pub fn check(&self, claim: &Claim, sender: &Hotkey, now: UnixTime) -> Result<(), Refusal> {
        let time = claim.moment()?;
        self.nonces(claim.scheme).check(sender, &claim.nonce, time, now)?;
        if claim.receiver != self.hotkey {
            return Err(Refusal::ForeignReceiver);
        }
        parse_signature(&claim.signature).map(|_| ()).ok_or(Refusal::Signature)
    }

    /// Verifies a claim about a request and takes its nonce.
    ///
    /// # Errors
    /// Why it is not true.
    ///
    /// # Cancel safety
    /// Dropping the future takes no nonce.
    pub async fn prove(
        &self,
        claim: &Claim,
        sender: &Hotkey,
        request: Request<'_>,
        now: UnixTime,
    ) -> Result<Proof, Refusal> {
        self.check(claim, sender, now)?;
        let signature = parse_signature(&claim.signature).ok_or(Refusal::Signature)?;
        let message = Self::message(claim, request)?.into_bytes();
        if !self.signatures.verify(sender, message, &signature).await {
            return Err(Refusal::Signature);
        }
        // Another request with this nonce may have been faster.
        self.nonces(claim.scheme).remember(sender, &claim.nonce, claim.moment()?, now)?;
        Ok(Proof { sender: *sender, scheme: claim.scheme })
    }

    /// Decrypts the body of a request whose headers were proved.
    ///
    /// # Errors
    /// There is no such key, or the token is none of it, or was sent before.
    pub fn decrypt(&self, claim: &Claim, sender: &Hotkey, token: &[u8], now: UnixTime) -> Result<Vec<u8>, Refusal> {
        let uuid = claim.uuid.as_deref().ok_or(Refusal::NoSymmetricKey)?;
        let key = self.symmetric_keys.get(sender, uuid, now)?;
        let content = key.decrypt(token, now, FIBER_WINDOW)?;
        self.take_inner_nonce(sender, uuid, &content, now)?;
        Ok(content)
    }

    /// Fiber's clients put a nonce of its own into every body they encrypt. Its servers never look at it; taken once, it
    /// keeps a recorded body from being sent again under newer headers. Other clients need not have it.
    fn take_inner_nonce(&self, sender: &Hotkey, uuid: &str, content: &[u8], now: UnixTime) -> Result<(), Refusal> {
        #[derive(serde::Deserialize)]
        struct Inner {
            nonce: Option<serde_json::Value>,
        }
        let inner = serde_json::from_slice::<Inner>(content).ok().and_then(|inner| inner.nonce);
        let Some(nonce) = inner.as_ref().and_then(serde_json::Value::as_str) else { return Ok(()) };
        let Some(time) = fiber_nonce_time(nonce) else { return Ok(()) };
        // Under a name of its own: a body may carry the nonce of its headers.
        let name = format!("{nonce}/{}", &uuid[..uuid.len().min(16)]);
        Ok(self.fiber_nonces.remember(sender, &name, time, now)?)
    }

    fn nonces(&self, scheme: Scheme) -> &NonceStore {
        match scheme {
            Scheme::Plain | Scheme::Encrypted => &self.fiber_nonces,
            Scheme::Strict => &self.strict_nonces,
        }
    }

    fn message(claim: &Claim, request: Request<'_>) -> Result<String, Refusal> {
        let Claim { nonce, receiver, .. } = claim;
        Ok(match claim.scheme {
            // Fiber hashes the body of every POST, an empty one too, and none of a GET. A GET that has a body all the same
            // has to be signed with it.
            Scheme::Plain => plain::message(nonce, receiver, request.payload_hash()),
            Scheme::Encrypted => {
                encrypted::message(nonce, receiver, claim.uuid.as_deref().ok_or(Refusal::NoSymmetricKey)?)
            }
            Scheme::Strict => {
                let time = claim.moment()?;
                let body_hash = request.body_hash.unwrap_or(EMPTY_HASH);
                strict::message(request.line, body_hash, &claim.sender, receiver, time, nonce)
            }
        })
    }
}

/// SHA-256 of nothing.
const EMPTY_HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

impl<'a> Request<'a> {
    /// The hash that a plain request signs, if it signs one.
    pub fn payload_hash(&self) -> Option<&'a str> {
        let bare = matches!(self.line.method, "GET" | "HEAD");
        match self.body_hash.filter(|hash| *hash != EMPTY_HASH) {
            Some(hash) => Some(hash),
            None if bare => None,
            None => Some(EMPTY_HASH),
        }
    }
}

impl Claim {
    /// Reads the headers of a request. Which scheme it speaks is told by those that only one of them has.
    ///
    /// # Errors
    /// Headers that are missing, cannot be read, or are there twice.
    pub fn read(headers: &HeaderMap) -> Result<Self, (Scheme, Refusal)> {
        let scheme = if headers.contains_key(strict::SCHEME) || headers.contains_key(strict::SIGNATURE) {
            Scheme::Strict
        } else if headers.contains_key(SYMMETRIC_KEY_UUID) {
            Scheme::Encrypted
        } else {
            Scheme::Plain
        };
        Self::read_as(scheme, headers).map_err(|refusal| (scheme, refusal))
    }

    /// When the sender says it made the request.
    fn moment(&self) -> Result<UnixTime, Refusal> {
        let malformed = Refusal::Nonce(NonceProblem::Malformed);
        match self.scheme {
            Scheme::Plain | Scheme::Encrypted => fiber_nonce_time(&self.nonce).ok_or(malformed),
            Scheme::Strict => {
                let time = self.time.as_deref().unwrap_or_default();
                if !strict::is_nonce(&self.nonce) {
                    return Err(Refusal::MalformedHeader {
                        header: strict::NONCE,
                        expected: "is not 32 lower-case hex digits",
                    });
                }
                let whole = !time.is_empty() && time.len() <= 20 && time.bytes().all(|digit| digit.is_ascii_digit());
                whole.then(|| time.parse().ok()).flatten().map(UnixTime::from_millis).ok_or(Refusal::MalformedHeader {
                    header: strict::TIME,
                    expected: "is not a whole number of milliseconds since 1970",
                })
            }
        }
    }

    fn read_as(scheme: Scheme, headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut reader = Reader { headers, missing: Vec::new() };
        let claim = match scheme {
            Scheme::Plain | Scheme::Encrypted => Self {
                scheme,
                sender: reader.read(VALIDATOR_HOTKEY)?,
                signature: reader.read(SIGNATURE)?,
                receiver: reader.read(MINER_HOTKEY)?,
                nonce: reader.read(NONCE)?,
                time: None,
                uuid: match scheme {
                    Scheme::Encrypted => Some(reader.read(SYMMETRIC_KEY_UUID)?),
                    Scheme::Plain | Scheme::Strict => None,
                },
            },
            Scheme::Strict => {
                if reader.read(strict::SCHEME)? != strict::VERSION {
                    let expected = "is not `mycelium-v1`, the one version there is";
                    return Err(Refusal::MalformedHeader { header: strict::SCHEME, expected });
                }
                Self {
                    scheme,
                    sender: reader.read(strict::SENDER)?,
                    receiver: reader.read(strict::RECEIVER)?,
                    time: Some(reader.read(strict::TIME)?),
                    nonce: reader.read(strict::NONCE)?,
                    signature: reader.read(strict::SIGNATURE)?,
                    uuid: None,
                }
            }
        };
        if !reader.missing.is_empty() {
            return Err(Refusal::MissingHeaders(reader.missing));
        }
        if claim.uuid.as_ref().is_some_and(|uuid| uuid.is_empty() || uuid.len() > UUID_BYTES_MAX) {
            let expected = "does not have 1 to 128 characters";
            return Err(Refusal::MalformedHeader { header: SYMMETRIC_KEY_UUID, expected });
        }
        Ok(claim)
    }

    /// The hotkey of the sender.
    ///
    /// # Errors
    /// [`Refusal::UnknownHotkey`], which is what Fiber says of an address that is none.
    pub fn sender(&self) -> Result<Hotkey, Refusal> {
        self.sender.parse().map_err(|_| Refusal::UnknownHotkey)
    }
}

struct Reader<'a> {
    headers: &'a HeaderMap,
    missing: Vec<&'static str>,
}

impl Reader<'_> {
    /// A header's value; empty when it is missing, which is told at the end about all of them at once.
    fn read(&mut self, header: &'static str) -> Result<String, Refusal> {
        let mut values = self.headers.get_all(header).iter();
        let Some(value) = values.next() else {
            self.missing.push(header);
            return Ok(String::new());
        };
        if values.next().is_some() {
            // Which of them would the next program behind this one believe?
            return Err(Refusal::MalformedHeader { header, expected: "is there twice: send it once" });
        }
        let text = value.to_str().map_err(|_| Refusal::MalformedHeader {
            header,
            expected: "has characters that are not visible ASCII: encode them",
        })?;
        Ok(text.to_owned())
    }
}

/// The slot of a sender that may be listened to.
///
/// # Errors
/// Why it may not.
pub fn admit(verdict: &VerifyBody) -> Result<Uid, Refusal> {
    match (verdict.uid, verdict.reason.as_str()) {
        (None, _) => Err(Refusal::UnknownHotkey),
        (Some(uid), _) if verdict.verified => Ok(uid),
        (Some(_), "no_validator_permit") => Err(Refusal::NoPermit),
        (Some(_), _) => Err(Refusal::LowStake(verdict.stake)),
    }
}

#[cfg(test)]
mod tests;
