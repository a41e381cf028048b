//! The chain past the sidecar and its client: JSON-RPC by hand, with SCALE by hand, so that what is compared shares no code.

use std::net::TcpStream;

use serde_json::{Value, json};
use sidecar_metagraph::keys::HotkeyPair;
use sidecar_util::{BlockHash, Hotkey};

use super::pod::exchange;

/// Index of the pallet of subnets, as on the public chain.
const SUBTENSOR: u8 = 7;

/// A payload that is longer is signed as its hash.
const PAYLOAD_BYTES_MAX: usize = 256;

/// JSON-RPC of a chain.
pub(crate) struct Rpc<'a> {
    pub(crate) address: &'a str,
    pub(crate) genesis_hash: BlockHash,
}

/// What validators set, or what bonds they have: uid and value.
pub(crate) type Row = Vec<(u16, u16)>;

impl Rpc<'_> {
    fn ask(&self, method: &str, params: &Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let stream = TcpStream::connect(self.address).unwrap();
        let headers = [("Content-Type".to_owned(), "application/json".to_owned())];
        let (_, _, answer) = exchange(stream, "POST", "/", &headers, body.as_bytes()).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert!(answer["error"].is_null(), "{method} {params}: {answer}");
        answer["result"].clone()
    }

    /// Hash of a block by its number.
    pub(crate) fn block_hash(&self, block: u64) -> String {
        self.ask("chain_getBlockHash", &json!([block])).as_str().unwrap().to_owned()
    }

    /// Every extrinsic of every block that an account signed, with its block.
    pub(crate) fn signed_by(&self, account: &Hotkey) -> Vec<(u64, Vec<u8>)> {
        let header = self.ask("chain_getHeader", &json!([]));
        let last = u64::from_str_radix(header["number"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
        // Signed, version 4, by an account id.
        let head = [&[0x84, 0][..], account.as_bytes()].concat();
        let mut found = Vec::new();
        for block in 0..=last {
            let body = self.ask("chain_getBlock", &json!([self.block_hash(block)]));
            for extrinsic in body["block"]["extrinsics"].as_array().unwrap() {
                let bytes = unhex(extrinsic);
                // Behind its length, which takes one, two or four bytes.
                if [1, 2, 4].iter().any(|length| bytes.get(*length..).is_some_and(|rest| rest.starts_with(&head))) {
                    found.push((block, bytes));
                }
            }
        }
        found
    }

    /// Extrinsics of an account that are in blocks.
    pub(crate) fn nonce(&self, account: &str) -> u64 {
        let found = self.ask("state_call", &json!(["AccountNonceApi_account_nonce", hex(bytes_of(account))]));
        u64::from(u32::from_le_bytes(unhex(&found).try_into().unwrap()))
    }

    /// Weights and bonds of a neuron at a block, as the runtime tells them.
    pub(crate) fn weights_and_bonds(&self, uid: u16, block_hash: &str) -> (Row, Row) {
        let arguments = [1_u16.to_le_bytes(), uid.to_le_bytes()].concat();
        let found = self.ask("state_call", &json!(["NeuronInfoRuntimeApi_get_neuron", hex(&arguments), block_hash]));
        let bytes = unhex(&found);
        let mut scale = Scale(&bytes);
        assert_eq!(scale.take(1), [1], "no neuron {uid} at {block_hash}");
        // Hotkey, coldkey, uid, netuid, active; axon: block, version, ip, port, four bytes; where metrics are.
        scale.take(64);
        assert_eq!((scale.compact(), scale.compact()), (uid.into(), 1));
        scale.take(1 + (8 + 4 + 16 + 2 + 4) + (8 + 4 + 16 + 2 + 1));
        for _ in 0..scale.compact() {
            scale.take(32);
            scale.compact();
        }
        // Rank, emission, incentive, consensus, trust, validator trust, dividends, last update; permit.
        for _ in 0..8 {
            scale.compact();
        }
        scale.take(1);
        let (weights, bonds) = (scale.row(), scale.row());
        scale.compact();
        assert!(scale.0.is_empty(), "{} bytes too many", scale.0.len());
        (weights, bonds)
    }

    /// Signs a call of the pallet of subnets and sends it.
    pub(crate) fn submit(&self, pair: &HotkeyPair, call_index: u8, arguments: &[u8]) {
        let version = self.ask("state_getRuntimeVersion", &json!([]));
        let number = |name: &str| u32::try_from(version[name].as_u64().unwrap()).unwrap().to_le_bytes();
        let call = [&[SUBTENSOR, call_index], arguments].concat();
        // Immortal; nonce; no tip; no hash of the metadata.
        let nonce = self.nonce(&pair.hotkey().to_string());
        let extra = [&[0][..], &compact(nonce), &[0], &[0]].concat();
        let genesis_hash = self.genesis_hash.0;
        let (spec, transaction) = (number("specVersion"), number("transactionVersion"));
        let payload = [&call[..], &extra, &spec, &transaction, &genesis_hash, &genesis_hash, &[0]].concat();
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "give shorter arguments");
        let signature = pair.sign(&payload);
        // Version 4, signed; an account's address; a signature of sr25519.
        let signed = [&[0x84, 0][..], pair.hotkey().as_bytes(), &[1], &signature, &extra, &call].concat();
        self.ask("author_submitExtrinsic", &json!([hex([compact(signed.len() as u64), signed].concat())]));
    }
}

/// Texts as a call takes them.
pub(crate) fn texts(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| [compact(text.len() as u64), text.as_bytes().to_vec()].concat()).collect()
}

/// Numbers as a call takes them.
pub(crate) fn numbers(numbers: &[u16]) -> Vec<u8> {
    [compact(numbers.len() as u64), numbers.iter().flat_map(|number| number.to_le_bytes()).collect()].concat()
}

/// Up to 2^30, which is more than anything here.
fn compact(number: u64) -> Vec<u8> {
    match number {
        0..64 => vec![u8::try_from(number << 2).unwrap()],
        64..16_384 => u16::try_from(number << 2 | 1).unwrap().to_le_bytes().to_vec(),
        _ => u32::try_from(number << 2 | 2).unwrap().to_le_bytes().to_vec(),
    }
}

/// Bytes that are read from the front.
struct Scale<'a>(&'a [u8]);

impl<'a> Scale<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn compact(&mut self) -> u64 {
        let first = self.0[0];
        let length = match first & 3 {
            0 => 1,
            1 => 2,
            2 => 4,
            _ => usize::from(first >> 2) + 5,
        };
        let bytes = self.take(length);
        let (bytes, shift) = if first & 3 == 3 { (&bytes[1..], 0) } else { (bytes, 2) };
        bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)) >> shift
    }

    fn row(&mut self) -> Row {
        let mut number = || u16::try_from(self.compact()).unwrap();
        let count = number();
        (0..count).map(|_| (number(), number())).collect()
    }
}

fn bytes_of(account: &str) -> Vec<u8> {
    account.parse::<Hotkey>().unwrap().as_bytes().to_vec()
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    format!("0x{}", hex::encode(bytes))
}

fn unhex(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap().trim_start_matches("0x")).unwrap()
}
