//! What only a member with a look inside can be asked. Whole groups are tested in `tests/cluster`.

use std::collections::BTreeMap;
use std::time::Instant;

use sidecar_util::config::{Member, TimingProfile};
use tempfile::TempDir;

use super::*;
use crate::disk::Row;
use crate::fake::FakeNetwork;
use crate::type_config::{Vote, VoteRequest, VoteResponse};

struct Group {
    network: FakeNetwork,
    members: BTreeMap<u8, (TempDir, Consensus)>,
}

fn hotkey(seed: u8) -> Hotkey {
    Hotkey::from([seed; 32])
}

/// Three members that vote.
async fn formed() -> Group {
    let member = |seed: u8| Member { hotkey: hotkey(seed), address: format!("{seed}:1") };
    let list = GroupConfig {
        cluster_id: "test".into(),
        founder: hotkey(1),
        founded: false,
        voters: 3,
        timing: TimingProfile::Test,
        members: (1..=3).map(member).collect(),
    };
    let list = watch::Sender::new(list);
    let network = FakeNetwork::new();
    let mut members = BTreeMap::new();
    for seed in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        let config = ConsensusConfig { data_dir: dir.path().to_owned(), hotkey: hotkey(seed) };
        let transport = network.transport(hotkey(seed));
        let consensus = Consensus::start(config, transport, list.subscribe()).await.unwrap();
        network.open(&member(seed), consensus.clone());
        members.insert(seed, (dir, consensus));
    }
    let group = Group { network, members };
    group.until(|group| (1..=3).all(|seed| group.status(seed).voters.len() == 3)).await;
    group
}

impl Group {
    fn get(&self, seed: u8) -> &Inner {
        &self.members[&seed].1.inner
    }

    fn status(&self, seed: u8) -> GroupStatus {
        self.get(seed).status()
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while !is_so(self) {
            assert!(Instant::now() < deadline, "waited in vain");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn leader_and_followers(&self) -> (u8, [u8; 2]) {
        let leads = |group: &Self, seed| group.status(seed).role == GroupRole::Leader;
        self.until(|group| (1..=3).any(|seed| leads(group, seed))).await;
        let leader = (1..=3).find(|seed| leads(self, *seed)).unwrap();
        let mut followers = (1..=3).filter(|seed| *seed != leader);
        (leader, [followers.next().unwrap(), followers.next().unwrap()])
    }

    async fn end(self) {
        for (_, consensus) in self.members.values() {
            consensus.shutdown().await;
        }
    }
}

/// The ballot of a node for the next term, with the log of the group and the flag of a hand-over.
async fn forged_campaign(node: &Inner) -> VoteRequest {
    let last_log_id = node.raft.with_raft_state(|state| state.log_ids.last().copied()).await.unwrap();
    let vote = Vote::new(node.term() + 1, node.node_id);
    VoteRequest { leadership_transfer: true, ..VoteRequest::new(vote, last_log_id) }
}

async fn ask(voter: &Inner, from: &Inner, vote: VoteRequest) -> VoteResponse {
    let me = from.link().unwrap().disk.identity();
    let request = PeerRequest {
        cluster_id: me.cluster_id,
        incarnation: me.incarnation,
        from: me.node_id,
        to: voter.node_id,
        body: RequestBody::Vote(vote),
    };
    match voter.handle(request, Some(me.hotkey)).await {
        Ok(ReplyBody::Vote(response)) => response,
        other => panic!("unexpected answer {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_hand_over_deposes_nobody() {
    let group = formed().await;
    let (leader, [traitor, voter]) = group.leader_and_followers().await;
    let term = group.status(leader).term;
    let campaign = forged_campaign(group.get(traitor)).await;
    for asked in [leader, voter] {
        let response = ask(group.get(asked), group.get(traitor), campaign.clone()).await;
        assert!(!response.vote_granted, "member {asked} voted against a healthy leader");
    }
    assert_eq!((group.status(leader).role, group.status(leader).term), (GroupRole::Leader, term));
    // The flag is what it takes: openraft by itself believes it.
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let campaign = forged_campaign(group.get(traitor)).await;
        if group.get(voter).raft.vote(campaign).await.unwrap().vote_granted {
            break;
        }
        assert!(Instant::now() < deadline, "this test proves nothing any more: openraft checks the flag itself");
    }
    group.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_consensus_managers_a_group_elects_natively() {
    let group = formed().await;
    let (leader, [one, other]) = group.leader_and_followers().await;
    for seed in [one, other] {
        group.get(seed).campaigner.lock().take().unwrap().abort();
    }
    group.network.isolate(hotkey(leader), [hotkey(one), hotkey(other)]);
    let leads = |group: &Group, seed| group.get(seed).raft.is_leader();
    group.until(|group| leads(group, one) || leads(group, other)).await;
    group.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_disk_fails_stops_and_says_so() {
    let group = formed().await;
    let (leader, [one, other]) = group.leader_and_followers().await;
    let link = group.get(one).link().unwrap();
    link.disk.break_for_test("no space left on device");
    assert!(link.disk.write_durably(vec![Row::PutMeta("x", Vec::new())]).await.is_err());
    let command = Command::Put { key: b"a".to_vec(), value: b"1".to_vec() };
    group.members[&leader].1.propose(command).await.unwrap();
    let (_, broken) = &group.members[&one];
    let cause = tokio::time::timeout(Duration::from_mins(1), broken.stopped()).await.unwrap();
    assert!(cause.contains("no space left on device"), "{cause}");
    let request = PeerRequest { cluster_id: "test".into(), incarnation: 0, from: 1, to: 0, body: RequestBody::Hello };
    let answer = broken.inner.handle(request, None).await;
    assert!(matches!(answer, Err(PeerRefusal::Stopped(_))), "{answer:?}");
    assert_eq!(group.status(other).leader, Some(hotkey(leader)), "the others go on");
    drop(link);
    group.end().await;
}
