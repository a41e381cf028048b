//! How fast the group notices and how long it waits: one table, the same on all members.
//!
//! openraft judges leases by each node's own election timeout. With unequal values a deposed leader may still believe in
//! its lease while a successor commits, so members that differ are not added.

use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use sidecar_util::config::TimingProfile;

/// Ranks that wait for one another at most: five slots stay within one lease in every profile.
const RANKS_MAX: usize = 5;
/// A snapshot is made after so many entries, and the log before it is dropped except for these last ones, which spare a
/// member that was away shortly the whole snapshot.
const ENTRIES_PER_SNAPSHOT: u64 = 4096;
const ENTRIES_KEPT: u64 = 1024;

/// The durations of one profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timing {
    /// Which profile this is.
    pub(crate) profile: TimingProfile,
    /// Between two heartbeats of the leader; also between two pings of a voter that suspects the leader.
    pub(crate) heartbeat: Duration,
    /// How long a follower refuses other candidates after it heard the leader: openraft's largest election timeout.
    pub(crate) lease: Duration,
    /// openraft's smallest election timeout, also the time a vote may take.
    election_min: Duration,
    /// How much later each rank campaigns than the one before. At least a heartbeat, two round trips, two flushes and the
    /// scheduler's delay, or a lighter voter campaigns before a heavier live one could have won.
    pub(crate) slot: Duration,
}

impl Timing {
    pub(crate) fn of(profile: TimingProfile) -> Self {
        let ms = Duration::from_millis;
        let (heartbeat, election_min, lease, slot) = match profile {
            TimingProfile::Test => (ms(50), ms(299), ms(300), ms(50)),
            TimingProfile::Lan => (ms(100), ms(500), ms(1000), ms(150)),
            TimingProfile::Wan => (ms(250), ms(1500), ms(3000), ms(600)),
        };
        Self { profile, heartbeat, lease, election_min, slot }
    }

    /// A voter that answered no ping for this long is taken for dead when ranks are counted.
    pub(crate) fn unheard_after(self) -> Duration {
        self.heartbeat * 3
    }

    /// Silence of the leader after which a voter begins to ping the others. Early enough to know who is dead when the
    /// lease ends, and late enough that a healthy group never pings.
    pub(crate) fn suspicion(self) -> Duration {
        self.lease * 2 / 5
    }

    /// How long the given rank waits for those before it.
    pub(crate) fn wait_of_rank(self, rank: usize) -> Duration {
        self.slot * u32::try_from(rank.min(RANKS_MAX)).expect("at most RANKS_MAX")
    }

    /// Silence of the leader after which openraft's own elections take over from the Consensus Manager.
    pub(crate) fn fallback(self, voters: usize) -> Duration {
        self.lease + self.wait_of_rank(voters) + self.lease
    }

    /// Between two looks of the leader at the membership.
    pub(crate) fn steward_interval(self) -> Duration {
        self.heartbeat * 5
    }

    /// How long one answer of a peer about itself may take.
    pub(crate) fn hello_timeout(self) -> Duration {
        self.lease
    }

    /// How long a founder keeps asking members that do not answer whether they already have a group.
    pub(crate) fn founding_patience(self) -> Duration {
        self.lease * 5
    }

    /// A recorded node must have been silent for this long before its hotkey may come back under another id.
    pub(crate) fn replaced_after(self) -> Duration {
        self.lease * 2
    }

    /// How long one chunk of a snapshot may take; the last one includes the time to write it down.
    pub(crate) fn chunk_timeout(self) -> Duration {
        self.lease * 5
    }

    /// openraft's configuration of a member.
    pub(crate) fn config(self, cluster_id: &str) -> Config {
        let config = Config {
            cluster_name: cluster_id.to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.lease),
            // The Consensus Manager campaigns; `fallback` turns this on when it does not, and the ticks with it, which are
            // what `heartbeat` does without.
            enable_elect: false,
            enable_tick: false,
            enable_pre_vote: Some(true),
            // A leader without a quorum pauses its heartbeats, or it keeps renewing the leases of the few that still hear
            // it, and those could never join the others in electing somebody.
            quorum_loss_probe_interval: Some(millis(self.lease * 2)),
            // A leader that restarted asks for votes again: the state it would serve may be older than what it promised.
            enable_leader_restore: Some(false),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(ENTRIES_PER_SNAPSHOT),
            max_in_snapshot_log_to_keep: ENTRIES_KEPT,
            replication_lag_threshold: ENTRIES_PER_SNAPSHOT * 2,
            purge_batch_size: 256,
            install_snapshot_timeout: millis(self.chunk_timeout()),
            backoff: format!("{}ms ..{}ms", millis(self.heartbeat), millis(self.lease)),
            ..Config::default()
        };
        config.validate().expect("the profiles of this file are valid, which a test checks")
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("no profile has durations of millions of years")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_valid_and_its_last_rank_campaigns_within_two_leases() {
        for profile in [TimingProfile::Test, TimingProfile::Lan, TimingProfile::Wan] {
            let timing = Timing::of(profile);
            assert_eq!(timing.config("a").heartbeat_interval, millis(timing.heartbeat));
            assert!(timing.wait_of_rank(7) <= timing.lease, "{profile:?}");
            assert!(timing.fallback(7) <= timing.lease * 3, "{profile:?}");
            assert!(timing.slot >= timing.heartbeat, "{profile:?}");
            assert!(timing.suspicion() + timing.unheard_after() <= timing.lease, "{profile:?}");
        }
    }
}
