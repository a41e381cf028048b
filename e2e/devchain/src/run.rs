//! Runs a chain until it is told to stop.

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, AdminServer};
use crate::args::{LogFormat, RunArgs};
use crate::faults::Faults;
use crate::genesis::{Genesis, author};
use crate::keys::{DEV_NAMES, account, address};
use crate::node::{BlockTime, Node, NodeConfig};
use crate::rpc;

/// How often the run looks whether the author is still there.
const AUTHOR_CHECK: std::time::Duration = std::time::Duration::from_secs(1);

/// Runs a chain until SIGTERM or SIGINT.
///
/// # Errors
/// When the genesis file, the state directory or the address cannot be used, or the disk fails on the way.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    start_log(args.log, args.verbose);
    let finality_lag = if args.block_time == BlockTime::Instant { 0 } else { args.finality_lag };
    anyhow::ensure!(
        finality_lag < args.history,
        "--finality-lag: {finality_lag} is not below --history {}: the state of a block is needed until it is final; \
         raise --history or lower the lag",
        args.history
    );
    raise_file_limit();
    let mut genesis = match &args.genesis {
        Some(path) => Genesis::read(path)?,
        None => Genesis::localnet(),
    };
    genesis.netuid_type = args.netuid_type.into();
    let state = genesis.build(args.block_time)?;
    let config = NodeConfig {
        block_time: args.block_time,
        finality_lag,
        history: args.history,
        state_dir: args.state_dir.clone(),
    };
    let faults = Arc::new(Faults::default());
    for fault in &args.faults {
        faults.set(fault.clone())?;
    }
    let (node, author) = Node::start(state, author(), config, faults)?;
    let server = rpc::serve(Arc::clone(&node), args.listen).await?;
    let admin = match args.admin {
        Some(address) => Some(admin::serve(Arc::clone(&node), address).await?),
        None => None,
    };
    greet(&node, &server, admin.as_ref(), &args).context("cannot write to standard output")?;

    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut check = tokio::time::interval(AUTHOR_CHECK);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("cannot listen for SIGINT")?;
                break;
            }
            _ = check.tick() => anyhow::ensure!(!author.is_finished(), "the chain stopped: see the log above"),
        }
    }
    tracing::info!(number = node.best().header.number, "stopping");
    let _ = server.handle.stop();
    if let Some(admin) = admin {
        admin.stop().await;
    }
    // The author finishes its block and leaves the disk in order.
    tokio::task::spawn_blocking(move || author.stop()).await.context("the author did not stop")?;
    Ok(())
}

/// What a person wants to know of a chain that has just started.
fn greet(node: &Node, server: &rpc::RpcServer, admin: Option<&AdminServer>, args: &RunArgs) -> std::io::Result<()> {
    let faults: Vec<&str> = args.faults.iter().map(|fault| fault.kind().name()).collect();
    let faults = faults.join(", ");
    let admin = admin.map(|admin| admin.address.to_string());
    let mut out = std::io::stdout().lock();
    let (address_, genesis, best) = (server.address, node.genesis_hash(), node.best().header.number);
    if args.log == LogFormat::Json {
        let accounts: Vec<String> = DEV_NAMES.iter().map(|name| dev_account(name).join(" ")).collect();
        let accounts = accounts.join(", ");
        tracing::info!(listen = %address_, admin, faults, accounts, genesis = ?genesis, best, "started");
        return Ok(());
    }
    let blocks = match args.block_time {
        BlockTime::Every(period) => format!("every {period:?}"),
        BlockTime::Instant => "one per extrinsic".into(),
    };
    writeln!(out, "endpoint      ws://{address_}  http://{address_}")?;
    writeln!(out, "metrics       http://{address_}/metrics")?;
    if let Some(admin) = admin {
        writeln!(out, "admin         http://{admin}")?;
    }
    if !faults.is_empty() {
        writeln!(out, "faults        {faults}")?;
    }
    writeln!(out, "genesis hash  {genesis:?}")?;
    writeln!(out, "blocks        {blocks}, at block {best}")?;
    writeln!(out, "accounts      1000000 TAO each at genesis; //Alice is sudo unless the genesis file says otherwise")?;
    for name in DEV_NAMES {
        let [uri, address] = dev_account(name);
        writeln!(out, "  {uri:<11} {address}")?;
    }
    out.flush()
}

/// How a development account is named and addressed.
fn dev_account(name: &str) -> [String; 2] {
    let uri = format!("//{name}");
    let address = account(&uri).map(|account| address(&account)).unwrap_or_default();
    [uri, address]
}

/// Lets the process have as many open sockets as the system allows it: Python clients open one per object, and the
/// usual soft limit of 1024 is for programs that use `select`.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

fn start_log(format: LogFormat, verbose: bool) {
    // The database below tells of every table it writes; only its warnings matter here.
    let default = if verbose { "warn,e2e_devchain=debug" } else { "warn,e2e_devchain=info" };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stdout().is_terminal())
        .with_writer(std::io::stdout);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
