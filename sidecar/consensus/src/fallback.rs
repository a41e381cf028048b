//! The watchdog of elections: weight never costs liveness.
//!
//! When the leader has been silent so long that the last rank should have won, openraft's own elections are turned on for
//! one lease, again and again, until a leader is heard. This task shares nothing with the Consensus Manager: it does not
//! look at weights, pings or the disk, and asks openraft alone.

use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use crate::campaign::Sample;
use crate::timing::Timing;
use crate::type_config::Raft;

/// Leases between two pulses. With elections always on, a voter without a quorum would send pre-votes at every tick for as
/// long as the quorum is away.
const PAUSE_LEASES: u32 = 2;

/// See the module.
pub(crate) struct Fallback {
    pub(crate) raft: Raft,
    pub(crate) timing: Timing,
}

impl Fallback {
    /// Ends when openraft does.
    pub(crate) async fn run(self) {
        let started = Instant::now();
        let mut server = self.raft.server_metrics();
        while let Some(sample) = Sample::take(&self.raft).await {
            if !sample.may_campaign() {
                let _ = server.changed().await;
                continue;
            }
            let idle = sample.idle.unwrap_or_else(|| started.elapsed());
            let patience = self.timing.fallback(self.voters());
            if idle > patience {
                tracing::warn!(idle_ms = idle.as_millis(), "no leader for long: falling back to native elections");
                self.native_elections(true);
                tokio::time::sleep(self.timing.lease).await;
                self.native_elections(false);
                tokio::time::sleep(self.timing.lease * PAUSE_LEASES).await;
            } else {
                tokio::time::sleep(patience.saturating_sub(idle).max(self.timing.lease / 4)).await;
            }
        }
    }

    /// openraft looks whether to campaign at its ticks.
    fn native_elections(&self, on: bool) {
        self.raft.runtime_config().elect(on);
        self.raft.runtime_config().tick(on);
    }

    fn voters(&self) -> usize {
        self.raft.server_metrics().borrow_watched().membership_config.voter_ids().count()
    }
}
