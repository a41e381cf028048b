//! The sockets: accepts them, answers `/health` and `/metrics`, and leaves JSON-RPC to jsonrpsee, with the faults that
//! sockets and answers may have in between.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Method, Request as HttpRequest, StatusCode, header};
use jsonrpsee::Methods;
use jsonrpsee::server::middleware::rpc::{
    Batch, BatchEntry, MethodResponse, Notification, Request, RpcServiceBuilder, RpcServiceT,
};
use jsonrpsee::server::{
    HttpBody, HttpResponse, Server, ServerConfig, ServerHandle, StopHandle, serve_with_graceful_shutdown, stop_channel,
    ws,
};
use jsonrpsee::types::ErrorObjectOwned;
use tokio::net::{TcpListener, TcpStream};
use tower::Service;

use crate::faults::{Connection, FaultyStream, Verdict};
use crate::node::Node;

/// How long to wait when the system has no descriptors left for new sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Code of calls that come too often, as public endpoints answer on an open socket.
const RATE_LIMITED: i32 = -32005;

/// Bytes of an HTTP answer before its body, about: a cut answer is cut in its body.
const HTTP_HEAD_BYTES: u64 = 140;

/// What every socket shares.
struct Shared {
    node: Arc<Node>,
    methods: Methods,
    /// Names of all methods, for metrics.
    names: BTreeSet<&'static str>,
    config: ServerConfig,
}

/// Accepts sockets until the handle says stop.
pub(super) fn start(listener: TcpListener, node: Arc<Node>, methods: Methods, config: ServerConfig) -> ServerHandle {
    let names = methods.method_names().collect();
    let shared = Arc::new(Shared { node, methods, names, config });
    let (stop, handle) = stop_channel();
    tokio::spawn(accept(listener, shared, stop));
    handle
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: StopHandle) {
    // One builder for all sockets: it counts them.
    let builder = Server::builder().set_config(shared.config.clone()).to_service_builder();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.clone().shutdown() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a socket: raise the limit of open files");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = shared.node.faults().accept(peer.ip());
        let builder = builder.clone();
        tokio::spawn(serve(stream, connection, Arc::clone(&shared), builder, stop.clone()));
    }
}

type Builder = jsonrpsee::server::TowerServiceBuilder<tower::layer::util::Identity, tower::layer::util::Identity>;

async fn serve(
    stream: TcpStream,
    connection: Arc<Connection>,
    shared: Arc<Shared>,
    builder: Builder,
    stop: StopHandle,
) {
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let stream = FaultyStream::new(stream, Arc::clone(&connection));
    let stopped = stop.clone().shutdown();
    let service = tower::service_fn(move |request: HttpRequest<Incoming>| {
        let is_websocket = ws::is_upgrade_request(&request);
        let local = local_answer(&shared, &connection, &request, is_websocket);
        let watch = Watch { shared: Arc::clone(&shared), connection: Arc::clone(&connection), is_websocket };
        let middleware =
            RpcServiceBuilder::new().layer_fn(move |service| Watched { service, watch: Arc::new(watch.clone()) });
        let mut service = builder.clone().set_rpc_middleware(middleware).build(shared.methods.clone(), stop.clone());
        async move {
            match local {
                Some(answer) => Ok(answer),
                // A plain type: the boxed one is not `Into` itself for every lifetime, which spawning would need.
                None => service.call(request).await.map_err(std::io::Error::other),
            }
        }
    });
    if let Err(error) = serve_with_graceful_shutdown(stream, service, stopped).await {
        tracing::debug!(%error, "a socket ended");
    }
}

/// Answers that are no JSON-RPC.
fn local_answer(
    shared: &Shared,
    connection: &Connection,
    request: &HttpRequest<Incoming>,
    is_websocket: bool,
) -> Option<HttpResponse> {
    if request.method() == Method::GET && !is_websocket {
        return match request.uri().path() {
            "/metrics" => {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                Some(answer(StatusCode::OK, kind, shared.node.metrics().encode(&shared.node)))
            }
            "/health" => {
                let health = r#"{"peers":0,"isSyncing":false,"shouldHavePeers":false}"#;
                Some(answer(StatusCode::OK, "application/json", health.into()))
            }
            _ => None,
        };
    }
    let per_second = shared.node.faults().rate_limited(connection.peer)?;
    let mut refused = answer(StatusCode::TOO_MANY_REQUESTS, "text/plain", rate_limit_text(per_second));
    refused.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    Some(refused)
}

fn rate_limit_text(per_second: u32) -> String {
    format!("Too many requests: {per_second} a second are allowed")
}

fn answer(status: StatusCode, kind: &'static str, text: String) -> HttpResponse {
    let mut response = HttpResponse::new(HttpBody::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// A socket and what it shares with others.
#[derive(Clone)]
struct Watch {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    is_websocket: bool,
}

/// Counts calls and lets faults strike them.
struct Watched<S> {
    service: S,
    watch: Arc<Watch>,
}

/// What happens to an answer before it is sent.
enum Decision {
    Answer { truncate: bool },
    Refuse(ErrorObjectOwned),
}

impl Watch {
    async fn decide(&self, methods: &[&str]) -> Decision {
        let faults = self.shared.node.faults();
        // An HTTP request was counted when it came in.
        if self.is_websocket
            && let Some(per_second) = faults.rate_limited(self.connection.peer)
        {
            return Decision::Refuse(ErrorObjectOwned::owned(RATE_LIMITED, rate_limit_text(per_second), None::<()>));
        }
        match faults.request(&self.connection, methods) {
            Verdict::Answer { delay, truncate } => {
                if let Some(delay) = delay {
                    tokio::time::sleep(delay).await;
                }
                Decision::Answer { truncate }
            }
            // Nothing of the answer will arrive, so there is no need to have one.
            Verdict::Dead => Decision::Refuse(ErrorObjectOwned::owned(RATE_LIMITED, "dead socket", None::<()>)),
        }
    }

    fn finish(&self, response: &MethodResponse, truncate: bool) {
        self.connection.replied();
        // What opens a subscription is sent already, by the subscription itself.
        if truncate && !response.is_subscription() {
            let half = response.as_json().get().len() as u64 / 2;
            self.connection.cut_after(if self.is_websocket { half } else { HTTP_HEAD_BYTES + half });
        }
    }

    fn name(&self, method: &str) -> Option<&'static str> {
        self.shared.names.get(method).copied()
    }
}

impl<S> RpcServiceT for Watched<S>
where
    S: RpcServiceT<
            MethodResponse = MethodResponse,
            BatchResponse = MethodResponse,
            NotificationResponse = MethodResponse,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    type MethodResponse = MethodResponse;
    type NotificationResponse = MethodResponse;
    type BatchResponse = MethodResponse;

    fn call<'a>(&self, request: Request<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let (service, watch) = (self.service.clone(), Arc::clone(&self.watch));
        async move {
            let started = Instant::now();
            let name = watch.name(request.method_name());
            let response = match watch.decide(&[request.method_name()]).await {
                Decision::Refuse(error) => MethodResponse::error(request.id, error),
                Decision::Answer { truncate } => {
                    let response = service.call(request).await;
                    watch.finish(&response, truncate);
                    response
                }
            };
            watch.shared.node.metrics().called(name, started.elapsed(), response.is_error());
            response
        }
    }

    fn batch<'a>(&self, batch: Batch<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let (service, watch) = (self.service.clone(), Arc::clone(&self.watch));
        async move {
            let started = Instant::now();
            let methods: Vec<&str> = batch.iter().flatten().map(BatchEntry::method_name).collect();
            let names: Vec<Option<&'static str>> = methods.iter().map(|method| watch.name(method)).collect();
            let response = match watch.decide(&methods).await {
                Decision::Refuse(error) => MethodResponse::error(jsonrpsee::types::Id::Null, error),
                Decision::Answer { truncate } => {
                    let response = service.batch(batch).await;
                    watch.finish(&response, truncate);
                    response
                }
            };
            let took = started.elapsed();
            for name in names {
                watch.shared.node.metrics().called(name, took, response.is_error());
            }
            response
        }
    }

    fn notification<'a>(&self, notification: Notification<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        self.service.notification(notification)
    }
}
