//! What a user sees right after `make up`.

use anyhow::{Result, ensure};

use crate::world::World;

#[test]
#[ignore = "needs a cluster"]
fn the_table_shows_what_the_chain_says() -> Result<()> {
    let world = World::at_rest()?;
    let table = world.run(&["get", "validators,miners", "--all-namespaces"])?;
    for column in ["READY", "UID", "STAKE", "PERMIT", "VTRUST", "WEIGHTS-AGE", "ROLE", "AXON", "AGE", "INCENTIVE"] {
        ensure!(table.contains(column), "no column {column} in\n{table}");
    }
    for name in ["val-1", "val-2", "val-3", "miner-1", "miner-2"] {
        ensure!(table.lines().any(|line| line.contains(name) && line.contains("True")), "{name} in\n{table}");
    }
    let all = world.run(&["get", "bittensor", "--all-namespaces"])?;
    ensure!(all.contains("network.mycelium.network/default") && all.contains("hotkeyreservation"), "{all}");
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn kubectl_explain_speaks_to_the_user() -> Result<()> {
    let world = World::at_rest()?;
    for (path, words) in [
        ("validator.spec.hotkeySecretRef", "Only the sidecar mounts it"),
        ("validator.spec.template.spec.containers", "resources"),
        ("miner.spec.axon.exposure", "How peers reach the axon"),
        ("network.spec.minimumStake", "Least total stake"),
        ("validator.status.neuron.vtrust", "Validator trust"),
    ] {
        let text = world.run(&["explain", path])?;
        ensure!(text.contains(words), "{path}:\n{text}");
    }
    Ok(())
}
