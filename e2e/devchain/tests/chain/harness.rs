//! Starts the real binary and talks to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e_devchain::client::{Connection, Inclusion};
use e2e_devchain::keys;
use e2e_devchain::pallets::subtensor::{Metagraph, NetUid};
use e2e_devchain::runtime::{AccountId, Hash, Runtime, RuntimeCall, RuntimeEvent};
use jsonrpsee::core::client::{ClientT, SubscriptionClientT};
use jsonrpsee::rpc_params;
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};
use serde_json::{Value, json};
use sp_core::sr25519;

/// How long anything may take before a test gives up: only a broken chain takes as long.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Chain {
    child: Child,
    /// Where it listens.
    pub(crate) address: String,
    /// Where its admin endpoint listens, if it has one.
    pub(crate) admin: Option<String>,
}

impl Chain {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mycelium-devchain"))
            .args(["--listen", "127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut address, mut admin) = (None, None);
        loop {
            let line = lines.next().expect("the chain printed no endpoint").unwrap();
            let url = |scheme: &str| line.split_once(scheme)?.1.split_whitespace().next().map(ToOwned::to_owned);
            address = address.or_else(|| url("ws://"));
            if line.starts_with("admin") {
                admin = url("http://");
            }
            // What follows is of no use here.
            if line.starts_with("accounts") {
                break;
            }
        }
        let address = address.unwrap();
        // Whoever reads the rest keeps the chain from blocking on a full pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("chain: {line}")));
        Self { child, address, admin }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(&self.url()).await.unwrap()
    }

    /// Why the typed client does not want to talk to this chain.
    pub(crate) async fn connect_error(&self) -> String {
        Connection::open(&self.url()).await.err().unwrap().to_string()
    }

    pub(crate) async fn client(&self) -> WsClient {
        WsClientBuilder::default().build(self.url()).await.unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Ends the process without giving it a chance to tidy up.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// One HTTP request with a body of any kind; the answer's body.
    pub(crate) fn post(&self, body: &str) -> String {
        http(&self.address, "POST", "/", &[], body).body
    }

    /// One JSON-RPC call over HTTP.
    pub(crate) fn call(&self, method: &str, params: &Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        serde_json::from_str(&self.post(&request.to_string())).unwrap()
    }

    /// One request to the admin endpoint: status and answer.
    pub(crate) fn admin(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = http(self.admin.as_ref().unwrap(), method, path, &[], &body);
        (answer.status, serde_json::from_str(&answer.body).unwrap_or_default())
    }

    /// Switches a fault on.
    pub(crate) fn fault(&self, fault: &Value) {
        let (status, answer) = self.admin("PUT", "/faults", fault);
        assert_eq!(status, 200, "{answer}");
    }

    /// Switches a fault off.
    pub(crate) fn lift(&self, kind: &str) {
        assert_eq!(self.admin("DELETE", &format!("/faults/{kind}"), &Value::Null).0, 204);
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn pair(name: &str) -> sr25519::Pair {
    keys::pair_from_uri(&format!("//{name}")).unwrap()
}

pub(crate) fn id(name: &str) -> AccountId {
    keys::account_of(&pair(name))
}

pub(crate) fn sudo(call: impl Into<RuntimeCall>) -> RuntimeCall {
    pallet_sudo::Call::sudo { call: Box::new(call.into()) }.into()
}

pub(crate) async fn send(chain: &Connection, call: impl Into<RuntimeCall>, signer: &str) -> anyhow::Result<Inclusion> {
    let extrinsic = chain.sign(call.into(), &pair(signer)).await?;
    tokio::time::timeout(PATIENCE, chain.submit(&extrinsic)).await?
}

pub(crate) fn succeeded(inclusion: &Inclusion) -> bool {
    inclusion
        .events
        .iter()
        .any(|event| matches!(event, RuntimeEvent::System(frame_system::Event::ExtrinsicSuccess { .. })))
}

pub(crate) async fn free(chain: &Connection, name: &str) -> u64 {
    type Info = frame_system::AccountInfo<u32, pallet_balances::AccountData<u64>>;
    let key = frame_system::Account::<Runtime>::hashed_key_for(id(name));
    chain.storage::<Info>(&key, None).await.unwrap().unwrap_or_default().data.free
}

pub(crate) async fn metagraph(chain: &Connection, netuid: u16) -> Metagraph {
    let graph: Option<Metagraph> = chain.runtime("SubnetInfoRuntimeApi_get_metagraph", &NetUid(netuid)).await.unwrap();
    graph.unwrap()
}

pub(crate) async fn number(client: &WsClient, method: &str) -> u64 {
    let hash: Hash = client.request(method, rpc_params![]).await.unwrap();
    number_of(client, hash).await
}

pub(crate) async fn number_of(client: &WsClient, hash: Hash) -> u64 {
    let header: Value = client.request("chain_getHeader", rpc_params![hash]).await.unwrap();
    u64::from_str_radix(header["number"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

/// Waits for best blocks, by subscription, until one has at least this number.
pub(crate) async fn reach(client: &WsClient, target: u64) {
    let mut heads = client
        .subscribe::<Value, _>("chain_subscribeNewHeads", rpc_params![], "chain_unsubscribeNewHeads")
        .await
        .unwrap();
    let waiting = async {
        loop {
            let head = heads.next().await.unwrap().unwrap();
            let number = u64::from_str_radix(head["number"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
            if number >= target {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

/// A subnet of Alice with two validators, which have stake, and two miners.
pub(crate) fn genesis(dir: &Path, tempo: u16) -> PathBuf {
    let path = dir.join("genesis.json");
    let neuron = |hotkey: &str, coldkey: &str, stake: &str| json!({ "hotkey": format!("//{hotkey}"), "coldkey": format!("//{coldkey}"), "stake": stake });
    let file = json!({
        "accounts": [{ "account": "//Zoe", "balance": "2.5" }],
        "subnets": [{
            "netuid": 2,
            "owner": "//Alice",
            "emission": false,
            "hyperparameters": { "tempo": tempo, "max_validators": 2, "weights_rate_limit": 1000 },
            "neurons": [
                neuron("Bob//hot", "Bob", "1000.5"),
                neuron("Charlie//hot", "Charlie", "500"),
                neuron("Dave//hot", "Dave", "0"),
                neuron("Eve//hot", "Eve", "0"),
            ],
        }],
    });
    std::fs::write(&path, file.to_string()).unwrap();
    path
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// One HTTP request on a socket of its own, until the server closes it.
pub(crate) fn http(address: &str, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    // Whoever refuses a large body need not read it to its end.
    let _ = write!(stream, "{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    let mut answer = Vec::new();
    // A socket that is dropped on purpose may end with an error; what came before it counts.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
