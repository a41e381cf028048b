//! The connection to a chain: reads, signing, submission.

use anyhow::{Context, bail, ensure};
use codec::{Decode, Encode};
use frame_system::{EventRecord, Phase};
use jsonrpsee::core::client::{ClientT, Subscription, SubscriptionClientT};
use jsonrpsee::core::params::ArrayParams;
use jsonrpsee::rpc_params;
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};
use serde_json::Value;
use sp_core::{Pair, sr25519};
use sp_runtime::MultiAddress;
use sp_runtime::generic::Era;
use sp_runtime::traits::{BlakeTwo256, Hash as _};

use crate::keys;
use crate::runtime::{
    AccountId, Hash, Header, RuntimeCall, RuntimeEvent, SignedPayload, UncheckedExtrinsic, VERSION, tx_extension,
};

/// Blocks for which an extrinsic may be included.
const ERA_BLOCKS: u64 = 64;

/// Bytes of an answer that the client takes.
const MAX_RESPONSE_BYTES: u32 = 128 * 1024 * 1024;

/// How long an answer may take.
const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// What became of an extrinsic.
#[derive(Debug)]
pub struct Inclusion {
    /// Hash of the extrinsic.
    pub extrinsic: Hash,
    /// Number of its block.
    pub number: u32,
    /// Hash of its block.
    pub block: Hash,
    /// Events it caused.
    pub events: Vec<RuntimeEvent>,
}

/// A connection to a development chain.
pub struct Connection {
    client: WsClient,
    genesis: Hash,
}

impl Connection {
    /// Connects to the WebSocket endpoint of a chain.
    ///
    /// # Errors
    /// When nothing listens there or it has another runtime.
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        let client = WsClientBuilder::default()
            .max_response_size(MAX_RESPONSE_BYTES)
            .request_timeout(REQUEST_TIMEOUT)
            .build(url)
            .await
            .with_context(|| format!("cannot connect to {url}: is mycelium-devchain running? --url names another"))?;
        let genesis: Hash = client.request("chain_getBlockHash", rpc_params![0]).await?;
        let version: Value = client.request("state_getRuntimeVersion", rpc_params![]).await?;
        let (name, spec) = (version["specName"].as_str(), version["specVersion"].as_u64());
        ensure!(
            name == Some(&VERSION.spec_name) && spec == Some(u64::from(VERSION.spec_version)),
            "{url} runs {version}, but this program knows {} {} only: use the same version of both",
            VERSION.spec_name,
            VERSION.spec_version
        );
        Ok(Self { client, genesis })
    }

    /// Calls any method.
    ///
    /// # Errors
    /// What the server answers.
    pub async fn request<V: serde::de::DeserializeOwned>(
        &self,
        method: &str,
        params: ArrayParams,
    ) -> anyhow::Result<V> {
        self.client.request(method, params).await.map_err(explain)
    }

    /// Calls a runtime API.
    ///
    /// # Errors
    /// What the server answers, or an answer of another type.
    pub async fn runtime<V: Decode>(&self, method: &str, args: &impl Encode) -> anyhow::Result<V> {
        let data = format!("0x{}", hex::encode(args.encode()));
        let answer: String = self.request("state_call", rpc_params![method, data]).await?;
        decode_hex(&answer).with_context(|| format!("cannot read the answer of {method}"))
    }

    /// Reads a storage value, at a block or at the best one.
    ///
    /// # Errors
    /// What the server answers, or a value of another type.
    pub async fn storage<V: Decode>(&self, key: &[u8], at: Option<Hash>) -> anyhow::Result<Option<V>> {
        let key = format!("0x{}", hex::encode(key));
        let value: Option<String> = self.request("state_getStorage", rpc_params![key, at]).await?;
        value.map(|value| decode_hex(&value)).transpose()
    }

    /// Signs a call with the account's next nonce.
    ///
    /// # Errors
    /// When the chain cannot be read.
    pub async fn sign(&self, call: RuntimeCall, signer: &sr25519::Pair) -> anyhow::Result<UncheckedExtrinsic> {
        let account = keys::account_of(signer);
        let nonce: u32 = self.request("system_accountNextIndex", rpc_params![keys::address(&account)]).await?;
        self.sign_with_nonce(call, signer, nonce).await
    }

    /// Signs a call with a nonce.
    ///
    /// # Errors
    /// When the chain cannot be read.
    pub async fn sign_with_nonce(
        &self,
        call: RuntimeCall,
        signer: &sr25519::Pair,
        nonce: u32,
    ) -> anyhow::Result<UncheckedExtrinsic> {
        let finalized: Hash = self.request("chain_getFinalizedHead", rpc_params![]).await?;
        let header: Header = self.request("chain_getHeader", rpc_params![finalized]).await?;
        let number = u64::from(header.number);
        let era = Era::mortal(ERA_BLOCKS, number);
        let birth: Hash = self.request("chain_getBlockHash", rpc_params![era.birth(number)]).await?;
        Ok(sign(call, signer, era, nonce, self.genesis, birth))
    }

    /// Submits an extrinsic and waits until a block holds it.
    ///
    /// # Errors
    /// Why the pool refuses it, or what else became of it.
    pub async fn submit(&self, extrinsic: &UncheckedExtrinsic) -> anyhow::Result<Inclusion> {
        let bytes = extrinsic.encode();
        let hex = format!("0x{}", hex::encode(&bytes));
        let mut updates: Subscription<Value> = self
            .client
            .subscribe("author_submitAndWatchExtrinsic", rpc_params![hex], "author_unwatchExtrinsic")
            .await
            .map_err(explain)?;
        while let Some(update) = updates.next().await {
            let update = update?;
            if let Some(block) = update.get("inBlock").or_else(|| update.get("finalized")) {
                let block: Hash = serde_json::from_value(block.clone())?;
                return self.inclusion(block, &bytes).await;
            }
            match update.as_str() {
                Some("ready" | "broadcast") => {}
                Some("future") => {
                    bail!("the extrinsic waits for another one with a lower nonce: it may never be included")
                }
                _ => bail!("the extrinsic was not included: {update}"),
            }
        }
        bail!("the connection closed before the extrinsic was included")
    }

    async fn inclusion(&self, block: Hash, extrinsic: &[u8]) -> anyhow::Result<Inclusion> {
        let body: Value = self.request("chain_getBlock", rpc_params![block]).await?;
        let header: Header = serde_json::from_value(body["block"]["header"].clone())?;
        let hex = format!("0x{}", hex::encode(extrinsic));
        let extrinsics = body["block"]["extrinsics"].as_array().context("the block has no extrinsics")?;
        let index = extrinsics.iter().position(|known| known.as_str() == Some(&hex));
        let index = u32::try_from(index.context("the block does not hold the extrinsic")?)?;
        let key = frame_support::storage::storage_prefix(b"System", b"Events");
        let records: Vec<Box<EventRecord<RuntimeEvent, Hash>>> =
            self.storage(&key, Some(block)).await?.unwrap_or_default();
        let events = records
            .into_iter()
            .filter(|record| record.phase == Phase::ApplyExtrinsic(index))
            .map(|record| record.event)
            .collect();
        Ok(Inclusion { extrinsic: BlakeTwo256::hash(extrinsic), number: header.number, block, events })
    }
}

/// Signs a call. `birth` is the hash of the block at which the era starts.
pub(super) fn sign(
    call: RuntimeCall,
    signer: &sr25519::Pair,
    era: Era,
    nonce: u32,
    genesis: Hash,
    birth: Hash,
) -> UncheckedExtrinsic {
    let extension = tx_extension(era, nonce, 0);
    let implicit =
        (((), VERSION.spec_version, VERSION.transaction_version, genesis, birth, (), ()), ((), (), (), (), (), None));
    let payload = SignedPayload::from_raw(call.clone(), extension.clone(), implicit);
    let signature = payload.using_encoded(|bytes| signer.sign(bytes));
    let address = MultiAddress::Id(AccountId::new(signer.public().0));
    UncheckedExtrinsic::new_signed(call, address, signature.into(), extension)
}

fn decode_hex<V: Decode>(text: &str) -> anyhow::Result<V> {
    let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(text))?;
    Ok(V::decode(&mut bytes.as_slice())?)
}

/// An error of the server with its data, which names the reason.
fn explain(error: jsonrpsee::core::ClientError) -> anyhow::Error {
    match error {
        jsonrpsee::core::ClientError::Call(error) => {
            let data = error.data().map(|data| format!(": {}", data.get())).unwrap_or_default();
            anyhow::anyhow!("{} {}{data}", error.code(), error.message())
        }
        other => other.into(),
    }
}
