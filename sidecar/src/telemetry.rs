//! Logs: one line per event on standard error. Traces: to a collector, when one is named.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use http::{HeaderMap, Method, StatusCode};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Status, TracerProvider as _};
use opentelemetry::{KeyValue, Value};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use sidecar_util::{Hotkey, NetUid};
use tracing::{Level, Span, info_span, warn};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

/// Time for a batch of spans to reach the collector, and for the last one when the process ends.
const EXPORT_DEADLINE: Duration = Duration::from_secs(5);

/// Whether spans of requests go anywhere. Nobody pays for them otherwise.
static EXPORTING: AtomicBool = AtomicBool::new(false);

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object per line.
    Json,
}

/// Where traces go, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// A collector's OTLP endpoint over gRPC, such as `http://collector:4317`.
    pub endpoint: String,
    /// Hotkey of this sidecar.
    pub hotkey: Hotkey,
    /// Its subnet.
    pub netuid: NetUid,
}

/// Telemetry that was started. Ends what is under way when it is dropped.
#[derive(Debug, Default)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        let Some(traces) = self.traces.take() else { return };
        EXPORTING.store(false, Ordering::Relaxed);
        if let Err(error) = traces.shutdown_with_timeout(EXPORT_DEADLINE) {
            warn!(%error, "the last traces were not delivered");
        }
    }
}

/// Starts logging, and tracing where it is wanted. `filter` is in the syntax of `RUST_LOG`. With traces it has to be called
/// within a runtime, which their exporter uses.
///
/// # Errors
/// The filter or the endpoint cannot be read, or logging was started before.
pub fn start(format: LogFormat, filter: &str, traces: Option<&Traces>) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("--log: {error}"))?;
    let ansi = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(ansi);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let provider = traces.map(provider).transpose()?;
    let spans = provider.as_ref().map(|provider| {
        // Only what this program does, and never what the exporter does to export it.
        let own = filter_fn(|metadata| metadata.target().starts_with("sidecar") && *metadata.level() <= Level::INFO);
        tracing_opentelemetry::layer().with_tracer(provider.tracer("mycelium-sidecar")).with_filter(own)
    });
    tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).try_init()?;
    EXPORTING.store(provider.is_some(), Ordering::Relaxed);
    Ok(Telemetry { traces: provider })
}

fn provider(traces: &Traces) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(&traces.endpoint).with_timeout(EXPORT_DEADLINE);
    let exporter = exporter.build().map_err(|error| {
        anyhow::anyhow!(
            "--otlp-endpoint: `{}` cannot be used ({error}): give one such as http://collector:4317",
            traces.endpoint
        )
    })?;
    let resource = Resource::builder_empty()
        .with_service_name("mycelium-sidecar")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("hotkey", traces.hotkey.to_string()))
        .with_attribute(KeyValue::new("netuid", i64::from(traces.netuid.0)));
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build())
}

/// Whether spans go anywhere.
pub(crate) fn is_exporting() -> bool {
    EXPORTING.load(Ordering::Relaxed)
}

/// The span of one request, as a part of the caller's trace when it names one (W3C `traceparent`).
pub(crate) fn request_span(method: &Method, route: &'static str, headers: &HeaderMap) -> Span {
    let name = format!("{method} {route}");
    let span = info_span!(
        "request",
        otel.name = name,
        otel.kind = "server",
        http.request.method = %method,
        http.route = route,
    );
    let parent = TraceContextPropagator::new().extract(&Headers(headers));
    // It fails only where no span is exported, and then there is nothing to be part of anything.
    let _ = span.set_parent(parent);
    span
}

/// The request was answered.
pub(crate) fn end_request_span(span: &Span, status: StatusCode) {
    span.set_attribute("http.response.status_code", Value::I64(i64::from(status.as_u16())));
    if status.is_server_error() {
        span.set_status(Status::error(status.as_str().to_owned()));
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
