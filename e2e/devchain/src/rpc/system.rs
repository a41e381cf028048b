//! `system_*` and `account_*`.

use std::sync::Arc;

use jsonrpsee::RpcModule;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::{Value, json};

use super::params::{Args, json as to_json, to_hex};
use super::{Answer, RpcFailure};
use crate::keys;
use crate::node::Node;

/// Name of the chain, as the public localnet's.
const CHAIN_NAME: &str = "Bittensor";

/// Identity of a node that has no peers; a well-formed peer id is all that clients ask for.
const LOCAL_PEER_ID: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

fn properties() -> Value {
    json!({ "isEthereum": false, "ss58Format": 42, "tokenDecimals": 9, "tokenSymbol": "TAO" })
}

pub(super) fn register(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    module.register_method("system_chain", |_, _, _| CHAIN_NAME)?;
    module.register_method("chainSpec_v1_chainName", |_, _, _| CHAIN_NAME)?;
    module.register_method("chainSpec_v1_genesisHash", |_, node, _| to_json(&node.genesis_hash()))?;
    module.register_method("chainSpec_v1_properties", |_, _, _| properties())?;
    module.register_method("system_name", |_, _, _| "mycelium-devchain")?;
    module.register_method("system_version", |_, _, _| env!("CARGO_PKG_VERSION"))?;
    module.register_method("system_chainType", |_, _, _| "Development")?;
    module.register_method("system_nodeRoles", |_, _, _| json!(["Authority"]))?;
    module.register_method("system_localPeerId", |_, _, _| LOCAL_PEER_ID)?;
    module.register_method("system_localListenAddresses", |_, _, _| json!([]))?;
    module.register_method("system_peers", |_, _, _| json!([]))?;
    module.register_method("system_properties", |_, _, _| properties())?;
    module.register_method(
        "system_health",
        |_, _, _| json!({ "peers": 0, "isSyncing": false, "shouldHavePeers": false }),
    )?;
    module.register_method("system_syncState", |_, node, _| {
        let best = node.best().header.number;
        json!({ "startingBlock": 0, "currentBlock": best, "highestBlock": best })
    })?;
    module.register_blocking_method("system_accountNextIndex", |params, node, _| -> Answer<Value> {
        let text: String = Args::new(&params).required()?;
        let wrong = |error: keys::KeyError| {
            let why = format!("Invalid params: {error}");
            RpcFailure(ErrorObjectOwned::owned(jsonrpsee::types::error::INVALID_PARAMS_CODE, why, None::<()>))
        };
        let account = keys::account(&text).map_err(wrong)?;
        Ok(node.next_nonce(&account)?.into())
    })?;
    module.register_alias("account_nextIndex", "system_accountNextIndex")?;
    module.register_blocking_method("system_dryRun", |params, node, _| -> Answer<String> {
        let mut args = Args::new(&params);
        let bytes = args.bytes()?;
        Ok(to_hex(node.dry_run(&bytes, args.optional_hash()?)?))
    })?;
    module.register_alias("system_dryRunAt", "system_dryRun")
}
