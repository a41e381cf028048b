//! The chain: a client, the querier that keeps a metagraph current, and wallet keys.
//!
//! The only crate that knows subxt. Everything above it sees [`ChainView`], a word of [`ChainProblem`], and the types of
//! `sidecar_util`.

mod client;
mod convert;
mod endpoints;
mod error;
mod pace;
mod plan;
mod querier;
mod queries;
mod reads;
mod rpc;
mod runtime;
mod source;

pub mod extrinsics;
pub mod fake;
pub mod keys;

pub use client::{Connection, SubxtConnect, check_endpoint};
pub use endpoints::{EndpointHealth, EndpointState, FailureClass};
pub use error::{Cause, ChainError, ChainProblem};
pub use pace::{Pace, Paces};
pub use querier::{ChainConfig, ChainView, MetagraphUpdate, Querier, QuerierHandle, Updates};
pub use reads::{At, READ_DEADLINE, Reads};
pub use rpc::{CALL_DEADLINE, CONNECT_DEADLINE};
pub use runtime::RuntimeConfig;
pub use source::{ChainSource, Connect, Head, Heads, Probe};
