//! What the HTTP API reads from the chain beyond the metagraph that is held: the seam between the handlers and the chain
//! client, so that handlers can be tested without a chain.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sidecar_util::{BlockHash, Coldkey, NetUid, Tao, Uid};
use utoipa::ToSchema;

/// Reads the chain, at a block or at the last final one.
#[async_trait]
pub(crate) trait ChainReads: Send + Sync {
    /// Weights or bonds.
    async fn matrix(&self, asked: MatrixAsked) -> Result<MatrixBody, ReadFailure>;

    /// The hyperparameters of the subnet.
    async fn hyperparameters(&self, block: Option<u64>) -> Result<HyperparametersBody, ReadFailure>;

    /// Identities of the subnet and of its coldkeys.
    async fn identities(&self, block: Option<u64>) -> Result<IdentitiesBody, ReadFailure>;

    /// What a coldkey holds.
    async fn balance(&self, coldkey: Coldkey, block: Option<u64>) -> Result<BalanceBody, ReadFailure>;
}

/// Why something was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadFailure {
    /// This sidecar's chain client does not read it.
    NotOffered(&'static str),
    /// The chain has no such block, mechanism, row or account.
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
    /// What owners of neurons say of themselves, by their address.
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
    /// What can be spent.
    pub(crate) free: Tao,
    /// What is set aside.
    pub(crate) reserved: Tao,
}

/// A chain client that reads the metagraph only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MetagraphOnly;

#[async_trait]
impl ChainReads for MetagraphOnly {
    async fn matrix(&self, _: MatrixAsked) -> Result<MatrixBody, ReadFailure> {
        Err(ReadFailure::NotOffered("weights and bonds"))
    }

    async fn hyperparameters(&self, _: Option<u64>) -> Result<HyperparametersBody, ReadFailure> {
        Err(ReadFailure::NotOffered("hyperparameters"))
    }

    async fn identities(&self, _: Option<u64>) -> Result<IdentitiesBody, ReadFailure> {
        Err(ReadFailure::NotOffered("identities"))
    }

    async fn balance(&self, _: Coldkey, _: Option<u64>) -> Result<BalanceBody, ReadFailure> {
        Err(ReadFailure::NotOffered("balances"))
    }
}
