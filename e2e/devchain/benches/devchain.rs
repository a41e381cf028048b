//! Measures the development chain as its users meet it: the real program in its own process, asked over its sockets.
//!
//! `--report PATH` (several times) names files that the results are merged into; `--only PREFIX` runs a part. Results
//! of other benches in those files stay. The program exits with an error when a bar is missed.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that cannot go on stops, and says so")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use codec::{Decode, Encode};
use e2e_devchain::keys;
use e2e_devchain::pallets::subtensor::{BlocksSinceLastStep, Metagraph, NetUid};
use e2e_devchain::runtime::{Hash, Runtime, RuntimeCall, SignedPayload, UncheckedExtrinsic, VERSION, tx_extension};
use jsonrpsee::core::client::ClientT;
use jsonrpsee::rpc_params;
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};
use serde_json::{Value, json};
use sp_core::{Pair, sr25519};
use sp_runtime::MultiAddress;
use sp_runtime::generic::Era;

#[derive(Parser)]
struct Args {
    /// File that the results are merged into.
    #[arg(long)]
    report: Vec<PathBuf>,
    /// Beginning of the names of what is measured; everything when empty.
    #[arg(long, default_value = "")]
    only: String,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Which side of the bar is good.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Good {
    Below,
    Above,
}

/// One line of the report.
struct Measured {
    name: &'static str,
    unit: &'static str,
    ours: f64,
    bar: f64,
    good: Good,
}

impl Measured {
    fn passes(&self) -> bool {
        match self.good {
            Good::Below => self.ours <= self.bar,
            Good::Above => self.ours >= self.bar,
        }
    }

    /// There is nothing to compare a development chain with that runs without a container of another's making, so the
    /// bar stands alone.
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "unit": self.unit,
            "ours": (self.ours * 1000.0).round() / 1000.0,
            "baseline": null,
            "baseline_name": null,
            "ratio": null,
            "bar": self.bar,
            "pass": self.passes(),
        })
    }
}

type Bench = fn(&tokio::runtime::Runtime) -> Measured;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut results = Vec::new();
    let benches: [(&str, Bench); 5] = [
        ("devchain_start_ms", |_| start()),
        ("devchain_get_metagraph_1024_ms", |_| metagraph()),
        ("devchain_extrinsics_per_s", |runtime| runtime.block_on(extrinsics())),
        ("devchain_epoch_1024_ms", |_| epoch()),
        ("devchain_rss_mb", |_| memory()),
    ];
    for (name, bench) in benches {
        if name.starts_with(&args.only) {
            let measured = bench(&runtime);
            let verdict = if measured.passes() { "ok" } else { "MISSED" };
            println!(
                "{:<32} {:>10.2} {:<4} bar {:>7} {verdict}",
                measured.name, measured.ours, measured.unit, measured.bar
            );
            results.push(measured);
        }
    }
    for path in &args.report {
        merge(path, &results);
    }
    if results.iter().all(Measured::passes) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Puts the results into a report that others write to as well.
fn merge(path: &Path, results: &[Measured]) {
    let known = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Vec<Value>>(&bytes).ok());
    let by_name = |value: Value| (value["name"].as_str().unwrap_or_default().to_owned(), value);
    let mut all: BTreeMap<String, Value> = known.unwrap_or_default().into_iter().map(by_name).collect();
    all.extend(results.iter().map(|measured| (measured.name.to_owned(), measured.json())));
    let all: Vec<Value> = all.into_values().collect();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, format!("{}\n", serde_json::to_string_pretty(&all).unwrap())).unwrap();
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A genesis file with one subnet; a sixteenth of its neurons are validators that weigh all others.
fn genesis(dir: &Path, neurons: usize, tempo: u16) -> PathBuf {
    let validators = neurons / 16;
    let neuron = |uid: usize| {
        let mut neuron = json!({
            "hotkey": format!("//Bench//hot{uid}"),
            "coldkey": format!("//Bench//cold{}", uid % 64),
            "axon": { "ip": format!("8.8.{}.{}", uid / 256, uid % 256), "port": 8091 },
        });
        if uid < validators {
            neuron["stake"] = json!(format!("{}", 1000 + uid));
            let weights: Vec<Value> =
                (validators..neurons).map(|other| json!([other, 1 + (uid * other) % 997])).collect();
            neuron["weights"] = weights.into();
        }
        neuron
    };
    let file = json!({ "subnets": [{
        "netuid": 2,
        "owner": "//Alice",
        "hyperparameters": { "tempo": tempo, "max_uids": neurons, "max_validators": validators },
        "neurons": (0..neurons).map(neuron).collect::<Vec<Value>>(),
    }] });
    let path = dir.join(format!("genesis-{neurons}-{tempo}.json"));
    std::fs::write(&path, file.to_string()).unwrap();
    path
}

struct Chain {
    child: Child,
    address: String,
    admin: String,
}

impl Chain {
    fn start(genesis: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mycelium-devchain"))
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--block-time", "instant", "--genesis"])
            .arg(genesis)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut url = |scheme: &str| {
            let line = lines.find(|line| line.contains(scheme)).expect("the chain printed no address");
            line.split_once(scheme).unwrap().1.split_whitespace().next().unwrap().to_owned()
        };
        let address = url("ws://");
        // The first line with `http://` after the endpoint is that of the metrics.
        let _ = url("http://");
        let admin = url("http://");
        // Whoever reads the rest keeps the chain from blocking on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address, admin }
    }

    fn call(&self, method: &str, params: &Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer: Value = serde_json::from_str(&http(&self.address, "POST", "/", &request.to_string())).unwrap();
        assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        answer["result"].clone()
    }

    fn make_blocks(&self, blocks: u32) {
        let made = http(&self.admin, "POST", "/blocks", &json!({ "blocks": blocks }).to_string());
        assert!(made.contains("number"), "{made}");
    }

    /// Value of a metric.
    fn metric(&self, name: &str) -> f64 {
        let metrics = http(&self.address, "GET", "/metrics", "");
        metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_default()
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn http(address: &str, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    );
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// From the start of the process to its first answer, with 256 neurons.
fn start() -> Measured {
    let dir = tempfile::tempdir().unwrap();
    let path = genesis(dir.path(), 256, 100);
    let run = || {
        let started = Instant::now();
        let chain = Chain::start(&path);
        let version = chain.call("state_getRuntimeVersion", &json!([]));
        let took = started.elapsed();
        assert_eq!(version["specVersion"], VERSION.spec_version);
        ms(took)
    };
    let ours = median((0..11).map(|_| run()).collect());
    Measured { name: "devchain_start_ms", unit: "ms", ours, bar: 1000.0, good: Good::Below }
}

/// The metagraph of 1,024 neurons, from the call's arrival to its answer as the server counts it. Every call is on a
/// new block, so nothing is remembered from the one before.
fn metagraph() -> Measured {
    let dir = tempfile::tempdir().unwrap();
    let chain = Chain::start(&genesis(dir.path(), 1024, 360));
    let data = format!("0x{}", hex::encode(NetUid(2).encode()));
    let sum = r#"substrate_rpc_calls_time_sum{method="state_call"}"#;
    let mut times = Vec::new();
    let mut seen_by_client = Vec::new();
    for _ in 0..51 {
        chain.make_blocks(1);
        let before = chain.metric(sum);
        let started = Instant::now();
        let answer = chain.call("state_call", &json!(["SubnetInfoRuntimeApi_get_metagraph", data]));
        seen_by_client.push(ms(started.elapsed()));
        times.push((chain.metric(sum) - before) * 1e3);
        let bytes = hex::decode(&answer.as_str().unwrap()[2..]).unwrap();
        let graph = Option::<Metagraph>::decode(&mut bytes.as_slice()).unwrap().unwrap();
        assert_eq!(graph.hotkeys.len(), 1024);
    }
    println!("  metagraph of 1024 neurons as the client sees it: {:.2} ms", median(seen_by_client));
    Measured { name: "devchain_get_metagraph_1024_ms", unit: "ms", ours: median(times), bar: 10.0, good: Good::Below }
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
async fn extrinsics() -> Measured {
    const ACCOUNTS: u32 = 6;
    const EACH: u32 = 1000;
    const IN_FLIGHT: usize = 64;
    let dir = tempfile::tempdir().unwrap();
    let chain = Chain::start(&genesis(dir.path(), 16, 360));
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
    while chain.metric("devchain_extrinsics_total") < included {
        assert!(started.elapsed() < Duration::from_mins(2), "not all extrinsics were included");
    }
    let ours = included / started.elapsed().as_secs_f64();
    let blocks = number(&client).await;
    println!("  {included} transfers in {blocks} blocks");
    Measured { name: "devchain_extrinsics_per_s", unit: "1/s", ours, bar: 1000.0, good: Good::Above }
}

async fn number(client: &WsClient) -> u32 {
    let header: e2e_devchain::runtime::Header = client.request("chain_getHeader", rpc_params![]).await.unwrap();
    header.number
}

/// The block in which the epoch of 1,024 neurons runs, as the author counts it: 64 validators weigh 960 miners each.
fn epoch() -> Measured {
    let dir = tempfile::tempdir().unwrap();
    let chain = Chain::start(&genesis(dir.path(), 1024, 4));
    let key = format!("0x{}", hex::encode(BlocksSinceLastStep::<Runtime>::hashed_key_for(NetUid(2))));
    let mut times = Vec::new();
    while times.len() < 7 {
        let before = chain.metric("substrate_proposer_block_constructed_sum");
        chain.make_blocks(1);
        let took = chain.metric("substrate_proposer_block_constructed_sum") - before;
        let since = chain.call("state_getStorage", &json!([key]));
        let ran = since.as_str().is_none_or(|hex| hex == "0x0000000000000000");
        if ran {
            times.push(took * 1e3);
        }
    }
    Measured { name: "devchain_epoch_1024_ms", unit: "ms", ours: median(times), bar: 500.0, good: Good::Below }
}

/// Resident memory after 10,000 blocks with 256 neurons and the default history.
fn memory() -> Measured {
    let dir = tempfile::tempdir().unwrap();
    let chain = Chain::start(&genesis(dir.path(), 256, 100));
    chain.make_blocks(10_000);
    let status = std::fs::read_to_string(format!("/proc/{}/status", chain.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    Measured { name: "devchain_rss_mb", unit: "MB", ours: kib * 1024.0 / 1e6, bar: 150.0, good: Good::Below }
}
