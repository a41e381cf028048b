//! The user's code in the pod.

use anyhow::{Result, ensure};
use e2e::wait::wait_until;

use crate::world::{NAMESPACE, PATIENCE, VAL_1, World};

#[test]
#[ignore = "needs a cluster"]
fn the_example_validator_prints_scores_that_it_read_through_the_socket() -> Result<()> {
    let world = World::at_rest()?;
    wait_until(PATIENCE, "scores in the log", || {
        let log =
            world.run(&["--namespace", NAMESPACE, "logs", "validator-val-1", "--container=validator", "--tail=40"])?;
        ensure!(log.contains("5GCXWsxB5sFP") && log.contains("5EeupFpgU25W"), "no miner in the log:\n{log}");
        Ok(())
    })
}

#[test]
#[ignore = "needs a cluster"]
fn get_nodes_for_netuid_answers_with_real_nodes() -> Result<()> {
    let world = World::at_rest()?;
    let script = "
from mycelium.chain.interface import get_substrate
from mycelium.chain.fetch_nodes import get_nodes_for_netuid
import os
endpoint = os.environ['CHAIN']
nodes = get_nodes_for_netuid(get_substrate(subtensor_address=endpoint), 1)
for node in nodes:
    print(node.node_id, node.hotkey, node.stake > 0)
";
    let endpoint = world.kubectl.json(&["get", "network", "default"])?["spec"]["chain"]["endpoints"][0].clone();
    let variable = format!("CHAIN={}", endpoint.as_str().unwrap_or_default());
    let exec = |extra: &[&str]| {
        let mut args =
            vec!["--namespace", NAMESPACE, "exec", "validator-val-1", "--container=validator", "--", "env", &variable];
        args.extend(extra);
        args.extend(["python3", "-c", script]);
        world.run(&args)
    };
    let through_socket = exec(&[])?;
    let by_chain = exec(&["-u", "MYCELIUM_SOCKET"])?;
    for answer in [through_socket, by_chain] {
        ensure!(answer.lines().count() == 5 && answer.starts_with(&format!("0 {VAL_1} True")), "{answer}");
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn the_hotkey_file_is_in_the_sidecar_alone() -> Result<()> {
    let world = World::at_rest()?;
    let pod = world.get("pod", "validator-val-1")?;
    let mounts = |list: &str, name: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().cloned().unwrap_or_default();
        let container = containers.into_iter().find(|container| container["name"] == name).unwrap_or_default();
        let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
        mounts.iter().filter_map(|mount| mount["name"].as_str().map(Into::into)).collect()
    };
    ensure!(mounts("initContainers", "sidecar").contains(&"mycelium-hotkey".into()));
    ensure!(!mounts("containers", "validator").contains(&"mycelium-hotkey".into()));
    let listing =
        "import os; print(sorted(os.listdir('/var/run/secrets')) if os.path.isdir('/var/run/secrets') else [])";
    let seen = world.run(&[
        "--namespace",
        NAMESPACE,
        "exec",
        "validator-val-1",
        "--container=validator",
        "--",
        "python3",
        "-c",
        listing,
    ])?;
    ensure!(seen.trim() == "[]", "the user's container sees {seen}");
    Ok(())
}
