//! Measures the development chain as its users meet it: the real program in its own process, asked over its sockets.
//!
//! There is nothing to compare a development chain with that runs without a container of another's making, so the bars
//! stand alone. The command line is that of all benches (`e2e::bench`).
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that cannot go on stops, and says so")]

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use codec::{Decode, Encode};
use e2e::bench::chain::{self, genesis};
use e2e::bench::{Bench, Good, Measured, median, ms, run};
use e2e_devchain::keys;
use e2e_devchain::pallets::subtensor::{BlocksSinceLastStep, Metagraph, NetUid};
use e2e_devchain::runtime::{Hash, Runtime, RuntimeCall, SignedPayload, UncheckedExtrinsic, VERSION, tx_extension};
use jsonrpsee::core::client::ClientT;
use jsonrpsee::rpc_params;
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};
use serde_json::json;
use sp_core::{Pair, sr25519};
use sp_runtime::MultiAddress;
use sp_runtime::generic::Era;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    run(vec![
        Bench::new(&["devchain_start_ms"], || start().map(one)),
        Bench::new(&["devchain_get_metagraph_1024_ms"], || metagraph().map(one)),
        Bench::new(&["devchain_extrinsics_per_s"], || runtime.block_on(extrinsics()).map(one)),
        Bench::new(&["devchain_epoch_1024_ms"], || epoch().map(one)),
        Bench::new(&["devchain_rss_mb"], || memory().map(one)),
    ])
}

fn one(measured: Measured) -> Vec<Measured> {
    vec![measured]
}

fn alone(name: &'static str, unit: &'static str, ours: f64, good: Good, bar: f64) -> Measured {
    Measured { name, unit, ours, baseline: None, bar: Some((good, bar)) }
}

/// A chain that makes blocks when there is something to put into them.
struct Chain(chain::Chain);

impl std::ops::Deref for Chain {
    type Target = chain::Chain;

    fn deref(&self) -> &chain::Chain {
        &self.0
    }
}

impl Chain {
    fn start(genesis: &Path) -> anyhow::Result<Self> {
        chain::Chain::start(Path::new(env!("CARGO_BIN_EXE_mycelium-devchain")), genesis, "instant").map(Self)
    }
}

/// From the start of the process to its first answer, with 256 neurons.
fn start() -> anyhow::Result<Measured> {
    let dir = tempfile::tempdir()?;
    let path = genesis(dir.path(), 256, 100)?;
    let run = || -> anyhow::Result<f64> {
        let started = Instant::now();
        let chain = Chain::start(&path)?;
        let version = chain.call("state_getRuntimeVersion", &json!([]))?;
        let took = started.elapsed();
        assert_eq!(version["specVersion"], VERSION.spec_version);
        Ok(ms(took))
    };
    let ours = median((0..11).map(|_| run()).collect::<Result<_, _>>()?);
    Ok(alone("devchain_start_ms", "ms", ours, Good::Below, 1000.0))
}

/// The metagraph of 1,024 neurons, from the call's arrival to its answer as the server counts it. Every call is on a
/// new block, so nothing is remembered from the one before.
fn metagraph() -> anyhow::Result<Measured> {
    let dir = tempfile::tempdir()?;
    let chain = Chain::start(&genesis(dir.path(), 1024, 360)?)?;
    let data = format!("0x{}", hex::encode(NetUid(2).encode()));
    let sum = r#"substrate_rpc_calls_time_sum{method="state_call"}"#;
    let mut times = Vec::new();
    let mut seen_by_client = Vec::new();
    for _ in 0..51 {
        chain.make_blocks(1)?;
        let before = chain.metric(sum)?;
        let started = Instant::now();
        let answer = chain.call("state_call", &json!(["SubnetInfoRuntimeApi_get_metagraph", data]))?;
        seen_by_client.push(ms(started.elapsed()));
        times.push((chain.metric(sum)? - before) * 1e3);
        let bytes = hex::decode(answer.as_str().context("no text")?.trim_start_matches("0x"))?;
        let graph = Option::<Metagraph>::decode(&mut bytes.as_slice())?.context("no subnet")?;
        assert_eq!(graph.hotkeys.len(), 1024);
    }
    println!("  metagraph of 1024 neurons as the client sees it: {:.2} ms", median(seen_by_client));
    Ok(alone("devchain_get_metagraph_1024_ms", "ms", median(times), Good::Below, 10.0))
}

fn sign(call: RuntimeCall, pair: &sr25519::Pair, nonce: u32, genesis: Hash) -> String {
    let extension = tx_extension(Era::Immortal, nonce, 0);
    let implicit =
        (((), VERSION.spec_version, VERSION.transaction_version, genesis, genesis, (), ()), ((), (), (), (), (), None));
    let payload = SignedPayload::from_raw(call.clone(), extension.clone(), implicit);
    let signature = payload.using_encoded(|bytes| pair.sign(bytes));
    let address = MultiAddress::Id(keys::account_of(pair));
    let extrinsic = UncheckedExtrinsic::new_signed(call, address, signature.into(), extension);
    format!("0x{}", hex::encode(extrinsic.encode()))
}

/// Signed transfers a second, from the first submission until the last is in a block. One client, 64 in flight.
async fn extrinsics() -> anyhow::Result<Measured> {
    const ACCOUNTS: u32 = 6;
    const EACH: u32 = 1000;
    const IN_FLIGHT: usize = 64;
    let dir = tempfile::tempdir()?;
    let chain = Chain::start(&genesis(dir.path(), 16, 360)?)?;
    let client: WsClient = WsClientBuilder::default().build(format!("ws://{}", chain.address)).await.unwrap();
    let genesis: Hash = client.request("chain_getBlockHash", rpc_params![0]).await.unwrap();
    let accounts: Vec<sr25519::Pair> =
        keys::DEV_NAMES.iter().map(|name| keys::pair_from_uri(&format!("//{name}")).unwrap()).collect();
    assert_eq!(accounts.len(), usize::try_from(ACCOUNTS).unwrap());
    let dest = keys::account("//Bench//receiver").unwrap();
    let signed: Vec<String> = (0..EACH)
        .flat_map(|nonce| accounts.iter().map(move |pair| (pair, nonce)))
        .map(|(pair, nonce)| {
            let dest = MultiAddress::Id(dest.clone());
            let call = pallet_balances::Call::transfer_keep_alive { dest, value: 1_000_000 };
            sign(call.into(), pair, nonce, genesis)
        })
        .collect();

    let started = Instant::now();
    let submit = |extrinsic: String| client.request::<Hash, _>("author_submitExtrinsic", rpc_params![extrinsic]);
    let submissions = futures::stream::iter(signed.into_iter().map(submit));
    let results: Vec<_> = futures::StreamExt::collect(futures::StreamExt::buffered(submissions, IN_FLIGHT)).await;
    for result in results {
        let _: Hash = result.unwrap();
    }
    let included = f64::from(ACCOUNTS * EACH);
    while chain.metric("devchain_extrinsics_total")? < included {
        assert!(started.elapsed() < Duration::from_mins(2), "not all extrinsics were included");
    }
    let ours = included / started.elapsed().as_secs_f64();
    let blocks = number(&client).await;
    println!("  {included} transfers in {blocks} blocks");
    Ok(alone("devchain_extrinsics_per_s", "1/s", ours, Good::Above, 1000.0))
}

async fn number(client: &WsClient) -> u32 {
    let header: e2e_devchain::runtime::Header = client.request("chain_getHeader", rpc_params![]).await.unwrap();
    header.number
}

/// The block in which the epoch of 1,024 neurons runs, as the author counts it: 64 validators weigh 960 miners each.
fn epoch() -> anyhow::Result<Measured> {
    let dir = tempfile::tempdir()?;
    let chain = Chain::start(&genesis(dir.path(), 1024, 4)?)?;
    let key = format!("0x{}", hex::encode(BlocksSinceLastStep::<Runtime>::hashed_key_for(NetUid(2))));
    let mut times = Vec::new();
    while times.len() < 7 {
        let before = chain.metric("substrate_proposer_block_constructed_sum")?;
        chain.make_blocks(1)?;
        let took = chain.metric("substrate_proposer_block_constructed_sum")? - before;
        let since = chain.call("state_getStorage", &json!([key]))?;
        let ran = since.as_str().is_none_or(|hex| hex == "0x0000000000000000");
        if ran {
            times.push(took * 1e3);
        }
    }
    Ok(alone("devchain_epoch_1024_ms", "ms", median(times), Good::Below, 500.0))
}

/// Resident memory after 10,000 blocks with 256 neurons and the default history.
fn memory() -> anyhow::Result<Measured> {
    let dir = tempfile::tempdir()?;
    let chain = Chain::start(&genesis(dir.path(), 256, 100)?)?;
    chain.make_blocks(10_000)?;
    let ours = chain::rss_mb(chain.pid())?;
    Ok(alone("devchain_rss_mb", "MB", ours, Good::Below, 150.0))
}
