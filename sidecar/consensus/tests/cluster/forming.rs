//! How groups come to be, grow and shrink.

use std::time::Duration;

use sidecar_consensus::{Command, ConsensusError, Reply};
use sidecar_util::config::Member;
use sidecar_util::http::GroupRole;

use crate::harness::{Cluster, hotkey, member};

#[tokio::test(flavor = "multi_thread")]
async fn three_members_become_three_voters_that_hold_the_same() {
    let cluster = Cluster::formed(&[1, 2, 3], 3).await;
    cluster.put("a", "1", &[1, 2, 3]).await;
    let statuses = cluster.statuses();
    assert!(statuses.values().all(|status| status.state_hash == statuses[&1].state_hash));
    assert!(statuses.values().all(|status| status.voters.len() == 3 && status.learners.is_empty()));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_members_the_three_heaviest_vote_and_the_others_learn() {
    let mut cluster = Cluster::new(&[1, 2, 3, 4, 5], 3);
    for seed in 1..=5 {
        cluster.start(seed).await;
    }
    // The founder is the lightest: it leads all the same, and the two heaviest others vote.
    cluster.observe(&[(1, 1), (2, 10), (3, 100), (4, 1_000), (5, 10_000)]);
    let heaviest = vec![hotkey(1), hotkey(4), hotkey(5)];
    let mut epochs_left = 10;
    while cluster.status(1).voters != heaviest {
        // Whoever was quick became a voter first; each epoch exchanges one for a heavier one.
        cluster.until("the group rests", |cluster| cluster.is_settled(&[1, 2, 3, 4, 5], 3)).await;
        assert!(epochs_left > 0, "{:#?}", cluster.status(1));
        epochs_left -= 1;
        let before = cluster.status(1);
        cluster.observe(&[(1, 1), (2, 10), (3, 100), (4, 1_000), (5, 10_000)]);
        let replicated = |cluster: &Cluster| cluster.status(1).applied_index > before.applied_index;
        cluster.until("the epoch is replicated", replicated).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    cluster.until("all know", |cluster| cluster.statuses().values().all(|status| status.voters == heaviest)).await;
    let learners = cluster.status(1).learners;
    assert_eq!(learners, [hotkey(2), hotkey(3)]);
    cluster.put("a", "1", &[1, 2, 3, 4, 5]).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_are_one_voter_and_one_learner() {
    let cluster = Cluster::new(&[1, 2], 3);
    let mut cluster = cluster;
    cluster.start(1).await;
    cluster.start(2).await;
    cluster.until("the second learns", |cluster| cluster.status(2).role == GroupRole::Learner).await;
    cluster.put("a", "1", &[1, 2]).await;
    assert_eq!(cluster.status(1).voters, [hotkey(1)]);
    cluster.stop(2).await;
    cluster.put("a", "2", &[1]).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_founder_founds() {
    let mut cluster = Cluster::new(&[1, 2, 3], 3);
    cluster.start(2).await;
    cluster.start(3).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (seed, status) in cluster.statuses() {
        assert_eq!((status.role, status.term, status.leader), (GroupRole::Outside, 0, None), "member {seed}");
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_lost_its_disk_joins_its_own_group_again() {
    let mut cluster = Cluster::formed(&[1, 2, 3], 3).await;
    cluster.put("a", "1", &[1, 2, 3]).await;
    cluster.crash(1).await;
    cluster.elected(&[2, 3]).await;
    cluster.wipe(1);
    // Its founding was never noted, so only the others' word keeps it from founding a second group.
    cluster.start(1).await;
    cluster.until("it is back", |cluster| cluster.is_settled(&[1, 2, 3], 3)).await;
    assert!(cluster.holds(1, "a", "1"));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_without_its_disk_founds_nothing_once_the_group_was_seen() {
    let mut cluster = Cluster::formed(&[1, 2, 3], 3).await;
    cluster.edit(|group| group.founded = true);
    cluster.crash(1).await;
    cluster.crash(2).await;
    cluster.crash(3).await;
    cluster.wipe(1);
    cluster.start(1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let status = cluster.status(1);
    assert_eq!((status.role, status.last_log_index), (GroupRole::Outside, 0));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_foundings_under_one_name_never_mix() {
    let mut cluster = Cluster::formed(&[1, 2, 3], 3).await;
    cluster.put("a", "of the first group", &[1, 2, 3]).await;
    for seed in [1, 2, 3] {
        cluster.crash(seed).await;
    }
    // The founder's disk is lost before anybody noted the founding, and nobody answers: it founds a second group.
    cluster.wipe(1);
    cluster.start(1).await;
    cluster.until("a second group is founded", |cluster| cluster.status(1).role == GroupRole::Leader).await;
    cluster.start(2).await;
    cluster.start(3).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.status(1).voters, [hotkey(1)]);
    for seed in [2, 3] {
        assert!(cluster.holds(seed, "a", "of the first group"), "member {seed} lost what was committed");
    }
    assert_ne!(cluster.elected(&[2, 3]).await, 1);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_departed_member_is_removed_and_a_new_one_takes_its_vote() {
    let mut cluster = Cluster::formed(&[1, 2, 3], 3).await;
    cluster.start(4).await;
    let leader = cluster.elected(&[1, 2, 3]).await;
    let gone = if leader == 3 { 2 } else { 3 };
    let left: Vec<u8> = [1, 2, 3, 4].into_iter().filter(|seed| *seed != gone).collect();
    cluster.edit(|group| {
        group.members.retain(|member| member.hotkey != hotkey(gone));
        group.members.push(member(4));
    });
    cluster.until("the newcomer votes", |cluster| cluster.is_settled(&left, 3)).await;
    cluster.until("the departed knows", |cluster| cluster.status(gone).role == GroupRole::Outside).await;
    cluster.stop(gone).await;
    cluster.put("a", "1", &left).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_departed_leader_hands_over_before_it_goes() {
    let mut cluster = Cluster::formed(&[1, 2, 3], 3).await;
    cluster.weighed(&[(1, 10), (2, 100), (3, 1_000)]).await;
    let leader = cluster.elected(&[1, 2, 3]).await;
    let left: Vec<u8> = [1, 2, 3].into_iter().filter(|seed| *seed != leader).collect();
    cluster.edit(|group| group.members.retain(|member| member.hotkey != hotkey(leader)));
    cluster
        .until("the others go on alone", |cluster| {
            let status = cluster.status(left[0]);
            let nodes = status.voters.len() + status.learners.len();
            nodes == 2 && cluster.leader_of(&left).is_some()
        })
        .await;
    assert_eq!(cluster.status(leader).role, GroupRole::Outside);
    cluster.put("a", "1", &left).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_found_at_its_new_address() {
    let mut cluster = Cluster::formed(&[1, 2, 3], 3).await;
    let leader = cluster.elected(&[1, 2, 3]).await;
    let moved = if leader == 3 { 2 } else { 3 };
    cluster.stop(moved).await;
    let address = format!("moved-{moved}:9101");
    cluster.edit(|group| {
        let entry = group.members.iter_mut().find(|member| member.hotkey == hotkey(moved)).unwrap();
        *entry = Member { hotkey: hotkey(moved), address: address.clone() };
    });
    cluster.start(moved).await;
    cluster.put("a", "1", &[1, 2, 3]).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_name_the_leader_instead_of_taking_commands() {
    let cluster = Cluster::formed(&[1, 2, 3], 3).await;
    let leader = cluster.elected(&[1, 2, 3]).await;
    let follower = if leader == 1 { 2 } else { 1 };
    let command = || Command::Put { key: b"a".to_vec(), value: b"1".to_vec() };
    let error = cluster.get(follower).propose(command()).await.unwrap_err();
    assert!(error.is_not_leader(), "{error}");
    assert!(matches!(error, ConsensusError::NotLeader { leader: Some(named) } if named == hotkey(leader)), "{error}");
    assert!(matches!(cluster.get(leader).propose(command()).await, Ok(Reply::Written { existed: false, .. })));
    cluster.end().await;
}
