//! The admin endpoint: faults, reorgs, upgrades, snapshots and blocks on demand, as JSON over HTTP.
//!
//! It is off unless `--admin` names an address, and only loopback addresses are taken: whoever reaches it rules the
//! chain. Requests from web pages are refused, because every page in a browser on this machine can reach loopback.
//!
//! | request | does |
//! |---|---|
//! | `GET /faults` | lists the faults that are on |
//! | `PUT /faults` with a [`Fault`] | switches one on |
//! | `DELETE /faults`, `DELETE /faults/{kind}` | switches all or one off |
//! | `POST /reorg` with `{"blocks": 2}` | replaces the newest blocks by a longer fork |
//! | `POST /upgrade` | makes a block that brings a new runtime |
//! | `POST /blocks` with `{"blocks": 10}` | makes blocks at once |
//! | `POST /snapshots`, `GET /snapshots` | takes one, lists them |
//! | `POST /snapshots/{id}/revert` | goes back to one |

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::faults::{Fault, FaultError, FaultKind};
use crate::node::{CommandError, Node};

/// How long requests at hand may take when the endpoint ends.
const GOODBYE: Duration = Duration::from_secs(2);

/// The admin endpoint cannot start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: choose another address with --admin")]
pub struct AdminError {
    /// The address.
    address: SocketAddr,
    /// Why.
    #[source]
    source: std::io::Error,
}

/// A running endpoint.
pub struct AdminServer {
    /// Where it listens.
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl AdminServer {
    /// Ends it once the requests at hand are answered, but waits for no client that is slow to make its request.
    pub async fn stop(self) {
        drop(self.stop);
        let task = self.task.abort_handle();
        match tokio::time::timeout(GOODBYE, self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the admin endpoint panicked"),
            Err(_) => task.abort(),
        }
    }
}

/// Starts the endpoint.
///
/// # Errors
/// [`AdminError`] when the address cannot be used.
pub async fn serve(node: Arc<Node>, address: SocketAddr) -> Result<AdminServer, AdminError> {
    let wrap = |source| AdminError { address, source };
    let listener = TcpListener::bind(address).await.map_err(wrap)?;
    let address = listener.local_addr().map_err(wrap)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, router(node)).with_graceful_shutdown(async {
        // Also when the other end is dropped.
        let _ = stopped.await;
    });
    let task = tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "the admin endpoint ended");
        }
    });
    Ok(AdminServer { address, stop, task })
}

fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route("/faults", get(list_faults).put(set_fault).delete(lift_all))
        .route("/faults/{kind}", delete(lift))
        .route("/reorg", post(reorg))
        .route("/upgrade", post(upgrade))
        .route("/blocks", post(make_blocks))
        .route("/snapshots", get(list_snapshots).post(snapshot))
        .route("/snapshots/{id}/revert", post(revert))
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "there is no such path: GET /faults is one"))
        .method_not_allowed_fallback(async || {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method")
        })
        .layer(from_fn(refuse_web_pages))
        .with_state(node)
}

/// Why a request was not carried out, as `{"error": "..."}`.
struct Refusal {
    status: StatusCode,
    why: String,
}

impl Refusal {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.why }))).into_response()
    }
}

impl From<FaultError> for Refusal {
    fn from(error: FaultError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

impl From<PathRejection> for Refusal {
    fn from(error: PathRejection) -> Self {
        Self::new(StatusCode::NOT_FOUND, error.body_text())
    }
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        let status = match error {
            CommandError::Blocks { .. } => StatusCode::BAD_REQUEST,
            CommandError::UnknownSnapshot { .. } => StatusCode::NOT_FOUND,
            CommandError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, error.to_string())
    }
}

type Reply<V> = Result<Json<V>, Refusal>;

/// A page in a browser always says where it comes from.
async fn refuse_web_pages(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::ORIGIN) {
        return Refusal::new(StatusCode::FORBIDDEN, "requests from web pages are refused").into_response();
    }
    next.run(request).await
}

fn parse<V: DeserializeOwned>(body: &[u8]) -> Result<V, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("body: {error}")))
}

async fn list_faults(State(node): State<Arc<Node>>) -> impl IntoResponse {
    Json(node.faults().list())
}

async fn set_fault(State(node): State<Arc<Node>>, body: Bytes) -> Result<impl IntoResponse, Refusal> {
    let fault: Fault = parse(&body)?;
    tracing::info!(kind = fault.kind().name(), "fault on");
    node.set_fault(fault)?;
    Ok(Json(node.faults().list()))
}

async fn lift_all(State(node): State<Arc<Node>>) -> StatusCode {
    node.lift_faults(None);
    tracing::info!("faults off");
    StatusCode::NO_CONTENT
}

async fn lift(
    State(node): State<Arc<Node>>,
    kind: Result<Path<FaultKind>, PathRejection>,
) -> Result<StatusCode, Refusal> {
    let Path(kind) = kind?;
    if !node.lift_faults(Some(kind)) {
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("the fault `{}` is not on", kind.name())));
    }
    tracing::info!(kind = kind.name(), "fault off");
    Ok(StatusCode::NO_CONTENT)
}

/// How many blocks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Blocks {
    blocks: u32,
}

async fn reorg(State(node): State<Arc<Node>>, body: Bytes) -> Reply<impl Serialize> {
    let Blocks { blocks } = parse(&body)?;
    Ok(Json(node.reorg(blocks).await?))
}

async fn upgrade(State(node): State<Arc<Node>>) -> Reply<impl Serialize> {
    Ok(Json(node.upgrade().await?))
}

async fn make_blocks(State(node): State<Arc<Node>>, body: Bytes) -> Reply<impl Serialize> {
    let Blocks { blocks } = parse(&body)?;
    Ok(Json(node.make_blocks(blocks).await?))
}

async fn list_snapshots(State(node): State<Arc<Node>>) -> Reply<impl Serialize> {
    Ok(Json(node.snapshots().await?))
}

async fn snapshot(State(node): State<Arc<Node>>) -> Reply<impl Serialize> {
    Ok(Json(node.snapshot().await?))
}

async fn revert(State(node): State<Arc<Node>>, id: Result<Path<u32>, PathRejection>) -> Reply<impl Serialize> {
    let Path(id) = id?;
    Ok(Json(node.revert(id).await?))
}
