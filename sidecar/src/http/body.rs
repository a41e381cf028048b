//! Bodies of requests, read whole and within limits before a handler is asked.
//!
//! Who sends a body slowly, without end, or of a kind that nobody takes is refused here, whatever the handler: it only ever
//! sees a body that is there.

use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt as _, Full};

use super::Problem;

/// Largest body of most paths. The largest that anybody has a reason to send are the weights of a whole subnet, some 30 kB.
pub(crate) const BYTES_MAX: usize = 256 * 1024;

/// Time for a whole body: it comes through a socket of this machine, or in a few packets.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// The same request with its body in memory.
pub(crate) async fn read<B>(request: Request<B>, bytes_max: usize) -> Result<Request<Full<Bytes>>, Problem>
where
    B: hyper::body::Body + Send + Sync + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let declared = body.size_hint().exact();
    if declared.is_some_and(|length| length > bytes_max as u64) {
        return Err(Problem::BodyTooLarge { bytes_max });
    }
    if declared != Some(0) {
        check_type(&head.headers)?;
    }
    let whole = tokio::time::timeout(DEADLINE, collect(body, bytes_max)).await.map_err(|_| Problem::BodyTimeout)??;
    Ok(Request::from_parts(head, Full::new(whole)))
}

async fn collect<B>(body: B, bytes_max: usize) -> Result<Bytes, Problem>
where
    B: hyper::body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut body, mut whole) = (pin!(body), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Problem::InvalidBody(format!("the body broke off: {}", error.into())))?;
        // Trailers say nothing that any handler asks for.
        let Ok(mut data) = frame.into_data() else { continue };
        if whole.len() + data.remaining() > bytes_max {
            return Err(Problem::BodyTooLarge { bytes_max });
        }
        whole.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    Ok(whole.freeze())
}

/// JSON in UTF-8, or nothing said about the charset.
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Err(Problem::UnsupportedMediaType { found: "none".to_owned() });
    };
    let found = String::from_utf8_lossy(value.as_bytes());
    let mut parts = found.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    let is_utf8 = parts.filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| {
        !name.eq_ignore_ascii_case("charset") || value.trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    if is_json && is_utf8 {
        return Ok(());
    }
    Err(Problem::UnsupportedMediaType { found: found.chars().take(80).collect() })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{StreamExt as _, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    fn post(content_type: &str) -> http::request::Builder {
        Request::post("/").header(header::CONTENT_TYPE, content_type)
    }

    #[tokio::test]
    async fn only_json_in_utf_8_is_taken_and_nothing_at_all() {
        for content_type in
            ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""]
        {
            let request = post(content_type).body(Full::new(Bytes::from_static(b"{}"))).unwrap();
            assert!(read(request, BYTES_MAX).await.is_ok(), "{content_type}");
        }
        for content_type in ["text/plain", "application/json; charset=latin-1", "application/jsonp", ""] {
            let request = post(content_type).body(Full::new(Bytes::from_static(b"{}"))).unwrap();
            assert!(
                matches!(read(request, BYTES_MAX).await, Err(Problem::UnsupportedMediaType { .. })),
                "{content_type}"
            );
        }
        let request = Request::post("/").body(Full::new(Bytes::from_static(b"{}"))).unwrap();
        assert!(matches!(read(request, BYTES_MAX).await, Err(Problem::UnsupportedMediaType { .. })));
        let request = Request::post("/").body(Full::new(Bytes::new())).unwrap();
        assert!(read(request, BYTES_MAX).await.is_ok(), "no body has no type");
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_without_end_end() {
        let frame = || Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b' '; 4096])));
        let body = StreamBody::new(stream::repeat_with(frame));
        let refused = read(post("application/json").body(body).unwrap(), BYTES_MAX).await;
        assert!(matches!(refused, Err(Problem::BodyTooLarge { bytes_max: BYTES_MAX })), "{refused:?}");

        let slow = stream::repeat(()).then(|()| tokio::time::sleep(Duration::from_secs(1)));
        let body = StreamBody::new(slow.map(|()| Ok::<_, Infallible>(Frame::data(Bytes::from_static(b" ")))));
        let refused = read(post("application/json").body(body).unwrap(), BYTES_MAX).await;
        assert!(matches!(refused, Err(Problem::BodyTimeout)), "{refused:?}");
    }

    #[tokio::test]
    async fn a_length_that_is_too_large_is_refused_unread() {
        let body = Full::new(Bytes::from(vec![b' '; BYTES_MAX + 1]));
        let refused = read(post("application/json").body(body).unwrap(), BYTES_MAX).await;
        assert!(matches!(refused, Err(Problem::BodyTooLarge { .. })), "{refused:?}");
    }
}
