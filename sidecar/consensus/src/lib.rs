//! Weighted Raft: the validators of a subnet agree on one log, and weight decides who leads.
//!
//! Weight decides who votes, when a voter campaigns and to whom a leader hands over. It never touches quorum size, log
//! comparison or lease length, so the safety of Raft is openraft's alone: everything here only delays campaigns, drops
//! messages or changes the membership through joint consensus, which an asynchronous network could have done as well. Nor
//! does it touch liveness: a voter of weight zero campaigns last, and an independent watchdog turns openraft's own
//! elections back on when nobody campaigned in time.
//!
//! Reading order: [`Consensus`] is the handle; `disk`, `log_store` and `state_machine` keep log and state; `wire`,
//! [`PeerTransport`] and `network` carry messages, and `guard` judges those that come in; `founding`, `membership` and
//! `leader` form the group, whose time `heartbeat` keeps; `ranking`, `campaign` and `fallback` are the Consensus Manager.
//! openraft is used nowhere else in the workspace and appears in no public signature.

mod campaign;
mod disk;
mod error;
mod fallback;
mod founding;
mod guard;
mod heartbeat;
mod inbox;
mod leader;
mod log_store;
mod membership;
mod network;
mod node;
mod ranking;
mod state_machine;
mod timing;
mod transport;
mod type_config;
mod wire;

pub mod fake;

pub use error::ConsensusError;
pub use leader::StakeObservation;
pub use node::{Consensus, ConsensusConfig};
pub use sidecar_store::{Command, Reply};
pub use transport::{PeerTransport, TransportError};
pub use wire::{FRAME_BYTES_MAX, Lane, PeerReply, PeerRequest, WireError};
