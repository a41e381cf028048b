//! Command line and environment.

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};

/// Runs the validators and miners of Bittensor-style subnets on Kubernetes.
#[derive(Debug, Clone, Parser)]
#[command(name = "mycelium-operator", version)]
pub struct Args {
    /// Image of the sidecar, for Networks that name none.
    #[arg(long, env = "MYCELIUM_SIDECAR_IMAGE")]
    pub sidecar_image: String,

    /// Address of the operator's own endpoints: /healthz, /readyz, /metrics.
    #[arg(long, env = "MYCELIUM_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// Namespace of the Lease that decides which replica acts.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub lease_namespace: String,

    /// Name of that Lease.
    #[arg(long, env = "MYCELIUM_LEASE", default_value = "mycelium-operator")]
    pub lease_name: String,

    /// Name of this replica in the Lease.
    #[arg(long, env = "POD_NAME", default_value = "mycelium-operator")]
    pub identity: String,

    /// Filter of the log, such as `info` or `info,operator=debug`.
    #[arg(long, env = "MYCELIUM_LOG", default_value = "info")]
    pub log: String,

    /// Form of the log.
    #[arg(long, env = "MYCELIUM_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Lines for people.
    Text,
}
