//! Runs the runtime natively: runtime API calls on any state, validation, and the building of blocks.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use codec::{Decode, DecodeLimit, Encode};
use frame_support::MAX_EXTRINSIC_DEPTH;
use frame_support::storage::with_transaction;
use sp_consensus_aura::{AURA_ENGINE_ID, Slot};
use sp_core::{Pair, sr25519};
use sp_externalities::{Extensions, set_and_run_with_externalities};
use sp_runtime::traits::Header as _;
use sp_runtime::transaction_validity::{InvalidTransaction, TransactionSource, TransactionValidityError};
use sp_runtime::transaction_validity::{TransactionValidity, UnknownTransaction};
use sp_runtime::{Digest, DigestItem, TransactionOutcome};
use sp_state_machine::{Ext, OverlayedChanges};

use super::state::{Changes, STATE_VERSION, StateBackend, TipTrie};
use super::state_map::StateMap;
use crate::runtime::{Block, Executive, Hash, Header, RuntimeCall, UncheckedExtrinsic, api};
use crate::upgrade;

/// Why a runtime call has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The runtime has no such method.
    #[error("Exported method {0} is not found")]
    UnknownMethod(String),
    /// The runtime gave up, mostly because the arguments do not decode.
    #[error("Execution aborted due to trap: {0}")]
    Trapped(String),
}

thread_local! {
    /// Whether this thread is inside the runtime, where a panic is an answer and not a fault of the program.
    static IN_RUNTIME: Cell<bool> = const { Cell::new(false) };
}

/// Keeps panics of the runtime out of the log: they become errors of the call that caused them.
fn quiet_runtime_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IN_RUNTIME.get() {
                tracing::debug!(panic = %info, "the runtime gave up on a call");
            } else {
                default(info);
            }
        }));
    });
}

/// Runs code of the runtime and turns its panic into an error.
fn in_runtime<R>(
    backend: &StateBackend<'_>,
    overlay: &mut OverlayedChanges<sp_runtime::traits::BlakeTwo256>,
    run: impl FnOnce() -> R,
) -> Result<R, CallError> {
    quiet_runtime_panics();
    let mut extensions = Extensions::default();
    let mut ext = Ext::new(overlay, backend, Some(&mut extensions));
    IN_RUNTIME.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(|| set_and_run_with_externalities(&mut ext, run)));
    IN_RUNTIME.set(false);
    result.map_err(|payload| CallError::Trapped(panic_text(payload.as_ref())))
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "panic".into())
}

/// Reads from a state with the runtime's own types.
///
/// # Errors
/// [`CallError::Trapped`] when the closure panics.
pub fn inspect<R>(state: &StateMap, read: impl FnOnce() -> R) -> Result<R, CallError> {
    in_runtime(&StateBackend::read_only(state), &mut OverlayedChanges::default(), read)
}

/// Calls a method of a runtime API, such as `Core_version`, with SCALE-encoded arguments.
///
/// # Errors
/// [`CallError`] when there is no such method or its arguments do not decode.
pub fn call(state: &StateMap, method: &str, data: &[u8]) -> Result<Vec<u8>, CallError> {
    check_depth(method, data).map_err(|error| CallError::Trapped(format!("arguments of {method}: {error}")))?;
    inspect(state, || api::dispatch(method, data))?.ok_or_else(|| CallError::UnknownMethod(method.into()))
}

/// Refuses arguments that nest calls deeper than extrinsics may: the generated code decodes without a limit, and these
/// methods are the ones that take calls.
fn check_depth(method: &str, mut data: &[u8]) -> Result<(), codec::Error> {
    let data = &mut data;
    let depth = MAX_EXTRINSIC_DEPTH;
    match method {
        "BlockBuilder_apply_extrinsic"
        | "TransactionPaymentApi_query_info"
        | "TransactionPaymentApi_query_fee_details" => {
            UncheckedExtrinsic::decode_with_depth_limit(depth, data).map(drop)
        }
        "TaggedTransactionQueue_validate_transaction" => {
            <(TransactionSource, UncheckedExtrinsic)>::decode_with_depth_limit(depth, data).map(drop)
        }
        "TransactionPaymentCallApi_query_call_info" | "TransactionPaymentCallApi_query_call_fee_details" => {
            RuntimeCall::decode_with_depth_limit(depth, data).map(drop)
        }
        "Core_execute_block" | "BlockBuilder_check_inherents" => Block::decode_with_depth_limit(depth, data).map(drop),
        _ => Ok(()),
    }
}

/// Validates an extrinsic as the pool does, on the state of a block.
pub(super) fn validate(state: &StateMap, block: Hash, extrinsic: UncheckedExtrinsic) -> TransactionValidity {
    let source = TransactionSource::External;
    inspect(state, || Executive::validate_transaction(source, extrinsic, block))
        .unwrap_or(Err(TransactionValidityError::Unknown(UnknownTransaction::CannotLookup)))
}

/// When and by whom a block is made.
pub(super) struct Authorship {
    pub(super) timestamp_ms: u64,
    pub(super) slot: Slot,
    pub(super) author: sr25519::Pair,
    /// Whether the block brings a new runtime.
    pub(super) upgrade: bool,
}

/// A block that was built but is not part of the chain yet.
pub(super) struct Built {
    pub(super) header: Header,
    pub(super) body: Vec<Vec<u8>>,
    pub(super) changes: Changes,
}

/// What became of an extrinsic that was offered to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// It is in the block, whether its dispatch succeeded or not.
    Included,
    /// It fits into a later block.
    Later,
    /// The block has no room left.
    Full,
    /// It can never be included.
    Invalid,
}

/// A source of extrinsics that learns what became of each.
pub(super) trait Offers {
    /// The next extrinsic to try.
    fn next(&mut self) -> Option<UncheckedExtrinsic>;
    /// What became of the last one.
    fn outcome(&mut self, outcome: Offered);
}

/// Builds a block on the tip.
pub(super) fn build_block(
    parent: &Header,
    state: &StateMap,
    trie: &TipTrie,
    authorship: &Authorship,
    offers: &mut dyn Offers,
) -> Result<Built, CallError> {
    let backend = StateBackend::tip(state, trie);
    let mut overlay = OverlayedChanges::default();
    let start = start_of_block(parent, authorship.slot);
    let (mut header, body) = in_runtime(&backend, &mut overlay, || {
        Executive::initialize_block(&start);
        if authorship.upgrade {
            upgrade::announce();
        }
        let mut body = vec![apply_timestamp(authorship.timestamp_ms)];
        while let Some(extrinsic) = offers.next() {
            let encoded = extrinsic.encode();
            let outcome = apply(extrinsic);
            if outcome == Offered::Included {
                body.push(encoded);
            }
            offers.outcome(outcome);
            if outcome == Offered::Full {
                break;
            }
        }
        let mut header = Executive::finalize_block();
        if upgrade::conclude(authorship.upgrade) {
            let root = sp_io::storage::root(STATE_VERSION);
            let root = Hash::decode(&mut root.as_slice()).expect("a root has the size of a hash");
            header.set_state_root(root);
        }
        (header, body)
    })?;
    let changes = overlay.drain_storage_changes(&backend, STATE_VERSION).map_err(CallError::Trapped)?;
    let seal = authorship.author.sign(header.hash().as_bytes());
    header.digest_mut().push(DigestItem::Seal(AURA_ENGINE_ID, seal.encode()));
    Ok(Built { header, body, changes })
}

fn apply_timestamp(now: u64) -> Vec<u8> {
    let call = RuntimeCall::Timestamp(pallet_timestamp::Call::set { now });
    let inherent = UncheckedExtrinsic::new_bare(call);
    let encoded = inherent.encode();
    let applied = Executive::apply_extrinsic(inherent);
    assert!(matches!(applied, Ok(Ok(()))), "the time of a block was refused: {applied:?}");
    encoded
}

/// Applies one extrinsic; what it wrote is undone when it turns out not to belong into the block.
fn apply(extrinsic: UncheckedExtrinsic) -> Offered {
    with_transaction(|| match Executive::apply_extrinsic(extrinsic) {
        Ok(_dispatched) => TransactionOutcome::Commit(Ok::<_, sp_runtime::DispatchError>(Offered::Included)),
        Err(error) => TransactionOutcome::Rollback(Ok(refused(error))),
    })
    .unwrap_or(Offered::Invalid)
}

fn refused(error: TransactionValidityError) -> Offered {
    match error {
        TransactionValidityError::Invalid(InvalidTransaction::ExhaustsResources) => Offered::Full,
        TransactionValidityError::Invalid(InvalidTransaction::Future) => Offered::Later,
        _ => Offered::Invalid,
    }
}

/// Applies an extrinsic to a block that nobody keeps, and returns the encoded result.
pub(super) fn dry_run(
    state: &StateMap,
    parent: &Header,
    slot: Slot,
    extrinsic: UncheckedExtrinsic,
) -> Result<Vec<u8>, CallError> {
    inspect(state, || {
        Executive::initialize_block(&start_of_block(parent, slot));
        let applied = Executive::apply_extrinsic(extrinsic);
        upgrade::shifted_result(applied).encode()
    })
}

/// What the runtime is told of a block before its extrinsics.
fn start_of_block(parent: &Header, slot: Slot) -> Header {
    let slot = DigestItem::PreRuntime(AURA_ENGINE_ID, slot.encode());
    Header::new(parent.number + 1, Hash::zero(), Hash::zero(), parent.hash(), Digest { logs: vec![slot] })
}

/// Decodes an extrinsic as it comes over the wire, and refuses bytes after it. Calls within calls are decoded to the
/// depth that runtimes allow: beyond it a few kilobytes could exhaust the stack.
pub(super) fn decode_extrinsic(bytes: &[u8]) -> Result<UncheckedExtrinsic, codec::Error> {
    UncheckedExtrinsic::decode_all_with_depth_limit(MAX_EXTRINSIC_DEPTH, &mut &*bytes)
}
