//! Whatever is killed, edited or deleted is put back, and nothing else is disturbed.

use anyhow::{Context as _, Result, ensure};
use e2e::wait::wait_until;

use crate::world::{NAMESPACE, PATIENCE, SYSTEM, World, quickstart};

#[test]
#[ignore = "needs a cluster"]
fn pods_go_on_while_the_operator_is_gone_and_it_acts_again_when_it_is_back() -> Result<()> {
    let world = World::at_rest()?;
    let containers = || -> Result<Vec<_>> {
        quickstart().iter().map(|(kind, name)| world.containers(NAMESPACE, &format!("{kind}-{name}"))).collect()
    };
    let before = containers()?;
    // Killed at once, and told to end: two ways to lose the Lease.
    for how in ["--force", "--force=false"] {
        let old = world.operator_pod()?;
        world.run(&["--namespace", SYSTEM, "delete", "pod", &old, how, "--wait=false"])?;
        wait_until(PATIENCE, "another operator", || {
            let pod = world.operator_pod()?;
            ensure!(pod != old, "still {pod}");
            world.run(&["--namespace", SYSTEM, "wait", "--for=condition=Ready", "--timeout=1s", &format!("pod/{pod}")])
        })?;
        // What a working operator does: it puts back what is missing, and follows the chain for every node.
        for service in ["validator-val-1", "miner-miner-1-axon"] {
            world.run(&["--namespace", NAMESPACE, "delete", "service", service])?;
            wait_until(PATIENCE, "the new operator to act", || {
                world.run(&["--namespace", NAMESPACE, "get", "service", service])
            })?;
        }
        let since = status_blocks(&world)?;
        wait_until(PATIENCE, "the status of every node to go on", || {
            let now = status_blocks(&world)?;
            ensure!(now.iter().zip(&since).all(|(now, since)| now > since), "from {since:?} to {now:?}");
            Ok(())
        })?;
    }
    ensure!(containers()? == before, "no pod was touched");
    Ok(())
}

/// The block of the metagraph that each node's status was made from.
fn status_blocks(world: &World) -> Result<Vec<u64>> {
    let block = |(kind, name)| world.get(kind, name)?["status"]["neuron"]["block"].as_u64().context("no block");
    quickstart().into_iter().map(block).collect()
}

#[test]
#[ignore = "needs a cluster"]
fn a_sidecar_that_is_killed_restarts_alone() -> Result<()> {
    let world = World::at_rest()?;
    let pod = "validator-val-2";
    let find = |name: &str| -> Result<(String, i64)> {
        let containers = world.containers(NAMESPACE, pod)?;
        let found = containers.into_iter().find(|(found, _, _)| found == name).with_context(|| format!("no {name}"))?;
        Ok((found.1, found.2))
    };
    let (user, sidecar) = (find("validator")?, find("sidecar")?);
    // The sidecar's image has no shell, so a container beside it does the killing, in the sidecar's process namespace.
    let kill = ["python3", "-c", "import os, signal; os.kill(1, signal.SIGTERM)"];
    let mut args = vec!["--namespace", NAMESPACE, "debug", pod, "--target=sidecar", "--image=mycelium/example:dev"];
    args.extend(["--profile=restricted", "--quiet", "--"]);
    args.extend(kill);
    world.run(&args)?;
    wait_until(PATIENCE, "the sidecar to restart", || {
        let after = find("sidecar")?;
        ensure!(after.1 > sidecar.1, "{} restarts, were {}", after.1, sidecar.1);
        world.expect_condition("validator", "val-2", "Ready", "True")
    })?;
    ensure!(find("validator")? == user, "the user's container was not touched");
    Ok(())
}

#[test]
#[ignore = "needs a cluster"]
fn what_somebody_edits_is_put_back() -> Result<()> {
    let world = World::at_rest()?;
    let patch = |object: &str, patch: &str| {
        world.run(&["--namespace", NAMESPACE, "patch", object, "--type=merge", &format!("--patch={patch}")])
    };
    let read = |object: &str, path: &str| {
        world.run(&["--namespace", NAMESPACE, "get", object, &format!("--output=jsonpath={path}")])
    };
    let check = |object: &str, path: &str, edit: &str| -> Result<()> {
        let before = read(object, path)?;
        patch(object, edit)?;
        wait_until(PATIENCE, &format!("{object} to be put back"), || {
            let now = read(object, path)?;
            ensure!(now == before, "{path} is {now}, was {before}");
            Ok(())
        })
    };
    check(
        "service/validator-val-1",
        "{.spec.publishNotReadyAddresses}",
        r#"{"spec":{"publishNotReadyAddresses":false}}"#,
    )?;
    let labels = "{.metadata.labels.mycelium\\.network/node}";
    check("pod/validator-val-1", labels, r#"{"metadata":{"labels":{"mycelium.network/node":"somebody-else"}}}"#)?;
    check("configmap/mycelium-default", "{.data}", r#"{"data":{"network.json":"{}"}}"#)?;
    check(
        "serviceaccount/validator-val-1",
        "{.automountServiceAccountToken}",
        r#"{"automountServiceAccountToken":true}"#,
    )
}

#[test]
#[ignore = "needs a cluster"]
fn what_somebody_deletes_is_made_again() -> Result<()> {
    let world = World::at_rest()?;
    for object in [
        "serviceaccount/validator-val-3",
        "role/validator-val-3",
        "rolebinding/validator-val-3",
        "service/miner-miner-1-axon",
        "configmap/mycelium-default",
        "pod/miner-miner-1",
    ] {
        let uid = || world.run(&["--namespace", NAMESPACE, "get", object, "--output=jsonpath={.metadata.uid}"]);
        let before = uid()?;
        world.run(&["--namespace", NAMESPACE, "delete", object, "--wait=false"])?;
        wait_until(PATIENCE, &format!("{object} to be made again"), || {
            let now = uid()?;
            ensure!(now != before, "still the old one");
            Ok(())
        })?;
    }
    Ok(())
}
