//! The HTTP API: the same on TCP and on the unix socket, but for what only the containers of the pod may ask.
//!
//! `read`, `nodes`, `watch` and `chain` answer what the pod, its peers and the operator ask; `sign` and `requests` sign and
//! verify for the pod alone; `admin` answers the kubelet and Prometheus; `openapi` describes all of it, and is the table by
//! which requests are routed; `reject` is the only place that knows status codes of errors; `serve` keeps connections within
//! limits.
//!
//! A new route is one line in `Api::new`, and its description in the list of `openapi`.

mod admin;
mod ask;
mod body;
mod chain;
mod connections;
mod gzip;
mod nodes;
mod openapi;
mod query;
mod read;
mod recent;
mod reject;
mod requests;
mod sign;
mod watch;

pub(crate) mod serve;

pub(crate) use connections::Refusal;
pub(crate) use recent::Recent;
pub(crate) use watch::Watchers;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use serde::Serialize;
use sidecar_metagraph::ChainProblem;
use sidecar_util::Metagraph;
use tower::ServiceExt as _;
use tracing::Instrument as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Rejection};

use crate::app::App;
use crate::metrics::RouteMetrics;
use crate::telemetry;
use ask::Asked;
use reject::Problem;

/// The description of the API as it is served.
pub(crate) fn description() -> &'static str {
    &openapi::DOCUMENT
}

/// Longest path with its query: a list of 500 uids or of 128 hotkeys fits.
const URI_BYTES_MAX: usize = 8 * 1024;

/// Headers of one request. Browsers and proxies send two dozen.
const HEADERS_MAX: usize = 64;

/// Names and values of all headers.
const HEADER_BYTES_MAX: usize = 8 * 1024;

/// Through which listener a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The network: anybody who reaches the pod.
    Tcp,
    /// The unix socket: the containers of this pod.
    Socket,
}

/// What is served under one path of the description.
type Served = (&'static str, Routes);

/// What handlers of one path are.
type Routes = BoxedFilter<(Response,)>;

/// Filters reject with this only when no route matches.
type Unmatched = Rejection;

/// Everything that is served through one door.
pub(crate) struct Api {
    door: Door,
    /// In the order of the table; `None` is described but not built in, which a test forbids.
    routes: Vec<Option<Route>>,
    /// For everything else.
    unknown: RouteMetrics,
}

struct Route {
    filter: Routes,
    metrics: RouteMetrics,
}

/// Everything that is served.
pub(crate) fn api(app: &Arc<App>, door: Door) -> Arc<Api> {
    Arc::new(Api::new(app, door))
}

impl Api {
    fn new(app: &Arc<App>, door: Door) -> Self {
        let groups = [
            admin::routes(app),
            read::routes(app),
            nodes::routes(app),
            watch::routes(app),
            chain::routes(app),
            requests::routes(app),
            sign::routes(app),
        ];
        let served: Vec<Served> = groups.into_iter().flatten().collect();
        let route = |template: &'static str| {
            let mut filters = served.iter().filter(|(path, _)| *path == template).map(|(_, filter)| filter.clone());
            let first = filters.next()?;
            let filter = filters.fold(first, |all, next| all.or(next).unify().boxed());
            let filter = filter.recover(reject::recover).unify().boxed();
            Some(Route { filter, metrics: app.metrics.route(template) })
        };
        let routes = openapi::TABLE.paths().iter().map(|path| route(path.template)).collect();
        Self { door, routes, unknown: app.metrics.route("other") }
    }

    /// Answers one request.
    pub(crate) async fn answer<B>(&self, request: Request<B>) -> Response
    where
        B: hyper::body::Body + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let started = Instant::now();
        let found = openapi::TABLE.find(request.uri().path());
        let route = found.and_then(|index| self.routes[index].as_ref());
        let metrics = route.map_or(&self.unknown, |route| &route.metrics);
        let response = if telemetry::is_exporting() {
            let template = found.map_or("other", |index| openapi::TABLE.paths()[index].template);
            let span = telemetry::request_span(request.method(), template, request.headers());
            let response = self.handle(request, found, route).instrument(span.clone()).await;
            telemetry::end_request_span(&span, response.status());
            response
        } else {
            self.handle(request, found, route).await
        };
        metrics.answered(response.status().as_u16(), started.elapsed());
        response
    }

    async fn handle<B>(&self, mut request: Request<B>, found: Option<usize>, route: Option<&Route>) -> Response
    where
        B: hyper::body::Body + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Err(problem) = check_size(&request) {
            return problem.into_response();
        }
        let (Some(path), Some(route)) = (found.map(|index| &openapi::TABLE.paths()[index]), route) else {
            return Problem::NotFound.into_response();
        };
        let is_head = request.method() == Method::HEAD;
        let method = if is_head { &Method::GET } else { request.method() };
        if *method == Method::OPTIONS {
            return options(&path.allow());
        }
        match path.serves(method, self.door) {
            openapi::Serves::Yes => {}
            openapi::Serves::OnSocketOnly => return Problem::SocketOnly.into_response(),
            openapi::Serves::No => {
                return Problem::MethodNotAllowed { allow: path.allow() }.into_response();
            }
        }
        let asked = Asked::of(request.uri(), request.headers());
        let gzip = asked.gzip;
        request.extensions_mut().insert(asked);
        if is_head {
            *request.method_mut() = Method::GET;
        }
        let service = warp::service(route.filter.clone());
        let answer = if matches!(*request.method(), Method::POST | Method::PUT) {
            match body::read(request, path.body_bytes_max()).await {
                Ok(request) => service.oneshot(request).await,
                Err(problem) => return problem.into_response(),
            }
        } else {
            service.oneshot(request).await
        };
        let response = answer.unwrap_or_else(|never: Infallible| match never {});
        let response = if gzip { compressed(response).await } else { response };
        if is_head { without_body(response) } else { response }
    }
}

fn check_size<B>(request: &Request<B>) -> Result<(), Problem> {
    let uri = request.uri();
    if uri.path().len() + uri.query().map_or(0, str::len) > URI_BYTES_MAX {
        return Err(Problem::UriTooLong { bytes_max: URI_BYTES_MAX });
    }
    let headers = request.headers();
    let bytes = || headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    if headers.len() > HEADERS_MAX || bytes() > HEADER_BYTES_MAX {
        return Err(Problem::HeadersTooLarge { count_max: HEADERS_MAX, bytes_max: HEADER_BYTES_MAX });
    }
    Ok(())
}

fn options(allow: &str) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// The head of an answer, with the length its body would have.
fn without_body(mut response: Response) -> Response {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    response.map(|_| warp::reply::Response::default().into_body())
}

/// The same answer in gzip, where that is worth it: not for what fits into a packet, nor for a stream that has no end.
async fn compressed(response: Response) -> Response {
    let length = response.body().size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let worth = length.is_some_and(|length| length >= gzip::BYTES_MIN);
    if !worth || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    // A body whose length is known is in memory already.
    let plain = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Problem::Internal(error.to_string()).into_response(),
    };
    let gzipped = if plain.len() <= gzip::BYTES_INLINE_MAX {
        gzip::compress(&plain)
    } else {
        match tokio::task::spawn_blocking(move || gzip::compress(&plain)).await {
            Ok(gzipped) => gzipped,
            Err(error) => return Problem::Internal(error.to_string()).into_response(),
        }
    };
    head.headers.remove(header::CONTENT_LENGTH);
    mark_gzipped(&mut head.headers);
    Response::from_parts(head, gzipped.into())
}

fn mark_gzipped(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
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

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer that the client may hold and ask for again by its tag; the body is made only when it holds another.
fn tagged<T: Serialize>(asked: &Asked, etag: &str, body: impl FnOnce() -> T) -> Response {
    let response = if asked.holds(etag) { not_modified() } else { json(&body()) };
    with_tag(response, etag)
}

fn not_modified() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

fn with_tag(mut response: Response, etag: &str) -> Response {
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(etag) {
        headers.insert(header::ETAG, etag);
    }
    // May be kept, but must be asked for again: the next block changes it.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    response
}

/// The metagraph, or why there is none.
fn held(app: &App) -> Result<Arc<Metagraph>, Problem> {
    let view = app.chain.view();
    view.metagraph.clone().ok_or_else(|| unread(view.problem.as_ref()))
}

/// Nothing was read from the chain yet.
fn unread(problem: Option<&ChainProblem>) -> Problem {
    let problem = problem.cloned().unwrap_or(ChainProblem::Connecting);
    Problem::Chain { reason: problem.reason(), detail: problem.to_string() }
}

#[cfg(test)]
mod tests;
