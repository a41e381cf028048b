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
use parking_lot::Mutex;
use sidecar_util::http::VerifyBody;
use sidecar_util::{Hotkey, Metagraph, Tao};
use tokio::time::Instant;

use crate::diff::reason;

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
pub struct Verifier {
    facts: Arc<dyn StakeFacts>,
    state: Mutex<State>,
}

struct State {
    rules: VerifyRules,
    answers: HashMap<Hotkey, Answer>,
    /// The question to the chain that is under way: everybody who needs it waits for the same one.
    asking: Option<Shared<BoxFuture<'static, Result<Facts, FactsError>>>>,
}

struct Answer {
    body: VerifyBody,
    read_at: Instant,
}

impl Verifier {
    /// A verifier with nothing in its cache.
    pub fn new(facts: Arc<dyn StakeFacts>, rules: VerifyRules) -> Self {
        Self { facts, state: Mutex::new(State { rules, answers: HashMap::new(), asking: None }) }
    }

    /// Judges by other rules from now on.
    pub fn set_rules(&self, rules: VerifyRules) {
        let mut state = self.state.lock();
        if state.rules != rules {
            state.rules = rules;
            state.answers.clear();
        }
    }

    /// Forgets what was answered about a hotkey, because something about it changed. Has to be called for every hotkey that
    /// leaves the chain, which also keeps the answers as few as the subnet's neurons.
    pub fn forget(&self, hotkey: &Hotkey) {
        self.state.lock().answers.remove(hotkey);
    }

    /// Whether a hotkey is a validator of the subnet with enough stake.
    ///
    /// # Errors
    /// When what is held is older than the TTL and the chain cannot be asked.
    pub async fn verify(&self, hotkey: &Hotkey) -> Result<VerifyBody, FactsError> {
        if let Some(body) = self.known(hotkey) {
            return Ok(body);
        }
        let facts = match self.facts.held() {
            Some(held) if held.read_at.elapsed() <= self.state.lock().rules.ttl => held,
            _ => self.ask().await?,
        };
        Ok(self.answer(hotkey, &facts))
    }

    fn known(&self, hotkey: &Hotkey) -> Option<VerifyBody> {
        let state = self.state.lock();
        let answer = state.answers.get(hotkey)?;
        let fresh = answer.read_at.elapsed() <= state.rules.ttl;
        fresh.then(|| VerifyBody { cached: true, ..answer.body.clone() })
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

    fn answer(&self, hotkey: &Hotkey, facts: &Facts) -> VerifyBody {
        let mut state = self.state.lock();
        let body = judge(hotkey, &facts.metagraph, state.rules.minimum_stake);
        // Strangers are many and must not fill the memory; to refuse them again costs next to nothing.
        if body.uid.is_some() {
            state.answers.insert(*hotkey, Answer { body: body.clone(), read_at: facts.read_at });
        }
        body
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
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use sidecar_util::{Alpha, BlockHash, NetUid, Neuron, Score, Uid};

    use super::*;

    const TTL: Duration = Duration::from_mins(1);
    const RULES: VerifyRules = VerifyRules { minimum_stake: Tao::from_rao(1_000), ttl: TTL };

    fn hotkey(id: u8) -> Hotkey {
        [id; 32].into()
    }

    fn neuron(id: u8, stake: u64, validator_permit: bool) -> Neuron {
        Neuron {
            uid: Uid(id.into()),
            hotkey: hotkey(id),
            coldkey: [0; 32].into(),
            active: true,
            validator_permit,
            total_stake: Tao::from_rao(stake),
            alpha_stake: Alpha::ZERO,
            tao_stake: Tao::ZERO,
            incentive: Score(0),
            consensus: Score(0),
            dividends: Score(0),
            vtrust: Score(0),
            emission: Alpha::ZERO,
            last_update: 0,
            registered_at: 0,
            axon: None,
        }
    }

    fn metagraph(block: u64, neurons: Vec<Neuron>) -> Arc<Metagraph> {
        let (tempo, last_step, blocks_since_last_step) = (360, 0, block);
        let block_hash = BlockHash::default();
        Arc::new(Metagraph { netuid: NetUid(1), block, block_hash, tempo, last_step, blocks_since_last_step, neurons })
    }

    /// A chain that counts how often it is asked.
    struct Chain {
        held: Mutex<Option<Facts>>,
        now: Mutex<Result<Arc<Metagraph>, FactsError>>,
        asked: AtomicU64,
    }

    impl Chain {
        fn new(neurons: Vec<Neuron>) -> Arc<Self> {
            let metagraph = metagraph(1, neurons);
            let facts = Facts { metagraph: metagraph.clone(), read_at: Instant::now() };
            let (held, now) = (Mutex::new(Some(facts)), Mutex::new(Ok(metagraph)));
            Arc::new(Self { held, now, asked: AtomicU64::new(0) })
        }
    }

    #[async_trait]
    impl StakeFacts for Chain {
        fn held(&self) -> Option<Facts> {
            self.held.lock().clone()
        }

        async fn fresh(&self) -> Result<Facts, FactsError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(50)).await;
            let metagraph = self.now.lock().clone()?;
            let facts = Facts { metagraph, read_at: Instant::now() };
            *self.held.lock() = Some(facts.clone());
            Ok(facts)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_refusal_has_its_word() {
        let chain = Chain::new(vec![neuron(1, 1_000, true), neuron(2, 999, true), neuron(3, 5_000, false)]);
        let verifier = Verifier::new(chain, RULES);
        for (id, verified, reason) in [
            (1, true, "verified"),
            (2, false, "below_minimum_stake"),
            (3, false, "no_validator_permit"),
            (4, false, "not_registered"),
        ] {
            let body = verifier.verify(&hotkey(id)).await.unwrap();
            assert_eq!((body.verified, body.reason.as_str(), body.cached), (verified, reason, false));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_repeated_until_its_facts_are_too_old() {
        let chain = Chain::new(vec![neuron(1, 1_000, true)]);
        let verifier = Verifier::new(chain.clone(), RULES);
        tokio::time::sleep(TTL / 2).await;
        assert!(!verifier.verify(&hotkey(1)).await.unwrap().cached);
        tokio::time::sleep(TTL / 2).await;
        assert!(verifier.verify(&hotkey(1)).await.unwrap().cached, "the facts are exactly as old as they may be");
        *chain.now.lock() = Ok(metagraph(9, vec![]));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let body = verifier.verify(&hotkey(1)).await.unwrap();
        assert_eq!((body.cached, body.block, body.reason.as_str()), (false, 9, "not_registered"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_process_learns_ends_the_ttl() {
        let chain = Chain::new(vec![neuron(1, 1_000, true)]);
        let verifier = Verifier::new(chain.clone(), RULES);
        assert!(verifier.verify(&hotkey(1)).await.unwrap().verified);
        *chain.held.lock() = Some(Facts { metagraph: metagraph(2, vec![neuron(1, 1, true)]), read_at: Instant::now() });
        verifier.forget(&hotkey(1));
        let body = verifier.verify(&hotkey(1)).await.unwrap();
        assert_eq!((body.verified, body.block), (false, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn other_rules_forget_all_answers() {
        let chain = Chain::new(vec![neuron(1, 1_000, true)]);
        let verifier = Verifier::new(chain, RULES);
        assert!(verifier.verify(&hotkey(1)).await.unwrap().verified);
        verifier.set_rules(VerifyRules { minimum_stake: Tao::from_rao(2_000), ..RULES });
        assert!(!verifier.verify(&hotkey(1)).await.unwrap().verified);
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_who_asks_at_once_waits_for_one_query() {
        let chain = Chain::new(vec![neuron(1, 1_000, true)]);
        *chain.held.lock() = None;
        let verifier = Verifier::new(chain.clone(), RULES);
        let (first, second) = (hotkey(1), hotkey(2));
        let asked = (0..100).map(|i| verifier.verify(if i % 2 == 0 { &first } else { &second }));
        let answers = futures::future::join_all(asked).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(chain.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_chain_that_is_down_is_an_error_only_when_nothing_fresh_is_held() {
        let chain = Chain::new(vec![neuron(1, 1_000, true)]);
        let down = FactsError { reason: "EndpointDown", detail: "down".into() };
        *chain.now.lock() = Err(down.clone());
        let verifier = Verifier::new(chain.clone(), RULES);
        assert!(verifier.verify(&hotkey(1)).await.unwrap().verified);
        tokio::time::sleep(TTL + Duration::from_millis(1)).await;
        assert_eq!(verifier.verify(&hotkey(1)).await.unwrap_err(), down);
        *chain.now.lock() = Ok(metagraph(2, vec![neuron(1, 1_000, true)]));
        assert!(verifier.verify(&hotkey(1)).await.unwrap().verified);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_do_not_fill_the_memory() {
        let chain = Chain::new(vec![]);
        let verifier = Verifier::new(chain, RULES);
        for id in 0..10_000_u16 {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&id.to_le_bytes());
            verifier.verify(&bytes.into()).await.unwrap();
        }
        assert_eq!(verifier.state.lock().answers.len(), 0);
    }
}
