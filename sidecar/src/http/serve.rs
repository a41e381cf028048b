//! Serves the API on a listener, within limits: who is slow or many must not keep the others from being answered.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::signer::Caller;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{debug, warn};
use warp::filters::BoxedFilter;
use warp::reply::Response;

/// Connections at the same time on one listener.
const CONNECTIONS_MAX: usize = 1024;

/// Time for the head of a request, the wait for the next one on a kept connection included.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// Largest head of a request, and what is read ahead of its body.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Time for requests under way when the process ends.
const GRACE: Duration = Duration::from_secs(5);

/// Pause after the listener failed to accept, which it does while there are no free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A stream of a client that may be known to the kernel.
pub(crate) trait ClientStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// The process at the other end.
    fn caller(&self) -> Option<Caller>;
}

impl ClientStream for TcpStream {
    fn caller(&self) -> Option<Caller> {
        None
    }
}

impl ClientStream for UnixStream {
    fn caller(&self) -> Option<Caller> {
        let peer = self.peer_cred().ok()?;
        Some(Caller { uid: peer.uid(), pid: peer.pid() })
    }
}

/// Serves until `stop`, then lets requests that are under way finish.
pub(crate) async fn serve<I, S>(incoming: S, api: BoxedFilter<(Response,)>, stop: CancellationToken)
where
    I: ClientStream,
    S: Stream<Item = io::Result<I>> + Send,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(HEAD_BYTES_MAX);
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    tokio::pin!(incoming);
    loop {
        let next = async {
            let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            Some((permit, incoming.next().await?))
        };
        let (permit, stream) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => match next {
                None => break,
                Some((_, Err(error))) => {
                    warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
                Some((permit, Ok(stream))) => (permit, stream),
            },
        };
        let caller = stream.caller();
        let service = warp::service(api.clone()).map_request(move |mut request: http::Request<Incoming>| {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            request
        });
        let service = TowerToHyperService::new(service);
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service));
        // `graceful` awaits it.
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = connection.await {
                debug!(%error, "connection ended badly");
            }
        });
    }
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        warn!("requests were cut off at the end");
    }
}
