//! A chain in memory, for tests of what stands above [`ChainSource`]: scripted answers and faults, no network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use sidecar_util::{Alpha, BlockHash, Hotkey, Metagraph, NetUid, Neuron, Score, Tao, Uid};
use tokio::sync::watch;

use crate::ChainError;
use crate::source::{ChainSource, Connect, Head, Heads};

/// A chain with one subnet. Clones are the same chain.
#[derive(Debug, Clone)]
pub struct FakeChain {
    state: Arc<Mutex<State>>,
    /// Announces blocks; the count tells apart connections that were dropped.
    heads: watch::Sender<(Head, u64)>,
    /// Announces final blocks.
    finalized: watch::Sender<Head>,
}

#[derive(Debug)]
struct State {
    genesis_hash: BlockHash,
    spec_version: u32,
    block_time: Option<Duration>,
    netuid: NetUid,
    neurons: Option<Vec<Neuron>>,
    faults: Faults,
    connections: u64,
    metagraph_calls: u64,
}

/// What goes wrong until it is set otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each fault is on or off, in any combination")]
pub struct Faults {
    /// New connections are refused.
    pub refuse: bool,
    /// Calls get no answer, and blocks are not announced: a half-open socket.
    pub hang: bool,
    /// So many of the next metagraph calls are answered with an error.
    pub fail_calls: u32,
    /// Metagraph answers cannot be decoded.
    pub undecodable: bool,
    /// Blocks come, but none becomes final.
    pub finality_stall: bool,
    /// Calls are answered with a complaint about too many requests.
    pub rate_limit: bool,
}

impl FakeChain {
    /// A chain at block 1 whose subnet has these neurons.
    pub fn new(netuid: NetUid, neurons: Vec<Neuron>) -> Self {
        let state = State {
            genesis_hash: BlockHash([0xaa; 32]),
            spec_version: 1,
            block_time: Some(Duration::from_secs(12)),
            netuid,
            neurons: Some(neurons),
            faults: Faults::default(),
            connections: 0,
            metagraph_calls: 0,
        };
        let (heads, finalized) = (watch::Sender::new((head(1), 0)), watch::Sender::new(head(1)));
        Self { state: Arc::new(Mutex::new(state)), heads, finalized }
    }

    /// Another genesis.
    #[must_use]
    pub fn with_genesis(self, genesis_hash: BlockHash) -> Self {
        self.state.lock().genesis_hash = genesis_hash;
        self
    }

    /// Another block time, or none.
    #[must_use]
    pub fn with_block_time(self, block_time: Option<Duration>) -> Self {
        self.state.lock().block_time = block_time;
        self
    }

    /// Makes and announces a block, which is final at once.
    pub fn advance(&self) {
        let number = self.heads.borrow().0.number + 1;
        self.set_block(number);
    }

    /// Goes to a block, whichever came before.
    pub fn set_block(&self, number: u64) {
        self.set_head(head(number));
    }

    /// Puts another block in the place of the best one, which is not final and never was.
    pub fn reorganise(&self) -> Head {
        let mut other = self.heads.borrow().0;
        other.hash.0[31] = other.hash.0[31].wrapping_add(1);
        self.heads.send_modify(|(current, _)| *current = other);
        other
    }

    /// Makes the best block final.
    pub fn finalize(&self) {
        let best = self.heads.borrow().0;
        self.finalized.send_replace(best);
    }

    fn set_head(&self, head: Head) {
        self.heads.send_modify(|(current, _)| *current = head);
        if !self.state.lock().faults.finality_stall {
            self.finalize();
        }
    }

    /// Changes the subnet; `None` removes it. Seen from the next call on.
    pub fn set_neurons(&self, neurons: Option<Vec<Neuron>>) {
        self.state.lock().neurons = neurons;
    }

    /// Switches faults on and off.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// Closes all connections.
    pub fn drop_connections(&self) {
        self.heads.send_modify(|(_, generation)| *generation += 1);
    }

    /// Connections accepted until now.
    pub fn connections(&self) -> u64 {
        self.state.lock().connections
    }

    /// Metagraph calls answered until now, failures included.
    pub fn metagraph_calls(&self) -> u64 {
        self.state.lock().metagraph_calls
    }

    async fn answer(&self, generation: u64, operation: &'static str) -> Result<(), ChainError> {
        if self.state.lock().faults.hang {
            let after = crate::rpc::CALL_DEADLINE;
            tokio::time::sleep(after).await;
            return Err(ChainError::Timeout { operation, after });
        }
        if self.state.lock().faults.rate_limit {
            return Err(ChainError::RateLimited { operation, said: "429".into(), retry_after: None });
        }
        if self.heads.borrow().1 == generation { Ok(()) } else { Err(ChainError::Disconnected { operation }) }
    }
}

/// A neuron with this stake, a permit, and nought everywhere else.
pub fn neuron(uid: u16, hotkey: Hotkey, stake: Tao) -> Neuron {
    Neuron {
        uid: Uid(uid),
        hotkey,
        coldkey: [0xcc; 32].into(),
        active: true,
        validator_permit: true,
        total_stake: stake,
        alpha_stake: Alpha::from_rao(stake.rao),
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

/// A block of the fake chain.
pub fn head(number: u64) -> Head {
    let mut hash = [0xbb; 32];
    hash[..8].copy_from_slice(&number.to_le_bytes());
    Head { number, hash: BlockHash(hash) }
}

struct Connection {
    chain: FakeChain,
    generation: u64,
}

impl Connection {
    /// One of the two heads, beginning with the one that is there already.
    fn follow(&self, head: fn(&FakeChain) -> Head) -> Heads {
        let (chain, generation) = (self.chain.clone(), self.generation);
        // Both are watched: a connection that is dropped ends the final heads as well.
        let (heads, finalized) = (chain.heads.subscribe(), chain.finalized.subscribe());
        let next = move |(mut heads, mut finalized, last): (watch::Receiver<_>, watch::Receiver<_>, Option<Head>)| {
            let chain = chain.clone();
            async move {
                loop {
                    heads.mark_unchanged();
                    finalized.mark_unchanged();
                    if chain.heads.borrow().1 != generation {
                        return None;
                    }
                    let now = head(&chain);
                    if last != Some(now) && !chain.state.lock().faults.hang {
                        return Some((Ok(now), (heads, finalized, Some(now))));
                    }
                    tokio::select! {
                        changed = heads.changed() => changed.ok()?,
                        changed = finalized.changed() => changed.ok()?,
                    }
                }
            }
        };
        stream::unfold((heads, finalized, None), next).boxed()
    }
}

#[async_trait]
impl Connect for FakeChain {
    async fn connect(&self, endpoint: &str) -> Result<Arc<dyn ChainSource>, ChainError> {
        {
            let mut state = self.state.lock();
            if state.faults.refuse {
                let source = "connection refused".into();
                return Err(ChainError::Connect { endpoint: endpoint.to_owned(), source });
            }
            state.connections += 1;
        }
        let generation = self.heads.borrow().1;
        self.answer(generation, "the handshake").await?;
        Ok(Arc::new(Connection { chain: self.clone(), generation }))
    }
}

/// Several fake chains, each behind its endpoint. An endpoint that is not there refuses connections.
#[async_trait]
impl Connect for BTreeMap<String, FakeChain> {
    async fn connect(&self, endpoint: &str) -> Result<Arc<dyn ChainSource>, ChainError> {
        match self.get(endpoint) {
            Some(chain) => chain.connect(endpoint).await,
            None => Err(ChainError::Connect { endpoint: endpoint.to_owned(), source: "no such host".into() }),
        }
    }
}

#[async_trait]
impl ChainSource for Connection {
    fn genesis_hash(&self) -> BlockHash {
        self.chain.state.lock().genesis_hash
    }

    fn spec_version(&self) -> Option<u32> {
        Some(self.chain.state.lock().spec_version)
    }

    fn block_time(&self) -> Option<Duration> {
        self.chain.state.lock().block_time
    }

    async fn head(&self) -> Result<Head, ChainError> {
        self.chain.answer(self.generation, "the best block").await?;
        Ok(self.chain.heads.borrow().0)
    }

    async fn finalized_head(&self) -> Result<Head, ChainError> {
        self.chain.answer(self.generation, "the finalised head").await?;
        Ok(*self.chain.finalized.borrow())
    }

    async fn heads(&self) -> Result<Heads, ChainError> {
        self.chain.answer(self.generation, "the subscription of new heads").await?;
        Ok(self.follow(|chain| chain.heads.borrow().0))
    }

    async fn finalized_heads(&self) -> Result<Heads, ChainError> {
        self.chain.answer(self.generation, "the subscription of finalised heads").await?;
        Ok(self.follow(|chain| *chain.finalized.borrow()))
    }

    async fn metagraph(&self, netuid: NetUid, at: Head) -> Result<Option<Metagraph>, ChainError> {
        self.chain.answer(self.generation, "the metagraph").await?;
        let mut state = self.chain.state.lock();
        state.metagraph_calls += 1;
        if state.faults.fail_calls > 0 {
            state.faults.fail_calls -= 1;
            return Err(ChainError::Rpc { operation: "the metagraph", source: "out of order".into() });
        }
        if state.faults.undecodable {
            return Err(ChainError::Decode { what: "the metagraph", source: "field `hotkeys` is missing".into() });
        }
        let neurons = state.neurons.clone().filter(|_| state.netuid == netuid);
        Ok(neurons.map(|neurons| Metagraph {
            netuid,
            block: at.number,
            block_hash: at.hash,
            tempo: 360,
            last_step: 0,
            blocks_since_last_step: at.number,
            neurons,
        }))
    }
}
