//! What the parts of the process share: handles only, each owned by the task that keeps it current.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use sidecar_consensus::Consensus;
use sidecar_metagraph::{ChainProblem, ChainView, QuerierHandle};
use sidecar_peer::{Facts, FactsError, Registry, StakeFacts, Verifier, VerifyRules};
use sidecar_util::Hotkey;
use sidecar_util::config::NetworkConfig;
use sidecar_util::http::NodeKind;
use tokio::sync::watch;

use crate::axon::requests::Requests;
use crate::http::{Recent, Watchers};
use crate::metrics::Metrics;
use crate::network_file::NetworkFile;
use crate::reads::{ChainReads, QuerierReads};
use crate::signer::Signer;

/// Everything that requests are answered from.
pub(crate) struct App {
    /// What this sidecar stands beside.
    pub(crate) kind: NodeKind,
    /// Its hotkey.
    pub(crate) hotkey: Hotkey,
    /// The Network's description.
    pub(crate) file: NetworkFile,
    /// The chain.
    pub(crate) chain: QuerierHandle,
    /// Validators and miners.
    pub(crate) registry: Arc<Registry>,
    /// Checks stakes.
    pub(crate) verifier: Verifier,
    /// This member of the group, once the group is known.
    pub(crate) group: watch::Receiver<Option<Consensus>>,
    /// Signs and verifies requests between peers, once there is a key to sign with.
    pub(crate) requests: OnceLock<Arc<Requests>>,
    /// What else is read from the chain.
    pub(crate) reads: Arc<dyn ChainReads>,
    /// Those who watch the registry.
    pub(crate) watchers: Watchers,
    /// What several requests are answered from alike.
    pub(crate) recent: Recent,
    /// Signs with the hotkey, once it is there.
    pub(crate) signer: OnceLock<Arc<Signer>>,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
}

impl App {
    /// The parts around a chain and a Network's description.
    pub(crate) fn new(
        kind: NodeKind,
        hotkey: Hotkey,
        file: NetworkFile,
        chain: QuerierHandle,
        group: watch::Receiver<Option<Consensus>>,
    ) -> Self {
        let registry = Arc::new(Registry::new());
        let metrics =
            Arc::new(Metrics::new((kind, hotkey), chain.clone(), registry.clone(), group.clone(), file.error.clone()));
        let verifier = Verifier::new(Arc::new(ChainFacts(chain.clone())), verify_rules(&file.network.borrow()));
        let reads = Arc::new(QuerierReads { chain: chain.clone(), network: file.network.clone() });
        let (watchers, recent) = (Watchers::default(), Recent::default());
        Self {
            kind,
            hotkey,
            file,
            chain,
            registry,
            verifier,
            group,
            requests: OnceLock::new(),
            signer: OnceLock::new(),
            reads,
            watchers,
            recent,
            metrics,
        }
    }

    /// Why this sidecar cannot serve yet: `None` once the chain was read and nothing about the configuration is wrong.
    ///
    /// A chain that is down later does not count: what is held is still served, and taking all sidecars of a Network out
    /// of service at once would help nobody. Nor does the group, whose members wait for each other when it is founded.
    pub(crate) fn not_ready(&self) -> Option<ChainProblem> {
        let view = self.chain.view();
        match (&view.problem, &view.metagraph) {
            (Some(problem), Some(_)) if problem.is_configuration() => Some(problem.clone()),
            (_, Some(_)) => None,
            (problem, None) => Some(problem.clone().unwrap_or(ChainProblem::Connecting)),
        }
    }
}

/// By what a Network's validators are verified.
pub(crate) fn verify_rules(network: &NetworkConfig) -> VerifyRules {
    VerifyRules { minimum_stake: network.minimum_stake, ttl: network.verification_ttl() }
}

/// Facts about stake from the chain's querier.
#[derive(Debug)]
struct ChainFacts(QuerierHandle);

impl ChainFacts {
    fn of(view: &ChainView) -> Option<Facts> {
        // A subnet that vanished leaves its last metagraph behind, which is no fact any more.
        let gone = view.problem.as_ref().is_some_and(ChainProblem::is_configuration);
        let metagraph = view.metagraph.clone().filter(|_| !gone)?;
        Some(Facts { metagraph, read_at: view.refreshed_at? })
    }
}

#[async_trait]
impl StakeFacts for ChainFacts {
    fn held(&self) -> Option<Facts> {
        Self::of(&self.0.view())
    }

    async fn fresh(&self) -> Result<Facts, FactsError> {
        let problem = match self.0.refresh().await {
            Ok(view) => match Self::of(&view) {
                Some(facts) => return Ok(facts),
                None => ChainProblem::Connecting,
            },
            Err(problem) => problem,
        };
        Err(FactsError { reason: problem.reason(), detail: problem.to_string() })
    }
}
