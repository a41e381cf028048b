//! `author_*`: submission of extrinsics and what becomes of them.

use std::sync::Arc;

use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::ErrorObjectOwned;
use jsonrpsee::{PendingSubscriptionSink, RpcModule};
use serde_json::{Value, json};
use sp_runtime::transaction_validity::InvalidTransaction;

use super::chain::send;
use super::params::{Args, json as to_json, to_hex};
use super::{Answer, RpcFailure};
use crate::node::{Node, PoolError, TxStatus};

impl From<PoolError> for RpcFailure {
    fn from(error: PoolError) -> Self {
        let (code, data) = match &error {
            PoolError::BadFormat(_) => (1001, None),
            PoolError::Invalid(InvalidTransaction::Custom(code)) => (1010, Some(format!("Custom error: {code}"))),
            PoolError::Invalid(invalid) => (1010, Some(<&str>::from(*invalid).to_owned())),
            PoolError::Unknown(unknown) => (1011, Some(<&str>::from(*unknown).to_owned())),
            PoolError::TemporarilyBanned => (1012, None),
            PoolError::AlreadyImported(hash) => (1013, Some(format!("[{hash:?}]"))),
            PoolError::TooLowPriority { .. } => {
                let why = "The transaction has too low priority to replace another transaction already in the pool.";
                (1014, Some(why.to_owned()))
            }
            PoolError::ImmediatelyDropped => {
                (1016, Some("The transaction couldn't enter the pool because of the limit".to_owned()))
            }
        };
        Self(ErrorObjectOwned::owned(code, error.to_string(), data))
    }
}

fn status_json(status: TxStatus) -> Value {
    match status {
        TxStatus::Future => "future".into(),
        TxStatus::Ready => "ready".into(),
        TxStatus::InBlock(hash) => json!({ "inBlock": hash }),
        TxStatus::Retracted(hash) => json!({ "retracted": hash }),
        TxStatus::Finalized(hash) => json!({ "finalized": hash }),
        TxStatus::Usurped(hash) => json!({ "usurped": hash }),
        TxStatus::Invalid => "invalid".into(),
        TxStatus::Dropped => "dropped".into(),
    }
}

fn is_last(status: TxStatus) -> bool {
    matches!(status, TxStatus::Finalized(_) | TxStatus::Usurped(_) | TxStatus::Invalid | TxStatus::Dropped)
}

pub(super) fn register(module: &mut RpcModule<Arc<Node>>) -> Result<(), RegisterMethodError> {
    module.register_blocking_method("author_submitExtrinsic", |params, node, _| -> Answer<Value> {
        let bytes = Args::new(&params).bytes()?;
        Ok(to_json(&node.submit(&bytes)?))
    })?;
    module.register_method("author_pendingExtrinsics", |_, node, _| {
        node.pending().iter().map(to_hex).collect::<Vec<String>>()
    })?;
    module.register_subscription(
        "author_submitAndWatchExtrinsic",
        "author_extrinsicUpdate",
        "author_unwatchExtrinsic",
        |params, pending, node, _| async move {
            match Args::new(&params).bytes() {
                Ok(bytes) => submit_and_watch(pending, Arc::clone(&node), bytes).await,
                Err(failure) => pending.reject(failure.0).await,
            }
        },
    )?;
    Ok(())
}

async fn submit_and_watch(pending: PendingSubscriptionSink, node: Arc<Node>, bytes: Vec<u8>) {
    // Validation checks a signature: too long for the thread that serves sockets.
    let submitted = tokio::task::spawn_blocking(move || node.submit_and_watch(&bytes)).await;
    let mut statuses = match submitted {
        Ok(Ok((_, statuses))) => statuses,
        Ok(Err(error)) => return pending.reject(RpcFailure::from(error).0).await,
        Err(_) => return pending.reject(RpcFailure::from(PoolError::ImmediatelyDropped).0).await,
    };
    let Ok(sink) = pending.accept().await else { return };
    loop {
        let status = tokio::select! {
            status = statuses.recv() => status,
            () = sink.closed() => return,
        };
        let Some(status) = status else { return };
        if !send(&sink, &status_json(status)).await || is_last(status) {
            return;
        }
    }
}
