//! The runtimes of one chain, and which of them a block speaks.
//!
//! A block that brings an upgrade was itself made by the old runtime: its storage and its events are in the old one's
//! language, while calls at it run the new code already. Mixing them up is how clients broke on the days of upgrades. So
//! a runtime is an immutable value here, and every read names which of the two it needs.
//!
//! Asking for the version at each block would be one more call a refresh. Instead the version that was confirmed last
//! holds until the chain announces another one (a subscription), a header says that the runtime changed, or an answer
//! cannot be decoded; only then is the node asked, at the block in question.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use parking_lot::RwLock;
use serde::Deserialize;
use sidecar_util::{BlockHash, NetUid};
use subxt::OnlineClient;
use subxt::backend::{BlockRef, LegacyBackend};
use subxt::client::OnlineClientAtBlock;
use subxt::config::substrate::{DigestItem, H256, SubstrateConfig, SubstrateExtrinsicParams, SubstrateHeader};
use subxt::config::{Config, HashFor, Hasher as _};
use subxt::ext::codec::{Decode, Encode};
use subxt::metadata::{ArcMetadata, Metadata};
use subxt::utils::MultiAddress;

use crate::plan::{MetagraphPlan, SharesPlan};
use crate::queries::{METAGRAPH_API, METAGRAPH_FIELDS, SLOT_DURATION, VALIDATOR_TRUST};
use crate::rpc::{HexBytes, Rpc, params, refused};
use crate::source::Head;
use crate::{ChainError, error::Cause};

/// Runtimes that are kept, a few megabytes each: the one in force, its successor or predecessor around an upgrade, and
/// those of old blocks that are being read.
const RUNTIMES_MAX: usize = 4;

/// Upgrade blocks that are remembered; reads of the block of a head that was announced look here.
const UPGRADES_MAX: usize = 8;

/// Newest metadata format asked for. Every runtime since 2023 has it; older ones have 14 by another call.
const METADATA_VERSION: u32 = 15;

pub(crate) type Header = SubstrateHeader<H256>;
pub(crate) type Hasher = <RuntimeConfig as Config>::Hasher;

/// The client library's settings for exactly one runtime: versions and metadata are given, so it asks for neither.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    genesis_hash: H256,
    versions: (u32, u32),
    metadata: ArcMetadata,
}

impl Config for RuntimeConfig {
    type AccountId = <SubstrateConfig as Config>::AccountId;
    // Subtensor's addresses have no account index, as Polkadot's have none.
    type Address = MultiAddress<Self::AccountId, ()>;
    type Signature = <SubstrateConfig as Config>::Signature;
    type Hasher = <SubstrateConfig as Config>::Hasher;
    type Header = <SubstrateConfig as Config>::Header;
    type TransactionExtensions = SubstrateExtrinsicParams<Self>;
    type AssetId = <SubstrateConfig as Config>::AssetId;

    fn genesis_hash(&self) -> Option<HashFor<Self>> {
        Some(self.genesis_hash)
    }

    fn spec_and_transaction_version_for_block_number(&self, _block_number: u64) -> Option<(u32, u32)> {
        Some(self.versions)
    }

    fn metadata_for_spec_version(&self, _spec_version: u32) -> Option<ArcMetadata> {
        Some(self.metadata.clone())
    }
}

pub(crate) type AtBlock = OnlineClientAtBlock<RuntimeConfig>;

/// One version of the chain's runtime.
pub(crate) struct Runtime {
    /// Its version.
    pub(crate) spec_version: u32,
    /// Its names and types.
    pub(crate) metadata: ArcMetadata,
    /// For calls and storage by name. Uses the connection that everything else uses.
    pub(crate) client: OnlineClient<RuntimeConfig>,
    /// Type of the answer to [`METAGRAPH_API`], and a fast way to read it.
    pub(crate) metagraph: Option<(u32, Option<MetagraphPlan>)>,
    /// Type of a value of [`VALIDATOR_TRUST`], its default, and a fast way to read it.
    pub(crate) trust: Option<(u32, Vec<u8>, Option<SharesPlan>)>,
}

/// What has to be sent for one refresh: the same at every block of a runtime.
pub(crate) struct Question {
    /// Arguments of [`METAGRAPH_API`].
    pub(crate) arguments: Vec<u8>,
    /// Key of [`VALIDATOR_TRUST`].
    pub(crate) trust_key: Vec<u8>,
}

impl Runtime {
    async fn new(rpc: &Rpc, genesis_hash: H256, versions: (u32, u32), metadata: Metadata) -> Result<Self, ChainError> {
        let metadata = metadata.arc();
        let types = metadata.types();
        let (api, method) = METAGRAPH_API;
        let answer = metadata.runtime_api_trait_by_name(api).and_then(|api| api.method_by_name(method));
        let metagraph = answer.map(|answer| (answer.output_ty(), MetagraphPlan::of(types, answer.output_ty())));
        let (pallet, entry) = VALIDATOR_TRUST;
        let storage = metadata.pallet_by_name(pallet).and_then(|pallet| pallet.storage());
        let trust = storage.and_then(|storage| storage.entry_by_name(entry)).map(|entry| {
            let default = entry.default_value().unwrap_or_default().to_vec();
            (entry.value_ty(), default, SharesPlan::of(types, entry.value_ty()))
        });
        let config = RuntimeConfig { genesis_hash, versions, metadata: metadata.clone() };
        let backend = LegacyBackend::<RuntimeConfig>::builder().storage_page_size(512).build(rpc.clone());
        let client = OnlineClient::from_backend_with_config(config, Arc::new(backend))
            .await
            .map_err(refused("the genesis hash"))?;
        Ok(Self { spec_version: versions.0, client, metagraph, trust, metadata })
    }

    /// The client library at a block. Asks the node for nothing.
    pub(crate) async fn at(&self, head: Head) -> Result<AtBlock, ChainError> {
        let block = BlockRef::from_hash(H256(head.hash.0));
        let at = self.client.at_block_hash_and_number(block, head.number).await;
        at.map_err(refused("the runtime's metadata"))
    }

    /// What to send for the metagraph of a subnet, encoded as this runtime wants it.
    pub(crate) async fn question(&self, netuid: NetUid, head: Head) -> Result<Question, ChainError> {
        let at = self.at(head).await?;
        let misfit = |error: Cause| ChainError::Decode { what: "the arguments of a refresh", source: error };
        let (api, method) = METAGRAPH_API;
        let arguments = (netuid.0, METAGRAPH_FIELDS.to_vec());
        let call = subxt::dynamic::runtime_api_call::<_, ()>(api, method, arguments);
        let arguments = at.runtime_apis().encode_args(call).map_err(|error| misfit(error.into()))?;
        let (pallet, entry) = VALIDATOR_TRUST;
        let address = subxt::dynamic::storage::<(u16,), ()>(pallet, entry);
        let storage = at.storage();
        let entry = storage.entry(address).map_err(|error| misfit(error.into()))?;
        let trust_key = entry.fetch_key((netuid.0,)).map_err(|error| misfit(error.into()))?;
        Ok(Question { arguments, trust_key })
    }

    /// A chain without Aura, or one that makes blocks on demand, declares no block time.
    pub(crate) fn block_time(&self) -> Option<Duration> {
        let (pallet, constant) = SLOT_DURATION;
        let constant = self.metadata.pallet_by_name(pallet)?.constant_by_name(constant)?;
        let milliseconds = u64::decode(&mut constant.value()).ok()?;
        (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
    }

    /// Hashes headers; the same for all runtimes of one chain.
    pub(crate) fn hasher(&self) -> Hasher {
        Hasher::new(&self.metadata)
    }
}

/// Number and hash of a header. Nodes do not send the hash along.
pub(crate) fn head_of(header: &Header, hasher: Hasher) -> Head {
    Head { number: header.number, hash: BlockHash(hasher.hash(&header.encode()).0) }
}

/// A runtime's versions, as `state_getRuntimeVersion` gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Versions {
    pub(crate) spec_version: u32,
    #[serde(default)]
    transaction_version: u32,
}

/// The two runtimes of a block.
#[derive(Clone)]
pub(crate) struct RuntimesOfBlock {
    /// Answers calls at the block.
    pub(crate) calls: Arc<Runtime>,
    /// Wrote the block's storage and events: the parent's.
    pub(crate) storage: Arc<Runtime>,
}

/// The runtimes that one connection has met.
pub(crate) struct Runtimes {
    rpc: Rpc,
    genesis_hash: H256,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    known: BTreeMap<u32, Arc<Runtime>>,
    /// In the order of use, the newest last.
    used: VecDeque<u32>,
    /// The version that a node confirmed last, at a head that was read.
    settled: Option<u32>,
    /// The version of the best block, which a final block follows a little later.
    announced: Option<u32>,
    /// Blocks that brought an upgrade, each with the hash of its parent.
    upgrades: VecDeque<(BlockHash, BlockHash)>,
}

impl Runtimes {
    pub(crate) fn new(rpc: Rpc, genesis_hash: H256) -> Self {
        Self { rpc, genesis_hash, state: RwLock::default() }
    }

    /// The runtime that was confirmed last.
    pub(crate) fn current(&self) -> Option<Arc<Runtime>> {
        let state = self.state.read();
        state.known.get(&state.settled?).cloned()
    }

    /// Reads version and metadata at the block a connection begins with.
    pub(crate) async fn begin(&self, at: BlockHash) -> Result<Arc<Runtime>, ChainError> {
        let (versions, metadata) = futures::try_join!(self.versions(at), metadata(&self.rpc, at))?;
        let runtime = self.keep(versions, metadata).await?;
        self.state.write().settled = Some(versions.spec_version);
        Ok(runtime)
    }

    /// The chain's best block has this version.
    pub(crate) fn announce(&self, spec_version: u32) {
        self.state.write().announced = Some(spec_version);
    }

    /// A header was announced. One that brings an upgrade is remembered.
    pub(crate) fn note(&self, hash: BlockHash, header: &Header) {
        if brings_upgrade(header) {
            let mut state = self.state.write();
            state.settled = None;
            if !state.upgrades.iter().any(|(known, _)| *known == hash) {
                state.upgrades.push_back((hash, BlockHash(header.parent_hash.0)));
                if state.upgrades.len() > UPGRADES_MAX {
                    state.upgrades.pop_front();
                }
            }
        }
    }

    /// What was confirmed holds no more.
    pub(crate) fn doubt(&self) {
        self.state.write().settled = None;
    }

    /// The runtimes of a block near the head. Asks the node for nothing while nothing changed.
    pub(crate) async fn at_head(&self, head: Head) -> Result<RuntimesOfBlock, ChainError> {
        let (settled, parent) = {
            let state = self.state.read();
            let parent = state.upgrades.iter().find(|(hash, _)| *hash == head.hash).map(|(_, parent)| *parent);
            let settled = state.settled.filter(|settled| state.announced.is_none_or(|announced| announced == *settled));
            (settled.and_then(|settled| state.known.get(&settled).cloned()), parent)
        };
        let calls = if let Some(runtime) = settled {
            runtime
        } else {
            let runtime = self.at(head.hash).await?;
            self.state.write().settled = Some(runtime.spec_version);
            runtime
        };
        let storage = match parent {
            Some(parent) => self.at(parent).await?,
            None => calls.clone(),
        };
        Ok(RuntimesOfBlock { calls, storage })
    }

    /// The runtimes of any block, by its header.
    pub(crate) async fn of(&self, hash: BlockHash, header: &Header) -> Result<RuntimesOfBlock, ChainError> {
        let calls = self.at(hash).await?;
        let storage =
            if brings_upgrade(header) { self.at(BlockHash(header.parent_hash.0)).await? } else { calls.clone() };
        Ok(RuntimesOfBlock { calls, storage })
    }

    /// The runtime in the state of a block.
    async fn at(&self, hash: BlockHash) -> Result<Arc<Runtime>, ChainError> {
        let versions = self.versions(hash).await?;
        let known = self.state.read().known.get(&versions.spec_version).cloned();
        match known {
            Some(runtime) => Ok(runtime),
            None => self.keep(versions, metadata(&self.rpc, hash).await?).await,
        }
    }

    async fn versions(&self, at: BlockHash) -> Result<Versions, ChainError> {
        self.rpc.call("the runtime's version", "state_getRuntimeVersion", params([&at.to_string()])).await
    }

    async fn keep(&self, versions: Versions, metadata: Metadata) -> Result<Arc<Runtime>, ChainError> {
        let Versions { spec_version, transaction_version } = versions;
        let runtime = Runtime::new(&self.rpc, self.genesis_hash, (spec_version, transaction_version), metadata).await?;
        let runtime = Arc::new(runtime);
        let mut state = self.state.write();
        state.used.retain(|used| *used != spec_version);
        state.used.push_back(spec_version);
        if state.used.len() > RUNTIMES_MAX {
            let settled = state.settled;
            if let Some(oldest) = state.used.iter().position(|used| Some(*used) != settled) {
                state.used.remove(oldest).and_then(|oldest| state.known.remove(&oldest));
            }
        }
        state.known.insert(spec_version, runtime.clone());
        Ok(runtime)
    }
}

/// Follows the versions that a node announces, until the connection ends.
pub(crate) async fn follow_versions(
    runtimes: std::sync::Weak<Runtimes>,
    versions: impl Stream<Item = Result<Versions, ChainError>>,
) {
    let mut versions = std::pin::pin!(versions);
    while let Some(Ok(versions)) = versions.next().await {
        match runtimes.upgrade() {
            Some(runtimes) => runtimes.announce(versions.spec_version),
            None => return,
        }
    }
}

fn brings_upgrade(header: &Header) -> bool {
    header.digest.logs.contains(&DigestItem::RuntimeEnvironmentUpdated)
}

async fn metadata(rpc: &Rpc, at: BlockHash) -> Result<Metadata, ChainError> {
    const WHAT: &str = "the runtime's metadata";
    let undecodable = |source: Cause| ChainError::Decode { what: WHAT, source };
    let hash = at.to_string();
    let versioned = rpc.runtime_call(WHAT, "Metadata_metadata_at_version", &METADATA_VERSION.encode(), &hash).await;
    let bytes = match versioned {
        Ok(bytes) => {
            let opaque = Option::<Vec<u8>>::decode(&mut bytes.as_slice()).map_err(|error| undecodable(error.into()))?;
            drop(bytes);
            opaque
        }
        // A runtime from before the call existed.
        Err(ChainError::Rpc { .. }) => None,
        Err(error) => return Err(error),
    };
    let bytes = if let Some(bytes) = bytes {
        bytes
    } else {
        let HexBytes(bytes) = rpc.call(WHAT, "state_getMetadata", params([&hash])).await?;
        bytes
    };
    Metadata::decode_from(&bytes).map_err(|error| undecodable(error.into()))
}
