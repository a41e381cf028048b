//! Neurons in the form that the Fiber library gave them, which its users' code depends on.

use pyo3::prelude::*;
use sidecar_util::{AxonProtocol, Metagraph, NetUid, Neuron, ip_to_chain};

/// One rao in TAO. Multiplied, never divided by its inverse: the two differ in the last digit, and callers compare.
const TAO_PER_RAO: f64 = 1e-9;

/// The fields of `mycelium.chain.models.Node`, names and units as there.
#[derive(Debug, Clone, PartialEq, IntoPyObject, IntoPyObjectRef)]
pub(crate) struct NodeFields {
    hotkey: String,
    coldkey: String,
    node_id: u16,
    /// Raw, from 0 to 65535.
    incentive: f64,
    netuid: u16,
    alpha_stake: f64,
    tao_stake: f64,
    stake: f64,
    /// Always nought: the chain dropped it.
    trust: f64,
    /// What the chain calls consensus, raw. The name is Fiber's mistake, kept because scores are computed from it.
    vtrust: f64,
    last_updated: f64,
    /// The address as a decimal integer; `"0"` where none was served.
    ip: String,
    ip_type: u8,
    port: u16,
    protocol: u8,
}

impl NodeFields {
    fn new(netuid: NetUid, neuron: &Neuron) -> Self {
        let (ip, ip_type) = neuron.axon.as_ref().map_or((0, 0), |axon| ip_to_chain(axon.ip));
        Self {
            hotkey: neuron.hotkey.to_string(),
            coldkey: neuron.coldkey.to_string(),
            node_id: neuron.uid.0,
            incentive: neuron.incentive.0.into(),
            netuid: netuid.0,
            alpha_stake: tao(neuron.alpha_stake.rao),
            tao_stake: tao(neuron.tao_stake.rao),
            stake: tao(neuron.total_stake.rao),
            trust: 0.0,
            vtrust: neuron.consensus.0.into(),
            last_updated: to_f64(neuron.last_update),
            ip: ip.to_string(),
            ip_type,
            port: neuron.axon.as_ref().map_or(0, |axon| axon.port),
            protocol: neuron.axon.as_ref().map_or(0, |axon| protocol_byte(axon.protocol)),
        }
    }
}

/// Every neuron of a subnet in the order of uids.
pub(crate) fn nodes(metagraph: &Metagraph) -> Vec<NodeFields> {
    metagraph.neurons.iter().map(|neuron| NodeFields::new(metagraph.netuid, neuron)).collect()
}

fn tao(rao: u64) -> f64 {
    to_f64(rao) * TAO_PER_RAO
}

#[expect(clippy::cast_precision_loss, reason = "Python converts integers to floats in the same way")]
fn to_f64(value: u64) -> f64 {
    value as f64
}

fn protocol_byte(protocol: AxonProtocol) -> u8 {
    match protocol {
        AxonProtocol::Tcp => 0,
        AxonProtocol::Udp => 1,
        AxonProtocol::Other(byte) => byte,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;
    use sidecar_util::{Alpha, Axon, BlockHash, Score, Tao, Uid};

    use super::*;

    fn neuron() -> Neuron {
        Neuron {
            uid: Uid(3),
            hotkey: [1; 32].into(),
            coldkey: [2; 32].into(),
            active: true,
            validator_permit: true,
            total_stake: Tao::from_rao(47_358_609_221_565),
            alpha_stake: Alpha::from_rao(1),
            tao_stake: Tao::from_rao(2_000_000_000),
            incentive: Score(65535),
            consensus: Score(9),
            dividends: Score(8),
            vtrust: Score(7),
            emission: Alpha::from_rao(5),
            last_update: 11,
            registered_at: 12,
            axon: None,
        }
    }

    fn axon(ip: &str, protocol: u8) -> Axon {
        let ip: IpAddr = ip.parse().unwrap();
        Axon { ip, port: 8091, protocol: protocol.into(), version: 1, block: 2 }
    }

    #[test]
    fn amounts_are_multiplied_and_shares_stay_raw() {
        let node = NodeFields::new(NetUid(5), &neuron());
        // What Fiber gives for the same rao, its artefact in the last digits included.
        assert_eq!(node.stake.to_string(), "47358.609221565006");
        assert_eq!((node.alpha_stake, node.tao_stake), (1e-9, 2.0));
        assert_eq!((node.incentive, node.trust, node.vtrust, node.last_updated), (65535.0, 0.0, 9.0, 11.0));
        assert_eq!((node.node_id, node.netuid), (3, 5));
    }

    #[test]
    fn addresses_are_decimal_and_an_axon_that_was_never_served_is_nought() {
        let mut neuron = neuron();
        let shown = |neuron: &Neuron| {
            let node = NodeFields::new(NetUid(1), neuron);
            (node.ip, node.ip_type, node.port, node.protocol)
        };
        assert_eq!(shown(&neuron), ("0".to_owned(), 0, 0, 0));
        neuron.axon = Some(axon("1.2.2.1", 4));
        assert_eq!(shown(&neuron), ("16908801".to_owned(), 4, 8091, 4));
        neuron.axon = Some(axon("2606:4700::1111", 1));
        assert_eq!(shown(&neuron), ("50543257672059871404715951523469725969".to_owned(), 6, 8091, 1));
    }

    proptest! {
        /// The sidecar's JSON loses nothing that a node shows: an answer from its cache equals one from the chain.
        #[test]
        fn nodes_are_the_same_behind_json(
            shares: [u16; 4], rao: [u64; 3], ip: IpAddr, port in 1u16.., protocol: u8, served: bool,
        ) {
            let axon = Axon { ip, port, protocol: protocol.into(), version: 0, block: 0 };
            let neuron = Neuron {
                incentive: Score(shares[0]),
                consensus: Score(shares[1]),
                dividends: Score(shares[2]),
                vtrust: Score(shares[3]),
                total_stake: Tao::from_rao(rao[0]),
                alpha_stake: Alpha::from_rao(rao[1]),
                tao_stake: Tao::from_rao(rao[2]),
                axon: served.then_some(axon),
                ..neuron()
            };
            let metagraph = Metagraph {
                netuid: NetUid(1), block: 1, block_hash: BlockHash::default(), tempo: 1, last_step: 1,
                blocks_since_last_step: 0, neurons: vec![neuron],
            };
            let json = serde_json::to_vec(&metagraph).unwrap();
            let again: Metagraph = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!(nodes(&again), nodes(&metagraph));
        }
    }
}
