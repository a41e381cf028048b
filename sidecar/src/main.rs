//! `mycelium-sidecar`: reads the command line and runs.

use std::io::Write as _;
use std::process::ExitCode;
use std::thread::available_parallelism;

use clap::{CommandFactory, Parser};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sidecar::args::{Cli, Command, RunArgs};
use sidecar::config::Config;
use sidecar::telemetry::{self, Traces};
use tokio::runtime::{Builder, Runtime};

/// A sidecar is a small process beside the user's: on a large machine one thread per core would be waste.
const WORKER_THREADS_MAX: usize = 4;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let Some(command) = cli.command.or_else(|| cli.run.map(Command::Run)) else {
        Cli::command().error(clap::error::ErrorKind::MissingRequiredArgument, "--kind is required").exit();
    };
    let outcome = match command {
        Command::Run(args) => start(&args).map(|()| ExitCode::SUCCESS),
        Command::Openapi => print(sidecar::openapi()).map(|()| ExitCode::SUCCESS),
        ask => client().and_then(|runtime| runtime.block_on(sidecar::cli::ask(ask))),
    };
    outcome.unwrap_or_else(|error| {
        // One line: the kubelet shows the last one of a container that ended.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn start(args: &RunArgs) -> anyhow::Result<()> {
    raise_file_limit();
    let config = Config::try_from(args)?;
    let pair = sidecar::hotkey(&config)?;
    let threads = available_parallelism().map_or(1, usize::from).min(WORKER_THREADS_MAX);
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let traces = args.otlp_endpoint.as_ref().map(|endpoint| {
        Ok::<_, anyhow::Error>(Traces {
            endpoint: endpoint.clone(),
            hotkey: pair.hotkey(),
            netuid: sidecar::netuid(&config)?,
        })
    });
    let traces = traces.transpose()?;
    let _telemetry = {
        let _within = runtime.enter();
        telemetry::start(args.log_format, &args.log, traces.as_ref())?
    };
    runtime.block_on(sidecar::run(config, pair))
}

/// Each connection is a file. Many machines allow 1024 to those who do not ask, and two listeners may have that many each.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where it cannot be raised the listeners pause when there are no more, which is worse and no reason to stop.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// A runtime for one question.
fn client() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
