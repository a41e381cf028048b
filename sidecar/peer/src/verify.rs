//! Is this hotkey a validator with enough stake? Answered from the metagraph held, or from a fresh one.
//!
//! An answer may be repeated for a time (the TTL), counted from when the chain was read and not from when somebody asked,
//! so that no answer is ever based on something older. What the process learns meanwhile ends that time at once:
//! [`Verifier::forget`] is called for every hotkey whose registry entry changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use sidecar_util::http::VerifyBody;
use sidecar_util::{Hotkey, Metagraph, Tao};
use tokio::time::Instant;

use crate::diff::reason;
use crate::sync::Mutex;

/// A metagraph and when it was read.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The subnet.
    pub metagraph: Arc<Metagraph>,
    /// When it was read from the chain.
    pub read_at: Instant,
}

/// Why there are no facts: one word and a sentence with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct FactsError {
    /// One word from a closed set.
    pub reason: &'static str,
    /// What happened, and the remedy.
    pub detail: String,
}

/// Where facts about stake come from.
#[async_trait]
pub trait StakeFacts: Send + Sync {
    /// What is held already, however old.
    fn held(&self) -> Option<Facts>;

    /// Asks the chain.
    async fn fresh(&self) -> Result<Facts, FactsError>;
}

/// By what a validator is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyRules {
    /// Least total stake.
    pub minimum_stake: Tao,
    /// How old the facts behind an answer may be.
    pub ttl: Duration,
}

/// Verifies hotkeys.
///
/// # Guarantees
/// - No answer rests on facts that are older than the TTL when it is given, however long the chain took.
/// - Who asks about a hotkey while it is being asked about waits for that answer, and all who need the chain at the same
///   time wait for one query to it.
/// - What is learnt while an answer is made is not hidden by that answer: it is given, but not repeated.
pub struct Verifier {
    inner: Arc<Inner>,
}

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// An answer under way, for everybody who waits for it.
type Flight<T> = Shared<BoxFuture<'static, Result<T, FactsError>>>;

struct Inner {
    facts: Arc<dyn StakeFacts>,
    now: Clock,
    state: Mutex<State>,
}

struct State {
    rules: VerifyRules,
    answers: HashMap<Hotkey, Answer>,
    /// Grows whenever something is learnt that answers made before may not know.
    learnt: u64,
    /// The questions under way that need the chain, by hotkey: no more than there are callers waiting.
    flights: HashMap<Hotkey, Flight<Answer>>,
    /// The question to the chain that is under way: everybody who needs it waits for the same one.
    asking: Option<Flight<Facts>>,
}

#[derive(Clone)]
struct Answer {
    body: VerifyBody,
    read_at: Instant,
    /// What had been learnt when its facts were asked for.
    learnt: u64,
}

impl Verifier {
    /// A verifier with nothing in its cache.
    pub fn new(facts: Arc<dyn StakeFacts>, rules: VerifyRules) -> Self {
        Self::with_clock(facts, rules, Arc::new(Instant::now))
    }

    /// The same by another clock.
    pub fn with_clock(facts: Arc<dyn StakeFacts>, rules: VerifyRules, now: Clock) -> Self {
        let (answers, flights) = (HashMap::new(), HashMap::new());
        let state = State { rules, answers, learnt: 0, flights, asking: None };
        Self { inner: Arc::new(Inner { facts, now, state: Mutex::new(state) }) }
    }

    /// Judges by other rules from now on.
    pub fn set_rules(&self, rules: VerifyRules) {
        let mut state = self.inner.state.lock();
        if state.rules != rules {
            state.rules = rules;
            state.answers.clear();
            state.learnt += 1;
        }
    }

    /// Forgets what was answered about a hotkey, because something about it changed. Has to be called for every hotkey that
    /// leaves the chain, which also keeps the answers as few as the subnet's neurons.
    pub fn forget(&self, hotkey: &Hotkey) {
        let mut state = self.inner.state.lock();
        state.answers.remove(hotkey);
        state.learnt += 1;
    }

    /// Whether a hotkey is a validator of the subnet with enough stake.
    ///
    /// # Errors
    /// When what is held is older than the TTL and the chain cannot be asked, or takes longer than the TTL to answer.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the question to those who wait for it too.
    pub async fn verify(&self, hotkey: &Hotkey) -> Result<VerifyBody, FactsError> {
        let learnt = self.inner.state.lock().learnt;
        for _ in 0..ATTEMPTS {
            if let Some(body) = self.inner.known(hotkey) {
                return Ok(body);
            }
            let held = self.inner.facts.held().map(|facts| self.inner.answer(hotkey, &facts, learnt));
            if let Some(answer) = held.filter(|answer| self.inner.is_young(answer.read_at)) {
                return Ok(answer.body);
            }
            let flight = self.inner.fly(hotkey);
            let answered = flight.clone().await;
            self.inner.land(hotkey, &flight);
            // One that took off before this caller came may rest on facts that are too old for it.
            let answer = answered?;
            if answer.learnt >= learnt && self.inner.is_young(answer.read_at) {
                return Ok(answer.body);
            }
        }
        Err(FactsError {
            reason: "Stale",
            detail: "the chain takes longer to answer than an answer may be old: raise `verification_ttl_s`".to_owned(),
        })
    }
}

/// Attempts to get an answer that is young enough. The second one starts after it was asked for, so that a third one is
/// only needed when the chain is slower than the TTL, or the registry changed under both.
const ATTEMPTS: usize = 3;

impl Inner {
    fn known(&self, hotkey: &Hotkey) -> Option<VerifyBody> {
        let state = self.state.lock();
        let answer = state.answers.get(hotkey)?;
        self.is_within(answer.read_at, state.rules.ttl).then(|| VerifyBody { cached: true, ..answer.body.clone() })
    }

    fn is_within(&self, read_at: Instant, ttl: Duration) -> bool {
        (self.now)().saturating_duration_since(read_at) <= ttl
    }

    fn is_young(&self, read_at: Instant) -> bool {
        let ttl = self.state.lock().rules.ttl;
        self.is_within(read_at, ttl)
    }

    /// The answer from facts; kept unless something was learnt since they were asked for.
    fn answer(&self, hotkey: &Hotkey, facts: &Facts, learnt: u64) -> Answer {
        let mut state = self.state.lock();
        let body = judge(hotkey, &facts.metagraph, state.rules.minimum_stake);
        let answer = Answer { body, read_at: facts.read_at, learnt };
        // Strangers are many and must not fill the memory; to refuse them again costs next to nothing. And facts that are
        // too old for an answer must not take the place of younger ones.
        let older = state.answers.get(hotkey).is_some_and(|kept| kept.read_at > answer.read_at);
        if answer.body.uid.is_some() && state.learnt == learnt && !older {
            state.answers.insert(*hotkey, answer.clone());
        }
        answer
    }

    /// Joins the question about this hotkey that is under way, or starts one.
    fn fly(self: &Arc<Self>, hotkey: &Hotkey) -> Flight<Answer> {
        let start = || {
            let (inner, hotkey) = (Arc::clone(self), *hotkey);
            async move { inner.resolve(&hotkey).await }.boxed().shared()
        };
        self.state.lock().flights.entry(*hotkey).or_insert_with(start).clone()
    }

    fn land(&self, hotkey: &Hotkey, flight: &Flight<Answer>) {
        let mut state = self.state.lock();
        if state.flights.get(hotkey).is_some_and(|current| current.ptr_eq(flight)) {
            state.flights.remove(hotkey);
        }
    }

    async fn resolve(&self, hotkey: &Hotkey) -> Result<Answer, FactsError> {
        let learnt = self.state.lock().learnt;
        let facts = self.ask().await?;
        Ok(self.answer(hotkey, &facts, learnt))
    }

    async fn ask(&self) -> Result<Facts, FactsError> {
        let asking = {
            let mut state = self.state.lock();
            let ask = || {
                let facts = Arc::clone(&self.facts);
                async move { facts.fresh().await }.boxed().shared()
            };
            state.asking.get_or_insert_with(ask).clone()
        };
        let answer = asking.clone().await;
        let mut state = self.state.lock();
        if state.asking.as_ref().is_some_and(|current| current.ptr_eq(&asking)) {
            state.asking = None;
        }
        answer
    }
}

/// What a metagraph says about a hotkey.
pub fn judge(hotkey: &Hotkey, metagraph: &Metagraph, minimum_stake: Tao) -> VerifyBody {
    let neuron = metagraph.by_hotkey(hotkey);
    let reason = match neuron {
        None => reason::NOT_REGISTERED,
        Some(neuron) if neuron.total_stake < minimum_stake => reason::BELOW_MINIMUM_STAKE,
        Some(neuron) if !neuron.validator_permit => reason::NO_VALIDATOR_PERMIT,
        Some(_) => reason::VERIFIED,
    };
    VerifyBody {
        hotkey: *hotkey,
        verified: reason == reason::VERIFIED,
        reason: reason.to_owned(),
        uid: neuron.map(|neuron| neuron.uid),
        stake: neuron.map_or(Tao::ZERO, |neuron| neuron.total_stake),
        minimum_stake,
        block: metagraph.block,
        cached: false,
    }
}

#[cfg(test)]
mod tests;
