//! `state_*`: storage, runtime calls, metadata, and subscriptions to storage.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;

use codec::{Decode, Encode};
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::{PendingSubscriptionSink, RpcModule};
use serde_json::{Value, json};
use sp_core::OpaqueMetadata;
use sp_runtime::traits::{BlakeTwo256, Hash as _};
use sp_version::RuntimeVersion;
use tokio::sync::broadcast::error::RecvError;

use super::chain::send;
use super::params::{Args, json as to_json, to_hex};
use super::{Answer, client_error};
use crate::node::{CallError, ChainEvent, Node, NodeError, StateMap};
use crate::runtime::Hash;

/// Keys of one page, Substrate's limit.
const MAX_PAGE: u32 = 1000;

/// Blocks that one `state_queryStorage` may span.
const MAX_QUERY_BLOCKS: u32 = 4096;

fn value_at(state: &StateMap, key: &[u8]) -> Value {
    state.get(key).map_or(Value::Null, |value| to_hex(value).into())
}

fn keys_with_prefix<'a>(
    state: &'a StateMap,
    prefix: &'a [u8],
    after: Option<&'a [u8]>,
) -> impl Iterator<Item = &'a [u8]> {
    let start = match after.filter(|after| *after >= prefix) {
        Some(after) => Excluded(after),
        None => Included(prefix),
    };
    state.keys_from(start).map(AsRef::as_ref).take_while(move |key| key.starts_with(prefix))
}

pub(super) fn runtime_version(node: &Node, at: Option<Hash>) -> Answer<RuntimeVersion> {
    let encoded = node.runtime_call(at, "Core_version", &[])?;
    RuntimeVersion::decode(&mut encoded.as_slice())
        .map_err(|error| NodeError::Call(CallError::Trapped(error.to_string())).into())
}

fn with_aliases(
    module: &mut RpcModule<Arc<Node>>,
    name: &'static str,
    aliases: &[&'static str],
) -> Result<(), RegisterMethodError> {
    aliases.iter().try_for_each(|alias| module.register_alias(alias, name))
}

pub(super) fn register(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    register_storage(module)?;
    register_keys(module)?;
    register_runtime(module)?;
    register_subscriptions(module)
}

fn register_storage(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    module.register_method("state_getStorage", |params, node, _| -> Answer<Value> {
        let mut args = Args::new(&params);
        let key = args.bytes()?;
        Ok(value_at(&node.state(args.optional_hash()?)?, &key))
    })?;
    with_aliases(module, "state_getStorage", &["state_getStorageAt"])?;
    module.register_method("state_getStorageHash", |params, node, _| -> Answer<Value> {
        let mut args = Args::new(&params);
        let key = args.bytes()?;
        let state = node.state(args.optional_hash()?)?;
        Ok(state.get(&key).map_or(Value::Null, |value| to_json(&BlakeTwo256::hash(value))))
    })?;
    with_aliases(module, "state_getStorageHash", &["state_getStorageHashAt"])?;
    module.register_method("state_getStorageSize", |params, node, _| -> Answer<Value> {
        let mut args = Args::new(&params);
        let key = args.bytes()?;
        let state = node.state(args.optional_hash()?)?;
        // As in Substrate, a prefix of several keys has the size of all their values.
        let size: usize = keys_with_prefix(&state, &key, None).filter_map(|key| state.get(key)).map(|v| v.len()).sum();
        Ok(if size == 0 { Value::Null } else { size.into() })
    })?;
    with_aliases(module, "state_getStorageSize", &["state_getStorageSizeAt"])?;
    module.register_blocking_method("state_queryStorageAt", |params, node, _| -> Answer<Value> {
        let mut args = Args::new(&params);
        let keys = args.list_of_bytes()?;
        let at = args.optional_hash()?.unwrap_or_else(|| node.best().hash);
        let state = node.state(Some(at))?;
        Ok(json!([change_set(at, &state, &keys)]))
    })?;
    module.register_blocking_method("state_queryStorage", |params, node, _| -> Answer<Value> {
        let mut args = Args::new(&params);
        let (keys, from) = (args.list_of_bytes()?, args.hash()?);
        let to = args.optional_hash()?.unwrap_or_else(|| node.best().hash);
        query_range(&node, &keys, from, to)
    })?;
    Ok(())
}

fn change_set(at: Hash, state: &StateMap, keys: &[Vec<u8>]) -> Value {
    let changes: Vec<Value> = keys.iter().map(|key| json!([to_hex(key), value_at(state, key)])).collect();
    json!({ "block": at, "changes": changes })
}

/// Values at the first block, then what changed block by block.
fn query_range(node: &Node, keys: &[Vec<u8>], from: Hash, to: Hash) -> Answer<Value> {
    let number = |hash: Hash| node.block(hash).map(|block| block.header.number);
    let unknown = |hash: Hash| client_error(format!("UnknownBlock: Header was not found in the database: {hash:?}"));
    let first = number(from).ok_or_else(|| unknown(from))?;
    let last = number(to).ok_or_else(|| unknown(to))?;
    if last.saturating_sub(first) > MAX_QUERY_BLOCKS {
        return Err(client_error(format!("Cannot resolve a block range of more than {MAX_QUERY_BLOCKS} blocks")).into());
    }
    let mut seen: BTreeMap<&[u8], Value> = BTreeMap::new();
    let mut sets = Vec::new();
    for hash in (first..=last).filter_map(|number| node.hash_of(number)) {
        let state = node.state(Some(hash))?;
        let mut changes = Vec::new();
        for key in keys {
            let value = value_at(&state, key);
            if seen.get(key.as_slice()) != Some(&value) {
                changes.push(json!([to_hex(key), value]));
                seen.insert(key, value);
            }
        }
        if !changes.is_empty() {
            sets.push(json!({ "block": hash, "changes": changes }));
        }
    }
    Ok(sets.into())
}

fn register_keys(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    module.register_blocking_method("state_getKeys", |params, node, _| -> Answer<Vec<String>> {
        let mut args = Args::new(&params);
        let prefix = args.bytes()?;
        let state = node.state(args.optional_hash()?)?;
        Ok(keys_with_prefix(&state, &prefix, None).map(to_hex).collect())
    })?;
    module.register_blocking_method("state_getKeysPaged", |params, node, _| -> Answer<Vec<String>> {
        let mut args = Args::new(&params);
        let prefix = args.optional_bytes()?.unwrap_or_default();
        let count: u32 = args.required()?;
        if count > MAX_PAGE {
            let why = format!("count exceeds maximum value. value: {count}, max: {MAX_PAGE}");
            return Err(jsonrpsee::types::ErrorObjectOwned::owned(4002, why, None::<()>).into());
        }
        let after = args.optional_bytes()?;
        let state = node.state(args.optional_hash()?)?;
        let page = usize::try_from(count).unwrap_or(0);
        // A null or empty start is the beginning.
        let after = after.as_deref().filter(|after| !after.is_empty());
        Ok(keys_with_prefix(&state, &prefix, after).take(page).map(to_hex).collect())
    })?;
    with_aliases(module, "state_getKeysPaged", &["state_getKeysPagedAt"])?;
    module.register_blocking_method("state_getPairs", |params, node, _| -> Answer<Vec<(String, Value)>> {
        let mut args = Args::new(&params);
        let prefix = args.bytes()?;
        let state = node.state(args.optional_hash()?)?;
        Ok(keys_with_prefix(&state, &prefix, None).map(|key| (to_hex(key), value_at(&state, key))).collect())
    })?;
    Ok(())
}

fn register_runtime(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    module.register_blocking_method("state_call", |params, node, _| -> Answer<String> {
        let mut args = Args::new(&params);
        let (method, data): (String, Vec<u8>) = (args.required()?, args.bytes()?);
        Ok(to_hex(&*node.runtime_call(args.optional_hash()?, &method, &data)?))
    })?;
    with_aliases(module, "state_call", &["state_callAt"])?;
    module.register_blocking_method("state_getMetadata", |params, node, _| -> Answer<String> {
        let at = Args::new(&params).optional_hash()?;
        let encoded = node.runtime_call(at, "Metadata_metadata", &[])?;
        let metadata = OpaqueMetadata::decode(&mut encoded.as_slice())
            .map_err(|error| NodeError::Call(CallError::Trapped(error.to_string())))?;
        Ok(to_hex(&*metadata))
    })?;
    module.register_blocking_method("state_getRuntimeVersion", |params, node, _| -> Answer<RuntimeVersion> {
        runtime_version(&node, Args::new(&params).optional_hash()?)
    })?;
    with_aliases(module, "state_getRuntimeVersion", &["chain_getRuntimeVersion"])?;
    module.register_blocking_method("payment_queryInfo", |params, node, _| -> Answer<Value> {
        query_payment::<pallet_transaction_payment::RuntimeDispatchInfo<u64>>(&node, &params, "query_info")
    })?;
    module.register_blocking_method("payment_queryFeeDetails", |params, node, _| -> Answer<Value> {
        let mut args = Args::new(&params);
        let details: pallet_transaction_payment::FeeDetails<u64> = payment(&node, &mut args, "query_fee_details")?;
        let hex = |fee: u64| format!("{fee:#x}");
        let inclusion = details.inclusion_fee.map(|fee| {
            json!({
                "baseFee": hex(fee.base_fee),
                "lenFee": hex(fee.len_fee),
                "adjustedWeightFee": hex(fee.adjusted_weight_fee),
            })
        });
        Ok(json!({ "inclusionFee": inclusion }))
    })?;
    Ok(())
}

fn query_payment<V: Decode + serde::Serialize>(
    node: &Node,
    params: &jsonrpsee::types::Params<'_>,
    method: &str,
) -> Answer<Value> {
    let value: V = payment(node, &mut Args::new(params), method)?;
    Ok(to_json(&value))
}

fn payment<V: Decode>(node: &Node, args: &mut Args<'_>, method: &str) -> Answer<V> {
    let mut data = args.bytes()?;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    length.encode_to(&mut data);
    let encoded = node.runtime_call(args.optional_hash()?, &format!("TransactionPaymentApi_{method}"), &data)?;
    V::decode(&mut encoded.as_slice()).map_err(|error| NodeError::Call(CallError::Trapped(error.to_string())).into())
}

fn register_subscriptions(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    module.register_subscription(
        "state_subscribeStorage",
        "state_storage",
        "state_unsubscribeStorage",
        |params, pending, node, _| async move {
            match Args::new(&params).list_of_bytes() {
                Ok(keys) => storage_changes(pending, &node, keys).await,
                Err(failure) => pending.reject(failure.0).await,
            }
        },
    )?;
    for (subscribe, notification, unsubscribe) in [
        ("state_subscribeRuntimeVersion", "state_runtimeVersion", "state_unsubscribeRuntimeVersion"),
        ("chain_subscribeRuntimeVersion", "chain_runtimeVersion", "chain_unsubscribeRuntimeVersion"),
    ] {
        module.register_subscription(subscribe, notification, unsubscribe, |_, pending, node, _| async move {
            runtime_versions(pending, &node).await;
        })?;
    }
    Ok(())
}

/// Sends the values at once, then those that change.
async fn storage_changes(pending: PendingSubscriptionSink, node: &Node, keys: Vec<Vec<u8>>) {
    let mut events = node.subscribe();
    let Ok(sink) = pending.accept().await else { return };
    let mut known: Option<Vec<Value>> = None;
    loop {
        let best = node.best();
        if let Ok(state) = node.state(Some(best.hash)) {
            let values: Vec<Value> = keys.iter().map(|key| value_at(&state, key)).collect();
            let is_new = |index: usize| known.as_ref().is_none_or(|known| known[index] != values[index]);
            let changes: Vec<Value> = (0..keys.len())
                .filter(|index| is_new(*index))
                .map(|index| json!([to_hex(&keys[index]), values[index]]))
                .collect();
            let first = known.is_none();
            known = Some(values);
            if (first || !changes.is_empty()) && !send(&sink, &json!({ "block": best.hash, "changes": changes })).await
            {
                return;
            }
        }
        if !wait_for_best(&mut events, &sink).await {
            return;
        }
    }
}

async fn runtime_versions(pending: PendingSubscriptionSink, node: &Node) {
    let mut events = node.subscribe();
    let Ok(sink) = pending.accept().await else { return };
    let mut known: Option<RuntimeVersion> = None;
    loop {
        let version = runtime_version(node, None).ok();
        if version.is_some() && version != known {
            known = version;
            if !send(&sink, &known).await {
                return;
            }
        }
        if !wait_for_best(&mut events, &sink).await {
            return;
        }
    }
}

/// Waits for the next best block; false when the client or the chain is gone.
async fn wait_for_best(
    events: &mut tokio::sync::broadcast::Receiver<ChainEvent>,
    sink: &jsonrpsee::SubscriptionSink,
) -> bool {
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(ChainEvent::Best(_)) | Err(RecvError::Lagged(_)) => return true,
                Ok(ChainEvent::Imported(_) | ChainEvent::Finalized(_)) => {}
                Err(RecvError::Closed) => return false,
            },
            () = sink.closed() => return false,
        }
    }
}
