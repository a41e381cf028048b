//! The state that the validators of a group replicate, and the commands that change it.
//!
//! Everything here is pure: [`State::apply`] depends on the log index, the command and the state before, and on nothing
//! else. No IO, no clock, no randomness, no map without an order (`clippy.toml` of this crate bans them), so every replica
//! that applied the same log has the same [`State::hash`]. `sidecar-consensus` orders the commands and keeps log and
//! snapshots on disk; this crate does not know Raft.

mod apply;
mod command;
mod error;
mod snapshot;
mod state;
pub mod weights;

pub use command::{Command, MemberRecord, Reply};
pub use error::{Refusal, SnapshotError};
pub use state::{KEY_BYTES_MAX, KV_BYTES_MAX, KeyValue, State, VALUE_BYTES_MAX, WEIGHTS_MAX};
pub use weights::{Observation, Weight, WeightTable};
