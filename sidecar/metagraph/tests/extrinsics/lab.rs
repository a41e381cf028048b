//! A chain, its admin endpoint, and the people of a subnet.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use sidecar_metagraph::extrinsics::{Call, Intent, OpenGate, Receipt, SubmitConfig, SubmitError, Submitter, Wait};
use sidecar_metagraph::keys::{HotkeyPair, parse_hotkey};
use sidecar_util::{BlockHash, Hotkey, NetUid};
use subxt::dynamic::{self, Value};
use subxt::ext::scale_decode::DecodeAsType;
use subxt::ext::scale_value::Composite;
use subxt::{OnlineClient, PolkadotConfig};
use subxt_signer::sr25519::dev;

pub(crate) const NETUID: NetUid = NetUid(1);

/// Long enough for a loaded machine; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The public development keys.
const ALICE: &str = "0xe5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a";
const BOB: &str = "0x398f0c28f98885e046333d4a41c19cee4c37368a9832c6502f6cfd182e2aef89";
const CHARLIE: &str = "0xbc1ede780f784bb6991a585e4f6e61522c14e1cae6ad0895fb57b9a205a8f938";

fn pair(seed: &str) -> HotkeyPair {
    parse_hotkey(seed.as_bytes()).unwrap()
}

/// A validator with stake and, after an epoch, a permit. Uid 0.
pub(crate) fn alice() -> HotkeyPair {
    pair(ALICE)
}

/// A miner without stake. Uid 1.
pub(crate) fn bob() -> HotkeyPair {
    pair(BOB)
}

/// The coldkey of both.
pub(crate) fn charlie() -> HotkeyPair {
    pair(CHARLIE)
}

/// A chain with 250 ms blocks. It is killed when this is dropped.
pub(crate) struct Lab {
    process: Child,
    pub(crate) endpoint: String,
    admin: String,
    pub(crate) genesis_hash: BlockHash,
    pub(crate) directory: tempfile::TempDir,
}

impl Lab {
    /// A chain whose subnet has the usual hyperparameters and these, and that is past its first epoch.
    pub(crate) fn start(hyperparameters: &Json, args: &[&str]) -> Self {
        let lab = Self::spawn(hyperparameters, args);
        // Permits are given by an epoch.
        lab.blocks(12);
        lab
    }

    fn spawn(hyperparameters: &Json, args: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut all = json!({
            "tempo": 10, "max_validators": 1, "commit_reveal": false, "weights_rate_limit": 0, "serving_rate_limit": 0,
            "min_allowed_weights": 1, "mechanism_count": 2
        });
        all.as_object_mut().unwrap().extend(hyperparameters.as_object().unwrap().clone());
        let genesis = json!({
            "sudo": "//Ferdie",
            "accounts": [
                {"account": "//Charlie", "balance": "100000"},
                {"account": "//Ferdie", "balance": "1000"}
            ],
            "subnets": [{
                "netuid": 1,
                "owner": "//Eve",
                "owner_hotkey": "//Eve",
                "pool": {"tao": "1000", "alpha": "4000"},
                "hyperparameters": all,
                "neurons": [
                    {"hotkey": "//Alice", "coldkey": "//Charlie", "stake": "5000"},
                    {"hotkey": "//Bob", "coldkey": "//Charlie"},
                    {"hotkey": "//Dave", "coldkey": "//Charlie"}
                ]
            }]
        });
        std::fs::write(directory.path().join("genesis.json"), genesis.to_string()).unwrap();
        let program = program();
        let fast: &[&str] = if args.contains(&"--block-time") { &[] } else { &["--block-time", "250ms"] };
        let mut process = Command::new(&program)
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--history", "4096"])
            .args(fast)
            .arg("--genesis")
            .arg(directory.path().join("genesis.json"))
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; build it with `cargo build -p e2e-devchain`", program.display())
            });
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (mut endpoint, mut admin, mut genesis_hash) = (None, None, None);
        for line in lines.by_ref().map_while(Result::ok) {
            let word = |label: &str| line.strip_prefix(label)?.split_whitespace().next().map(ToOwned::to_owned);
            endpoint = endpoint.or_else(|| word("endpoint"));
            admin = admin.or_else(|| word("admin"));
            genesis_hash = genesis_hash.or_else(|| word("genesis hash"));
            if line.starts_with("accounts") {
                break;
            }
        }
        // Read on, or the chain blocks when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            endpoint: endpoint.unwrap(),
            admin: admin.unwrap().trim_start_matches("http://").to_owned(),
            genesis_hash: genesis_hash.unwrap().parse().unwrap(),
            directory,
        }
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin(self.admin.clone())
    }

    /// Time flies.
    pub(crate) fn blocks(&self, blocks: u32) {
        self.admin().post("/blocks", &json!({ "blocks": blocks }));
    }

    pub(crate) fn fault(&self, fault: &Json) {
        self.admin().request("PUT", "/faults", &fault.to_string());
    }

    pub(crate) fn lift(&self, kind: &str) {
        self.admin().request("DELETE", &format!("/faults/{kind}"), "");
    }

    /// How often a fault that is on struck.
    pub(crate) fn struck(&self, kind: &str) -> u64 {
        let answer = self.admin().send("GET", "/faults", "");
        let faults = &answer[answer.find("\r\n\r\n").unwrap()..];
        // Chunked or not, the list is the one array in it.
        let list = &faults[faults.find('[').unwrap()..=faults.rfind(']').unwrap()];
        let faults: Vec<Json> = serde_json::from_str(list).unwrap();
        faults.iter().find(|fault| fault["kind"] == kind).map_or(0, |fault| fault["struck"].as_u64().unwrap())
    }

    /// Whether a fault with a number of strikes has had them all, and so is off.
    pub(crate) fn has_struck(&self, kind: &str) -> bool {
        self.admin().send("DELETE", &format!("/faults/{kind}"), "").starts_with("HTTP/1.1 404")
    }

    pub(crate) fn config(&self) -> SubmitConfig {
        SubmitConfig {
            genesis_hash: Some(self.genesis_hash),
            patience: PATIENCE,
            ..SubmitConfig::new(vec![self.endpoint.clone()], self.directory.path().join("journal"))
        }
    }

    /// A submitter for Alice.
    pub(crate) fn submitter(&self) -> Submitter {
        Submitter::spawn(self.config(), alice(), Arc::new(OpenGate)).unwrap()
    }

    pub(crate) async fn client(&self) -> OnlineClient<PolkadotConfig> {
        OnlineClient::from_url(&self.endpoint).await.unwrap()
    }

    /// A value of the chain's storage at the last final block.
    pub(crate) async fn value<V: DecodeAsType>(
        &self,
        pallet: &'static str,
        entry: &'static str,
        keys: Vec<Value>,
    ) -> Option<V> {
        let at = self.client().await.at_current_block().await.unwrap();
        let address = dynamic::storage::<Vec<Value>, V>(pallet, entry);
        let value = at.storage().try_fetch(address, keys).await.unwrap();
        value.map(|value| value.decode().unwrap())
    }

    /// Weights of Alice, by index of the mechanism.
    pub(crate) async fn weights(&self, index: u16) -> Vec<(u16, u16)> {
        let keys = vec![Value::u128(index.into()), Value::u128(0)];
        self.value("SubtensorModule", "Weights", keys).await.unwrap_or_default()
    }

    /// How often an event was emitted until the last final block.
    pub(crate) async fn count(&self, pallet: &str, name: &str) -> usize {
        let client = self.client().await;
        let last = client.at_current_block().await.unwrap().block_number();
        let mut found = 0;
        for number in 1..=last {
            let bytes = client.at_block(number).await.unwrap().events().fetch().await.unwrap().bytes().to_vec();
            // A block that brings an upgrade was run by the runtime of its parent.
            let events = client.at_block(number - 1).await.unwrap().events().from_bytes(bytes);
            let events = events.iter().map(Result::unwrap);
            found += events.filter(|event| event.pallet_name() == pallet && event.event_name() == name).count();
        }
        found
    }

    /// Carries out a call as root.
    pub(crate) async fn sudo(&self, pallet: &str, call: &str, arguments: Vec<(&str, Value)>) {
        let inner = Value::named_variant(call, arguments);
        let inner = Value::unnamed_variant(pallet, [inner]);
        let call = subxt::tx::dynamic("Sudo", "sudo", Composite::named([("call", inner)]));
        let client = self.client().await;
        let mut transactions = client.tx().await.unwrap();
        let sent = transactions.sign_and_submit_then_watch_default(&call, &dev::ferdie()).await.unwrap();
        sent.wait_for_finalized_success().await.unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The chain's admin endpoint. Usable from anywhere, a probe included.
#[derive(Clone)]
pub(crate) struct Admin(String);

impl Admin {
    pub(crate) fn post(&self, path: &str, body: &Json) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.request("POST", path, &body);
    }

    fn request(&self, method: &str, path: &str, body: &str) {
        let answer = self.send(method, path, body);
        assert!(answer.starts_with("HTTP/1.1 2"), "{method} {path} {body}: {answer}");
    }

    fn send(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.0).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

fn program() -> PathBuf {
    std::env::var_os("MYCELIUM_DEVCHAIN").map_or_else(
        || {
            let test = std::env::current_exe().unwrap();
            test.parent().and_then(Path::parent).unwrap().join("mycelium-devchain")
        },
        PathBuf::from,
    )
}

pub(crate) fn set_weights(uids: &[u16], values: &[u16]) -> Call {
    let (uids, values) = (uids.to_vec(), values.to_vec());
    Call::SetWeights { netuid: NETUID, mecid: None, uids, values, version_key: 0 }
}

pub(crate) fn intent(key: &str, call: Call) -> Intent {
    Intent { key: key.to_owned(), call, wait: Wait::Finalized }
}

/// Carries out a call to its end, with the deadline of the tests.
pub(crate) async fn submit(submitter: &Submitter, key: &str, call: Call) -> Result<Receipt, SubmitError> {
    let handle = submitter.handle();
    let done = tokio::time::timeout(PATIENCE, handle.submit(intent(key, call))).await.unwrap();
    done.map(|done| done.receipt().unwrap())
}

pub(crate) fn account(hotkey: &Hotkey) -> Value {
    Value::from_bytes(hotkey.as_bytes())
}
