//! The sidecar that runs beside every validator and miner: it holds the hotkey and the one connection to the chain, keeps
//! the registry, takes part in the group of validators, and answers the pod over HTTP.
//!
//! Reading order: `run` builds everything and owns the order of the end; `app` is what the parts share; `ingest` carries
//! what the chain says to the registry and to the group; `http` answers; `group`, `peer_rpc` and `peer_tls` are the way to
//! the other validators.

mod app;
mod group;
mod http;
mod ingest;
mod metrics;
mod network_file;
mod peer_rpc;
mod peer_tls;
mod run;
mod signer;

pub mod args;
pub mod config;
pub mod telemetry;

pub use run::run;
