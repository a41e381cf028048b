//! The program `mycelium-devchain`.

use std::process::ExitCode;

use clap::Parser;
use e2e_devchain::args::{Args, Command};
use e2e_devchain::client;
use e2e_devchain::node::RUNTIME_STACK_BYTES;

fn main() -> ExitCode {
    let args = Args::parse();
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(RUNTIME_STACK_BYTES).build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let done = runtime.block_on(async {
        match args.command {
            None => e2e_devchain::run::run(args.run).await,
            Some(Command::Run(run)) => e2e_devchain::run::run(run).await,
            Some(Command::Tx { transaction, from, url }) => client::transact(&url, &from, transaction).await,
            Some(Command::Query { query, json, url }) => client::query(&url, json, query).await,
        }
    });
    done.map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
}

/// Tells the whole chain of causes.
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
