//! What happens on the chain shows in the cluster, and a chain that stops breaks nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::wait::wait_until;

use crate::world::{NAMESPACE, PATIENCE, SYSTEM, VAL_2, VAL_3, World, quickstart};

fn stake(world: &World, name: &str) -> Result<f64> {
    let node = world.get("validator", name)?;
    Ok(node["status"]["neuron"]["stake"].as_str().unwrap_or_default().parse()?)
}

#[test]
#[ignore = "needs a cluster"]
fn stake_added_on_the_chain_shows_in_status_within_two_tempos() -> Result<()> {
    let world = World::at_rest()?;
    let before = stake(&world, "val-2")?;
    world.chain(&["tx", "add-stake", "--from", "//Bob", "--hotkey", VAL_2, "--netuid", "1", "--amount", "5000"])?;
    let two_tempos = world.tempo()? * 2;
    wait_until(two_tempos, "the stake to show in status", || {
        let after = stake(&world, "val-2")?;
        // Emission adds a little; fees and slippage take a little.
        ensure!(after > before + 4900.0, "stake is {after}, was {before}");
        Ok(())
    })
}

#[test]
#[ignore = "needs a cluster"]
fn stake_below_the_minimum_deactivates_the_validator_everywhere_until_it_is_back() -> Result<()> {
    let world = World::at_rest()?;
    let entry = |pod: &str| -> Result<String> {
        let validators = world.sidecar(pod, "/v1/validators")?;
        let entries = validators["validators"].as_array().cloned().unwrap_or_default();
        let found = entries.iter().find(|entry| entry["hotkey"] == VAL_3);
        Ok(found.and_then(|entry| entry["state"].as_str()).unwrap_or("absent").to_owned())
    };
    let verify = |pod: &str| world.sidecar(pod, &format!("/v1/validators/{VAL_3}/verify"));
    ensure!(verify("validator-val-1")?["verified"] == true, "val-3 counts at first");

    // All but a little, whatever emission has added since the start.
    let taken = format!("{:.3}", stake(&world, "val-3")? - 500.0);
    world.chain(&[
        "tx",
        "remove-stake",
        "--from",
        "//Charlie",
        "--hotkey",
        VAL_3,
        "--netuid",
        "1",
        "--amount",
        &taken,
    ])?;
    wait_until(PATIENCE, "StakeSufficient to turn False", || {
        let (status, reason, message) = world.condition("validator", "val-3", "StakeSufficient")?;
        ensure!((status.as_str(), reason.as_str()) == ("False", "BelowMinimumStake"), "{status} {reason}");
        ensure!(message.contains("minimum is 1000 TAO") && message.contains("add stake"), "{message}");
        Ok(())
    })?;
    for pod in ["validator-val-1", "validator-val-2", "miner-miner-1"] {
        wait_until(PATIENCE, "the other registries to deactivate val-3", || {
            let state = entry(pod)?;
            ensure!(state == "below_stake", "{pod} says {state}");
            Ok(())
        })?;
        let answer = verify(pod)?;
        ensure!(answer["verified"] == false && answer["reason"] == "below_minimum_stake", "{pod}: {answer}");
    }
    let told = world.events(NAMESPACE, "val-3")?;
    ensure!(told.iter().any(|event| event.starts_with("BelowMinimumStake: ")), "{told:?}");

    world.chain(&["tx", "add-stake", "--from", "//Charlie", "--hotkey", VAL_3, "--netuid", "1", "--amount", &taken])?;
    wait_until(PATIENCE, "val-3 to count again", || {
        world.expect_condition("validator", "val-3", "StakeSufficient", "True")?;
        let answer = verify("validator-val-1")?;
        ensure!(answer["verified"] == true, "{answer}");
        Ok(())
    })
}

#[test]
#[ignore = "needs a cluster"]
fn a_chain_that_stops_for_a_minute_is_told_and_survived_without_a_restart() -> Result<()> {
    let world = World::at_rest()?;
    let containers = || -> Result<Vec<_>> {
        quickstart().iter().map(|(kind, name)| world.containers(NAMESPACE, &format!("{kind}-{name}"))).collect()
    };
    let before = containers()?;
    let restarts = world.operator_restarts()?;
    let stake_before = stake(&world, "val-1")?;
    let scale = |replicas: &str| {
        world.run(&["--namespace", SYSTEM, "scale", "deployment/mycelium-devchain", &format!("--replicas={replicas}")])
    };
    scale("0")?;
    let stopped = std::time::Instant::now();
    let told = wait_until(PATIENCE, "every node to say that the chain is gone", || {
        for (kind, name) in quickstart() {
            world.expect_condition(kind, name, "ChainSynced", "False")?;
        }
        world.condition("validator", "val-1", "ChainSynced")
    });
    let network = world.run(&["get", "network", "default", "--output=jsonpath={.status.conditions}"]);
    std::thread::sleep(Duration::from_mins(1).saturating_sub(stopped.elapsed()));
    let silent = stake(&world, "val-1");
    scale("1")?;

    let (_, reason, message) = told?;
    ensure!(["EndpointDown", "NoNewBlock"].contains(&reason.as_str()), "{reason}: {message}");
    ensure!(network?.contains(&reason), "the Network says so, too");
    ensure!(silent? >= stake_before, "the chain's last words stay");
    wait_until(PATIENCE, "everything to recover", || {
        for (kind, name) in quickstart() {
            world.expect_condition(kind, name, "ChainSynced", "True")?;
            world.expect_condition(kind, name, "Ready", "True")?;
        }
        Ok(())
    })?;
    ensure!(containers()? == before, "no container was restarted");
    ensure!(world.operator_restarts()? == restarts, "the operator was not restarted");
    Ok(())
}
