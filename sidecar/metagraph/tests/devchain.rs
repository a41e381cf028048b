//! Against the development chain, as a process of its own: what a recorded answer cannot show.
//!
//! The program is found by `MYCELIUM_DEVCHAIN`, or else where cargo puts it beside this test.
#![expect(clippy::unwrap_used, clippy::panic, reason = "clippy takes the helpers of tests for production code")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use sidecar_metagraph::keys::parse_hotkey;
use sidecar_metagraph::{ChainConfig, ChainView, Connect, Querier, SubxtConnect};
use sidecar_util::{BlockHash, Metagraph, NetUid, Tao, Uid};
use subxt::dynamic::{self, Value};
use subxt::{OnlineClient, PolkadotConfig};
use subxt_signer::sr25519::dev;

const NETUID: NetUid = NetUid(1);

/// Long enough for a loaded machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_mins(1);

const GENESIS: &str = r#"{
    "subnets": [{
        "netuid": 1,
        "hyperparameters": {"tempo": 10},
        "neurons": [
            {"hotkey": "//Alice", "coldkey": "//Ferdie", "stake": "5000",
             "axon": {"ip": "10.0.0.1", "port": 8091}},
            {"hotkey": "//Bob", "coldkey": "//Ferdie", "stake": "3000"},
            {"hotkey": "//Charlie", "coldkey": "//Ferdie"}
        ]
    }]
}"#;

/// A running chain with 250 ms blocks. It is killed when this is dropped.
struct Devchain {
    process: Child,
    endpoint: String,
    genesis_hash: BlockHash,
    directory: Arc<tempfile::TempDir>,
}

impl Devchain {
    fn start() -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        std::fs::write(directory.path().join("genesis.json"), GENESIS).unwrap();
        Self::spawn(directory, "127.0.0.1:0")
    }

    fn spawn(directory: Arc<tempfile::TempDir>, listen: &str) -> Self {
        let program = program();
        let mut process = Command::new(&program)
            .args(["--listen", listen, "--block-time", "250ms"])
            .arg("--genesis")
            .arg(directory.path().join("genesis.json"))
            .arg("--state-dir")
            .arg(directory.path().join("state"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; build it with `cargo build -p e2e-devchain`", program.display())
            });
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut word = |label: &str| {
            let line = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with(label));
            let line = line.unwrap_or_else(|| panic!("the chain ended before it said `{label}`"));
            line.trim_start_matches(label).split_whitespace().next().unwrap().to_owned()
        };
        let endpoint = word("endpoint");
        let genesis_hash = word("genesis hash").parse().unwrap();
        // Read on, or the chain blocks when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, endpoint, genesis_hash, directory }
    }

    /// Kills it without a warning.
    fn kill(mut self) -> Killed {
        self.stop();
        Killed { endpoint: self.endpoint.clone(), directory: self.directory.clone() }
    }

    fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn config(&self) -> ChainConfig {
        ChainConfig {
            endpoints: vec![self.endpoint.clone()],
            archive_endpoints: vec![],
            netuid: NETUID,
            genesis_hash: Some(self.genesis_hash),
            min_interval: Duration::from_millis(100),
        }
    }
}

impl Drop for Devchain {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.stop();
        }
    }
}

/// What is left of a chain that was killed.
struct Killed {
    endpoint: String,
    directory: Arc<tempfile::TempDir>,
}

impl Killed {
    fn restart(self) -> Devchain {
        Devchain::spawn(self.directory, self.endpoint.trim_start_matches("ws://"))
    }
}

fn program() -> PathBuf {
    std::env::var_os("MYCELIUM_DEVCHAIN").map_or_else(
        || {
            // target/debug/deps/this-test -> target/debug/mycelium-devchain
            let test = std::env::current_exe().unwrap();
            test.parent().and_then(Path::parent).unwrap().join("mycelium-devchain")
        },
        PathBuf::from,
    )
}

async fn until(querier: &Querier, what: &str, wanted: impl Fn(&ChainView) -> bool) -> Arc<ChainView> {
    let mut watch = querier.watch();
    let found = tokio::time::timeout(PATIENCE, watch.wait_for(|view| wanted(view))).await;
    found.unwrap_or_else(|_| panic!("never {what}: {:?}", querier.view())).unwrap().clone()
}

async fn reason(querier: &Querier, reason: &str) -> Arc<ChainView> {
    until(querier, reason, |view| view.problem.as_ref().is_some_and(|problem| problem.reason() == reason)).await
}

fn tao(text: &str) -> Tao {
    text.parse().unwrap()
}

fn summary(metagraph: &Metagraph) -> Vec<(Uid, Tao, bool)> {
    metagraph
        .neurons
        .iter()
        .map(|neuron| (neuron.uid, neuron.alpha_stake.rao, neuron.axon.is_some()))
        .map(|(uid, rao, served)| (uid, Tao::from_rao(rao), served))
        .collect()
}

#[tokio::test]
async fn stock_subxt_reads_signs_and_follows() {
    let chain = Devchain::start();
    let client = OnlineClient::<PolkadotConfig>::from_url(&chain.endpoint).await.unwrap();
    assert_eq!(client.genesis_hash().0, chain.genesis_hash.0);

    let at = client.at_current_block().await.unwrap();
    let neurons = dynamic::runtime_api_call::<_, Value>("NeuronInfoRuntimeApi", "get_neurons_lite", (1_u16,));
    let neurons = at.runtime_apis().call(neurons).await.unwrap();
    assert!(neurons.to_string().contains("validator_permit"), "{neurons}");
    let tempo = at.storage().fetch(dynamic::storage::<(u16,), u16>("SubtensorModule", "Tempo"), (1,)).await.unwrap();
    assert_eq!(tempo.decode().unwrap(), 10);
    let keys = dynamic::storage::<(u16, u16), [u8; 32]>("SubtensorModule", "Keys");
    let mut entries = at.storage().iter(keys, (1_u16,)).await.unwrap();
    let mut registered = 0;
    while let Some(entry) = entries.next().await {
        entry.unwrap().value().decode().unwrap();
        registered += 1;
    }
    assert_eq!(registered, 3);

    let mut blocks = client.stream_best_blocks().await.unwrap();
    let first = blocks.next().await.unwrap().unwrap().number();
    assert!(blocks.next().await.unwrap().unwrap().number() > first);

    let bob = Value::unnamed_variant("Id", [Value::from_bytes(dev::bob().public_key())]);
    let transfer = dynamic::tx("Balances", "transfer_keep_alive", (bob, 1_000_000_000_u64));
    let events = client
        .tx()
        .await
        .unwrap()
        .sign_and_submit_then_watch_default(&transfer, &dev::alice())
        .await
        .unwrap()
        .wait_for_finalized_success()
        .await
        .unwrap();
    let names: Vec<String> = events
        .iter()
        .map(|event| event.unwrap())
        .map(|event| format!("{}.{}", event.pallet_name(), event.event_name()))
        .collect();
    assert!(names.contains(&"Balances.Transfer".to_owned()), "{names:?}");
    assert!(names.contains(&"System.ExtrinsicSuccess".to_owned()), "{names:?}");
}

#[tokio::test]
async fn a_hotkey_from_a_wallet_file_signs_what_the_chain_accepts() {
    let chain = Devchain::start();
    // The public development key `//Alice`.
    let wallet = br#"{"secretSeed": "0xe5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a"}"#;
    let alice = parse_hotkey(wallet).unwrap();
    let client = OnlineClient::<PolkadotConfig>::from_url(&chain.endpoint).await.unwrap();
    let remark = dynamic::tx("System", "remark_with_event", (Value::from_bytes(b"mycelium"),));
    let submitted = client.tx().await.unwrap().sign_and_submit_then_watch_default(&remark, alice.signer()).await;
    submitted.unwrap().wait_for_finalized_success().await.unwrap();
}

#[tokio::test]
async fn the_metagraph_follows_the_chain() {
    let chain = Devchain::start();
    let querier = Querier::spawn(chain.config());
    let view = until(&querier, "in sync", ChainView::is_synced).await;
    let metagraph = view.metagraph.as_ref().unwrap();
    assert_eq!((metagraph.netuid, metagraph.tempo), (NETUID, 10));
    assert_eq!(view.block, Some(metagraph.block));
    assert_eq!(view.genesis_hash, Some(chain.genesis_hash));
    assert_eq!(
        summary(metagraph),
        vec![(Uid(0), tao("5000"), true), (Uid(1), tao("3000"), false), (Uid(2), tao("0"), false)]
    );
    let alice = dev::alice().public_key().0.into();
    assert_eq!(metagraph.by_hotkey(&alice).unwrap().axon.as_ref().unwrap().port, 8091);

    // An epoch gives permits to who has stake.
    let permits = |view: &ChainView| {
        let neurons = &view.metagraph.as_ref().unwrap().neurons;
        neurons.iter().map(|neuron| neuron.validator_permit).collect::<Vec<_>>()
    };
    let stepped = |view: &ChainView| view.metagraph.as_ref().is_some_and(|metagraph| metagraph.last_step > 0);
    let view = until(&querier, "past an epoch", stepped).await;
    assert_eq!(permits(&view), [true, true, false]);

    // The hash that heads are given is the chain's own.
    let at = view.metagraph.as_ref().unwrap();
    let client = OnlineClient::<PolkadotConfig>::from_url(&chain.endpoint).await.unwrap();
    assert_eq!(client.at_block(at.block).await.unwrap().block_hash().0, at.block_hash.0);
    querier.shutdown().await;
}

#[tokio::test]
async fn a_killed_chain_is_a_problem_and_found_again_when_it_is_back() {
    let chain = Devchain::start();
    let config = chain.config();
    let querier = Querier::spawn(config);
    let before = until(&querier, "in sync", ChainView::is_synced).await;
    let killed = chain.kill();
    let view = reason(&querier, "EndpointDown").await;
    assert_eq!(summary(view.metagraph.as_ref().unwrap()), summary(before.metagraph.as_ref().unwrap()));
    let chain = killed.restart();
    let after = until(&querier, "in sync again", |view| view.is_synced() && view.block > before.block).await;
    assert_eq!(after.endpoint.as_deref(), Some(chain.endpoint.as_str()));
    querier.shutdown().await;
}

#[tokio::test]
async fn a_chain_that_is_frozen_is_noticed_and_found_again_when_it_thaws() {
    let chain = Devchain::start();
    let querier = Querier::spawn(chain.config());
    until(&querier, "in sync", ChainView::is_synced).await;
    chain.signal("-STOP");
    reason(&querier, "NoNewBlock").await;
    chain.signal("-CONT");
    until(&querier, "in sync again", ChainView::is_synced).await;
    querier.shutdown().await;
}

#[tokio::test]
async fn another_genesis_and_a_missing_subnet_are_named() {
    let chain = Devchain::start();
    let expected = BlockHash([1; 32]);
    let querier = Querier::spawn(ChainConfig { genesis_hash: Some(expected), ..chain.config() });
    let view = reason(&querier, "GenesisMismatch").await;
    let text = view.problem.as_ref().unwrap().to_string();
    assert!(text.contains(&expected.to_string()) && text.contains(&chain.genesis_hash.to_string()), "{text}");
    querier.reconfigure(ChainConfig { netuid: NetUid(7), ..chain.config() });
    let view = reason(&querier, "SubnetMissing").await;
    assert!(view.problem.as_ref().unwrap().to_string().contains("netuid 7"), "{:?}", view.problem);
    querier.reconfigure(chain.config());
    until(&querier, "in sync", ChainView::is_synced).await;
    querier.shutdown().await;
}

#[tokio::test]
async fn a_source_reads_heads_and_old_blocks() {
    let chain = Devchain::start();
    let source = SubxtConnect.connect(&chain.endpoint).await.unwrap();
    assert_eq!((source.genesis_hash(), source.block_time()), (chain.genesis_hash, Some(Duration::from_millis(250))));
    let head = source.head().await.unwrap();
    let mut heads = source.heads().await.unwrap();
    let mut next = head;
    while next.number <= head.number {
        next = heads.next().await.unwrap().unwrap();
    }
    let old = source.metagraph(NETUID, head).await.unwrap().unwrap();
    assert_eq!((old.block, old.block_hash), (head.number, head.hash));
    assert!(source.finalized_head().await.unwrap().number <= next.number);
    assert!(source.metagraph(NetUid(7), next).await.unwrap().is_none());
}
