//! `chain_*`: blocks, heads, and subscriptions to them.

use std::sync::Arc;

use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::{PendingSubscriptionSink, RpcModule, SubscriptionSink};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::Answer;
use super::params::{Args, json as to_json, to_hex};
use crate::node::{BlockData, ChainEvent, Node};
use crate::runtime::Hash;

/// A block number as a number or as hex.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrHex {
    Number(u64),
    Hex(String),
}

impl NumberOrHex {
    fn number(&self) -> Option<u32> {
        match self {
            Self::Number(number) => u32::try_from(*number).ok(),
            Self::Hex(text) => u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok(),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(NumberOrHex),
    Many(Vec<NumberOrHex>),
}

/// The block at a hash, or the best one. `None` when it is unknown.
fn block_at(node: &Node, at: Option<Hash>) -> Option<Arc<BlockData>> {
    at.map_or_else(|| Some(node.best()), |hash| node.block(hash))
}

fn block_hash(node: &Node, number: &NumberOrHex) -> Value {
    number.number().and_then(|number| node.hash_of(number)).map_or(Value::Null, |hash| to_json(&hash))
}

pub(super) fn register(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    module.register_method("chain_getBlockHash", |params, node, _| -> Answer<Value> {
        Ok(match Args::new(&params).optional::<OneOrMany>()? {
            None => to_json(&node.best().hash),
            Some(OneOrMany::One(number)) => block_hash(node, &number),
            Some(OneOrMany::Many(numbers)) => numbers.iter().map(|number| block_hash(node, number)).collect(),
        })
    })?;
    module.register_alias("chain_getHead", "chain_getBlockHash")?;
    module.register_method("chain_getFinalizedHead", |_, node, _| to_json(&node.finalized().hash))?;
    module.register_alias("chain_getFinalisedHead", "chain_getFinalizedHead")?;
    module.register_method("chain_getHeader", |params, node, _| -> Answer<Value> {
        let at = Args::new(&params).optional_hash()?;
        Ok(block_at(node, at).map_or(Value::Null, |block| to_json(&block.header)))
    })?;
    module.register_method("chain_getBlock", |params, node, _| -> Answer<Value> {
        let at = Args::new(&params).optional_hash()?;
        Ok(block_at(node, at).map_or(Value::Null, |block| {
            let extrinsics: Vec<String> = block.body.iter().map(to_hex).collect();
            json!({ "block": { "header": block.header, "extrinsics": extrinsics }, "justifications": null })
        }))
    })?;
    register_heads(module)
}

fn register_heads(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    for (subscribe, notification, unsubscribe) in [
        ("chain_subscribeNewHeads", "chain_newHead", "chain_unsubscribeNewHeads"),
        ("chain_subscribeNewHead", "chain_newHead", "chain_unsubscribeNewHead"),
        ("subscribe_newHead", "chain_newHead", "unsubscribe_newHead"),
    ] {
        module.register_subscription(subscribe, notification, unsubscribe, |_, pending, node, _| async move {
            heads(pending, &node, Head::Best).await;
        })?;
    }
    module.register_subscription(
        "chain_subscribeAllHeads",
        "chain_allHead",
        "chain_unsubscribeAllHeads",
        |_, pending, node, _| async move {
            heads(pending, &node, Head::All).await;
        },
    )?;
    for (subscribe, unsubscribe) in [
        ("chain_subscribeFinalizedHeads", "chain_unsubscribeFinalizedHeads"),
        ("chain_subscribeFinalisedHeads", "chain_unsubscribeFinalisedHeads"),
    ] {
        module.register_subscription(
            subscribe,
            "chain_finalizedHead",
            unsubscribe,
            |_, pending, node, _| async move {
                heads(pending, &node, Head::Finalized).await;
            },
        )?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Head {
    /// Those that become the best one.
    Best,
    /// Those of forks as well.
    All,
    Finalized,
}

/// Sends the current head at once, then every new one.
async fn heads(pending: PendingSubscriptionSink, node: &Node, kind: Head) {
    let mut events = node.subscribe();
    let Ok(sink) = pending.accept().await else { return };
    let first = if kind == Head::Finalized { node.finalized() } else { node.best() };
    let mut last = first.hash;
    if !send(&sink, &first.header).await {
        return;
    }
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = sink.closed() => return,
        };
        let block = match event {
            Ok(ChainEvent::Best(block)) if kind != Head::Finalized => block,
            Ok(ChainEvent::Imported(block)) if kind == Head::All => block,
            Ok(ChainEvent::Finalized(block)) if kind == Head::Finalized => block,
            // Whoever fell behind misses some heads and goes on with the next.
            Ok(_) | Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        if block.hash != last {
            last = block.hash;
            if !send(&sink, &block.header).await {
                return;
            }
        }
    }
}

/// Sends one notification; false when the client is gone.
pub(super) async fn send(sink: &SubscriptionSink, value: &impl serde::Serialize) -> bool {
    match serde_json::value::to_raw_value(value) {
        Ok(raw) => sink.send(raw).await.is_ok(),
        Err(_) => false,
    }
}
