//! What is asked of the chain in one refresh, and the shapes the answers are decoded into.
//!
//! Fields are found by name in the live metadata, so that runtimes which add, move or re-wrap fields need no new version
//! of this program. The names are those of the chain's own structs.

use scale_decode::DecodeAsType;

/// Runtime API that answers with a whole subnet.
pub(crate) const METAGRAPH_API: (&str, &str) = ("SubnetInfoRuntimeApi", "get_selective_metagraph");

/// The one vector that no metagraph struct of the chain carries.
pub(crate) const VALIDATOR_TRUST: (&str, &str) = ("SubtensorModule", "ValidatorTrust");

/// Milliseconds of an Aura slot: the time between two blocks.
pub(crate) const SLOT_DURATION: (&str, &str) = ("Aura", "SlotDuration");

/// Indices of the fields asked for, in the chain's enumeration `SelectiveMetagraphIndex`: tempo 8, last step 9,
/// blocks since it 10, hotkeys 52, coldkeys 53, axons 55, active 56, permits 57, last update 59, emission 60,
/// dividends 61, incentives 62, consensus 63, block at registration 66, alpha 67, TAO 68 and total stake 69.
pub(crate) const METAGRAPH_FIELDS: [u16; 17] = [8, 9, 10, 52, 53, 55, 56, 57, 59, 60, 61, 62, 63, 66, 67, 68, 69];

/// The chain's `SelectiveMetagraph`, cut down to [`METAGRAPH_FIELDS`]. What was not asked for is `None` there.
#[derive(Debug, Default, Clone, PartialEq, DecodeAsType)]
pub(crate) struct RawMetagraph {
    pub(crate) tempo: Option<u16>,
    pub(crate) last_step: Option<u64>,
    pub(crate) blocks_since_last_step: Option<u64>,
    pub(crate) hotkeys: Option<Vec<[u8; 32]>>,
    pub(crate) coldkeys: Option<Vec<[u8; 32]>>,
    pub(crate) axons: Option<Vec<RawAxon>>,
    pub(crate) active: Option<Vec<bool>>,
    pub(crate) validator_permit: Option<Vec<bool>>,
    pub(crate) last_update: Option<Vec<u64>>,
    pub(crate) emission: Option<Vec<u64>>,
    pub(crate) dividends: Option<Vec<u16>>,
    pub(crate) incentives: Option<Vec<u16>>,
    pub(crate) consensus: Option<Vec<u16>>,
    pub(crate) block_at_registration: Option<Vec<u64>>,
    pub(crate) alpha_stake: Option<Vec<u64>>,
    pub(crate) tao_stake: Option<Vec<u64>>,
    pub(crate) total_stake: Option<Vec<u64>>,
}

/// The chain's `AxonInfo`, without its placeholders.
#[derive(Debug, Default, Clone, PartialEq, DecodeAsType)]
pub(crate) struct RawAxon {
    pub(crate) block: u64,
    pub(crate) version: u32,
    pub(crate) ip: u128,
    pub(crate) port: u16,
    pub(crate) ip_type: u8,
    pub(crate) protocol: u8,
}
