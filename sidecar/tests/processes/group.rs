//! Three validators whose sidecars form a group.

use std::thread::sleep;
use std::time::{Duration, Instant};

use sidecar_util::config::{GroupConfig, Member, NetworkConfig, TimingProfile};
use sidecar_util::http::{EntryState, GroupRole, GroupStatus, ValidatorsBody, VerifyBody};

use super::chain::Devchain;
use super::pod::{Pod, network};
use super::until;

/// Stakes in the order in which validators are to lead.
const STAKES: [(u8, u64); 3] = [(1, 50_000), (2, 9_000), (3, 2_000)];

fn describe(chain: &Devchain, pods: &[Pod]) -> NetworkConfig {
    let mut members: Vec<Member> =
        pods.iter().map(|pod| Member { hotkey: pod.hotkey, address: pod.peer.clone() }).collect();
    members.sort_by_key(|member| member.hotkey);
    let group = GroupConfig {
        cluster_id: "test-group".into(),
        founder: pods[0].hotkey,
        founded: false,
        voters: 3,
        // Shorter leases would have the machine's load elect leaders.
        timing: TimingProfile::Wan,
        members,
    };
    NetworkConfig { group: Some(group), ..network(chain) }
}

fn start(chain: &Devchain) -> Vec<Pod> {
    let mut pods: Vec<Pod> = STAKES.iter().map(|(id, _)| Pod::new("validator", *id)).collect();
    let described = describe(chain, &pods);
    for pod in &mut pods {
        pod.configure(&described);
        pod.run();
    }
    for pod in &pods {
        pod.until("three voters", |status| status.group.as_ref().is_some_and(|group| group.voters.len() == 3));
    }
    pods
}

fn group(pod: &Pod) -> Option<GroupStatus> {
    pod.status().and_then(|status| status.group)
}

/// Waits until the pods of these indices agree that one of them leads, and that one agrees.
fn agreed_leader(pods: &[Pod], live: &[usize]) -> usize {
    until("one leader", || {
        let views: Option<Vec<GroupStatus>> = live.iter().map(|i| group(&pods[*i])).collect();
        let views = views?;
        let leader = views[0].leader?;
        let same = views.iter().all(|view| view.leader == Some(leader));
        let leads = live.iter().zip(&views).find(|(_, view)| view.role == GroupRole::Leader)?;
        (same && pods[*leads.0].hotkey == leader).then_some(*leads.0)
    })
}

#[test]
fn the_heaviest_live_validator_leads_and_who_comes_back_catches_up_from_its_disk() {
    let chain = Devchain::start(&STAKES);
    let mut pods = start(&chain);
    assert_eq!(agreed_leader(&pods, &[0, 1, 2]), 0);

    // Everybody has heard of everybody, over TLS, and ranks them alike.
    for pod in &pods {
        pod.until("three active validators", |status| status.registry.states.get(&EntryState::Active) == Some(&3));
        let order = until("weights", || group(pod).map(|group| group.weights).filter(|weights| weights.len() == 3));
        let order: Vec<_> = order.into_iter().map(|weight| weight.hotkey).collect();
        assert_eq!(order, pods.iter().map(|pod| pod.hotkey).collect::<Vec<_>>());
    }

    let killed = Instant::now();
    pods[0].kill();
    assert_eq!(agreed_leader(&pods, &[1, 2]), 1);
    println!("leader again after {:?}", killed.elapsed());

    pods[0].run();
    let back = pods[0].until("caught up", |status| {
        let leader = group(&pods[1]);
        let (Some(mine), Some(leaders)) = (&status.group, &leader) else { return false };
        let same = (&mine.state_hash, mine.applied_index) == (&leaders.state_hash, leaders.applied_index);
        same && mine.leader == Some(pods[1].hotkey)
    });
    assert!(back.group.unwrap().restored_index > 0, "its disk was read");

    pods[1].kill();
    assert_eq!(agreed_leader(&pods, &[0, 2]), 0);
}

#[test]
fn stake_taken_below_the_minimum_is_known_to_the_others_at_once() {
    let chain = Devchain::start(&STAKES);
    let pods = start(&chain);
    let (poor, others) = (&pods[2], &pods[..2]);
    let verify = format!("/v1/validators/{}/verify", poor.hotkey);
    for pod in others {
        until("verified", || pod.read::<VerifyBody>(&verify).filter(|body| body.verified));
    }
    let hotkey = poor.hotkey.to_string();
    chain.transact(&["remove-stake", "--from", "//Ferdie", "--hotkey", &hotkey, "--netuid", "1", "--amount", "1500"]);
    for pod in others {
        // The answer above was good for a minute; what the sidecar learns ends that.
        let body = until("refused", || pod.read::<VerifyBody>(&verify).filter(|body| !body.verified));
        assert_eq!(body.reason, "below_minimum_stake");
        let validators: ValidatorsBody = pod.read("/v1/validators").unwrap();
        let entry = validators.validators.iter().find(|entry| entry.hotkey == poor.hotkey).unwrap();
        assert_eq!((entry.state, entry.reason.as_str()), (EntryState::BelowStake, "below_minimum_stake"));
    }
    chain.transact(&["add-stake", "--from", "//Ferdie", "--hotkey", &hotkey, "--netuid", "1", "--amount", "1500"]);
    for pod in others {
        until("verified again", || pod.read::<VerifyBody>(&verify).filter(|body| body.verified));
    }
}

#[test]
fn the_group_goes_on_without_the_chain_and_a_leader_that_is_told_to_stop_hands_over() {
    let mut chain = Devchain::start(&STAKES);
    let mut pods = start(&chain);
    assert_eq!(agreed_leader(&pods, &[0, 1, 2]), 0);
    let before = group(&pods[0]).unwrap();
    chain.kill();
    for pod in &pods {
        let status = pod.until("out of sync", |status| !status.chain.synced);
        assert!(status.chain.error.is_some() && status.neuron.is_some(), "{:?}", status.chain);
        assert_eq!(pod.get("/readyz").unwrap().status, 200);
    }
    // As long as it takes to see that the outage of the chain alone elects nobody.
    sleep(Duration::from_secs(5));
    let after = group(&pods[0]).unwrap();
    assert_eq!((after.role, after.term), (GroupRole::Leader, before.term));
    chain.run();
    for pod in &mut pods {
        pod.until("in sync again", |status| status.chain.synced);
        assert!(pod.is_running());
    }

    let told = Instant::now();
    assert!(pods[0].terminate().success());
    assert_eq!(agreed_leader(&pods, &[1, 2]), 1);
    println!("handed over after {:?}", told.elapsed());
    assert!(!pods[0].path("sidecar.sock").exists());
}
