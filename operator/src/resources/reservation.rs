//! Who may run a hotkey: one object, named by what it reserves, so that creating it decides between two that ask at once.

use crds::v1alpha1::{HotkeyReservation, HotkeyReservationSpec, ReservationHolder};
use sha2::{Digest as _, Sha256};
use sidecar_util::{Hotkey, NetUid};

use crate::labels;
use crate::node::NodeObject;

/// Name of the reservation of a hotkey on a subnet of a chain.
pub(crate) fn name(genesis: &str, netuid: NetUid, hotkey: &Hotkey) -> String {
    let digest = Sha256::digest(format!("{genesis}/{netuid}/{hotkey}"));
    hex::encode(&digest[..20])
}

pub(crate) fn reservation(node: &NodeObject, genesis: &str, netuid: NetUid, hotkey: &Hotkey) -> HotkeyReservation {
    let holder = ReservationHolder {
        kind: node.key.kind.name().into(),
        namespace: node.key.namespace.clone(),
        name: node.key.name.clone(),
        uid: node.uid.clone(),
    };
    let spec = HotkeyReservationSpec {
        genesis_hash: genesis.to_owned(),
        netuid: netuid.0,
        hotkey: hotkey.to_string(),
        holder,
    };
    let mut reservation = HotkeyReservation::new(&name(genesis, netuid, hotkey), spec);
    reservation.metadata.labels = Some(labels::of_node(&node.key, &node.spec.network));
    reservation
}
