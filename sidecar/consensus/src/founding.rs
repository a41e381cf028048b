//! How a group begins: one member, once.
//!
//! Two groups under one name are worse than none, so a member founds only if it is the one named for it, the group was
//! never seen to exist, its own disk is empty, and no member that answers holds the group already. Members that do not
//! answer are asked again for a while. Each founding has a random incarnation, kept on the disks of all who join: should a
//! founder lose its disk before its founding was noted, its second group can never mix with the first.
//!
//! Everybody else waits until the leader adds it.

use std::sync::Arc;

use futures::future::join_all;
use sidecar_util::config::{GroupConfig, Member};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::disk::random_id;
use crate::network::Link;
use crate::type_config::{PeerNode, Raft};
use crate::wire::Hello;

/// See the module.
pub(crate) struct Founder {
    pub(crate) raft: Raft,
    pub(crate) link: Arc<Link>,
    pub(crate) group: watch::Receiver<GroupConfig>,
}

/// What the members that were asked about the group said together.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// Somebody holds it.
    Exists,
    /// Everybody answered, and nobody holds it.
    Nobody,
    /// Nobody who answered holds it; so many did not answer.
    Unsure(usize),
}

impl Founder {
    /// Ends when this member is part of the group.
    pub(crate) async fn run(mut self) {
        let mut asking_since = None;
        while let Ok(false) = self.raft.is_initialized().await {
            let group = self.group.borrow_and_update().clone();
            if self.may_found(&group) {
                let since = *asking_since.get_or_insert_with(Instant::now);
                self.ask_and_found(&group, since).await;
            } else {
                asking_since = None;
            }
            tokio::select! {
                Ok(()) = self.group.changed() => {}
                () = tokio::time::sleep(self.link.timing.steward_interval()) => {}
            }
        }
    }

    fn may_found(&self, group: &GroupConfig) -> bool {
        let me = self.link.disk.identity();
        let is_named = group.founder == me.hotkey && !group.founded;
        // A disk that was bound by a leader's log belongs to that group, even if no entry got as far as the disk.
        is_named && (me.incarnation == 0 || me.founder)
    }

    async fn ask_and_found(&self, group: &GroupConfig, since: Instant) {
        let me = self.link.disk.identity().hotkey;
        let others: Vec<&Member> = group.members.iter().filter(|member| member.hotkey != me).collect();
        let answers = join_all(others.iter().map(|member| self.link.hello(member))).await;
        match judge(&answers) {
            Answer::Exists => tracing::info!("the group exists already: waiting to be added"),
            Answer::Nobody => self.found(group).await,
            Answer::Unsure(silent) if since.elapsed() >= self.link.timing.founding_patience() => {
                tracing::warn!(silent, "founding the group although some members do not answer");
                self.found(group).await;
            }
            Answer::Unsure(silent) => tracing::debug!(silent, "asking again before founding the group"),
        }
    }

    async fn found(&self, group: &GroupConfig) {
        let known = self.link.disk.identity();
        let incarnation = if known.incarnation == 0 { random_id() } else { known.incarnation };
        match self.link.disk.bind(incarnation, true).await {
            Ok(true) => {}
            // A leader's log came first.
            Ok(false) => return,
            Err(error) => {
                tracing::error!(%error, "the founding cannot be written down");
                return;
            }
        }
        let listed = group.members.iter().find(|member| member.hotkey == known.hotkey);
        let address = listed.map_or_else(String::new, |member| member.address.clone());
        let node = PeerNode { hotkey: known.hotkey, address };
        match self.raft.initialize(std::collections::BTreeMap::from([(known.node_id, node)])).await {
            Ok(()) => {
                tracing::info!(cluster_id = %known.cluster_id, node_id = known.node_id, "group founded");
                // The only voter needs nobody's leave, and no lease is to be waited for.
                let _ = self.raft.trigger().elect(false).await;
            }
            Err(error) => tracing::info!(%error, "the group was not founded"),
        }
    }
}

fn judge(answers: &[Option<Hello>]) -> Answer {
    let silent = answers.iter().filter(|answer| answer.is_none()).count();
    let holds = |hello: &Hello| hello.initialized || hello.incarnation != 0;
    if answers.iter().flatten().any(holds) {
        Answer::Exists
    } else if silent == 0 {
        Answer::Nobody
    } else {
        Answer::Unsure(silent)
    }
}

#[cfg(test)]
mod tests {
    use sidecar_util::Hotkey;
    use sidecar_util::config::TimingProfile;

    use super::*;

    fn hello(incarnation: u64, initialized: bool) -> Hello {
        let hotkey = Hotkey::from([1; 32]);
        Hello { hotkey, node_id: 1, incarnation, initialized, timing: TimingProfile::Test }
    }

    #[test]
    fn one_member_that_holds_the_group_outweighs_all_others() {
        assert_eq!(judge(&[Some(hello(0, false)), None, Some(hello(7, true))]), Answer::Exists);
        assert_eq!(judge(&[Some(hello(7, false))]), Answer::Exists, "bound, its first entry not yet written");
        assert_eq!(judge(&[Some(hello(0, false)), None]), Answer::Unsure(1));
        assert_eq!(judge(&[Some(hello(0, false))]), Answer::Nobody);
        assert_eq!(judge(&[]), Answer::Nobody, "a group of one");
    }
}
