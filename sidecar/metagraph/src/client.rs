//! The chain behind one WebSocket, through Substrate's legacy RPC methods.
//!
//! Those methods and no newer ones, because every node and every public endpoint of this chain serves them, and because
//! they need no state on the server: a call names its block, and a lost connection loses nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use scale_decode::DecodeAsType;
use sidecar_util::{BlockHash, Metagraph, NetUid};
use subxt::OnlineClient;
use subxt::config::substrate::H256;
use subxt::rpcs::RpcClient;
use tokio::task::JoinHandle;

use crate::convert::to_metagraph;
use crate::error::Cause;
use crate::pace::Pace;
use crate::queries::{METAGRAPH_API, RawMetagraph, VALIDATOR_TRUST};
use crate::rpc::{Rpc, params};
use crate::runtime::{Hasher, Header, RuntimeConfig, Runtimes, RuntimesOfBlock, Versions, follow_versions, head_of};
use crate::source::{ChainSource, Connect, Head, Heads, Probe};
use crate::{ChainError, plan::PlanError};

/// Connects with a WebSocket.
#[derive(Debug, Clone, Copy, Default)]
pub struct SubxtConnect;

#[async_trait]
impl Connect for SubxtConnect {
    async fn connect(&self, endpoint: &str) -> Result<Arc<dyn ChainSource>, ChainError> {
        self.connect_paced(endpoint, Arc::default()).await
    }

    async fn connect_paced(&self, endpoint: &str, pace: Arc<Pace>) -> Result<Arc<dyn ChainSource>, ChainError> {
        Ok(Arc::new(Connection::open(endpoint, pace).await?))
    }

    async fn probe(&self, endpoint: &str, pace: Arc<Pace>) -> Result<Probe, ChainError> {
        check_endpoint(endpoint)?;
        let rpc = Rpc::connect(endpoint, pace).await?;
        let (genesis_hash, header) = futures::try_join!(block_hash(&rpc, 0), header(&rpc, "the best block", None))?;
        let genesis_hash = genesis_hash.ok_or_else(|| no_block("0"))?;
        Ok(Probe { genesis_hash, best: header.number })
    }
}

/// One connection to an endpoint of a chain; clones share it, and it closes with the last of them.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    rpc: Rpc,
    runtimes: Arc<Runtimes>,
    /// Read once: it cannot change.
    genesis_hash: BlockHash,
    /// Read once: a runtime that changes it would break its own consensus.
    block_time: Option<Duration>,
    /// Hashes headers; the same for all runtimes of one chain.
    hasher: Hasher,
    /// The newest final block that this connection announced, or began with.
    finalized: Mutex<Finalized>,
    /// Follows the versions that the node announces; ends with the connection.
    versions: JoinHandle<()>,
}

/// A final block as far as it is known: the number comes with the first header.
#[derive(Debug, Clone, Copy)]
struct Finalized {
    hash: BlockHash,
    number: Option<u64>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.versions.abort();
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("endpoint", &self.endpoint()).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects: the handshake, then two rounds of calls, in parallel within each.
    pub(crate) async fn open(endpoint: &str, pace: Arc<Pace>) -> Result<Self, ChainError> {
        check_endpoint(endpoint)?;
        let rpc = Rpc::connect(endpoint, pace).await?;
        let (genesis_hash, finalized, versions) = futures::try_join!(
            block_hash(&rpc, 0),
            finalized_hash(&rpc),
            rpc.subscribe::<Versions>(
                "runtime versions",
                "state_subscribeRuntimeVersion",
                "state_unsubscribeRuntimeVersion"
            )
        )?;
        let genesis_hash = genesis_hash.ok_or_else(|| no_block("0"))?;
        let runtimes = Arc::new(Runtimes::new(rpc.clone(), H256(genesis_hash.0)));
        let runtime = runtimes.begin(finalized).await?;
        let versions = tokio::spawn(follow_versions(Arc::downgrade(&runtimes), versions));
        let inner = Inner {
            rpc,
            genesis_hash,
            block_time: runtime.block_time(),
            hasher: runtime.hasher(),
            finalized: Mutex::new(Finalized { hash: finalized, number: None }),
            versions,
            runtimes,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The address that was connected to.
    pub fn endpoint(&self) -> &str {
        self.inner.rpc.endpoint()
    }

    /// Whether the other end is still there, as far as this one knows.
    pub(crate) fn is_open(&self) -> bool {
        self.inner.rpc.is_open()
    }

    /// Whether both are the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Calls and subscriptions made on this connection until now.
    pub fn calls(&self) -> u64 {
        self.inner.rpc.calls()
    }

    /// The client library for the runtime in force, on this connection: for extrinsics. Ask again for each of them, a
    /// client keeps the runtime that it was made for.
    pub async fn online_client(&self) -> Result<OnlineClient<RuntimeConfig>, ChainError> {
        let finalized = self.inner.finalized.lock().hash;
        // Only the hash decides about the runtime.
        let runtimes = self.inner.runtimes.at_head(Head { number: 0, hash: finalized }).await?;
        Ok(runtimes.calls.client.clone())
    }

    /// The same connection as the client library takes it: for raw calls and for submission.
    pub fn rpc_client(&self) -> RpcClient {
        RpcClient::new(self.inner.rpc.clone())
    }

    pub(crate) fn runtimes(&self) -> &Runtimes {
        &self.inner.runtimes
    }

    /// The last final block that was announced here; asks the node where none was.
    pub(crate) async fn newest_finalized(&self) -> Result<Head, ChainError> {
        let Finalized { hash, number } = *self.inner.finalized.lock();
        match number {
            Some(number) => Ok(Head { number, hash }),
            None => self.finalized_head().await,
        }
    }

    /// The header of a block.
    pub(crate) async fn header(&self, hash: BlockHash) -> Result<Header, ChainError> {
        header(&self.inner.rpc, "a header", Some(hash)).await
    }

    /// The hash of the block with this number on the best chain.
    pub(crate) async fn hash_of(&self, block: u64) -> Result<BlockHash, ChainError> {
        block_hash(&self.inner.rpc, block).await?.ok_or_else(|| no_block(block.to_string()))
    }

    /// Two calls, at the same time.
    pub(crate) async fn metagraph_with(
        &self,
        runtimes: &RuntimesOfBlock,
        netuid: NetUid,
        head: Head,
    ) -> Result<Option<Metagraph>, ChainError> {
        let (api, method) = METAGRAPH_API;
        let (calls, storage) = (&runtimes.calls, &runtimes.storage);
        let (answer_type, plan) = calls.metagraph.as_ref().ok_or_else(|| ChainError::Unsupported {
            what: format!("{api}.{method}"),
            spec_version: calls.spec_version,
        })?;
        let (trust_type, trust_default, trust_plan) =
            storage.trust.as_ref().ok_or_else(|| ChainError::Unsupported {
                what: format!("{}.{}", VALIDATOR_TRUST.0, VALIDATOR_TRUST.1),
                spec_version: storage.spec_version,
            })?;
        let arguments = calls.question(netuid, head).await?.arguments;
        let trust_key = storage.question(netuid, head).await?.trust_key;
        let (hash, function) = (head.hash.to_string(), format!("{api}_{method}"));
        let rpc = &self.inner.rpc;
        let (answer, trust) = futures::try_join!(
            rpc.runtime_call("the metagraph", &function, &arguments, &hash),
            rpc.storage("the validators' trust", &trust_key, &hash),
        )?;

        let types = calls.metadata.types();
        // Where the fast way does not work, the slow one does, or says by name what does not fit.
        let read = plan.as_ref().map(|plan| plan.read(types, &answer));
        let raw = match read {
            Some(Ok(raw)) => raw,
            _ => Option::<RawMetagraph>::decode_as_type(&mut answer.as_slice(), *answer_type, types)
                .map_err(undecodable("the metagraph"))?,
        };
        let trust = trust.as_deref().unwrap_or(trust_default);
        let read: Option<Result<Vec<u16>, PlanError>> = trust_plan.map(|plan| plan.read(trust));
        let trust = match read {
            Some(Ok(trust)) => trust,
            _ => Vec::<u16>::decode_as_type(&mut &*trust, *trust_type, storage.metadata.types())
                .map_err(undecodable("the validators' trust"))?,
        };
        raw.map(|raw| to_metagraph(netuid, head, raw, &trust))
            .transpose()
            .map_err(|misfit| ChainError::Decode { what: "the metagraph", source: misfit.into() })
    }

    async fn metagraph_once(&self, netuid: NetUid, head: Head) -> Result<Option<Metagraph>, ChainError> {
        let runtimes = self.inner.runtimes.at_head(head).await?;
        self.metagraph_with(&runtimes, netuid, head).await
    }

    async fn headers(
        &self,
        operation: &'static str,
        subscribe: &str,
        unsubscribe: &str,
        finalized: bool,
    ) -> Result<Heads, ChainError> {
        let hasher = self.inner.hasher;
        let headers = self.inner.rpc.subscribe::<Header>(operation, subscribe, unsubscribe).await?;
        let inner = Arc::downgrade(&self.inner);
        let heads = headers.map(move |header| {
            let header = header?;
            let head = head_of(&header, hasher);
            if finalized && let Some(inner) = inner.upgrade() {
                inner.runtimes.note(head.hash, &header);
                *inner.finalized.lock() = Finalized { hash: head.hash, number: Some(head.number) };
            }
            Ok(head)
        });
        Ok(heads.boxed())
    }
}

#[async_trait]
impl ChainSource for Connection {
    fn genesis_hash(&self) -> BlockHash {
        self.inner.genesis_hash
    }

    fn spec_version(&self) -> Option<u32> {
        self.inner.runtimes.current().map(|runtime| runtime.spec_version)
    }

    fn block_time(&self) -> Option<Duration> {
        self.inner.block_time
    }

    async fn head(&self) -> Result<Head, ChainError> {
        let header = header(&self.inner.rpc, "the best block", None).await?;
        Ok(head_of(&header, self.inner.hasher))
    }

    async fn finalized_head(&self) -> Result<Head, ChainError> {
        let hash = finalized_hash(&self.inner.rpc).await?;
        let number = header(&self.inner.rpc, "a header", Some(hash)).await?.number;
        Ok(Head { number, hash })
    }

    async fn heads(&self) -> Result<Heads, ChainError> {
        self.headers("new heads", "chain_subscribeNewHeads", "chain_unsubscribeNewHeads", false).await
    }

    async fn finalized_heads(&self) -> Result<Heads, ChainError> {
        let (subscribe, unsubscribe) = ("chain_subscribeFinalizedHeads", "chain_unsubscribeFinalizedHeads");
        self.headers("finalised heads", subscribe, unsubscribe, true).await
    }

    async fn metagraph(&self, netuid: NetUid, at: Head) -> Result<Option<Metagraph>, ChainError> {
        match self.metagraph_once(netuid, at).await {
            // Perhaps the runtime changed and nobody said so: once more with what the node says of this block.
            Err(error) if error.is_decode() => {
                self.inner.runtimes.doubt();
                self.metagraph_once(netuid, at).await
            }
            answer => answer,
        }
    }

    fn connection(&self) -> Option<Connection> {
        Some(self.clone())
    }
}

/// Refuses what is no WebSocket address.
pub fn check_endpoint(endpoint: &str) -> Result<(), ChainError> {
    let wrong = |expected: &str| ChainError::Endpoint { endpoint: endpoint.to_owned(), expected: expected.to_owned() };
    let rest = endpoint.strip_prefix("ws://").or_else(|| endpoint.strip_prefix("wss://"));
    match rest {
        None => Err(wrong("is not a WebSocket address: it has to begin with ws:// or wss://")),
        Some(rest) if rest.is_empty() || rest.starts_with(['/', ':']) => {
            Err(wrong("names no host: write it like ws://host:9944"))
        }
        Some(_) => Ok(()),
    }
}

async fn block_hash(rpc: &Rpc, block: u64) -> Result<Option<BlockHash>, ChainError> {
    let mut number = subxt::ext::jsonrpsee::core::params::ArrayParams::new();
    number.insert(block).expect("a number is always JSON");
    let hash: Option<H256> = rpc.call("a block hash", "chain_getBlockHash", number).await?;
    Ok(hash.map(|hash| BlockHash(hash.0)))
}

async fn finalized_hash(rpc: &Rpc) -> Result<BlockHash, ChainError> {
    let hash: H256 = rpc.call("the finalised head", "chain_getFinalizedHead", params([])).await?;
    Ok(BlockHash(hash.0))
}

async fn header(rpc: &Rpc, operation: &'static str, hash: Option<BlockHash>) -> Result<Header, ChainError> {
    let header: Option<Header> = match hash {
        Some(hash) => rpc.call(operation, "chain_getHeader", params([&hash.to_string()])).await?,
        None => rpc.call(operation, "chain_getHeader", params([])).await?,
    };
    header.ok_or_else(|| no_block(hash.map_or_else(|| "at its head".to_owned(), |hash| hash.to_string())))
}

fn no_block(block: impl Into<String>) -> ChainError {
    ChainError::NoBlock { block: block.into() }
}

pub(crate) fn undecodable<E: Into<Cause>>(what: &'static str) -> impl Fn(E) -> ChainError {
    move |error| ChainError::Decode { what, source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_websocket_addresses_with_a_host_are_endpoints() {
        assert!(check_endpoint("ws://127.0.0.1:9944").is_ok());
        assert!(check_endpoint("wss://entrypoint.example:443").is_ok());
        for (endpoint, part) in
            [("http://host:9944", "ws://"), ("host:9944", "ws://"), ("ws://", "host"), ("ws://:9944", "host")]
        {
            let error = check_endpoint(endpoint).unwrap_err().to_string();
            assert!(error.starts_with(&format!("chain endpoint: `{endpoint}` ")) && error.contains(part), "{error}");
        }
    }
}
