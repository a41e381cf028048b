//! Transactions from the command line.

use std::io::Write;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use anyhow::anyhow;
use clap::Subcommand;
use sidecar_util::{Alpha, Tao, ip_to_chain};
use sp_core::sr25519;
use sp_runtime::MultiAddress;

use super::connection::{Connection, Inclusion};
use super::metadata;
use crate::keys;
use crate::pallets::subtensor::{self, NetUid};
use crate::runtime::{AccountId, RuntimeCall, RuntimeEvent};

/// What to send.
#[derive(Debug, Clone, Subcommand)]
pub enum Transaction {
    /// Stakes TAO of the signer to a hotkey.
    AddStake {
        /// Staked to.
        #[arg(long, value_parser = parse_account)]
        hotkey: AccountId,
        /// Subnet; 0 is the root network.
        #[arg(long)]
        netuid: u16,
        /// TAO.
        #[arg(long)]
        amount: Tao,
    },
    /// Takes stake of the signer from a hotkey.
    RemoveStake {
        /// Taken from.
        #[arg(long, value_parser = parse_account)]
        hotkey: AccountId,
        /// Subnet; 0 is the root network.
        #[arg(long)]
        netuid: u16,
        /// Alpha (TAO on the root network); everything when absent.
        #[arg(long)]
        amount: Option<Alpha>,
    },
    /// Registers a hotkey of the signer on a subnet.
    Register {
        /// Subnet.
        #[arg(long)]
        netuid: u16,
        /// Hotkey.
        #[arg(long, value_parser = parse_account)]
        hotkey: AccountId,
    },
    /// Adds a subnet that the signer owns.
    RegisterNetwork {
        /// Hotkey of its owner.
        #[arg(long, value_parser = parse_account)]
        hotkey: AccountId,
    },
    /// Starts the emission of the signer's subnet.
    StartCall {
        /// Subnet.
        #[arg(long)]
        netuid: u16,
    },
    /// Sends TAO.
    Transfer {
        /// To whom.
        #[arg(long, value_parser = parse_account)]
        to: AccountId,
        /// TAO.
        #[arg(long)]
        amount: Tao,
    },
    /// Publishes where the signer, a hotkey, can be reached.
    ServeAxon {
        /// Subnet.
        #[arg(long)]
        netuid: u16,
        /// Address.
        #[arg(long)]
        ip: IpAddr,
        /// Port.
        #[arg(long)]
        port: NonZeroU16,
        /// 4 HTTP as SDKs write it, 0 TCP, 1 UDP.
        #[arg(long, default_value_t = 4)]
        protocol: u8,
        /// Version of the software.
        #[arg(long, default_value_t = 1)]
        version: u32,
    },
    /// Sets weights of the signer, a hotkey.
    SetWeights {
        /// Subnet.
        #[arg(long)]
        netuid: u16,
        /// Weights as `uid:weight,...`, such as `0:1,3:65535`; only their proportions matter.
        #[arg(long, value_delimiter = ',', required = true)]
        weights: Vec<Weight>,
        /// Version key.
        #[arg(long, default_value_t = 0)]
        version_key: u64,
        /// Mechanism.
        #[arg(long, default_value_t = 0)]
        mecid: u8,
    },
    /// Sets a hyperparameter as sudo: a setter of `AdminUtils` without `sudo_set_`, such as `tempo`.
    SudoSet {
        /// Name of the setter.
        name: String,
        /// Value.
        value: String,
        /// Subnet, where the value is one of a subnet.
        #[arg(long)]
        netuid: Option<u16>,
    },
}

/// A weight on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    uid: u16,
    value: u16,
}

impl FromStr for Weight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not uid:weight, both from 0 to 65535");
        let (uid, value) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Self { uid: uid.parse().map_err(|_| wrong())?, value: value.parse().map_err(|_| wrong())? })
    }
}

pub(super) fn parse_account(text: &str) -> Result<AccountId, String> {
    keys::account(text).map_err(|error| error.to_string())
}

/// Sends a transaction, waits for its block and prints what happened.
///
/// # Errors
/// Why the pool or the runtime refused it, by name.
pub async fn transact(url: &str, from: &str, transaction: Transaction) -> anyhow::Result<()> {
    let signer = keys::signer(from)?;
    let connection = Connection::open(url).await?;
    let call = build(&connection, &signer, transaction).await?;
    let extrinsic = connection.sign(call, &signer).await?;
    let inclusion = connection.submit(&extrinsic).await?;
    report(&inclusion)
}

async fn build(
    connection: &Connection,
    signer: &sr25519::Pair,
    transaction: Transaction,
) -> anyhow::Result<RuntimeCall> {
    use subtensor::Call;
    Ok(match transaction {
        Transaction::AddStake { hotkey, netuid, amount } => {
            Call::add_stake { hotkey, netuid: NetUid(netuid), amount_staked: amount.rao }.into()
        }
        Transaction::RemoveStake { hotkey, netuid, amount } => {
            let amount_unstaked = match amount {
                Some(amount) => amount.rao,
                None => staked(connection, &hotkey, &keys::account_of(signer), netuid).await?,
            };
            Call::remove_stake { hotkey, netuid: NetUid(netuid), amount_unstaked }.into()
        }
        Transaction::Register { netuid, hotkey } => Call::burned_register { netuid: NetUid(netuid), hotkey }.into(),
        Transaction::RegisterNetwork { hotkey } => Call::register_network { hotkey }.into(),
        Transaction::StartCall { netuid } => Call::start_call { netuid: NetUid(netuid) }.into(),
        Transaction::Transfer { to, amount } => {
            let dest = MultiAddress::Id(to);
            pallet_balances::Call::transfer_keep_alive { dest, value: amount.rao }.into()
        }
        Transaction::ServeAxon { netuid, ip, port, protocol, version } => {
            let (ip, ip_type) = ip_to_chain(ip);
            let (netuid, port) = (NetUid(netuid), port.get());
            Call::serve_axon { netuid, version, ip, port, ip_type, protocol, placeholder1: 0, placeholder2: 0 }.into()
        }
        Transaction::SetWeights { netuid, weights, version_key, mecid } => {
            let (dests, values) = weights.iter().map(|weight| (weight.uid, weight.value)).unzip();
            Call::set_mechanism_weights { netuid: NetUid(netuid), mecid, dests, weights: values, version_key }.into()
        }
        Transaction::SudoSet { name, value, netuid } => {
            let call = Box::new(metadata::setter(&name, netuid, &value)?);
            pallet_sudo::Call::sudo { call }.into()
        }
    })
}

async fn staked(connection: &Connection, hotkey: &AccountId, coldkey: &AccountId, netuid: u16) -> anyhow::Result<u64> {
    let method = "StakeInfoRuntimeApi_get_stake_info_for_hotkey_coldkey_netuid";
    let info: Option<subtensor::StakeInfo> = connection.runtime(method, &(hotkey, coldkey, NetUid(netuid))).await?;
    Ok(info.map_or(0, |info| info.stake.0))
}

/// Prints block and events; a failed dispatch becomes an error that names it.
fn report(inclusion: &Inclusion) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "extrinsic {:?}", inclusion.extrinsic)?;
    writeln!(out, "in block  {} {:?}", inclusion.number, inclusion.block)?;
    let mut failure = None;
    for event in &inclusion.events {
        match event {
            RuntimeEvent::System(frame_system::Event::ExtrinsicFailed { dispatch_error, .. })
            | RuntimeEvent::Sudo(pallet_sudo::Event::Sudid { sudo_result: Err(dispatch_error) }) => {
                failure = Some(*dispatch_error);
            }
            _ => writeln!(out, "event     {}", event_text(event))?,
        }
    }
    failure.map_or(Ok(()), |error| Err(anyhow!("the call failed: {}", metadata::error_text(&error))))
}

/// An event with its accounts as addresses.
fn event_text(event: &RuntimeEvent) -> String {
    // `RuntimeEvent::Pallet(Event::Name(...))` prints best without the outer layers.
    let text = format!("{event:?}");
    let text = text.strip_prefix("RuntimeEvent::").unwrap_or(&text).replacen("(Event::", ".", 1);
    let text = text.strip_suffix(')').map(ToOwned::to_owned).unwrap_or(text);
    addresses(&text)
}

/// Replaces `<64 hex digits> (<start of address>...)`, the debug form of an account, by its address.
fn addresses(text: &str) -> String {
    const HEX: usize = 64;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find(" (5") {
        let (before, after) = rest.split_at(open);
        let close = after.find("...)").map(|at| at + "...)".len());
        let start = open.checked_sub(HEX);
        let account = start.and_then(|start| before.get(start..)).and_then(|digits| hex::decode(digits).ok());
        let account = account.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        if let (Some(bytes), Some(close)) = (account, close) {
            out.push_str(&before[..open - HEX]);
            out.push_str(&keys::address(&AccountId::new(bytes)));
            rest = &after[close..];
        } else {
            out.push_str(before);
            out.push_str(&after[..3]);
            rest = &after[3..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Runtime;

    #[test]
    fn events_show_addresses() {
        let alice = keys::account("//Alice").unwrap();
        let event: RuntimeEvent = subtensor::Event::<Runtime>::NeuronRegistered(NetUid(1), 2, alice.clone()).into();
        let text = event_text(&event);
        assert!(text.starts_with("SubtensorModule.") && text.contains(&keys::address(&alice)), "{text}");
        assert!(!text.contains("..."), "{text}");
    }

    #[test]
    fn weights_are_read_as_pairs() {
        assert_eq!("3:7".parse(), Ok(Weight { uid: 3, value: 7 }));
        for wrong in ["3", "3:", ":7", "3:70000", "a:1", "3:0.5"] {
            assert!(wrong.parse::<Weight>().is_err(), "{wrong}");
        }
    }
}
