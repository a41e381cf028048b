//! Parameters in the forms that clients send: hex with and without `0x`, hashes that are absent or `null`.

use jsonrpsee::types::error::INVALID_PARAMS_CODE;
use jsonrpsee::types::params::ParamsSequence;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Answer, RpcFailure};
use crate::runtime::Hash;

/// Parameters of one call, read one after another.
pub(super) struct Args<'a>(ParamsSequence<'a>);

fn invalid(why: impl std::fmt::Display) -> RpcFailure {
    RpcFailure(ErrorObjectOwned::owned(INVALID_PARAMS_CODE, format!("Invalid params: {why}"), None::<()>))
}

impl<'a> Args<'a> {
    pub(super) fn new(params: &'a Params<'_>) -> Self {
        Self(params.sequence())
    }

    pub(super) fn required<V: DeserializeOwned>(&mut self) -> Answer<V> {
        self.0.next::<V>().map_err(|error| invalid(error.message()))
    }

    /// A parameter that may be missing or `null`.
    pub(super) fn optional<V: DeserializeOwned>(&mut self) -> Answer<Option<V>> {
        self.0.optional_next::<V>().map_err(|error| invalid(error.message()))
    }

    pub(super) fn bytes(&mut self) -> Answer<Vec<u8>> {
        from_hex(&self.required::<String>()?)
    }

    pub(super) fn optional_bytes(&mut self) -> Answer<Option<Vec<u8>>> {
        self.optional::<String>()?.map(|text| from_hex(&text)).transpose()
    }

    pub(super) fn hash(&mut self) -> Answer<Hash> {
        to_hash(&self.bytes()?)
    }

    pub(super) fn optional_hash(&mut self) -> Answer<Option<Hash>> {
        self.optional_bytes()?.map(|bytes| to_hash(&bytes)).transpose()
    }

    pub(super) fn list_of_bytes(&mut self) -> Answer<Vec<Vec<u8>>> {
        self.required::<Vec<String>>()?.iter().map(|text| from_hex(text)).collect()
    }
}

fn to_hash(bytes: &[u8]) -> Answer<Hash> {
    let fixed: [u8; 32] = bytes.try_into().map_err(|_| invalid(format!("a hash has 32 bytes, not {}", bytes.len())))?;
    Ok(fixed.into())
}

pub(super) fn from_hex(text: &str) -> Answer<Vec<u8>> {
    // With or without `0x`.
    const_hex::decode(text).map_err(|error| invalid(format!("{error} in hex")))
}

pub(super) fn to_hex(bytes: impl AsRef<[u8]>) -> String {
    const_hex::encode_prefixed(bytes)
}

/// A value as JSON.
pub(super) fn json(value: &impl Serialize) -> serde_json::Value {
    // Only maps with keys that are no strings fail to become JSON, and no answer has one.
    serde_json::to_value(value).unwrap_or(serde_json::Value::Null)
}
