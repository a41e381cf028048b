//! Everything else that can be read from the chain, at its head or at any block.
//!
//! Reads share the connection of the querier; a socket of their own would be one more that public endpoints count. A
//! block is read in the language of its own runtime (see `runtime.rs`). Where the node has thrown its state away, an
//! archive endpoint is asked, if one is configured; it is connected when first needed.
//!
//! Names are found in live metadata, as in a refresh. What a runtime does not have is an error that says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use scale_decode::DecodeAsType;
use sidecar_util::chain::{
    AtBlock, Balance, Commitment, CommitmentField, Event, HyperparamValue, Hyperparameters, Identity, Stake,
    SubnetIdentity, WeightMatrix, WeightRow,
};
use sidecar_util::{Alpha, Axon, BlockHash, Coldkey, Hotkey, Metagraph, NetUid, Tao, Uid};
use subxt::dynamic::{self, Value};
use subxt::error::{EventsError, RuntimeApiError, StorageError};
use subxt::events::Phase;
use subxt::ext::frame_decode::helpers::{IntoDecodableValues, IntoEncodableValues};
use subxt::ext::scale_value::{Composite, Primitive, ValueDef};
use tokio::sync::{Mutex, watch};

use crate::client::{Connection, undecodable};
use crate::convert::to_axon;
use crate::pace::Paces;
use crate::querier::{ChainConfig, ChainView};
use crate::queries::RawAxon;
use crate::rpc::{CONNECT_DEADLINE, refused};
use crate::runtime::RuntimesOfBlock;
use crate::source::{ChainSource as _, Head};
use crate::{ChainError, ChainProblem};

/// Time for one read. A whole matrix is a few pages of a thousand rows; each page has the deadline of a call.
pub const READ_DEADLINE: Duration = Duration::from_mins(1);

/// Mechanisms and netuids share 16 bits of a storage index: so many netuids to a mechanism.
const NETUIDS_PER_MECHANISM: u16 = 4096;

/// The block that a read is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum At {
    /// The last final block.
    #[default]
    Head,
    /// The block with this number on the best chain.
    Block(u64),
    /// The block with this hash.
    Hash(BlockHash),
}

/// Reads of one chain; cheap to clone.
#[derive(Debug, Clone)]
pub struct Reads {
    connection: watch::Receiver<Option<Connection>>,
    config: watch::Receiver<ChainConfig>,
    view: watch::Receiver<Arc<ChainView>>,
    paces: Paces,
    /// The connection to an archive node, once one was needed.
    archive: Arc<Mutex<Option<Connection>>>,
}

/// A block that is being read.
struct Block {
    connection: Connection,
    head: Head,
    runtimes: RuntimesOfBlock,
}

impl Reads {
    pub(crate) fn new(
        connection: watch::Receiver<Option<Connection>>,
        config: watch::Receiver<ChainConfig>,
        view: watch::Receiver<Arc<ChainView>>,
        paces: Paces,
    ) -> Self {
        Self { connection, config, view, paces, archive: Arc::default() }
    }

    /// The connection in use; waits for one as long as connecting may take.
    ///
    /// # Errors
    /// [`ChainError::NotConnected`] with the problem that keeps it from being made.
    pub async fn connection(&self) -> Result<Connection, ChainError> {
        self.connection_other_than(None).await
    }

    /// Permits, trust, incentive, stakes and axons of a whole subnet; `None` where there is no such subnet.
    pub async fn metagraph(&self, netuid: NetUid, at: At) -> Result<Option<Metagraph>, ChainError> {
        let read = move |block: Block| async move {
            block.connection.metagraph_with(&block.runtimes, netuid, block.head).await
        };
        Ok(self.read(at, read).await?.value)
    }

    /// Weights that validators set in one mechanism of a subnet.
    pub async fn weights(&self, netuid: NetUid, mechanism: u8, at: At) -> Result<AtBlock<WeightMatrix>, ChainError> {
        self.matrix("Weights", netuid, mechanism, at).await
    }

    /// Bonds of validators in one mechanism of a subnet.
    pub async fn bonds(&self, netuid: NetUid, mechanism: u8, at: At) -> Result<AtBlock<WeightMatrix>, ChainError> {
        self.matrix("Bonds", netuid, mechanism, at).await
    }

    /// Weights of one validator; an empty row where it set none.
    pub async fn weights_of(
        &self,
        netuid: NetUid,
        mechanism: u8,
        uid: Uid,
        at: At,
    ) -> Result<AtBlock<WeightRow>, ChainError> {
        self.row("Weights", netuid, mechanism, uid, at).await
    }

    /// Bonds of one validator; an empty row where it has none.
    pub async fn bonds_of(
        &self,
        netuid: NetUid,
        mechanism: u8,
        uid: Uid,
        at: At,
    ) -> Result<AtBlock<WeightRow>, ChainError> {
        self.row("Bonds", netuid, mechanism, uid, at).await
    }

    /// What the owner of a coldkey says about itself.
    pub async fn identity(&self, coldkey: Coldkey, at: At) -> Result<AtBlock<Option<Identity>>, ChainError> {
        let read = move |block: Block| async move {
            let raw: Option<RawIdentity> =
                block.value("the identity", ("SubtensorModule", "IdentitiesV2"), (*coldkey.as_bytes(),)).await?;
            Ok(raw.map(|raw| Identity {
                name: text(&raw.name),
                url: text(&raw.url),
                github_repo: text(&raw.github_repo),
                image: text(&raw.image),
                discord: text(&raw.discord),
                description: text(&raw.description),
                additional: text(&raw.additional),
            }))
        };
        self.read(at, read).await
    }

    /// What the owner of a subnet says about it.
    pub async fn subnet_identity(&self, netuid: NetUid, at: At) -> Result<AtBlock<Option<SubnetIdentity>>, ChainError> {
        let read = move |block: Block| async move {
            let entry = ("SubtensorModule", "SubnetIdentitiesV3");
            let raw: Option<RawSubnetIdentity> = block.value("the subnet's identity", entry, (netuid.0,)).await?;
            Ok(raw.map(|raw| SubnetIdentity {
                subnet_name: text(&raw.subnet_name),
                github_repo: text(&raw.github_repo),
                subnet_contact: text(&raw.subnet_contact),
                subnet_url: text(&raw.subnet_url),
                discord: text(&raw.discord),
                description: text(&raw.description),
                logo_url: text(&raw.logo_url),
                additional: text(&raw.additional),
            }))
        };
        self.read(at, read).await
    }

    /// Hyperparameters of a subnet, by the highest version of the chain's answer that its runtime has; `None` where
    /// there is no such subnet.
    pub async fn hyperparameters(
        &self,
        netuid: NetUid,
        at: At,
    ) -> Result<AtBlock<Option<Hyperparameters>>, ChainError> {
        let read = move |block: Block| async move {
            let (version, method) = block.hyperparameters_method()?;
            let call = ("SubnetInfoRuntimeApi", method.as_str());
            let answer: Option<Value> = block.call("the hyperparameters", call, (netuid.0,)).await?;
            let Some(answer) = answer else { return Ok(None) };
            let values = hyperparameters(&answer)
                .ok_or_else(|| undecodable("the hyperparameters")(format!("{method} has an unknown form")))?;
            Ok(Some(Hyperparameters { netuid, version, values }))
        };
        self.read(at, read).await
    }

    /// What an account has; nothing where it does not exist.
    pub async fn balance(&self, coldkey: Coldkey, at: At) -> Result<AtBlock<Balance>, ChainError> {
        let read = move |block: Block| async move {
            let raw: Option<RawAccount> =
                block.value("the balance", ("System", "Account"), (*coldkey.as_bytes(),)).await?;
            Ok(raw.map_or_else(Balance::default, |raw| Balance {
                free: Tao::from_rao(raw.data.free),
                reserved: Tao::from_rao(raw.data.reserved),
                frozen: Tao::from_rao(raw.data.frozen),
                nonce: raw.nonce,
            }))
        };
        self.read(at, read).await
    }

    /// Stake of a coldkey on a hotkey in a subnet; `None` where there is no such hotkey.
    pub async fn stake(
        &self,
        hotkey: Hotkey,
        coldkey: Coldkey,
        netuid: NetUid,
        at: At,
    ) -> Result<AtBlock<Option<Stake>>, ChainError> {
        let read = move |block: Block| async move {
            let call = ("StakeInfoRuntimeApi", "get_stake_info_for_hotkey_coldkey_netuid");
            let arguments = (*hotkey.as_bytes(), *coldkey.as_bytes(), netuid.0);
            let raw: Option<RawStake> = block.call("the stake", call, arguments).await?;
            let stake = |raw: RawStake| Stake {
                hotkey,
                coldkey,
                netuid,
                stake: Alpha::from_rao(raw.stake),
                is_registered: raw.is_registered,
            };
            Ok(raw.map(stake))
        };
        self.read(at, read).await
    }

    /// What a neuron published with `set_commitment`.
    pub async fn commitment(
        &self,
        netuid: NetUid,
        hotkey: Hotkey,
        at: At,
    ) -> Result<AtBlock<Option<Commitment>>, ChainError> {
        let read = move |block: Block| async move {
            let raw: Option<Value> = block.value("the commitment", COMMITMENTS, (netuid.0, *hotkey.as_bytes())).await?;
            raw.map(|raw| commitment(hotkey, &raw)).transpose()
        };
        self.read(at, read).await
    }

    /// What all neurons of a subnet published, in the order of hotkeys.
    pub async fn commitments(&self, netuid: NetUid, at: At) -> Result<AtBlock<Vec<Commitment>>, ChainError> {
        let read = move |block: Block| async move {
            let entries = block.entries::<(u16, [u8; 32]), Value>("the commitments", COMMITMENTS, netuid.0).await?;
            let mut all = entries
                .iter()
                .map(|((_, hotkey), raw)| commitment((*hotkey).into(), raw))
                .collect::<Result<Vec<_>, _>>()?;
            all.sort_by_key(|commitment| commitment.hotkey);
            Ok(all)
        };
        self.read(at, read).await
    }

    /// Where a neuron says that it can be reached.
    pub async fn axon(&self, netuid: NetUid, hotkey: Hotkey, at: At) -> Result<AtBlock<Option<Axon>>, ChainError> {
        let read = move |block: Block| async move {
            let entry = ("SubtensorModule", "Axons");
            let raw: Option<RawAxon> = block.value("the axon", entry, (netuid.0, *hotkey.as_bytes())).await?;
            Ok(raw.and_then(|raw| to_axon(&raw)))
        };
        self.read(at, read).await
    }

    /// The events of a block, by name.
    pub async fn events(&self, at: At) -> Result<AtBlock<Vec<Event>>, ChainError> {
        const WHAT: &str = "the events";
        let read = move |block: Block| async move {
            let at = block.runtimes.storage.at(block.head).await?;
            let events = at.events().fetch().await.map_err(|error| match error {
                EventsError::CannotFetchEventBytes(error) => refused(WHAT)(error),
                error => undecodable(WHAT)(error),
            })?;
            let event = |event: Result<subxt::events::Event<'_, _>, EventsError>| {
                let event = event.map_err(undecodable(WHAT))?;
                let extrinsic = match event.phase() {
                    Phase::ApplyExtrinsic(index) => Some(index),
                    Phase::Finalization | Phase::Initialization => None,
                };
                let (pallet, name) = (event.pallet_name().to_owned(), event.event_name().to_owned());
                Ok(Event { index: event.index(), extrinsic, pallet, name })
            };
            events.iter().map(event).collect::<Result<Vec<_>, ChainError>>()
        };
        self.read(at, read).await
    }

    async fn matrix(
        &self,
        entry: &'static str,
        netuid: NetUid,
        mechanism: u8,
        at: At,
    ) -> Result<AtBlock<WeightMatrix>, ChainError> {
        let read = move |block: Block| async move {
            let index = storage_index(netuid, mechanism, &block.runtimes)?;
            let entry = ("SubtensorModule", entry);
            let entries = block.entries::<(u16, u16), Vec<(u16, u16)>>("the weights", entry, index).await?;
            let mut rows: Vec<WeightRow> = entries
                .into_iter()
                .filter(|(_, row)| !row.is_empty())
                .map(|((_, uid), row)| weight_row(Uid(uid), row))
                .collect();
            rows.sort_by_key(|row| row.uid);
            Ok(WeightMatrix { netuid, mechanism, rows })
        };
        self.read(at, read).await
    }

    async fn row(
        &self,
        entry: &'static str,
        netuid: NetUid,
        mechanism: u8,
        uid: Uid,
        at: At,
    ) -> Result<AtBlock<WeightRow>, ChainError> {
        let read = move |block: Block| async move {
            let index = storage_index(netuid, mechanism, &block.runtimes)?;
            let row: Option<Vec<(u16, u16)>> =
                block.value("the weights", ("SubtensorModule", entry), (index, uid.0)).await?;
            Ok(weight_row(uid, row.unwrap_or_default()))
        };
        self.read(at, read).await
    }

    /// Reads at a block: on the connection in use, on another one when that is lost meanwhile, and on an archive node
    /// when the state is gone.
    async fn read<T, F>(&self, at: At, read: impl Fn(Block) -> F) -> Result<AtBlock<T>, ChainError>
    where
        F: Future<Output = Result<T, ChainError>>,
    {
        let reading = async {
            let connection = self.connection().await?;
            match Self::read_on(&connection, at, &read).await {
                Err(error) if error.is_connection_lost() => {
                    let other = self.connection_other_than(Some(&connection)).await?;
                    Self::read_on(&other, at, &read).await
                }
                Err(error) if error.is_state_discarded() && !self.config.borrow().archive_endpoints.is_empty() => {
                    let archive = self.archive(&connection).await?;
                    Self::read_on(&archive, at, &read).await
                }
                answer => answer,
            }
        };
        let timeout = |_| Err(ChainError::Timeout { operation: "a read", after: READ_DEADLINE });
        tokio::time::timeout(READ_DEADLINE, reading).await.unwrap_or_else(timeout)
    }

    async fn read_on<T, F>(
        connection: &Connection,
        at: At,
        read: &impl Fn(Block) -> F,
    ) -> Result<AtBlock<T>, ChainError>
    where
        F: Future<Output = Result<T, ChainError>>,
    {
        let block = Block::of(connection, at).await?;
        let head = block.head;
        let value = match read(block).await {
            // Perhaps the runtime changed and nobody said so.
            Err(error) if error.is_decode() && at == At::Head => {
                connection.runtimes().doubt();
                let runtimes = connection.runtimes().at_head(head).await?;
                read(Block { connection: connection.clone(), head, runtimes }).await?
            }
            answer => answer?,
        };
        Ok(AtBlock { block: head.number, block_hash: head.hash, value })
    }

    async fn connection_other_than(&self, lost: Option<&Connection>) -> Result<Connection, ChainError> {
        let mut connections = self.connection.clone();
        let usable = |connection: &Option<Connection>| {
            connection.as_ref().is_some_and(|connection| lost.is_none_or(|lost| !lost.is(connection)))
        };
        let mut view = self.view.clone();
        // Where every endpoint failed there is nothing to wait for.
        let is_down = |view: &Arc<ChainView>| {
            let down = |problem: &ChainProblem| problem.is_configuration() || problem.reason() == "EndpointDown";
            view.problem.as_ref().is_some_and(down)
        };
        let found = async {
            tokio::select! {
                biased;
                found = connections.wait_for(usable) => found.ok().and_then(|connection| connection.clone()),
                _ = view.wait_for(is_down) => None,
            }
        };
        let found = tokio::time::timeout(CONNECT_DEADLINE, found).await.ok().flatten();
        found.ok_or_else(|| {
            let problem = self.view.borrow().problem.as_ref().map(ToString::to_string);
            let problem = problem.unwrap_or_else(|| "the connection was lost a moment ago".to_owned());
            ChainError::NotConnected { problem }
        })
    }

    /// A connection to the first archive endpoint that works and has the same chain.
    async fn archive(&self, current: &Connection) -> Result<Connection, ChainError> {
        let mut held = self.archive.lock().await;
        let endpoints = self.config.borrow().archive_endpoints.clone();
        if let Some(connection) = held.as_ref()
            && connection.is_open()
            && endpoints.iter().any(|endpoint| endpoint == connection.endpoint())
            && connection.genesis_hash() == current.genesis_hash()
        {
            return Ok(connection.clone());
        }
        *held = None;
        let mut last = None;
        for endpoint in endpoints {
            match Connection::open(&endpoint, self.paces.of(&endpoint)).await {
                Ok(connection) if connection.genesis_hash() == current.genesis_hash() => {
                    return Ok(held.insert(connection).clone());
                }
                Ok(connection) => {
                    let problem = format!(
                        "archive endpoint `{endpoint}` has genesis hash {}, expected {}: correct the endpoint",
                        connection.genesis_hash(),
                        current.genesis_hash()
                    );
                    last = Some(ChainError::NotConnected { problem });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(ChainError::NotConnected { problem: "no archive endpoint is configured".to_owned() }))
    }
}

const COMMITMENTS: (&str, &str) = ("Commitments", "CommitmentOf");

impl Block {
    async fn of(connection: &Connection, at: At) -> Result<Self, ChainError> {
        let connection = connection.clone();
        let hash = match at {
            At::Head => {
                let head = connection.newest_finalized().await?;
                let runtimes = connection.runtimes().at_head(head).await?;
                return Ok(Self { connection, head, runtimes });
            }
            At::Block(block) => connection.hash_of(block).await?,
            At::Hash(hash) => hash,
        };
        let header = connection.header(hash).await?;
        let runtimes = connection.runtimes().of(hash, &header).await?;
        Ok(Self { connection, head: Head { number: header.number, hash }, runtimes })
    }

    /// One value of storage, or its default where the chain gives it one.
    async fn value<K, V>(
        &self,
        what: &'static str,
        (pallet, entry): (&str, &str),
        key: K,
    ) -> Result<Option<V>, ChainError>
    where
        K: IntoEncodableValues + IntoDecodableValues + Send + Sync,
        V: DecodeAsType,
    {
        let at = self.runtimes.storage.at(self.head).await?;
        let address = dynamic::storage::<K, V>(pallet, entry);
        let storage = at.storage();
        let value = storage.try_fetch(address, key).await.map_err(self.storage_failed(what))?;
        value.map(|value| value.decode().map_err(undecodable(what))).transpose()
    }

    /// Every entry of a map under its first key.
    async fn entries<K, V>(
        &self,
        what: &'static str,
        (pallet, entry): (&str, &str),
        first: u16,
    ) -> Result<Vec<(K, V)>, ChainError>
    where
        K: IntoEncodableValues + IntoDecodableValues + Send + Sync,
        (u16,): subxt::storage::PrefixOf<K>,
        V: DecodeAsType,
    {
        let at = self.runtimes.storage.at(self.head).await?;
        let address = dynamic::storage::<K, V>(pallet, entry);
        let storage = at.storage();
        let mut stream = storage.iter(address, (first,)).await.map_err(self.storage_failed(what))?;
        let mut entries = Vec::new();
        while let Some(item) = stream.next().await {
            let item = item.map_err(self.storage_failed(what))?;
            let key = item.key().and_then(|key| key.decode()).map_err(undecodable(what))?;
            entries.push((key, item.value().decode().map_err(undecodable(what))?));
        }
        Ok(entries)
    }

    /// One call of the runtime.
    async fn call<A, V>(&self, what: &'static str, (api, method): (&str, &str), arguments: A) -> Result<V, ChainError>
    where
        A: IntoEncodableValues + Send + Sync,
        V: DecodeAsType,
    {
        let at = self.runtimes.calls.at(self.head).await?;
        let call = dynamic::runtime_api_call::<A, V>(api, method, arguments);
        let spec_version = self.runtimes.calls.spec_version;
        at.runtime_apis().call(call).await.map_err(|error| match error {
            RuntimeApiError::CannotCallApi(error) => refused(what)(error),
            RuntimeApiError::TraitNotFound(_) | RuntimeApiError::MethodNotFound { .. } => {
                ChainError::Unsupported { what: format!("{api}.{method}"), spec_version }
            }
            error => undecodable(what)(error),
        })
    }

    /// The newest form of the hyperparameters that the runtime has: `get_subnet_hyperparams`, `..._v2` and so on.
    fn hyperparameters_method(&self) -> Result<(u8, String), ChainError> {
        const FIRST: &str = "get_subnet_hyperparams";
        let runtime = &self.runtimes.calls;
        let api = runtime.metadata.runtime_api_trait_by_name("SubnetInfoRuntimeApi");
        let version = |name: &str| match name.strip_prefix(FIRST)? {
            "" => Some(1),
            suffix => suffix.strip_prefix("_v")?.parse().ok(),
        };
        let methods = api.into_iter().flat_map(|api| api.methods().collect::<Vec<_>>());
        methods
            .filter_map(|method| Some((version(method.name())?, method.name().to_owned())))
            .max()
            .ok_or_else(|| ChainError::Unsupported { what: FIRST.to_owned(), spec_version: runtime.spec_version })
    }

    fn storage_failed(&self, what: &'static str) -> impl Fn(StorageError) -> ChainError + use<> {
        let spec_version = self.runtimes.storage.spec_version;
        move |error| match error {
            StorageError::CannotFetchValue(error)
            | StorageError::CannotIterateValues(error)
            | StorageError::StreamFailure(error) => refused(what)(error),
            StorageError::PalletNameNotFound(pallet) => ChainError::Unsupported { what: pallet, spec_version },
            StorageError::StorageEntryNotFound { pallet_name, entry_name } => {
                ChainError::Unsupported { what: format!("{pallet_name}.{entry_name}"), spec_version }
            }
            error => undecodable(what)(error),
        }
    }
}

/// The chain's `ChainIdentityV2`.
#[derive(DecodeAsType)]
struct RawIdentity {
    name: Vec<u8>,
    url: Vec<u8>,
    github_repo: Vec<u8>,
    image: Vec<u8>,
    discord: Vec<u8>,
    description: Vec<u8>,
    additional: Vec<u8>,
}

/// The chain's `SubnetIdentityV3`.
#[derive(DecodeAsType)]
struct RawSubnetIdentity {
    subnet_name: Vec<u8>,
    github_repo: Vec<u8>,
    subnet_contact: Vec<u8>,
    subnet_url: Vec<u8>,
    discord: Vec<u8>,
    description: Vec<u8>,
    logo_url: Vec<u8>,
    additional: Vec<u8>,
}

/// The chain's `AccountInfo`.
#[derive(DecodeAsType)]
struct RawAccount {
    nonce: u32,
    data: RawAccountData,
}

/// The chain's `AccountData`.
#[derive(DecodeAsType)]
struct RawAccountData {
    free: u64,
    reserved: u64,
    frozen: u64,
}

/// The chain's `StakeInfo`, what is not in the question.
#[derive(DecodeAsType)]
struct RawStake {
    stake: u64,
    is_registered: bool,
}

/// The index under which weights and bonds of a mechanism are kept.
fn storage_index(netuid: NetUid, mechanism: u8, runtimes: &RuntimesOfBlock) -> Result<u16, ChainError> {
    let index = u16::from(mechanism).checked_mul(NETUIDS_PER_MECHANISM).and_then(|base| base.checked_add(netuid.0));
    index.filter(|_| netuid.0 < NETUIDS_PER_MECHANISM).ok_or_else(|| ChainError::Unsupported {
        what: format!("mechanism {mechanism} of netuid {netuid}"),
        spec_version: runtimes.storage.spec_version,
    })
}

fn weight_row(uid: Uid, targets: Vec<(u16, u16)>) -> WeightRow {
    WeightRow { uid, targets: targets.into_iter().map(|(uid, value)| (Uid(uid), value)).collect() }
}

/// What people wrote: kept as far as it is text.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Names of amounts in the versions of the answer that do not say so themselves.
const TAO_NAMES: [&str; 2] = ["min_burn", "max_burn"];

/// Reads every version of the answer: one struct with a field for each, or a list of names and values.
fn hyperparameters(answer: &Value) -> Option<BTreeMap<String, HyperparamValue>> {
    let ValueDef::Composite(composite) = &answer.value else { return None };
    match composite {
        Composite::Named(fields) => fields
            .iter()
            .map(|(name, value)| {
                let value = match hyperparameter(value)? {
                    HyperparamValue::Integer(rao) if TAO_NAMES.contains(&name.as_str()) => {
                        HyperparamValue::Tao(Tao::from_rao(rao))
                    }
                    value => value,
                };
                Some((name.clone(), value))
            })
            .collect(),
        Composite::Unnamed(entries) => entries
            .iter()
            .map(|entry| {
                let name = String::from_utf8(to_bytes(field(entry, "name")?)?).ok()?;
                let ValueDef::Variant(variant) = &field(entry, "value")?.value else { return None };
                let inner = hyperparameter(variant.values.values().next()?)?;
                let value = match (variant.name.as_str(), inner) {
                    ("TaoBalance", HyperparamValue::Integer(rao)) => HyperparamValue::Tao(Tao::from_rao(rao)),
                    // The fixed-point types differ in where their point is.
                    ("U64F64", HyperparamValue::Fraction(value)) => HyperparamValue::Fraction(value / 2_f64.powi(32)),
                    (_, value) => value,
                };
                Some((name, value))
            })
            .collect(),
    }
}

/// One value. Fixed-point numbers are taken for the 32 binary digits behind the point that most of the chain's have.
fn hyperparameter(value: &Value) -> Option<HyperparamValue> {
    match &value.value {
        ValueDef::Primitive(Primitive::Bool(flag)) => Some(HyperparamValue::Bool(*flag)),
        ValueDef::Primitive(Primitive::U128(number)) => {
            // Larger ones do not occur; as a float they would be shown, not lost.
            Some(
                u64::try_from(*number)
                    .map_or_else(|_| HyperparamValue::Fraction(float(*number)), HyperparamValue::Integer),
            )
        }
        ValueDef::Composite(Composite::Named(fields)) => match fields.first() {
            Some((name, bits)) if name == "bits" => match bits.value {
                ValueDef::Primitive(Primitive::U128(bits)) => {
                    Some(HyperparamValue::Fraction(float(bits) / 2_f64.powi(32)))
                }
                ValueDef::Primitive(Primitive::I128(bits)) => {
                    let size = float(bits.unsigned_abs()) / 2_f64.powi(32);
                    Some(HyperparamValue::Fraction(if bits < 0 { -size } else { size }))
                }
                _ => None,
            },
            Some((_, inner)) if fields.len() == 1 => hyperparameter(inner),
            _ => None,
        },
        ValueDef::Composite(Composite::Unnamed(fields)) if fields.len() == 1 => hyperparameter(&fields[0]),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "what it makes is shown, not counted with")]
fn float(number: u128) -> f64 {
    number as f64
}

fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let ValueDef::Composite(Composite::Named(fields)) = &value.value else { return None };
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// A whole number, under any wrappers.
fn integer(value: &Value) -> Option<u64> {
    match hyperparameter(value)? {
        HyperparamValue::Integer(number) => Some(number),
        _ => None,
    }
}

/// Bytes, under any wrappers.
fn to_bytes(value: &Value) -> Option<Vec<u8>> {
    let ValueDef::Composite(composite) = &value.value else { return None };
    let items: Vec<&Value> = composite.values().collect();
    match items[..] {
        [only] if matches!(only.value, ValueDef::Composite(_)) => to_bytes(only),
        _ => items.into_iter().map(|item| u8::try_from(integer(item)?).ok()).collect(),
    }
}

fn commitment(hotkey: Hotkey, raw: &Value) -> Result<Commitment, ChainError> {
    let read = || {
        let fields = field(field(raw, "info")?, "fields")?;
        let mut list = fields;
        // A bounded list is a list in a wrapper.
        while let ValueDef::Composite(composite) = &list.value
            && let [only] = composite.values().collect::<Vec<_>>()[..]
            && matches!(only.value, ValueDef::Composite(_))
        {
            list = only;
        }
        let ValueDef::Composite(list) = &list.value else { return None };
        Some(Commitment {
            hotkey,
            block: integer(field(raw, "block")?)?,
            deposit: Tao::from_rao(integer(field(raw, "deposit")?)?),
            fields: list.values().map(commitment_field).collect::<Option<_>>()?,
        })
    };
    read().ok_or_else(|| undecodable("the commitment")("it has an unknown form"))
}

/// The chain has a variant for each length of short bytes: `Raw0` to `Raw128`.
fn commitment_field(value: &Value) -> Option<CommitmentField> {
    let ValueDef::Variant(variant) = &value.value else { return None };
    let inner = variant.values.values().next();
    let bytes = match inner {
        Some(inner) => to_bytes(inner)?,
        None => Vec::new(),
    };
    let hex = const_hex::encode_prefixed(&bytes);
    Some(match variant.name.as_str() {
        "None" => CommitmentField::None,
        name if name.starts_with("Raw") || name == "BigRaw" => {
            CommitmentField::Raw { bytes: hex, text: String::from_utf8(bytes).ok() }
        }
        form => CommitmentField::Other { form: form.to_owned(), bytes: hex },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
        Value::named_composite(fields.into_iter().map(|(name, value)| (name.to_owned(), value)))
    }

    #[test]
    fn both_forms_of_hyperparameters_are_read() {
        let fixed = named([("bits", Value::i128(-3 << 31))]);
        let old = named([
            ("tempo", Value::u128(360)),
            ("min_burn", Value::u128(500_000)),
            ("registration_allowed", Value::bool(true)),
            ("alpha_sigmoid_steepness", fixed.clone()),
        ]);
        let entry = |name: &str, kind: &str, value: Value| {
            named([("name", Value::from_bytes(name)), ("value", Value::unnamed_variant(kind, [value]))])
        };
        let new = Value::unnamed_composite([
            entry("tempo", "U16", Value::u128(360)),
            entry("min_burn", "TaoBalance", Value::unnamed_composite([Value::u128(500_000)])),
            entry("registration_allowed", "Bool", Value::bool(true)),
            entry("alpha_sigmoid_steepness", "I32F32", fixed),
        ]);
        let expected = BTreeMap::from([
            ("tempo".to_owned(), HyperparamValue::Integer(360)),
            ("min_burn".to_owned(), HyperparamValue::Tao(Tao::from_rao(500_000))),
            ("registration_allowed".to_owned(), HyperparamValue::Bool(true)),
            ("alpha_sigmoid_steepness".to_owned(), HyperparamValue::Fraction(-1.5)),
        ]);
        assert_eq!(hyperparameters(&old).unwrap(), expected);
        assert_eq!(hyperparameters(&new).unwrap(), expected);
        let mult = entry("burn_increase_mult", "U64F64", named([("bits", Value::u128(5 << 63))]));
        let read = hyperparameters(&Value::unnamed_composite([mult])).unwrap();
        assert_eq!(read["burn_increase_mult"], HyperparamValue::Fraction(2.5));
    }

    #[test]
    fn a_form_that_nobody_knows_is_refused() {
        assert_eq!(hyperparameters(&Value::u128(5)), None);
        assert_eq!(hyperparameters(&named([("tempo", Value::string("x"))])), None);
    }

    #[test]
    fn commitments_show_their_text_and_their_bytes() {
        let data = |name: &str, bytes: &[u8]| Value::unnamed_variant(name, [Value::from_bytes(bytes)]);
        let fields = Value::unnamed_composite([Value::unnamed_composite([
            data("Raw5", b"hello"),
            data("Raw1", &[0xff]),
            data("Sha256", &[1; 32]),
            Value::unnamed_variant("None", []),
        ])]);
        let raw =
            named([("deposit", Value::u128(7)), ("block", Value::u128(9)), ("info", named([("fields", fields)]))]);
        let read = commitment([1; 32].into(), &raw).unwrap();
        assert_eq!((read.block, read.deposit), (9, Tao::from_rao(7)));
        let hello = CommitmentField::Raw { bytes: "0x68656c6c6f".into(), text: Some("hello".into()) };
        assert_eq!(read.fields[0], hello);
        assert_eq!(read.fields[1], CommitmentField::Raw { bytes: "0xff".into(), text: None });
        let CommitmentField::Other { form, .. } = &read.fields[2] else { panic!("{:?}", read.fields) };
        assert_eq!((form.as_str(), &read.fields[3]), ("Sha256", &CommitmentField::None));
    }
}
