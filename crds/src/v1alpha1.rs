//! Version `v1alpha1` of the group `mycelium.network`.

mod amount;
mod common;
pub mod conditions;
mod miner;
mod network;
mod reservation;
mod status;
mod validator;

pub use amount::TaoAmount;
pub use common::{
    AxonExposure, AxonSpec, NetworkRef, PodTemplate, PodTemplateMeta, PullPolicy, SecretKeyRef, SidecarOverrides,
    StorageRetention, StorageSpec,
};
pub use miner::{Miner, MinerSpec};
pub use network::{
    ChainSpec, GroupSpec, GroupTiming, MemberStatus, Network, NetworkChainStatus, NetworkGroupStatus, NetworkSpec,
    NetworkStatus, SidecarSpec, TierSpec,
};
pub use reservation::{HotkeyReservation, HotkeyReservationSpec, ReservationHolder};
pub use status::{AxonStatus, GroupMemberStatus, NeuronStatus, NodeStatus, PodStatus, SidecarStatus};
pub use validator::{Validator, ValidatorSpec};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// API group of every resource, and the prefix of Mycelium's labels and annotations.
pub const GROUP: &str = "mycelium.network";

/// Every CRD, in the order in which they are installed.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![Network::crd(), Validator::crd(), Miner::crd(), HotkeyReservation::crd()]
}
