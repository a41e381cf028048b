//! The command line: words, not yet checked.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sidecar_util::http::NodeKind;

use crate::config::DEFAULTS;
use crate::telemetry::LogFormat;

/// The sidecar that runs beside every validator and miner of a Bittensor subnet.
#[derive(Debug, Parser)]
#[command(name = "mycelium-sidecar", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; `run` where nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`.
    #[command(flatten)]
    pub run: Option<RunArgs>,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run beside a validator or miner until told to stop.
    Run(RunArgs),
    /// Ask a running sidecar whether a hotkey is a validator with enough stake (exit code 2 when it is not).
    Verify(VerifyArgs),
    /// List the nodes of the subnet, as a running sidecar sees them.
    Nodes(NodesArgs),
    /// Show the weights that validators set: the whole matrix, or those of one.
    Weights(WeightsArgs),
    /// Show what a running sidecar says of itself, its node, its chain and its group.
    Status(AskArgs),
    /// Follow changes of the registry and new blocks until told to stop.
    Watch(AskArgs),
    /// Print the description of the HTTP API (`OpenAPI` 3.1).
    Openapi,
}

/// Which sidecar is asked, and how its answer is shown.
#[derive(Debug, Clone, Args)]
pub struct AskArgs {
    /// Unix socket of the sidecar.
    #[arg(long, env = "MYCELIUM_SOCKET", default_value = DEFAULTS.socket)]
    pub socket: PathBuf,
    /// HTTP address of the sidecar instead of its socket, such as `http://127.0.0.1:9100`.
    #[arg(long, env = "MYCELIUM_URL")]
    pub url: Option<String>,
    /// How the answer is shown.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// As a table.
    #[default]
    Table,
    /// As a table with more columns.
    Wide,
    /// As JSON, as the sidecar sent it.
    Json,
}

/// Arguments of `verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// SS58 address of the hotkey.
    pub hotkey: String,
    /// Which sidecar.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Arguments of `nodes`: the filters of `GET /v1/nodes`, checked by the sidecar.
#[derive(Debug, Clone, Args)]
pub struct NodesArgs {
    /// Only validators, or only miners.
    #[arg(long)]
    pub kind: Option<String>,
    /// Only those in this state: discovered, verified, active, inactive, `below_stake`.
    #[arg(long)]
    pub state: Option<String>,
    /// Least total stake.
    #[arg(long)]
    pub min_stake: Option<String>,
    /// Largest total stake.
    #[arg(long)]
    pub max_stake: Option<String>,
    /// Whether the chain gave a validator permit: true or false.
    #[arg(long)]
    pub permit: Option<String>,
    /// Least vtrust, from 0 to 1.
    #[arg(long)]
    pub min_trust: Option<String>,
    /// Largest vtrust.
    #[arg(long)]
    pub max_trust: Option<String>,
    /// Least incentive, from 0 to 1.
    #[arg(long)]
    pub min_incentive: Option<String>,
    /// Largest incentive.
    #[arg(long)]
    pub max_incentive: Option<String>,
    /// Whether its weights are recent enough to count: true or false.
    #[arg(long)]
    pub active: Option<String>,
    /// Whether something took a connection at its axon when it was last tried: true or false.
    #[arg(long)]
    pub reachable: Option<String>,
    /// Only those of this owner.
    #[arg(long)]
    pub coldkey: Option<String>,
    /// Only these hotkeys, separated by commas.
    #[arg(long)]
    pub hotkey: Option<String>,
    /// Only these slots, separated by commas.
    #[arg(long)]
    pub uid: Option<String>,
    /// Only those that set weights within so many blocks.
    #[arg(long)]
    pub updated_within: Option<String>,
    /// By what the list is sorted: uid, stake, incentive, trust.
    #[arg(long)]
    pub sort: Option<String>,
    /// The largest first.
    #[arg(long)]
    pub desc: bool,
    /// At most so many nodes; all of them when it is not given.
    #[arg(long)]
    pub limit: Option<usize>,
    /// Which sidecar.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Arguments of `weights`.
#[derive(Debug, Clone, Args)]
pub struct WeightsArgs {
    /// Only the weights that this neuron set.
    #[arg(long)]
    pub uid: Option<String>,
    /// Mechanism of the subnet.
    #[arg(long)]
    pub mechanism: Option<String>,
    /// At this block instead of the last final one.
    #[arg(long)]
    pub block: Option<String>,
    /// Which sidecar.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// Flags of `run`; each can be given in the environment as well.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// What this sidecar stands beside: a validator is part of the group, a miner reads only.
    #[arg(long, env = "MYCELIUM_KIND", value_enum)]
    pub kind: Kind,
    /// Description of the Network (JSON). It is watched: changes are taken over while the sidecar runs.
    #[arg(long, env = "MYCELIUM_CONFIG", default_value = DEFAULTS.config)]
    pub config: PathBuf,
    /// Hotkey file of a Bittensor wallet.
    #[arg(long, env = "MYCELIUM_HOTKEY_FILE", default_value = DEFAULTS.hotkey_file)]
    pub hotkey_file: PathBuf,
    /// File with the password of the hotkey file, where that is encrypted. Opening one takes seconds and 512 MiB of memory.
    #[arg(long, env = "MYCELIUM_HOTKEY_PASSWORD_FILE")]
    pub hotkey_password_file: Option<PathBuf>,
    /// Folder for what must outlive this process: the journal of extrinsics, what the signer has seen, and beside a validator
    /// the log and the state of the group. Each sidecar needs its own.
    #[arg(long, env = "MYCELIUM_DATA_DIR", default_value = DEFAULTS.data_dir)]
    pub data_dir: PathBuf,
    /// Address of the HTTP API.
    #[arg(long, env = "MYCELIUM_LISTEN", default_value = DEFAULTS.listen)]
    pub listen: String,
    /// Address on which the other validators of the group reach this one. Not used beside a miner.
    #[arg(long, env = "MYCELIUM_PEER_LISTEN", default_value = DEFAULTS.peer_listen)]
    pub peer_listen: String,
    /// Unix socket with the same HTTP API, for the containers of this pod.
    #[arg(long, env = "MYCELIUM_SOCKET", default_value = DEFAULTS.socket)]
    pub socket: PathBuf,
    /// Address of the axon gate, which verifies requests of validators for the program behind it. Without it there is none.
    #[arg(long, env = "MYCELIUM_AXON_LISTEN")]
    pub axon_listen: Option<String>,
    /// Where the axon gate sends verified requests: a container of this pod, such as `http://127.0.0.1:8000`.
    #[arg(long, env = "MYCELIUM_AXON_UPSTREAM")]
    pub axon_upstream: Option<String>,
    /// Seconds between two probes of one axon, 60 or more unless the Network is `local`; 0 turns probes off.
    #[arg(long, env = "MYCELIUM_PROBE_INTERVAL_S", default_value_t = DEFAULTS.probe_interval_s)]
    pub probe_interval_s: u64,
    /// Lease of Kubernetes, as NAMESPACE/NAME, that this sidecar holds while it signs.
    #[arg(long, env = "MYCELIUM_LEASE", conflicts_with = "lease_file")]
    pub lease: Option<String>,
    /// File that is locked while this sidecar signs, where there is no --lease; sidecars with one hotkey on one machine
    /// have to share it. `signer.lease` in --data-dir where nothing is said.
    #[arg(long, env = "MYCELIUM_LEASE_FILE")]
    pub lease_file: Option<PathBuf>,
    /// What the user's container may have signed (JSON); the safe default where nothing is said.
    #[arg(long, env = "MYCELIUM_SIGNER_POLICY")]
    pub signer_policy: Option<PathBuf>,
    /// Signatures of other processes with this hotkey before this block are in order.
    #[arg(long, env = "MYCELIUM_ACCEPT_FOREIGN_SIGNER_BEFORE", value_name = "BLOCK")]
    pub accept_foreign_signer_before: Option<u64>,
    /// How log lines look.
    #[arg(long, env = "MYCELIUM_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What is logged, as in `RUST_LOG`: `debug`, or `info,sidecar=debug`.
    #[arg(long, env = "MYCELIUM_LOG", default_value = DEFAULTS.log)]
    pub log: String,
    /// Collector that traces are sent to (OTLP over gRPC), such as `http://collector:4317`. None are made without it.
    #[arg(long, env = "MYCELIUM_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
}

/// [`NodeKind`] on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Beside a validator.
    Validator,
    /// Beside a miner.
    Miner,
}

impl From<Kind> for NodeKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Validator => Self::Validator,
            Kind::Miner => Self::Miner,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_may_be_left_out() {
        let bare = Cli::try_parse_from(["mycelium-sidecar", "--kind=miner"]).unwrap();
        let named = Cli::try_parse_from(["mycelium-sidecar", "run", "--kind=miner"]).unwrap();
        let Some(Command::Run(named)) = named.command else { panic!("{named:?}") };
        assert_eq!(format!("{:?}", bare.run.unwrap()), format!("{named:?}"));
    }
}
