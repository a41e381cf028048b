//! A development chain as a process of its own, with its admin endpoint.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sidecar_metagraph::{ChainConfig, ChainView, Querier};
use sidecar_util::{BlockHash, NetUid};

pub(crate) const NETUID: NetUid = NetUid(1);

/// Long enough for a loaded machine; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A running chain. It is killed when this is dropped.
pub(crate) struct Chain {
    process: Child,
    pub(crate) endpoint: String,
    admin: String,
    pub(crate) genesis_hash: BlockHash,
    _directory: tempfile::TempDir,
}

/// Three neurons, of which the first weighs the last.
pub(crate) fn genesis() -> Value {
    json!({
        "subnets": [{
            "netuid": 1,
            "hyperparameters": {"tempo": 10, "commit_reveal": false, "mechanism_count": 2},
            "neurons": [
                {"hotkey": "//Alice", "coldkey": "//Ferdie", "stake": "5000",
                 "axon": {"ip": "10.0.0.1", "port": 8091}, "weights": [[2, 65535], [1, 100]]},
                {"hotkey": "//Bob", "coldkey": "//Ferdie", "stake": "3000"},
                {"hotkey": "//Charlie", "coldkey": "//Ferdie"}
            ]
        }]
    })
}

/// As many neurons as asked for, a sixteenth of them validators.
pub(crate) fn large_genesis(neurons: usize) -> Value {
    let neuron = |uid: usize| {
        let stake = if uid < neurons / 16 { (10_000 - uid).to_string() } else { "0".to_owned() };
        let axon = json!({"ip": format!("10.1.{}.{}", uid / 250, 1 + uid % 250), "port": 8091});
        json!({"hotkey": format!("//H{uid}"), "coldkey": format!("//C{uid}"), "stake": stake, "axon": axon})
    };
    let neurons_list: Vec<Value> = (0..neurons).map(neuron).collect();
    json!({
        "subnets": [{
            "netuid": 1,
            "hyperparameters": {"tempo": 360, "max_uids": neurons},
            "neurons": neurons_list
        }]
    })
}

impl Chain {
    /// With 250 ms blocks.
    pub(crate) fn fast() -> Self {
        Self::start(&genesis(), &["--block-time", "250ms"])
    }

    pub(crate) fn start(genesis: &Value, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("genesis.json"), genesis.to_string()).unwrap();
        let program = program();
        let mut process = Command::new(&program)
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--genesis")
            .arg(directory.path().join("genesis.json"))
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
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
        let admin = word("admin").trim_start_matches("http://").to_owned();
        let genesis_hash = word("genesis hash").parse().unwrap();
        // Read on, or the chain blocks when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, endpoint, admin, genesis_hash, _directory: directory }
    }

    pub(crate) fn config(&self) -> ChainConfig {
        ChainConfig {
            endpoints: vec![self.endpoint.clone()],
            archive_endpoints: vec![],
            netuid: NETUID,
            genesis_hash: Some(self.genesis_hash),
            min_interval: Duration::from_millis(100),
        }
    }

    /// Switches a fault on.
    pub(crate) fn fault(&self, fault: &Value) {
        http(&self.admin, "PUT", "/faults", &fault.to_string());
    }

    /// Switches all faults off.
    pub(crate) fn lift(&self) {
        http(&self.admin, "DELETE", "/faults", "");
    }

    /// How often a fault that is on struck.
    pub(crate) fn struck(&self, kind: &str) -> u64 {
        let faults: Value = serde_json::from_str(&http(&self.admin, "GET", "/faults", "")).unwrap();
        let fault = faults.as_array().unwrap().iter().find(|fault| fault["kind"] == kind);
        fault.map_or(0, |fault| fault["struck"].as_u64().unwrap())
    }

    /// Whether a fault is on still; one with so many strikes is lifted after the last.
    pub(crate) fn is_on(&self, kind: &str) -> bool {
        http(&self.admin, "GET", "/faults", "").contains(&format!("\"{kind}\""))
    }

    /// Makes a block that brings a new runtime; gives its number.
    pub(crate) fn upgrade(&self) -> u64 {
        let answer: Value = serde_json::from_str(&http(&self.admin, "POST", "/upgrade", "")).unwrap();
        answer["block"]["number"].as_u64().unwrap_or_else(|| panic!("{answer}"))
    }

    /// A metric, summed over its labels that contain this.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let text = http(self.endpoint.trim_start_matches("ws://"), "GET", "/metrics", "");
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// The chain's own client, with a transaction to send.
    pub(crate) fn tx(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg("tx").args(arguments).args(["--url", &self.endpoint]).stdout(Stdio::null());
        command
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
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

fn http(address: &str, method: &str, path: &str, body: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert!((200..300).contains(&status), "{method} {path}: {answer}");
    // Chunks are small enough to come in one piece, or the body has a length.
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.split("\r\n").skip(1).step_by(2).collect();
    }
    body.to_owned()
}

pub(crate) async fn until(querier: &Querier, what: &str, wanted: impl Fn(&ChainView) -> bool) -> Arc<ChainView> {
    let mut watch = querier.watch();
    let found = tokio::time::timeout(PATIENCE, watch.wait_for(|view| wanted(view))).await;
    found.unwrap_or_else(|_| panic!("never {what}: {:?}", querier.view())).unwrap().clone()
}

pub(crate) async fn synced(querier: &Querier) -> Arc<ChainView> {
    until(querier, "in sync", ChainView::is_synced).await
}

/// In sync at a later block than this.
pub(crate) async fn synced_after(querier: &Querier, view: &ChainView) -> Arc<ChainView> {
    let block = view.block;
    until(querier, "in sync at a later block", |view| view.is_synced() && view.block > block).await
}

pub(crate) async fn reason(querier: &Querier, reason: &str) -> Arc<ChainView> {
    until(querier, reason, |view| view.problem.as_ref().is_some_and(|problem| problem.reason() == reason)).await
}
