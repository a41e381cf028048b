//! Whether a client takes gzip, and gzip.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, header};

/// Smaller bodies fit into one packet as they are.
pub(crate) const BYTES_MIN: usize = 1400;

/// Larger bodies are compressed where they hold up nobody. A body of this size takes about a millisecond.
pub(crate) const BYTES_INLINE_MAX: usize = 32 * 1024;

/// Addresses of random bytes do not compress; the rest does at the first level already, ten times as fast as at the last.
const LEVEL: Compression = Compression::new(3);

/// Compresses.
pub(crate) fn compress(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 2), LEVEL);
    encoder.write_all(plain).expect("writing to a vector never fails");
    encoder.finish().expect("writing to a vector never fails").into()
}

/// Whether a request wants gzip (RFC 9110, 12.5.3): named, or meant by `*`, with a weight above 0, and not less wanted than
/// no coding at all.
pub(crate) fn is_accepted(headers: &HeaderMap) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, None);
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        let Ok(value) = value.to_str() else { return false };
        for coding in value.split(',') {
            let (name, weight) =
                coding.split_once(';').map_or((coding, Some(1000)), |(name, rest)| (name, weight(rest)));
            let Some(weight) = weight else { continue };
            let name = name.trim();
            if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
                gzip = Some(weight);
            } else if name.eq_ignore_ascii_case("identity") {
                identity = Some(weight);
            } else if name == "*" {
                any = Some(weight);
            }
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && identity.is_none_or(|identity| identity <= gzip)
}

/// Thousandths of `q=0.5`; `None` when it is no weight.
fn weight(parameter: &str) -> Option<u16> {
    let value = parameter.trim().strip_prefix(['q', 'Q'])?.trim_start().strip_prefix('=')?.trim();
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let known = matches!(whole, "0" | "1") && fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths: u16 = format!("{fraction:0<3}").parse().ok().filter(|_| known)?;
    Some((thousandths + if whole == "1" { 1000 } else { 0 }).min(1000))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use http::HeaderValue;

    use super::*;

    fn accepted(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        is_accepted(&headers)
    }

    #[test]
    fn gzip_is_sent_to_those_who_want_it() {
        for values in [
            &["gzip"][..],
            &["GZIP"],
            &["br, gzip"],
            &["br", "gzip;q=0.5"],
            &["*"],
            &["gzip; q = 1.000"],
            &["identity;q=0.5, gzip;q=0.5"],
        ] {
            assert!(accepted(values), "{values:?}");
        }
        for values in [
            &[][..],
            &[""],
            &["br"],
            &["gzip;q=0"],
            &["gzip;q=0.000, *"],
            &["*;q=0"],
            &["identity, gzip;q=0.9"],
            &["gzip;q=2"],
            &["gzip;q=-1"],
            &["gzip;level=9"],
            &["\u{fc}"],
            &["gzipp"],
        ] {
            assert!(!accepted(values), "{values:?}");
        }
    }

    #[test]
    fn what_is_compressed_reads_back() {
        let plain = b"0123456789".repeat(1000);
        let gzipped = compress(&plain);
        let mut back = vec![];
        GzDecoder::new(&*gzipped).read_to_end(&mut back).unwrap();
        assert!(back == plain && gzipped.len() < plain.len() / 10);
    }
}
