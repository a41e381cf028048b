//! What verification costs in process.
//!
//! Everything runs on one thread, so that rates are per core: 64 clients whose requests are verified by one receiver, as in a
//! server with one worker. A request is verified whole: headers read, a body of 1 KiB hashed, the nonce looked up, the
//! signature verified, the nonce stored. `single_*` is the same with one client, where nothing waits with another.
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use e2e::bench::{Good, Measured};
use http::{HeaderMap, HeaderName, HeaderValue};
use rand::SeedableRng;
use rand::rngs::StdRng;
use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey};
use sidecar_peer::handshake::nonce::{NonceLimits, fiber_nonce};
use sidecar_peer::handshake::receiver::{Claim, Receiver, Request};
use sidecar_peer::handshake::strict::{self, RequestLine};
use sidecar_peer::handshake::{Scheme, Sign, UnixTime, body_hash, plain};
use sidecar_peer::{Facts, FactsError, StakeFacts, Verifier, VerifyRules};
use sidecar_util::{Alpha, BlockHash, Hotkey, Metagraph, NetUid, Neuron, Score, Tao, Uid};

const REQUESTS: usize = 20_000;
const CLIENTS: usize = 64;
const VALIDATORS: usize = 64;
const LINE: RequestLine<'static> = RequestLine { method: "POST", path: "/v1/chat", query: "" };

struct Key(Keypair);

impl Sign for Key {
    fn hotkey(&self) -> Hotkey {
        self.0.public.to_bytes().into()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign_simple(b"substrate", message).to_bytes()
    }
}

fn key(id: u8) -> Key {
    Key(MiniSecretKey::from_bytes(&[id; 32]).unwrap().expand_to_keypair(ExpansionMode::Ed25519))
}

/// Figures of [`verification`].
pub(crate) const NAMES: [&str; 4] =
    ["signed_request_verify_per_s", "plain_request_verify_per_s", "single_request_verify_per_s", "verify_cached_us"];

/// Measures on one thread.
pub(crate) fn verification() -> anyhow::Result<Vec<Measured>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let [signed, plain, single, cached] = NAMES;
    let figure = |name, unit, ours, bar| Measured { name, unit, ours, baseline: None, bar };
    runtime.block_on(async {
        Ok(vec![
            figure(signed, "1/s", requests_per_s(Scheme::Strict, CLIENTS).await, Some((Good::Above, 20_000.0))),
            figure(plain, "1/s", requests_per_s(Scheme::Plain, CLIENTS).await, None),
            figure(single, "1/s", requests_per_s(Scheme::Strict, 1).await, None),
            figure(cached, "us", verify_cached_us().await, Some((Good::Below, 20.0))),
        ])
    })
}

/// Seconds of a core that this thread has used: what other programs take of the machine does not count.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a short bench")]
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse::<u64>().unwrap() as f64 / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
async fn requests_per_s(scheme: Scheme, clients: usize) -> f64 {
    let (own, body, now) = (key(200).hotkey(), vec![b'x'; 1024], UnixTime::now());
    let keys: Vec<Key> = (0..VALIDATORS).map(|id| key(u8::try_from(id).unwrap())).collect();
    let mut random = StdRng::seed_from_u64(1);
    let requests: Vec<HeaderMap> = (0..REQUESTS)
        .map(|i| {
            let sender = &keys[i % VALIDATORS];
            let headers = match scheme {
                Scheme::Strict => {
                    strict::headers(sender, &own, LINE, &body_hash(&body), now, &strict::nonce(&mut random))
                }
                _ => plain::headers(sender, &own, &fiber_nonce(now, &mut random), Some(&body)),
            };
            let pair = |(name, value): &(&'static str, String)| {
                (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
            };
            headers.iter().map(pair).collect()
        })
        .collect();
    let receiver = Receiver::spawn(&own, NonceLimits::default(), 1, now.minus(Duration::from_secs(1)));
    let next = Cell::new(0);
    let client = async || {
        while let Some(headers) = requests.get(next.replace(next.get() + 1)) {
            let claim = Claim::read(headers).unwrap();
            let hash = body_hash(&body);
            let request = Request { line: LINE, body_hash: Some(&hash) };
            let sender = claim.sender().unwrap();
            receiver.prove(&claim, &sender, request, now).await.unwrap();
        }
    };
    let start = cpu_s();
    futures::future::join_all((0..clients).map(|_| client())).await;
    REQUESTS as f64 / (cpu_s() - start)
}

/// A chain that was read a moment ago.
struct Held(Facts);

#[async_trait]
impl StakeFacts for Held {
    fn held(&self) -> Option<Facts> {
        Some(self.0.clone())
    }

    async fn fresh(&self) -> Result<Facts, FactsError> {
        Ok(self.0.clone())
    }
}

async fn verify_cached_us() -> f64 {
    let hotkeys: Vec<Hotkey> = (0..=255).map(|id| [id; 32].into()).collect();
    let neuron = |(uid, hotkey): (u16, &Hotkey)| Neuron {
        uid: Uid(uid),
        hotkey: *hotkey,
        coldkey: [0; 32].into(),
        active: true,
        validator_permit: true,
        total_stake: Tao::from_rao(1_000),
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
    };
    let metagraph = Metagraph {
        netuid: NetUid(1),
        block: 1,
        block_hash: BlockHash::default(),
        tempo: 360,
        last_step: 0,
        blocks_since_last_step: 0,
        neurons: (0..).zip(&hotkeys).map(neuron).collect(),
    };
    let facts = Facts { metagraph: Arc::new(metagraph), read_at: tokio::time::Instant::now() };
    let rules = VerifyRules { minimum_stake: Tao::from_rao(1), ttl: Duration::from_hours(1) };
    let verifier = Verifier::new(Arc::new(Held(facts)), rules);
    for hotkey in &hotkeys {
        verifier.verify(hotkey).await.unwrap();
    }
    let start = cpu_s();
    let rounds = 1_000_u32;
    for _ in 0..rounds {
        for hotkey in &hotkeys {
            assert!(verifier.verify(hotkey).await.unwrap().cached);
        }
    }
    (cpu_s() - start) * 1e6 / f64::from(rounds) / 256.0
}
