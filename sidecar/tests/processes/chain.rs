//! A development chain as a process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use sidecar_util::BlockHash;
use tempfile::TempDir;

use super::rpc::Rpc;
use super::{free_address, pair};

/// A chain with 250 ms blocks and subnet 1. It is killed when this is dropped.
pub(crate) struct Devchain {
    process: Option<Child>,
    address: String,
    directory: TempDir,
    /// Flags beside those that every chain has.
    pub(crate) flags: Vec<String>,
    pub(crate) genesis_hash: Option<BlockHash>,
}

impl Devchain {
    /// A chain whose neurons have these keys and stakes in whole alpha, all of coldkey `//Ferdie`.
    pub(crate) fn start(stakes: &[(u8, u64)]) -> Self {
        let mut chain = Self::new(stakes);
        chain.run();
        chain
    }

    /// The same, not started yet.
    pub(crate) fn new(stakes: &[(u8, u64)]) -> Self {
        let neurons: Vec<_> = stakes
            .iter()
            .map(|(id, stake)| {
                json!({"hotkey": pair(*id).hotkey().to_string(), "coldkey": "//Ferdie", "stake": stake.to_string()})
            })
            .collect();
        Self::with_neurons(&neurons)
    }

    /// A chain with these neurons, as a genesis file has them; not started yet.
    pub(crate) fn with_neurons(neurons: &[Value]) -> Self {
        Self::with_genesis(&json!({"subnets": [{"netuid": 1, "hyperparameters": {"tempo": 10}, "neurons": neurons}]}))
    }

    /// A chain with this genesis file; not started yet.
    pub(crate) fn with_genesis(genesis: &Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("genesis.json"), genesis.to_string()).unwrap();
        Self { process: None, address: free_address(), directory, flags: vec![], genesis_hash: None }
    }

    pub(crate) fn run(&mut self) {
        let program = program();
        let mut process = Command::new(&program)
            .args(["--listen", &self.address, "--block-time", "250ms"])
            .arg("--genesis")
            .arg(self.directory.path().join("genesis.json"))
            .arg("--state-dir")
            .arg(self.directory.path().join("state"))
            .args(&self.flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; build it with `cargo build -p e2e-devchain`", program.display())
            });
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let label = "genesis hash";
        let line = lines.find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("the chain did not start"));
        self.genesis_hash = Some(line.trim_start_matches(label).trim().parse().unwrap());
        // Read on, or the chain blocks when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        self.process = Some(process);
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Its JSON-RPC, for questions that go past the sidecar.
    pub(crate) fn rpc(&self) -> Rpc<'_> {
        Rpc { address: &self.address, genesis_hash: self.genesis_hash.unwrap() }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Sends a transaction and waits for its block.
    pub(crate) fn transact(&self, arguments: &[&str]) {
        self.client("tx", arguments);
    }

    /// What the chain's own program reads from it, in its newest block.
    pub(crate) fn query(&self, arguments: &[&str]) -> Value {
        serde_json::from_slice(&self.client("query", &[arguments, &["--json"]].concat())).unwrap()
    }

    fn client(&self, command: &str, arguments: &[&str]) -> Vec<u8> {
        let output =
            Command::new(program()).arg(command).args(arguments).args(["--url", &self.endpoint()]).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

impl Drop for Devchain {
    fn drop(&mut self) {
        self.kill();
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
