//! The command line of `mycelium-cluster`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::{
    addresses::DEFAULT_NETWORK,
    choice::Kind,
    cluster::{NODES_MAX, Wanted},
};

/// A real Kubernetes on this machine, with Mycelium on it.
#[derive(Debug, Parser)]
#[command(name = "mycelium-cluster", version, arg_required_else_help = true)]
pub struct Args {
    /// The folder of everything: built programs, images, and the cluster itself. About 3 GB.
    #[arg(long, env = "MYCELIUM_HOME", global = true, help_heading = "Places")]
    pub home: Option<PathBuf>,

    /// The checkout: charts, examples and the sources of the cluster's programs.
    #[arg(long, env = "MYCELIUM_CHECKOUT", global = true, default_value = ".", help_heading = "Places")]
    pub root: PathBuf,

    /// Cargo's target folder, with the release builds and the wheel; `target` in the checkout by default.
    #[arg(long, env = "CARGO_TARGET_DIR", global = true, help_heading = "Places")]
    pub target_dir: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring up a cluster with everything on it, or repair one. Changes nothing when all is well.
    Up(ClusterArgs),
    /// Remove the cluster and leave nothing behind but built programs and images.
    Down,
    /// Start or repair the bare cluster only.
    Start(ClusterArgs),
    /// Install charts and quickstart on a running cluster, and wait until they are ready.
    Deploy,
    /// Make the images of the workspace, import them into a running cluster, and list their sizes.
    Images,
    /// Show what runs and how much memory it takes.
    Status,
    /// Print the path of the kubeconfig.
    Kubeconfig,
    /// Run kubectl on the cluster.
    Kubectl(ToolArgs),
    /// Run helm on the cluster.
    Helm(ToolArgs),
    /// Serve volumes; one of the cluster's own processes.
    #[command(hide = true)]
    Provisioner(ProvisionerArgs),
}

/// What kind of cluster.
#[derive(ClapArgs, Debug)]
pub struct ClusterArgs {
    /// local: processes on this machine. kind: kind in Docker. By default kind where a Docker engine answers.
    #[arg(long, env = "CLUSTER")]
    pub cluster: Option<Kind>,

    /// Number of nodes, 1 by default.
    #[arg(long, env = "NODES", value_parser = clap::value_parser!(u8).range(1..=i64::from(NODES_MAX)))]
    pub nodes: Option<u8>,

    #[arg(long, env = "MYCELIUM_NETWORK", help = format!("The private /15 of the cluster, {DEFAULT_NETWORK} by default"))]
    network: Option<String>,
}

/// Words for another program.
#[derive(ClapArgs, Debug)]
pub struct ToolArgs {
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// Arguments of the provisioner.
#[derive(ClapArgs, Debug)]
pub struct ProvisionerArgs {
    /// The folder of the volumes.
    #[arg(long)]
    pub volumes: PathBuf,
}

impl ClusterArgs {
    /// The part that concerns a cluster of processes.
    pub fn wanted(&self) -> Wanted {
        Wanted { nodes: self.nodes, network: self.network.clone() }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn words_for_kubectl_are_not_taken_for_our_own() {
        let args = Args::try_parse_from(["mycelium-cluster", "kubectl", "get", "pods", "-n", "x", "--help"]).unwrap();
        let Command::Kubectl(tool) = args.command else { unreachable!("kubectl was asked for") };
        assert_eq!(tool.words, ["get", "pods", "-n", "x", "--help"]);
    }
}
