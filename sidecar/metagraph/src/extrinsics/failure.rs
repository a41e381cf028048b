//! What went wrong with a submission, and what is to be done about it.
//!
//! The chain says no in two places: the pool refuses an extrinsic before it is in a block (a JSON-RPC error), or the
//! extrinsic is in a block and its call failed (an event with the name of an error). Both are looked up by name in one
//! table, so that a rate limit is a rate limit wherever it shows. What the table does not know gets the class that does no
//! harm: stop and tell, never try again and hope.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sidecar_util::{BlockHash, ValueError};

use super::journal::{ExtrinsicHash, Receipt};
use super::submitter::GateError;

/// What the caller can do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Nothing stands against trying again at once.
    RetryNow,
    /// It may succeed after so many blocks, and not before.
    WaitBlocks(u64),
    /// It fails until the arguments or the configuration change.
    Configuration,
    /// It fails until somebody changes something on the chain, or looks into it: do not try again.
    Stop,
}

/// How long there is to wait, as far as only the chain knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Until the rate limit of weights has passed: `WeightsSetRateLimit` after `LastUpdate`.
    WeightsRate,
    /// Until the rate limit of axons has passed: `ServingRateLimit` after the axon's block.
    ServingRate,
    /// Until the subnet's next epoch.
    NextEpoch,
    /// So many blocks.
    Blocks(u64),
}

impl Pause {
    /// Used where the chain could not be asked: the limits of the public chain, not too short.
    pub(crate) fn fallback(self) -> u64 {
        match self {
            Self::WeightsRate => 100,
            Self::ServingRate => 50,
            Self::NextEpoch => 360,
            Self::Blocks(blocks) => blocks,
        }
    }
}

/// A class before the chain was asked how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    RetryNow,
    Wait(Pause),
    Configuration,
    Stop,
}

impl Verdict {
    pub(crate) fn class(self, blocks: Option<u64>) -> FailureClass {
        match self {
            Self::RetryNow => FailureClass::RetryNow,
            Self::Wait(pause) => FailureClass::WaitBlocks(blocks.unwrap_or_else(|| pause.fallback()).max(1)),
            Self::Configuration => FailureClass::Configuration,
            Self::Stop => FailureClass::Stop,
        }
    }
}

/// One row: the chain's name of an error, what to do, and how to say it.
struct Rule(&'static str, Verdict, &'static str);

use Pause::{Blocks, NextEpoch, ServingRate, WeightsRate};
use Verdict::{Configuration, RetryNow, Stop, Wait};

/// Every error that the calls of this module can meet, by the chain's names.
const RULES: &[Rule] = &[
    // ---- weights
    Rule("SettingWeightsTooFast", Wait(WeightsRate), "wait until the subnet's weights rate limit has passed"),
    Rule("CommittingWeightsTooFast", Wait(WeightsRate), "wait until the subnet's weights rate limit has passed"),
    Rule("NeuronNoValidatorPermit", Stop, "the hotkey has no validator permit: add stake until it has one"),
    Rule(
        "IncorrectWeightVersionKey",
        Configuration,
        "the subnet demands a newer version key: upgrade the validator's code",
    ),
    Rule(
        "NotEnoughStakeToSetWeights",
        Stop,
        "the hotkey's stake is below the chain's threshold for weights: add stake",
    ),
    Rule("HotKeyNotRegisteredInSubNet", Stop, "the hotkey is not registered in the subnet (any more): register it"),
    Rule("CanNotSetRootNetworkWeights", Configuration, "the root network takes no weights: correct the netuid"),
    Rule("WeightVecNotEqualSize", Configuration, "give one weight for each uid"),
    Rule("MechanismDoesNotExist", Configuration, "the subnet has no such mechanism: correct mecid or netuid"),
    Rule("SubNetworkDoesNotExist", Configuration, "the chain has no such subnet: correct the netuid"),
    Rule("SubnetNotExists", Configuration, "the chain has no such subnet: correct the netuid"),
    Rule("UidsLengthExceedUidsInSubNet", Configuration, "there are more uids than neurons: read the metagraph again"),
    Rule("DuplicateUids", Configuration, "give each uid one weight"),
    Rule("UidVecContainInvalidOne", Configuration, "a uid is not in the subnet: read the metagraph again"),
    Rule("WeightVecLengthIsLow", Configuration, "the subnet demands weights on more uids (min_allowed_weights)"),
    Rule("MaxWeightExceeded", Configuration, "one weight is above the subnet's limit (max_weights_limit): spread them"),
    Rule("CommitRevealEnabled", Configuration, "the subnet has commit-reveal on: commit to the weights instead"),
    Rule("CommitRevealDisabled", Configuration, "the subnet has commit-reveal off: set the weights instead"),
    Rule(
        "IncorrectCommitRevealVersion",
        Configuration,
        "the chain expects another commit-reveal version: upgrade Mycelium",
    ),
    Rule("TooManyUnrevealedCommits", Wait(NextEpoch), "reveal the commits that are open, or wait until they expire"),
    Rule("NoWeightsCommitFound", Stop, "the chain knows no such commit: it was revealed, expired, or never made"),
    Rule("ExpiredWeightCommit", Stop, "the epoch for revealing this commit is past: set new weights"),
    Rule("RevealTooEarly", Wait(NextEpoch), "the commit can be revealed in a later epoch"),
    Rule("InvalidRevealCommitHashNotMatch", Stop, "what is revealed is not what was committed to: set new weights"),
    Rule("InvalidRevealRound", RetryNow, "the drand round is past already: commit again for a later one"),
    Rule("InputLengthsUnequal", Configuration, "give lists of one length"),
    Rule("DisabledTemporarily", Wait(Blocks(50)), "the chain has this call switched off for now"),
    // ---- serving
    Rule("ServingRateLimitExceeded", Wait(ServingRate), "wait until the subnet's serving rate limit has passed"),
    Rule("HotKeyNotRegisteredInNetwork", Stop, "the hotkey is not registered in the subnet (any more): register it"),
    Rule("InvalidIpType", Configuration, "the address is neither IPv4 nor IPv6"),
    Rule("InvalidIpAddress", Configuration, "the chain takes no such address: give a public one"),
    Rule("InvalidPort", Configuration, "give a port from 1 to 65535"),
    // ---- commitments
    Rule("AccountNotAllowedCommit", Stop, "the hotkey is not registered in the subnet (any more): register it"),
    Rule("SpaceLimitExceeded", Wait(NextEpoch), "the hotkey used up its bytes of this epoch"),
    Rule("CommitmentSetRateLimitExceeded", Wait(Blocks(100)), "wait until the commitment rate limit has passed"),
    Rule("TooManyFieldsInCommitmentInfo", Configuration, "give fewer fields"),
    Rule("TimelockRevealFailedNotAllowed", Configuration, "this field is made by the chain alone"),
    // ---- registration
    Rule("RegistrationNotPermittedOnRootSubnet", Configuration, "correct the netuid, or use root_register"),
    Rule("SubNetRegistrationDisabled", Stop, "the subnet takes no registrations now"),
    Rule("RegistrationDisabled", Stop, "the subnet takes no registrations now"),
    Rule("HotKeyAlreadyRegisteredInSubNet", Stop, "the hotkey is registered already: nothing is left to do"),
    Rule("NonAssociatedColdKey", Configuration, "the hotkey belongs to another coldkey: correct the pair of keys"),
    Rule("NoNeuronIdAvailable", Wait(NextEpoch), "every neuron is immune just now"),
    Rule("RegistrationPriceLimitExceeded", Configuration, "the price is above the limit given: raise it or wait"),
    Rule("TooManyRegistrationsThisBlock", Wait(Blocks(1)), "the subnet took its registrations of this block"),
    Rule("TooManyRegistrationsThisInterval", Wait(Blocks(100)), "the subnet took its registrations of this interval"),
    // ---- stake
    Rule("NotEnoughBalanceToStake", Stop, "the coldkey has too little TAO: transfer some to it"),
    Rule("NotEnoughStakeToWithdraw", Configuration, "there is less stake than that: give a smaller amount"),
    Rule("StakeUnavailable", Stop, "the stake is locked"),
    Rule("AmountTooLow", Configuration, "the amount is below the chain's minimum"),
    Rule(
        "StakeAmountTooLow",
        Configuration,
        "the amount is below the chain's minimum, or the stake below its threshold",
    ),
    Rule("HotKeyAccountNotExists", Configuration, "the chain does not know the hotkey: correct it"),
    Rule("SubtokenDisabled", Stop, "the subnet is not started: its owner has to call start_call"),
    Rule("InsufficientLiquidity", Stop, "the subnet's pool is too small for the amount"),
    Rule("SlippageTooHigh", Stop, "the price would move too far: give a smaller amount"),
    Rule("TransferDisallowed", Stop, "the subnet does not allow transfers"),
    Rule("ZeroMaxAmount", Configuration, "the limit leaves nothing to move"),
    // ---- accounts and limits
    Rule("RateLimitExceeded", Wait(WeightsRate), "wait until the rate limit has passed"),
    Rule("TxRateLimitExceeded", Wait(Blocks(100)), "wait until the rate limit has passed"),
    Rule("NetworkTxRateLimitExceeded", Wait(Blocks(7200)), "wait until the rate limit has passed"),
    Rule("EvmKeyAssociateRateLimitExceeded", Wait(Blocks(7200)), "wait until the rate limit has passed"),
    Rule("ColdkeyInSwapSchedule", Stop, "the key is being swapped: nothing else is allowed until that is done"),
    Rule("ColdkeySwapAnnounced", Stop, "the key is being swapped: nothing else is allowed until that is done"),
    Rule("ColdkeySwapDisputed", Stop, "the swap of the key is disputed"),
    Rule("InvalidRealAccount", Configuration, "the proxied account is no account"),
    Rule("DelegateTakeTooLow", Configuration, "the take is below the chain's minimum"),
    Rule("DelegateTakeTooHigh", Configuration, "the take is above the chain's maximum"),
    Rule("FailedShieldedTxParsing", Configuration, "the encrypted transaction cannot be read"),
    Rule("InvalidShieldedTxPubKeyHash", RetryNow, "the key of encrypted transactions has rotated: encrypt again"),
    Rule("BadRequest", Stop, "the runtime refuses the call without a reason of its own: read the arguments again"),
    Rule("BadOrigin", Configuration, "the call needs another signer"),
    Rule("CallFiltered", Stop, "the chain has this call switched off"),
    Rule("FundsUnavailable", Stop, "the account has too little TAO"),
    Rule("Exhausted", Wait(Blocks(1)), "the block was full"),
    Rule("Unavailable", Wait(Blocks(10)), "something the call needs is not available right now"),
    // ---- the pool itself
    Rule("Stale", RetryNow, "the nonce was used, or the era is over: it is looked up and signed again"),
    Rule("Future", RetryNow, "the nonce is ahead of the chain: it is read and signed again"),
    Rule("BadProof", RetryNow, "the signature does not fit the runtime, which was upgraded: it is signed again"),
    Rule("AncientBirthBlock", RetryNow, "the era is over: it is signed again"),
    Rule("Payment", Stop, "the account cannot pay the fee"),
    Rule("BadSigner", Configuration, "the signer may not make this call"),
    Rule("ExhaustsResources", Wait(Blocks(1)), "the block would be over full"),
    Rule(
        "TemporarilyBanned",
        Wait(Blocks(25)),
        "the node threw this extrinsic out not long ago and does not take it back yet",
    ),
    Rule("AlreadyImported", Wait(Blocks(1)), "the node has it already: wait for its inclusion"),
    Rule(
        "PriorityTooLow",
        Wait(Blocks(2)),
        "another extrinsic of this key waits in the pool: see whether a second process uses the key",
    ),
    Rule("ImmediatelyDropped", Wait(Blocks(2)), "the node's pool is full"),
];

fn rule(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.0 == name)
}

/// Class of an error by its name. Unknown ones stop: what is not understood is not tried again.
pub(crate) fn verdict(name: &str) -> Verdict {
    rule(name).map_or(Verdict::Stop, |rule| rule.1)
}

fn remedy_of(name: &str) -> &'static str {
    rule(name)
        .map_or("the error is not known to this version: look it up in the chain's pallets, or upgrade", |rule| rule.2)
}

/// Names of the numbers in `InvalidTransaction::Custom`, by the chain's table.
const CUSTOM: &[(u8, &str)] = &[
    (0, "ColdkeyInSwapSchedule"),
    (1, "StakeAmountTooLow"),
    (2, "NotEnoughBalanceToStake"),
    (3, "SubnetNotExists"),
    (4, "HotKeyAccountNotExists"),
    (5, "NotEnoughStakeToWithdraw"),
    (6, "RateLimitExceeded"),
    (7, "InsufficientLiquidity"),
    (8, "SlippageTooHigh"),
    (9, "TransferDisallowed"),
    (10, "HotKeyNotRegisteredInNetwork"),
    (11, "InvalidIpAddress"),
    (12, "ServingRateLimitExceeded"),
    (13, "InvalidPort"),
    (14, "ZeroMaxAmount"),
    (15, "InvalidRevealRound"),
    (16, "NoWeightsCommitFound"),
    (17, "RevealTooEarly"),
    (18, "InputLengthsUnequal"),
    (19, "HotKeyNotRegisteredInSubNet"),
    (20, "EvmKeyAssociateRateLimitExceeded"),
    (21, "ColdkeySwapDisputed"),
    (22, "InvalidRealAccount"),
    (23, "FailedShieldedTxParsing"),
    (24, "InvalidShieldedTxPubKeyHash"),
    (25, "NonAssociatedColdKey"),
    (26, "DelegateTakeTooLow"),
    (27, "DelegateTakeTooHigh"),
    (255, "BadRequest"),
];

/// Substrate's words for what is invalid about a transaction, as they stand in the data of error 1010.
const INVALID: &[(&str, &str)] = &[
    ("outdated", "Stale"),
    ("will be valid in the future", "Future"),
    ("bad signature", "BadProof"),
    ("ancient birth block", "AncientBirthBlock"),
    ("Inability to pay", "Payment"),
    ("exhaust", "ExhaustsResources"),
    ("invalid signing address", "BadSigner"),
    ("Transaction call is not expected", "CallFiltered"),
];

/// An answer of the pool that is not "taken".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// JSON-RPC code.
    pub(crate) code: i32,
    /// What the node said, data included.
    pub(crate) text: String,
}

impl Refusal {
    /// The name under which the table knows it; `None` when it is no judgement over the extrinsic, but for example a
    /// rate limit of the endpoint.
    pub(crate) fn name(&self) -> Option<String> {
        let name = match self.code {
            1010 => match custom_code(&self.text) {
                Some(code) => CUSTOM
                    .iter()
                    .find(|(known, _)| *known == code)
                    .map_or_else(|| format!("Custom{code}"), |(_, name)| (*name).to_owned()),
                None => INVALID
                    .iter()
                    .find(|(words, _)| self.text.contains(words))
                    .map_or_else(|| "InvalidTransaction".to_owned(), |(_, name)| (*name).to_owned()),
            },
            1011 => "UnknownValidity".to_owned(),
            1012 => "TemporarilyBanned".to_owned(),
            1013 => "AlreadyImported".to_owned(),
            1014 => "PriorityTooLow".to_owned(),
            1016 => "ImmediatelyDropped".to_owned(),
            1000..=1099 => format!("Pool{}", self.code),
            _ => return None,
        };
        Some(name)
    }
}

fn custom_code(text: &str) -> Option<u8> {
    let (_, rest) = text.split_once("Custom error: ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Why an intent was not carried out, or is not known to be.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// An argument is wrong. Nothing was signed.
    #[error("{call}: {source}")]
    Argument {
        /// The call.
        call: &'static str,
        /// The field, its value and the rule.
        #[source]
        source: ValueError,
    },
    /// The call needs the other key.
    #[error("{call} is signed by the {needed}, and this submitter has the other key: start one with that pair")]
    WrongKey {
        /// The call.
        call: &'static str,
        /// `hotkey` or `coldkey`.
        needed: &'static str,
    },
    /// The runtime has no such call, or with other arguments.
    #[error("the chain's runtime does not take `{call}` as it is known here: {why}; upgrade Mycelium")]
    NotOffered {
        /// The call.
        call: &'static str,
        /// What did not fit.
        why: String,
    },
    /// The key of an earlier intent was given with another call.
    #[error("intent key `{key}` belongs to another call already: use a new key for a new intent")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// The guard before every signature said no. Nothing was sent.
    #[error("{call} was not signed: {source}")]
    Gate {
        /// The call.
        call: &'static str,
        /// Why.
        #[source]
        source: GateError,
    },
    /// The pool refused it. Nothing is on the chain.
    #[error("{call} was refused before it reached a block: {name} ({text}); {}", remedy_of(name))]
    Refused {
        /// The call.
        call: &'static str,
        /// The chain's name of the reason.
        name: String,
        /// What the node said.
        text: String,
        /// What can be done.
        class: FailureClass,
    },
    /// It is in a block, and its call failed.
    #[error("{call} failed in block {}: {pallet}.{name} ({docs}); {}", receipt.block, remedy_of(name))]
    Dispatch {
        /// The call.
        call: &'static str,
        /// Pallet of the error.
        pallet: String,
        /// The chain's name of the error.
        name: String,
        /// The chain's own words for it.
        docs: String,
        /// Where it was included.
        receipt: Box<Receipt>,
        /// What can be done.
        class: FailureClass,
    },
    /// Its fate is not known yet. It is followed further: ask again with the same key.
    #[error(
        "{call} has no outcome after {} s; it is followed further: ask again with the same intent key, not with a new one",
        after.as_secs()
    )]
    Pending {
        /// The call.
        call: &'static str,
        /// How long was waited.
        after: Duration,
        /// The last trouble on the way.
        trouble: Option<String>,
    },
    /// Its fate cannot be found out here.
    #[error("{call}: {why}; look for extrinsic {extrinsic} with an archive endpoint before anything is sent again")]
    Unknown {
        /// The call.
        call: &'static str,
        /// The extrinsic.
        extrinsic: ExtrinsicHash,
        /// What is missing.
        why: String,
    },
    /// It was signed again and again without getting into a block.
    #[error(
        "{call} was given up after {signatures} signatures, none of which got into a block; the last trouble: {trouble}"
    )]
    GivenUp {
        /// The call.
        call: &'static str,
        /// How many.
        signatures: usize,
        /// What happened last.
        trouble: String,
    },
    /// The endpoint serves another chain.
    #[error("chain endpoint has genesis hash {found}, expected {expected}: correct the endpoint or the genesis hash")]
    Genesis {
        /// What was configured.
        expected: BlockHash,
        /// What was found.
        found: BlockHash,
    },
    /// Too many intents are open.
    #[error("{open} intents are open: wait for their outcome before giving more")]
    Busy {
        /// How many.
        open: usize,
    },
    /// The journal cannot be written. Without it nothing is signed.
    #[error("the journal of intents cannot be used: {why}; without it nothing is signed")]
    Journal {
        /// Why.
        why: String,
    },
    /// The chain could not be asked what had to be known first.
    #[error("the chain could not be asked before signing: {why}")]
    Unreachable {
        /// Why.
        why: String,
    },
    /// The submitter has ended.
    #[error("the submitter has ended")]
    Closed,
}

impl SubmitError {
    /// What the caller can do about it.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Argument { .. }
            | Self::WrongKey { .. }
            | Self::NotOffered { .. }
            | Self::KeyReused { .. }
            | Self::Genesis { .. } => FailureClass::Configuration,
            Self::Gate { source, .. } => source.class,
            Self::Refused { class, .. } | Self::Dispatch { class, .. } => *class,
            Self::Pending { .. } | Self::Busy { .. } | Self::Unreachable { .. } => FailureClass::WaitBlocks(1),
            Self::GivenUp { .. } | Self::Unknown { .. } | Self::Journal { .. } | Self::Closed => FailureClass::Stop,
        }
    }

    /// The remedy alone, as the end of a sentence.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Refused { name, .. } | Self::Dispatch { name, .. } => remedy_of(name),
            Self::Argument { .. } => "correct the argument",
            Self::WrongKey { .. } => "start a submitter with the pair that signs this call",
            Self::NotOffered { .. } => "upgrade Mycelium to a version that knows this runtime",
            Self::KeyReused { .. } => "use a new key for a new intent",
            Self::Gate { .. } => "see why this process may not sign",
            Self::Pending { .. } => "ask again with the same intent key",
            Self::Unknown { .. } => "look for the extrinsic with an archive endpoint",
            Self::GivenUp { .. } => "see why the chain does not include it",
            Self::Genesis { .. } => "correct the endpoint or the genesis hash",
            Self::Busy { .. } => "wait for the outcome of open intents",
            Self::Journal { .. } => "give the journal a folder that can be written and that no other process uses",
            Self::Unreachable { .. } => "check the endpoint and that the node is up",
            Self::Closed => "start the submitter again",
        }
    }

    /// The failure as one word from a closed set: label of a metric, type of a problem.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Argument { .. } => "InvalidArgument",
            Self::WrongKey { .. } => "WrongKey",
            Self::NotOffered { .. } => "NotOffered",
            Self::KeyReused { .. } => "KeyReused",
            Self::Gate { .. } => "NotPermitted",
            Self::Refused { .. } => "Refused",
            Self::Dispatch { .. } => "CallFailed",
            Self::Pending { .. } => "Pending",
            Self::Unknown { .. } => "OutcomeUnknown",
            Self::GivenUp { .. } => "GivenUp",
            Self::Genesis { .. } => "GenesisMismatch",
            Self::Busy { .. } => "Busy",
            Self::Journal { .. } => "JournalUnusable",
            Self::Unreachable { .. } => "EndpointDown",
            Self::Closed => "Closed",
        }
    }

    /// The chain's name of the error, if the chain said one.
    pub fn chain_error(&self) -> Option<&str> {
        match self {
            Self::Refused { name, .. } | Self::Dispatch { name, .. } => Some(name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(code: i32, text: &str) -> Option<String> {
        Refusal { code, text: text.into() }.name()
    }

    #[test]
    fn every_row_is_there_once_and_has_a_remedy() {
        for (i, Rule(name, _, remedy)) in RULES.iter().enumerate() {
            assert!(!RULES[..i].iter().any(|other| other.0 == *name), "`{name}` stands twice");
            assert!(remedy.len() > 10 && !remedy.ends_with('.'), "`{name}`: {remedy}");
            let error = SubmitError::Refused {
                call: "set_weights",
                name: (*name).into(),
                text: "data".into(),
                class: verdict(name).class(None),
            };
            assert_eq!(error.remedy(), *remedy);
            assert!(error.to_string().contains(remedy), "{error}");
        }
    }

    #[test]
    fn every_custom_code_has_a_name_and_the_name_a_rule() {
        let codes: Vec<u8> = CUSTOM.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, (0..=27).chain([255]).collect::<Vec<u8>>());
        for (code, name) in CUSTOM {
            assert_eq!(pool(1010, &format!("Invalid Transaction: Custom error: {code}")).as_deref(), Some(*name));
            assert!(rule(name).is_some(), "{name}");
        }
        assert_eq!(pool(1010, "Custom error: 77").as_deref(), Some("Custom77"));
    }

    #[test]
    fn classes_are_as_the_field_needs_them() {
        use FailureClass as Class;
        for (name, class) in [
            ("SettingWeightsTooFast", Class::WaitBlocks(100)),
            ("CommittingWeightsTooFast", Class::WaitBlocks(100)),
            ("ServingRateLimitExceeded", Class::WaitBlocks(50)),
            ("RateLimitExceeded", Class::WaitBlocks(100)),
            ("RevealTooEarly", Class::WaitBlocks(360)),
            ("TooManyUnrevealedCommits", Class::WaitBlocks(360)),
            ("SpaceLimitExceeded", Class::WaitBlocks(360)),
            ("TemporarilyBanned", Class::WaitBlocks(25)),
            ("PriorityTooLow", Class::WaitBlocks(2)),
            ("NeuronNoValidatorPermit", Class::Stop),
            ("NotEnoughStakeToSetWeights", Class::Stop),
            ("HotKeyNotRegisteredInSubNet", Class::Stop),
            ("ExpiredWeightCommit", Class::Stop),
            ("IncorrectWeightVersionKey", Class::Configuration),
            ("InvalidIpAddress", Class::Configuration),
            ("Stale", Class::RetryNow),
            ("BadProof", Class::RetryNow),
        ] {
            assert_eq!(verdict(name).class(None), class, "{name}");
        }
        assert_eq!(verdict("SettingWeightsTooFast").class(Some(7)), Class::WaitBlocks(7));
        assert_eq!(verdict("SettingWeightsTooFast").class(Some(0)), Class::WaitBlocks(1));
    }

    #[test]
    fn what_is_unknown_is_not_tried_again() {
        assert_eq!(verdict("SomethingNew").class(None), FailureClass::Stop);
        assert!(remedy_of("SomethingNew").contains("upgrade"));
    }

    #[test]
    fn the_pools_answers_have_names_and_other_errors_have_none() {
        for (code, text, name) in [
            (1010, "Invalid Transaction: Transaction is outdated", "Stale"),
            (1010, "Invalid Transaction: Transaction has a bad signature", "BadProof"),
            (1010, "Invalid Transaction: Transaction has an ancient birth block", "AncientBirthBlock"),
            (1010, "Invalid Transaction: Transaction will be valid in the future", "Future"),
            (1010, "Invalid Transaction: Inability to pay some fees (e.g. account balance too low)", "Payment"),
            (1010, "Invalid Transaction: ???", "InvalidTransaction"),
            (1012, "Transaction is temporarily banned", "TemporarilyBanned"),
            (1013, "Transaction Already Imported", "AlreadyImported"),
            (1014, "Priority is too low: (1 vs 1)", "PriorityTooLow"),
            (1016, "Immediately Dropped", "ImmediatelyDropped"),
            (1020, "?", "Pool1020"),
        ] {
            assert_eq!(pool(code, text).as_deref(), Some(name), "{text}");
        }
        assert_eq!(pool(-32005, "too many requests"), None);
    }
}
