//! What a fault is, as flags and the admin endpoint write it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sp_runtime::transaction_validity::InvalidTransaction;

use crate::node::PoolError;

/// The longest that an answer is held back: longer than any client waits.
const MAX_DELAY_MS: u64 = 600_000;

/// Why a fault cannot be switched on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// It is no fault, or has fields that it should not have.
    #[error("`{text}` is no fault: {why}; write KIND or KIND:field=value,field=value, such as `slow:delay_ms=500`")]
    Shape {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A value is outside its range.
    #[error("{kind}.{field}: {value} is not {rule}")]
    Value {
        /// Kind of the fault.
        kind: &'static str,
        /// The field.
        field: &'static str,
        /// What was asked for.
        value: u64,
        /// What it should be.
        rule: &'static str,
    },
}

/// A fault: `{"kind": "slow", "delay_ms": 500}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// Sockets are closed without a goodbye.
    Drop(SocketFault),
    /// Sockets stay open, but nothing is read or sent any more.
    HalfOpen(SocketFault),
    /// Clients that ask too often get HTTP 429, and error -32005 on an open socket.
    RateLimit(RateLimit),
    /// Answers come late.
    Slow(Slow),
    /// Answers end in the middle, and so does the socket. Those that open a subscription are spared.
    Truncate(ReplyFault),
    /// The pool turns extrinsics away.
    PoolError(PoolFault),
    /// No blocks are made.
    Stall(AtBlock),
    /// Blocks are made, but do not become final.
    FinalityStall(FinalityStall),
    /// States are discarded sooner.
    Prune(Prune),
    /// A block brings a new runtime: the spec version rises by one, and with it every index of subtensor's events and
    /// errors. Strikes once.
    Upgrade(AtBlock),
    /// The newest blocks are replaced by a longer fork.
    Reorg(Reorg),
}

/// Kind of a fault. There is at most one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "explained at the variants of `Fault`")]
pub enum FaultKind {
    Drop,
    HalfOpen,
    RateLimit,
    Slow,
    Truncate,
    PoolError,
    Stall,
    FinalityStall,
    Prune,
    Upgrade,
    Reorg,
}

/// Which sockets are struck, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SocketFault {
    /// Replies that a socket gets before it is struck at its next request; with 0 it is struck at once, and so is
    /// every new one.
    pub after_replies: u32,
    /// Sockets that are struck before the fault lifts itself; unlimited when absent.
    pub times: Option<u32>,
}

/// How often a client may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// Requests a second of one address; 0 refuses all. The public endpoints allow 1.
    pub per_second: u32,
    /// Requests that are refused before the fault lifts itself; unlimited when absent.
    pub times: Option<u32>,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { per_second: 1, times: None }
    }
}

/// Which answers come late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Slow {
    /// How long an answer is held back.
    pub delay_ms: u64,
    /// Methods, or beginnings of their names; all when empty.
    pub methods: Vec<String>,
    /// Answers that are struck before the fault lifts itself; unlimited when absent.
    pub times: Option<u32>,
}

impl Default for Slow {
    fn default() -> Self {
        Self { delay_ms: 2_000, methods: Vec::new(), times: None }
    }
}

/// Which answers are struck.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplyFault {
    /// Methods, or beginnings of their names; all when empty.
    pub methods: Vec<String>,
    /// Answers that are struck before the fault lifts itself; unlimited when absent.
    pub times: Option<u32>,
}

/// How the pool turns extrinsics away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolFault {
    /// 1010 invalid, 1012 temporarily banned or 1014 priority too low.
    pub code: u16,
    /// With 1010: the runtime's custom code, such as 6 for a rate limit; without it the transaction is outdated.
    pub custom: Option<u8>,
    /// Extrinsics that are turned away before the fault lifts itself; unlimited when absent.
    pub times: Option<u32>,
}

impl Default for PoolFault {
    fn default() -> Self {
        Self { code: 1010, custom: None, times: None }
    }
}

/// When something happens to the chain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AtBlock {
    /// Number of the block; the next one when absent.
    pub at_block: Option<u32>,
}

/// What stays final.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FinalityStall {
    /// Last block that becomes final; those that are final already stay so.
    pub at_block: Option<u32>,
}

/// How much state is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prune {
    /// Newest blocks whose state is kept.
    pub keep: u32,
    /// Block from which on; at once when absent.
    pub at_block: Option<u32>,
}

impl Default for Prune {
    fn default() -> Self {
        Self { keep: 1, at_block: None }
    }
}

/// When how many blocks are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reorg {
    /// Blocks that are replaced, at most those that are not final.
    pub blocks: u32,
    /// Block after which it happens; after the next one when absent.
    pub at_block: Option<u32>,
    /// Blocks after which it happens again; once when absent.
    pub every: Option<u32>,
}

impl Default for Reorg {
    fn default() -> Self {
        Self { blocks: 1, at_block: None, every: None }
    }
}

impl Reorg {
    pub(super) fn is_due(&self, number: u32) -> bool {
        let first = self.at_block.unwrap_or(0);
        match self.every {
            Some(every) => number >= first && (number - first).is_multiple_of(every.max(1)),
            None => number >= first,
        }
    }
}

fn concerns(wanted: &[String], methods: &[&str]) -> bool {
    wanted.is_empty() || methods.iter().any(|method| wanted.iter().any(|name| method.starts_with(name.as_str())))
}

impl Slow {
    pub(super) fn concerns(&self, methods: &[&str]) -> bool {
        concerns(&self.methods, methods)
    }
}

impl ReplyFault {
    pub(super) fn concerns(&self, methods: &[&str]) -> bool {
        concerns(&self.methods, methods)
    }
}

impl PoolFault {
    pub(super) fn error(&self) -> PoolError {
        match self.code {
            1012 => PoolError::TemporarilyBanned,
            1014 => PoolError::TooLowPriority { old: 1, new: 1 },
            _ => PoolError::Invalid(self.custom.map_or(InvalidTransaction::Stale, InvalidTransaction::Custom)),
        }
    }
}

impl Fault {
    /// Its kind.
    pub fn kind(&self) -> FaultKind {
        match self {
            Self::Drop(_) => FaultKind::Drop,
            Self::HalfOpen(_) => FaultKind::HalfOpen,
            Self::RateLimit(_) => FaultKind::RateLimit,
            Self::Slow(_) => FaultKind::Slow,
            Self::Truncate(_) => FaultKind::Truncate,
            Self::PoolError(_) => FaultKind::PoolError,
            Self::Stall(_) => FaultKind::Stall,
            Self::FinalityStall(_) => FaultKind::FinalityStall,
            Self::Prune(_) => FaultKind::Prune,
            Self::Upgrade(_) => FaultKind::Upgrade,
            Self::Reorg(_) => FaultKind::Reorg,
        }
    }

    /// Strikes after which it lifts itself.
    pub(super) fn times(&self) -> Option<u32> {
        match self {
            Self::Drop(fault) | Self::HalfOpen(fault) => fault.times,
            Self::RateLimit(fault) => fault.times,
            Self::Slow(fault) => fault.times,
            Self::Truncate(fault) => fault.times,
            Self::PoolError(fault) => fault.times,
            Self::Upgrade(_) => Some(1),
            Self::Reorg(fault) => fault.every.is_none().then_some(1),
            Self::Stall(_) | Self::FinalityStall(_) | Self::Prune(_) => None,
        }
    }

    /// Refuses values that mean nothing.
    pub(super) fn check(&self) -> Result<(), FaultError> {
        let ensure = |right: bool, kind, field, value: u64, rule| {
            if right { Ok(()) } else { Err(FaultError::Value { kind, field, value, rule }) }
        };
        if let Some(0) = self.times() {
            return Err(FaultError::Value { kind: self.kind().name(), field: "times", value: 0, rule: "1 or more" });
        }
        match self {
            Self::Slow(slow) => {
                let range = 1..=MAX_DELAY_MS;
                ensure(range.contains(&slow.delay_ms), "slow", "delay_ms", slow.delay_ms, "from 1 to 600000")
            }
            Self::PoolError(fault) => {
                let known = matches!(fault.code, 1010 | 1012 | 1014);
                ensure(known, "pool_error", "code", fault.code.into(), "1010, 1012 or 1014")?;
                let custom = fault.custom.unwrap_or_default();
                let fits = fault.custom.is_none() || fault.code == 1010;
                ensure(fits, "pool_error", "custom", custom.into(), "possible with another code than 1010")
            }
            Self::Prune(prune) => ensure(prune.keep > 0, "prune", "keep", prune.keep.into(), "1 or more"),
            Self::Reorg(reorg) => {
                ensure(reorg.blocks > 0, "reorg", "blocks", reorg.blocks.into(), "1 or more")?;
                let every = reorg.every.unwrap_or(u32::MAX);
                let rule = "more than `blocks`: the chain would never grow";
                ensure(every > reorg.blocks, "reorg", "every", every.into(), rule)
            }
            _ => Ok(()),
        }
    }
}

impl FaultKind {
    /// Name, as flags and the admin endpoint write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::HalfOpen => "half_open",
            Self::RateLimit => "rate_limit",
            Self::Slow => "slow",
            Self::Truncate => "truncate",
            Self::PoolError => "pool_error",
            Self::Stall => "stall",
            Self::FinalityStall => "finality_stall",
            Self::Prune => "prune",
            Self::Upgrade => "upgrade",
            Self::Reorg => "reorg",
        }
    }
}

/// As a flag writes it: `KIND:field=value,field=value`; lists are joined by `+`.
impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: String| FaultError::Shape { text: text.to_owned(), why };
        let (kind, fields) = text.split_once(':').unwrap_or((text, ""));
        let mut object = Map::from_iter([("kind".to_owned(), Value::from(kind))]);
        for pair in fields.split(',').filter(|pair| !pair.is_empty()) {
            let (field, word) = pair.split_once('=').ok_or_else(|| wrong(format!("`{pair}` has no `=`")))?;
            let value = match word.parse::<u64>() {
                Ok(number) => Value::from(number),
                Err(_) if field == "methods" => word.split('+').collect(),
                Err(_) => Value::from(word),
            };
            if object.insert(field.to_owned(), value).is_some() {
                return Err(wrong(format!("`{field}` is there twice")));
            }
        }
        let fault: Self = serde_json::from_value(object.into()).map_err(|error| wrong(error.to_string()))?;
        fault.check()?;
        Ok(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_json_say_the_same() {
        let check = |flag: &str, json: &str| {
            let from_flag: Fault = flag.parse().unwrap();
            assert_eq!(from_flag, serde_json::from_str::<Fault>(json).unwrap());
            let again = serde_json::to_string(&from_flag).unwrap();
            assert_eq!(serde_json::from_str::<Fault>(&again).unwrap(), from_flag);
        };
        check("drop", r#"{"kind":"drop"}"#);
        check(
            "slow:delay_ms=500,methods=state_call+chain_",
            r#"{"kind":"slow","delay_ms":500,"methods":["state_call","chain_"]}"#,
        );
        check("pool_error:code=1010,custom=6,times=3", r#"{"kind":"pool_error","code":1010,"custom":6,"times":3}"#);
        check("reorg:blocks=2,at_block=9", r#"{"kind":"reorg","blocks":2,"at_block":9}"#);
        check("stall", r#"{"kind":"stall"}"#);
    }

    #[test]
    fn mistakes_are_named_with_the_rule() {
        let check = |flag: &str, part: &str| {
            let error = flag.parse::<Fault>().unwrap_err().to_string();
            assert!(error.contains(part), "{flag}: {error}");
        };
        check("slo", "unknown variant `slo`");
        check("slow:delay=5", "unknown field `delay`");
        check("slow:delay_ms", "`delay_ms` has no `=`");
        check("slow:delay_ms=soon", "invalid type");
        check("slow:delay_ms=0", "slow.delay_ms: 0 is not from 1 to 600000");
        check("drop:times=0", "drop.times: 0 is not 1 or more");
        check("pool_error:code=1011", "pool_error.code: 1011 is not 1010, 1012 or 1014");
        check("pool_error:code=1014,custom=6", "pool_error.custom");
        check("reorg:blocks=3,every=3", "reorg.every");
        check("prune:keep=0", "prune.keep");
        check("drop:times=1,times=2", "there twice");
    }
}
