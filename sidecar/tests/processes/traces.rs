//! Traces of a real sidecar, received by a collector that this test is.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::chain::Devchain;
use super::pod::{Pod, network};
use super::until;

#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<ResourceSpans>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().extend(request.into_inner().resource_spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// The first span of this name, with what it belongs to.
    fn span(&self, name: &str) -> Option<(ResourceSpans, Span)> {
        let held = self.0.lock().unwrap();
        held.iter().find_map(|resource| {
            let mut spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
            Some((resource.clone(), spans.find(|span| span.name == name)?.clone()))
        })
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key).and_then(|attribute| attribute.value.clone());
    match found {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text,
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    }
}

fn ask(pod: &Pod, path: &str, headers: &str) {
    let mut stream = TcpStream::connect(pod.address()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").unwrap();
    stream.read_to_end(&mut vec![]).unwrap();
}

#[test]
fn requests_are_traced_to_the_collector_as_parts_of_their_callers_traces() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = Collector::default();
    let server = tonic::transport::Server::builder()
        .serve_with_incoming(TraceServiceServer::new(collector.clone()), TcpListenerStream::new(listener));
    runtime.spawn(server);

    let chain = Devchain::start(&[(1, 5000)]);
    let mut pod = Pod::new("miner", 1);
    pod.configure(&network(&chain));
    pod.run_with(&["--otlp-endpoint", &endpoint]);
    until("ready", || pod.get("/readyz").filter(|answer| answer.status == 200));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    ask(&pod, "/v1/nodes/0?x=secret", &format!("traceparent: 00-{trace}-00f067aa0ba902b7-01\r\n"));
    ask(&pod, "/v1/nodes?kind=x", "traceparent: 00-nonsense-01\r\n");
    // What is not delivered yet is delivered at the end.
    assert!(pod.terminate().success());

    let (resource, span) = until("the span arrived", || collector.span("GET /v1/nodes/{id}"));
    assert_eq!(
        (hex::encode(&span.trace_id), hex::encode(&span.parent_span_id)),
        (trace.into(), "00f067aa0ba902b7".into())
    );
    assert_eq!(text(&span.attributes, "http.response.status_code"), "200");
    assert_eq!(text(&span.attributes, "http.route"), "/v1/nodes/{id}");
    assert!(!format!("{span:?}").contains("secret"), "queries are not traced");
    let of = resource.resource.unwrap().attributes;
    assert_eq!(text(&of, "service.name"), "mycelium-sidecar");
    assert_eq!((text(&of, "hotkey"), text(&of, "netuid")), (pod.hotkey.to_string(), "1".into()));

    let (_, span) = until("the other span arrived", || collector.span("GET /v1/nodes"));
    assert_eq!(text(&span.attributes, "http.response.status_code"), "400");
    assert!(span.parent_span_id.is_empty() && hex::encode(&span.trace_id) != trace, "a trace of its own");
}
