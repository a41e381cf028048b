//! The operator: makes pods of Validators and Miners, and mirrors in their status what the chain and the sidecars say.
//!
//! A reconcile is always the same four steps: [`observe`] what is there, [`plan`] what to do (pure), [`apply`] it,
//! and write the [`status`] (pure). What triggers a reconcile is never looked at.

mod admin;
mod apply;
mod args;
mod chains;
mod context;
mod error;
mod events;
mod finalize;
mod labels;
mod leader;
mod metrics;
mod network;
mod node;
mod observe;
mod plan;
mod reconcile;
mod resources;
mod retries;
mod run;
mod sidecars;
mod status;
mod telemetry;

#[cfg(test)]
mod fixtures;

pub use args::Args;
pub use run::run;
pub use telemetry::init as init_telemetry;
