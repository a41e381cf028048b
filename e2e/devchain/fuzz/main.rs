//! Fuzz targets for whatever decodes what strangers send: JSON-RPC, extrinsics, calls, and arguments of runtime APIs.
#![expect(clippy::unwrap_used, reason = "a target that cannot go on stops and says so")]

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use codec::{Decode, DecodeLimit, Encode};
use e2e_devchain::faults::Faults;
use e2e_devchain::genesis::{Genesis, author};
use e2e_devchain::node::{AuthorHandle, BlockTime, Node, NodeConfig, PoolError, RUNTIME_STACK_BYTES, TxStatus};
use e2e_devchain::runtime::{Hash, Runtime, RuntimeCall, SignedPayload, UncheckedExtrinsic, VERSION, tx_extension};
use e2e_devchain::{keys, rpc};
use e2e_fuzz::Fuzz;
use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use jsonrpsee::RpcModule;
use serde_json::{Value, json};
use sp_core::{Pair, sr25519};
use sp_runtime::MultiAddress;
use sp_runtime::generic::Era;

const FUZZ: Fuzz =
    Fuzz { manifest_dir: env!("CARGO_MANIFEST_DIR"), seconds: 8, max_input: 1024, max_shrinks: MAX_SHRINKS };

/// Attempts to make a failing input smaller; each may take [`PATIENCE`].
const MAX_SHRINKS: u32 = 8;

/// How long a block may take before the chain counts as stalled.
const PATIENCE: Duration = Duration::from_secs(30);

e2e_fuzz::targets!(FUZZ: rpc_text rpc_params extrinsic_bytes signed_calls runtime_arguments);

/// Inputs that no decoder takes prove nothing about what comes after decoding.
#[test]
fn the_corpus_gets_past_the_decoders() {
    let seeds = FUZZ.corpus("signed_calls");
    for seed in &seeds {
        signed_calls(seed);
    }
    let blocks = CALLS.get().unwrap().node.best().header.number;
    assert!(blocks as usize >= seeds.len() / 2, "{blocks} of {} calls reached a block", seeds.len());
}

/// A chain in this process, without sockets, as a client's requests reach it.
struct World {
    node: Arc<Node>,
    module: RpcModule<Arc<Node>>,
    methods: Vec<String>,
    runtime: tokio::runtime::Runtime,
    _author: AuthorHandle,
}

/// One chain for each target: what one does to it must not confuse another.
fn world(cell: &'static OnceLock<World>) -> &'static World {
    cell.get_or_init(|| {
        let state = Genesis::localnet().build(BlockTime::Instant).unwrap();
        let config = NodeConfig { block_time: BlockTime::Instant, finality_lag: 0, history: 64, state_dir: None };
        let (node, author) = Node::start(state, author(), config, Arc::new(Faults::default())).unwrap();
        let module = rpc::methods(Arc::clone(&node)).unwrap();
        let methods = module.method_names().map(ToOwned::to_owned).collect();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().thread_stack_size(RUNTIME_STACK_BYTES).enable_all().build();
        World { node, module, methods, runtime: runtime.unwrap(), _author: author }
    })
}

impl World {
    /// Sends a request; whatever comes back is JSON-RPC and no internal error.
    fn request(&self, text: &str) {
        let answer = self.runtime.block_on(self.module.raw_json_request(text, 16));
        // What is no request at all is refused before it reaches a method.
        let Ok((answer, _subscription)) = answer else { return };
        let answer: Value = serde_json::from_str(answer.get()).unwrap();
        assert_ne!(answer["error"]["code"], -32603, "{text}: {answer}");
        assert!(answer["error"].is_object() != answer.get("result").is_some(), "{text}: {answer}");
    }

    fn bob(&self) -> (sr25519::Pair, u32) {
        let bob = keys::pair_from_uri("//Bob").unwrap();
        let nonce = self.node.next_nonce(&keys::account_of(&bob)).unwrap();
        (bob, nonce)
    }

    fn sign(&self, call: RuntimeCall) -> UncheckedExtrinsic {
        let (bob, nonce) = self.bob();
        let genesis = self.node.genesis_hash();
        let extension = tx_extension(Era::Immortal, nonce, 0);
        let implicit = (
            ((), VERSION.spec_version, VERSION.transaction_version, genesis, genesis, (), ()),
            ((), (), (), (), (), None),
        );
        let payload = SignedPayload::from_raw(call.clone(), extension.clone(), implicit);
        let signature = payload.using_encoded(|bytes| bob.sign(bytes));
        UncheckedExtrinsic::new_signed(call, MultiAddress::Id(keys::account_of(&bob)), signature.into(), extension)
    }

    /// Submits an extrinsic; once the pool has taken it, something must become of it.
    fn submit(&self, bytes: &[u8]) -> Result<TxStatus, PoolError> {
        let (_, mut statuses) = self.node.submit_and_watch(bytes)?;
        let started = Instant::now();
        loop {
            match statuses.try_recv() {
                Ok(TxStatus::Ready | TxStatus::Future) => {}
                Ok(status) => return Ok(status),
                Err(_) => std::thread::sleep(Duration::from_micros(200)),
            }
            assert!(started.elapsed() < PATIENCE, "the chain stalls on 0x{}", hex::encode(bytes));
        }
    }
}

/// Anything at all where a request should be.
fn rpc_text(bytes: &[u8]) {
    static WORLD: OnceLock<World> = OnceLock::new();
    world(&WORLD).request(&String::from_utf8_lossy(bytes));
}

/// A parameter as a client might write it, right or wrong.
#[derive(Debug, Clone, Arbitrary)]
enum Param {
    Null,
    Bool(bool),
    Number(i64),
    Hex(Vec<u8>),
    /// The start of a storage key that exists.
    Prefix(u8),
    Text(String),
    /// A block of the chain.
    Block(bool),
    Texts(Vec<Vec<u8>>),
    Numbers(Vec<u32>),
    RuntimeMethod(u8),
}

impl Param {
    fn json(&self, world: &World) -> Value {
        let hex = |bytes: &[u8]| format!("0x{}", hex::encode(bytes));
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => json!(value),
            Self::Number(value) => json!(value),
            Self::Hex(bytes) => hex(bytes).into(),
            Self::Prefix(length) => {
                let key = frame_support::storage::storage_prefix(b"System", b"Account");
                hex(&key[..usize::from(*length) % 33]).into()
            }
            Self::Text(text) => json!(text),
            Self::Block(genesis) => {
                json!(if *genesis { world.node.genesis_hash() } else { world.node.best().hash })
            }
            Self::Texts(all) => all.iter().map(|bytes| hex(bytes)).collect(),
            Self::Numbers(all) => json!(all),
            Self::RuntimeMethod(index) => {
                let methods = runtime_methods();
                json!(methods[usize::from(*index) % methods.len()])
            }
        }
    }
}

/// Every method, with parameters of all kinds.
fn rpc_params(bytes: &[u8]) {
    static WORLD: OnceLock<World> = OnceLock::new();
    let Ok((method, params)) = <(u8, Vec<Param>)>::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let world = world(&WORLD);
    let method = &world.methods[usize::from(method) % world.methods.len()];
    let params: Vec<Value> = params.iter().take(6).map(|param| param.json(world)).collect();
    world.request(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string());
}

/// Bytes where an extrinsic should be, and a good extrinsic with bytes of it changed.
fn extrinsic_bytes(bytes: &[u8]) {
    static WORLD: OnceLock<World> = OnceLock::new();
    type Input = (bool, Vec<(u16, u8)>, Vec<u8>);
    let Ok((noise, edits, remark)) = Input::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let world = world(&WORLD);
    if noise {
        // It may decode, but nobody has signed it.
        assert!(world.submit(bytes).is_err());
        return;
    }
    let good = world.sign(frame_system::Call::remark { remark }.into()).encode();
    let mut edited = good.clone();
    for (position, value) in edits {
        let position = usize::from(position) % edited.len();
        edited[position] ^= value;
    }
    if let Ok(status) = world.submit(&edited) {
        // Another way to write the same length is the only change that a signature survives.
        let same = UncheckedExtrinsic::decode(&mut edited.as_slice()).is_ok_and(|read| read.encode() == good);
        assert!(same, "a changed extrinsic was taken: {status:?}");
    }
}

/// The chain of [`signed_calls`].
static CALLS: OnceLock<World> = OnceLock::new();
/// Held from the choice of a nonce until something became of the call: two tests sign as one account, and when the call of the
/// one is thrown out, the other's waits for its nonce for ever.
static TURN: Mutex<()> = Mutex::new(());

/// Whatever decodes as a call, signed by someone who may pay but not rule, is turned away or ends up in a block.
fn signed_calls(bytes: &[u8]) {
    // Indices of the pallets: most bytes would name none.
    const PALLETS: [u8; 10] = [0, 2, 5, 7, 7, 7, 11, 16, 18, 19];
    let [pallet, call, args @ ..] = bytes else { return };
    // Arguments that are too short are filled up, or hardly any call would decode.
    let filled = [&[PALLETS[usize::from(*pallet) % PALLETS.len()], call % 150], args, &[0; 256]].concat();
    let limit = frame_support::MAX_EXTRINSIC_DEPTH;
    let Ok(call) = RuntimeCall::decode_with_depth_limit(limit, &mut filled.as_slice()) else { return };
    let world = world(&CALLS);
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = world.node.best().header.number;
    if let Ok(status) = world.submit(&world.sign(call).encode()) {
        let included = matches!(status, TxStatus::InBlock(_));
        assert!(!included || world.node.best().header.number > before);
    }
}

/// Names of all methods of the runtime's APIs, but for those that give metadata and take long.
fn runtime_methods() -> &'static [String] {
    static METHODS: OnceLock<Vec<String>> = OnceLock::new();
    METHODS.get_or_init(|| {
        let encoded = sp_state_machine::BasicExternalities::default()
            .execute_with(|| Runtime::metadata_at_version(15).unwrap().to_vec());
        let prefixed = RuntimeMetadataPrefixed::decode(&mut encoded.as_slice()).unwrap();
        let RuntimeMetadata::V15(metadata) = prefixed.1 else { return Vec::new() };
        let apis = metadata.apis.iter().filter(|api| api.name != "Metadata");
        apis.flat_map(|api| api.methods.iter().map(|method| format!("{}_{}", api.name, method.name))).collect()
    })
}

/// Arguments of runtime APIs.
fn runtime_arguments(bytes: &[u8]) {
    static WORLD: OnceLock<World> = OnceLock::new();
    let [method, data @ ..] = bytes else { return };
    let methods = runtime_methods();
    let method = &methods[usize::from(*method) % methods.len()];
    let world = world(&WORLD);
    // An error is an answer; an abort of the process or a panic outside the runtime is not.
    drop(world.node.runtime_call(None, method, data));
    let alive: Hash = world.node.best().hash;
    assert!(world.node.state(Some(alive)).is_ok());
}
