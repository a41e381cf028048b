//! One refresh of a metagraph of 1,024 neurons, beside what the SDKs need for it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use e2e::bench::chain::{Chain, NETUID, genesis};
use e2e::bench::{Baseline, Good, Measured, median, ms};
use sidecar_metagraph::{Connect as _, SubxtConnect};
use sidecar_util::NetUid;

use crate::process::program;

/// Figures of [`metagraph`].
pub(crate) const NAMES: [&str; 4] =
    ["metagraph_1024_warm_ratio", "metagraph_1024_vs_sdk11_ratio", "metagraph_refresh_calls", "metagraph_1024_cold_ms"];

/// Neurons of the largest subnets.
const NEURONS: usize = 1024;

/// Refreshes between two measurements of an SDK: as many before, between and after, so that a machine that becomes slower
/// meanwhile is slower for everybody.
const REFRESHES: u32 = 20;

/// Connections that are made.
const CONNECTIONS: usize = 9;

/// Times ours and both SDKs in turn.
pub(crate) fn metagraph() -> anyhow::Result<Vec<Measured>> {
    let folder = tempfile::tempdir()?;
    // Blocks every 12 s, as on the public chain: none comes between a question and its answer.
    let chain = Chain::start(&program("MYCELIUM_DEVCHAIN")?, &genesis(folder.path(), NEURONS, 360)?, "12s")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let calls = "substrate_rpc_calls_finished_total";
    let (mut warm, mut per_refresh) = (Vec::new(), 0.0);
    let mut refreshes = || -> anyhow::Result<()> {
        runtime.block_on(async {
            let source = SubxtConnect.connect(&chain.endpoint()).await?;
            let head = source.head().await?;
            // The first one is cold: it fetches what the connection keeps.
            source.metagraph(NetUid(NETUID), head).await?;
            let before = chain.metric_sum(calls)?;
            for _ in 0..REFRESHES {
                let started = Instant::now();
                let metagraph = source.metagraph(NetUid(NETUID), head).await?.context("no subnet")?;
                warm.push(ms(started.elapsed()));
                ensure!(metagraph.neurons.len() == NEURONS, "not all neurons");
            }
            let asked = chain.metric_sum(calls)? - before;
            per_refresh = f64::max(per_refresh, asked / f64::from(REFRESHES));
            ensure!(asked > 0.0, "the chain counts no calls under `{calls}`");
            Ok(())
        })
    };
    refreshes()?;
    let sdk10 = sdk("bittensor-10", &chain.endpoint(), 7)?;
    refreshes()?;
    let sdk11 = sdk("bittensor-11", &chain.endpoint(), 25)?;
    refreshes()?;
    let mut cold = Vec::new();
    for _ in 0..CONNECTIONS {
        let started = Instant::now();
        runtime.block_on(async {
            let source = SubxtConnect.connect(&chain.endpoint()).await?;
            let head = source.head().await?;
            source.metagraph(NetUid(NETUID), head).await
        })?;
        cold.push(ms(started.elapsed()));
    }
    let warm = median(warm);
    let against = |name, baseline, value, bar| Measured {
        name,
        unit: "ms",
        ours: warm,
        baseline: Some(Baseline { name: baseline, value }),
        bar: Some((Good::Above, bar)),
    };
    Ok(vec![
        against("metagraph_1024_warm_ratio", "bittensor 10.5.0 metagraph()", sdk10, 250.0),
        against("metagraph_1024_vs_sdk11_ratio", "bittensor 11.3.0 neurons lite", sdk11, 5.0),
        Measured {
            name: "metagraph_refresh_calls",
            unit: "",
            ours: per_refresh,
            baseline: None,
            bar: Some((Good::Below, 2.0)),
        },
        Measured { name: "metagraph_1024_cold_ms", unit: "ms", ours: median(cold), baseline: None, bar: None },
    ])
}

/// Median time of an SDK's call in milliseconds.
fn sdk(environment: &str, endpoint: &str, runs: u32) -> anyhow::Result<f64> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = |command: &mut Command| -> anyhow::Result<String> {
        let output = command.output().with_context(|| format!("{command:?}"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command:?}: {}", errors.lines().last().unwrap_or_default());
        Ok(String::from_utf8(output.stdout)?)
    };
    let python = output(Command::new(root.join("conformance/run.py")).args(["--python", environment]))?;
    let python = PathBuf::from(python.trim());
    let home = tempfile::tempdir()?;
    let mut call = Command::new(&python);
    call.arg(root.join("benches/sidecar/sdk.py"))
        .args([environment, endpoint, &NETUID.to_string(), &runs.to_string()])
        // As in the conformance run: nothing of the caller's settings, and proxies that lead nowhere.
        .env_clear()
        .env("HOME", home.path())
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs([("HTTP_PROXY", "http://127.0.0.1:9"), ("HTTPS_PROXY", "http://127.0.0.1:9"), ("NO_PROXY", "127.0.0.1")]);
    let text = output(&mut call)?;
    let line = text.lines().find(|line| line.starts_with('[')).context("the SDK printed no times")?;
    let times: Vec<f64> = serde_json::from_str(line)?;
    ensure!(times.len() == runs as usize, "not all runs");
    Ok(median(times))
}
