//! What the sidecars say of themselves: asked in turn by one task, remembered while they answer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use sidecar_util::http::{GroupStatus, StatusBody};
use tokio_util::sync::CancellationToken;

use crate::node::NodeKey;
use crate::resources::pod::HTTP_PORT;

/// A change of role is seen this much later at the most.
const ROUND_INTERVAL: Duration = Duration::from_secs(2);
/// A sidecar answers from memory; one that takes longer is as good as silent.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// Sidecars asked at the same time.
const CONCURRENCY: usize = 32;
/// A sidecar whose answers failed this often in a row counts as silent: one lost answer says nothing.
const FAILURES_MAX: u32 = 2;

struct Known {
    ip: IpAddr,
    answer: Answer,
    failures: u32,
}

/// What a sidecar said last.
#[derive(Debug, Clone, Default)]
pub(crate) enum Answer {
    /// It was not asked yet: the operator or the pod has just started.
    #[default]
    NotAsked,
    /// It does not answer, or there is none.
    Silent,
    /// This.
    Said(Arc<StatusBody>),
}

impl Answer {
    /// What it said, if it answers.
    pub(crate) fn body(&self) -> Option<&StatusBody> {
        match self {
            Self::Said(body) => Some(body),
            Self::NotAsked | Self::Silent => None,
        }
    }
}

/// Called when what a sidecar says has changed.
pub(crate) type OnAnswer = Arc<dyn Fn(&NodeKey) + Send + Sync>;

/// The sidecars of all running pods.
pub(crate) struct Sidecars {
    known: Mutex<HashMap<NodeKey, Known>>,
    http: reqwest::Client,
    on_answer: OnAnswer,
}

impl Sidecars {
    pub(crate) fn new(http: reqwest::Client, on_answer: OnAnswer) -> Self {
        Self { known: Mutex::default(), http, on_answer }
    }

    /// Where a node's sidecar is from now on; `None` when its pod has no address.
    pub(crate) fn locate(&self, key: &NodeKey, ip: Option<IpAddr>) {
        let mut known = self.known.lock();
        match ip {
            None => drop(known.remove(key)),
            Some(ip) if known.get(key).is_some_and(|sidecar| sidecar.ip == ip) => {}
            Some(ip) => drop(known.insert(key.clone(), Known { ip, answer: Answer::NotAsked, failures: 0 })),
        }
    }

    /// The last answer of a node's sidecar.
    pub(crate) fn answer(&self, key: &NodeKey) -> Answer {
        self.known.lock().get(key).map_or(Answer::Silent, |sidecar| sidecar.answer.clone())
    }

    /// Asks every sidecar in turn until told to stop.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut rounds = tokio::time::interval(ROUND_INTERVAL);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(rounds.tick()).await.is_some() {
            let targets: Vec<(NodeKey, IpAddr)> =
                self.known.lock().iter().map(|(key, known)| (key.clone(), known.ip)).collect();
            futures::stream::iter(targets).for_each_concurrent(CONCURRENCY, |(key, ip)| self.ask(key, ip)).await;
        }
    }

    async fn ask(&self, key: NodeKey, ip: IpAddr) {
        let url = format!("http://{}/v1/status", std::net::SocketAddr::new(ip, HTTP_PORT));
        let answer = match self.http.get(url).timeout(ANSWER_DEADLINE).send().await {
            Ok(response) => response.json::<StatusBody>().await.ok(),
            Err(_) => None,
        };
        if self.remember(&key, ip, answer) {
            (self.on_answer)(&key);
        }
    }

    /// Keeps an answer, or forgets the last one after too many failures; tells whether what is known changed in a way that counts.
    fn remember(&self, key: &NodeKey, ip: IpAddr, answer: Option<StatusBody>) -> bool {
        let mut known = self.known.lock();
        let Some(sidecar) = known.get_mut(key).filter(|sidecar| sidecar.ip == ip) else { return false };
        sidecar.failures = if answer.is_some() { 0 } else { sidecar.failures.saturating_add(1) };
        let after = match answer {
            Some(answer) => Answer::Said(Arc::new(answer)),
            None if sidecar.failures < FAILURES_MAX => return false,
            None => Answer::Silent,
        };
        let before = std::mem::replace(&mut sidecar.answer, after);
        match (&before, &sidecar.answer) {
            (Answer::Silent, Answer::Silent) => false,
            (Answer::Said(before), Answer::Said(after)) => digest(before) != digest(after),
            _ => true,
        }
    }
}

/// The part of an answer that conditions and columns are made of.
fn digest(body: &StatusBody) -> impl PartialEq + use<> {
    let group =
        body.group.as_ref().map(|GroupStatus { cluster_id, node_id, role, term, leader, restored_index, .. }| {
            (cluster_id.clone(), *node_id, *role, *term, *leader, *restored_index)
        });
    // Without its words, which count blocks and seconds.
    let signer = body.signer.as_ref().map(|signer| (signer.state, signer.reason.clone()));
    (body.version.clone(), body.chain.synced, body.registry.total, group, signer)
}

#[cfg(test)]
mod tests {
    use sidecar_util::http::{SignerState, SignerStatus};

    use super::*;
    use crate::fixtures::{key, status_body};

    #[test]
    fn one_lost_answer_is_forgiven_and_the_second_counts_as_silence() {
        let sidecars = Sidecars::new(reqwest::Client::new(), Arc::new(|_| {}));
        let (key, ip) = (key(), IpAddr::from([10, 0, 0, 1]));
        sidecars.locate(&key, Some(ip));
        assert!(sidecars.remember(&key, ip, Some(status_body())));
        assert!(!sidecars.remember(&key, ip, None), "one lost answer is no news");
        assert!(sidecars.answer(&key).body().is_some());
        assert!(sidecars.remember(&key, ip, None));
        assert!(matches!(sidecars.answer(&key), Answer::Silent));
    }

    #[test]
    fn a_signer_that_stops_is_news_and_what_it_counts_is_not() {
        let sidecars = Sidecars::new(reqwest::Client::new(), Arc::new(|_| {}));
        let (key, ip) = (key(), IpAddr::from([10, 0, 0, 1]));
        sidecars.locate(&key, Some(ip));
        let say = |state: SignerState, reason: &str, detail: &str| {
            let (reason, detail) = (reason.to_owned(), Some(detail.to_owned()));
            let signer = Some(SignerStatus { state, held_since: None, epoch: None, reason, detail });
            sidecars.remember(&key, ip, Some(StatusBody { signer, ..status_body() }))
        };
        assert!(say(SignerState::Waiting, "Settling", "try again in 7 s"));
        assert!(!say(SignerState::Waiting, "Settling", "try again in 5 s"));
        assert!(say(SignerState::Waiting, "HeldByAnother", "by b"));
        assert!(say(SignerState::Held, "Held", ""));
    }

    #[test]
    fn a_new_address_forgets_the_answers_of_the_old_one() {
        let sidecars = Sidecars::new(reqwest::Client::new(), Arc::new(|_| {}));
        let (key, old, new) = (key(), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        sidecars.locate(&key, Some(old));
        sidecars.remember(&key, old, Some(status_body()));
        sidecars.locate(&key, Some(new));
        assert!(matches!(sidecars.answer(&key), Answer::NotAsked));
        assert!(!sidecars.remember(&key, old, Some(status_body())), "an answer that came late is of the old pod");
    }
}
