//! The identity of a Network's group of validators: who founds it, and that it is founded once.
//!
//! A group that loses all its disks cannot be told from one that was never founded, except by what is written here. So
//! `founded` never turns back while a volume of a validator exists, and a change of the founder is a change of the identity:
//! should the first founder have founded after all, its group and the new one refuse each other instead of mixing.

use crds::v1alpha1::{MemberStatus, NetworkGroupStatus};
use rand::RngCore as _;
use sidecar_util::http::{GroupRole, GroupStatus};
use sidecar_util::{Hotkey, Metagraph, Tao};

/// What the next state of a group depends on.
pub(crate) struct Inputs<'a> {
    pub(crate) members: &'a [MemberStatus],
    /// Whether there are validators of which it is not known yet whether they will be members.
    pub(crate) undecided: bool,
    pub(crate) metagraph: Option<&'a Metagraph>,
    /// What each validator's sidecar says.
    pub(crate) reports: &'a [GroupStatus],
    /// Whether each of them was asked.
    pub(crate) all_asked: bool,
    /// Whether a validator's volume exists.
    pub(crate) volumes_kept: bool,
}

/// The group after this look; `None` while there is nobody to found it.
pub(crate) fn next(before: Option<&NetworkGroupStatus>, inputs: &Inputs<'_>) -> Option<NetworkGroupStatus> {
    // Without validators and without volumes nothing of the group is left, and the next one is a new one.
    let kept = before.filter(|_| inputs.volumes_kept || !inputs.members.is_empty());
    let identity = match kept {
        Some(group) if group.founded || inputs.members.iter().any(|member| member.hotkey == group.founder) => {
            group.clone()
        }
        // A group of which volumes are left stays as it is until validators come back to them.
        Some(group) if inputs.members.is_empty() => group.clone(),
        _ => NetworkGroupStatus {
            cluster_id: new_cluster_id(),
            founder: founder(inputs)?,
            ..NetworkGroupStatus::default()
        },
    };
    let of_this_group = || inputs.reports.iter().filter(|report| report.cluster_id == identity.cluster_id);
    let founded = identity.founded || of_this_group().any(|report| report.role != GroupRole::Outside);
    let newest = of_this_group().filter(|report| report.leader.is_some()).max_by_key(|report| report.term);
    let leader = match newest {
        Some(report) => report.leader.map(|leader| leader.to_string()),
        // Silence counts when everybody was asked.
        None => identity.leader.clone().filter(|_| !inputs.all_asked),
    };
    let leader_name = leader.as_ref().and_then(|leader| {
        inputs.members.iter().find(|member| member.hotkey == *leader).map(|member| member.name.clone())
    });
    Some(NetworkGroupStatus {
        founded,
        leader,
        leader_name,
        term: newest.map_or(identity.term, |report| report.term),
        members: inputs.members.to_vec(),
        ..identity
    })
}

/// The heaviest registered member; the others join it.
fn founder(inputs: &Inputs<'_>) -> Option<String> {
    // Of validators that are created together the first one ready to found need not be the heaviest.
    if inputs.undecided {
        return None;
    }
    let stake = |member: &MemberStatus| -> Option<(Tao, std::cmp::Reverse<String>)> {
        let hotkey: Hotkey = member.hotkey.parse().ok()?;
        let neuron = inputs.metagraph?.by_hotkey(&hotkey)?;
        Some((neuron.total_stake, std::cmp::Reverse(member.hotkey.clone())))
    };
    let weighed = inputs.members.iter().filter_map(|member| Some((stake(member)?, member)));
    weighed.max_by_key(|(stake, _)| stake.clone()).map(|(_, member)| member.hotkey.clone())
}

fn new_cluster_id() -> String {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{group_report, hotkey, member, metagraph};

    fn look(
        before: Option<&NetworkGroupStatus>,
        members: &[MemberStatus],
        reports: &[GroupStatus],
        volumes_kept: bool,
    ) -> Option<NetworkGroupStatus> {
        let metagraph = metagraph(&[(1, 100), (2, 300), (3, 200)]);
        next(
            before,
            &Inputs { members, undecided: false, metagraph: Some(&metagraph), reports, all_asked: true, volumes_kept },
        )
    }

    #[test]
    fn the_heaviest_registered_validator_founds() {
        let group = look(None, &[member(1), member(2), member(3), member(9)], &[], true).unwrap();
        assert_eq!(group.founder, hotkey(2).to_string());
        assert!(!group.founded);
    }

    #[test]
    fn nobody_founds_before_somebody_is_registered() {
        assert_eq!(look(None, &[member(9)], &[], true), None);
        assert_eq!(
            next(
                None,
                &Inputs {
                    members: &[member(1)],
                    undecided: false,
                    metagraph: None,
                    reports: &[],
                    all_asked: true,
                    volumes_kept: true,
                }
            ),
            None
        );
    }

    #[test]
    fn nobody_founds_while_a_validator_may_still_turn_out_heavier() {
        let metagraph = metagraph(&[(1, 100), (2, 300)]);
        let look = |undecided: bool, before: Option<&NetworkGroupStatus>| {
            let inputs = Inputs {
                members: &[member(1)],
                undecided,
                metagraph: Some(&metagraph),
                reports: &[],
                all_asked: true,
                volumes_kept: true,
            };
            next(before, &inputs)
        };
        assert_eq!(look(true, None), None);
        let group = look(false, None).unwrap();
        assert_eq!(group.founder, hotkey(1).to_string());
        assert_eq!(look(true, Some(&group)).unwrap().cluster_id, group.cluster_id, "who comes later changes nothing");
    }

    #[test]
    fn the_identity_stays_whoever_comes_and_goes_after_the_founding() {
        let first = look(None, &[member(1), member(2)], &[], true).unwrap();
        let report = group_report(&first.cluster_id, GroupRole::Leader, Some(2), 1);
        let founded = look(Some(&first), &[member(1), member(2)], std::slice::from_ref(&report), true).unwrap();
        assert!(founded.founded);
        assert_eq!(founded.leader, Some(hotkey(2).to_string()));
        let later = look(Some(&founded), &[member(3)], &[], true).unwrap();
        assert_eq!((&later.cluster_id, later.founded), (&first.cluster_id, true));
    }

    #[test]
    fn a_founder_that_left_before_founding_takes_the_identity_with_it() {
        let first = look(None, &[member(1), member(2)], &[], true).unwrap();
        let second = look(Some(&first), &[member(1)], &[], true).unwrap();
        assert_eq!(second.founder, hotkey(1).to_string());
        assert_ne!(second.cluster_id, first.cluster_id);
    }

    #[test]
    fn a_founder_that_is_only_down_is_waited_for() {
        let first = look(None, &[member(1), member(2)], &[], true).unwrap();
        let outside = group_report(&first.cluster_id, GroupRole::Outside, None, 0);
        let second = look(Some(&first), &[member(1), member(2)], &[outside], true).unwrap();
        assert_eq!((second.cluster_id, second.founded), (first.cluster_id, false));
    }

    #[test]
    fn a_leader_stays_on_record_until_everybody_was_asked() {
        let metagraph = metagraph(&[(1, 100)]);
        let group = NetworkGroupStatus {
            founded: true,
            leader: Some(hotkey(1).to_string()),
            ..look(None, &[member(1)], &[], true).unwrap()
        };
        let leader = |all_asked: bool| {
            let inputs = Inputs {
                members: &[member(1)],
                undecided: false,
                metagraph: Some(&metagraph),
                reports: &[],
                all_asked,
                volumes_kept: true,
            };
            next(Some(&group), &inputs).unwrap().leader
        };
        assert_eq!(leader(false), group.leader);
        assert_eq!(leader(true), None);
    }

    #[test]
    fn volumes_that_are_kept_keep_the_group_and_their_loss_ends_it() {
        let first = look(None, &[member(1)], &[], true).unwrap();
        let founded = NetworkGroupStatus { founded: true, ..first };
        let kept = look(Some(&founded), &[], &[], true).unwrap();
        assert_eq!(kept.cluster_id, founded.cluster_id);
        assert_eq!(look(Some(&founded), &[], &[], false), None);
    }

    #[test]
    fn the_newest_term_names_the_leader_and_other_groups_are_not_heard() {
        let group = NetworkGroupStatus { founded: true, ..look(None, &[member(1), member(2)], &[], true).unwrap() };
        let reports = [
            group_report(&group.cluster_id, GroupRole::Follower, Some(1), 4),
            group_report(&group.cluster_id, GroupRole::Leader, Some(2), 5),
            group_report("another", GroupRole::Leader, Some(3), 9),
        ];
        let after = look(Some(&group), &[member(1), member(2)], &reports, true).unwrap();
        assert_eq!((after.leader, after.term), (Some(hotkey(2).to_string()), 5));
        assert_eq!(after.leader_name, Some("default/v2".into()));
    }
}
