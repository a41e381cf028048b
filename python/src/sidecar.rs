//! The sidecar's HTTP API on the unix socket of this pod.
//!
//! Every request has a connection of its own: on a unix socket that costs some 50 µs, and nothing has to be noticed when
//! the sidecar restarts.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ETAG, HOST, HeaderValue, IF_NONE_MATCH};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sidecar_util::http::ProblemBody;
use sidecar_util::{Hotkey, Metagraph, NetUid};
use tokio::net::UnixStream;

use crate::convert::{self, NodeFields};
use crate::errors::{bad_value, of_sidecar};
use crate::runtime::wait;

/// Largest answer. A metagraph of 1024 neurons is 0.6 MB.
const RESPONSE_BYTES_MAX: usize = 32 << 20;

/// Path of the metagraph.
const METAGRAPH: &str = "/v1/metagraph";

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SidecarFailure {
    /// Nobody listens.
    #[error("the sidecar's socket `{}` cannot be reached ({cause}): is the sidecar running, and is MYCELIUM_SOCKET right?", socket.display())]
    Unreachable { socket: PathBuf, cause: String },
    /// The connection broke.
    #[error("the sidecar at `{}` broke off ({cause}): it may be restarting, try again", socket.display())]
    Broken { socket: PathBuf, cause: String },
    /// No answer in time.
    #[error("the sidecar at `{}` gave no answer to {path} within {} s", socket.display(), after.as_secs_f64())]
    Timeout { socket: PathBuf, path: String, after: Duration },
    /// The sidecar says what is wrong.
    #[error("{detail}")]
    Problem { status: u16, kind: Option<String>, detail: String },
    /// A metagraph that cannot be read.
    #[error("could not decode the sidecar's metagraph ({0}): are sidecar and package of the same version?")]
    Body(Arc<serde_json::Error>),
}

/// The last metagraph. The sidecar names it by a tag and sends it again only when it changed.
struct Held {
    etag: Option<HeaderValue>,
    body: Bytes,
    /// Its nodes, once somebody asked for them.
    nodes: OnceLock<Arc<Nodes>>,
}

struct Nodes {
    netuid: NetUid,
    nodes: Vec<NodeFields>,
}

/// The sidecar of this pod. Threads may share it.
#[pyclass(frozen, module = "mycelium._native")]
pub(crate) struct SidecarClient {
    socket: PathBuf,
    /// For a whole request.
    timeout: Duration,
    metagraph: Mutex<Option<Arc<Held>>>,
}

#[pymethods]
impl SidecarClient {
    /// `timeout` is in seconds and covers a whole request. Does not connect yet.
    #[new]
    fn new(socket: PathBuf, timeout: f64) -> PyResult<Self> {
        let timeout = Duration::try_from_secs_f64(timeout)
            .ok()
            .filter(|timeout| !timeout.is_zero())
            .ok_or_else(|| PyValueError::new_err(format!("timeout: `{timeout}` is not a number of seconds above 0")))?;
        Ok(Self { socket, timeout, metagraph: Mutex::default() })
    }

    /// Path of the socket.
    #[getter]
    fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET /v1/status`
    fn status(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        self.get(py, "/v1/status")
    }

    /// `GET /v1/validators`
    fn validators(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        self.get(py, "/v1/validators")
    }

    /// `GET /v1/validators/{hotkey}/verify`
    fn verify(&self, py: Python<'_>, hotkey: &str) -> PyResult<Vec<u8>> {
        let hotkey: Hotkey = hotkey.parse().map_err(|error| bad_value(&error))?;
        self.get(py, &format!("/v1/validators/{hotkey}/verify"))
    }

    /// `GET /v1/metagraph`
    fn metagraph(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        let held = wait(py, || self.read_metagraph())?.map_err(|failure| of_sidecar(py, &failure))?;
        Ok(held.body.to_vec())
    }

    /// Every neuron of the sidecar's subnet; `None` when it is not the subnet asked for.
    fn nodes(&self, py: Python<'_>, netuid: u16) -> PyResult<Option<Vec<NodeFields>>> {
        let nodes = wait(py, || self.read_nodes())?.map_err(|failure| of_sidecar(py, &failure))?;
        Ok((nodes.netuid == NetUid(netuid)).then(|| nodes.nodes.clone()))
    }
}

/// What came back.
struct Reply {
    etag: Option<HeaderValue>,
    /// `None` when the caller's copy is still good.
    body: Option<Bytes>,
}

impl SidecarClient {
    fn get(&self, py: Python<'_>, path: &str) -> PyResult<Vec<u8>> {
        let reply = wait(py, || self.request(path, None))?.map_err(|failure| of_sidecar(py, &failure))?;
        Ok(reply.body.unwrap_or_default().into())
    }

    async fn read_nodes(&self) -> Result<Arc<Nodes>, SidecarFailure> {
        let held = self.read_metagraph().await?;
        if let Some(nodes) = held.nodes.get() {
            return Ok(nodes.clone());
        }
        let metagraph: Metagraph =
            serde_json::from_slice(&held.body).map_err(|error| SidecarFailure::Body(error.into()))?;
        let nodes = Nodes { netuid: metagraph.netuid, nodes: convert::nodes(&metagraph) };
        Ok(held.nodes.get_or_init(|| nodes.into()).clone())
    }

    async fn read_metagraph(&self) -> Result<Arc<Held>, SidecarFailure> {
        let known = self.metagraph.lock().clone();
        let reply = self.request(METAGRAPH, known.as_ref().and_then(|held| held.etag.as_ref())).await?;
        if let (Some(known), None) = (known, &reply.body) {
            return Ok(known);
        }
        let held = Arc::new(Held { etag: reply.etag, body: reply.body.unwrap_or_default(), nodes: OnceLock::new() });
        *self.metagraph.lock() = Some(held.clone());
        Ok(held)
    }

    async fn request(&self, path: &str, known: Option<&HeaderValue>) -> Result<Reply, SidecarFailure> {
        match tokio::time::timeout(self.timeout, self.exchange(path, known)).await {
            Ok(reply) => reply,
            Err(_) => {
                Err(SidecarFailure::Timeout { socket: self.socket.clone(), path: path.to_owned(), after: self.timeout })
            }
        }
    }

    async fn exchange(&self, path: &str, known: Option<&HeaderValue>) -> Result<Reply, SidecarFailure> {
        let broken = |cause: &dyn std::fmt::Display| SidecarFailure::Broken {
            socket: self.socket.clone(),
            cause: cause.to_string(),
        };
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|cause| SidecarFailure::Unreachable { socket: self.socket.clone(), cause: cause.to_string() })?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| broken(&error))?;
        let mut request = Request::get(path).header(HOST, "sidecar");
        if let Some(etag) = known {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| broken(&error))?;
        let mut answer = pin!(async {
            let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, RESPONSE_BYTES_MAX).collect().await.map_err(|error| broken(&error))?;
            Ok::<_, SidecarFailure>((head, body.to_bytes()))
        });
        let (head, body) = tokio::select! {
            answer = &mut answer => answer,
            // It ended before the answer was taken: what it read is still there.
            _ = connection => answer.await,
        }?;
        match head.status {
            StatusCode::NOT_MODIFIED => Ok(Reply { etag: None, body: None }),
            status if status.is_success() => Ok(Reply { etag: head.headers.get(ETAG).cloned(), body: Some(body) }),
            status => Err(problem(status, &body)),
        }
    }
}

fn problem(status: StatusCode, body: &[u8]) -> SidecarFailure {
    let status = status.as_u16();
    match serde_json::from_slice::<ProblemBody>(body) {
        Ok(problem) => SidecarFailure::Problem { status, kind: Some(problem.kind), detail: problem.detail },
        Err(_) => SidecarFailure::Problem {
            status,
            kind: None,
            detail: format!("the sidecar answered with HTTP status {status} and no explanation"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_keep_the_sidecars_words() {
        let body =
            br#"{"type": "urn:mycelium:chain-unavailable", "title": "t", "status": 503, "detail": "NoNewBlock: it"}"#;
        let failure = problem(StatusCode::SERVICE_UNAVAILABLE, body);
        assert_eq!(failure.to_string(), "NoNewBlock: it");
        let SidecarFailure::Problem { status: 503, kind: Some(kind), .. } = failure else { panic!("{failure:?}") };
        assert_eq!(kind, "urn:mycelium:chain-unavailable");
    }

    #[test]
    fn an_answer_that_is_no_problem_body_is_named_by_its_status() {
        let failure = problem(StatusCode::BAD_GATEWAY, b"<html>");
        assert!(matches!(failure, SidecarFailure::Problem { status: 502, kind: None, .. }), "{failure:?}");
        assert!(failure.to_string().contains("HTTP status 502"), "{failure}");
    }
}
