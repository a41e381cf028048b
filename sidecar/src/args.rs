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
    /// Folder for the log and the state of the group; each validator needs its own. Not used beside a miner.
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
