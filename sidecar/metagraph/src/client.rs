//! The chain behind one WebSocket, through subxt's legacy RPC methods.
//!
//! Those methods and no newer ones, because every node and every public endpoint of this chain serves them, and because
//! they need no state on the server: a call names its block, and a lost connection loses nothing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use sidecar_util::{BlockHash, Metagraph, NetUid};
use subxt::backend::{BlockRef, LegacyBackend};
use subxt::client::OnlineClientAtBlock;
use subxt::config::substrate::{DigestItem, H256, SubstrateHeader};
use subxt::config::{Hasher, RpcConfigFor};
use subxt::ext::codec::Encode;
use subxt::ext::jsonrpsee::ws_client::PingConfig;
use subxt::ext::jsonrpsee::ws_client::WsClientBuilder;
use subxt::rpcs::{LegacyRpcMethods, RpcClient};
use subxt::{Config, OnlineClient};

use crate::convert::to_metagraph;
use crate::live_config::LiveConfig;
use crate::queries::{METAGRAPH_API, METAGRAPH_FIELDS, RawMetagraph, SLOT_DURATION, VALIDATOR_TRUST};
use crate::source::{ChainSource, Connect, Head, Heads};
use crate::{ChainError, error::Cause};

/// Time for the WebSocket handshake. A public endpoint far away needs about one second.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Time for one call. The largest, metadata or a subnet of 1024 neurons, takes well under a second on a healthy node.
pub const CALL_DEADLINE: Duration = Duration::from_secs(15);

/// How often the other end is pinged, and after how long without any answer the connection counts as lost.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Heads that may wait unread. A reader that is this far behind reconnects instead.
const HEADS_BUFFER: usize = 64;

/// Metadata is 0.8 MB as hex today, every neuron of a subnet with weights 1.5 MB.
const RESPONSE_BYTES_MAX: u32 = 32 << 20;

/// Connects with subxt.
#[derive(Debug, Clone, Copy, Default)]
pub struct SubxtConnect;

#[async_trait]
impl Connect for SubxtConnect {
    async fn connect(&self, endpoint: &str) -> Result<Arc<dyn ChainSource>, ChainError> {
        Ok(Arc::new(SubxtSource::connect(endpoint).await?))
    }
}

/// One connection.
struct SubxtSource {
    /// Remembers the runtime's version; shared with `client`.
    config: LiveConfig,
    /// For what needs no metadata.
    methods: LegacyRpcMethods<RpcConfigFor<LiveConfig>>,
    /// For what needs metadata. Uses the same connection.
    client: OnlineClient<LiveConfig>,
    /// Hashes headers; the same for all runtimes of one chain.
    hasher: <LiveConfig as Config>::Hasher,
    /// Read once: it cannot change.
    genesis_hash: BlockHash,
    /// Read once: a runtime that changes it would break its own consensus.
    block_time: Option<Duration>,
}

type AtBlock = OnlineClientAtBlock<LiveConfig>;
type Header = SubstrateHeader<H256>;

impl SubxtSource {
    async fn connect(endpoint: &str) -> Result<Self, ChainError> {
        check_endpoint(endpoint)?;
        let failed = |source: Cause| ChainError::Connect { endpoint: endpoint.to_owned(), source };
        let ping = PingConfig::new().ping_interval(PING_INTERVAL).inactive_limit(2 * PING_INTERVAL).max_failures(1);
        let websocket = WsClientBuilder::new()
            .connection_timeout(CONNECT_DEADLINE)
            .request_timeout(CALL_DEADLINE)
            .max_response_size(RESPONSE_BYTES_MAX)
            .max_buffer_capacity_per_subscription(HEADS_BUFFER)
            .enable_ws_ping(ping)
            .build(endpoint);
        // The builder's own deadline covers the TCP connection only, not a peer that accepts and then says nothing.
        let websocket = tokio::time::timeout(CONNECT_DEADLINE, websocket)
            .await
            .map_err(|_| failed(format!("no WebSocket handshake within {} s", CONNECT_DEADLINE.as_secs()).into()))?
            .map_err(|error| failed(error.into()))?;

        let rpc = RpcClient::new(websocket);
        let methods = LegacyRpcMethods::new(rpc.clone());
        let backend = LegacyBackend::<LiveConfig>::builder().build(rpc);
        let config = LiveConfig::new();
        let client = deadline("the genesis hash", async {
            OnlineClient::from_backend_with_config(config.clone(), Arc::new(backend))
                .await
                .map_err(refused("the genesis hash"))
        })
        .await?;
        let (hash, number) = best_block(&methods).await?;
        let at = at_block(&client, hash, number).await?;
        Ok(Self {
            hasher: *at.hasher(),
            genesis_hash: BlockHash(client.genesis_hash().0),
            block_time: block_time(&at),
            config,
            methods,
            client,
        })
        .inspect(|source| source.config.remember((at.spec_version(), at.transaction_version())))
    }

    /// The block with the metadata of its runtime; asks the node for neither while nothing changed.
    async fn at(&self, head: Head) -> Result<AtBlock, ChainError> {
        let at = at_block(&self.client, H256(head.hash.0), head.number).await?;
        self.config.remember((at.spec_version(), at.transaction_version()));
        Ok(at)
    }

    async fn metagraph_once(&self, netuid: NetUid, head: Head) -> Result<Option<Metagraph>, ChainError> {
        let at = self.at(head).await?;
        let (raw, vtrust) = futures::try_join!(selective_metagraph(&at, netuid), validator_trust(&at, netuid))?;
        raw.map(|raw| to_metagraph(netuid, head, raw, &vtrust))
            .transpose()
            .map_err(|misfit| ChainError::Decode { what: "the metagraph", source: misfit.into() })
    }
}

#[async_trait]
impl ChainSource for SubxtSource {
    fn genesis_hash(&self) -> BlockHash {
        self.genesis_hash
    }

    fn spec_version(&self) -> Option<u32> {
        self.config.versions().map(|(spec_version, _)| spec_version)
    }

    fn block_time(&self) -> Option<Duration> {
        self.block_time
    }

    async fn head(&self) -> Result<Head, ChainError> {
        let (hash, number) = best_block_with(&self.methods, self.hasher).await?;
        Ok(Head { number, hash: BlockHash(hash.0) })
    }

    async fn finalized_head(&self) -> Result<Head, ChainError> {
        let hash = deadline("the finalised head", async {
            self.methods.chain_get_finalized_head().await.map_err(refused("the finalised head"))
        })
        .await?;
        let header = deadline("a header", async {
            self.methods.chain_get_header(Some(hash)).await.map_err(refused("a header"))
        })
        .await?
        .ok_or_else(|| no_block("the finalised head"))?;
        Ok(Head { number: header.number, hash: BlockHash(hash.0) })
    }

    async fn heads(&self) -> Result<Heads, ChainError> {
        let (headers, versions) = deadline("subscriptions", async {
            let subscribe = refused("the subscription of new heads");
            let headers = self.methods.chain_subscribe_new_heads().await.map_err(subscribe)?;
            let subscribe = refused("the subscription of runtime versions");
            let versions = self.methods.state_subscribe_runtime_version().await.map_err(subscribe)?;
            Ok((headers, versions))
        })
        .await?;

        let (config, hasher) = (self.config.clone(), self.hasher);
        let headers = headers.map(move |header| {
            let header = header.map_err(refused("a new head"))?;
            if header.digest.logs.contains(&DigestItem::RuntimeEnvironmentUpdated) {
                config.forget();
            }
            Ok(Head { number: header.number, hash: BlockHash(hash_of(&header, hasher).0) })
        });
        // The digest says it sooner; the subscription says it also where the block with the digest was not announced.
        let config = self.config.clone();
        let versions = versions.filter_map(move |version| {
            let failed = version.map(|version| config.keep_only(version.spec_version)).err();
            async move { failed.map(|error| Err(refused("a runtime version")(error))) }
        });
        // The end of either ends both.
        let ended = |operation| stream::iter([Err(ChainError::Disconnected { operation })]);
        let heads = stream::select(headers.chain(ended("new heads")), versions.chain(ended("runtime versions")));
        Ok(heads.boxed())
    }

    async fn metagraph(&self, netuid: NetUid, at: Head) -> Result<Option<Metagraph>, ChainError> {
        match self.metagraph_once(netuid, at).await {
            // Perhaps the runtime changed and nobody said so: once more with what the node says now.
            Err(error) if error.is_decode() => {
                self.config.forget();
                self.metagraph_once(netuid, at).await
            }
            answer => answer,
        }
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

async fn selective_metagraph(at: &AtBlock, netuid: NetUid) -> Result<Option<RawMetagraph>, ChainError> {
    let (api, method) = METAGRAPH_API;
    let arguments = (netuid.0, METAGRAPH_FIELDS.to_vec());
    let call = subxt::dynamic::runtime_api_call::<_, Option<RawMetagraph>>(api, method, arguments);
    deadline("the metagraph", async {
        at.runtime_apis().call(call).await.map_err(|error| {
            use subxt::error::RuntimeApiError as Error;
            match error {
                Error::CannotCallApi(error) => refused("the metagraph")(error),
                error => undecodable("the metagraph")(error),
            }
        })
    })
    .await
}

async fn validator_trust(at: &AtBlock, netuid: NetUid) -> Result<Vec<u16>, ChainError> {
    let (pallet, entry) = VALIDATOR_TRUST;
    let address = subxt::dynamic::storage::<(u16,), Vec<u16>>(pallet, entry);
    deadline("the validators' trust", async {
        let value = at.storage().fetch(address, (netuid.0,)).await.map_err(|error| {
            use subxt::error::StorageError as Error;
            match error {
                Error::CannotFetchValue(error) => refused("the validators' trust")(error),
                error => undecodable("the validators' trust")(error),
            }
        })?;
        value.decode().map_err(undecodable("the validators' trust"))
    })
    .await
}

/// A chain without Aura, or one that makes blocks on demand, declares no block time.
pub(crate) fn block_time(at: &AtBlock) -> Option<Duration> {
    let (pallet, constant) = SLOT_DURATION;
    let milliseconds = at.constants().entry(subxt::dynamic::constant::<u64>(pallet, constant)).ok()?;
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}

async fn at_block(client: &OnlineClient<LiveConfig>, hash: H256, number: u64) -> Result<AtBlock, ChainError> {
    deadline("the runtime's metadata", async {
        client
            .at_block_hash_and_number(BlockRef::from_hash(hash), number)
            .await
            .map_err(refused("the runtime's metadata"))
    })
    .await
}

async fn best_header(methods: &LegacyRpcMethods<RpcConfigFor<LiveConfig>>) -> Result<Header, ChainError> {
    deadline("the best block", async { methods.chain_get_header(None).await.map_err(refused("the best block")) })
        .await?
        .ok_or_else(|| no_block("the best block"))
}

/// The best block before the hasher is known: the node is asked for the hash.
async fn best_block(methods: &LegacyRpcMethods<RpcConfigFor<LiveConfig>>) -> Result<(H256, u64), ChainError> {
    let number = best_header(methods).await?.number;
    let hash = deadline("a block hash", async {
        methods.chain_get_block_hash(Some(number.into())).await.map_err(refused("a block hash"))
    })
    .await?
    .ok_or_else(|| no_block("a block hash"))?;
    Ok((hash, number))
}

async fn best_block_with(
    methods: &LegacyRpcMethods<RpcConfigFor<LiveConfig>>,
    hasher: <LiveConfig as Config>::Hasher,
) -> Result<(H256, u64), ChainError> {
    let header = best_header(methods).await?;
    Ok((hash_of(&header, hasher), header.number))
}

fn hash_of(header: &Header, hasher: <LiveConfig as Config>::Hasher) -> H256 {
    hasher.hash(&header.encode())
}

async fn deadline<T>(
    operation: &'static str,
    call: impl Future<Output = Result<T, ChainError>>,
) -> Result<T, ChainError> {
    match tokio::time::timeout(CALL_DEADLINE, call).await {
        Ok(answer) => answer,
        Err(_) => Err(ChainError::Timeout { operation, after: CALL_DEADLINE }),
    }
}

fn no_block(operation: &'static str) -> ChainError {
    ChainError::Rpc { operation, source: "the node has no such block".into() }
}

fn undecodable<E: Into<Cause>>(what: &'static str) -> impl Fn(E) -> ChainError {
    move |error| ChainError::Decode { what, source: error.into() }
}

/// Tells a node that refuses from a connection that is gone: subxt reports both in the same variants.
pub(crate) fn refused<E: Into<Cause>>(operation: &'static str) -> impl Fn(E) -> ChainError {
    move |error| {
        let source: Cause = error.into();
        if is_node_answer(source.as_ref()) {
            ChainError::Rpc { operation, source }
        } else {
            ChainError::Disconnected { operation }
        }
    }
}

fn is_node_answer(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref::<subxt::rpcs::Error>() {
            Some(subxt::rpcs::Error::Client(_) | subxt::rpcs::Error::DisconnectedWillReconnect(_)) => return false,
            Some(_) => return true,
            None => next = error.source(),
        }
    }
    true
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

    #[test]
    fn a_lost_connection_is_told_from_a_refusal() {
        let lost = subxt::rpcs::Error::Client("connection closed".into());
        assert!(refused("a call")(lost).is_connection_lost());
        let answered = subxt::rpcs::Error::User(subxt::rpcs::UserError::method_not_found());
        let error = refused("a call")(answered);
        assert!(!error.is_connection_lost());
        assert!(error.chain().contains("Method not found"), "{}", error.chain());
        let wrapped = subxt::error::BackendError::from(subxt::rpcs::Error::Client("gone".into()));
        assert!(refused("a call")(wrapped).is_connection_lost());
    }

    #[tokio::test]
    async fn a_closed_port_is_reported_with_its_endpoint() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("ws://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = SubxtConnect.connect(&endpoint).await.err().unwrap();
        assert!(error.is_connection_lost());
        assert!(error.chain().contains(&endpoint) && error.chain().contains("refused"), "{}", error.chain());
    }

    #[tokio::test]
    async fn an_endpoint_over_tls_that_speaks_no_tls_is_an_error() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("wss://{}", listener.local_addr().unwrap());
        let connecting = tokio::spawn(async move { SubxtConnect.connect(&endpoint).await.err() });
        drop(listener.accept().await.unwrap());
        let error = connecting.await.unwrap().unwrap();
        assert!(matches!(error, ChainError::Connect { .. }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_accepts_and_says_nothing_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("ws://{}", listener.local_addr().unwrap());
        let connecting = tokio::spawn(async move { SubxtConnect.connect(&endpoint).await.err() });
        let _held = listener.accept().await.unwrap();
        let error = connecting.await.unwrap().unwrap();
        assert!(matches!(error, ChainError::Connect { .. }), "{error}");
    }
}
