//! A new runtime on demand, as clients meet one: a higher spec version and other indices under the same names.
//!
//! The runtime is compiled in, so there is no other one to switch to. What an upgrade changes for clients is done to
//! what leaves the runtime: metadata names the events and errors of subtensor by shifted indices, and the events of
//! each block are written with those. As on the public chain, the block that brings the new runtime still speaks the
//! old one's language; the state after it has the new version and metadata.

use codec::{Compact, Decode, Encode};
use frame_support::parameter_types;
use frame_support::storage::{storage_prefix, unhashed};
use frame_support::traits::{Get, PalletInfoAccess};
use frame_system::EventRecord;
use scale_info::{PortableRegistry, TypeDef};
use sp_runtime::{ApplyExtrinsicResult, DispatchError, ModuleError};
use sp_version::RuntimeVersion;

use crate::runtime::{Hash, Runtime, RuntimeEvent, SubtensorModule, VERSION};

/// Upgrades that a chain can have: indices are bytes, and errors use most of them.
pub const MAX_UPGRADES: u32 = 64;

parameter_types! {
    /// Upgrades so far.
    pub storage Upgrades: u32 = 0;
}

/// Version of the runtime in a state.
pub struct SpecVersion;

impl Get<RuntimeVersion> for SpecVersion {
    fn get() -> RuntimeVersion {
        RuntimeVersion { spec_version: VERSION.spec_version + Upgrades::get(), ..VERSION }
    }
}

/// Announces the new runtime at the beginning of its block: code in the state, event, digest.
pub(crate) fn announce() {
    let spec_version = SpecVersion::get().spec_version + 1;
    frame_system::Pallet::<Runtime>::update_code_in_storage(format!("node-subtensor {spec_version}").as_bytes());
}

/// The last act of a block, before its root is calculated: its events are written as the block's runtime names them,
/// and the next block has the new runtime if one was announced.
///
/// Returns whether the state is another than before.
pub(crate) fn conclude(upgraded: bool) -> bool {
    let shift = shift();
    if shift > 0 {
        rewrite_events(shift);
    }
    if upgraded {
        Upgrades::set(&(Upgrades::get() + 1));
    }
    shift > 0 || upgraded
}

/// By how much indices are shifted in the state at hand.
fn shift() -> u8 {
    u8::try_from(Upgrades::get().min(MAX_UPGRADES)).unwrap_or(u8::MAX)
}

fn rewrite_events(shift: u8) {
    let key = storage_prefix(b"System", b"Events");
    let Some(encoded) = unhashed::get_raw(&key) else { return };
    // Boxed: the enum of all events is large, and a block may have thousands.
    let Ok(records) = Vec::<Box<EventRecord<RuntimeEvent, Hash>>>::decode(&mut encoded.as_slice()) else { return };
    let mut rewritten = Compact(u32::try_from(records.len()).unwrap_or(u32::MAX)).encode();
    for record in records {
        record.phase.encode_to(&mut rewritten);
        rewritten.extend(shifted_event(record.event, shift));
        record.topics.encode_to(&mut rewritten);
    }
    unhashed::put_raw(&key, &rewritten);
}

/// An event in the language of a runtime whose indices are shifted.
fn shifted_event(mut event: RuntimeEvent, shift: u8) -> Vec<u8> {
    use crate::pallets::subtensor::Event as Subtensor;
    let result = match &mut event {
        RuntimeEvent::System(frame_system::Event::ExtrinsicFailed { dispatch_error: error, .. })
        | RuntimeEvent::Utility(
            pallet_utility::Event::BatchInterrupted { error, .. }
            | pallet_utility::Event::ItemFailed { error }
            | pallet_utility::Event::IfElseFallbackCalled { main_error: error },
        )
        | RuntimeEvent::SubtensorModule(Subtensor::BatchWeightItemFailed(_, error)) => {
            *error = shifted_error(*error, shift);
            None
        }
        RuntimeEvent::Sudo(
            pallet_sudo::Event::Sudid { sudo_result: result } | pallet_sudo::Event::SudoAsDone { sudo_result: result },
        )
        | RuntimeEvent::Utility(pallet_utility::Event::DispatchedAs { result })
        | RuntimeEvent::Proxy(pallet_proxy::Event::ProxyExecuted { result }) => Some(result),
        _ => None,
    };
    if let Some(Err(error)) = result {
        *error = shifted_error(*error, shift);
    }
    let mut bytes = event.encode();
    if let [pallet, index, ..] = bytes.as_mut_slice()
        && usize::from(*pallet) == SubtensorModule::index()
    {
        *index = index.saturating_add(shift);
    }
    bytes
}

/// What became of an extrinsic, in the language of the runtime in the state at hand.
pub(crate) fn shifted_result(result: ApplyExtrinsicResult) -> ApplyExtrinsicResult {
    result.map(|dispatched| dispatched.map_err(|error| shifted_error(error, shift())))
}

fn shifted_error(error: DispatchError, shift: u8) -> DispatchError {
    match error {
        DispatchError::Module(ModuleError { index, mut error, message })
            if usize::from(index) == SubtensorModule::index() =>
        {
            error[0] = error[0].saturating_add(shift);
            DispatchError::Module(ModuleError { index, error, message })
        }
        other => other,
    }
}

/// Shifts the indices of subtensor's events and errors in metadata, by the upgrades of the state at hand.
pub(crate) fn shift_types(types: &mut PortableRegistry) {
    let shift = shift();
    if shift == 0 {
        return;
    }
    for ty in &mut types.types {
        let path: Vec<&str> = ty.ty.path.segments.iter().map(AsRef::as_ref).collect();
        if let (["pallet_subtensor", "pallet", "Event" | "Error"], TypeDef::Variant(def)) =
            (path.as_slice(), &mut ty.ty.type_def)
        {
            def.variants.iter_mut().for_each(|variant| variant.index = variant.index.saturating_add(shift));
        }
    }
}
