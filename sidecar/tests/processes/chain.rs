//! A development chain as a process.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use sidecar_util::{BlockHash, Hotkey};
use tempfile::TempDir;

use super::pod::exchange;
use super::{free_address, pair};

/// A chain with 250 ms blocks and subnet 1. It is killed when this is dropped.
pub(crate) struct Devchain {
    process: Option<Child>,
    address: String,
    directory: TempDir,
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
        let genesis = json!({"subnets": [{"netuid": 1, "hyperparameters": {"tempo": 10}, "neurons": neurons}]});
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("genesis.json"), genesis.to_string()).unwrap();
        Self { process: None, address: free_address(), directory, genesis_hash: None }
    }

    pub(crate) fn run(&mut self) {
        let program = program();
        let mut process = Command::new(&program)
            .args(["--listen", &self.address, "--block-time", "250ms"])
            .arg("--genesis")
            .arg(self.directory.path().join("genesis.json"))
            .arg("--state-dir")
            .arg(self.directory.path().join("state"))
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

    pub(crate) fn endpoint(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// One JSON-RPC call.
    pub(crate) fn call(&self, method: &str, parameters: &Value) -> Value {
        let stream = TcpStream::connect(&self.address).unwrap();
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}).to_string();
        let headers = [("Content-Type".to_owned(), "application/json".to_owned())];
        let (status, _, body) = exchange(stream, "POST", "/", &headers, request.as_bytes()).unwrap();
        let mut answer: Value = serde_json::from_slice(&body).unwrap();
        assert!(status == 200 && answer.get("error").is_none(), "{method} {parameters}: {answer}");
        answer["result"].take()
    }

    /// Every extrinsic of every block that an account signed, with its block.
    pub(crate) fn signed_by(&self, account: &Hotkey) -> Vec<(u64, Vec<u8>)> {
        let header = self.call("chain_getHeader", &json!([]));
        let last = u64::from_str_radix(header["number"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
        // Signed, version 4, by an account id.
        let head = [&[0x84, 0][..], account.as_bytes()].concat();
        let mut found = Vec::new();
        for block in 0..=last {
            let hash = self.call("chain_getBlockHash", &json!([block]));
            let body = self.call("chain_getBlock", &json!([hash]));
            for extrinsic in body["block"]["extrinsics"].as_array().unwrap() {
                let bytes = hex::decode(extrinsic.as_str().unwrap().trim_start_matches("0x")).unwrap();
                // Behind its length, which takes one, two or four bytes.
                if [1, 2, 4].iter().any(|length| bytes.get(*length..).is_some_and(|rest| rest.starts_with(&head))) {
                    found.push((block, bytes));
                }
            }
        }
        found
    }

    /// Sends a transaction and waits for its block.
    pub(crate) fn transact(&self, arguments: &[&str]) {
        let output =
            Command::new(program()).arg("tx").args(arguments).args(["--url", &self.endpoint()]).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
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
