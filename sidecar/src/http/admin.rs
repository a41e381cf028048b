//! For the kubelet, for Prometheus, and for tools that read the description of the API.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::reply::Response;

use super::{Problem, Routes, Served, openapi, outcome, typed, with};
use crate::app::App;

/// Body of `/healthz` and `/readyz` when all is well.
#[derive(Serialize, ToSchema)]
pub(crate) struct StateBody {
    /// `alive` or `ready`.
    status: &'static str,
}

/// `GET /healthz`, `/readyz`, `/metrics`, `/v1/openapi.json`.
pub(crate) fn routes(app: &Arc<App>) -> Vec<Served> {
    let get = || warp::get().and(with(app));
    vec![
        ("/healthz", warp::get().map(healthz).boxed()),
        ("/readyz", get().map(|app: Arc<App>| readyz(&app)).boxed()),
        ("/metrics", get().map(|app: Arc<App>| metrics(&app)).boxed()),
        ("/v1/openapi.json", described()),
    ]
}

fn described() -> Routes {
    // Made once: it is the same for the life of the process.
    let body = Bytes::from_static(openapi::DOCUMENT.as_bytes());
    warp::get().map(move || openapi(&body)).boxed()
}

/// Whether the process is alive
#[utoipa::path(get, path = "/healthz", tag = "process", responses((status = 200, description = "It is", body = StateBody)))]
pub(crate) fn healthz() -> Response {
    outcome(Ok(StateBody { status: "alive" }))
}

/// Whether this sidecar can serve
///
/// It can once the chain was read and nothing about its configuration is wrong. A chain that is down later does not count.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "process",
    responses(
        (status = 200, description = "It can", body = StateBody),
        (status = 503, description = "`urn:mycelium:not-ready`: not yet, or not with this configuration"),
    )
)]
pub(crate) fn readyz(app: &App) -> Response {
    outcome(match app.not_ready() {
        None => Ok(StateBody { status: "ready" }),
        Some(problem) => Err(Problem::NotReady(problem)),
    })
}

/// Metrics in the format of `OpenMetrics`
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "process",
    responses((status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text"))
)]
pub(crate) fn metrics(app: &App) -> Response {
    match app.metrics.render() {
        Ok(text) => typed(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text),
        Err(error) => Problem::Internal(error.to_string()).into_response(),
    }
}

/// This description
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    tag = "process",
    responses((status = 200, description = "The description of this API", body = serde_json::Value))
)]
pub(crate) fn openapi(body: &Bytes) -> Response {
    typed(StatusCode::OK, "application/json", body.clone())
}
