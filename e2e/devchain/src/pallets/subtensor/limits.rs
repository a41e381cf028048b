//! How often an owner may change what: one clock per subnet and hyperparameter, or per account and kind of transaction.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::ensure;
use frame_system::pallet_prelude::OriginFor;
use scale_info::TypeInfo;
use sp_runtime::{DispatchError, DispatchResult};

use super::MIN_TEMPO;
use super::pallet::*;
use super::types::{NetUid, RateLimitKey};

/// Blocks between two changes of a hotkey's children.
const SET_CHILDREN: u64 = 150;
/// Blocks between two changes of a subnet's owner hotkey.
const SET_OWNER_HOTKEY: u64 = 50_400;
/// Blocks between two changes of a subnet's mechanisms or their shares.
const SET_MECHANISMS: u64 = 7_200;
/// Blocks between two trims of a subnet.
const TRIM: u64 = 216_000;

/// Hyperparameters of which an owner's changes are counted one by one, by the public chain's numbers.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen, PartialOrd, Ord,
)]
#[expect(missing_docs, reason = "each is named after the setter that it belongs to")]
pub enum Hyperparameter {
    Unknown,
    ServingRateLimit,
    MaxDifficulty,
    AdjustmentAlpha,
    MaxWeightLimit,
    ImmunityPeriod,
    MinAllowedWeights,
    Kappa,
    Rho,
    ActivityCutoff,
    PowRegistrationAllowed,
    MinBurn,
    MaxBurn,
    BondsMovingAverage,
    BondsPenalty,
    CommitRevealEnabled,
    LiquidAlphaEnabled,
    AlphaValues,
    WeightCommitInterval,
    TransferEnabled,
    AlphaSigmoidSteepness,
    Yuma3Enabled,
    BondsResetEnabled,
    ImmuneNeuronLimit,
    RecycleOrBurn,
    MaxAllowedUids,
    BurnHalfLife,
    BurnIncreaseMult,
    SubnetEmissionEnabled,
    MinChildkeyTake,
    ActivityCutoffFactorMilli,
    TriggerEpoch,
    CollateralLockShare,
    CollateralDrainRatio,
    LiquidAlphaConsensusMode,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerLimit {
    /// A change of a hyperparameter.
    Hyperparameter(Hyperparameter),
    /// A change of a hotkey's children.
    Children,
    /// A raise of a child hotkey's take.
    ChildkeyTake,
    /// A change of the version key of weights.
    WeightsVersionKey,
    /// A change of the owner's hotkey.
    OwnerHotkey,
    /// A change of the number of mechanisms.
    MechanismCount,
    /// A change of the mechanisms' shares.
    MechanismSplit,
    /// A trim to fewer neurons.
    Trim,
    /// Stake that is burned at once.
    AddStakeBurn,
    /// A change of the tempo.
    Tempo,
    /// No limit.
    None,
}

impl From<Hyperparameter> for OwnerLimit {
    fn from(parameter: Hyperparameter) -> Self {
        Self::Hyperparameter(parameter)
    }
}

impl OwnerLimit {
    /// Number of the kind in [`TransactionKeyLastBlock`].
    fn kind(self) -> u16 {
        match self {
            Self::Children => 0,
            Self::ChildkeyTake => 1,
            Self::None => 2,
            Self::WeightsVersionKey => 4,
            Self::OwnerHotkey => 5,
            Self::Hyperparameter(_) => 6,
            Self::MechanismCount => 7,
            Self::MechanismSplit => 8,
            Self::Trim => 9,
            Self::AddStakeBurn => 10,
            Self::Tempo => 11,
        }
    }
}

impl<T: Config> Pallet<T> {
    /// Blocks that must lie between two uses.
    fn least_blocks(limit: OwnerLimit, netuid: NetUid) -> u64 {
        let tempo = u64::from(Tempo::<T>::get(netuid));
        match limit {
            OwnerLimit::Hyperparameter(_) => tempo * u64::from(OwnerHyperparamRateLimit::<T>::get()),
            OwnerLimit::Children => SET_CHILDREN,
            OwnerLimit::ChildkeyTake => TxChildkeyTakeRateLimit::<T>::get(),
            OwnerLimit::WeightsVersionKey => tempo.saturating_mul(WeightsVersionKeyRateLimit::<T>::get()),
            OwnerLimit::OwnerHotkey => SET_OWNER_HOTKEY,
            OwnerLimit::MechanismCount | OwnerLimit::MechanismSplit => SET_MECHANISMS,
            OwnerLimit::Trim => TRIM,
            OwnerLimit::AddStakeBurn => tempo,
            OwnerLimit::Tempo => u64::from(MIN_TEMPO),
            OwnerLimit::None => 0,
        }
    }

    fn last_use(limit: OwnerLimit, who: &T::AccountId, netuid: NetUid) -> u64 {
        match limit {
            OwnerLimit::OwnerHotkey => LastRateLimitedBlock::<T>::get(RateLimitKey::SetSNOwnerHotkey(netuid)),
            OwnerLimit::Hyperparameter(parameter) => {
                LastRateLimitedBlock::<T>::get(RateLimitKey::OwnerHyperparamUpdate(netuid, parameter))
            }
            other => TransactionKeyLastBlock::<T>::get((who, netuid, other.kind())),
        }
    }

    /// Whether an account may do something again. The first time it always may.
    pub(super) fn passes_limit(limit: OwnerLimit, who: &T::AccountId, netuid: NetUid) -> bool {
        let last = Self::last_use(limit, who, netuid);
        last == 0 || Self::block().saturating_sub(last) >= Self::least_blocks(limit, netuid)
    }

    /// Starts the clock of a limit.
    pub(super) fn note_use(limit: OwnerLimit, who: &T::AccountId, netuid: NetUid) {
        let block = Self::block();
        match limit {
            OwnerLimit::None => {}
            OwnerLimit::OwnerHotkey => {
                LastRateLimitedBlock::<T>::insert(RateLimitKey::SetSNOwnerHotkey(netuid), block);
            }
            OwnerLimit::Hyperparameter(parameter) => {
                LastRateLimitedBlock::<T>::insert(RateLimitKey::OwnerHyperparamUpdate(netuid, parameter), block);
            }
            other => TransactionKeyLastBlock::<T>::insert((who, netuid, other.kind()), block),
        }
    }

    /// The owner of a subnet, or nobody for root.
    ///
    /// # Errors
    /// `BadOrigin` for anyone else.
    pub fn ensure_owner_or_root(origin: OriginFor<T>, netuid: NetUid) -> Result<Option<T::AccountId>, DispatchError> {
        let who = frame_system::ensure_signed_or_root(origin)?;
        let owns = |who: &T::AccountId| SubnetOwner::<T>::try_get(netuid).as_ref() == Ok(who);
        ensure!(who.as_ref().is_none_or(owns), DispatchError::BadOrigin);
        Ok(who)
    }

    /// Makes a change that the owner of a subnet may make now and then, outside the window before an epoch, and that
    /// root may make at any time. What fails does not count.
    ///
    /// # Errors
    /// Who may not, when it is too soon or too late, and what the change says.
    pub fn as_owner_or_root(
        origin: OriginFor<T>,
        netuid: NetUid,
        limit: OwnerLimit,
        change: impl FnOnce() -> DispatchResult,
    ) -> DispatchResult {
        let owner = Self::ensure_owner_or_root(origin, netuid)?;
        if let Some(owner) = &owner {
            ensure!(Self::passes_limit(limit, owner, netuid), Error::<T>::TxRateLimitExceeded);
            let frozen = Self::in_freeze_window(netuid);
            ensure!(!frozen, Error::<T>::AdminActionProhibitedDuringWeightsWindow);
        }
        change()?;
        if let Some(owner) = &owner {
            Self::note_use(limit, owner, netuid);
        }
        Ok(())
    }
}
