//! Who may run a hotkey.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Says which resource may run a hotkey. Made by the operator, named by a hash of genesis, netuid and hotkey, never changed:
/// creating it is the one atomic step that decides between two resources that want the same hotkey.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "mycelium.network",
    version = "v1alpha1",
    kind = "HotkeyReservation",
    derive = "PartialEq",
    shortname = "hkr",
    category = "bittensor",
    doc = "Says which Validator or Miner may run a hotkey. Made and removed by the operator.",
    printcolumn(name = "Hotkey", type_ = "string", json_path = ".spec.hotkey"),
    printcolumn(name = "Netuid", type_ = "integer", json_path = ".spec.netuid"),
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.holder.kind"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.holder.namespace"),
    printcolumn(name = "Name", type_ = "string", json_path = ".spec.holder.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a HotkeyReservation is never changed: it is made and removed by the operator"))]
#[serde(rename_all = "camelCase")]
pub struct HotkeyReservationSpec {
    /// Genesis hash of the chain.
    pub genesis_hash: String,
    /// Subnet.
    pub netuid: u16,
    /// SS58 address of the hotkey.
    pub hotkey: String,
    /// The resource that may run it.
    pub holder: ReservationHolder,
}

/// A Validator or Miner, by identity and not only by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReservationHolder {
    /// `Validator` or `Miner`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: a resource that was deleted and made again is another one.
    pub uid: String,
}
