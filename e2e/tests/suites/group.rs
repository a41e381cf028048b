//! The group of validators loses its leader and is led by the heaviest that is left.

use anyhow::{Context as _, Result, ensure};
use e2e::wait::wait_until;
use serde_json::Value;

use crate::world::{NAMESPACE, PATIENCE, VAL_1, VAL_2, VAL_3, World};

/// Name and hotkey of every validator, heaviest first.
const BY_WEIGHT: [(&str, &str); 3] = [("val-1", VAL_1), ("val-2", VAL_2), ("val-3", VAL_3)];

fn group_of(world: &World, name: &str) -> Result<Value> {
    let group = world.sidecar(&format!("validator-{name}"), "/v1/status")?["group"].clone();
    ensure!(group.is_object(), "val {name} is not part of a group yet");
    Ok(group)
}

#[test]
#[ignore = "needs a cluster"]
fn the_leaders_pod_is_deleted_and_the_heaviest_live_validator_leads() -> Result<()> {
    let world = World::at_rest()?;
    wait_until(PATIENCE, "three voters", || {
        for (name, _) in BY_WEIGHT {
            let voters = group_of(&world, name)?["voters"].as_array().map_or(0, Vec::len);
            ensure!(voters == 3, "{name} knows {voters} voters");
        }
        Ok(())
    })?;
    let leader_hotkey = world.group()?["leader"].as_str().context("the Network knows no leader")?.to_owned();
    let (leader, _) = *BY_WEIGHT.iter().find(|(_, hotkey)| *hotkey == leader_hotkey).context("a foreign leader")?;
    let heir = BY_WEIGHT.iter().find(|(name, _)| *name != leader).context("there are three")?;
    let before = group_of(&world, leader)?;

    // Gone for good until its pod is back: another must lead in between.
    world.run(&["--namespace", NAMESPACE, "delete", "pod", &format!("validator-{leader}"), "--wait=false"])?;
    wait_until(PATIENCE, "another leader", || {
        let group = group_of(&world, heir.0)?;
        ensure!(group["term"].as_u64() > before["term"].as_u64(), "the term is still {}", group["term"]);
        ensure!(group["leader"] == heir.1, "the leader is {}, the heaviest live one is {}", group["leader"], heir.1);
        Ok(())
    })?;

    let after = wait_until(PATIENCE, "the old leader to catch up", || {
        let group = group_of(&world, leader)?;
        let leading = group_of(&world, heir.0)?;
        ensure!(group["term"] == leading["term"], "term {} against {}", group["term"], leading["term"]);
        let (applied, last) = (group["applied_index"].as_u64(), leading["applied_index"].as_u64());
        ensure!(applied >= last, "applied {applied:?} of {last:?}");
        Ok(group)
    })?;
    ensure!(after["node_id"] == before["node_id"], "it comes back under the same identity");
    let restored = after["restored_index"].as_u64().unwrap_or_default();
    ensure!(
        restored > 0 && restored >= before["restored_index"].as_u64().unwrap_or_default(),
        "it read its disk: {after}"
    );
    wait_until(PATIENCE, "the Network to name the new leader", || {
        let group = world.group()?;
        ensure!(group["leaderName"] == format!("{NAMESPACE}/{}", heir.0), "{}", group["leaderName"]);
        Ok(())
    })?;
    wait_until(PATIENCE, "the columns to show the roles", || {
        let role = world.get("validator", heir.0)?["status"]["group"]["role"].clone();
        ensure!(role == "leader", "role of {} is {role}", heir.0);
        Ok(())
    })
}

#[test]
#[ignore = "needs a cluster"]
fn every_member_holds_the_same_state() -> Result<()> {
    let world = World::at_rest()?;
    wait_until(PATIENCE, "equal states", || {
        let mut states = Vec::new();
        for (name, _) in BY_WEIGHT {
            let group = group_of(&world, name)?;
            states.push((group["applied_index"].clone(), group["state_hash"].clone()));
        }
        ensure!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:?}");
        Ok(())
    })
}
