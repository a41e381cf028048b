//! What handlers need to know of a request beside its path, read once before they are asked.

use std::convert::Infallible;
use std::sync::Arc;

use http::{HeaderMap, Uri, header};
use warp::Filter;

use super::gzip;

/// Parts of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// Its query, as it came.
    pub(crate) query: Option<Arc<str>>,
    /// The tags of what the client holds, as they came.
    if_none_match: Option<Arc<str>>,
    /// Whether it takes gzip.
    pub(crate) gzip: bool,
}

impl Asked {
    pub(crate) fn of(uri: &Uri, headers: &HeaderMap) -> Self {
        let known: Vec<&str> =
            headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).collect();
        Self {
            query: uri.query().map(Into::into),
            if_none_match: (!known.is_empty()).then(|| known.join(",").into()),
            gzip: headers.contains_key(header::ACCEPT_ENCODING) && gzip::is_accepted(headers),
        }
    }

    /// Whether the client holds this already. Tags are compared weakly: what they name is the content, however it is coded.
    pub(crate) fn holds(&self, etag: &str) -> bool {
        let opaque = |tag: &str| tag.trim().strip_prefix("W/").unwrap_or(tag.trim()).to_owned();
        let wanted = opaque(etag);
        // None of our tags has a comma, so a foreign one that has cannot be mistaken for one of them.
        self.if_none_match
            .as_ref()
            .is_some_and(|known| known.split(',').any(|tag| tag.trim() == "*" || opaque(tag) == wanted))
    }
}

/// The parts of this request.
pub(crate) fn asked() -> impl Filter<Extract = (Asked,), Error = Infallible> + Copy {
    warp::ext::optional::<Asked>().map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_weakly_and_a_star_holds_everything() {
        let holds = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_NONE_MATCH, value.parse().unwrap());
            }
            Asked::of(&Uri::from_static("/"), &headers).holds("W/\"0xab-1\"")
        };
        for values in
            [&["*"][..], &["W/\"0xab-1\""], &["\"0xab-1\""], &["\"x\" , W/\"0xab-1\""], &["\"x\"", "\"0xab-1\""]]
        {
            assert!(holds(values), "{values:?}");
        }
        for values in [&[][..], &[""], &["\"0xab-2\""], &["0xab-1"], &["w/\"0xab-1\""], &["\"0xab-1"]] {
            assert!(!holds(values), "{values:?}");
        }
    }
}
