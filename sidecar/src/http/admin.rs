//! For the kubelet and for Prometheus.

use std::sync::Arc;

use serde::Serialize;
use warp::Filter;

use super::{Problem, Routes, outcome, typed, with};
use crate::app::App;

/// Body of `/healthz` and `/readyz` when all is well.
#[derive(Serialize)]
struct StateBody {
    status: &'static str,
}

/// `GET /healthz`, `/readyz`, `/metrics`.
pub(crate) fn routes(app: &Arc<App>) -> Routes {
    let healthz = warp::path!("healthz").and(warp::get()).map(|| outcome(Ok(StateBody { status: "alive" })));
    let readyz = warp::path!("readyz").and(warp::get()).and(with(app)).map(|app: Arc<App>| {
        outcome(match app.not_ready() {
            None => Ok(StateBody { status: "ready" }),
            Some(problem) => Err(Problem::NotReady(problem)),
        })
    });
    let metrics =
        warp::path!("metrics").and(warp::get()).and(with(app)).map(|app: Arc<App>| match app.metrics.render() {
            Ok(text) => typed(
                http::StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                text.into_bytes(),
            ),
            Err(error) => Problem::Internal(error.to_string()).into_response(),
        });
    healthz.or(readyz).unify().or(metrics).unify().boxed()
}
