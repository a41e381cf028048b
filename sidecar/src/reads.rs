//! What the HTTP API reads from the chain beyond the metagraph that is held: the seam between the handlers and the chain
//! client, so that handlers can be tested without a chain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sidecar_metagraph::{At, ChainError, QuerierHandle};
use sidecar_util::chain::{AtBlock, Balance, HyperparamValue, WeightRow};
use sidecar_util::config::NetworkConfig;
use sidecar_util::{BlockHash, Coldkey, NetUid, Tao, Uid};
use tokio::sync::watch;
use utoipa::ToSchema;

/// Reads the chain, at a block or at the last final one.
#[async_trait]
pub(crate) trait ChainReads: Send + Sync {
    /// Weights or bonds.
    async fn matrix(&self, asked: MatrixAsked) -> Result<MatrixBody, ReadFailure>;

    /// The hyperparameters of the subnet.
    async fn hyperparameters(&self, block: Option<u64>) -> Result<HyperparametersBody, ReadFailure>;

    /// Identities of the subnet and of some coldkeys.
    async fn identities(&self, coldkeys: BTreeSet<Coldkey>, block: Option<u64>) -> Result<IdentitiesBody, ReadFailure>;

    /// What a coldkey holds.
    async fn balance(&self, coldkey: Coldkey, block: Option<u64>) -> Result<BalanceBody, ReadFailure>;
}

/// Why something was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadFailure {
    /// There is no such block or subnet, its state is not kept, or its runtime has nothing of the kind.
    Absent(String),
    /// The chain cannot be read; a word of a closed set, and a sentence.
    Chain { reason: &'static str, detail: String },
}

/// Which values are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Matrix {
    /// What validators set.
    Weights,
    /// What they hold of miners.
    Bonds,
}

/// A matrix, or one row of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MatrixAsked {
    /// Which.
    pub(crate) matrix: Matrix,
    /// Mechanism of the subnet.
    pub(crate) mechanism: u8,
    /// Only the row of this neuron.
    pub(crate) uid: Option<Uid>,
    /// At this block.
    pub(crate) block: Option<u64>,
}

/// `GET /v1/weights` and `/v1/bonds`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct MatrixBody {
    /// The subnet.
    pub(crate) netuid: NetUid,
    /// Mechanism of the subnet.
    pub(crate) mechanism: u8,
    /// Block this was read at.
    pub(crate) block: u64,
    /// Its hash.
    pub(crate) block_hash: BlockHash,
    /// In the order of uids, without those that have no values.
    pub(crate) rows: Vec<MatrixRow>,
}

/// The values of one neuron.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct MatrixRow {
    /// Whose they are.
    pub(crate) uid: Uid,
    /// Of whom, in the order of uids.
    pub(crate) values: Vec<MatrixValue>,
}

/// One value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct MatrixValue {
    /// Of whom.
    pub(crate) uid: Uid,
    /// As the chain stores it: only its proportion to the other values of the row means something.
    pub(crate) value: u16,
}

/// `GET /v1/hyperparameters`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct HyperparametersBody {
    /// The subnet.
    pub(crate) netuid: NetUid,
    /// Block this was read at.
    pub(crate) block: u64,
    /// Its hash.
    pub(crate) block_hash: BlockHash,
    /// By the names the chain gives them.
    pub(crate) hyperparameters: BTreeMap<String, serde_json::Value>,
}

/// `GET /v1/identities`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct IdentitiesBody {
    /// The subnet.
    pub(crate) netuid: NetUid,
    /// Block this was read at.
    pub(crate) block: u64,
    /// Its hash.
    pub(crate) block_hash: BlockHash,
    /// What the subnet says of itself, by the names of the chain; absent when it says nothing.
    pub(crate) subnet: Option<BTreeMap<String, String>>,
    /// What those owners say of themselves that were asked about, by their address; absent when they say nothing.
    #[schema(value_type = BTreeMap<String, BTreeMap<String, String>>)]
    pub(crate) coldkeys: BTreeMap<Coldkey, BTreeMap<String, String>>,
}

/// `GET /v1/balances/{coldkey}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct BalanceBody {
    /// Whose it is.
    pub(crate) coldkey: Coldkey,
    /// Block this was read at.
    pub(crate) block: u64,
    /// Its hash.
    pub(crate) block_hash: BlockHash,
    /// What can be spent, apart from what is frozen.
    pub(crate) free: Tao,
    /// What is set aside.
    pub(crate) reserved: Tao,
    /// The part of `free` that cannot be spent.
    pub(crate) frozen: Tao,
}

/// Reads over the connection of the querier.
pub(crate) struct QuerierReads {
    /// The chain.
    pub(crate) chain: QuerierHandle,
    /// Says which subnet.
    pub(crate) network: watch::Receiver<Arc<NetworkConfig>>,
}

impl QuerierReads {
    fn netuid(&self) -> NetUid {
        self.network.borrow().netuid
    }
}

fn map<T, U>(found: AtBlock<T>, change: impl FnOnce(T) -> U) -> AtBlock<U> {
    AtBlock { block: found.block, block_hash: found.block_hash, value: change(found.value) }
}

fn at(block: Option<u64>) -> At {
    block.map_or(At::Head, At::Block)
}

impl From<ChainError> for ReadFailure {
    fn from(error: ChainError) -> Self {
        let reason = match &error {
            ChainError::NoBlock { .. } | ChainError::Unsupported { .. } | ChainError::StateDiscarded { .. } => {
                return Self::Absent(error.to_string());
            }
            ChainError::RateLimited { .. } => "RateLimited",
            ChainError::Decode { .. } => "DecodeFailed",
            ChainError::Rpc { .. } => "RequestRefused",
            _ => "EndpointDown",
        };
        Self::Chain { reason, detail: error.chain() }
    }
}

impl From<WeightRow> for MatrixRow {
    fn from(row: WeightRow) -> Self {
        let mut values: Vec<_> = row.targets.into_iter().map(|(uid, value)| MatrixValue { uid, value }).collect();
        values.sort_by_key(|value| value.uid);
        Self { uid: row.uid, values }
    }
}

/// The texts of an identity by the names of their fields, without those that are empty.
fn texts<T: Serialize>(identity: &T) -> BTreeMap<String, String> {
    let fields = serde_json::to_value(identity).ok();
    let fields = fields.as_ref().and_then(serde_json::Value::as_object).into_iter().flatten();
    let texts = fields.filter_map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned())));
    texts.filter(|(_, text)| !text.is_empty()).collect()
}

#[async_trait]
impl ChainReads for QuerierReads {
    async fn matrix(&self, asked: MatrixAsked) -> Result<MatrixBody, ReadFailure> {
        let (reads, netuid, mechanism, at) = (self.chain.reads(), self.netuid(), asked.mechanism, at(asked.block));
        let found = match (asked.matrix, asked.uid) {
            (Matrix::Weights, None) => map(reads.weights(netuid, mechanism, at).await?, |matrix| matrix.rows),
            (Matrix::Bonds, None) => map(reads.bonds(netuid, mechanism, at).await?, |matrix| matrix.rows),
            (Matrix::Weights, Some(uid)) => map(reads.weights_of(netuid, mechanism, uid, at).await?, |row| vec![row]),
            (Matrix::Bonds, Some(uid)) => map(reads.bonds_of(netuid, mechanism, uid, at).await?, |row| vec![row]),
        };
        let rows = found.value.into_iter().filter(|row| !row.targets.is_empty()).map(MatrixRow::from);
        Ok(MatrixBody { netuid, mechanism, block: found.block, block_hash: found.block_hash, rows: rows.collect() })
    }

    async fn hyperparameters(&self, block: Option<u64>) -> Result<HyperparametersBody, ReadFailure> {
        let netuid = self.netuid();
        let found = self.chain.reads().hyperparameters(netuid, at(block)).await?;
        let values = found.value.ok_or_else(|| {
            ReadFailure::Absent(format!("there is no subnet with netuid {netuid} at block {}", found.block))
        })?;
        let plain = |value: HyperparamValue| match value {
            HyperparamValue::Bool(value) => value.into(),
            HyperparamValue::Integer(value) => value.into(),
            HyperparamValue::Tao(value) => value.to_string().into(),
            HyperparamValue::Fraction(value) => value.into(),
        };
        Ok(HyperparametersBody {
            netuid,
            block: found.block,
            block_hash: found.block_hash,
            hyperparameters: values.values.into_iter().map(|(name, value)| (name, plain(value))).collect(),
        })
    }

    async fn identities(&self, coldkeys: BTreeSet<Coldkey>, block: Option<u64>) -> Result<IdentitiesBody, ReadFailure> {
        let (reads, netuid) = (self.chain.reads(), self.netuid());
        let subnet = reads.subnet_identity(netuid, at(block)).await?;
        let mut found = BTreeMap::new();
        for coldkey in coldkeys {
            // All of them at the block of the first.
            if let Some(identity) = reads.identity(coldkey, At::Hash(subnet.block_hash)).await?.value {
                found.insert(coldkey, texts(&identity));
            }
        }
        let (block, block_hash) = (subnet.block, subnet.block_hash);
        Ok(IdentitiesBody { netuid, block, block_hash, subnet: subnet.value.as_ref().map(texts), coldkeys: found })
    }

    async fn balance(&self, coldkey: Coldkey, block: Option<u64>) -> Result<BalanceBody, ReadFailure> {
        let found = self.chain.reads().balance(coldkey, at(block)).await?;
        let Balance { free, reserved, frozen, .. } = found.value;
        Ok(BalanceBody { coldkey, block: found.block, block_hash: found.block_hash, free, reserved, frozen })
    }
}
