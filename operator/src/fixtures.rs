//! Objects that tests start from.

pub(crate) mod api_server;

use std::sync::Arc;

use crds::v1alpha1::{MemberStatus, Network, Validator};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::json;
use sidecar_util::http::{ChainStatus, GroupRole, GroupStatus, NodeKind, RegistryStatus, StatusBody};
use sidecar_util::{Alpha, BlockHash, Hotkey, Metagraph, NetUid, Neuron, RAO_PER_TAO, Score, Tao, Uid};

use crate::chains::ChainState;
use crate::node::{Kind, Node as _, NodeKey, NodeObject};
use crate::observe::{Observed, Reservation};

pub(crate) fn hotkey(number: u8) -> Hotkey {
    [number; 32].into()
}

pub(crate) fn key() -> NodeKey {
    NodeKey { kind: Kind::Validator, namespace: "default".into(), name: "v1".into() }
}

pub(crate) fn condition(type_: &str, status: &str, reason: &str) -> Condition {
    Condition {
        type_: type_.into(),
        status: status.into(),
        reason: reason.into(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }
}

pub(crate) fn member(number: u8) -> MemberStatus {
    MemberStatus {
        hotkey: hotkey(number).to_string(),
        name: format!("default/v{number}"),
        address: format!("validator-v{number}.default.svc:9101"),
    }
}

/// A metagraph of neurons given by hotkey and stake in TAO.
pub(crate) fn metagraph(stakes: &[(u8, u64)]) -> Metagraph {
    let neuron = |(uid, (number, stake)): (usize, &(u8, u64))| Neuron {
        uid: Uid(u16::try_from(uid).unwrap()),
        hotkey: hotkey(*number),
        coldkey: [99; 32].into(),
        active: true,
        validator_permit: true,
        total_stake: Tao::from_rao(stake * RAO_PER_TAO),
        alpha_stake: Alpha::from_rao(stake * RAO_PER_TAO),
        tao_stake: Tao::ZERO,
        incentive: Score::default(),
        consensus: Score::default(),
        dividends: Score::default(),
        vtrust: Score(u16::MAX),
        emission: Alpha::ZERO,
        last_update: 90,
        registered_at: 1,
        axon: None,
    };
    Metagraph {
        netuid: NetUid(1),
        block: 100,
        block_hash: BlockHash::default(),
        tempo: 40,
        last_step: 80,
        blocks_since_last_step: 20,
        neurons: stakes.iter().enumerate().map(neuron).collect(),
    }
}

pub(crate) fn group_report(cluster_id: &str, role: GroupRole, leader: Option<u8>, term: u64) -> GroupStatus {
    GroupStatus {
        cluster_id: cluster_id.into(),
        node_id: 1,
        role,
        term,
        leader: leader.map(hotkey),
        last_log_index: 0,
        applied_index: 0,
        restored_index: 0,
        state_hash: String::new(),
        voters: Vec::new(),
        learners: Vec::new(),
        weights: Vec::new(),
    }
}

pub(crate) fn status_body() -> StatusBody {
    StatusBody {
        version: "0.1.0".into(),
        network: "default".into(),
        kind: NodeKind::Validator,
        hotkey: hotkey(1),
        netuid: NetUid(1),
        chain: ChainStatus {
            endpoint: None,
            synced: true,
            error: None,
            genesis_hash: None,
            spec_version: None,
            block: Some(100),
            age_s: Some(0),
        },
        neuron: None,
        registry: RegistryStatus::default(),
        group: None,
        signer: None,
    }
}

pub(crate) const GENESIS: &str = "0x0101010101010101010101010101010101010101010101010101010101010101";

pub(crate) fn network() -> Network {
    serde_json::from_value(json!({
        "apiVersion": "mycelium.network/v1alpha1",
        "kind": "Network",
        "metadata": { "name": "default", "uid": "network-uid" },
        "spec": { "netuid": 1, "minimumStake": 100, "local": true, "chain": { "endpoints": ["ws://chain:9944"], "genesisHash": GENESIS } },
    }))
    .unwrap()
}

/// A Validator with hotkey 1, changed by `change` before it is read.
pub(crate) fn validator(change: impl FnOnce(&mut serde_json::Value)) -> NodeObject {
    let mut value = json!({
        "apiVersion": "mycelium.network/v1alpha1",
        "kind": "Validator",
        "metadata": { "name": "v1", "namespace": "default", "uid": "validator-uid", "generation": 3 },
        "spec": {
            "hotkeySecretRef": { "name": "v1-hotkey" },
            "template": { "spec": { "containers": [{ "name": "main", "image": "example/validator:1" }] } },
        },
    });
    change(&mut value);
    serde_json::from_value::<Validator>(value).unwrap().to_object()
}

/// All is well around [`validator`], and nothing was made yet.
pub(crate) fn observed() -> Observed {
    Observed {
        network: Some(Arc::new(network())),
        chain: ChainState {
            metagraph: Some(Arc::new(metagraph(&[(1, 1000)]))),
            looked_at: true,
            ..ChainState::default()
        },
        hotkey: Some(Ok(hotkey(1))),
        reservation: Reservation::Held,
        config_version: Some("c1".into()),
        ..Observed::default()
    }
}
