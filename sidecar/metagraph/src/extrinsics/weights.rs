//! Setting weights the way the subnet wants them: at once, by hash and reveal, or timelocked.
//!
//! What the chain would refuse is refused here first, by the same names and with the blocks to wait, so that a validator
//! that asks every minute sends nothing in vain.

use std::sync::Arc;
use std::time::Duration;

use sidecar_util::{NetUid, ValueError};

use super::call::Call;
use super::facts::WeightsFacts;
use super::failure::{SubmitError, verdict};
use super::link::{Link, Tips};
use super::reveal::Reveals;
use super::submitter::{Intent, Submitted, SubmitterHandle, Wait};
use super::timelock::{RevealClock, timelocked_commit};
use crate::ChainError;

/// The commit-reveal version of the chain since it takes timelocked commits by the payload known here.
const TIMELOCKED_VERSION: u16 = 4;

/// First version with timelocked commits of any kind: older chains know hashes only.
const TIMELOCKED_SINCE: u16 = 3;

/// How often the chain is asked again over a new connection, and the time for that one to be made.
const FACTS_RETRIES: u32 = 3;
const FACTS_PAUSE: Duration = Duration::from_secs(1);

/// Weights as a validator has them.
#[derive(Debug, Clone, PartialEq)]
pub enum WeightValues {
    /// Scores of any scale, none below 0.
    Scores(Vec<f64>),
    /// Whole numbers, scaled up as the chain does.
    Integers(Vec<u16>),
}

/// Weights that are to be set.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightsWish {
    /// Idempotency key, see [`Intent`].
    pub key: String,
    /// Subnet.
    pub netuid: NetUid,
    /// Mechanism; `None` makes the plain calls.
    pub mecid: Option<u8>,
    /// Targets.
    pub uids: Vec<u16>,
    /// A weight for each.
    pub values: WeightValues,
    /// Version of the validator's software, as the subnet numbers it.
    pub version_key: u64,
    /// When to answer: of commit-reveal it is the commit that is waited for.
    pub wait: Wait,
}

/// How weights get onto the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightsMethod {
    /// `set_weights`.
    Plain,
    /// A hash now, the weights in a later epoch.
    HashCommit,
    /// Encrypted now, opened by the chain in a later epoch.
    Timelocked,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightsOutcome {
    /// How.
    pub method: WeightsMethod,
    /// How far they, or the commit to them, came.
    pub submitted: Submitted,
    /// The drand round at which a timelocked commit opens.
    pub reveal_round: Option<u64>,
}

/// Sets weights. See the module.
#[derive(Debug, Clone)]
pub struct WeightsSetter {
    submitter: SubmitterHandle,
    reveals: Reveals,
    prefer_hash: bool,
}

impl WeightsSetter {
    /// A setter that keeps what it has to reveal later in `reveals`.
    pub fn new(submitter: SubmitterHandle, reveals: Reveals) -> Self {
        Self { submitter, reveals, prefer_hash: false }
    }

    /// Commits by hash also where the chain takes timelocked commits: for chains that do not follow the beacon.
    #[must_use]
    pub fn prefer_hash(mut self, prefer_hash: bool) -> Self {
        self.prefer_hash = prefer_hash;
        self
    }

    /// Sets weights, once per key.
    ///
    /// # Errors
    /// What is wrong with the weights, what the chain would refuse, or what the submission met.
    pub async fn set(&self, wish: WeightsWish) -> Result<WeightsOutcome, SubmitError> {
        // A commit is random, so a key that was given before stands for the very call that was made then.
        if let Some(call) = self.submitter.recall(&wish.key).await? {
            return self.submit(wish.key, call, wish.wait).await;
        }
        let argument = |source| SubmitError::Argument { call: "set_weights", source };
        let (uids, values) = normalize_weights(&wish.uids, &wish.values).map_err(argument)?;
        let probe = Call::SetWeights {
            netuid: wish.netuid,
            mecid: wish.mecid,
            uids: uids.clone(),
            values: values.clone(),
            version_key: wish.version_key,
        };
        probe.check().map_err(argument)?;
        let hotkey = self.submitter.hotkey();
        let (link, tips, facts) = self.facts(wish.netuid, wish.mecid.unwrap_or(0)).await?;
        let facts = facts.ok_or_else(|| refused("HotKeyNotRegisteredInSubNet", "not in the subnet's list", None))?;
        check_facts(&facts, &wish, &uids, &values)?;
        let WeightsWish { key, netuid, mecid, version_key, wait, .. } = wish;
        let call = match method(&facts, self.prefer_hash)? {
            WeightsMethod::Plain => probe,
            WeightsMethod::HashCommit => {
                let material = self.reveals.prepare(&key, hotkey, netuid, mecid, uids, values, version_key);
                let hash = material.map_err(|error| SubmitError::Journal { why: error.to_string() })?;
                Call::CommitWeights { netuid, mecid, hash }
            }
            WeightsMethod::Timelocked => {
                let reveal_round = round(&link, tips, &facts).await?;
                let commit = timelocked_commit(&hotkey, &uids, &values, version_key, reveal_round);
                let commit = commit.map_err(|error| SubmitError::NotOffered {
                    call: "commit_timelocked_weights",
                    why: error.to_string(),
                })?;
                Call::CommitTimelocked { netuid, mecid, commit, reveal_round, version: facts.commit_reveal_version }
            }
        };
        self.submit(key, call, wait).await
    }

    /// What the chain says, over another connection where one breaks in between.
    async fn facts(&self, netuid: NetUid, mecid: u8) -> Result<(Arc<Link>, Tips, Option<WeightsFacts>), SubmitError> {
        let hotkey = self.submitter.hotkey();
        let mut tries = 0;
        loop {
            let link = self.submitter.link().await?;
            let read = async {
                let tips = link.tips().await?;
                Ok((tips, link.weights_facts(tips, netuid, mecid, &hotkey).await?))
            };
            let error: ChainError = match read.await {
                Ok((tips, facts)) => return Ok((link, tips, facts)),
                Err(error) => error,
            };
            if tries >= FACTS_RETRIES || !error.is_connection_lost() {
                return Err(SubmitError::Unreachable { why: error.chain() });
            }
            tries += 1;
            tokio::time::sleep(FACTS_PAUSE).await;
        }
    }

    async fn submit(&self, key: String, call: Call, wait: Wait) -> Result<WeightsOutcome, SubmitError> {
        let (method, reveal_round) = match &call {
            Call::CommitWeights { .. } => (WeightsMethod::HashCommit, None),
            Call::CommitTimelocked { reveal_round, .. } => (WeightsMethod::Timelocked, Some(*reveal_round)),
            _ => (WeightsMethod::Plain, None),
        };
        let answer = self.submitter.submit(Intent { key: key.clone(), call, wait }).await;
        if method == WeightsMethod::HashCommit {
            match &answer {
                Ok(Submitted::Included(receipt)) => self.reveals.committed(&key, receipt.block),
                // What is on its way, pending or unknown may get onto the chain: its weights are kept.
                Ok(Submitted::Sent { .. })
                | Err(SubmitError::Pending { .. } | SubmitError::Unknown { .. } | SubmitError::Closed) => {}
                Err(_) => self.reveals.withdraw(&key),
            }
        }
        answer.map(|submitted| WeightsOutcome { method, submitted, reveal_round })
    }
}

fn method(facts: &WeightsFacts, prefer_hash: bool) -> Result<WeightsMethod, SubmitError> {
    match facts.commit_reveal_version {
        _ if !facts.commit_reveal => Ok(WeightsMethod::Plain),
        version if prefer_hash || version < TIMELOCKED_SINCE => Ok(WeightsMethod::HashCommit),
        TIMELOCKED_VERSION => Ok(WeightsMethod::Timelocked),
        version => Err(refused("IncorrectCommitRevealVersion", &format!("the chain's version is {version}"), None)),
    }
}

async fn round(link: &Link, tips: Tips, facts: &WeightsFacts) -> Result<u64, SubmitError> {
    let unreachable = |why: String| SubmitError::Unreachable { why };
    let interval = link.block_interval(tips).await.map_err(|error| unreachable(error.chain()))?;
    let interval = interval.ok_or_else(|| {
        unreachable("the chain declares no block time and has too few blocks to measure it".to_owned())
    })?;
    let clock = RevealClock {
        block: facts.block,
        now_ms: facts.now_ms,
        next_epoch: facts.next_epoch,
        tempo: facts.tempo.into(),
        period_epochs: facts.reveal_period_epochs,
        block_ms: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
    };
    Ok(clock.round())
}

/// The chain's own checks, in its order.
fn check_facts(facts: &WeightsFacts, wish: &WeightsWish, uids: &[u16], values: &[u16]) -> Result<(), SubmitError> {
    if wish.mecid.is_some_and(|mecid| mecid >= facts.mechanisms) {
        return Err(refused("MechanismDoesNotExist", &format!("the subnet has {}", facts.mechanisms), None));
    }
    if uids.len() > usize::from(facts.neurons) {
        return Err(refused("UidsLengthExceedUidsInSubNet", &format!("the subnet has {}", facts.neurons), None));
    }
    if wish.version_key < facts.version_key {
        let text = format!("{} is below {}", wish.version_key, facts.version_key);
        return Err(refused("IncorrectWeightVersionKey", &text, None));
    }
    let pause = facts.rate_pause();
    if pause > 0 {
        let name = if facts.commit_reveal { "CommittingWeightsTooFast" } else { "SettingWeightsTooFast" };
        let text = format!("last in block {}, the subnet's limit is {} blocks", facts.last_update, facts.rate_limit);
        return Err(refused(name, &text, Some(pause)));
    }
    let only_self = uids == [facts.uid];
    if !(facts.permit || facts.owner || only_self) {
        return Err(refused("NeuronNoValidatorPermit", &format!("uid {}", facts.uid), None));
    }
    if let Some(uid) = uids.iter().find(|uid| **uid >= facts.neurons) {
        return Err(refused("UidVecContainInvalidOne", &format!("uid {uid} of {} neurons", facts.neurons), None));
    }
    let least = facts.min_weights.min(facts.neurons);
    if !only_self && uids.len() < usize::from(least) {
        return Err(refused("WeightVecLengthIsLow", &format!("{} uids, the subnet wants {least}", uids.len()), None));
    }
    let sum: u64 = values.iter().copied().map(u64::from).sum();
    let largest = u64::from(values.iter().copied().max().unwrap_or(0));
    let limited = facts.max_weight != u16::MAX && !only_self;
    if limited && largest * u64::from(u16::MAX) > u64::from(facts.max_weight) * sum {
        let text = format!("{largest} of {sum}, the limit is {} of 65535", facts.max_weight);
        return Err(refused("MaxWeightExceeded", &text, None));
    }
    Ok(())
}

/// The chain's refusal, before the chain is bothered with it.
fn refused(name: &str, text: &str, blocks: Option<u64>) -> SubmitError {
    SubmitError::Refused {
        call: "set_weights",
        name: name.to_owned(),
        text: text.to_owned(),
        class: verdict(name).class(blocks),
    }
}

/// Scales weights so that the largest is 65535, and leaves out those that are exactly 0.
///
/// Rounds half to even, as Python and with it the clients that validators come from.
///
/// # Errors
/// The wrong field, its value and the rule.
pub fn normalize_weights(uids: &[u16], values: &WeightValues) -> Result<(Vec<u16>, Vec<u16>), ValueError> {
    let scores: Vec<f64> = match values {
        WeightValues::Scores(scores) => scores.clone(),
        WeightValues::Integers(integers) => integers.iter().copied().map(f64::from).collect(),
    };
    if scores.len() != uids.len() {
        let expected = format!("numbers do not fit {} uids: give one weight for each", uids.len());
        return Err(ValueError::new("weights", scores.len(), expected));
    }
    if let Some((i, score)) = scores.iter().enumerate().find(|(_, score)| !(score.is_finite() && **score >= 0.0)) {
        return Err(ValueError::new(&format!("weights[{i}]"), score, "is not a number from 0 up"));
    }
    let largest = scores.iter().copied().fold(0.0, f64::max);
    if largest <= 0.0 {
        let expected = "is no preference: give at least one weight above 0";
        return Err(ValueError::new("weights", "0 everywhere", expected));
    }
    let kept = uids.iter().zip(&scores).filter(|(_, score)| **score > 0.0);
    Ok(kept.map(|(uid, score)| (*uid, quantize(score / largest))).unzip())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share from 0 to 1, times 65535")]
fn quantize(share: f64) -> u16 {
    (share * f64::from(u16::MAX)).round_ties_even() as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::extrinsics::FailureClass;

    fn scores(uids: &[u16], values: &[f64]) -> Result<(Vec<u16>, Vec<u16>), ValueError> {
        normalize_weights(uids, &WeightValues::Scores(values.to_vec()))
    }

    #[test]
    fn the_largest_weight_becomes_65535_and_zeros_are_left_out() {
        assert_eq!(scores(&[5, 6, 7], &[0.25, 0.0, 1.0]).unwrap(), (vec![5, 7], vec![16384, 65535]));
        assert_eq!(scores(&[1, 2, 3], &[1e-9, 2e300, 1e300]).unwrap(), (vec![1, 2, 3], vec![0, 65535, 32768]));
        let integers = WeightValues::Integers(vec![1, 2, 4]);
        assert_eq!(normalize_weights(&[0, 1, 2], &integers).unwrap().1, [16384, 32768, 65535]);
        // Half to even: 0.5 / 65535 and 1.5 / 65535 of the largest.
        assert_eq!(scores(&[0, 1, 2], &[65535.0, 0.5, 1.5]).unwrap().1, [65535, 0, 2]);
    }

    #[test]
    fn what_is_no_weight_is_refused_with_its_place() {
        for (values, part) in [
            (vec![1.0], "weights: `1` numbers do not fit 2 uids"),
            (vec![1.0, -0.5], "weights[1]: `-0.5`"),
            (vec![f64::NAN, 1.0], "weights[0]: `NaN`"),
            (vec![1.0, f64::INFINITY], "weights[1]: `inf`"),
            (vec![0.0, 0.0], "at least one weight above 0"),
        ] {
            let error = scores(&[1, 2], &values).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    fn facts() -> WeightsFacts {
        WeightsFacts {
            block: 1000,
            now_ms: 0,
            uid: 3,
            neurons: 10,
            permit: true,
            owner: false,
            mechanisms: 2,
            version_key: 5,
            rate_limit: 100,
            last_update: 800,
            min_weights: 2,
            max_weight: u16::MAX,
            commit_reveal: false,
            commit_reveal_version: 4,
            reveal_period_epochs: 1,
            tempo: 360,
            next_epoch: 1100,
        }
    }

    fn wish() -> WeightsWish {
        let values = WeightValues::Integers(vec![1, 2]);
        let (key, netuid, wait) = ("k".into(), NetUid(1), Wait::Finalized);
        WeightsWish { key, netuid, mecid: None, uids: vec![1, 2], values, version_key: 5, wait }
    }

    #[test]
    fn fiber_5_3_10_what_the_chain_would_refuse_is_refused_first_and_by_its_name() {
        let good = check_facts(&facts(), &wish(), &[1, 2], &[3, 4]);
        assert!(good.is_ok(), "{good:?}");
        let check = |facts: WeightsFacts, wish: &WeightsWish, uids: &[u16], values: &[u16], name: &str, class| {
            let error = check_facts(&facts, wish, uids, values).unwrap_err();
            assert_eq!((error.chain_error(), error.class()), (Some(name), class), "{error}");
        };
        let (two, ones) = ([1, 2], [1, 1]);
        let stop = FailureClass::Stop;
        let configuration = FailureClass::Configuration;
        let other = WeightsWish { mecid: Some(2), ..wish() };
        check(facts(), &other, &two, &ones, "MechanismDoesNotExist", configuration);
        let few = WeightsFacts { neurons: 1, ..facts() };
        check(few, &wish(), &two, &ones, "UidsLengthExceedUidsInSubNet", configuration);
        let old = WeightsWish { version_key: 4, ..wish() };
        check(facts(), &old, &two, &ones, "IncorrectWeightVersionKey", configuration);
        let soon = WeightsFacts { last_update: 950, ..facts() };
        check(soon.clone(), &wish(), &two, &ones, "SettingWeightsTooFast", FailureClass::WaitBlocks(49));
        let soon = WeightsFacts { commit_reveal: true, ..soon };
        check(soon, &wish(), &two, &ones, "CommittingWeightsTooFast", FailureClass::WaitBlocks(49));
        let none = WeightsFacts { permit: false, ..facts() };
        check(none.clone(), &wish(), &two, &ones, "NeuronNoValidatorPermit", stop);
        assert!(check_facts(&WeightsFacts { owner: true, ..none.clone() }, &wish(), &two, &ones).is_ok());
        assert!(check_facts(&none, &wish(), &[3], &[1]).is_ok(), "everybody may weigh itself");
        check(facts(), &wish(), &[1, 10], &ones, "UidVecContainInvalidOne", configuration);
        check(facts(), &wish(), &[1], &[1], "WeightVecLengthIsLow", configuration);
        let limited = WeightsFacts { max_weight: 32768, ..facts() };
        check(limited.clone(), &wish(), &two, &[1, 3], "MaxWeightExceeded", configuration);
        assert!(check_facts(&limited, &wish(), &two, &ones).is_ok());
    }

    #[test]
    fn the_subnets_hyperparameters_choose_the_method() {
        let with =
            |commit_reveal, commit_reveal_version| WeightsFacts { commit_reveal, commit_reveal_version, ..facts() };
        assert_eq!(method(&with(false, 4), false).unwrap(), WeightsMethod::Plain);
        assert_eq!(method(&with(true, 4), false).unwrap(), WeightsMethod::Timelocked);
        assert_eq!(method(&with(true, 4), true).unwrap(), WeightsMethod::HashCommit);
        assert_eq!(method(&with(true, 2), false).unwrap(), WeightsMethod::HashCommit);
        let error = method(&with(true, 5), false).unwrap_err();
        assert_eq!(error.class(), FailureClass::Configuration, "{error}");
    }

    proptest! {
        #[test]
        fn normalised_weights_keep_their_order_and_reach_the_top(values in prop::collection::vec(0.0_f64..1e12, 1..64)) {
            prop_assume!(values.iter().any(|value| *value > 0.0));
            let uids: Vec<u16> = (0..).take(values.len()).collect();
            let (kept, weights) = scores(&uids, &values).unwrap();
            prop_assert_eq!(weights.iter().max(), Some(&u16::MAX));
            for (a, wa) in kept.iter().zip(&weights) {
                for (b, wb) in kept.iter().zip(&weights) {
                    if values[usize::from(*a)] < values[usize::from(*b)] {
                        prop_assert!(wa <= wb);
                    }
                }
            }
        }
    }
}
