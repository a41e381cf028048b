//! What runtime APIs answer: the views that clients build their metagraph from. Field order is the encoding.

mod metagraph;
mod neuron;
mod stake;
mod subnet;

pub use metagraph::{Metagraph, SelectiveMetagraph};
pub use neuron::{NeuronInfo, NeuronInfoLite, SubnetState};
pub use stake::{StakeAvailability, StakeInfo};
pub use subnet::{
    DynamicInfo, HyperparamEntry, HyperparamValue, SubnetHyperparams, SubnetHyperparamsV2, SubnetInfo, SubnetInfoV2,
};

use codec::Compact;

/// A per-uid vector as APIs encode it, as long as the subnet has neurons.
fn compact<V: Clone + Default>(mut values: Vec<V>, n: usize) -> Vec<Compact<V>> {
    values.resize(n, V::default());
    values.into_iter().map(Compact).collect()
}

fn compact_bytes(bytes: &[u8]) -> Vec<Compact<u8>> {
    bytes.iter().copied().map(Compact).collect()
}
