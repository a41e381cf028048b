//! `GET /v1/watch`: what a watcher of the registry is told, as server-sent events.
//!
//! Numbers, what is remembered, and who gets everything anew are the registry's; an event is encoded for each watcher when it
//! is its turn, so that one that does not read costs nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use sidecar_peer::{Entry, Registry, Watch, WatchEvent};
use sidecar_util::http::{EntryBody, WatchBlock, WatchChange, WatchSnapshot};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use warp::Filter;
use warp::reply::{Reply as _, Response};

use super::{Problem, Served, with};
use crate::app::App;

/// Watchers at the same time: a few processes of a pod and of its operators.
const WATCHERS_MAX: usize = 64;

/// A comment is sent when nothing happened for so long: proxies end streams that are silent for a minute, and whoever is gone
/// without a word is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// All who watch.
pub(crate) struct Watchers {
    /// Places for more.
    free: Arc<Semaphore>,
    closed: CancellationToken,
}

impl Default for Watchers {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(WATCHERS_MAX)), closed: CancellationToken::new() }
    }
}

impl Watchers {
    /// Ends every watcher's stream, for the process ends.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// A watcher that saw everything up to `seen`; `None` when there are too many.
    fn admit(&self, registry: &Arc<Registry>, seen: Option<u64>) -> Option<Watcher> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        Some(Watcher { watch: registry.watch(seen), closed: self.closed.clone(), _permit: permit })
    }
}

/// One who watches.
struct Watcher {
    watch: Watch,
    closed: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    /// What is to be sent next; `None` at the end.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let event = self.closed.run_until_cancelled(self.watch.next()).await?;
            if let Some(frame) = frame(event) {
                return Some(frame);
            }
        }
    }
}

/// An event as it is sent. Amounts and addresses alone are no event to clients: they come with the metagraph.
fn frame(event: WatchEvent) -> Option<Bytes> {
    let sequence = event.seq();
    Some(match event {
        WatchEvent::Snapshot(snapshot) => {
            let entries = snapshot.entries.iter().map(body).collect();
            lines("snapshot", sequence, &WatchSnapshot { sequence, block: snapshot.block, entries })
        }
        WatchEvent::Entry { change, .. } => {
            let event = change.event()?.name().to_owned();
            let entry = body(change.after.as_ref().or(change.before.as_ref())?);
            lines("registry", sequence, &WatchChange { sequence, event, entry })
        }
        WatchEvent::Metagraph { block, block_hash, .. } => {
            lines("metagraph", sequence, &WatchBlock { sequence, block, block_hash })
        }
    })
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
fn lines<T: Serialize>(event: &str, sequence: u64, data: &T) -> Bytes {
    let data = serde_json::to_string(data).expect("strings and numbers always serialize");
    format!("event: {event}\nid: {sequence}\ndata: {data}\n\n").into()
}

/// `GET /v1/watch`.
pub(crate) fn routes(app: &Arc<App>) -> Vec<Served> {
    let get = warp::get().and(with(app)).and(warp::header::headers_cloned());
    vec![("/v1/watch", get.map(|app: Arc<App>, headers: HeaderMap| watch(&app, &headers)).boxed())]
}

/// Changes of the registry and new metagraphs, as they happen
///
/// Server-sent events. The first is a `snapshot` of the whole registry (data: `WatchSnapshot`), followed by `registry` for
/// every entry that changes (`WatchChange`) and `metagraph` for every new block (`WatchBlock`). With `last-event-id` those
/// that were missed come instead of the snapshot, while they are remembered. Who reads too slowly gets a new snapshot, and
/// forgets what it knew before.
#[utoipa::path(
    get,
    path = "/v1/watch",
    tag = "subnet",
    params(("last-event-id" = Option<u64>, Header, description = "`id` of the last event that was seen")),
    responses(
        (status = 200, description = "Events until the client or the sidecar ends", body = String, content_type = "text/event-stream"),
        (status = 503, description = "`urn:mycelium:too-many-watchers`: try again later"),
    )
)]
pub(crate) fn watch(app: &App, headers: &HeaderMap) -> Response {
    // One that cannot be read was not given by us: the snapshot serves whoever sent it as well.
    let seen = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let Some(watcher) = app.watchers.admit(&app.registry, seen) else {
        return Problem::TooManyWatchers { watchers_max: WATCHERS_MAX }.into_response();
    };
    let mut response = warp::reply::stream(events(watcher)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn events(watcher: Watcher) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + Sync {
    stream::unfold(watcher, |mut watcher| async move {
        let frame = match tokio::time::timeout(HEARTBEAT, watcher.next()).await {
            Ok(frame) => frame?,
            Err(_) => Bytes::from_static(b": heartbeat\n\n"),
        };
        Some((Ok(frame), watcher))
    })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use sidecar_metagraph::fake::{head, neuron};
    use sidecar_peer::Rules;
    use sidecar_util::{Metagraph, NetUid, Tao};

    use super::*;

    /// More events than any registry remembers.
    const LONG: u64 = 5_000;

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
        watchers: Watchers,
    }

    impl Bench {
        fn new() -> Self {
            Self { registry: Arc::new(Registry::new()), watchers: Watchers::default() }
        }

        fn apply(&self, metagraph: &Metagraph) {
            let rules = Rules { minimum_stake: Tao::from_rao(100), ..Rules::default() };
            self.registry.apply(metagraph, &rules);
        }

        fn subscribe(&self, seen: Option<u64>) -> Watcher {
            self.watchers.admit(&self.registry, seen).unwrap()
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
        for block in 0..LONG {
            bench.apply(&metagraph(10 + block, &[500]));
        }
        assert_eq!(drain(&mut bench.subscribe(Some(seen)))[0].0, "snapshot");
    }

    #[tokio::test]
    async fn who_is_too_slow_gets_everything_anew_and_then_goes_on() {
        let bench = Bench::new();
        let mut watcher = bench.subscribe(None);
        drain(&mut watcher);
        for block in 1..=LONG {
            bench.apply(&metagraph(block, &[500]));
        }
        let events = drain(&mut watcher);
        assert_eq!((events.len(), events[0].0.as_str()), (1, "snapshot"));
        bench.apply(&metagraph(LONG + 1, &[500]));
        assert_eq!(drain(&mut watcher).last().unwrap().2["block"], LONG + 1);
    }

    #[tokio::test]
    async fn watchers_are_few_and_end_with_the_process() {
        let bench = Bench::new();
        let mut watchers: Vec<Watcher> = (0..WATCHERS_MAX).map(|_| bench.subscribe(None)).collect();
        assert!(bench.watchers.admit(&bench.registry, None).is_none());
        watchers.pop();
        let mut watcher = bench.subscribe(None);
        drain(&mut watcher);
        bench.watchers.close();
        assert_eq!(watcher.next().await, None);
    }
}
