//! One connection to one node, with the questions that a submission needs answered.
//!
//! Separate from the querier's connection: a submission asks at other times and must not wait behind a metagraph. The
//! runtime's version is asked for with every block, never remembered: a signature by yesterday's metadata is a refused
//! extrinsic at best.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use sidecar_util::{BlockHash, Hotkey};
use subxt::backend::{BlockRef, LegacyBackend};
use subxt::client::OnlineClientAtBlock;
use subxt::config::substrate::{H256, SubstrateHeader};
use subxt::config::{DefaultExtrinsicParamsBuilder, Hasher, RpcConfigFor};
use subxt::error::DispatchError;
use subxt::events::Phase;
use subxt::ext::codec::{Decode, Encode};
use subxt::ext::scale_decode::DecodeAsType;
use subxt::ext::scale_value::Composite;
use subxt::rpcs::{LegacyRpcMethods, RpcClient};
use subxt::{Config, OnlineClient};

use super::call::Call;
use super::failure::Refusal;
use super::journal::{CallResult, ChainEvent, ExtrinsicHash};
use crate::ChainError;
use crate::client::check_endpoint;
use crate::keys::HotkeyPair;
use crate::pace::Pace;
use crate::queries::SLOT_DURATION;
use crate::rpc::{CALL_DEADLINE, Rpc, refused};
use crate::source::Head;

/// Shortest deadline of a call, for chains with blocks of milliseconds.
const CALL_DEADLINE_MIN: Duration = Duration::from_secs(3);

/// Blocks without an answer after which a call is given up: a node that is silent for so long has lost its place anyway.
const CALL_DEADLINE_BLOCKS: u32 = 3;

/// Blocks whose extrinsics are remembered: the longest era, twice, and what is not final yet.
const BLOCKS_KEPT: usize = 512;

/// Storage key of `System.Events`: twox128 of both names.
const EVENTS_KEY: [u8; 32] = [
    0x26, 0xaa, 0x39, 0x4e, 0xea, 0x56, 0x30, 0xe0, 0x7c, 0x48, 0xae, 0x0c, 0x95, 0x58, 0xce, 0xf7, 0x80, 0xd4, 0x1e,
    0x5e, 0x16, 0x05, 0x67, 0x65, 0xbc, 0x84, 0x61, 0x85, 0x10, 0x72, 0xc9, 0xd7,
];

/// Stock settings, which remember no version: subxt asks for it at every block.
type ChainConfig = subxt::PolkadotConfig;
pub(crate) type AtBlock = OnlineClientAtBlock<ChainConfig>;
type Header = SubstrateHeader<H256>;

/// The chain as it is now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tips {
    pub(crate) best: Head,
    pub(crate) finalized: Head,
}

/// A block's extrinsics, in order.
#[derive(Debug)]
struct Body {
    number: u64,
    parent: H256,
    extrinsics: Vec<H256>,
}

/// An extrinsic found in a block of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) block: Head,
    pub(crate) index: usize,
    pub(crate) hash: ExtrinsicHash,
}

/// A signed extrinsic.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) hash: ExtrinsicHash,
    pub(crate) birth: u64,
    pub(crate) death: u64,
}

/// Why nothing was signed.
#[derive(Debug)]
pub(crate) enum SignError {
    Chain(ChainError),
    /// The runtime does not take the call.
    NotOffered(String),
}

/// See the module.
pub(crate) struct Link {
    methods: LegacyRpcMethods<RpcConfigFor<ChainConfig>>,
    client: OnlineClient<ChainConfig>,
    hasher: <ChainConfig as Config>::Hasher,
    pub(crate) endpoint: String,
    pub(crate) genesis_hash: BlockHash,
    pub(crate) block_time: Option<Duration>,
    bodies: parking_lot::Mutex<BTreeMap<H256, Arc<Body>>>,
}

impl Link {
    pub(crate) async fn connect(endpoint: &str, pace: Arc<Pace>) -> Result<Self, ChainError> {
        check_endpoint(endpoint)?;
        let connection = Rpc::connect(endpoint, pace).await?.insisting();
        let rpc = RpcClient::new(connection.clone());
        let methods = LegacyRpcMethods::new(rpc.clone());
        let backend = LegacyBackend::<ChainConfig>::builder().build(rpc);
        let client = OnlineClient::from_backend_with_config(ChainConfig::new(), Arc::new(backend)).await;
        let client = client.map_err(refused("the genesis hash"))?;
        let at = client.at_current_block().await.map_err(refused("the runtime's metadata"))?;
        let block_time = block_time(&at);
        if let Some(time) = block_time {
            connection.set_deadline((time * CALL_DEADLINE_BLOCKS).clamp(CALL_DEADLINE_MIN, CALL_DEADLINE));
        }
        Ok(Self {
            hasher: *at.hasher(),
            genesis_hash: BlockHash(client.genesis_hash().0),
            endpoint: endpoint.to_owned(),
            bodies: parking_lot::Mutex::default(),
            block_time,
            methods,
            client,
        })
    }

    async fn header(&self, hash: Option<H256>) -> Result<(Head, Header), ChainError> {
        let header = self.methods.chain_get_header(hash).await.map_err(refused("a header"))?;
        let header = header.ok_or_else(|| no_block("a header"))?;
        let hash = self.hasher.hash(&header.encode());
        Ok((Head { number: header.number, hash: BlockHash(hash.0) }, header))
    }

    /// The best and the last final block.
    pub(crate) async fn tips(&self) -> Result<Tips, ChainError> {
        let hash = self.methods.chain_get_finalized_head().await.map_err(refused("the finalised head"))?;
        // After the finalised one, so that it is never below it.
        let (best, _) = self.header(None).await?;
        let (finalized, _) = if hash.0 == best.hash.0 {
            (best, None)
        } else {
            let (head, header) = self.header(Some(hash)).await?;
            (head, Some(header))
        };
        Ok(Tips { best, finalized })
    }

    /// Wakes the caller at every new block. What the block is, it has to ask.
    pub(crate) async fn wakeups(&self) -> Result<BoxStream<'static, Result<(), ChainError>>, ChainError> {
        let operation = "the subscription of new heads";
        let heads = self.methods.chain_subscribe_new_heads().await.map_err(refused(operation))?;
        Ok(heads.map(|head| head.map(drop).map_err(refused("a new head"))).boxed())
    }

    /// The block with the metadata of its runtime.
    pub(crate) async fn at(&self, head: Head) -> Result<AtBlock, ChainError> {
        let block = BlockRef::from_hash(H256(head.hash.0));
        self.client.at_block_hash_and_number(block, head.number).await.map_err(refused("the runtime's metadata"))
    }

    /// The block of that number on the best chain.
    pub(crate) async fn at_number(&self, number: u64) -> Result<AtBlock, ChainError> {
        let operation = "a block hash";
        let hash = self.methods.chain_get_block_hash(Some(number.into())).await.map_err(refused(operation))?;
        let hash = hash.ok_or_else(|| no_block(operation))?;
        self.at(Head { number, hash: BlockHash(hash.0) }).await
    }

    /// A value of the chain's storage; its default where nothing is stored and the chain has one.
    pub(crate) async fn value<K, V>(
        &self,
        at: &AtBlock,
        (pallet, entry): (&'static str, &'static str),
        keys: K,
    ) -> Result<Option<V>, ChainError>
    where
        K: subxt::ext::frame_decode::storage::IntoEncodableValues
            + subxt::ext::frame_decode::storage::IntoDecodableValues,
        V: DecodeAsType,
    {
        let address = subxt::dynamic::storage::<K, V>(pallet, entry);
        let storage = at.storage();
        let fetch = storage.try_fetch(address, keys);
        let value = match fetch.await {
            Err(subxt::error::StorageError::CannotFetchValue(error)) => {
                return Err(refused("a value of the chain")(error));
            }
            Err(error) => return Err(ChainError::Decode { what: entry, source: error.into() }),
            Ok(value) => value,
        };
        value
            .map(|value| value.decode())
            .transpose()
            .map_err(|error| ChainError::Decode { what: entry, source: error.into() })
    }

    /// An answer of a runtime API.
    pub(crate) async fn runtime_call<A, R>(
        &self,
        at: &AtBlock,
        (api, method): (&'static str, &'static str),
        arguments: A,
    ) -> Result<R, ChainError>
    where
        A: subxt::ext::frame_decode::runtime_apis::IntoEncodableValues,
        R: DecodeAsType,
    {
        let call = subxt::dynamic::runtime_api_call::<_, R>(api, method, arguments);
        at.runtime_apis().call(call).await.map_err(refused(method))
    }

    /// The nonce of an account: how many extrinsics of it are in blocks up to this one.
    pub(crate) async fn nonce(&self, account: &Hotkey, at: Head) -> Result<u64, ChainError> {
        let operation = "the account's nonce";
        let call = self.methods.state_call(
            "AccountNonceApi_account_nonce",
            Some(account.as_bytes().as_slice()),
            Some(H256(at.hash.0)),
        );
        let bytes = call.await.map_err(refused(operation))?;
        let decode = |bytes: &[u8]| match bytes.len() {
            4 => u32::decode(&mut &*bytes).map(u64::from),
            _ => u64::decode(&mut &*bytes),
        };
        decode(&bytes).map_err(|error| ChainError::Decode { what: operation, source: error.into() })
    }

    /// Signs a call for inclusion in the blocks after `anchor`.
    pub(crate) async fn sign(
        &self,
        tips: Tips,
        call: &Call,
        pair: &HotkeyPair,
        nonce: u64,
        era_blocks: u64,
    ) -> Result<Signed, SignError> {
        // Anchored in a final block the signature survives every reorganisation; where finality is far behind, the era
        // would be half over already.
        let behind = tips.best.number.saturating_sub(tips.finalized.number);
        let anchor = if behind <= era_blocks / 2 { tips.finalized } else { tips.best };
        let at = self.at(tips.best).await.map_err(SignError::Chain)?;
        let params = DefaultExtrinsicParamsBuilder::<ChainConfig>::new()
            .mortal_from_unchecked(era_blocks, anchor.number, H256(anchor.hash.0))
            .nonce(nonce)
            .build();
        let payload = call.payload();
        let transactions = at.tx();
        let mut signable = transactions
            .create_signable_offline(&payload, params)
            .map_err(|error| SignError::NotOffered(error.to_string()))?;
        let signed = signable.sign(pair.signer()).map_err(|error| SignError::NotOffered(error.to_string()))?;
        Ok(Signed {
            hash: ExtrinsicHash(BlockHash(signed.hash().0)),
            bytes: signed.into_encoded(),
            birth: anchor.number,
            death: anchor.number + era_blocks,
        })
    }

    /// Hands bytes to the node's pool. What the pool says is a value; an error is a lost connection or a deadline.
    pub(crate) async fn submit(&self, bytes: &[u8]) -> Result<Result<(), Refusal>, ChainError> {
        match self.methods.author_submit_extrinsic(bytes).await {
            Ok(_) => Ok(Ok(())),
            Err(subxt::rpcs::Error::User(error)) => {
                let data = error.data.as_deref().map(|data| data.get().trim_matches('"').to_owned());
                let text = data.map_or_else(|| error.message.clone(), |data| format!("{}: {data}", error.message));
                Ok(Err(Refusal { code: error.code, text }))
            }
            Err(error) => Err(refused("the submission")(error)),
        }
    }

    /// Looks for extrinsics in the chain's blocks from the best one down to `first`; the newest place wins.
    ///
    /// Blocks above `last` are skipped by number where there are many of them: nothing can be in those.
    pub(crate) async fn find(
        &self,
        wanted: &BTreeSet<ExtrinsicHash>,
        tips: Tips,
        first: u64,
        last: u64,
    ) -> Result<Option<Found>, ChainError> {
        let mut hash = H256(tips.best.hash.0);
        let mut number = tips.best.number;
        let far = u64::try_from(BLOCKS_KEPT).unwrap_or(u64::MAX);
        if number > last.saturating_add(far) {
            number = last;
            let operation = "a block hash";
            let found = self.methods.chain_get_block_hash(Some(last.into())).await.map_err(refused(operation))?;
            hash = found.ok_or_else(|| no_block(operation))?;
        }
        while number >= first {
            let body = self.body(hash).await?;
            let place = body.extrinsics.iter().position(|hash| wanted.contains(&ExtrinsicHash(BlockHash(hash.0))));
            if let Some(index) = place {
                let block = Head { number: body.number, hash: BlockHash(hash.0) };
                return Ok(Some(Found { block, index, hash: ExtrinsicHash(BlockHash(body.extrinsics[index].0)) }));
            }
            if number == 0 {
                break;
            }
            (hash, number) = (body.parent, number - 1);
        }
        Ok(None)
    }

    async fn body(&self, hash: H256) -> Result<Arc<Body>, ChainError> {
        if let Some(body) = self.bodies.lock().get(&hash) {
            return Ok(body.clone());
        }
        let operation = "a block";
        let block = self.methods.chain_get_block(Some(hash)).await.map_err(refused(operation))?;
        let block = block.ok_or_else(|| no_block(operation))?.block;
        let body = Arc::new(Body {
            number: block.header.number,
            parent: block.header.parent_hash,
            extrinsics: block.extrinsics.iter().map(|bytes| self.hasher.hash(&bytes.0)).collect(),
        });
        let mut bodies = self.bodies.lock();
        bodies.insert(hash, body.clone());
        if bodies.len() > BLOCKS_KEPT {
            let newest = bodies.values().map(|body| body.number).max().unwrap_or(0);
            bodies.retain(|_, body| body.number + u64::try_from(BLOCKS_KEPT / 2).unwrap_or(0) > newest);
        }
        Ok(body)
    }

    /// Events of an extrinsic, and whether its call succeeded.
    pub(crate) async fn outcome(&self, found: Found) -> Result<(Vec<ChainEvent>, CallResult), ChainError> {
        let operation = "the block's events";
        let hash = H256(found.block.hash.0);
        let body = self.body(hash).await?;
        // A block that brings a new runtime was still run by the old one, and speaks its language.
        let parent = Head { number: found.block.number.saturating_sub(1), hash: BlockHash(body.parent.0) };
        let read = async {
            let bytes = self.methods.state_get_storage(&EVENTS_KEY, Some(hash)).await.map_err(refused(operation))?;
            Ok::<_, ChainError>((self.at(parent).await?, bytes.unwrap_or_default()))
        };
        let (at, bytes) = match read.await {
            Ok(read) => read,
            Err(error) if error.is_connection_lost() => return Err(error),
            // The node keeps blocks for longer than states.
            Err(error) => return Ok((Vec::new(), CallResult::Unreadable { why: error.chain() })),
        };
        let mut events = Vec::new();
        let mut result = None;
        let all = at.events().from_bytes(bytes);
        for event in all.iter() {
            let event = event.map_err(|error| ChainError::Decode { what: operation, source: error.into() })?;
            if event.phase() != Phase::ApplyExtrinsic(u32::try_from(found.index).unwrap_or(u32::MAX)) {
                continue;
            }
            match (event.pallet_name(), event.event_name()) {
                ("System", "ExtrinsicSuccess") => result = Some(CallResult::Success),
                ("System", "ExtrinsicFailed") => result = Some(failed_call(event.field_bytes(), &at)),
                _ => {}
            }
            let fields = event.decode_fields_unchecked_as::<Composite<()>>();
            events.push(ChainEvent {
                pallet: event.pallet_name().to_owned(),
                name: event.event_name().to_owned(),
                fields: fields.map_or_else(|error| error.to_string(), |fields| fields.to_string()),
            });
        }
        let missing = || CallResult::Unreadable { why: "the block says neither success nor failure".to_owned() };
        Ok((events, result.unwrap_or_else(missing)))
    }
}

fn failed_call(bytes: &[u8], at: &AtBlock) -> CallResult {
    let failed =
        |pallet: &str, name: String, docs: String| CallResult::Failed { pallet: pallet.to_owned(), name, docs };
    match DispatchError::decode_from(bytes, at.metadata()) {
        Ok(DispatchError::Module(error)) => match error.details() {
            Ok(details) => {
                let docs: Vec<&str> = details.variant.docs.iter().map(|line| line.trim()).collect();
                failed(details.pallet.name(), details.variant.name.clone(), docs.join(" "))
            }
            Err(error) => failed("?", "Unknown".to_owned(), error.to_string()),
        },
        Ok(error) => {
            let docs = error.to_string();
            let name = match error {
                DispatchError::Token(error) => format!("{error:?}"),
                DispatchError::Arithmetic(error) => format!("{error:?}"),
                DispatchError::Transactional(error) => format!("{error:?}"),
                error => format!("{error:?}"),
            };
            failed("System", name, docs)
        }
        Err(error) => failed("?", "Unknown".to_owned(), error.to_string()),
    }
}

fn no_block(operation: &'static str) -> ChainError {
    ChainError::Rpc { operation, source: "the node has no such block".into() }
}

/// A chain without Aura, or one that makes blocks on demand, declares no block time.
fn block_time(at: &AtBlock) -> Option<Duration> {
    let (pallet, constant) = SLOT_DURATION;
    let milliseconds = at.constants().entry(subxt::dynamic::constant::<u64>(pallet, constant)).ok()?;
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}
