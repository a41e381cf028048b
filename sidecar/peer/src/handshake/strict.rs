//! `mycelium-v1`: everything that a request says is signed.
//!
//! The canonical string has nine lines, each ended by a line feed but the last:
//!
//! ```text
//! mycelium-v1
//! POST                                                              method, upper case
//! /v1/chat                                                          path as sent, percent-encoding untouched
//! model=a&stream=1                                                  query as sent, without `?`; empty where there is none
//! 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae  SHA-256 of the body, of nothing where there is none
//! 5Grw...                                                           sender
//! 5FHn...                                                           receiver
//! 1764000000123                                                     time in milliseconds since 1970
//! 00112233445566778899aabbccddeeff                                  nonce: 16 random bytes in hex
//! ```
//!
//! No part can hold a line feed, so that two requests never have the same string. The first line keeps a signature from
//! meaning anything elsewhere. A receiver takes a nonce once and refuses times more than [`WINDOW`] away.
//!
//! An answer may be signed too: status, body, and the request it answers, so that it can be given to no other request.

use std::time::Duration;

use rand::RngCore;
use sidecar_util::Hotkey;

use super::{Header, Sign, UnixTime, body_hash, parse_signature, signature_text};
use crate::handshake::signatures::{PublicKeys, Statement};

/// Name of the scheme: value of [`SCHEME`] and first line of what is signed.
pub const VERSION: &str = "mycelium-v1";

/// First line of what is signed of an answer.
const RESPONSE: &str = "mycelium-response-v1";

/// How far the time of a request may be from the receiver's clock.
pub const WINDOW: Duration = Duration::from_mins(1);

/// Which scheme.
pub const SCHEME: &str = "mycelium-scheme";
/// SS58 address of who sends.
pub const SENDER: &str = "mycelium-sender";
/// SS58 address of who is meant to receive.
pub const RECEIVER: &str = "mycelium-receiver";
/// Milliseconds since 1970.
pub const TIME: &str = "mycelium-time";
/// 16 random bytes in hex.
pub const NONCE: &str = "mycelium-nonce";
/// `0x` and 128 hex digits.
pub const SIGNATURE: &str = "mycelium-signature";
/// Signature of an answer.
pub const RESPONSE_SIGNATURE: &str = "mycelium-response-signature";

/// What a request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLine<'a> {
    /// Upper case.
    pub method: &'a str,
    /// As sent.
    pub path: &'a str,
    /// As sent, without `?`.
    pub query: &'a str,
}

/// The string that is signed.
pub fn message(
    request: RequestLine<'_>,
    body_hash: &str,
    sender: &str,
    receiver: &str,
    time: UnixTime,
    nonce: &str,
) -> String {
    let RequestLine { method, path, query } = request;
    let time = time.millis();
    format!("{VERSION}\n{method}\n{path}\n{query}\n{body_hash}\n{sender}\n{receiver}\n{time}\n{nonce}")
}

/// A new nonce.
pub fn nonce(random: &mut impl RngCore) -> String {
    let mut bytes = [0; 16];
    random.fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// Whether this is a nonce of the scheme.
pub fn is_nonce(nonce: &str) -> bool {
    nonce.len() == 32 && nonce.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// The headers of a request with a body of this hash.
pub fn headers(
    sign: &dyn Sign,
    receiver: &Hotkey,
    request: RequestLine<'_>,
    body_hash: &str,
    now: UnixTime,
    nonce: &str,
) -> Vec<Header> {
    let (sender, receiver) = (sign.hotkey().to_string(), receiver.to_string());
    let signature = sign.sign(message(request, body_hash, &sender, &receiver, now, nonce).as_bytes());
    vec![
        (SCHEME, VERSION.to_owned()),
        (SENDER, sender),
        (RECEIVER, receiver),
        (TIME, now.millis().to_string()),
        (NONCE, nonce.to_owned()),
        (SIGNATURE, signature_text(&signature)),
    ]
}

/// The string that is signed of an answer to the request with this nonce.
pub fn response_message(status: u16, body_hash: &str, sender: &str, receiver: &str, nonce: &str) -> String {
    format!("{RESPONSE}\n{status}\n{body_hash}\n{sender}\n{receiver}\n{nonce}")
}

/// The header with which a receiver signs its answer to `sender`.
pub fn response_header(sign: &dyn Sign, sender: &Hotkey, nonce: &str, status: u16, body: &[u8]) -> Header {
    let (sender, receiver) = (sender.to_string(), sign.hotkey().to_string());
    let message = response_message(status, &body_hash(body), &sender, &receiver, nonce);
    (RESPONSE_SIGNATURE, signature_text(&sign.sign(message.as_bytes())))
}

/// Whether `receiver` signed this answer to the request that `sender` sent with this nonce.
pub fn response_is_signed(
    sender: &Hotkey,
    receiver: &Hotkey,
    nonce: &str,
    status: u16,
    body: &[u8],
    signature: &str,
) -> bool {
    let message = response_message(status, &body_hash(body), &sender.to_string(), &receiver.to_string(), nonce);
    let statement = parse_signature(signature)
        .and_then(|signature| Statement::new(&PublicKeys::new(), receiver, message.into_bytes(), &signature));
    statement.is_some_and(|statement| statement.holds())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::tests::key;

    #[test]
    fn the_canonical_string_is_as_documented() {
        let request = RequestLine { method: "POST", path: "/v1/chat", query: "a=b" };
        let text = message(request, &body_hash(b"foo"), "5S", "5R", UnixTime::from_millis(1_764_000_000_123), "ab");
        let hash = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
        assert_eq!(text, format!("mycelium-v1\nPOST\n/v1/chat\na=b\n{hash}\n5S\n5R\n1764000000123\nab"));
    }

    #[test]
    fn an_answer_is_signed_for_one_request_only() {
        let (sender, receiver) = (key(1).hotkey(), key(2));
        let (name, signature) = response_header(&receiver, &sender, "ab", 200, b"body");
        assert_eq!(name, "mycelium-response-signature");
        let receiver = receiver.hotkey();
        assert!(response_is_signed(&sender, &receiver, "ab", 200, b"body", &signature));
        for (sender, nonce, status, body) in [
            (&receiver, "ab", 200, &b"body"[..]),
            (&sender, "ac", 200, b"body"),
            (&sender, "ab", 201, b"body"),
            (&sender, "ab", 200, b"bodies"),
        ] {
            assert!(!response_is_signed(sender, &receiver, nonce, status, body, &signature));
        }
        assert!(!response_is_signed(&sender, &receiver, "ab", 200, b"body", "0x00"));
    }
}
