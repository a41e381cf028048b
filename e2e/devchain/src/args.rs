//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::client::{Query, Transaction};
use crate::faults::Fault;
use crate::node::BlockTime;
use crate::pallets::subtensor::NetuidType;

/// A development chain on which unmodified Bittensor clients work.
///
/// Without a command it runs the chain. `tx` and `query` talk to a running one.
#[derive(Debug, Parser)]
#[command(name = "mycelium-devchain", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// What to do instead of running a chain.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run the chain.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to do instead of running a chain.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the chain.
    Run(RunArgs),
    /// Signs and sends a transaction, waits for its block and prints its events.
    Tx {
        /// What to send.
        #[command(subcommand)]
        transaction: Transaction,
        /// Who signs: `//Name`, or the path of a wallet file.
        #[arg(long, global = true, env = "DEVCHAIN_FROM", default_value = "//Alice", hide_env_values = true)]
        from: String,
        /// Endpoint of the chain.
        #[arg(long, global = true, env = "DEVCHAIN_URL", default_value = "ws://127.0.0.1:9944")]
        url: String,
    },
    /// Reads from the chain and prints a table.
    Query {
        /// What to read.
        #[command(subcommand)]
        query: Query,
        /// Prints JSON instead of a table.
        #[arg(long, global = true)]
        json: bool,
        /// Endpoint of the chain.
        #[arg(long, global = true, env = "DEVCHAIN_URL", default_value = "ws://127.0.0.1:9944")]
        url: String,
    },
}

/// How to run the chain.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// Address and port of JSON-RPC, WebSocket and HTTP alike; port 0 takes a free one.
    #[arg(long, env = "DEVCHAIN_LISTEN", default_value = "127.0.0.1:9944")]
    pub listen: SocketAddr,
    /// Time between blocks, such as `12s` or `250ms`, which is also called `fast`; or `instant`: a block as soon as there
    /// is an extrinsic.
    #[arg(long, env = "DEVCHAIN_BLOCK_TIME", default_value = "12s", value_parser = parse_block_time)]
    pub block_time: BlockTime,
    /// JSON file with subnets, neurons and accounts; without it the network is that of the public localnet.
    #[arg(long, env = "DEVCHAIN_GENESIS")]
    pub genesis: Option<PathBuf>,
    /// How metadata shows netuids: as a plain `u16`, which clients of every age read, or as a type of its own, as the
    /// public chain does since July 2026. A chain on disk keeps what it was started with.
    #[arg(long, env = "DEVCHAIN_NETUID_TYPE", value_enum, default_value_t = NetuidKind::U16)]
    pub netuid_type: NetuidKind,
    /// Directory that keeps finalised blocks and their state; without it everything is in memory.
    #[arg(long, env = "DEVCHAIN_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Blocks whose state can be read; older ones are discarded.
    #[arg(long, env = "DEVCHAIN_HISTORY", default_value_t = 256, value_parser = clap::value_parser!(u32).range(8..))]
    pub history: u32,
    /// Blocks by which finality lags behind; always 0 with `--block-time instant`.
    #[arg(long, env = "DEVCHAIN_FINALITY_LAG", default_value_t = 2)]
    pub finality_lag: u32,
    /// Fault to start with, such as `slow:delay_ms=500` or `stall:at_block=20`; may be given several times. Kinds:
    /// `drop`, `half_open`, `rate_limit`, `slow`, `truncate`, `pool_error`, `stall`, `finality_stall`, `prune`,
    /// `upgrade`, `reorg`.
    #[arg(long = "fault", value_name = "KIND[:FIELD=VALUE,...]", env = "DEVCHAIN_FAULTS", value_delimiter = ' ')]
    pub faults: Vec<Fault>,
    /// Loopback address of the admin endpoint, for faults, reorgs, upgrades and snapshots on a running chain; without
    /// it there is none. Port 0 takes a free one.
    #[arg(long, env = "DEVCHAIN_ADMIN", value_parser = parse_loopback)]
    pub admin: Option<SocketAddr>,
    /// Form of the log.
    #[arg(long, env = "DEVCHAIN_LOG", value_enum, default_value_t = LogFormat::Text)]
    pub log: LogFormat,
    /// Logs empty blocks as well.
    #[arg(long, env = "DEVCHAIN_VERBOSE")]
    pub verbose: bool,
}

/// How metadata shows netuids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NetuidKind {
    /// As a plain `u16`.
    U16,
    /// As a type of its own.
    Newtype,
}

impl From<NetuidKind> for NetuidType {
    fn from(kind: NetuidKind) -> Self {
        match kind {
            NetuidKind::U16 => Self::U16,
            NetuidKind::Newtype => Self::Newtype,
        }
    }
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Time between the blocks of the public localnet in its fast mode.
const FAST: Duration = Duration::from_millis(250);

fn parse_block_time(text: &str) -> Result<BlockTime, String> {
    match text {
        "instant" => return Ok(BlockTime::Instant),
        "fast" => return Ok(BlockTime::Every(FAST)),
        _ => {}
    }
    let (digits, unit_ms) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s').ok_or("write `12s`, `250ms`, `fast` or `instant`")?, 1000),
    };
    let value = u64::from_str(digits).map_err(|_| "write `12s`, `250ms`, `fast` or `instant`")?;
    let period = Duration::from_millis(value.saturating_mul(unit_ms));
    if period < Duration::from_millis(10) || period > Duration::from_hours(1) {
        return Err("a block takes 10ms to 3600s".into());
    }
    Ok(BlockTime::Every(period))
}

fn parse_loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "write an address and a port, such as 127.0.0.1:9945")?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("whoever reaches it rules the chain, so it listens on loopback only: write 127.0.0.1:PORT or [::1]:PORT"
            .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_times_are_read_with_their_unit() {
        assert_eq!(parse_block_time("250ms"), Ok(BlockTime::Every(Duration::from_millis(250))));
        assert_eq!(parse_block_time("fast"), parse_block_time("250ms"));
        assert_eq!(parse_block_time("12s"), Ok(BlockTime::Every(Duration::from_secs(12))));
        assert_eq!(parse_block_time("instant"), Ok(BlockTime::Instant));
        for wrong in ["12", "0s", "1h", "-1s", "", "s", "9999s"] {
            assert!(parse_block_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_admin_endpoint_stays_on_this_machine() {
        assert!(parse_loopback("127.0.0.1:9945").is_ok() && parse_loopback("[::1]:0").is_ok());
        assert!(parse_loopback("0.0.0.0:9945").unwrap_err().contains("loopback only"));
        assert!(parse_loopback("9945").unwrap_err().contains("such as"));
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
