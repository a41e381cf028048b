//! The words every crate of Mycelium shares: ids, accounts, amounts, addresses, neurons and HTTP bodies.
//!
//! This crate does no IO and knows no chain client, no Kubernetes and no Raft. Values that come
//! from outside become one of these types at the edge of a program and stay checked from there on.

mod account;
mod amount;
mod axon;
mod diff;
mod error;
mod ids;
mod neuron;
mod schema;

pub mod chain;
pub mod config;
pub mod http;

pub use account::{AccountId, Coldkey, Hotkey, SS58_PREFIX};
pub use amount::{Alpha, RAO_PER_TAO, Tao};
pub use axon::{
    Axon, AxonProtocol, PortRange, check_port, check_public_ip, ip_from_chain, ip_from_chain_text, ip_to_chain,
    ip_to_chain_text, is_public_ip,
};
pub use diff::{MetagraphDiff, NeuronChange, NeuronField, OtherMetagraph};
pub use error::ValueError;
pub use ids::{BlockHash, NetUid, Uid};
pub use neuron::{Metagraph, Neuron, Score};
