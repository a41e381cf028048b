//! Changes of the registry and new metagraphs, for everybody who watches.
//!
//! Each change is numbered and encoded once. A watcher that comes back with the number of the last change it saw gets those
//! it missed while they are remembered; everybody else, and whoever is too slow, gets the whole registry anew. So nobody
//! misses anything, and the memory does not depend on how slow a watcher is: all share one queue of a bounded length.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use sidecar_peer::{Change, Entry, Event, Registry};
use sidecar_util::http::{EntryBody, NodeKind, WatchBlock, WatchChange, WatchSnapshot};
use sidecar_util::{BlockHash, Metagraph};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

/// Changes that are remembered: every entry of a subnet of today once. Some 400 bytes each.
const REMEMBERED: usize = 1024;

/// Watchers at the same time: a few processes of a pod and of its operators.
pub(crate) const WATCHERS_MAX: usize = 64;

/// Where the channel is cut into pieces of one change each.
#[derive(Debug, Clone)]
struct Numbered {
    sequence: u64,
    /// As it is sent.
    frame: Bytes,
}

/// The source of all changes.
pub(crate) struct Watch {
    state: Mutex<State>,
    changes: broadcast::Sender<Numbered>,
    watchers: Arc<Semaphore>,
    closed: CancellationToken,
}

struct State {
    /// Number of the last change.
    sequence: u64,
    /// The last changes.
    remembered: VecDeque<Numbered>,
    /// The last metagraph that was told of.
    block_hash: Option<BlockHash>,
}

impl Watch {
    /// Nothing has changed yet.
    pub(crate) fn new() -> Self {
        // Numbers grow over a restart as well, so that none means two changes: by seconds, with room for a million changes in
        // each, and yet below 2^53, above which JSON numbers are not exact.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let state = State { sequence: now << 20, remembered: VecDeque::new(), block_hash: None };
        Self {
            state: Mutex::new(state),
            changes: broadcast::Sender::new(REMEMBERED),
            watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
            closed: CancellationToken::new(),
        }
    }

    /// Number of the last change.
    pub(crate) fn sequence(&self) -> u64 {
        self.state.lock().sequence
    }

    /// Ends every watcher's stream, for the process ends.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// An entry changed. Amounts and addresses alone are no change: they come with the metagraph.
    pub(crate) fn changed(&self, change: &Change, event: Event) {
        let Some(entry) = change.after.as_ref().or(change.before.as_ref()) else { return };
        self.publish("registry", |sequence| WatchChange { sequence, event: event.name().into(), entry: body(entry) });
    }

    /// A metagraph was taken in; tells whether it is another than the last one.
    pub(crate) fn block(&self, metagraph: &Metagraph) -> bool {
        let (block, block_hash) = (metagraph.block, metagraph.block_hash);
        let is_new = self.state.lock().block_hash.replace(block_hash) != Some(block_hash);
        if is_new {
            self.publish("metagraph", |sequence| WatchBlock { sequence, block, block_hash });
        }
        is_new
    }

    fn publish<T: Serialize>(&self, event: &str, data: impl FnOnce(u64) -> T) {
        let mut state = self.state.lock();
        state.sequence += 1;
        let sequence = state.sequence;
        let numbered = Numbered { sequence, frame: frame(event, sequence, &data(sequence)) };
        if state.remembered.len() == REMEMBERED {
            state.remembered.pop_front();
        }
        state.remembered.push_back(numbered.clone());
        // Nobody watching is no error. Sent under the lock, so that a watcher finds each change in the one place or the other.
        let _ = self.changes.send(numbered);
    }

    /// A watcher that saw everything up to `seen`; `None` when there are too many.
    pub(crate) fn subscribe(&self, registry: &Arc<Registry>, seen: Option<u64>) -> Option<Watcher> {
        let permit = self.watchers.clone().try_acquire_owned().ok()?;
        let state = self.state.lock();
        let changes = self.changes.subscribe();
        // All that came after `seen` are remembered when the first remembered one is not later than the next one.
        let first = state.remembered.front().map_or(state.sequence + 1, |first| first.sequence);
        let resumed = seen.filter(|seen| (first - 1..=state.sequence).contains(seen));
        let missed = resumed.map(|seen| state.remembered.iter().filter(|one| one.sequence > seen).cloned().collect());
        Some(Watcher {
            registry: registry.clone(),
            sequence: resumed.unwrap_or(state.sequence),
            needs_snapshot: missed.is_none(),
            missed: missed.unwrap_or_default(),
            changes,
            closed: self.closed.clone(),
            _permit: permit,
        })
    }
}

/// One who watches.
pub(crate) struct Watcher {
    registry: Arc<Registry>,
    /// The last change that was given out.
    sequence: u64,
    needs_snapshot: bool,
    missed: VecDeque<Numbered>,
    changes: broadcast::Receiver<Numbered>,
    closed: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    /// What is to be sent next; `None` at the end.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.needs_snapshot {
                self.needs_snapshot = false;
                return Some(self.snapshot());
            }
            let next = if let Some(next) = self.missed.pop_front() {
                next
            } else {
                let received = tokio::select! {
                    () = self.closed.cancelled() => return None,
                    received = self.changes.recv() => received,
                };
                match received {
                    Ok(next) => next,
                    Err(RecvError::Closed) => return None,
                    Err(RecvError::Lagged(_)) => {
                        // What is still in the queue is in the snapshot as well, and the queue begins anew behind it.
                        self.changes = self.changes.resubscribe();
                        self.needs_snapshot = true;
                        continue;
                    }
                }
            };
            if next.sequence > self.sequence {
                self.sequence = next.sequence;
                return Some(next.frame);
            }
        }
    }

    /// Everything. Changes that came since `sequence` may be in it already: they are sent again, which changes nothing.
    fn snapshot(&mut self) -> Bytes {
        let mut entries = vec![];
        let mut block = None;
        for kind in [NodeKind::Validator, NodeKind::Miner] {
            let (at, listed) = self.registry.list(kind);
            block = at;
            entries.extend(listed.iter().map(body));
        }
        frame("snapshot", self.sequence, &WatchSnapshot { sequence: self.sequence, block, entries })
    }
}

fn body(entry: &Entry) -> EntryBody {
    EntryBody {
        hotkey: entry.hotkey,
        kind: entry.kind,
        uid: entry.uid,
        state: entry.state,
        reason: entry.reason.to_owned(),
        stake: entry.stake,
        validator_permit: entry.validator_permit,
        block: entry.block,
    }
}

/// One event as server-sent events are written. JSON has no line breaks of its own.
fn frame<T: Serialize>(event: &str, sequence: u64, data: &T) -> Bytes {
    let data = serde_json::to_string(data).expect("strings and numbers always serialize");
    format!("event: {event}\nid: {sequence}\ndata: {data}\n\n").into()
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use sidecar_metagraph::fake::{head, neuron};
    use sidecar_peer::Rules;
    use sidecar_util::{NetUid, Tao};

    use super::*;

    fn metagraph(block: u64, stakes: &[u64]) -> Metagraph {
        let neurons = stakes.iter().zip(0_u8..);
        Metagraph {
            netuid: NetUid(1),
            block,
            block_hash: head(block).hash,
            tempo: 360,
            last_step: 0,
            blocks_since_last_step: 0,
            neurons: neurons
                .map(|(stake, uid)| neuron(uid.into(), [uid + 1; 32].into(), Tao::from_rao(*stake)))
                .collect(),
        }
    }

    struct Bench {
        registry: Arc<Registry>,
        watch: Watch,
    }

    impl Bench {
        fn new() -> Self {
            Self { registry: Arc::new(Registry::new()), watch: Watch::new() }
        }

        fn apply(&self, metagraph: &Metagraph) {
            let rules = Rules { minimum_stake: Tao::from_rao(100), ..Rules::default() };
            for change in self.registry.apply(metagraph, &rules) {
                if let Some(event) = change.event() {
                    self.watch.changed(&change, event);
                }
            }
            self.watch.block(metagraph);
        }

        fn subscribe(&self, seen: Option<u64>) -> Watcher {
            self.watch.subscribe(&self.registry, seen).unwrap()
        }
    }

    /// Everything that is there to be sent: event, id and data.
    fn drain(watcher: &mut Watcher) -> Vec<(String, u64, serde_json::Value)> {
        let mut events = vec![];
        while let Some(Some(frame)) = watcher.next().now_or_never() {
            let text = String::from_utf8(frame.to_vec()).unwrap();
            let lines: Vec<&str> = text.strip_suffix("\n\n").unwrap().lines().collect();
            let [event, id, data] = lines[..] else { panic!("{text}") };
            events.push((
                event.strip_prefix("event: ").unwrap().to_owned(),
                id.strip_prefix("id: ").unwrap().parse().unwrap(),
                serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap(),
            ));
        }
        events
    }

    #[tokio::test]
    async fn a_new_watcher_gets_everything_and_then_every_change() {
        let bench = Bench::new();
        bench.apply(&metagraph(1, &[500, 50]));
        let mut watcher = bench.subscribe(None);
        let events = drain(&mut watcher);
        assert_eq!((events.len(), events[0].0.as_str(), &events[0].2["block"]), (1, "snapshot", &1.into()));
        assert_eq!(events[0].2["entries"].as_array().unwrap().len(), 2);
        bench.apply(&metagraph(2, &[50, 50]));
        let events = drain(&mut watcher);
        let names: Vec<&str> = events.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["registry", "metagraph"]);
        assert_eq!(
            (&events[0].2["event"], &events[0].2["entry"]["state"]),
            (&"deactivated".into(), &"below_stake".into())
        );
        assert!(events[0].1 < events[1].1, "numbers grow");
        // The same block again is no change, nor are amounts that change no standing.
        bench.apply(&metagraph(2, &[50, 50]));
        bench.apply(&metagraph(3, &[51, 50]));
        assert_eq!(drain(&mut watcher).len(), 1);
    }

    #[tokio::test]
    async fn who_comes_back_gets_what_it_missed_and_who_was_away_too_long_gets_everything() {
        let bench = Bench::new();
        bench.apply(&metagraph(1, &[500]));
        let mut watcher = bench.subscribe(None);
        let seen = drain(&mut watcher).pop().unwrap().1;
        drop(watcher);
        bench.apply(&metagraph(2, &[500]));
        let events = drain(&mut bench.subscribe(Some(seen)));
        assert_eq!((events.len(), &events[0].2["block"]), (1, &2.into()));
        assert!(drain(&mut bench.subscribe(Some(events[0].1))).is_empty(), "nothing was missed");
        for unknown in [0, seen - 100, events[0].1 + 1, u64::MAX] {
            assert_eq!(drain(&mut bench.subscribe(Some(unknown)))[0].0, "snapshot", "{unknown}");
        }
        for block in 0..=REMEMBERED as u64 {
            bench.apply(&metagraph(10 + block, &[500]));
        }
        assert_eq!(drain(&mut bench.subscribe(Some(seen)))[0].0, "snapshot");
    }

    #[tokio::test]
    async fn who_is_too_slow_gets_everything_anew_and_then_goes_on() {
        let bench = Bench::new();
        let mut watcher = bench.subscribe(None);
        drain(&mut watcher);
        for block in 1..=REMEMBERED as u64 + 5 {
            bench.apply(&metagraph(block, &[500]));
        }
        assert_eq!(drain(&mut watcher)[0].0, "snapshot");
        bench.apply(&metagraph(5000, &[500]));
        assert_eq!(drain(&mut watcher).last().unwrap().2["block"], 5000);
    }

    #[tokio::test]
    async fn watchers_are_few_and_end_with_the_process() {
        let bench = Bench::new();
        let mut watchers: Vec<Watcher> = (0..WATCHERS_MAX).map(|_| bench.subscribe(None)).collect();
        assert!(bench.watch.subscribe(&bench.registry, None).is_none());
        watchers.pop();
        let mut watcher = bench.subscribe(None);
        drain(&mut watcher);
        bench.watch.close();
        assert_eq!(watcher.next().await, None);
    }
}
