//! HTTP to a sidecar, over its unix socket or over TCP.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use reqwest::Response;
use serde_json::Value;
use sidecar_util::http::ProblemBody;

use crate::args::AskArgs;

/// Time for a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Time for a whole answer: longer than the sidecar itself waits for the chain.
const ANSWER_DEADLINE: Duration = Duration::from_mins(1);

/// Time without a word in a stream of events, of which the sidecar sends one every 15 seconds.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// Largest event: a snapshot of a subnet of today has 300 kB.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// Names and values.
pub(super) type Query = Vec<(&'static str, String)>;

/// A sidecar that is asked.
pub(super) struct Client {
    http: reqwest::Client,
    /// What stands before every path.
    base: String,
    /// The sidecar as the user named it.
    shown: String,
}

impl Client {
    pub(super) fn new(args: &AskArgs) -> anyhow::Result<Self> {
        let builder = reqwest::Client::builder().connect_timeout(CONNECT_DEADLINE);
        let (builder, base, shown) = match &args.url {
            None => {
                let shown = format!("socket `{}`", args.socket.display());
                (builder.unix_socket(args.socket.clone()), "http://sidecar".to_owned(), shown)
            }
            Some(url) if url.starts_with("http://") => {
                (builder, url.trim_end_matches('/').to_owned(), format!("`{url}`"))
            }
            Some(url) => bail!("--url: `{url}` does not start with http://: give one such as http://127.0.0.1:9100"),
        };
        Ok(Self { http: builder.build().context("no HTTP client could be made")?, base, shown })
    }

    /// A JSON answer.
    pub(super) async fn get(&self, path: &str, query: &[(&'static str, String)]) -> anyhow::Result<Value> {
        let mut url = format!("{}{path}", self.base);
        for (count, (name, value)) in query.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(url, "{}{name}={}", if count == 0 { '?' } else { '&' }, encode(value));
        }
        let request = self.http.get(url).timeout(ANSWER_DEADLINE);
        let response = self.checked(request).await?;
        response
            .json()
            .await
            .map_err(|error| anyhow!("the answer of {} could not be read: {}", self.shown, cause(&error)))
    }

    /// A stream of events.
    pub(super) async fn events(&self, path: &str) -> anyhow::Result<Events> {
        let response = self.checked(self.http.get(format!("{}{path}", self.base))).await?;
        Ok(Events { response, shown: self.shown.clone(), held: Vec::new() })
    }

    async fn checked(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.map_err(|error| {
            anyhow!(
                "no sidecar answers at {} ({}): is it running? --socket and --url say where",
                self.shown,
                cause(&error)
            )
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        match response.json::<ProblemBody>().await {
            Ok(problem) => bail!("{}: {}", problem.title, problem.detail),
            Err(_) => bail!("{} answered with HTTP status {status} and no explanation: is it a sidecar?", self.shown),
        }
    }
}

/// The innermost cause: the layers above it say only that there is one.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Percent-encodes what could mean something else in a path or a query.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~,".contains(&byte) {
            encoded.push(byte.into());
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Events as they come.
pub(super) struct Events {
    response: Response,
    shown: String,
    held: Vec<u8>,
}

impl Events {
    /// Name and data of the next event; `None` when the stream ends.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<(String, String)>> {
        loop {
            if let Some(end) = self.held.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = self.held.drain(..end + 2).collect();
                let frame = String::from_utf8(frame).context("an event of the sidecar is not UTF-8")?;
                let field =
                    |name| frame.lines().find_map(|line| line.strip_prefix(name)).map(|text: &str| text.trim_start());
                // Comments have no data.
                if let Some(data) = field("data:") {
                    return Ok(Some((field("event:").unwrap_or_default().to_owned(), data.to_owned())));
                }
                continue;
            }
            if self.held.len() > EVENT_BYTES_MAX {
                bail!("an event of {} is larger than {EVENT_BYTES_MAX} bytes: is it a sidecar?", self.shown);
            }
            let chunk = tokio::time::timeout(SILENCE_MAX, self.response.chunk());
            let chunk =
                chunk.await.map_err(|_| anyhow!("{} said nothing for {} s", self.shown, SILENCE_MAX.as_secs()))?;
            match chunk.map_err(|error| anyhow!("{} broke off: {}", self.shown, cause(&error)))? {
                Some(chunk) => self.held.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_user_types_stays_one_segment() {
        assert_eq!(encode("5Grw/../x?y=z&a b%ü"), "5Grw%2F..%2Fx%3Fy%3Dz%26a%20b%25%C3%BC");
        assert_eq!(encode("1,2,3"), "1,2,3");
    }
}
