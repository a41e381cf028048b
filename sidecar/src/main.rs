//! `mycelium-sidecar`: reads the command line and runs.

use std::process::ExitCode;
use std::thread::available_parallelism;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use sidecar::args::{Cli, Command, RunArgs};
use sidecar::config::Config;
use sidecar::telemetry;

/// A sidecar is a small process beside the user's: on a large machine one thread per core would be waste.
const WORKER_THREADS_MAX: usize = 4;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let Some(args) = cli.command.map(|Command::Run(args)| args).or(cli.run) else {
        Cli::command().error(clap::error::ErrorKind::MissingRequiredArgument, "--kind is required").exit();
    };
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: the kubelet shows the last one of a container that ended.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &RunArgs) -> anyhow::Result<()> {
    telemetry::start(args.log_format, &args.log).context("--log")?;
    let config = Config::try_from(args)?;
    let threads = available_parallelism().map_or(1, usize::from).min(WORKER_THREADS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(sidecar::run(config))
}
