//! From the gate to the user's container.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http_body_util::BodyExt;
use reqwest::{Client, Url, redirect};
use sidecar_util::ValueError;

use super::gate::{Body, BrokenOff};
use super::requests::Verified;

/// Time to connect to the container, which is in the same pod.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// Time until the container begins to answer: models take theirs.
const ANSWER_DEADLINE: Duration = Duration::from_mins(5);

/// Whatever begins so is ours, and never comes from outside.
const OWN_PREFIX: &str = "x-mycelium-";

/// Headers of one connection, which are not passed on to the next.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The container behind the gate.
#[derive(Debug)]
pub(crate) struct Upstream {
    client: Client,
    base: Url,
}

/// Why the container did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpstreamProblem {
    /// The path cannot be passed on as it was signed.
    Path,
    /// Nothing listens there, or the connection broke.
    Unreachable,
    /// It took too long.
    Timeout,
}

impl Upstream {
    /// Checks an address such as `http://127.0.0.1:8000`.
    pub(crate) fn new(base: &str) -> anyhow::Result<Self> {
        let base = check_upstream(base)?;
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_DEADLINE)
            .build()
            .context("HTTP client of the axon gate")?;
        Ok(Self { client, base })
    }

    /// Passes a verified request on.
    pub(crate) async fn send(
        &self,
        parts: &Parts,
        verified: &Verified,
        body: Bytes,
        decrypted: bool,
    ) -> Result<http::Response<Body>, UpstreamProblem> {
        let mut url = self.base.clone();
        url.set_path(parts.uri.path());
        url.set_query(parts.uri.query());
        // URLs are normalised (`/a/../b`), and the container must get what was signed. That a few letters are
        // percent-encoded which need not be is no difference.
        let same = |sent: &str, signed: &str| decoded(sent) == decoded(signed);
        let (sent, signed) = (url.query().unwrap_or_default(), parts.uri.query().unwrap_or_default());
        if !same(url.path(), parts.uri.path()) || !same(sent, signed) {
            return Err(UpstreamProblem::Path);
        }
        let headers = outgoing(&parts.headers, verified, decrypted);
        let request = self.client.request(parts.method.clone(), url).headers(headers).body(body).send();
        match tokio::time::timeout(ANSWER_DEADLINE, request).await {
            Err(_) => Err(UpstreamProblem::Timeout),
            Ok(Err(error)) if error.is_timeout() && !error.is_connect() => Err(UpstreamProblem::Timeout),
            Ok(Err(_)) => Err(UpstreamProblem::Unreachable),
            Ok(Ok(response)) => {
                let (mut parts, body) = http::Response::<reqwest::Body>::from(response).into_parts();
                strip_hop_by_hop(&mut parts.headers);
                strip_own(&mut parts.headers);
                Ok(http::Response::from_parts(parts, body.map_err(BrokenOff::from).boxed_unsync()))
            }
        }
    }
}

/// The bytes that a percent-encoded text stands for.
fn decoded(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((first, tail)) = rest.split_first() {
        let escaped = tail.get(..2).filter(|_| *first == b'%').and_then(|digits| hex::decode(digits).ok());
        rest = if escaped.is_some() { &tail[2..] } else { tail };
        bytes.push(escaped.map_or(*first, |byte| byte[0]));
    }
    bytes
}

/// An address on which the container can be reached.
pub(crate) fn check_upstream(text: &str) -> Result<Url, ValueError> {
    let wrong = |expected: &str| ValueError::new("--axon-upstream", text, expected);
    let url = Url::parse(text).ok().filter(|url| url.scheme() == "http" && url.host().is_some());
    let url = url.ok_or_else(|| wrong("is not an address such as http://127.0.0.1:8000"))?;
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(wrong("has more than a host and a port: the path is that of each request"));
    }
    Ok(url)
}

fn outgoing(incoming: &HeaderMap, verified: &Verified, decrypted: bool) -> HeaderMap {
    let mut headers = incoming.clone();
    strip_hop_by_hop(&mut headers);
    strip_own(&mut headers);
    // Written anew for the body that is sent.
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        headers.remove(name);
    }
    if decrypted {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let own = [
        ("x-mycelium-hotkey", verified.proof.sender.to_string()),
        ("x-mycelium-uid", verified.uid.to_string()),
        ("x-mycelium-scheme", verified.proof.scheme.name().to_owned()),
    ];
    for (name, value) in own {
        let value = HeaderValue::from_str(&value).expect("addresses, numbers and names of schemes are ASCII");
        headers.insert(HeaderName::from_static(name), value);
    }
    headers
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

fn strip_own(headers: &mut HeaderMap) {
    // Some programs take `_` for `-`, so that both would arrive as one.
    let own = |name: &HeaderName| name.as_str().replace('_', "-").starts_with(OWN_PREFIX);
    let names: Vec<HeaderName> = headers.keys().filter(|name| own(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use sidecar_peer::handshake::Scheme;
    use sidecar_peer::handshake::receiver::Proof;
    use sidecar_util::Uid;

    use super::*;

    #[test]
    fn what_is_no_address_of_a_container_is_refused() {
        check_upstream("http://127.0.0.1:8000").unwrap();
        check_upstream("http://miner:8000/").unwrap();
        for bad in ["", "127.0.0.1:8000", "https://a:1", "http://", "http://a/path", "http://a?b", "http://u:p@a"] {
            let error = check_upstream(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--axon-upstream: `{bad}`")), "{error}");
        }
    }

    #[test]
    fn percent_encoding_makes_no_difference_and_everything_else_does() {
        let check =
            |one: &str, other: &str, same: bool| assert_eq!(decoded(one) == decoded(other), same, "{one} {other}");
        check("/a%27b", "/a'b", true);
        check("/a%2Fb", "/a%2fb", true);
        check("/a/../b", "/b", false);
        check("/100%", "/100%", true);
        check("/%zz%4", "/%zz%4", true);
        check("/a", "/A", false);
    }

    #[test]
    fn only_the_gate_says_who_sent_a_request() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-mycelium-hotkey", "forged"),
            ("x-mycelium-role", "admin"),
            ("x_mycelium_uid", "0"),
            ("connection", "close, x-secret"),
            ("x-secret", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("content-type", "application/octet-stream"),
            ("accept", "text/event-stream"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let proof = Proof { sender: [1; 32].into(), scheme: Scheme::Encrypted };
        let sent = outgoing(&headers, &Verified { proof: proof.clone(), uid: Uid(7) }, true);
        let mut pairs: Vec<(&str, &str)> =
            sent.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        pairs.sort_unstable();
        let hotkey = proof.sender.to_string();
        assert_eq!(
            pairs,
            [
                ("accept", "text/event-stream"),
                ("content-type", "application/json"),
                ("x-mycelium-hotkey", &hotkey),
                ("x-mycelium-scheme", "encrypted"),
                ("x-mycelium-uid", "7"),
            ]
        );
    }
}
