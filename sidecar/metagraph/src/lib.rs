//! The chain: a client, the querier that keeps a metagraph current, and wallet keys.
//!
//! The only crate that knows subxt. Everything above it sees [`ChainView`], a word of [`ChainProblem`], and the types of
//! `sidecar_util`.

mod client;
mod convert;
mod error;
mod live_config;
mod querier;
mod queries;
mod source;

pub mod extrinsics;
pub mod fake;
pub mod keys;

pub use client::{CALL_DEADLINE, CONNECT_DEADLINE, SubxtConnect, check_endpoint};
pub use error::{Cause, ChainError, ChainProblem};
pub use querier::{ChainConfig, ChainView, Querier, QuerierHandle};
pub use source::{ChainSource, Connect, Head, Heads};
