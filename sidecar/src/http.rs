//! The HTTP API: the same filters on TCP and on the unix socket.
//!
//! `read` answers what the pod, its peers and the operator ask; `admin` answers the kubelet and Prometheus; `reject` is the
//! only place that knows status codes of errors.

mod admin;
mod read;
mod reject;
mod sign;

pub(crate) mod serve;

use std::convert::Infallible;
use std::sync::Arc;

use http::{StatusCode, header};
use serde::Serialize;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Rejection};

use crate::app::App;
use reject::Problem;

/// Through which listener a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The network: anybody who reaches the pod.
    Tcp,
    /// The unix socket: the containers of this pod.
    Socket,
}

/// Everything that is served through one door.
pub(crate) fn api(app: &Arc<App>, door: Door) -> BoxedFilter<(Response,)> {
    let metrics = app.metrics.clone();
    let count = warp::log::custom(move |info| metrics.request(route(info.path()), info.status().as_u16()));
    let everywhere = admin::routes(app).or(read::routes(app)).unify().boxed();
    let served = match door {
        Door::Tcp => everywhere,
        Door::Socket => everywhere.or(sign::routes(app)).unify().boxed(),
    };
    served.recover(reject::recover).unify().with(count).map(respond).boxed()
}

fn respond(reply: impl warp::Reply) -> Response {
    reply.into_response()
}

/// A clone of the handles for every request.
fn with(app: &Arc<App>) -> impl Filter<Extract = (Arc<App>,), Error = Infallible> + Clone + use<> {
    let app = app.clone();
    warp::any().map(move || app.clone())
}

/// What a handler's outcome looks like on the wire.
fn outcome<T: Serialize>(outcome: Result<T, Problem>) -> Response {
    match outcome {
        Ok(body) => json(&body),
        Err(problem) => problem.into_response(),
    }
}

fn json<T: Serialize>(body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => typed(StatusCode::OK, "application/json", bytes),
        Err(error) => Problem::Internal(error.to_string()).into_response(),
    }
}

fn typed(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// The route of a path, from a closed set: labels of metrics must not come from strangers.
fn route(path: &str) -> &'static str {
    const ROUTES: [&str; 12] = [
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/status",
        "/v1/metagraph",
        "/v1/validators",
        "/v1/sign",
        "/v1/signer",
        "/v1/signer/acknowledge",
        "/v1/weights",
        "/v1/axon",
        "/v1/commitments",
    ];
    let known = ROUTES.into_iter().find(|route| *route == path);
    let verify = path.starts_with("/v1/validators/") && path.ends_with("/verify");
    known.unwrap_or(if verify { "/v1/validators/{hotkey}/verify" } else { "other" })
}

/// What every group of routes is.
type Routes = BoxedFilter<(Response,)>;

/// Filters reject with this only when no route matches.
type Unmatched = Rejection;

#[cfg(test)]
mod tests;
