//! What a member's disk is good for.

use sidecar_consensus::{Command, ConsensusError};
use sidecar_store::Refusal;
use sidecar_util::http::GroupRole;

use crate::harness::{Cluster, hotkey};

#[tokio::test(flavor = "multi_thread")]
async fn a_member_restarts_from_its_disk_and_catches_up() {
    let mut cluster = Cluster::formed(&[1, 2, 3], 3).await;
    cluster.put("a", "before", &[1, 2, 3]).await;
    let leader = cluster.elected(&[1, 2, 3]).await;
    let away = if leader == 3 { 2 } else { 3 };
    let node_id = cluster.status(away).node_id;
    let rest: Vec<u8> = [1, 2, 3].into_iter().filter(|seed| *seed != away).collect();
    cluster.crash(away).await;
    cluster.put("a", "meanwhile", &rest).await;
    let restarted = cluster.start(away).await;
    let status = restarted.status();
    assert!(status.restored_index > 0, "nothing was read from the disk");
    assert_eq!(status.node_id, node_id);
    cluster.until("it caught up", |cluster| cluster.holds(away, "a", "meanwhile")).await;
    cluster.until("all agree", |cluster| cluster.is_settled(&[1, 2, 3], 3)).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_down_as_a_whole_comes_back_with_everything() {
    let mut cluster = Cluster::formed(&[1, 2, 3], 3).await;
    cluster.weighed(&[(1, 1), (2, 10), (3, 100)]).await;
    for round in 0..20 {
        cluster.put(&format!("key-{round}"), "value", &[1, 2, 3]).await;
    }
    let before = cluster.status(1);
    for seed in [1, 2, 3] {
        cluster.crash(seed).await;
    }
    // The heaviest first: on a busy machine the others could be done before it is up.
    for seed in [3, 2, 1] {
        cluster.start(seed).await;
    }
    cluster.until("it is back", |cluster| cluster.is_settled(&[1, 2, 3], 3)).await;
    assert_eq!(cluster.elected(&[1, 2, 3]).await, 3, "the heaviest campaigns first");
    for seed in [1, 2, 3] {
        assert_eq!(cluster.status(seed).state_hash, before.state_hash);
        assert_eq!(cluster.status(seed).weights, before.weights);
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_member_joins_again_under_a_new_id() {
    let mut cluster = Cluster::formed(&[1, 2, 3], 3).await;
    cluster.put("a", "1", &[1, 2, 3]).await;
    let leader = cluster.elected(&[1, 2, 3]).await;
    let away = if leader == 3 { 2 } else { 3 };
    let old = cluster.status(away).node_id;
    cluster.crash(away).await;
    cluster.wipe(away);
    let restarted = cluster.start(away).await;
    assert_eq!((restarted.status().role, restarted.status().restored_index), (GroupRole::Outside, 0));
    cluster.until("it votes again", |cluster| cluster.is_settled(&[1, 2, 3], 3)).await;
    assert_ne!(cluster.status(away).node_id, old);
    assert!(cluster.holds(away, "a", "1"));
    let returning = cluster.get(leader).read(|state| state.check_member(&hotkey(away), old));
    assert_eq!(returning, Err(Refusal::NodeIdRetired { node_id: old }), "a backup of the old disk cannot come back");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_for_long_gets_a_snapshot() {
    let mut cluster = Cluster::formed_steadily(&[1, 2, 3], 3).await;
    let leader = cluster.elected(&[1, 2, 3]).await;
    let away = if leader == 3 { 2 } else { 3 };
    let rest: Vec<u8> = [1, 2, 3].into_iter().filter(|seed| *seed != away).collect();
    cluster.crash(away).await;
    cluster.wipe(away);
    // More entries than are kept behind a snapshot, and more state than fits into one chunk.
    for index in 0..3_u8 {
        let command = Command::Put { key: vec![b'l', index], value: vec![index; 700_000] };
        cluster.propose(command, &rest).await;
    }
    for batch in 0..22_u16 {
        let put = |index: u16| {
            let key = (batch * 256 + index).to_be_bytes();
            cluster.propose(Command::Put { key: [b"k", &key[..]].concat(), value: key.to_vec() }, &rest)
        };
        futures::future::join_all((0..256).map(put)).await;
    }
    cluster.put("last", "1", &rest).await;
    cluster.start(away).await;
    cluster.until("it caught up", |cluster| cluster.holds(away, "last", "1")).await;
    cluster.until("all agree", |cluster| cluster.is_settled(&[1, 2, 3], 3)).await;
    let values = |state: &sidecar_store::State| state.get(&[b'l', 2]).map(|found| found.value.len());
    assert_eq!(cluster.get(away).read(values), Some(700_000));
    // It also starts from that snapshot.
    let applied = cluster.status(away).applied_index;
    cluster.crash(away).await;
    let restarted = cluster.start(away).await;
    assert!(restarted.status().restored_index + 8 >= applied, "{} of {applied}", restarted.status().restored_index);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_of_another_group_is_refused() {
    let mut cluster = Cluster::formed(&[1], 3).await;
    cluster.stop(1).await;
    cluster.edit(|group| group.cluster_id = "another".into());
    let error = cluster.try_start(1).await.err().unwrap();
    assert!(matches!(&error, ConsensusError::ForeignCluster { found, .. } if found == "test"), "{error}");
    cluster.edit(|group| group.cluster_id = "test".into());
    cluster.edit(|group| group.voters = 4);
    let error = cluster.try_start(1).await.err().unwrap().to_string();
    assert_eq!(error, "voters: `4` is not 3, 5 or 7");
    cluster.edit(|group| group.voters = 3);
    cluster.start(1).await;
    cluster.put("a", "1", &[1]).await;
    cluster.end().await;
}
