//! What a message must satisfy before openraft sees it.
//!
//! Dropping a message is always safe, the network could have lost it. openraft itself believes whoever speaks: any member
//! could send a ballot in another's name, or set the flag `leadership_transfer`, which makes voters ignore the lease of a
//! healthy leader. The flag is taken only together with the leader's own announcement of the hand-over, and cleared
//! otherwise.

use std::time::Duration;

use sidecar_util::Hotkey;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::disk::Identity;
use crate::network::Directory;
use crate::type_config::{Membership, NodeId, TransferRequest, Vote, VoteRequest};
use crate::wire::{PeerRefusal, PeerRequest, RequestBody};

/// A term this far above the own one is no election but an attack on the counter. Appends are exempt: they follow a real
/// election, however long this member was away.
const TERM_JUMP_MAX: u64 = 1000;
/// How long the leader's announcement of a hand-over authorises the target's campaign.
const ANNOUNCEMENT_LIFE: Duration = Duration::from_secs(1);

/// Checks group, founding, receiver, sender and ballot of a request. `from` is who sent it, where the transport knows.
pub(crate) fn check(
    request: &PeerRequest,
    from: Option<Hotkey>,
    me: &Identity,
    membership: &Membership,
    directory: &Directory,
) -> Result<(), PeerRefusal> {
    if request.cluster_id != me.cluster_id {
        return Err(PeerRefusal::ForeignCluster(me.cluster_id.clone()));
    }
    if request.to != 0 && request.to != me.node_id {
        return Err(PeerRefusal::AnotherNode(me.node_id));
    }
    if let Some(sender) = from {
        check_sender(request.from, sender, membership, directory)?;
    }
    let Some(ballot) = ballot(&request.body) else { return Ok(()) };
    if request.to == 0 {
        return Err(PeerRefusal::AnotherNode(me.node_id));
    }
    let owner = ballot.leader_id.node_id;
    if owner != request.from {
        return Err(PeerRefusal::ForeignBallot { ballot: owner, sender: request.from });
    }
    match me.incarnation {
        // A member that was never in the group has no vote, and is made part of it by its leader's log alone.
        0 => match request.body {
            RequestBody::Append(_) | RequestBody::Snapshot(_) if request.incarnation != 0 => Ok(()),
            _ => Err(PeerRefusal::Outside),
        },
        known if known == request.incarnation => Ok(()),
        _ => Err(PeerRefusal::ForeignFounding),
    }
}

/// A sender must be listed or in the membership, and must not speak for a node that is known as another's.
fn check_sender(
    node_id: NodeId,
    sender: Hotkey,
    membership: &Membership,
    directory: &Directory,
) -> Result<(), PeerRefusal> {
    match membership.get_node(&node_id) {
        Some(node) if node.hotkey == sender => Ok(()),
        Some(node) => Err(PeerRefusal::ForeignNode { node_id, owner: node.hotkey, sender }),
        // The membership known here may be older than the sender's.
        None if directory.contains(&sender) => Ok(()),
        None => Err(PeerRefusal::NotAMember(sender)),
    }
}

/// The ballot that a Raft message speaks under.
fn ballot(body: &RequestBody) -> Option<&Vote> {
    match body {
        RequestBody::Hello | RequestBody::Ping => None,
        RequestBody::Append(request) => Some(&request.vote),
        RequestBody::Vote(request) | RequestBody::PreVote(request) => Some(&request.vote),
        RequestBody::Snapshot(chunk) => Some(&chunk.vote),
        RequestBody::TransferLeader(request) => Some(request.from_leader()),
    }
}

/// Refuses ballots whose term jumps.
pub(crate) fn check_term(request: &VoteRequest, known: u64) -> Result<(), PeerRefusal> {
    let asked = request.vote.leader_id.term;
    if asked > known.saturating_add(TERM_JUMP_MAX) { Err(PeerRefusal::TermJump { asked, known }) } else { Ok(()) }
}

/// The last hand-over that the leader announced.
pub(crate) struct Transfers {
    announced: watch::Sender<Option<Announcement>>,
}

#[derive(Debug, Clone, Copy)]
struct Announcement {
    leader: Vote,
    to: NodeId,
    at: Instant,
}

impl Transfers {
    pub(crate) fn new() -> Self {
        Self { announced: watch::Sender::new(None) }
    }

    /// Takes note of a hand-over if it is announced under the ballot of the leader that this member follows.
    pub(crate) fn announce(&self, request: &TransferRequest, followed: &Vote) -> Result<(), PeerRefusal> {
        if !followed.committed || request.from_leader() != followed {
            return Err(PeerRefusal::ForeignTransfer);
        }
        let announcement = Announcement { leader: *followed, to: *request.to_node_id(), at: Instant::now() };
        self.announced.send_replace(Some(announcement));
        Ok(())
    }

    /// The request as openraft may see it: a flag that no announcement covers is cleared. The announcement and the
    /// target's campaign travel on different links, so a campaign that is early waits for up to `patience`.
    pub(crate) async fn authorise(&self, mut request: VoteRequest, patience: Duration) -> VoteRequest {
        if request.leadership_transfer {
            let mut announced = self.announced.subscribe();
            let covered = announced.wait_for(|announced| announced.is_some_and(|it| it.covers(&request.vote)));
            request.leadership_transfer =
                tokio::time::timeout(patience, covered).await.is_ok_and(|found| found.is_ok());
            if !request.leadership_transfer {
                tracing::warn!(candidate = request.vote.leader_id.node_id, "a hand-over that no leader announced");
            }
        }
        request
    }
}

impl Announcement {
    fn covers(&self, campaign: &Vote) -> bool {
        campaign.leader_id.node_id == self.to
            && campaign.leader_id.term == self.leader.leader_id.term + 1
            && self.at.elapsed() < ANNOUNCEMENT_LIFE
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sidecar_util::config::{GroupConfig, Member};

    use super::*;
    use crate::type_config::{AppendRequest, PeerNode};

    fn hotkey(seed: u8) -> Hotkey {
        Hotkey::from([seed; 32])
    }

    fn membership() -> Membership {
        let node = |seed| PeerNode { hotkey: hotkey(seed), address: String::new() };
        let nodes: BTreeMap<u64, PeerNode> = [(1, node(1)), (2, node(2)), (3, node(3))].into();
        Membership::new(vec![[1, 2, 3].into()], nodes).unwrap()
    }

    /// Lists hotkey 4 only, so that everybody else is known by the membership alone.
    fn directory() -> Directory {
        let members = vec![Member { hotkey: hotkey(4), address: "d:1".into() }];
        let group = GroupConfig {
            cluster_id: "a".into(),
            founder: hotkey(1),
            founded: true,
            voters: 3,
            timing: sidecar_util::config::TimingProfile::Test,
            members,
        };
        Directory::new(watch::Sender::new(group).subscribe())
    }

    fn me(incarnation: u64) -> Identity {
        Identity { cluster_id: "a".into(), hotkey: hotkey(1), node_id: 1, incarnation, founder: false }
    }

    fn request(from: NodeId, body: RequestBody) -> PeerRequest {
        PeerRequest { cluster_id: "a".into(), incarnation: 7, from, to: 1, body }
    }

    fn vote_of(node_id: NodeId) -> RequestBody {
        RequestBody::Vote(VoteRequest::new(Vote::new(5, node_id), None))
    }

    fn append_of(node_id: NodeId) -> RequestBody {
        let vote = Vote::new_committed(5, node_id);
        RequestBody::Append(AppendRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None })
    }

    fn judge(request: &PeerRequest, from: Option<u8>, incarnation: u64) -> Result<(), PeerRefusal> {
        check(request, from.map(hotkey), &me(incarnation), &membership(), &directory())
    }

    #[test]
    fn a_ballot_is_taken_from_its_owner_alone() {
        assert_eq!(judge(&request(2, vote_of(2)), Some(2), 7), Ok(()));
        let forged = judge(&request(2, vote_of(3)), Some(2), 7);
        assert_eq!(forged, Err(PeerRefusal::ForeignBallot { ballot: 3, sender: 2 }));
        let foreign = judge(&request(3, vote_of(3)), Some(2), 7);
        assert_eq!(foreign, Err(PeerRefusal::ForeignNode { node_id: 3, owner: hotkey(3), sender: hotkey(2) }));
    }

    #[test]
    fn a_node_that_only_the_list_knows_may_speak_and_a_stranger_may_not() {
        assert_eq!(judge(&request(9, vote_of(9)), Some(4), 7), Ok(()));
        assert_eq!(judge(&request(9, vote_of(9)), Some(5), 7), Err(PeerRefusal::NotAMember(hotkey(5))));
    }

    #[test]
    fn messages_for_another_group_founding_or_node_are_refused() {
        let mut other = request(2, vote_of(2));
        other.cluster_id = "b".into();
        assert_eq!(judge(&other, None, 7), Err(PeerRefusal::ForeignCluster("a".into())));
        assert_eq!(judge(&request(2, vote_of(2)), None, 8), Err(PeerRefusal::ForeignFounding));
        for to in [0, 5] {
            let mut astray = request(2, vote_of(2));
            astray.to = to;
            assert_eq!(judge(&astray, None, 7), Err(PeerRefusal::AnotherNode(1)));
        }
        let mut hello = request(2, RequestBody::Hello);
        hello.to = 0;
        assert_eq!(judge(&hello, None, 8), Ok(()), "who am I is answered to everybody in the cluster");
    }

    #[test]
    fn an_outsider_has_no_vote_and_joins_by_the_leaders_log() {
        assert_eq!(judge(&request(2, vote_of(2)), Some(2), 0), Err(PeerRefusal::Outside));
        assert_eq!(judge(&request(2, append_of(2)), Some(2), 0), Ok(()));
    }

    #[test]
    fn terms_do_not_jump() {
        let ask = |term| check_term(&VoteRequest::new(Vote::new(term, 2), None), 10);
        assert_eq!(ask(1010), Ok(()));
        assert_eq!(ask(1011), Err(PeerRefusal::TermJump { asked: 1011, known: 10 }));
    }

    fn campaign(term: u64, node_id: NodeId) -> VoteRequest {
        VoteRequest { leadership_transfer: true, ..VoteRequest::new(Vote::new(term, node_id), None) }
    }

    #[tokio::test(start_paused = true)]
    async fn the_transfer_flag_counts_only_with_the_leaders_announcement() {
        let transfers = Transfers::new();
        let patience = Duration::from_millis(50);
        assert!(!transfers.authorise(campaign(6, 2), patience).await.leadership_transfer, "nothing announced");
        let leader = Vote::new_committed(5, 1);
        let forged = TransferRequest::new(Vote::new_committed(5, 2), 2, None);
        assert_eq!(transfers.announce(&forged, &leader), Err(PeerRefusal::ForeignTransfer));
        let real = TransferRequest::new(leader, 2, None);
        assert_eq!(transfers.announce(&real, &Vote::new(5, 1)), Err(PeerRefusal::ForeignTransfer), "no leader yet");
        transfers.announce(&real, &leader).unwrap();
        assert!(!transfers.authorise(campaign(6, 3), patience).await.leadership_transfer, "another candidate");
        assert!(!transfers.authorise(campaign(9, 2), patience).await.leadership_transfer, "another term");
        assert!(transfers.authorise(campaign(6, 2), patience).await.leadership_transfer);
        tokio::time::advance(ANNOUNCEMENT_LIFE).await;
        assert!(!transfers.authorise(campaign(6, 2), patience).await.leadership_transfer, "too late");
    }

    #[tokio::test(start_paused = true)]
    async fn a_campaign_that_overtakes_its_announcement_waits_for_it() {
        let transfers = Transfers::new();
        let leader = Vote::new_committed(5, 1);
        let announce = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            transfers.announce(&TransferRequest::new(leader, 2, None), &leader).unwrap();
        };
        let (vote, ()) = tokio::join!(transfers.authorise(campaign(6, 2), Duration::from_millis(50)), announce);
        assert!(vote.leadership_transfer);
    }
}
