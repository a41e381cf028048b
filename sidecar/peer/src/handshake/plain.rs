//! Fiber's signed requests without encryption (`fiber.validator` and `fiber.miner` since 2.0).
//!
//! A POST signs `{nonce}:{miner_hotkey}:{sha256 of the body}`, a GET without a body `{nonce}:{miner_hotkey}`. The hash is
//! of the bytes that are sent: Fiber hashes one serialisation and lets its HTTP client make another, which differ since
//! httpx 0.28. So what is signed here is a body, and never a value that somebody still has to serialise.

use sidecar_util::Hotkey;

use super::{Header, Sign, body_hash, signature_text};

/// Who sends.
pub const VALIDATOR_HOTKEY: &str = "validator-hotkey";
/// Who is meant to receive.
pub const MINER_HOTKEY: &str = "miner-hotkey";
/// `{nanoseconds}_{ten letters and digits}`
pub const NONCE: &str = "nonce";
/// `0x` and 128 hex digits.
pub const SIGNATURE: &str = "signature";

/// What is signed: `construct_header_signing_message` of `fiber.utils`.
pub fn message(nonce: &str, receiver: &str, payload_hash: Option<&str>) -> String {
    match payload_hash {
        Some(payload_hash) => format!("{nonce}:{receiver}:{payload_hash}"),
        None => format!("{nonce}:{receiver}"),
    }
}

/// The headers of a request with exactly this body, or of a GET without one, in Fiber's order.
pub fn headers(sign: &dyn Sign, receiver: &Hotkey, nonce: &str, body: Option<&[u8]>) -> Vec<Header> {
    headers_for_hash(sign, receiver, nonce, body.map(body_hash).as_deref())
}

/// The same for a body of which only the hash is known here.
pub fn headers_for_hash(sign: &dyn Sign, receiver: &Hotkey, nonce: &str, payload_hash: Option<&str>) -> Vec<Header> {
    let receiver = receiver.to_string();
    let signature = sign.sign(message(nonce, &receiver, payload_hash).as_bytes());
    vec![
        ("Content-Type", "application/json".to_owned()),
        (VALIDATOR_HOTKEY, sign.hotkey().to_string()),
        (MINER_HOTKEY, receiver),
        (NONCE, nonce.to_owned()),
        (SIGNATURE, signature_text(&signature)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::tests::key;

    #[test]
    fn headers_come_in_fibers_order_and_sign_the_bytes_that_are_sent() {
        let (sender, receiver) = (key(1), key(2).hotkey());
        let headers = headers(&sender, &receiver, "1_a", Some(br#"{"hi": "you"}"#));
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["Content-Type", "validator-hotkey", "miner-hotkey", "nonce", "signature"]);
        let hash = "c8f2b4d2f2b5a3d6";
        assert_ne!(body_hash(br#"{"hi":"you"}"#), body_hash(br#"{"hi": "you"}"#));
        assert_eq!(message("1_a", "5F", Some(hash)), format!("1_a:5F:{hash}"));
        assert_eq!(message("1_a", "5F", None), "1_a:5F");
    }
}
