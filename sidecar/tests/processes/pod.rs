//! A sidecar as a process, in a folder that stands for its pod.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use sidecar_util::config::NetworkConfig;
use sidecar_util::http::StatusBody;
use sidecar_util::{Hotkey, NetUid};
use tempfile::TempDir;

use super::chain::Devchain;
use super::{free_address, pair, seed, until};

/// Time for one answer of a sidecar.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);

/// One sidecar. It is killed when this is dropped; its log goes to the test's output then.
pub(crate) struct Pod {
    pub(crate) hotkey: Hotkey,
    pub(crate) peer: String,
    /// Flags beside those that every pod has.
    pub(crate) flags: Vec<String>,
    /// Environment variables beside those of this process.
    pub(crate) environment: Vec<(&'static str, String)>,
    kind: &'static str,
    http: String,
    directory: TempDir,
    process: Option<Child>,
}

/// What a sidecar said.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Pod {
    /// The pod of the validator or miner with this key, not started yet.
    pub(crate) fn new(kind: &'static str, id: u8) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("hotkey"), format!("0x{}\n", hex::encode(seed(id)))).unwrap();
        let (http, peer) = (free_address(), free_address());
        Self {
            hotkey: pair(id).hotkey(),
            peer,
            flags: vec![],
            environment: vec![],
            kind,
            http,
            directory,
            process: None,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the network file.
    pub(crate) fn configure(&self, network: &NetworkConfig) {
        // Written beside and renamed: nobody reads half of it.
        std::fs::write(self.path("network.json.new"), serde_json::to_vec_pretty(network).unwrap()).unwrap();
        std::fs::rename(self.path("network.json.new"), self.path("network.json")).unwrap();
    }

    pub(crate) fn run(&mut self) {
        self.run_with(&[]);
    }

    /// The same with more flags.
    pub(crate) fn run_with(&mut self, flags: &[&str]) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        self.process = Some(self.command().args(flags).stderr(log).spawn().unwrap());
    }

    /// Address of its HTTP API.
    pub(crate) fn address(&self) -> &str {
        &self.http
    }

    /// Its process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// The program with its flags.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mycelium-sidecar"));
        command
            .args(["run", "--kind", self.kind, "--listen", &self.http, "--peer-listen", &self.peer])
            .arg("--config")
            .arg(self.path("network.json"))
            .arg("--hotkey-file")
            .arg(self.path("hotkey"))
            .arg("--data-dir")
            .arg(self.path("data"))
            .arg("--socket")
            .arg(self.path("sidecar.sock"))
            .args(&self.flags)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Asks it to stop, and waits.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().unwrap();
        let signalled = Command::new("kill").arg(process.id().to_string()).status().unwrap();
        assert!(signalled.success());
        until("ended", || process.try_wait().unwrap())
    }

    /// An answer over TCP; `None` while nobody answers.
    pub(crate) fn get(&self, path: &str) -> Option<Answer> {
        let stream = TcpStream::connect(&self.http).ok()?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE)).unwrap();
        ask(stream, path)
    }

    /// The same over the unix socket.
    pub(crate) fn get_by_socket(&self, path: &str) -> Option<Answer> {
        let stream = UnixStream::connect(self.path("sidecar.sock")).ok()?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE)).unwrap();
        ask(stream, path)
    }

    /// A body that is no JSON.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        self.get(path).filter(|answer| answer.status == 200).map(|answer| answer.text)
    }

    /// Sends a body over the unix socket.
    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Option<Answer> {
        post(&self.path("sidecar.sock"), path, headers, body)
    }

    /// The same over TCP.
    pub(crate) fn post_by_tcp(&self, path: &str, body: &Value) -> Option<Answer> {
        let stream = TcpStream::connect(&self.http).ok()?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE)).unwrap();
        send(stream, "POST", path, &[("content-type", "application/json")], &body.to_string())
    }

    /// Its metrics, as text.
    pub(crate) fn metrics(&self) -> Option<String> {
        let stream = TcpStream::connect(&self.http).ok()?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE)).unwrap();
        exchange(stream, "GET", "/metrics", &[], b"").map(|(_, _, body)| String::from_utf8(body).unwrap())
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        self.get(path).filter(|answer| answer.status == 200).map(|answer| serde_json::from_value(answer.body).unwrap())
    }

    pub(crate) fn status(&self) -> Option<StatusBody> {
        self.read("/v1/status")
    }

    /// Waits until its status is as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&StatusBody) -> bool) -> StatusBody {
        until(&format!("{what} ({})", self.hotkey), || self.status().filter(&wanted))
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.hotkey, std::fs::read_to_string(self.path("log")).unwrap_or_default());
        }
    }
}

/// Sends a body to whoever listens on a unix socket.
pub(crate) fn post(socket: &Path, path: &str, headers: &[(&str, &str)], body: &Value) -> Option<Answer> {
    let stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(6 * ANSWER_DEADLINE)).unwrap();
    let mut all = vec![("content-type", "application/json")];
    all.extend(headers);
    send(stream, "POST", path, &all, &body.to_string())
}

fn ask(stream: impl Read + Write, path: &str) -> Option<Answer> {
    send(stream, "GET", path, &[], "")
}

fn send(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Answer> {
    let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let headers = headers.concat();
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: sidecar\r\nConnection: close\r\ncontent-length: {length}\r\n");
    write!(stream, "{head}{headers}\r\n{body}").ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: serde_json::from_str(body).unwrap_or(Value::Null), text: body.to_owned() })
}

/// One request with these headers and this body, as bytes go over the wire: status, head and body of the answer.
pub(crate) fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> Option<(u16, String, Vec<u8>)> {
    let mut head = vec![format!("{method} {path} HTTP/1.1"), "Host: sidecar".into(), "Connection: close".into()];
    head.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
    if !body.is_empty() {
        head.push(format!("Content-Length: {}", body.len()));
    }
    stream.write_all(&[head.join("\r\n").as_bytes(), b"\r\n\r\n", body].concat()).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, head, bytes[end + 4..].to_vec()))
}

/// A Network on this chain, without a group.
pub(crate) fn network(chain: &Devchain) -> NetworkConfig {
    NetworkConfig {
        network: "test".into(),
        endpoints: vec![chain.endpoint()],
        archive_endpoints: vec![],
        netuid: NetUid(1),
        genesis_hash: chain.genesis_hash,
        local: true,
        minimum_stake: "1000".parse().unwrap(),
        verification_ttl_s: 60,
        tiers: vec![],
        group: None,
    }
}
