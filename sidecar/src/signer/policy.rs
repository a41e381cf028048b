//! What the user's container may have signed: pure, and closed by default.
//!
//! A hotkey's signature means something on the chain, so no caller chooses the bytes that are signed. A message is wrapped
//! or prefixed such that it can be no extrinsic: an extrinsic's signing payload contains the runtime's version as four
//! bytes of which the last is nought, or is a hash of 32 bytes. So text without control characters that is not 32 bytes
//! long is none, whatever it says; and everything that holds the chain's genesis hash is refused besides.
//!
//! Calls are made of typed arguments, for the Network's own subnet only. Transfers, stakes, proxies and everything else of a
//! coldkey have no word in the policy, so that no file can allow them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sidecar_util::{BlockHash, NetUid, ValueError};

/// Most bytes of one message where the policy says nothing else, and what no policy can exceed: the bound of a request.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const MESSAGE_BYTES_LIMIT: usize = 128 * 1024;

/// Domains of one policy; more are a mistake.
const DOMAINS_MAX: usize = 64;

/// Longest name of a domain, and shortest prefix of a raw one: what is shorter distinguishes nothing.
const NAME_BYTES_MAX: usize = 32;
const PREFIX_BYTES_MIN: usize = 4;

/// Length of a hash: an extrinsic of more than 256 bytes is signed as one.
const HASH_BYTES: usize = 32;

/// Weights of one call: as many as a subnet has uids.
const WEIGHTS_MAX: usize = 4096;

/// How a message becomes what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Form {
    /// Between `<Bytes>` and `</Bytes>`, as wallets in browsers sign.
    Bytes,
    /// After `mycelium:message:v1:`, the domain's name and a colon.
    Prefixed,
    /// As it is: text that begins with the domain's prefix.
    Raw,
}

/// A purpose of messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Domain {
    /// What a request calls it.
    pub(crate) name: String,
    /// How its messages are signed.
    pub(crate) form: Form,
    /// How its raw messages begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) prefix: Option<String>,
}

/// Calls that a policy can allow. There is no word for any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CallKind {
    /// `set_weights`, `set_mechanism_weights`.
    SetWeights,
    /// `commit_weights`, `commit_timelocked_weights` and the same of mechanisms.
    CommitWeights,
    /// `reveal_weights`, `reveal_mechanism_weights`.
    RevealWeights,
    /// `serve_axon`.
    ServeAxon,
    /// `set_commitment`.
    SetCommitment,
}

impl CallKind {
    /// The policy's word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SetWeights => "set_weights",
            Self::CommitWeights => "commit_weights",
            Self::RevealWeights => "reveal_weights",
            Self::ServeAxon => "serve_axon",
            Self::SetCommitment => "set_commitment",
        }
    }

    /// The kind of a call by the chain's name of it.
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "set_weights" | "set_mechanism_weights" => Some(Self::SetWeights),
            "commit_weights"
            | "commit_mechanism_weights"
            | "commit_timelocked_weights"
            | "commit_timelocked_mechanism_weights" => Some(Self::CommitWeights),
            "reveal_weights" | "reveal_mechanism_weights" => Some(Self::RevealWeights),
            "serve_axon" => Some(Self::ServeAxon),
            "set_commitment" => Some(Self::SetCommitment),
            _ => None,
        }
    }
}

/// What is counted for rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Operation {
    /// A message.
    Message,
    /// Weights, in whichever form the chain wants them.
    Weights,
    /// An axon.
    Axon,
    /// A commitment.
    Commitment,
}

impl Operation {
    /// The policy's word, and a metric's label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Weights => "weights",
            Self::Axon => "axon",
            Self::Commitment => "commitment",
        }
    }
}

/// How often something may be done: so many at once, and one more whenever so many seconds have passed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rate {
    /// At once.
    pub(crate) burst: u32,
    /// Seconds for one more.
    pub(crate) every_s: f64,
}

impl Rate {
    /// [`Self::every_s`] as a duration.
    pub(crate) fn every(self) -> Duration {
        Duration::try_from_secs_f64(self.every_s).unwrap_or(Duration::MAX)
    }
}

/// Rates of each operation, for each user of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rates {
    pub(crate) message: Rate,
    pub(crate) weights: Rate,
    pub(crate) axon: Rate,
    pub(crate) commitment: Rate,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            // A validator that asks every miner of a subnet at once, and goes on asking.
            message: Rate { burst: 1024, every_s: 0.01 },
            // The chain takes weights once in 100 blocks or so. What fails may be tried again.
            weights: Rate { burst: 4, every_s: 60.0 },
            // The chain takes an axon once in 50 blocks.
            axon: Rate { burst: 3, every_s: 300.0 },
            commitment: Rate { burst: 4, every_s: 60.0 },
        }
    }
}

impl Rates {
    pub(crate) fn of(&self, operation: Operation) -> Rate {
        match operation {
            Operation::Message => self.message,
            Operation::Weights => self.weights,
            Operation::Axon => self.axon,
            Operation::Commitment => self.commitment,
        }
    }
}

/// Bounds of weights, beside the chain's own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WeightLimits {
    /// Least number of neurons with a weight above nought.
    pub(crate) min_count: usize,
    /// Most.
    pub(crate) max_count: usize,
    /// Largest share of one neuron.
    pub(crate) max_share: f64,
    /// The only version key that is signed.
    pub(crate) version_key: Option<u64>,
}

impl Default for WeightLimits {
    fn default() -> Self {
        Self { min_count: 1, max_count: WEIGHTS_MAX, max_share: 1.0, version_key: None }
    }
}

/// The policy. A file may leave out what it does not change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Policy {
    /// Calls to the chain.
    pub(crate) calls: BTreeSet<CallKind>,
    /// Purposes of messages.
    pub(crate) domains: Vec<Domain>,
    /// Longest message.
    pub(crate) message_bytes_max: usize,
    /// How often.
    pub(crate) rates: Rates,
    /// Bounds of weights.
    pub(crate) weights: WeightLimits,
}

impl Default for Policy {
    fn default() -> Self {
        let domain = |name: &str, form| Domain { name: name.to_owned(), form, prefix: None };
        Self {
            calls: BTreeSet::from([
                CallKind::SetWeights,
                CallKind::CommitWeights,
                CallKind::RevealWeights,
                CallKind::ServeAxon,
                CallKind::SetCommitment,
            ]),
            domains: vec![domain("bytes", Form::Bytes), domain("app", Form::Prefixed)],
            message_bytes_max: MESSAGE_BYTES_MAX,
            rates: Rates::default(),
            weights: WeightLimits::default(),
        }
    }
}

/// Why a policy file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error("signer policy `{}` cannot be read: check --signer-policy", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("signer policy `{}` cannot be understood: correct it, or leave the field out for its default", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("signer policy `{}`", path.display())]
    Field {
        path: PathBuf,
        #[source]
        source: ValueError,
    },
}

impl Policy {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file, the field and the remedy.
    pub(crate) fn read(path: &Path) -> Result<Self, PolicyError> {
        let at = || path.to_owned();
        let bytes = std::fs::read(path).map_err(|source| PolicyError::Read { path: at(), source })?;
        let policy: Self =
            serde_json::from_slice(&bytes).map_err(|source| PolicyError::Parse { path: at(), source })?;
        policy.check().map_err(|source| PolicyError::Field { path: at(), source })?;
        Ok(policy)
    }

    fn check(&self) -> Result<(), ValueError> {
        if self.domains.len() > DOMAINS_MAX {
            let expected = format!("domains are too many: give at most {DOMAINS_MAX}");
            return Err(ValueError::new("domains", self.domains.len(), expected));
        }
        for (i, domain) in self.domains.iter().enumerate() {
            domain.check(&format!("domains[{i}]"))?;
            if self.domains[..i].iter().any(|other| other.name == domain.name) {
                let expected = "is in the list twice: give each domain its own name";
                return Err(ValueError::new(&format!("domains[{i}].name"), &domain.name, expected));
            }
        }
        if self.message_bytes_max == 0 || self.message_bytes_max > MESSAGE_BYTES_LIMIT {
            let expected = format!("is not a length from 1 to {MESSAGE_BYTES_LIMIT}");
            return Err(ValueError::new("message_bytes_max", self.message_bytes_max, expected));
        }
        for operation in [Operation::Message, Operation::Weights, Operation::Axon, Operation::Commitment] {
            let (rate, field) = (self.rates.of(operation), operation.name());
            if rate.burst == 0 {
                let expected = "permits nothing: leave the call or domain out instead";
                return Err(ValueError::new(&format!("rates.{field}.burst"), rate.burst, expected));
            }
            if !(rate.every_s > 0.0 && rate.every_s <= 1e9) {
                let expected = "is not a number of seconds above 0";
                return Err(ValueError::new(&format!("rates.{field}.every_s"), rate.every_s, expected));
            }
        }
        let WeightLimits { min_count, max_count, max_share, .. } = self.weights;
        if max_count == 0 || max_count > WEIGHTS_MAX {
            let expected = format!("is not a number from 1 to {WEIGHTS_MAX}");
            return Err(ValueError::new("weights.max_count", max_count, expected));
        }
        if min_count > max_count {
            let expected = format!("is more than weights.max_count ({max_count}): lower it");
            return Err(ValueError::new("weights.min_count", min_count, expected));
        }
        if !(max_share > 0.0 && max_share <= 1.0) {
            return Err(ValueError::new("weights.max_share", max_share, "is not a share above 0 and up to 1"));
        }
        Ok(())
    }

    /// The bytes to sign for a message of a domain.
    ///
    /// # Errors
    /// The policy has no such domain, or the message is none of it or could be mistaken for an extrinsic.
    pub(crate) fn message(
        &self,
        domain: &str,
        message: &[u8],
        genesis: Option<&BlockHash>,
    ) -> Result<Vec<u8>, ValueError> {
        let found = self.domains.iter().find(|one| one.name == domain).ok_or_else(|| {
            let names: Vec<_> = self.domains.iter().map(|one| one.name.as_str()).collect();
            let expected =
                format!("is no domain of the signer's policy ({}): add it by --signer-policy", names.join(", "));
            ValueError::new("domain", domain, expected)
        })?;
        if message.len() > self.message_bytes_max {
            let expected = format!("bytes are too long a message: the policy signs up to {}", self.message_bytes_max);
            return Err(ValueError::new("message", message.len(), expected));
        }
        let signed = found.wrap(message)?;
        no_extrinsic(&signed, genesis)?;
        Ok(signed)
    }

    /// Refuses what is not allowed of a call.
    ///
    /// # Errors
    /// The call or its subnet, and what is allowed.
    pub(crate) fn call(&self, name: &str, netuid: NetUid, own: NetUid) -> Result<CallKind, ValueError> {
        let Some(kind) = CallKind::of(name) else {
            let expected = "is signed by a coldkey or moves funds: no policy of a sidecar allows that";
            return Err(ValueError::new("call", name, expected));
        };
        if !self.calls.contains(&kind) {
            let expected = "is not allowed by the signer's policy: add it to `calls` of --signer-policy";
            return Err(ValueError::new("call", name, expected));
        }
        if netuid != own {
            let expected = format!("is not the Network's subnet ({own}): a sidecar signs for that one only");
            return Err(ValueError::new("netuid", netuid, expected));
        }
        Ok(kind)
    }

    /// Refuses weights that the policy does not allow. `neurons` is the number of neurons of the subnet, where it is known.
    ///
    /// # Errors
    /// Field, value and rule.
    pub(crate) fn weights(
        &self,
        uids: &[u16],
        weights: &[f64],
        version_key: Option<u64>,
        neurons: Option<usize>,
    ) -> Result<(), ValueError> {
        if uids.len() != weights.len() {
            let expected = format!("weights for {} uids: give one weight for each uid", uids.len());
            return Err(ValueError::new("weights", weights.len(), expected));
        }
        let mut seen = BTreeSet::new();
        for (i, uid) in uids.iter().enumerate() {
            if !seen.insert(uid) {
                return Err(ValueError::new(&format!("uids[{i}]"), uid, "is in the list twice: give each uid once"));
            }
            if neurons.is_some_and(|neurons| usize::from(*uid) >= neurons) {
                let expected = format!("is no uid of the subnet, which has {} neurons", neurons.unwrap_or_default());
                return Err(ValueError::new(&format!("uids[{i}]"), uid, expected));
            }
        }
        for (i, weight) in weights.iter().enumerate() {
            if !weight.is_finite() || *weight < 0.0 {
                let expected = "is not a finite number of at least 0";
                return Err(ValueError::new(&format!("weights[{i}]"), weight, expected));
            }
        }
        let WeightLimits { min_count, max_count, max_share, version_key: only } = self.weights;
        let count = weights.iter().filter(|weight| **weight > 0.0).count();
        if count < min_count.max(1) || count > max_count {
            let expected = format!(
                "weights above 0 are not allowed by the signer's policy: give {} to {max_count}",
                min_count.max(1)
            );
            return Err(ValueError::new("weights", count, expected));
        }
        let sum: f64 = weights.iter().sum();
        let largest = weights.iter().copied().fold(0.0, f64::max) / sum;
        // One part in a million for sums that do not come out even.
        if !sum.is_finite() || largest > max_share + 1e-6 {
            let expected = format!("is a larger share of one neuron than the signer's policy allows ({max_share})");
            return Err(ValueError::new("weights", largest, expected));
        }
        if let (Some(only), Some(given)) = (only, version_key)
            && only != given
        {
            let expected = format!("is not the version key of the signer's policy ({only}): leave it out");
            return Err(ValueError::new("version_key", given, expected));
        }
        Ok(())
    }
}

impl Domain {
    fn check(&self, field: &str) -> Result<(), ValueError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.chars().all(plain) {
            let expected = format!("is not 1 to {NAME_BYTES_MAX} of a-z, 0-9 and -");
            return Err(ValueError::new(&format!("{field}.name"), &self.name, expected));
        }
        let field = format!("{field}.prefix");
        match (self.form, &self.prefix) {
            (Form::Raw, None) => {
                let expected = "is needed: raw messages are told apart by how they begin";
                Err(ValueError::new(&field, "", expected))
            }
            (Form::Raw, Some(prefix)) => {
                if prefix.len() < PREFIX_BYTES_MIN || !is_text(prefix.as_bytes()) {
                    let expected =
                        format!("is not a text of at least {PREFIX_BYTES_MIN} bytes without control characters");
                    return Err(ValueError::new(&field, prefix, expected));
                }
                // The typed requests and the other forms are signed by their own rules only.
                if prefix.starts_with('<') || prefix.starts_with("mycelium") || "mycelium".starts_with(prefix.as_str())
                {
                    let expected = "is reserved for what Mycelium signs itself: choose another";
                    return Err(ValueError::new(&field, prefix, expected));
                }
                Ok(())
            }
            (_, Some(prefix)) => {
                let expected = "is for the form `raw` only: leave it out";
                Err(ValueError::new(&field, prefix, expected))
            }
            (_, None) => Ok(()),
        }
    }

    fn wrap(&self, message: &[u8]) -> Result<Vec<u8>, ValueError> {
        match (self.form, &self.prefix) {
            (Form::Bytes, _) => Ok([b"<Bytes>", message, b"</Bytes>"].concat()),
            (Form::Prefixed, _) => Ok([format!("mycelium:message:v1:{}:", self.name).as_bytes(), message].concat()),
            (Form::Raw, prefix) => {
                let prefix = prefix.as_deref().unwrap_or_default();
                if prefix.is_empty() || !message.starts_with(prefix.as_bytes()) {
                    let expected = format!("does not begin with `{prefix}`, as messages of this domain have to");
                    return Err(ValueError::new("message", beginning(message), expected));
                }
                if !is_text(message) {
                    let expected =
                        "is not UTF-8 text without control characters: use a domain of another form for bytes";
                    return Err(ValueError::new("message", beginning(message), expected));
                }
                Ok(message.to_vec())
            }
        }
    }
}

/// The last line of defence, whatever the form was: neither a hash nor anything that holds the chain's genesis hash.
///
/// # Errors
/// The message could be mistaken for an extrinsic.
pub(crate) fn no_extrinsic(signed: &[u8], genesis: Option<&BlockHash>) -> Result<(), ValueError> {
    if signed.len() == HASH_BYTES {
        let expected =
            "bytes are as long as a hash, which is what a large extrinsic is signed as: make the message longer";
        return Err(ValueError::new("message", signed.len(), expected));
    }
    if genesis.is_some_and(|genesis| signed.windows(HASH_BYTES).any(|window| window == genesis.0)) {
        let expected = "holds the genesis hash of the chain, as extrinsics do: leave it out, or write it as text";
        return Err(ValueError::new("message", beginning(signed), expected));
    }
    Ok(())
}

fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(char::is_control))
}

/// The beginning of a message for an error; the rest is cut there.
fn beginning(message: &[u8]) -> String {
    String::from_utf8_lossy(&message[..message.len().min(4 * ValueError::SHOWN)]).into_owned()
}

#[cfg(test)]
mod tests;
