//! The Lease that the sidecar of a hotkey holds while it signs.
//!
//! The operator makes it and never says a word of its content. So the sidecar needs no right to create: that one cannot be
//! limited to a name. A Lease that no sidecar wrote yet counts for them as one that is not there.

use k8s_openapi::api::coordination::v1::Lease;
use sha2::{Digest as _, Sha256};
use sidecar_util::Hotkey;

use super::owned_meta;
use crate::labels;
use crate::node::NodeObject;

/// Name of a hotkey's Lease. Nonces and blocks are of a chain, so each chain has its own; subnets of one chain share it.
pub(crate) fn name(genesis: &str, hotkey: &Hotkey) -> String {
    let digest = Sha256::digest(format!("{genesis}/{hotkey}"));
    format!("signer-{}", hex::encode(&digest[..20]))
}

pub(crate) fn lease(node: &NodeObject, name: &str, hotkey: &Hotkey) -> Lease {
    let mut metadata = owned_meta(node, name.to_owned());
    // For people: the name does not tell.
    metadata.labels.get_or_insert_default().insert(labels::HOTKEY.into(), hotkey.to_string());
    Lease { metadata, spec: None }
}
