//! Clients that mean harm, or are broken, against the real program: whatever they send or leave unsent, it goes on answering the
//! others, and its memory does not grow.
//!
//! The sidecars here have no chain: what is attacked is what stands in front of every answer.
#![expect(clippy::unwrap_used, clippy::panic, reason = "clippy takes the helpers of tests for production code")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// Long enough for a loaded machine; who waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time for a head, as the sidecar has it, and some for the machine.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// Connections that a sidecar has at most on one listener.
const CONNECTIONS_MAX: usize = 1024;

/// Of these from one address.
const OF_ADDRESS_MAX: usize = 256;

/// A sidecar without a chain. It is killed when this is dropped.
struct Sidecar {
    address: SocketAddr,
    process: Child,
    _directory: TempDir,
}

impl Sidecar {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("hotkey"), format!("0x{}\n", "07".repeat(32))).unwrap();
        let network = r#"{"network": "test", "endpoints": ["ws://127.0.0.1:1"], "netuid": 1, "genesis_hash": null,
            "local": true, "minimum_stake": "1000", "verification_ttl_s": 60, "group": null}"#;
        std::fs::write(path("network.json"), network).unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mycelium-sidecar"));
        command.args(["run", "--kind", "miner", "--log", "warn", "--listen", &address.to_string()]);
        for (flag, name) in [("--config", "network.json"), ("--hotkey-file", "hotkey"), ("--socket", "sidecar.sock")] {
            command.arg(flag).arg(path(name));
        }
        let process = command.stdin(Stdio::null()).spawn().unwrap();
        let sidecar = Self { address, process, _directory: directory };
        let start = Instant::now();
        while sidecar.healthy(Duration::from_secs(1)).await.is_none() {
            assert!(start.elapsed() < PATIENCE, "the sidecar did not start");
            sleep(Duration::from_millis(20)).await;
        }
        sidecar
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection from another address of this machine.
    async fn connect_from(&self, address: Ipv4Addr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(IpAddr::V4(address), 0)).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// How long it took to be told that all is well; `None` when it was not told in time.
    async fn healthy(&self, within: Duration) -> Option<Duration> {
        let start = Instant::now();
        let ask = async {
            let mut stream = TcpStream::connect(self.address).await.ok()?;
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            answer.starts_with("HTTP/1.1 200 ").then(|| start.elapsed())
        };
        timeout(within, ask).await.ok().flatten()
    }

    async fn assert_healthy(&self) {
        assert!(self.healthy(Duration::from_secs(5)).await.is_some(), "others are not answered any more");
    }

    /// Resident memory.
    fn memory_mb(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.process.id())).unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096 / 1_000_000
    }

    /// Sends this on a connection of its own and returns all that comes back until it is closed.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The sidecar may have had enough before all is sent.
        let _ = stream.write_all(bytes).await;
        read_to_end(&mut stream).await
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// What comes until the connection is closed, in whichever way.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = vec![];
    let mut buffer = vec![0; 65536];
    let read = async {
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..length]);
        }
    };
    timeout(PATIENCE, read).await.expect("the connection was never closed");
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

/// Whether the other side closed it.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match timeout(Duration::from_millis(1), stream.read(&mut buffer)).await {
            Err(_) => return false,
            Ok(Ok(0) | Err(_)) => return true,
            Ok(Ok(_)) => {}
        }
    }
}

#[tokio::test]
async fn slow_loris_heads_end_at_the_deadline_and_keep_nobody_from_being_answered() {
    let sidecar = Sidecar::start().await;
    let start = Instant::now();
    let mut slow = vec![];
    for _ in 0..100 {
        let mut stream = sidecar.connect().await;
        slow.push(tokio::spawn(async move {
            let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\n").await;
            let start = Instant::now();
            // A header's letter twice a second, for ever.
            while !is_closed(&mut stream).await && start.elapsed() < PATIENCE {
                let _ = stream.write_all(b"x").await;
                sleep(Duration::from_millis(500)).await;
            }
            start.elapsed()
        }));
    }
    while start.elapsed() < HEAD_DEADLINE / 2 {
        sidecar.assert_healthy().await;
        sleep(Duration::from_millis(200)).await;
    }
    for one in slow {
        let lasted = one.await.unwrap();
        assert!(lasted > HEAD_DEADLINE / 2 && lasted < HEAD_DEADLINE * 2, "{lasted:?}");
    }
}

#[tokio::test]
async fn slow_loris_bodies_are_not_waited_for() {
    let sidecar = Sidecar::start().await;
    for method in ["GET", "POST", "DELETE"] {
        let mut stream = sidecar.connect().await;
        let head = format!(
            "{method} /healthz HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let (start, mut buffer) = (Instant::now(), [0; 1024]);
        let length = timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(status(&String::from_utf8_lossy(&buffer[..length])), if method == "GET" { 200 } else { 405 });
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let _ = stream.write_all(b"x").await;
        read_to_end(&mut stream).await;
        assert!(start.elapsed() < HEAD_DEADLINE * 2, "{method}: {:?}", start.elapsed());
    }
    sidecar.assert_healthy().await;
}

#[tokio::test]
async fn giant_heads_are_refused_with_a_status() {
    let sidecar = Sidecar::start().await;
    let before = sidecar.memory_mb();
    let head =
        |path: &str, headers: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    let many = |count: usize| (0..count).map(|i| format!("x-{i}: 1\r\n")).collect::<Vec<_>>().concat();
    let long = |length: usize| "y".repeat(length);
    for (request, expected, kind) in [
        (head("/healthz", &format!("x-long: {}\r\n", long(9_000))), 431, "headers-too-large"),
        (head("/healthz", &format!("x-long: {}\r\n", long(100_000))), 431, ""),
        (head("/healthz", &format!("{}: 1\r\n", long(100_000))), 431, ""),
        (head("/healthz", &many(80)), 431, "headers-too-large"),
        (head("/healthz", &many(5_000)), 431, ""),
        (head(&format!("/v1/nodes?hotkey={}", long(10_000)), ""), 414, "uri-too-long"),
        (head(&format!("/{}", long(10_000)), ""), 414, "uri-too-long"),
        (head(&format!("/{}", long(1_000_000)), ""), 431, ""),
    ] {
        let answer = sidecar.exchange(request.as_bytes()).await;
        // Of what is far too large the rest is left unread, and closing then can overtake the answer.
        if kind.is_empty() && answer.is_empty() {
            continue;
        }
        assert_eq!(status(&answer), expected, "{}…: {answer}", &request[..60]);
        assert!(kind.is_empty() || answer.contains(&format!("urn:mycelium:{kind}")), "{answer}");
    }
    for _ in 0..200 {
        // What it says drowns when it closes with so much unread: only that it goes on counts here.
        sidecar.exchange(head("/healthz", &many(50_000)).as_bytes()).await;
    }
    sidecar.assert_healthy().await;
    assert!(sidecar.memory_mb() < before + 30, "{} MB, before {before} MB", sidecar.memory_mb());
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_closed() {
    let sidecar = Sidecar::start().await;
    for request in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
    ] {
        let answer = sidecar.exchange(request).await;
        let refused = answer.is_empty() || [400, 431].contains(&status(&answer));
        assert!(refused, "{:?}: {answer}", String::from_utf8_lossy(request));
    }
    sidecar.assert_healthy().await;
}

#[tokio::test]
async fn wrong_charsets_and_percent_encodings_are_the_clients_mistakes() {
    let sidecar = Sidecar::start().await;
    for path in [
        &b"/v1/nodes/%ff"[..],
        b"/v1/nodes/%",
        b"/v1/nodes/%c3%28",
        b"/v1/nodes?kind=%ff",
        b"/v1/nodes?%zz=1",
        b"/v1/validators/%00/verify",
        "/v1/nodes/５Grw".as_bytes(),
        b"/v1/validators/\xff\xfe/verify",
        b"/v1/nodes?hotkey=\xe4\xf6",
        b"/v1/nodes/\xed\xa0\x80",
    ] {
        let request = [b"GET ", path, b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"].concat();
        let answer = sidecar.exchange(&request).await;
        // What is no text at all is no request to the HTTP library, which closes without a word.
        let is_text = std::str::from_utf8(path).is_ok();
        assert!(
            !is_text && answer.is_empty() || status(&answer) == 400,
            "{:?}: {answer}",
            String::from_utf8_lossy(path)
        );
    }
    for header in ["accept-encoding: \u{fc}", "if-none-match: \u{fc}", "last-event-id: \u{fc}", "content-type: \u{fc}"]
    {
        let request = format!("GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\n\r\n");
        assert_eq!(status(&sidecar.exchange(request.as_bytes()).await), 200, "{header}");
    }
    sidecar.assert_healthy().await;
}

#[tokio::test]
async fn chunked_bodies_without_end_are_not_read_to_the_end() {
    let sidecar = Sidecar::start().await;
    let before = sidecar.memory_mb();
    let mut endless = vec![];
    for _ in 0..20 {
        let mut stream = sidecar.connect().await;
        endless.push(tokio::spawn(async move {
            let head = b"GET /healthz HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head).await.unwrap();
            let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
            let mut sent = 0;
            let writing = async {
                while stream.write_all(&chunk).await.is_ok() {
                    sent += chunk.len();
                }
            };
            timeout(PATIENCE, writing).await.expect("the connection was never closed");
            sent
        }));
    }
    for one in endless {
        // As much as the sockets of both sides hold.
        let sent = one.await.unwrap();
        assert!(sent < 16 << 20, "{sent} bytes were taken");
    }
    sidecar.assert_healthy().await;
    assert!(sidecar.memory_mb() < before + 30, "{} MB, before {before} MB", sidecar.memory_mb());
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_up_to_the_limit_of_a_connection() {
    const LIMIT: usize = 10_000;
    let sidecar = Sidecar::start().await;
    let mut stream = sidecar.connect().await;
    let (mut reader, mut writer) = stream.split();
    let send = async {
        for i in 0..LIMIT {
            let path = if i % 2 == 0 { "/healthz" } else { "/nowhere" };
            if writer.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.is_err() {
                break;
            }
        }
    };
    let receive = async {
        let mut answers = vec![];
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            answers.extend_from_slice(&buffer[..length]);
        }
        String::from_utf8(answers).unwrap()
    };
    let ((), answers) = timeout(PATIENCE, async { tokio::join!(send, receive) }).await.unwrap();
    let found: Vec<&str> =
        answers.lines().filter_map(|line| line.split_once("HTTP/1.1 ").map(|(_, rest)| &rest[..3])).collect();
    let expected: Vec<&str> = ["200", "404"].into_iter().cycle().take(LIMIT).collect();
    assert!(found == expected, "{} answers", found.len());
    assert_eq!(answers.matches("connection: close").count(), 1, "the last one says so");
    sidecar.assert_healthy().await;
}

#[tokio::test]
async fn kept_connections_end_when_nothing_is_asked() {
    let sidecar = Sidecar::start().await;
    let mut stream = sidecar.connect().await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let start = Instant::now();
    let answer = read_to_end(&mut stream).await;
    assert_eq!((status(&answer), answer.matches("HTTP/1.1").count()), (200, 1));
    assert!(start.elapsed() > HEAD_DEADLINE / 2 && start.elapsed() < HEAD_DEADLINE * 2, "{:?}", start.elapsed());
}

#[tokio::test]
async fn who_does_not_read_is_not_waited_for_for_ever() {
    let sidecar = Sidecar::start().await;
    let before = sidecar.memory_mb();
    let mut deaf = vec![];
    for _ in 0..20 {
        let mut stream = sidecar.connect().await;
        deaf.push(tokio::spawn(async move {
            // Many answers of some hundred kilobytes, none of which is taken.
            let request = b"GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";
            let _ = timeout(PATIENCE, stream.write_all(&request.repeat(500))).await;
            let start = Instant::now();
            // Only an error tells: reading would take what is to be left.
            while start.elapsed() < 2 * PATIENCE {
                if stream.write_all(b"\r\n").await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(500)).await;
            }
            panic!("the connection was never closed");
        }));
    }
    sleep(Duration::from_secs(3)).await;
    sidecar.assert_healthy().await;
    assert!(sidecar.memory_mb() < before + 30, "{} MB, before {before} MB", sidecar.memory_mb());
    for one in deaf {
        one.await.unwrap();
    }
}

#[tokio::test]
async fn one_address_has_its_share_of_connections_and_no_more() {
    let sidecar = Sidecar::start().await;
    let other = Ipv4Addr::new(127, 0, 1, 1);
    let mut bystander = sidecar.connect_from(other).await;
    let mut mine = vec![];
    for _ in 0..OF_ADDRESS_MAX + 50 {
        mine.push(sidecar.connect_from(Ipv4Addr::new(127, 0, 1, 2)).await);
    }
    sleep(Duration::from_millis(500)).await;
    let mut open = vec![];
    for stream in &mut mine {
        open.push(!is_closed(stream).await);
    }
    assert!(open.iter().filter(|open| **open).count() <= OF_ADDRESS_MAX);
    assert!(open[..50].iter().all(|open| !open) && open[50..].iter().all(|open| *open), "the oldest go");
    assert!(!is_closed(&mut bystander).await, "others keep theirs");
    sidecar.assert_healthy().await;
}

#[tokio::test]
async fn ten_thousand_connections_push_out_the_oldest_and_it_goes_on_answering() {
    const CONNECTIONS: usize = 10_000;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    assert!(limit.maximum.is_none_or(|maximum| maximum > 11_000), "the machine allows {limit:?} files");
    let sidecar = Sidecar::start().await;
    let before = sidecar.memory_mb();
    let mut streams = Vec::with_capacity(CONNECTIONS);
    let mut slowest = Duration::ZERO;
    // From fifty addresses at once, so that no address has more than its share.
    for round in 0..CONNECTIONS / 50 {
        let from = (1..=50).map(|last| sidecar.connect_from(Ipv4Addr::new(127, 0, 2, last)));
        for mut stream in futures::future::join_all(from).await {
            if round % 3 == 0 {
                let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost:").await;
            }
            streams.push(stream);
        }
        if round % 10 == 0 {
            slowest = slowest.max(sidecar.healthy(PATIENCE).await.expect("others are not answered any more"));
        }
    }
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    sleep(Duration::from_secs(1)).await;
    let mut open = 0;
    for stream in &mut streams {
        if !is_closed(stream).await {
            open += 1;
        }
    }
    assert!(open <= CONNECTIONS_MAX, "{open} are open");
    sidecar.assert_healthy().await;
    assert!(sidecar.memory_mb() < before + 60, "{} MB, before {before} MB", sidecar.memory_mb());
    println!("slowest answer meanwhile {slowest:?}, {open} open at the end, {} MB", sidecar.memory_mb());
}
