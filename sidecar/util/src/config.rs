//! What the operator tells every sidecar of a Network, as one JSON file that may change while the sidecar runs.
//!
//! The operator writes it into a `ConfigMap`, the kubelet into the pod; without Kubernetes a person writes it by hand.
//! Everything that differs from pod to pod is a flag of the sidecar instead.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{BlockHash, Hotkey, NetUid, Tao};

/// The file `network.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Name of the Network.
    pub network: String,
    /// WebSocket endpoints of the chain, in the order of preference.
    pub endpoints: Vec<String>,
    /// WebSocket endpoints of nodes that keep the state of all blocks; asked only for blocks that the others have
    /// forgotten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub archive_endpoints: Vec<String>,
    /// The subnet.
    pub netuid: NetUid,
    /// The chain must have this genesis; a sidecar refuses any other.
    pub genesis_hash: Option<BlockHash>,
    /// Whether private and loopback addresses are taken.
    #[serde(default)]
    pub local: bool,
    /// Least total stake of a validator that counts.
    pub minimum_stake: Tao,
    /// How long an answer of `verify` may be repeated without looking again, in seconds.
    pub verification_ttl_s: u64,
    /// Tiers by stake, heaviest first.
    #[serde(default)]
    pub tiers: Vec<Tier>,
    /// The group of validators; absent while the Network has none.
    pub group: Option<GroupConfig>,
}

impl NetworkConfig {
    /// [`Self::verification_ttl_s`] as a duration.
    pub fn verification_ttl(&self) -> Duration {
        Duration::from_secs(self.verification_ttl_s)
    }
}

/// Validators with at least this stake weigh this much in elections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Name shown in status and logs.
    pub name: String,
    /// Least total stake.
    pub minimum_stake: Tao,
    /// Weight; a heavier tier always ranks before a lighter one.
    pub weight: u32,
}

/// How fast the group notices a silent leader. One profile for all members: unequal timeouts break leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimingProfile {
    /// In-process tests: heartbeat 50 ms, lease 300 ms.
    Test,
    /// Members in one cluster or region: heartbeat 100 ms, lease 1 s.
    #[default]
    Lan,
    /// Members across regions: heartbeat 250 ms, lease 3 s.
    Wan,
}

/// The Raft group of a Network's validators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupConfig {
    /// Identity of the group. A sidecar whose disk holds another one refuses to start.
    pub cluster_id: String,
    /// The one member that may found the group, and only while `founded` is false.
    pub founder: Hotkey,
    /// Whether the group has been seen to exist. From then on everybody joins, nobody founds.
    pub founded: bool,
    /// How many voters the group aims at: 3, 5 or 7. Everyone else learns.
    pub voters: u8,
    /// Heartbeat, lease and election slot.
    #[serde(default)]
    pub timing: TimingProfile,
    /// Everyone who may be part of the group, in the order of hotkeys.
    pub members: Vec<Member>,
}

/// One validator of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Who it is.
    pub hotkey: Hotkey,
    /// `host:port` of its peer service.
    pub address: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_back_and_refuses_unknown_fields() {
        let text = r#"{
            "network": "default", "endpoints": ["ws://chain:9944"], "netuid": 1,
            "genesis_hash": "0x0000000000000000000000000000000000000000000000000000000000000001",
            "local": true, "minimum_stake": "1000", "verification_ttl_s": 60,
            "tiers": [{"name": "gold", "minimum_stake": "10000", "weight": 100}],
            "group": {"cluster_id": "a", "founder": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
                      "founded": false, "voters": 3, "timing": "lan",
                      "members": [{"hotkey": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", "address": "a:7000"}]}
        }"#;
        let config: NetworkConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.minimum_stake, "1000".parse().unwrap());
        let again = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<NetworkConfig>(&again).unwrap(), config);
        let unknown = text.replacen("\"local\"", "\"locall\"", 1);
        assert!(serde_json::from_str::<NetworkConfig>(&unknown).unwrap_err().to_string().contains("locall"));
    }
}
