//! A development chain in a process of its own, as benches need it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

/// The subnet of [`genesis`].
pub const NETUID: u16 = 2;

/// Writes a genesis file with one subnet; a sixteenth of its neurons are validators that weigh all others.
///
/// # Errors
/// The file cannot be written.
pub fn genesis(folder: &Path, neurons: usize, tempo: u16) -> anyhow::Result<PathBuf> {
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
        "netuid": NETUID,
        "owner": "//Alice",
        "hyperparameters": { "tempo": tempo, "max_uids": neurons, "max_validators": validators },
        "neurons": (0..neurons).map(neuron).collect::<Vec<Value>>(),
    }] });
    let path = folder.join(format!("genesis-{neurons}-{tempo}.json"));
    std::fs::write(&path, file.to_string())?;
    Ok(path)
}

/// A running chain. It is killed when this is dropped.
pub struct Chain {
    child: Child,
    /// `host:port` of JSON-RPC and of the metrics.
    pub address: String,
    admin: String,
    /// Genesis hash as the program printed it.
    pub genesis_hash: String,
}

impl Chain {
    /// Starts the program over a genesis file; `block_time` is one of its words: `instant`, `fast`, `12s`.
    ///
    /// # Errors
    /// The program is not there or did not start.
    pub fn start(program: &Path, genesis: &Path, block_time: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--block-time", block_time, "--genesis"])
            .arg(genesis)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("`{}`: make it with `make build`", program.display()))?;
        let out = child.stdout.take().context("the chain's output")?;
        let mut lines = BufReader::new(out).lines().map_while(Result::ok);
        let mut after = |mark: &str| -> anyhow::Result<String> {
            let line =
                lines.find(|line| line.contains(mark)).with_context(|| format!("the chain printed no {mark}"))?;
            let (_, rest) = line.split_once(mark).context("the line that has it")?;
            Ok(rest.split_whitespace().next().unwrap_or_default().to_owned())
        };
        let address = after("ws://")?;
        // The first line with `http://` after the endpoint is that of the metrics.
        after("http://")?;
        let admin = after("http://")?;
        // Whoever reads the rest keeps the chain from blocking on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let mut chain = Self { child, address, admin, genesis_hash: String::new() };
        let genesis_hash = chain.call("chain_getBlockHash", &json!([0]))?;
        genesis_hash.as_str().context("the genesis hash")?.clone_into(&mut chain.genesis_hash);
        Ok(chain)
    }

    /// The WebSocket endpoint.
    pub fn endpoint(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One JSON-RPC call over HTTP.
    ///
    /// # Errors
    /// No answer, or an error as the answer.
    pub fn call(&self, method: &str, params: &Value) -> anyhow::Result<Value> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut answer: Value = serde_json::from_str(&http(&self.address, "POST", "/", &request.to_string())?)?;
        ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        Ok(answer["result"].take())
    }

    /// Makes blocks at once.
    ///
    /// # Errors
    /// The chain refuses.
    pub fn make_blocks(&self, blocks: u32) -> anyhow::Result<()> {
        let made = http(&self.admin, "POST", "/blocks", &json!({ "blocks": blocks }).to_string())?;
        ensure!(made.contains("number"), "{made}");
        Ok(())
    }

    /// Value of a metric; nought before it was counted.
    ///
    /// # Errors
    /// No answer.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let metrics = http(&self.address, "GET", "/metrics", "")?;
        Ok(metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_default())
    }

    /// Sum of a metric over all its labels.
    ///
    /// # Errors
    /// No answer.
    pub fn metric_sum(&self, name: &str) -> anyhow::Result<f64> {
        let metrics = http(&self.address, "GET", "/metrics", "")?;
        let of_metric = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once(' '));
        Ok(of_metric.filter_map(|(_, value)| value.parse::<f64>().ok()).sum())
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP request on a connection of its own; the body of the answer.
///
/// # Errors
/// No answer.
pub fn http(address: &str, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    );
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    Ok(body.to_owned())
}

/// Resident memory of a process in megabytes.
///
/// # Errors
/// There is no such process.
pub fn rss_mb(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0 / 1e6)
}
