//! Verifications a second over the unix socket: 64 clients that keep their connections, a real sidecar and a real development
//! chain, all on this machine. Prints one JSON line.
//!
//! The chain's program is found by `MYCELIUM_DEVCHAIN`.
#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "a measurement is a test, not a product")]

#[path = "../tests/processes/chain.rs"]
#[expect(dead_code, reason = "tests do more with a chain")]
mod chain;
#[path = "../tests/processes/pod.rs"]
#[expect(dead_code, reason = "tests do more with a sidecar")]
mod pod;

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use sidecar_metagraph::keys::HotkeyPair;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use chain::Devchain;
use pod::{Pod, network};

const CLIENTS: usize = 64;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);

fn pair(id: u8) -> HotkeyPair {
    HotkeyPair::from_seed(&seed(id)).unwrap()
}

fn seed(id: u8) -> [u8; 32] {
    [id; 32]
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_mins(1), "never {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Asks again and again until the end, and returns how often it was answered within the measured time.
async fn client(socket: &Path, request: Vec<u8>, from: Instant, to: Instant) -> u64 {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let mut buffer = vec![0; 4096];
    let mut answered = 0;
    while Instant::now() < to {
        stream.write_all(&request).await.unwrap();
        let mut held = 0;
        loop {
            held += stream.read(&mut buffer[held..]).await.unwrap();
            assert!(buffer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&buffer[..held]));
            // Every answer is one JSON object, and the only one that ends so.
            if buffer[..held].ends_with(b"}") {
                break;
            }
        }
        let closes = buffer[..held].windows(17).any(|part| part == b"connection: close");
        if closes {
            stream = UnixStream::connect(socket).await.unwrap();
        }
        let now = Instant::now();
        answered += u64::from(now >= from && now < to);
    }
    answered
}

fn main() {
    let chain = Devchain::start(&[(1, 50_000), (2, 9_000)]);
    let mut pod = Pod::new("miner", 1);
    pod.configure(&network(&chain));
    pod.run();
    let path = format!("/v1/validators/{}/verify", pod.hotkey);
    until("ready", || {
        pod.get_by_socket(&path).filter(|answer| answer.status == 200 && answer.body["verified"] == true)
    });
    let request = format!("GET {path} HTTP/1.1\r\nhost: sidecar\r\n\r\n").into_bytes();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answered: u64 = runtime.block_on(async {
        let from = Instant::now() + WARM_UP;
        let to = from + MEASURED;
        let socket = pod.path("sidecar.sock");
        let clients = (0..CLIENTS).map(|_| client(&socket, request.clone(), from, to));
        futures::future::join_all(clients).await.into_iter().sum()
    });
    let each_second = answered / MEASURED.as_secs();
    println!("{}", serde_json::json!({"name": "verify_http_per_s", "unit": "1/s", "ours": each_second, "bar": 10_000}));
    pod.kill();
}
