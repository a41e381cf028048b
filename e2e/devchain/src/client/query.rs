//! Tables from the command line.

use std::io::Write;

use clap::Subcommand;
use jsonrpsee::rpc_params;
use serde_json::{Value, json};
use sidecar_util::{Score, Tao, ip_from_chain};

use super::connection::Connection;
use super::tx::parse_account;
use crate::keys;
use crate::pallets::subtensor::{AxonInfo, DynamicInfo, Metagraph, NetUid, StakeInfo};
use crate::runtime::{AccountId, Header};

/// What to read.
#[derive(Debug, Clone, Subcommand)]
pub enum Query {
    /// The neurons of a subnet.
    Neurons {
        /// Subnet.
        #[arg(long)]
        netuid: u16,
    },
    /// The subnets.
    Subnets,
    /// The TAO of an account.
    Balance {
        /// Address, or `//Name`.
        #[arg(value_parser = parse_account)]
        account: AccountId,
    },
    /// The stake of a coldkey.
    Stake {
        /// Address, or `//Name`.
        #[arg(value_parser = parse_account)]
        coldkey: AccountId,
    },
    /// The newest block.
    Head,
}

/// Reads and prints a table, or JSON.
///
/// # Errors
/// What the chain answers.
pub async fn query(url: &str, as_json: bool, query: Query) -> anyhow::Result<()> {
    let connection = Connection::open(url).await?;
    let table = match query {
        Query::Neurons { netuid } => neurons(&connection, netuid).await?,
        Query::Subnets => subnets(&connection).await?,
        Query::Balance { account } => balance(&connection, &account).await?,
        Query::Stake { coldkey } => stake(&connection, &coldkey).await?,
        Query::Head => head(&connection).await?,
    };
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{}", table.to_json())?;
    } else {
        write!(out, "{}", table.to_text())?;
    }
    Ok(())
}

/// Rows with named columns.
struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    fn to_json(&self) -> Value {
        let object = |row: &Vec<Value>| -> Value {
            self.columns.iter().map(|column| (*column).to_owned()).zip(row.iter().cloned()).collect()
        };
        self.rows.iter().map(object).collect()
    }

    fn to_text(&self) -> String {
        let text = |value: &Value| match value {
            Value::Null => "-".to_owned(),
            Value::Bool(true) => "yes".to_owned(),
            Value::Bool(false) => "no".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let head: Vec<String> = self.columns.iter().map(|column| column.to_uppercase()).collect();
        let cells: Vec<Vec<String>> =
            std::iter::once(head).chain(self.rows.iter().map(|row| row.iter().map(text).collect())).collect();
        let width = |column: usize| cells.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let padded: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
            padded.join("  ").trim_end().to_owned() + "\n"
        };
        cells.iter().map(line).collect()
    }
}

fn tao(rao: u64) -> Value {
    Tao::from_rao(rao).to_string().into()
}

fn score(raw: u16) -> Value {
    // Four digits are what a person compares; the chain holds 65535ths.
    format!("{:.4}", Score(raw).as_f64()).into()
}

fn axon_text(axon: &AxonInfo) -> Value {
    let reachable = axon.port != 0 && axon.ip != 0;
    let ip = reachable.then(|| ip_from_chain(axon.ip, axon.ip_type)).flatten();
    ip.map_or(Value::Null, |ip| std::net::SocketAddr::new(ip, axon.port).to_string().into())
}

async fn neurons(connection: &Connection, netuid: u16) -> anyhow::Result<Table> {
    let graph: Option<Metagraph> = connection.runtime("SubnetInfoRuntimeApi_get_metagraph", &NetUid(netuid)).await?;
    let graph = graph.ok_or_else(|| anyhow::anyhow!("there is no subnet {netuid}: `query subnets` lists them"))?;
    let trust = connection.storage::<Vec<u16>>(&trust_key(netuid), None).await?.unwrap_or_default();
    let row = |uid: usize| {
        vec![
            json!(uid),
            keys::address(&graph.hotkeys[uid]).into(),
            keys::address(&graph.coldkeys[uid]).into(),
            tao(graph.total_stake[uid].0),
            graph.validator_permit[uid].into(),
            graph.active[uid].into(),
            score(graph.incentives[uid].0),
            score(graph.dividends[uid].0),
            score(graph.consensus[uid].0),
            score(trust.get(uid).copied().unwrap_or(0)),
            graph.last_update[uid].0.into(),
            axon_text(&graph.axons[uid]),
        ]
    };
    Ok(Table {
        columns: vec![
            "uid",
            "hotkey",
            "coldkey",
            "stake",
            "permit",
            "active",
            "incentive",
            "dividends",
            "consensus",
            "vtrust",
            "last_update",
            "axon",
        ],
        rows: (0..graph.hotkeys.len()).map(row).collect(),
    })
}

fn trust_key(netuid: u16) -> Vec<u8> {
    crate::pallets::subtensor::ValidatorTrust::<crate::runtime::Runtime>::hashed_key_for(NetUid(netuid))
}

async fn subnets(connection: &Connection) -> anyhow::Result<Table> {
    let infos: Vec<Option<DynamicInfo>> = connection.runtime("SubnetInfoRuntimeApi_get_all_dynamic_info", &()).await?;
    let text = |bytes: &[codec::Compact<u8>]| {
        let bytes: Vec<u8> = bytes.iter().map(|byte| byte.0).collect();
        Value::from(String::from_utf8_lossy(&bytes).into_owned())
    };
    let row = |info: DynamicInfo| {
        vec![
            json!(info.netuid.0.0),
            text(&info.subnet_name),
            keys::address(&info.owner_coldkey).into(),
            json!(info.tempo.0),
            json!(info.blocks_since_last_step.0),
            tao(info.tao_in.0),
            tao(info.alpha_in.0),
            tao(info.alpha_out.0),
        ]
    };
    Ok(Table {
        columns: vec!["netuid", "name", "owner", "tempo", "since_epoch", "tao_in", "alpha_in", "alpha_out"],
        rows: infos.into_iter().flatten().map(row).collect(),
    })
}

async fn balance(connection: &Connection, account: &AccountId) -> anyhow::Result<Table> {
    type Info = frame_system::AccountInfo<u32, pallet_balances::AccountData<u64>>;
    let key = frame_system::Account::<crate::runtime::Runtime>::hashed_key_for(account);
    let info: Info = connection.storage(&key, None).await?.unwrap_or_default();
    Ok(Table {
        columns: vec!["account", "free", "reserved", "nonce"],
        rows: vec![vec![
            keys::address(account).into(),
            tao(info.data.free),
            tao(info.data.reserved),
            json!(info.nonce),
        ]],
    })
}

async fn stake(connection: &Connection, coldkey: &AccountId) -> anyhow::Result<Table> {
    let infos: Vec<StakeInfo> = connection.runtime("StakeInfoRuntimeApi_get_stake_info_for_coldkey", coldkey).await?;
    let row = |info: StakeInfo| {
        vec![keys::address(&info.hotkey).into(), json!(info.netuid.0.0), tao(info.stake.0), info.is_registered.into()]
    };
    Ok(Table { columns: vec!["hotkey", "netuid", "stake", "registered"], rows: infos.into_iter().map(row).collect() })
}

async fn head(connection: &Connection) -> anyhow::Result<Table> {
    let best: Header = connection.request("chain_getHeader", rpc_params![]).await?;
    let finalized_hash: Value = connection.request("chain_getFinalizedHead", rpc_params![]).await?;
    let finalized: Header = connection.request("chain_getHeader", rpc_params![finalized_hash]).await?;
    Ok(Table {
        columns: vec!["best", "finalized", "hash"],
        rows: vec![vec![json!(best.number), json!(finalized.number), format!("{:?}", best.hash()).into()]],
    })
}
