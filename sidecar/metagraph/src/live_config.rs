//! subxt's stock configuration, except that it remembers the runtime's version.
//!
//! Stock subxt asks the node for the runtime's version before every use of a block. Here the version is kept until the
//! chain says that it changed (a digest in the header of the block, or the node's subscription), which saves a round trip
//! in every refresh.

use std::sync::Arc;

use parking_lot::RwLock;
use subxt::config::substrate::{SubstrateConfig, SubstrateExtrinsicParams};
use subxt::config::{Config, HashFor};
use subxt::metadata::ArcMetadata;
use subxt::utils::MultiAddress;

/// Version of the runtime and version of its transactions.
pub(crate) type Versions = (u32, u32);

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct LiveConfig {
    /// Does the work; keeps metadata by version.
    inner: SubstrateConfig,
    /// `None` makes subxt ask the node.
    versions: Arc<RwLock<Option<Versions>>>,
}

impl LiveConfig {
    pub(crate) fn new() -> Self {
        Self { inner: SubstrateConfig::new(), versions: Arc::default() }
    }

    pub(crate) fn versions(&self) -> Option<Versions> {
        *self.versions.read()
    }

    pub(crate) fn remember(&self, versions: Versions) {
        *self.versions.write() = Some(versions);
    }

    /// Forgets the version unless it is `spec_version`.
    pub(crate) fn keep_only(&self, spec_version: u32) {
        let mut versions = self.versions.write();
        if versions.is_some_and(|(spec, _)| spec != spec_version) {
            *versions = None;
        }
    }

    pub(crate) fn forget(&self) {
        *self.versions.write() = None;
    }
}

impl Config for LiveConfig {
    type AccountId = <SubstrateConfig as Config>::AccountId;
    // Subtensor's addresses have no account index, as Polkadot's have none.
    type Address = MultiAddress<Self::AccountId, ()>;
    type Signature = <SubstrateConfig as Config>::Signature;
    type Hasher = <SubstrateConfig as Config>::Hasher;
    type Header = <SubstrateConfig as Config>::Header;
    type TransactionExtensions = SubstrateExtrinsicParams<Self>;
    type AssetId = <SubstrateConfig as Config>::AssetId;

    fn genesis_hash(&self) -> Option<HashFor<Self>> {
        self.inner.genesis_hash()
    }

    fn spec_and_transaction_version_for_block_number(&self, _block_number: u64) -> Option<Versions> {
        self.versions()
    }

    fn metadata_for_spec_version(&self, spec_version: u32) -> Option<ArcMetadata> {
        self.inner.metadata_for_spec_version(spec_version)
    }

    fn set_metadata_for_spec_version(&self, spec_version: u32, metadata: ArcMetadata) {
        self.inner.set_metadata_for_spec_version(spec_version, metadata);
    }
}
