//! A development chain on which unmodified Bittensor clients work

pub mod admin;
pub mod args;
pub mod client;
pub mod extensions;
pub mod faults;
pub mod genesis;
pub mod keys;
pub mod metadata;
pub mod metrics;
pub mod node;
pub mod pallets;
pub mod rpc;
pub mod run;
pub mod runtime;
pub mod upgrade;
