//! One view of the chain per Network, shared by all reconciles.
//!
//! A querier keeps the view; a task beside it tells the controllers which nodes the newest block is news for,
//! so that a block costs a comparison per node and not a reconcile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crds::v1alpha1::Network;
use kube::ResourceExt as _;
use parking_lot::Mutex;
use sidecar_metagraph::{ChainConfig, ChainProblem, ChainView, Querier};
use sidecar_util::{BlockHash, Metagraph, NetUid};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::observe::genesis;

/// Status is written once a tempo at the most often, so reading each block of a fast chain would be waste.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// What the operator knows of a chain at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChainState {
    pub(crate) endpoint: Option<String>,
    pub(crate) genesis_hash: Option<BlockHash>,
    pub(crate) spec_version: Option<u32>,
    /// The last one read; it stays while there is a problem.
    pub(crate) metagraph: Option<Arc<Metagraph>>,
    pub(crate) problem: Option<Problem>,
    /// Whether the first look at the chain has come to an end, good or bad. Before it, status keeps what it said.
    pub(crate) looked_at: bool,
}

/// Why the chain is not being read, as a condition says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl From<&ChainView> for ChainState {
    fn from(view: &ChainView) -> Self {
        Self {
            endpoint: view.endpoint.clone(),
            genesis_hash: view.genesis_hash,
            spec_version: view.spec_version,
            metagraph: view.metagraph.clone(),
            looked_at: view.problem != Some(ChainProblem::Connecting),
            problem: view
                .problem
                .as_ref()
                .map(|problem| Problem { reason: problem.reason(), message: problem.to_string() }),
        }
    }
}

/// What a querier was started with; another one is started when this changes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    endpoints: Vec<String>,
    netuid: NetUid,
    genesis_hash: Option<BlockHash>,
}

impl Source {
    fn of(network: &Network) -> Self {
        Self {
            endpoints: network.spec.chain.endpoints.clone(),
            netuid: NetUid(network.spec.netuid),
            genesis_hash: genesis(network).and_then(|genesis| genesis.parse().ok()),
        }
    }
}

struct Chain {
    source: Source,
    view: watch::Receiver<Arc<ChainView>>,
    querier: Querier,
    /// Ends with the chain it tells of.
    _teller: AbortOnDropHandle<()>,
}

/// Called after every change of a Network's view.
pub(crate) type OnChange = Arc<dyn Fn(&str, &ChainState) + Send + Sync>;

/// The chains of all Networks.
pub(crate) struct Chains {
    chains: Mutex<HashMap<String, Chain>>,
    on_change: OnChange,
}

impl Chains {
    pub(crate) fn new(on_change: OnChange) -> Self {
        Self { chains: Mutex::default(), on_change }
    }

    /// Reads the chain that the Network names from now on.
    pub(crate) fn follow(&self, network: &Network) {
        let name = network.name_any();
        let source = Source::of(network);
        let mut chains = self.chains.lock();
        if chains.get(&name).is_some_and(|chain| chain.source == source) {
            return;
        }
        tracing::info!(network = name, endpoints = ?source.endpoints, netuid = %source.netuid, "following chain");
        let querier = Querier::spawn(ChainConfig {
            endpoints: source.endpoints.clone(),
            // Only the newest block is read here.
            archive_endpoints: Vec::new(),
            netuid: source.netuid,
            genesis_hash: source.genesis_hash,
            min_interval: REFRESH_INTERVAL,
        });
        let view = querier.watch();
        let teller =
            AbortOnDropHandle::new(tokio::spawn(tell(name.clone(), view.clone(), Arc::clone(&self.on_change))));
        chains.insert(name, Chain { source, view, querier, _teller: teller });
    }

    /// Stops reading chains of Networks that are gone.
    pub(crate) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.chains.lock().retain(|name, _| exists(name));
    }

    /// The view of a Network's chain, empty before the first look.
    pub(crate) fn state(&self, network: &Network) -> ChainState {
        let chains = self.chains.lock();
        chains.get(&network.name_any()).map(|chain| ChainState::from(&**chain.view.borrow())).unwrap_or_default()
    }

    /// Closes every connection.
    pub(crate) async fn shutdown(&self) {
        let chains: Vec<Chain> = self.chains.lock().drain().map(|(_, chain)| chain).collect();
        for chain in chains {
            chain.querier.shutdown().await;
        }
    }
}

async fn tell(network: String, mut view: watch::Receiver<Arc<ChainView>>, on_change: OnChange) {
    while view.changed().await.is_ok() {
        let state = ChainState::from(&**view.borrow_and_update());
        on_change(&network, &state);
    }
}
