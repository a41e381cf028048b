//! `GET /v1/watch`: changes as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use http::{HeaderMap, HeaderValue, header};
use warp::Filter;
use warp::reply::{Reply as _, Response};

use super::{Problem, Served, with};
use crate::app::App;
use crate::watch::{WATCHERS_MAX, Watcher};

/// A comment is sent when nothing happened for so long: proxies end streams that are silent for a minute, and whoever is gone
/// without a word is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// `GET /v1/watch`.
pub(crate) fn routes(app: &Arc<App>) -> Vec<Served> {
    let get = warp::get().and(with(app)).and(warp::header::headers_cloned());
    vec![("/v1/watch", get.map(|app: Arc<App>, headers: HeaderMap| watch(&app, &headers)).boxed())]
}

/// Changes of the registry and new metagraphs, as they happen
///
/// Server-sent events. The first is a `snapshot` of the whole registry (data: `WatchSnapshot`), followed by `registry` for
/// every entry that changes (`WatchChange`) and `metagraph` for every new block (`WatchBlock`). With `last-event-id` those
/// that were missed come instead of the snapshot, while they are remembered. Who reads too slowly gets a new snapshot.
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
    let Some(watcher) = app.watch.subscribe(&app.registry, seen) else {
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
