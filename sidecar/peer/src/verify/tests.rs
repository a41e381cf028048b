use std::sync::atomic::{AtomicU64, Ordering};

use sidecar_util::{Alpha, BlockHash, NetUid, Neuron, Score, Uid};

use super::*;
use crate::sync::under_shuttle;

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
    assert_eq!(verifier.inner.state.lock().answers.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_asks_about_one_hotkey_at_once_waits_for_one_answer() {
    let chain = Chain::new(vec![neuron(1, 1_000, true)]);
    *chain.held.lock() = None;
    let verifier = Verifier::new(chain.clone(), RULES);
    let hotkey = hotkey(1);
    let asked = futures::future::join_all((0..50).map(|_| verifier.verify(&hotkey)));
    tokio::pin!(asked);
    assert!(futures::poll!(asked.as_mut()).is_pending());
    assert_eq!(verifier.inner.state.lock().flights.len(), 1);
    assert!(asked.await.iter().all(Result::is_ok));
    assert_eq!(verifier.inner.state.lock().flights.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_overtaken_is_not_repeated() {
    let chain = Chain::new(vec![neuron(1, 1_000, true)]);
    *chain.held.lock() = None;
    let verifier = Verifier::new(chain.clone(), RULES);
    let hotkey = hotkey(1);
    let asking = verifier.verify(&hotkey);
    tokio::pin!(asking);
    assert!(futures::poll!(asking.as_mut()).is_pending());
    // While the chain is being asked, the registry learns that the stake fell.
    verifier.forget(&hotkey);
    assert!(asking.await.unwrap().verified);
    *chain.held.lock() = Some(Facts { metagraph: metagraph(2, vec![neuron(1, 1, true)]), read_at: Instant::now() });
    assert!(!verifier.verify(&hotkey).await.unwrap().verified, "the old answer is not in the cache");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_takes_no_answer_away() {
    let chain = Chain::new(vec![neuron(1, 1_000, true)]);
    *chain.held.lock() = None;
    let verifier = Verifier::new(chain, RULES);
    let hotkey = hotkey(1);
    let mut first = Box::pin(verifier.verify(&hotkey));
    assert!(futures::poll!(first.as_mut()).is_pending());
    let second = verifier.verify(&hotkey);
    drop(first);
    assert!(second.await.unwrap().verified);
}

/// A chain that takes 50 ms to ask, and what is read is as old when it arrives.
struct Slow(Arc<Chain>);
#[async_trait]
impl StakeFacts for Slow {
    fn held(&self) -> Option<Facts> {
        None
    }

    async fn fresh(&self) -> Result<Facts, FactsError> {
        let read_at = Instant::now();
        self.0.fresh().await.map(|facts| Facts { read_at, ..facts })
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_slower_than_the_ttl_gives_no_answer_and_a_remedy() {
    let chain = Chain::new(vec![neuron(1, 1_000, true)]);
    *chain.held.lock() = None;
    let verifier = Verifier::new(Arc::new(Slow(chain)), VerifyRules { ttl: Duration::from_millis(20), ..RULES });
    let error = verifier.verify(&hotkey(1)).await.unwrap_err();
    assert!(error.reason == "Stale" && error.detail.contains("verification_ttl_s"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn fiber_5_3_8_a_sync_that_fails_leaves_no_stale_stake_behind() {
    // Fiber's metagraph stops being read and goes on to be believed. Here an answer rests on what was read within the TTL,
    // or there is none.
    let chain = Chain::new(vec![neuron(1, 1_000, true)]);
    *chain.now.lock() = Err(FactsError { reason: "EndpointDown", detail: "down".into() });
    let verifier = Verifier::new(chain.clone(), RULES);
    assert!(verifier.verify(&hotkey(1)).await.unwrap().verified);
    for _ in 0..10 {
        tokio::time::sleep(TTL).await;
        if let Ok(body) = verifier.verify(&hotkey(1)).await {
            assert!(chain.held().unwrap().read_at.elapsed() <= TTL, "{body:?}");
        }
    }
    assert_eq!(verifier.verify(&hotkey(1)).await.unwrap_err().reason, "EndpointDown");
}

/// A chain whose blocks and clock are moved by hand, for shuttle.
#[derive(Default)]
struct ByHand {
    /// Milliseconds since the start, and the block that the chain has then.
    millis: Mutex<u64>,
    held: Mutex<Option<Facts>>,
}

fn moment(millis: u64) -> Instant {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    *START + Duration::from_millis(millis)
}

#[async_trait]
impl StakeFacts for ByHand {
    fn held(&self) -> Option<Facts> {
        self.held.lock().clone()
    }

    async fn fresh(&self) -> Result<Facts, FactsError> {
        let millis = *self.millis.lock();
        // The block tells when it was read.
        let facts = Facts { metagraph: metagraph(millis, vec![neuron(1, 1_000, true)]), read_at: moment(millis) };
        shuttle::thread::yield_now();
        *self.held.lock() = Some(facts.clone());
        Ok(facts)
    }
}

#[test]
fn no_answer_is_older_than_its_ttl_under_every_interleaving() {
    under_shuttle(500, || {
        let chain = Arc::new(ByHand::default());
        let clock = {
            let chain = chain.clone();
            Arc::new(move || moment(*chain.millis.lock()))
        };
        let rules = VerifyRules { ttl: Duration::from_millis(10), ..RULES };
        let verifier = Arc::new(Verifier::with_clock(chain.clone(), rules, clock));
        let askers: Vec<_> = (0..3_u8)
            .map(|asker| {
                let (chain, verifier) = (chain.clone(), verifier.clone());
                shuttle::thread::spawn(move || {
                    for _ in 0..3 {
                        let asked = *chain.millis.lock();
                        let answer = shuttle::future::block_on(verifier.verify(&hotkey(asker % 2)));
                        match answer {
                            // Old by the TTL at most when it was given, and it was not given before it was asked for.
                            Ok(body) => assert!(body.block + 10 >= asked, "block {} at {asked}", body.block),
                            Err(error) => assert_eq!(error.reason, "Stale"),
                        }
                    }
                })
            })
            .collect();
        let ticking = {
            let (chain, verifier) = (chain.clone(), verifier.clone());
            shuttle::thread::spawn(move || {
                for _ in 0..6 {
                    *chain.millis.lock() += 7;
                    verifier.forget(&hotkey(1));
                }
            })
        };
        for thread in askers {
            thread.join().unwrap();
        }
        ticking.join().unwrap();
        assert!(verifier.inner.state.lock().flights.is_empty());
    });
}
