//! The chain as the rest of this crate sees it: a small trait, so that everything above it can be tested without a node.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use sidecar_util::{BlockHash, Metagraph, NetUid};

use crate::ChainError;
use crate::client::Connection;
use crate::pace::Pace;

/// A block: its number and its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// Number of the block.
    pub number: u64,
    /// Hash of the block.
    pub hash: BlockHash,
}

/// Blocks, beginning with the one that is the newest already. When the connection ends, an error is the last item.
pub type Heads = BoxStream<'static, Result<Head, ChainError>>;

/// One live connection to one endpoint of a chain.
///
/// # Guarantees
/// Every call returns within a deadline, whatever the other end does. Nothing reconnects behind the caller's back: after
/// an error with [`ChainError::is_connection_lost`] the source is of no further use.
#[async_trait]
pub trait ChainSource: Send + Sync {
    /// Hash of block 0.
    fn genesis_hash(&self) -> BlockHash;

    /// Version of the runtime that the last call met.
    fn spec_version(&self) -> Option<u32>;

    /// Time between two blocks as the chain declares it; `None` where it declares none.
    fn block_time(&self) -> Option<Duration>;

    /// The best block.
    async fn head(&self) -> Result<Head, ChainError>;

    /// The last finalised block.
    async fn finalized_head(&self) -> Result<Head, ChainError>;

    /// Best blocks from now on.
    async fn heads(&self) -> Result<Heads, ChainError>;

    /// Final blocks from now on. Some may be skipped when several become final at once.
    async fn finalized_heads(&self) -> Result<Heads, ChainError>;

    /// The subnet at a block; `None` where the chain has no such subnet.
    async fn metagraph(&self, netuid: NetUid, at: Head) -> Result<Option<Metagraph>, ChainError>;

    /// The connection behind it, for reads and extrinsics beyond this trait; a source in memory has none.
    fn connection(&self) -> Option<Connection> {
        None
    }
}

/// What a short look at an endpoint shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Hash of block 0 there.
    pub genesis_hash: BlockHash,
    /// Number of the best block there.
    pub best: u64,
}

/// Makes connections.
#[async_trait]
pub trait Connect: Send + Sync {
    /// Connects to one endpoint, within a deadline.
    async fn connect(&self, endpoint: &str) -> Result<Arc<dyn ChainSource>, ChainError>;

    /// The same at the pace that the endpoint allows, which several connections share.
    async fn connect_paced(&self, endpoint: &str, _pace: Arc<Pace>) -> Result<Arc<dyn ChainSource>, ChainError> {
        self.connect(endpoint).await
    }

    /// Looks whether an endpoint works, without all that a connection to stay needs.
    async fn probe(&self, endpoint: &str, pace: Arc<Pace>) -> Result<Probe, ChainError> {
        let source = self.connect_paced(endpoint, pace).await?;
        Ok(Probe { genesis_hash: source.genesis_hash(), best: source.head().await?.number })
    }
}
