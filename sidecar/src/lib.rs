//! The sidecar that runs beside every validator and miner: it holds the hotkey and the one connection to the chain, keeps
//! the registry, takes part in the group of validators, and answers the pod over HTTP.
//!
//! Reading order: `run` builds everything and owns the order of the end; `app` is what the parts share; `ingest` carries
//! what the chain says to the registry and to the group; `http` answers the pod and `axon` the world; `group`, `peer_rpc` and `peer_tls` are the way to
//! the other validators.

mod app;
mod axon;
mod group;
mod http;
mod ingest;
mod metrics;
mod network_file;
mod peer_rpc;
mod peer_tls;
mod reads;
mod run;
mod signer;

pub mod args;
pub mod cli;
pub mod config;
pub mod telemetry;

pub use run::{hotkey, netuid, run};

/// The description of the HTTP API (`OpenAPI` 3.1).
pub fn openapi() -> &'static str {
    http::description()
}
