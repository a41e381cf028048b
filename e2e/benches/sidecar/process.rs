//! The sidecar as a process: its memory while blocks come fast, and what it costs while nothing happens.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::bench::chain::{Chain, NETUID, genesis, http, rss_mb};
use e2e::bench::{Good, Measured};
use serde_json::json;
use sp_core::Pair as _;
use sp_core::sr25519::Pair;
use tempfile::TempDir;

/// Figures of [`memory`].
pub(crate) const MEMORY: [&str; 2] = ["sidecar_rss_mb", "sidecar_rss_growth_mb"];

/// Figures of [`idle`].
pub(crate) const IDLE: [&str; 1] = ["sidecar_idle_cpu_percent"];

/// Neurons of the largest subnets.
const NEURONS: usize = 1024;

/// Minutes of fast blocks where `RSS_MINUTES` says nothing else. What is promised is an hour; growth shows sooner.
const DEFAULT_MINUTES: f64 = 3.0;

/// How long an idle sidecar is watched: ten blocks.
const IDLE_TIME: Duration = Duration::from_mins(2);

/// Time to become ready.
const PATIENCE: Duration = Duration::from_mins(1);

/// Clock ticks a second in `/proc`: a constant of Linux on every platform that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A program that `make bench` names.
pub(crate) fn program(variable: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.with_context(|| format!("{variable} names no program: run `make bench`"))
}

/// A validator's sidecar that is its own group. It is killed when this is dropped.
pub(crate) struct Sidecar {
    child: Child,
    /// `host:port` of its HTTP API.
    pub(crate) address: String,
    /// Where its files are.
    folder: TempDir,
}

impl Sidecar {
    /// Starts it beside a chain and waits until it is ready.
    pub(crate) fn start(chain: &Chain) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (pair, seed) = Pair::from_string_with_seed("//Bench//hot0", None)?;
        let hotkey = sp_core::crypto::Ss58Codec::to_ss58check(&pair.public());
        let [address, peer] = [free_address()?, free_address()?];
        let network = json!({
            "network": "bench",
            "endpoints": [chain.endpoint()],
            "netuid": NETUID,
            "genesis_hash": chain.genesis_hash,
            "local": true,
            "minimum_stake": "1000",
            "verification_ttl_s": 60,
            "group": {
                "cluster_id": "bench", "founder": hotkey, "founded": false, "voters": 3,
                "members": [{ "hotkey": hotkey, "address": peer }],
            },
        });
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("network.json"), network.to_string())?;
        std::fs::write(at("hotkey"), format!("0x{}", hex::encode(seed.context("a key without a seed")?)))?;
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let child = Command::new(program("MYCELIUM_SIDECAR")?)
            .args(["run", "--kind=validator", "--listen", &address, "--peer-listen", &peer, "--log=warn"])
            // The axons of the genesis file are nobody's.
            .arg("--probe-interval-s=0")
            .args([flag("config", &at("network.json")), flag("hotkey-file", &at("hotkey"))])
            .args([flag("data-dir", &at("data")), flag("socket", &folder.path().join("sidecar.sock"))])
            .stdin(Stdio::null())
            .spawn()?;
        let sidecar = Self { child, address, folder };
        let started = Instant::now();
        while !http(&sidecar.address, "GET", "/readyz", "").is_ok_and(|body| body.contains("ready\"")) {
            ensure!(started.elapsed() < PATIENCE, "the sidecar did not become ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(sidecar)
    }

    /// The unix socket of its HTTP API.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("sidecar.sock")
    }

    fn rss_mb(&self) -> anyhow::Result<f64> {
        rss_mb(self.child.id())
    }

    /// Processor time until now.
    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Behind the name in brackets, which may hold anything: user and system time are fields 14 and 15 of the line.
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let mut times = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        let (user, system) = (times.next().context("no user time")??, times.next().context("no system time")??);
        Ok((user + system) / TICKS_PER_SECOND)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> anyhow::Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Resident memory with 1,024 neurons and a block every 250 ms, at the end and by how much it grew in the last half.
#[expect(clippy::print_stdout, reason = "how long was measured belongs to the figure")]
pub(crate) fn memory() -> anyhow::Result<Vec<Measured>> {
    let minutes = std::env::var("RSS_MINUTES").ok().filter(|text| !text.is_empty());
    let minutes = minutes.map_or(Ok(DEFAULT_MINUTES), |text| text.parse::<f64>()).context("RSS_MINUTES")?;
    let folder = tempfile::tempdir()?;
    let chain = Chain::start(&program("MYCELIUM_DEVCHAIN")?, &genesis(folder.path(), NEURONS, 40)?, "fast")?;
    let sidecar = Sidecar::start(&chain)?;
    let half = Duration::from_secs_f64(minutes * 30.0);
    let highest = |during: Duration| -> anyhow::Result<f64> {
        let (started, mut highest) = (Instant::now(), 0.0);
        while started.elapsed() < during {
            std::thread::sleep(Duration::from_millis(500));
            highest = f64::max(highest, sidecar.rss_mb()?);
        }
        Ok(highest)
    };
    let first = highest(half)?;
    let second = highest(half)?;
    println!("  memory of a sidecar after {minutes} minutes of a block every 250 ms (RSS_MINUTES=60 for the hour)");
    let alone = |name, ours, bar| Measured { name, unit: "MB", ours, baseline: None, bar: Some((Good::Below, bar)) };
    Ok(vec![alone("sidecar_rss_mb", second, 60.0), alone("sidecar_rss_growth_mb", second - first, 3.0)])
}

/// Processor time with 1,024 neurons and a block every 12 s, in percent of one core.
pub(crate) fn idle() -> anyhow::Result<Vec<Measured>> {
    let folder = tempfile::tempdir()?;
    let chain = Chain::start(&program("MYCELIUM_DEVCHAIN")?, &genesis(folder.path(), NEURONS, 360)?, "12s")?;
    let sidecar = Sidecar::start(&chain)?;
    // The group founds itself first.
    std::thread::sleep(Duration::from_secs(5));
    let (started, before) = (Instant::now(), sidecar.cpu_seconds()?);
    std::thread::sleep(IDLE_TIME);
    let used = (sidecar.cpu_seconds()? - before) / started.elapsed().as_secs_f64() * 100.0;
    let (name, bar) = (IDLE[0], Some((Good::Below, 1.0)));
    Ok(vec![Measured { name, unit: "%", ours: used, baseline: None, bar }])
}
