//! Frames between members over gRPC: a server that knows who calls, and a client that finds a member again when its
//! address moved.
//!
//! The frames are opaque: what is in them belongs to the consensus crate, which versions them itself. So there is no
//! protobuf here, only gRPC's framing, multiplexing, deadlines and flow control over our own TLS.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes};
use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use sidecar_consensus::{FRAME_BYTES_MAX, Lane, PeerReply, PeerRequest, PeerTransport, TransportError};
use sidecar_util::Hotkey;
use sidecar_util::config::Member;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::{TlsAcceptor, TlsConnector, server};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::UnaryService;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tracing::{debug, warn};

use crate::peer_tls::PeerTls;

/// A consensus frame and its answer.
const CALL_PATH: &str = "/mycelium.peer.v1.Peer/Call";

/// Empty, and the answer is empty: a sign of life.
const PING_PATH: &str = "/mycelium.peer.v1.Peer/Ping";

/// TLS handshakes at the same time. A group has a few dozen members at most; the rest of the world may wait.
const HANDSHAKES_MAX: usize = 32;

/// Time for one handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Calls of one member at the same time: openraft sends one append, one snapshot chunk and a few votes at once.
const STREAMS_MAX: u32 = 64;

/// A silent connection is asked this often whether it is still there, and given up when nothing comes in this time again.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// Calls in a row that may time out before the connection is made anew. One may just have been slow.
const TIMEOUTS_MAX: u32 = 2;

/// Pause after the listener failed to accept, which it does while there are no free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers the calls of members.
#[async_trait]
pub(crate) trait PeerHandler: Send + Sync + 'static {
    /// Answers a frame. `from` was proved by the connection's certificate.
    async fn call(&self, frame: Bytes, from: Hotkey) -> Result<Bytes, Status>;

    /// A member gave a sign of life.
    fn heard_from(&self, from: Hotkey);
}

/// Serves members until `stop`, then lets calls that are under way finish.
///
/// # Errors
/// When the TLS side cannot be set up.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: PeerTls,
    handler: Arc<dyn PeerHandler>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls.server()?));
    let (secured, incoming) = mpsc::channel(HANDSHAKES_MAX);
    let accepting = accept(listener, acceptor, tls, secured, stop.clone());
    let serving = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .serve_with_incoming_shutdown(
            PeerService { handler },
            ReceiverStream::new(incoming).map(Ok::<_, io::Error>),
            stop.cancelled_owned(),
        );
    let ((), served) = tokio::join!(accepting, serving);
    Ok(served?)
}

/// Accepts connections and lets those through whose handshake proves a member.
async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    tls: PeerTls,
    secured: mpsc::Sender<PeerConnection>,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = async {
                let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
                (permit, listener.accept().await)
            } => accepted,
        };
        let (permit, stream) = match accepted {
            (permit, Ok((stream, _))) => (permit, stream),
            (_, Err(error)) => {
                warn!(%error, "could not accept a peer connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, tls, secured) = (acceptor.clone(), tls.clone(), secured.clone());
        // Ends by its deadline at the latest, and holds nothing that anybody waits for.
        tokio::spawn(async move {
            let _permit = permit;
            let address = stream.peer_addr();
            match tokio::time::timeout(HANDSHAKE_DEADLINE, secure(&acceptor, &tls, stream)).await {
                Ok(Ok(connection)) => drop(secured.send(connection).await),
                Ok(Err(error)) => debug!(?address, %error, "peer connection refused"),
                Err(_) => debug!(?address, "peer connection gave no handshake in time"),
            }
        });
    }
}

async fn secure(acceptor: &TlsAcceptor, tls: &PeerTls, stream: TcpStream) -> io::Result<PeerConnection> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let peer = tls.peer(stream.get_ref().1.peer_certificates()).map_err(io::Error::other)?;
    Ok(PeerConnection { stream, peer })
}

/// A connection whose other end is known.
struct PeerConnection {
    stream: server::TlsStream<TcpStream>,
    peer: Hotkey,
}

/// Who calls, as every request carries it.
#[derive(Debug, Clone, Copy)]
struct Caller(Hotkey);

impl Connected for PeerConnection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller(self.peer)
    }
}

impl AsyncRead for PeerConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The service as tonic's generated code would have it.
#[derive(Clone)]
struct PeerService {
    handler: Arc<dyn PeerHandler>,
}

impl tower::Service<http::Request<Body>> for PeerService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = match request.uri().path() {
            CALL_PATH => Method::Call,
            PING_PATH => Method::Ping,
            path => {
                let status = Status::unimplemented(format!("no method `{path}`: run the same release on all members"));
                return Box::pin(std::future::ready(Ok(status.into_http())));
            }
        };
        let unary = Unary { handler: self.handler.clone(), method };
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(FrameCodec)
                .apply_max_message_size_config(Some(FRAME_BYTES_MAX), Some(FRAME_BYTES_MAX));
            Ok(grpc.unary(unary, request).await)
        })
    }
}

#[derive(Clone, Copy)]
enum Method {
    Call,
    Ping,
}

struct Unary {
    handler: Arc<dyn PeerHandler>,
    method: Method,
}

impl UnaryService<Bytes> for Unary {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (handler, method) = (self.handler.clone(), self.method);
        Box::pin(async move {
            let caller = request.extensions().get::<Caller>().copied();
            let Caller(from) = caller.ok_or_else(|| Status::unauthenticated("the connection proves no hotkey"))?;
            handler.heard_from(from);
            match method {
                Method::Ping => Ok(Response::new(Bytes::new())),
                Method::Call => handler.call(request.into_inner(), from).await.map(Response::new),
            }
        })
    }
}

/// A message is its bytes.
#[derive(Debug, Clone, Copy, Default)]
struct FrameCodec;

impl Codec for FrameCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for FrameCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, frame: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(frame);
        Ok(())
    }
}

impl Decoder for FrameCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Calls members, over connections that are kept.
#[derive(Debug)]
pub(crate) struct PeerClient {
    tls: PeerTls,
    connections: Mutex<HashMap<(Hotkey, Lane), Connection>>,
}

/// Connections are made when they are first used, and again after they broke; each time the address is looked up anew.
#[derive(Debug, Clone)]
struct Connection {
    address: String,
    channel: Channel,
    /// Calls in a row that timed out.
    timeouts: u32,
}

impl PeerClient {
    /// A client without connections.
    pub(crate) fn new(tls: PeerTls) -> Self {
        Self { tls, connections: Mutex::default() }
    }

    /// Asks a member for a sign of life.
    pub(crate) async fn ping(&self, peer: &Member, timeout: Duration) -> Result<(), TransportError> {
        self.unary(peer, Lane::Control, PING_PATH, Bytes::new(), timeout).await.map(drop)
    }

    /// Forgets connections to whoever is not in the list.
    pub(crate) fn retain(&self, members: &[Member]) {
        self.connections.lock().retain(|(hotkey, _), _| members.iter().any(|member| member.hotkey == *hotkey));
    }

    async fn unary(
        &self,
        peer: &Member,
        lane: Lane,
        path: &'static str,
        frame: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        let address = &peer.address;
        if frame.len() > FRAME_BYTES_MAX {
            // Sent, it would end in an error of the stream, which looks like a broken connection.
            let cause = format!("frame of {} bytes: at most {FRAME_BYTES_MAX} pass", frame.len());
            return Err(TransportError::Malformed { address: address.clone(), cause });
        }
        let unreachable = |cause: String| TransportError::Unreachable { address: address.clone(), cause };
        let channel = self.channel(peer, lane).map_err(|error| unreachable(error.to_string()))?;
        let call = async {
            let mut grpc = tonic::client::Grpc::new(channel)
                .max_decoding_message_size(FRAME_BYTES_MAX)
                .max_encoding_message_size(FRAME_BYTES_MAX);
            grpc.ready().await.map_err(|error| Status::unavailable(causes(&error)))?;
            grpc.unary(Request::new(frame), PathAndQuery::from_static(path), FrameCodec).await
        };
        let outcome = match tokio::time::timeout(timeout, call).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(transport_error(address, &status)),
            Err(_) => Err(TransportError::Timeout { address: address.clone(), timeout }),
        };
        self.note(peer.hotkey, lane, outcome.as_ref().err());
        outcome
    }

    fn channel(&self, peer: &Member, lane: Lane) -> Result<Channel, rustls::Error> {
        let mut connections = self.connections.lock();
        if let Some(connection) = connections.get(&(peer.hotkey, lane)).filter(|it| it.address == peer.address) {
            return Ok(connection.channel.clone());
        }
        let connector = TlsConnector::from(Arc::new(self.tls.client(peer.hotkey)?));
        let address = peer.address.clone();
        let connect = tower::service_fn(move |_: http::Uri| connect(connector.clone(), address.clone()));
        let channel = Endpoint::from_static("http://peer")
            .connect_timeout(HANDSHAKE_DEADLINE)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(connect);
        let connection = Connection { address: peer.address.clone(), channel: channel.clone(), timeouts: 0 };
        connections.insert((peer.hotkey, lane), connection);
        Ok(channel)
    }

    /// Drops a connection that is of no further use, so that the next call looks the address up again.
    fn note(&self, hotkey: Hotkey, lane: Lane, error: Option<&TransportError>) {
        let mut connections = self.connections.lock();
        let Some(connection) = connections.get_mut(&(hotkey, lane)) else { return };
        connection.timeouts = match error {
            Some(TransportError::Timeout { .. }) => connection.timeouts + 1,
            Some(TransportError::Unreachable { .. }) => TIMEOUTS_MAX,
            _ => 0,
        };
        if connection.timeouts >= TIMEOUTS_MAX {
            connections.remove(&(hotkey, lane));
        }
    }
}

#[async_trait]
impl PeerTransport for PeerClient {
    async fn call(&self, peer: &Member, request: PeerRequest, timeout: Duration) -> Result<PeerReply, TransportError> {
        let (lane, frame) = (request.lane(), Bytes::from(request.encode()));
        let reply = self.unary(peer, lane, CALL_PATH, frame, timeout).await?;
        PeerReply::decode(&reply)
            .map_err(|error| TransportError::Malformed { address: peer.address.clone(), cause: causes(&error) })
    }
}

async fn connect(
    connector: TlsConnector,
    address: String,
) -> io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    // Required by the interface and sent to nobody: who answers is told by the certificate.
    let name = ServerName::try_from("peer").map_err(io::Error::other)?;
    Ok(TokioIo::new(connector.connect(name, stream).await?))
}

fn transport_error(address: &str, status: &Status) -> TransportError {
    let (address, cause) = (address.to_owned(), causes(status));
    match status.code() {
        // What the other end's code says, as opposed to what our side makes of a connection that broke.
        Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted | Code::Unimplemented => {
            TransportError::Malformed { address, cause }
        }
        _ => TransportError::Unreachable { address, cause },
    }
}

/// An error with its causes in one line, without tonic's wrapping around the first message.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = match error.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    };
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use sidecar_metagraph::keys::HotkeyPair;
    use sidecar_util::config::{GroupConfig, TimingProfile};
    use tokio::sync::watch;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    fn pair(id: u8) -> HotkeyPair {
        HotkeyPair::from_seed(&[id; 32]).unwrap()
    }

    fn tls(id: u8) -> PeerTls {
        let member = |id| Member { hotkey: pair(id).hotkey(), address: "nowhere:1".into() };
        let config = GroupConfig {
            cluster_id: "a".into(),
            founder: pair(1).hotkey(),
            founded: true,
            voters: 3,
            timing: TimingProfile::Test,
            members: (1..=3).map(member).collect(),
        };
        PeerTls::new(pair(id), watch::channel(config).1).unwrap()
    }

    /// Answers with the caller and the frame; counts signs of life.
    #[derive(Default)]
    struct Echo {
        heard: Mutex<Vec<Hotkey>>,
    }

    #[async_trait]
    impl PeerHandler for Echo {
        async fn call(&self, frame: Bytes, from: Hotkey) -> Result<Bytes, Status> {
            if frame.starts_with(b"hang") {
                std::future::pending::<()>().await;
            }
            Ok([&from.as_bytes()[..], &frame].concat().into())
        }

        fn heard_from(&self, from: Hotkey) {
            self.heard.lock().push(from);
        }
    }

    struct Running {
        member: Member,
        echo: Arc<Echo>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<anyhow::Result<()>>,
    }

    impl Running {
        async fn start(id: u8, address: &str) -> Self {
            let listener = TcpListener::bind(address).await.unwrap();
            let member = Member { hotkey: pair(id).hotkey(), address: listener.local_addr().unwrap().to_string() };
            let (echo, stop) = (Arc::new(Echo::default()), CancellationToken::new());
            let task = tokio::spawn(serve(listener, tls(id), echo.clone(), stop.clone()));
            Self { member, echo, stop, task }
        }

        async fn stop(self) -> Member {
            self.stop.cancel();
            self.task.await.unwrap().unwrap();
            self.member
        }
    }

    async fn echo(client: &PeerClient, peer: &Member, frame: &[u8]) -> Result<Bytes, TransportError> {
        client.unary(peer, Lane::Data, CALL_PATH, Bytes::copy_from_slice(frame), TIMEOUT).await
    }

    #[tokio::test]
    async fn a_frame_arrives_with_the_hotkey_of_its_sender() {
        let server = Running::start(2, "127.0.0.1:0").await;
        let client = PeerClient::new(tls(1));
        let reply = echo(&client, &server.member, b"frame").await.unwrap();
        assert_eq!((&reply[..32], &reply[32..]), (&pair(1).hotkey().as_bytes()[..], &b"frame"[..]));
        client.ping(&server.member, TIMEOUT).await.unwrap();
        assert_eq!(*server.echo.heard.lock(), vec![pair(1).hotkey(); 2]);
        drop(client);
        server.stop().await;
    }

    #[tokio::test]
    async fn frames_of_the_largest_size_pass_and_larger_ones_are_told_apart() {
        let server = Running::start(2, "127.0.0.1:0").await;
        let client = PeerClient::new(tls(1));
        let reply = echo(&client, &server.member, &vec![7; FRAME_BYTES_MAX - 32]).await.unwrap();
        assert_eq!(reply.len(), FRAME_BYTES_MAX);
        let error = echo(&client, &server.member, &vec![7; FRAME_BYTES_MAX + 1]).await.unwrap_err();
        assert!(matches!(error, TransportError::Malformed { .. }), "{error}");
        drop(client);
        server.stop().await;
    }

    #[tokio::test]
    async fn a_member_that_comes_back_at_its_address_is_found_again() {
        let server = Running::start(2, "127.0.0.1:0").await;
        let client = PeerClient::new(tls(1));
        echo(&client, &server.member, b"one").await.unwrap();
        let member = server.stop().await;
        let error = echo(&client, &member, b"two").await.unwrap_err();
        assert!(matches!(error, TransportError::Unreachable { .. }), "{error}");
        let server = Running::start(2, &member.address).await;
        echo(&client, &member, b"three").await.unwrap();
        drop(client);
        server.stop().await;
    }

    #[tokio::test]
    async fn another_member_at_the_address_is_not_spoken_to() {
        let server = Running::start(3, "127.0.0.1:0").await;
        let client = PeerClient::new(tls(1));
        let expected = Member { hotkey: pair(2).hotkey(), ..server.member.clone() };
        let error = echo(&client, &expected, b"secret").await.unwrap_err().to_string();
        assert!(error.contains("was expected"), "{error}");
        assert!(server.echo.heard.lock().is_empty());
        drop(client);
        server.stop().await;
    }

    #[tokio::test]
    async fn a_call_ends_at_its_deadline() {
        let server = Running::start(2, "127.0.0.1:0").await;
        let client = PeerClient::new(tls(1));
        client.ping(&server.member, TIMEOUT).await.unwrap();
        let short = Duration::from_millis(50);
        let call = client.unary(&server.member, Lane::Control, CALL_PATH, Bytes::from_static(b"hang"), short);
        let error = call.await.unwrap_err();
        assert!(matches!(error, TransportError::Timeout { .. }), "{error}");
        drop(client);
        server.stop().await;
    }

    #[tokio::test]
    async fn nobody_without_a_certificate_is_answered() {
        let server = Running::start(2, "127.0.0.1:0").await;
        let channel = Endpoint::from_shared(format!("http://{}", server.member.address)).unwrap().connect_lazy();
        let mut grpc = tonic::client::Grpc::new(channel);
        let refused = match grpc.ready().await {
            Ok(()) => {
                let path = PathAndQuery::from_static(PING_PATH);
                grpc.unary(Request::new(Bytes::new()), path, FrameCodec).await.map(drop).is_err()
            }
            Err(_) => true,
        };
        assert!(refused && server.echo.heard.lock().is_empty());
        server.stop().await;
    }
}
