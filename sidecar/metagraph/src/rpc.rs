//! One WebSocket and the calls on it.
//!
//! Everything that this crate asks of a node passes here, so this is where the rules of every call stand: wait for the
//! endpoint's [`Pace`], keep a deadline, and tell apart what a failure means (gone, refused, too many requests, state
//! that the node no longer has). Large answers are hex in JSON; they are decoded straight into bytes.

use std::fmt::Write as _;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use rustls_platform_verifier::ConfigVerifierExt as _;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Visitor};
use serde_json::value::RawValue;
use subxt::ext::jsonrpsee::client_transport::ws::{Url, WsHandshakeError};
use subxt::ext::jsonrpsee::core::client::{ClientT, Error as RpcError, SubscriptionClientT};
use subxt::ext::jsonrpsee::core::params::ArrayParams;
use subxt::ext::jsonrpsee::ws_client::{PingConfig, WsClient, WsClientBuilder};
use subxt::rpcs::RpcClientT;
use subxt::rpcs::client::{RawRpcFuture, RawRpcSubscription};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::ChainError;
use crate::error::Cause;
use crate::pace::Pace;

/// Time for the WebSocket handshake. A public endpoint far away needs about one second.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Time for one call. The largest, metadata or a subnet of 1024 neurons, takes well under a second on a healthy node.
pub const CALL_DEADLINE: Duration = Duration::from_secs(15);

/// How often the other end is pinged, and after how long without any answer the connection counts as lost.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Notifications that may wait unread. A reader that is this far behind reconnects instead.
const NOTIFICATIONS_BUFFER: usize = 64;

/// Metadata is 0.8 MB as hex today, every neuron of a subnet with weights 1.5 MB.
const RESPONSE_BYTES_MAX: u32 = 32 << 20;

/// Bytes of the answer to a handshake that are kept to find `Retry-After` in it.
const HANDSHAKE_BYTES_KEPT: usize = 8 << 10;

/// JSON-RPC codes with which nodes and their proxies say that there were too many requests.
const RATE_LIMIT_CODES: [i32; 3] = [-32005, -32004, 429];

/// How often a call that was refused as one too many is made again by who insists. By then the pace is slow, so that a
/// second refusal means that others ask from the same address.
const RETRIES: u32 = 4;

/// HTTP statuses that say the same to a handshake: proxies in front of public nodes use all three.
const RATE_LIMIT_STATUSES: [u16; 3] = [429, 403, 503];

/// What a node says of a block whose state it has thrown away.
const STATE_DISCARDED: &str = "State already discarded";

/// One connection. Clones share it.
#[derive(Clone)]
pub(crate) struct Rpc {
    inner: Arc<Inner>,
    /// See [`Self::insisting`].
    retries: u32,
}

struct Inner {
    client: WsClient,
    pace: Arc<Pace>,
    endpoint: String,
    calls: AtomicU64,
    /// Time for one call, once it is known better than [`CALL_DEADLINE`].
    deadline: OnceLock<Duration>,
}

/// Bytes that are hex in JSON.
pub(crate) struct HexBytes(pub(crate) Vec<u8>);

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hex;
        impl Visitor<'_> for Hex {
            type Value = HexBytes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string of hex digits")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<HexBytes, E> {
                const_hex::decode(text).map(HexBytes).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Hex)
    }
}

impl Rpc {
    /// Connects, within a deadline.
    pub(crate) async fn connect(endpoint: &str, pace: Arc<Pace>) -> Result<Self, ChainError> {
        let failed = |source: Cause| ChainError::Connect { endpoint: endpoint.to_owned(), source };
        admit(&pace, "the handshake").await?;
        let handshake = Arc::new(Mutex::new(Some(Vec::new())));
        let connecting = handshake_with(endpoint, handshake.clone());
        // One deadline over all of it: names, TCP, TLS, and a peer that accepts and then says nothing.
        let client = tokio::time::timeout(CONNECT_DEADLINE, connecting)
            .await
            .map_err(|_| failed(format!("no WebSocket handshake within {} s", CONNECT_DEADLINE.as_secs()).into()))?;
        let said = handshake.lock().take().unwrap_or_default();
        let client = client.map_err(|error| match rejected_with(error.as_ref()) {
            Some(status) if RATE_LIMIT_STATUSES.contains(&status) => {
                let retry_after = retry_after(&said);
                pace.strike(retry_after);
                ChainError::RateLimited { operation: "the handshake", said: format!("HTTP {status}"), retry_after }
            }
            _ => failed(error),
        })?;
        let (endpoint, calls, deadline) = (endpoint.to_owned(), AtomicU64::new(0), OnceLock::new());
        Ok(Self { inner: Arc::new(Inner { client, pace, endpoint, calls, deadline }), retries: 0 })
    }

    /// The same connection, on which what subxt asks is asked again after the endpoint refused it as one request too many.
    /// It has not done what it refused so, so this is for submissions too; it is not for those who would rather ask
    /// another endpoint.
    pub(crate) fn insisting(self) -> Self {
        Self { retries: RETRIES, ..self }
    }

    /// Gives every later call on this connection so much time, once it had its turn.
    pub(crate) fn set_deadline(&self, deadline: Duration) {
        // Who is second finds what the first one found: it is a property of the chain.
        let _ = self.inner.deadline.set(deadline);
    }

    /// The address that was connected to.
    pub(crate) fn endpoint(&self) -> &str {
        &self.inner.endpoint
    }

    /// Whether the other end is still there, as far as this one knows.
    pub(crate) fn is_open(&self) -> bool {
        self.inner.client.is_connected()
    }

    /// Calls and subscriptions made until now.
    pub(crate) fn calls(&self) -> u64 {
        self.inner.calls.load(Ordering::Relaxed)
    }

    /// One call. `operation` is how errors name it.
    pub(crate) async fn call<R: DeserializeOwned>(
        &self,
        operation: &'static str,
        method: &str,
        params: ArrayParams,
    ) -> Result<R, ChainError> {
        self.admit(operation).await?;
        let answer = self.in_time(operation, self.inner.client.request(method, params)).await?;
        answer.map_err(|error| self.failed(operation, error))
    }

    /// Calls a function of the runtime at a block.
    pub(crate) async fn runtime_call(
        &self,
        operation: &'static str,
        function: &str,
        arguments: &[u8],
        at: &str,
    ) -> Result<Vec<u8>, ChainError> {
        let params = params([function, &const_hex::encode_prefixed(arguments), at]);
        self.call(operation, "state_call", params).await.map(|HexBytes(bytes)| bytes)
    }

    /// Reads one value at a block.
    pub(crate) async fn storage(
        &self,
        operation: &'static str,
        key: &[u8],
        at: &str,
    ) -> Result<Option<Vec<u8>>, ChainError> {
        let params = params([&const_hex::encode_prefixed(key), at]);
        let value: Option<HexBytes> = self.call(operation, "state_getStorage", params).await?;
        Ok(value.map(|HexBytes(bytes)| bytes))
    }

    /// One subscription. It ends with an error, whatever ends it.
    pub(crate) async fn subscribe<R: DeserializeOwned + Send + 'static>(
        &self,
        operation: &'static str,
        subscribe: &str,
        unsubscribe: &str,
    ) -> Result<impl Stream<Item = Result<R, ChainError>> + Send + use<R>, ChainError> {
        self.admit(operation).await?;
        let subscription = self.inner.client.subscribe::<R, _>(subscribe, ArrayParams::new(), unsubscribe);
        let subscription =
            self.in_time(operation, subscription).await?.map_err(|error| self.failed(operation, error))?;
        let items = subscription
            .map(move |item| item.map_err(|error| ChainError::Decode { what: operation, source: error.into() }));
        Ok(items.chain(futures::stream::iter([Err(ChainError::Disconnected { operation })])))
    }

    async fn admit(&self, operation: &'static str) -> Result<(), ChainError> {
        self.inner.calls.fetch_add(1, Ordering::Relaxed);
        admit(&self.inner.pace, operation).await
    }

    /// Holds a call to its deadline.
    async fn in_time<T>(&self, operation: &'static str, call: impl Future<Output = T>) -> Result<T, ChainError> {
        let after = *self.inner.deadline.get().unwrap_or(&CALL_DEADLINE);
        tokio::time::timeout(after, call).await.map_err(|_| ChainError::Timeout { operation, after })
    }

    fn failed(&self, operation: &'static str, error: RpcError) -> ChainError {
        let error = of_rpc(operation, error);
        if let ChainError::RateLimited { retry_after, .. } = &error {
            self.inner.pace.strike(*retry_after);
        }
        error
    }
}

/// Texts as the parameters of a call.
pub(crate) fn params<const N: usize>(values: [&str; N]) -> ArrayParams {
    let mut params = ArrayParams::new();
    for value in values {
        params.insert(value).expect("a string is always JSON");
    }
    params
}

async fn admit(pace: &Pace, operation: &'static str) -> Result<(), ChainError> {
    pace.admit(CALL_DEADLINE).await.map_err(|wait| ChainError::RateLimited {
        operation,
        said: "asked for silence before".to_owned(),
        retry_after: Some(wait),
    })
}

/// What a failed call means.
fn of_rpc(operation: &'static str, error: RpcError) -> ChainError {
    match error {
        RpcError::Call(error) => of_code(operation, error.code(), error.message(), error.data().map(RawValue::get)),
        RpcError::RequestTimeout => ChainError::Timeout { operation, after: CALL_DEADLINE },
        RpcError::ParseError(error) => ChainError::Decode { what: operation, source: error.into() },
        _ => ChainError::Disconnected { operation },
    }
}

/// What a node's answer with an error means.
fn of_code(operation: &'static str, code: i32, message: &str, data: Option<&str>) -> ChainError {
    let mut said = format!("{message} (code {code})");
    if let Some(data) = data {
        let _ = write!(said, ": {data}");
    }
    if RATE_LIMIT_CODES.contains(&code) {
        ChainError::RateLimited { operation, said, retry_after: None }
    } else if said.contains(STATE_DISCARDED) {
        ChainError::StateDiscarded { operation, said }
    } else {
        ChainError::Rpc { operation, source: said.into() }
    }
}

/// Tells what a failure inside subxt means: it reports refusals and lost connections in the same variants.
pub(crate) fn refused<E: Into<Cause>>(operation: &'static str) -> impl Fn(E) -> ChainError {
    move |error| {
        let source: Cause = error.into();
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
        while let Some(error) = next {
            match error.downcast_ref::<subxt::rpcs::Error>() {
                Some(subxt::rpcs::Error::User(user)) => {
                    return of_code(operation, user.code, &user.message, user.data.as_deref().map(RawValue::get));
                }
                Some(subxt::rpcs::Error::Client(client)) => {
                    let ours = client.downcast_ref::<ChainErrorInside>();
                    let ours = ours.and_then(|ChainErrorInside(error)| error.lock().take());
                    return ours.map_or(ChainError::Disconnected { operation }, |error| error.during(operation));
                }
                Some(subxt::rpcs::Error::DisconnectedWillReconnect(_)) => {
                    return ChainError::Disconnected { operation };
                }
                Some(_) => break,
                None => next = error.source(),
            }
        }
        ChainError::Rpc { operation, source }
    }
}

/// Carries an error of ours through subxt, which hands it on in a box.
#[derive(Debug, thiserror::Error)]
#[error("the call failed before the node answered")]
struct ChainErrorInside(Mutex<Option<ChainError>>);

impl From<ChainError> for subxt::rpcs::Error {
    fn from(error: ChainError) -> Self {
        Self::Client(Box::new(ChainErrorInside(Mutex::new(Some(error)))))
    }
}

/// What subxt asks goes the same way.
impl RpcClientT for Rpc {
    fn request_raw<'a>(&'a self, method: &'a str, params: Option<Box<RawValue>>) -> RawRpcFuture<'a, Box<RawValue>> {
        let ask = move || RpcClientT::request_raw(&self.inner.client, method, params.clone());
        Box::pin(self.asked("a call", ask))
    }

    fn subscribe_raw<'a>(
        &'a self,
        sub: &'a str,
        params: Option<Box<RawValue>>,
        unsub: &'a str,
    ) -> RawRpcFuture<'a, RawRpcSubscription> {
        let ask = move || RpcClientT::subscribe_raw(&self.inner.client, sub, params.clone(), unsub);
        Box::pin(self.asked("a subscription", ask))
    }
}

impl Rpc {
    /// Asks for subxt when it is this one's turn, and slows down when the answer is a complaint.
    async fn asked<'a, T>(
        &'a self,
        operation: &'static str,
        ask: impl Fn() -> RawRpcFuture<'a, T> + Send,
    ) -> Result<T, subxt::rpcs::Error> {
        let mut retries = self.retries;
        loop {
            self.admit(operation).await?;
            let answer = self.in_time(operation, ask()).await?;
            let Err(subxt::rpcs::Error::User(user)) = &answer else { return answer };
            if !RATE_LIMIT_CODES.contains(&user.code) {
                return answer;
            }
            self.inner.pace.strike(None);
            if retries == 0 {
                return answer;
            }
            retries -= 1;
        }
    }
}

type Handshake = Arc<Mutex<Option<Vec<u8>>>>;

async fn handshake_with(endpoint: &str, handshake: Handshake) -> Result<WsClient, Cause> {
    let url = Url::parse(endpoint)?;
    let host = url.host_str().ok_or("names no host")?.trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().ok_or("names no port")?;
    let tcp = TcpStream::connect((host.as_str(), port)).await?;
    tcp.set_nodelay(true)?;
    let ping = PingConfig::new().ping_interval(PING_INTERVAL).inactive_limit(2 * PING_INTERVAL).max_failures(1);
    let builder = WsClientBuilder::new()
        .request_timeout(CALL_DEADLINE)
        .max_response_size(RESPONSE_BYTES_MAX)
        .max_buffer_capacity_per_subscription(NOTIFICATIONS_BUFFER)
        .enable_ws_ping(ping);
    Ok(if url.scheme() == "wss" {
        let name = ServerName::try_from(host)?;
        let stream = tls().connect(name, tcp).await.map_err(untrusted)?;
        builder.build_with_stream(endpoint, Overheard { stream, handshake }).await?
    } else {
        builder.build_with_stream(endpoint, Overheard { stream: tcp, handshake }).await?
    })
}

/// TLS as the system trusts it.
fn tls() -> TlsConnector {
    // Without a provider of its own the process would have none; where there is one, it stays.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    TlsConnector::from(Arc::new(ClientConfig::with_platform_verifier()))
}

/// A certificate that this machine has no reason to trust.
#[derive(Debug, thiserror::Error)]
#[error(
    "its certificate is not trusted: let an authority that this system knows sign it, or name a PEM file with its \
     authority in the environment variable `SSL_CERT_FILE`"
)]
struct Untrusted(#[source] tokio_rustls::rustls::Error);

/// Tells a certificate that is refused, which somebody has to mend, from a handshake that broke.
fn untrusted(error: io::Error) -> Cause {
    use tokio_rustls::rustls::Error;

    match error.downcast::<Error>() {
        // Without any authority at all the verifier says something general.
        Ok(error @ (Error::InvalidCertificate(_) | Error::General(_))) => Untrusted(error).into(),
        Ok(error) => error.into(),
        Err(error) => error.into(),
    }
}

/// The HTTP status with which a handshake was turned down.
fn rejected_with(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Option<u16> {
    let Some(RpcError::Transport(transport)) = error.downcast_ref::<RpcError>() else { return None };
    match transport.downcast_ref::<WsHandshakeError>() {
        Some(WsHandshakeError::Rejected { status_code }) => Some(*status_code),
        _ => None,
    }
}

/// Seconds of the header `Retry-After` in an HTTP answer. Its other form, a date, needs clocks to agree and is not used
/// by proxies in front of nodes.
fn retry_after(answer: &[u8]) -> Option<Duration> {
    let text = String::from_utf8_lossy(answer);
    let head = text.split("\r\n\r\n").next()?;
    head.split("\r\n").skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if !name.trim().eq_ignore_ascii_case("retry-after") {
            return None;
        }
        value.trim().parse().ok().map(Duration::from_secs)
    })
}

/// A stream whose first bytes are kept until somebody takes them: the client library does not hand out the headers of a
/// handshake that failed.
struct Overheard<S> {
    stream: S,
    /// `None` once the handshake is over.
    handshake: Handshake,
}

impl<S: AsyncRead + Unpin> AsyncRead for Overheard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(kept) = self.handshake.lock().as_mut() {
            let room = HANDSHAKE_BYTES_KEPT.saturating_sub(kept.len());
            kept.extend(buf.filled()[before..].iter().take(room));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Overheard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn hex_of_answers_is_read_with_and_without_its_prefix() {
        let read = |json: &str| serde_json::from_str::<HexBytes>(json).map(|HexBytes(bytes)| bytes);
        assert_eq!(read("\"0x00ff\"").unwrap(), [0, 255]);
        assert_eq!(read("\"00ff\"").unwrap(), [0, 255]);
        assert!(read("\"0x0\"").is_err() && read("\"0xzz\"").is_err() && read("5").is_err());
    }

    #[test]
    fn errors_of_nodes_are_told_apart() {
        for code in RATE_LIMIT_CODES {
            assert!(of_code("a call", code, "slow down", None).is_rate_limited());
        }
        let pruned = "Client error: UnknownBlock: State already discarded for 0x12";
        let error = of_code("the metagraph", 4003, pruned, None);
        assert!(matches!(error, ChainError::StateDiscarded { .. }), "{error}");
        assert!(error.to_string().contains("archive"), "{error}");
        let data = of_code("the metagraph", 4003, "Client error", Some("\"State already discarded\""));
        assert!(matches!(data, ChainError::StateDiscarded { .. }), "{data}");
        let error = of_code("a call", -32601, "Method not found", None);
        assert!(matches!(error, ChainError::Rpc { .. }) && error.chain().contains("Method not found"), "{error}");
    }

    #[test]
    fn a_lost_connection_is_told_from_a_refusal() {
        let lost = subxt::rpcs::Error::Client("connection closed".into());
        assert!(refused("a call")(lost).is_connection_lost());
        let answered = subxt::rpcs::Error::User(subxt::rpcs::UserError::method_not_found());
        let error = refused("a call")(answered);
        assert!(!error.is_connection_lost());
        assert!(error.chain().contains("Method not found"), "{}", error.chain());
        let wrapped = subxt::error::BackendError::from(subxt::rpcs::Error::Client("gone".into()));
        assert!(refused("a call")(wrapped).is_connection_lost());
        let ours = ChainError::Timeout { operation: "a call", after: CALL_DEADLINE };
        let through = subxt::error::BackendError::from(subxt::rpcs::Error::from(ours));
        assert!(matches!(refused("a call")(through), ChainError::Timeout { .. }));
    }

    #[test]
    fn the_time_to_wait_is_found_among_the_headers_only() {
        let answer = b"HTTP/1.1 429 Too Many Requests\r\nServer: x\r\nretry-after: 17\r\n\r\nRetry-After: 3";
        assert_eq!(retry_after(answer), Some(Duration::from_secs(17)));
        assert_eq!(retry_after(b"HTTP/1.1 429\r\n\r\nRetry-After: 3"), None);
        assert_eq!(retry_after(b"HTTP/1.1 429\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n\r\n"), None);
        assert_eq!(retry_after(b"\xff\xfe"), None);
    }

    #[tokio::test]
    async fn a_closed_port_is_reported_with_its_endpoint() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("ws://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = Rpc::connect(&endpoint, Arc::default()).await.err().unwrap();
        assert!(error.is_connection_lost());
        assert!(error.chain().contains(&endpoint) && error.chain().contains("refused"), "{}", error.chain());
    }

    #[tokio::test]
    async fn an_endpoint_over_tls_that_speaks_no_tls_is_an_error() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("wss://{}", listener.local_addr().unwrap());
        let connecting = tokio::spawn(async move { Rpc::connect(&endpoint, Arc::default()).await.err() });
        drop(listener.accept().await.unwrap());
        let error = connecting.await.unwrap().unwrap();
        assert!(matches!(error, ChainError::Connect { .. }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_accepts_and_says_nothing_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("ws://{}", listener.local_addr().unwrap());
        let connecting = tokio::spawn(async move { Rpc::connect(&endpoint, Arc::default()).await.err() });
        let _held = listener.accept().await.unwrap();
        let error = connecting.await.unwrap().unwrap();
        assert!(matches!(error, ChainError::Connect { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_handshake_that_meets_429_waits_as_long_as_it_was_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("ws://{}", listener.local_addr().unwrap());
        let answer = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = socket.read(&mut request).await.unwrap();
            let text = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 240\r\nContent-Length: 0\r\n\r\n";
            socket.write_all(text.as_bytes()).await.unwrap();
            socket
        });
        let pace = Arc::new(Pace::default());
        let error = Rpc::connect(&endpoint, pace.clone()).await.err().unwrap();
        assert!(error.is_rate_limited(), "{error}");
        assert!(pace.wait() > Duration::from_secs(230), "{:?}", pace.wait());
        // Asked again, nothing is sent: the listener is gone, and a connection would be refused.
        drop(answer.await.unwrap());
        let error = Rpc::connect(&endpoint, pace).await.err().unwrap();
        assert!(error.is_rate_limited(), "{error}");
    }
}
