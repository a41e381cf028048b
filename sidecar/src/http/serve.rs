//! Serves the API on a listener, within limits: who is slow or many must not keep the others from being answered.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderValue, Request, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Api;
use super::connections::{Admitted, Busy, Connections, Limits, Refusal};
use super::reject::{PROBLEM_JSON, Problem};
use crate::metrics::Metrics;
use crate::signer::Caller;

/// Connections at the same time on one listener.
const CONNECTIONS_MAX: usize = 1024;

/// Of these from one address: enough for every client that keeps its connections, and a quarter of all.
const OF_ADDRESS_MAX: usize = 256;

/// Requests on one connection, after which it is closed: whoever goes on finds the way again, perhaps to another pod.
const REQUESTS_MAX: u32 = 10_000;

/// Time for the head of a request, the wait for the next one on a kept connection included.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// Time in which a client takes nothing of what it is sent.
const STALL_DEADLINE: Duration = Duration::from_secs(20);

/// Largest head of a request, and what is read ahead of its body.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Headers that are read at all: a few more than are taken, so that most of those who send too many are told.
const HEADERS_READ_MAX: usize = 100;

/// Time for requests under way when the process ends.
const GRACE: Duration = Duration::from_secs(5);

/// Pause after the listener failed to accept, which it does while there are no free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A stream of one client.
pub(crate) trait ClientStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Where it comes from; `None` within this machine.
    fn address(&self) -> Option<IpAddr>;

    /// The process at the other end, where the kernel knows it.
    fn caller(&self) -> Option<Caller>;
}

impl ClientStream for TcpStream {
    fn address(&self) -> Option<IpAddr> {
        self.peer_addr().ok().map(|address| address.ip())
    }

    fn caller(&self) -> Option<Caller> {
        None
    }
}

impl ClientStream for UnixStream {
    fn caller(&self) -> Option<Caller> {
        let peer = self.peer_cred().ok()?;
        Some(Caller { uid: peer.uid(), pid: peer.pid() })
    }

    fn address(&self) -> Option<IpAddr> {
        None
    }
}

/// Serves until `stop`, then lets requests that are under way finish.
pub(crate) async fn serve<I, S>(incoming: S, api: Arc<Api>, metrics: Arc<Metrics>, stop: CancellationToken)
where
    I: ClientStream,
    S: Stream<Item = io::Result<I>> + Send,
{
    let mut builder = http1::Builder::new();
    // Without `pipeline_flush`: it gathers the answers to all requests that came at once, however large, and a client that
    // sends many and reads nothing would fill the memory.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_READ_MAX);
    let connections = Connections::new(Limits { connections_max: CONNECTIONS_MAX, of_address_max: OF_ADDRESS_MAX });
    let graceful = GracefulShutdown::new();
    tokio::pin!(incoming);
    loop {
        let mut stream = tokio::select! {
            () = stop.cancelled() => break,
            next = incoming.next() => match next {
                None => break,
                Some(Err(error)) => {
                    warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
                Some(Ok(stream)) => stream,
            },
        };
        let admitted = match connections.admit(stream.address()) {
            Ok(admitted) => Arc::new(admitted),
            Err(refusal) => {
                metrics.connection_refused(refusal);
                // The buffer of a new socket is empty: this does not wait, and nobody waits for who does not read.
                let _ = stream.write_all(&farewell(refusal)).now_or_never();
                continue;
            }
        };
        let service = service(api.clone(), admitted.clone(), stream.caller());
        let connection = builder.serve_connection(TokioIo::new(Attended::new(stream)), service_fn(service));
        let connection = graceful.watch(connection);
        // `graceful` awaits it.
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    debug!(%error, "connection ended badly");
                },
                () = admitted.evicted() => debug!("idle connection closed to make room"),
            }
        });
    }
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        warn!("requests were cut off at the end");
    }
}

type Answer = http::Response<Answered>;

/// An answer under way.
type Answering = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

/// What every request of one connection goes through.
fn service(api: Arc<Api>, admitted: Arc<Admitted>, caller: Option<Caller>) -> impl Fn(Request<Incoming>) -> Answering {
    let served = AtomicU32::new(0);
    move |mut request: Request<Incoming>| {
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        let busy = admitted.busy();
        let is_last = served.fetch_add(1, Ordering::Relaxed) + 1 >= REQUESTS_MAX;
        let api = api.clone();
        Box::pin(async move {
            let mut response = api.answer(request).await;
            if is_last {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| Answered { body, _busy: busy }))
        })
    }
}

/// What is said to a connection for which there is no room.
fn farewell(refusal: Refusal) -> Vec<u8> {
    let problem = match refusal {
        Refusal::Full => Problem::TooManyConnections { connections_max: CONNECTIONS_MAX },
        Refusal::AddressFull => Problem::TooManyOfAddress { connections_max: OF_ADDRESS_MAX },
    };
    let (status, body) = problem.into_body();
    let body = serde_json::to_string(&body).expect("strings and a number always serialize");
    let reason = status.canonical_reason().unwrap_or_default();
    format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\nretry-after: 5\r\nconnection: close\r\n\r\n{body}",
        status.as_u16(),
        body.len(),
    )
    .into_bytes()
}

/// The body of an answer. Until it is sent the connection is busy.
struct Answered {
    body: warp_body::WarpBody,
    _busy: Busy,
}

/// The type of warp's bodies, which has no name of its own.
mod warp_body {
    pub(super) trait BodyOf {
        type Body;
    }

    impl<B> BodyOf for http::Response<B> {
        type Body = B;
    }

    pub(super) type WarpBody = <warp::reply::Response as BodyOf>::Body;
}

impl Body for Answered {
    type Data = Bytes;
    type Error = warp::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, warp::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose client has to take what it is sent: one that does not read would keep the answer in memory for ever.
struct Attended<I> {
    stream: I,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<I: Unpin> Attended<I> {
    fn new(stream: I) -> Self {
        Self { stream, stalled: None }
    }

    fn attend<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut I>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(written) = write(Pin::new(&mut self.stream), cx) {
            self.stalled = None;
            return Poll::Ready(written);
        }
        let begin = || Box::pin(tokio::time::sleep_until(Instant::now() + STALL_DEADLINE));
        ready!(self.stalled.get_or_insert_with(begin).as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of what it is sent")))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Attended<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Attended<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().attend(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().attend(cx, |stream, cx| stream.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().attend(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().attend(cx, AsyncWrite::poll_shutdown)
    }
}
