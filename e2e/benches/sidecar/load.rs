//! Verifications over the sidecar's socket, as the containers of a pod ask for them.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::bench::chain::{Chain, genesis};
use e2e::bench::{Good, Measured, median};
use sp_core::Pair as _;
use sp_core::crypto::Ss58Codec as _;
use sp_core::sr25519::Pair;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::process::{Sidecar, program};

/// Figures of [`verify`].
pub(crate) const NAMES: [&str; 1] = ["verify_http_per_s"];

/// Clients at the same time, each with one connection and one question under way.
const CLIENTS: u16 = 64;

/// Time of one round; the middle one of [`ROUNDS`] counts.
const ROUND: Duration = Duration::from_secs(3);

/// Rounds after one that warms up.
const ROUNDS: usize = 5;

/// Questions answered a second.
pub(crate) fn verify() -> anyhow::Result<Vec<Measured>> {
    let folder = tempfile::tempdir()?;
    let chain = Chain::start(&program("MYCELIUM_DEVCHAIN")?, &genesis(folder.path(), 256, 360)?, "12s")?;
    let sidecar = Sidecar::start(&chain)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rates = Vec::new();
    for round in 0..=ROUNDS {
        let rate = runtime.block_on(all(&sidecar.socket(), ROUND))?;
        if round > 0 {
            rates.push(rate);
        }
    }
    let (name, bar) = (NAMES[0], Some((Good::Above, 10_000.0)));
    Ok(vec![Measured { name, unit: "1/s", ours: median(rates), baseline: None, bar }])
}

async fn all(socket: &Path, during: Duration) -> anyhow::Result<f64> {
    let started = Instant::now();
    let clients = (0..CLIENTS).map(|id| client(socket, id, started + during));
    let answers: u32 = futures::future::try_join_all(clients).await?.into_iter().sum();
    Ok(f64::from(answers) / started.elapsed().as_secs_f64())
}

/// Asks about one validator after the other until the end; how many answers came.
async fn client(socket: &Path, id: u16, end: Instant) -> anyhow::Result<u32> {
    let hotkey = Pair::from_string(&format!("//Bench//hot{}", id % 16), None)?.public().to_ss58check();
    let request = format!("GET /v1/validators/{hotkey}/verify HTTP/1.1\r\nHost: sidecar\r\n\r\n");
    let mut stream = UnixStream::connect(socket).await?;
    let (mut answers, mut buffer) = (0, Vec::with_capacity(4096));
    while Instant::now() < end {
        stream.write_all(request.as_bytes()).await?;
        buffer.clear();
        while !is_whole(&buffer)? {
            ensure!(stream.read_buf(&mut buffer).await? > 0, "the sidecar closed the connection");
        }
        ensure!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer));
        answers += 1;
    }
    Ok(answers)
}

/// Whether an answer has come to its end.
fn is_whole(bytes: &[u8]) -> anyhow::Result<bool> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
    let text = std::str::from_utf8(&bytes[..head])?.to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")).context("no length")?;
    Ok(bytes.len() >= head + 4 + length.trim().parse::<usize>()?)
}
