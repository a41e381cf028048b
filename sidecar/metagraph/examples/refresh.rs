//! Measures connecting and refreshing: `cargo run --release --example refresh -- ws://127.0.0.1:9944 1 [times]`.
#![expect(clippy::print_stdout, reason = "it prints what it measures")]

use std::time::Instant;

use anyhow::Context as _;
use sidecar_metagraph::{Connect as _, SubxtConnect};
use sidecar_util::NetUid;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let endpoint = args.next().context("give an endpoint")?;
    let netuid = NetUid(args.next().unwrap_or_else(|| "1".to_owned()).parse()?);
    let times: usize = args.next().unwrap_or_else(|| "100".to_owned()).parse()?;

    let start = Instant::now();
    let source = SubxtConnect.connect(&endpoint).await?;
    let connected = start.elapsed();
    let head = source.finalized_head().await?;
    let metagraph = source.metagraph(netuid, head).await?.context("the chain has no such subnet")?;
    println!("cold: connected after {connected:?}, {} neurons after {:?}", metagraph.neurons.len(), start.elapsed());

    let connection = source.connection().context("not a connection")?;
    let mut taken = Vec::with_capacity(times);
    let calls = connection.calls();
    for _ in 0..times {
        let start = Instant::now();
        source.metagraph(netuid, head).await?;
        taken.push(start.elapsed());
    }
    taken.sort();
    let calls = connection.calls() - calls;
    println!("warm: median {:?}, fastest {:?}, {calls} calls for {times}", taken[times / 2], taken[0]);
    Ok(())
}
