//! The leader's heartbeat.
//!
//! openraft keeps time by ticks, five of them in the time of one heartbeat, on every member and whatever it does. All that
//! they are good for here is the leader's heartbeat, since the Consensus Manager campaigns; a member that only follows, or
//! that has nobody to lead, would be woken fifty times a second for nothing. So the ticks are off, but for the pulses of
//! [`crate::fallback`], and this task asks for the heartbeats while there is somebody to hear them.

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use tokio::time::MissedTickBehavior;

use crate::timing::Timing;
use crate::type_config::{Raft, TypeConfig};

/// See the module.
pub(crate) struct Heartbeat {
    pub(crate) raft: Raft,
    pub(crate) timing: Timing,
}

impl Heartbeat {
    /// Ends when openraft does. openraft itself leaves out what must not be sent: while it hands over, or has no quorum.
    pub(crate) async fn run(self) {
        let mut server = self.raft.server_metrics();
        let mut beats = tokio::time::interval(self.timing.heartbeat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while server.wait_until(leads_others).await.is_ok() {
            beats.tick().await;
            if self.raft.trigger().heartbeat().await.is_err() {
                return;
            }
        }
    }
}

fn leads_others(server: &RaftServerMetrics<TypeConfig>) -> bool {
    server.state == ServerState::Leader && server.membership_config.nodes().nth(1).is_some()
}
