//! What a proxy may do for its owner, by the names and indices of the public chain.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::traits::InstanceFilter;
use scale_info::TypeInfo;

use crate::pallets::subtensor::Call as Subtensor;
use crate::runtime::RuntimeCall;

/// Kinds of proxies.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Default,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    TypeInfo,
)]
pub enum ProxyType {
    /// Everything.
    #[default]
    Any,
    /// What the owner of a subnet does.
    Owner,
    /// Everything but sudo.
    NonCritical,
    /// Everything that moves no TAO and no stake to others.
    NonTransfer,
    /// Kept for its index.
    Senate,
    /// Nothing that moves TAO or stake.
    NonFungible,
    /// Kept for its index.
    Triumvirate,
    /// Kept for its index.
    Governance,
    /// Adding and removing stake.
    Staking,
    /// Registrations.
    Registration,
    /// Transfers.
    Transfer,
    /// Transfers below half a TAO.
    SmallTransfer,
    /// Kept for its index.
    RootWeights,
    /// Children of hotkeys.
    ChildKeys,
    /// Kept for its index.
    SudoUncheckedSetCode,
    /// Swapping hotkeys.
    SwapHotkey,
    /// Kept for its index.
    SubnetLeaseBeneficiary,
    /// Kept for its index.
    RootClaim,
    /// Kept for its index.
    BasketTrading,
}

/// Largest transfer of [`ProxyType::SmallTransfer`], in rao.
const SMALL_TRANSFER: u64 = 500_000_000;

fn moves_tao(call: &RuntimeCall) -> bool {
    matches!(call, RuntimeCall::Balances(_))
}

fn is_stake(call: &RuntimeCall) -> bool {
    matches!(
        call,
        RuntimeCall::SubtensorModule(
            Subtensor::add_stake { .. }
                | Subtensor::add_stake_limit { .. }
                | Subtensor::remove_stake { .. }
                | Subtensor::remove_stake_limit { .. }
                | Subtensor::remove_stake_full_limit { .. }
                | Subtensor::unstake_all { .. }
                | Subtensor::unstake_all_alpha { .. }
                | Subtensor::swap_stake { .. }
                | Subtensor::swap_stake_limit { .. }
                | Subtensor::move_stake { .. }
                | Subtensor::move_stake_limit { .. }
        )
    )
}

fn is_registration(call: &RuntimeCall) -> bool {
    matches!(
        call,
        RuntimeCall::SubtensorModule(
            Subtensor::burned_register { .. }
                | Subtensor::register { .. }
                | Subtensor::register_limit { .. }
                | Subtensor::root_register { .. }
        )
    )
}

/// Whether a call gives stake to others, or a key what is another's.
fn gives_away(call: &RuntimeCall) -> bool {
    matches!(
        call,
        RuntimeCall::SubtensorModule(
            Subtensor::transfer_stake { .. }
                | Subtensor::transfer_stake_and_hotkey { .. }
                | Subtensor::burn_alpha { .. }
                | Subtensor::recycle_alpha { .. }
                | Subtensor::add_stake_burn { .. }
                | Subtensor::announce_coldkey_swap { .. }
                | Subtensor::swap_coldkey_announced { .. }
        )
    )
}

fn is_hotkey_swap(call: &RuntimeCall) -> bool {
    matches!(call, RuntimeCall::SubtensorModule(Subtensor::swap_hotkey { .. } | Subtensor::swap_hotkey_v2 { .. }))
}

fn is_children(call: &RuntimeCall) -> bool {
    matches!(call, RuntimeCall::SubtensorModule(Subtensor::set_children { .. } | Subtensor::set_childkey_take { .. }))
}

fn is_owners(call: &RuntimeCall) -> bool {
    matches!(
        call,
        RuntimeCall::AdminUtils(_)
            | RuntimeCall::SubtensorModule(
                Subtensor::start_call { .. }
                    | Subtensor::set_tempo { .. }
                    | Subtensor::set_activity_cutoff_factor { .. }
                    | Subtensor::trigger_epoch { .. }
                    | Subtensor::set_subnet_identity { .. }
                    | Subtensor::update_symbol { .. }
            )
    )
}

fn is_small_transfer(call: &RuntimeCall) -> bool {
    use pallet_balances::Call::{transfer_allow_death, transfer_keep_alive};
    match call {
        RuntimeCall::Balances(transfer_keep_alive { value, .. } | transfer_allow_death { value, .. }) => {
            *value < SMALL_TRANSFER
        }
        _ => false,
    }
}

impl InstanceFilter<RuntimeCall> for ProxyType {
    fn filter(&self, call: &RuntimeCall) -> bool {
        match self {
            Self::Any => true,
            Self::NonCritical => !matches!(call, RuntimeCall::Sudo(_)),
            Self::NonTransfer => !moves_tao(call) && !gives_away(call),
            Self::NonFungible => {
                !moves_tao(call)
                    && !gives_away(call)
                    && !is_stake(call)
                    && !is_registration(call)
                    && !is_hotkey_swap(call)
            }
            Self::Owner => is_owners(call),
            Self::Staking => is_stake(call),
            Self::Registration => is_registration(call),
            Self::Transfer => {
                moves_tao(call) || matches!(call, RuntimeCall::SubtensorModule(Subtensor::transfer_stake { .. }))
            }
            Self::ChildKeys => is_children(call),
            Self::SwapHotkey => is_hotkey_swap(call),
            Self::SmallTransfer => is_small_transfer(call),
            // Calls of these kinds are not part of this chain, or no longer part of any.
            Self::Senate
            | Self::Triumvirate
            | Self::Governance
            | Self::RootWeights
            | Self::SudoUncheckedSetCode
            | Self::SubnetLeaseBeneficiary
            | Self::RootClaim
            | Self::BasketTrading => false,
        }
    }

    fn is_superset(&self, other: &Self) -> bool {
        self == other
            || matches!((self, other), (Self::Any, _))
            || matches!((self, other), (Self::NonTransfer, Self::NonFungible | Self::Staking | Self::Registration))
            || matches!((self, other), (Self::Transfer, Self::SmallTransfer))
    }
}
