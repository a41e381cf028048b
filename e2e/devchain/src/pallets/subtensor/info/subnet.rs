//! Subnets and their hyperparameters.

use codec::{Compact, Decode, Encode};
use scale_info::TypeInfo;
use sp_runtime::AccountId32;
use substrate_fixed::types::{I32F32, I96F32, U64F64};

use super::super::pallet::*;
use super::super::types::{AlphaBalance, NetUid, SubnetIdentityV3, TaoBalance};
use super::compact_bytes;

/// A subnet with its pool.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct DynamicInfo {
    /// Subnet.
    pub netuid: Compact<NetUid>,
    /// Hotkey of its owner.
    pub owner_hotkey: AccountId32,
    /// Coldkey of its owner.
    pub owner_coldkey: AccountId32,
    /// Name.
    pub subnet_name: Vec<Compact<u8>>,
    /// Symbol of its token.
    pub token_symbol: Vec<Compact<u8>>,
    /// Blocks between epochs.
    pub tempo: Compact<u16>,
    /// Block of the last epoch.
    pub last_step: Compact<u64>,
    /// Blocks since the last epoch.
    pub blocks_since_last_step: Compact<u64>,
    /// Unused.
    pub emission: Compact<u64>,
    /// Alpha in the pool.
    pub alpha_in: Compact<AlphaBalance>,
    /// Alpha outside the pool.
    pub alpha_out: Compact<AlphaBalance>,
    /// TAO in the pool.
    pub tao_in: Compact<TaoBalance>,
    /// Alpha emitted per block.
    pub alpha_out_emission: Compact<AlphaBalance>,
    /// Alpha put into the pool per block.
    pub alpha_in_emission: Compact<AlphaBalance>,
    /// TAO put into the pool per block.
    pub tao_in_emission: Compact<TaoBalance>,
    /// Alpha waiting for the epoch.
    pub pending_alpha_emission: Compact<AlphaBalance>,
    /// Alpha waiting for root stake.
    pub pending_root_emission: Compact<TaoBalance>,
    /// TAO traded so far.
    pub subnet_volume: Compact<u128>,
    /// Block of its registration.
    pub network_registered_at: Compact<u64>,
    /// Identity given by its owner.
    pub subnet_identity: Option<SubnetIdentityV3>,
    /// Moving average of the price.
    pub moving_price: I96F32,
}

/// Defines two versions of a struct: the second has the first one's fields and then its own. It is flat, because
/// clients go by the names of the fields; one field may have another name in the second, in brackets.
macro_rules! versions {
    (
        $(#[$doc:meta])* $first:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
            $(
                [$(#[$other_doc:meta])* $old:ident, $new:ident: $other:ty]
                $($(#[$rest_doc:meta])* $rest:ident: $rest_type:ty,)*
            )?
        }
        $(#[$second_doc:meta])* $second:ident { $($(#[$more_doc:meta])* $more:ident: $more_type:ty,)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, TypeInfo)]
        pub struct $first {
            $($(#[$field_doc])* pub $field: $type,)*
            $($(#[$other_doc])* pub $old: $other, $($(#[$rest_doc])* pub $rest: $rest_type,)*)?
        }

        $(#[$second_doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, TypeInfo)]
        pub struct $second {
            $($(#[$field_doc])* pub $field: $type,)*
            $($(#[$other_doc])* pub $new: $other, $($(#[$rest_doc])* pub $rest: $rest_type,)*)?
            $($(#[$more_doc])* pub $more: $more_type,)*
        }

        impl $second {
            fn from_first(first: $first, $($more: $more_type),*) -> Self {
                Self {
                    $($field: first.$field,)*
                    $($new: first.$old, $($rest: first.$rest,)*)?
                    $($more,)*
                }
            }
        }
    };
}

versions! {
    /// A subnet as clients before dynamic TAO read it.
    SubnetInfo {
        /// Subnet.
        netuid: Compact<NetUid>,
        /// Hyperparameter `rho`.
        rho: Compact<u16>,
        /// Hyperparameter `kappa`.
        kappa: Compact<u16>,
        /// Legacy.
        difficulty: Compact<u64>,
        /// Blocks in which a neuron is not replaced.
        immunity_period: Compact<u16>,
        /// Most permits.
        max_allowed_validators: Compact<u16>,
        /// Least number of weights.
        min_allowed_weights: Compact<u16>,
        /// Largest share of one weight.
        max_weights_limit: Compact<u16>,
        /// Legacy.
        scaling_law_power: Compact<u16>,
        /// Number of neurons.
        subnetwork_n: Compact<u16>,
        /// Most neurons.
        max_allowed_uids: Compact<u16>,
        /// Blocks since the last epoch.
        blocks_since_last_step: Compact<u64>,
        /// Blocks between epochs.
        tempo: Compact<u16>,
        /// Legacy.
        network_modality: Compact<u16>,
        /// Legacy.
        network_connect: Vec<[u16; 2]>,
        [/// Legacy.
        emission_values, emission_value: Compact<u64>]
        /// Price of a registration.
        burn: Compact<TaoBalance>,
        /// Coldkey of its owner.
        owner: AccountId32,
    }
    /// [`SubnetInfo`] with the identity. Spelt as on the chain.
    SubnetInfov2 {
        /// Identity given by its owner.
        identity: Option<SubnetIdentityV3>,
    }
}

versions! {
    /// Hyperparameters, first version.
    SubnetHyperparams {
        /// Hyperparameter `rho`.
        rho: Compact<u16>,
        /// Hyperparameter `kappa`.
        kappa: Compact<u16>,
        /// Blocks in which a neuron is not replaced.
        immunity_period: Compact<u16>,
        /// Least number of weights.
        min_allowed_weights: Compact<u16>,
        /// Largest share of one weight.
        max_weights_limit: Compact<u16>,
        /// Blocks between epochs.
        tempo: Compact<u16>,
        /// Legacy.
        min_difficulty: Compact<u64>,
        /// Legacy.
        max_difficulty: Compact<u64>,
        /// Least version key.
        weights_version: Compact<u64>,
        /// Blocks between weights.
        weights_rate_limit: Compact<u64>,
        /// Legacy.
        adjustment_interval: Compact<u16>,
        /// Blocks for which weights count.
        activity_cutoff: Compact<u64>,
        /// Whether neurons may register.
        registration_allowed: bool,
        /// Legacy.
        target_regs_per_interval: Compact<u16>,
        /// Least price of a registration.
        min_burn: Compact<TaoBalance>,
        /// Largest price of a registration.
        max_burn: Compact<TaoBalance>,
        /// Share of old bonds kept, in millionths.
        bonds_moving_avg: Compact<u64>,
        /// Legacy.
        max_regs_per_block: Compact<u16>,
        /// Blocks between axons.
        serving_rate_limit: Compact<u64>,
        /// Most permits.
        max_validators: Compact<u16>,
        /// Legacy.
        adjustment_alpha: Compact<u64>,
        /// Legacy.
        difficulty: Compact<u64>,
        /// Epochs from commit to reveal.
        commit_reveal_period: Compact<u64>,
        /// Whether weights are committed first.
        commit_reveal_weights_enabled: bool,
        /// Largest rate of liquid alpha.
        alpha_high: Compact<u16>,
        /// Least rate of liquid alpha.
        alpha_low: Compact<u16>,
        /// Whether bonds move at a rate per pair.
        liquid_alpha_enabled: bool,
    }
    /// Hyperparameters, second version.
    SubnetHyperparamsV2 {
        /// Steepness of liquid alpha.
        alpha_sigmoid_steepness: I32F32,
        /// 3, or 2.
        yuma_version: Compact<u16>,
        /// Whether the subnet emits.
        subnet_is_active: bool,
        /// Whether stake may be transferred.
        transfers_enabled: bool,
        /// Whether a commitment may reset bonds.
        bonds_reset_enabled: bool,
        /// Whether users provide liquidity.
        user_liquidity_enabled: bool,
    }
}

/// A hyperparameter by name.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct HyperparamEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// Its value.
    pub value: HyperparamValue,
}

/// Value of a hyperparameter.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub enum HyperparamValue {
    /// Yes or no.
    Bool(bool),
    /// 16 bits.
    U16(Compact<u16>),
    /// 32 bits.
    U32(Compact<u32>),
    /// 64 bits.
    U64(Compact<u64>),
    /// 128 bits.
    U128(Compact<u128>),
    /// Rao.
    TaoBalance(Compact<TaoBalance>),
    /// Signed fixed point.
    I32F32(I32F32),
    /// Unsigned fixed point.
    U64F64(U64F64),
}

impl<T: Config> Pallet<T> {
    /// A subnet with its pool.
    pub fn get_dynamic_info(netuid: NetUid) -> Option<DynamicInfo> {
        Self::exists(netuid).then(|| DynamicInfo {
            netuid: Compact(netuid),
            owner_hotkey: SubnetOwnerHotkey::<T>::get(netuid),
            owner_coldkey: SubnetOwner::<T>::get(netuid),
            subnet_name: compact_bytes(&Self::subnet_name(netuid)),
            token_symbol: compact_bytes(&TokenSymbol::<T>::get(netuid)),
            tempo: Compact(Tempo::<T>::get(netuid)),
            last_step: Compact(LastMechansimStepBlock::<T>::get(netuid)),
            blocks_since_last_step: Compact(BlocksSinceLastStep::<T>::get(netuid)),
            emission: Compact(0),
            alpha_in: Compact(SubnetAlphaIn::<T>::get(netuid)),
            alpha_out: Compact(SubnetAlphaOut::<T>::get(netuid)),
            tao_in: Compact(SubnetTAO::<T>::get(netuid)),
            alpha_out_emission: Compact(SubnetAlphaOutEmission::<T>::get(netuid)),
            alpha_in_emission: Compact(SubnetAlphaInEmission::<T>::get(netuid)),
            tao_in_emission: Compact(SubnetTaoInEmission::<T>::get(netuid)),
            pending_alpha_emission: Compact(Self::pending_alpha(netuid)),
            pending_root_emission: Compact(PendingRootAlphaDivs::<T>::get(netuid)),
            subnet_volume: Compact(SubnetVolume::<T>::get(netuid)),
            network_registered_at: Compact(NetworkRegisteredAt::<T>::get(netuid)),
            subnet_identity: SubnetIdentitiesV3::<T>::get(netuid),
            moving_price: SubnetMovingPrice::<T>::get(netuid),
        })
    }

    /// A subnet as clients before dynamic TAO read it.
    pub fn get_subnet_info(netuid: NetUid) -> Option<SubnetInfo> {
        Self::exists(netuid).then(|| SubnetInfo {
            netuid: Compact(netuid),
            rho: Compact(Rho::<T>::get(netuid)),
            kappa: Compact(Kappa::<T>::get(netuid)),
            difficulty: Compact(Difficulty::<T>::get(netuid)),
            immunity_period: Compact(ImmunityPeriod::<T>::get(netuid)),
            max_allowed_validators: Compact(MaxAllowedValidators::<T>::get(netuid)),
            min_allowed_weights: Compact(MinAllowedWeights::<T>::get(netuid)),
            max_weights_limit: Compact(MaxWeightsLimit::<T>::get(netuid)),
            scaling_law_power: Compact(50),
            subnetwork_n: Compact(SubnetworkN::<T>::get(netuid)),
            max_allowed_uids: Compact(MaxAllowedUids::<T>::get(netuid)),
            blocks_since_last_step: Compact(BlocksSinceLastStep::<T>::get(netuid)),
            tempo: Compact(Tempo::<T>::get(netuid)),
            network_modality: Compact(0),
            network_connect: Vec::new(),
            emission_values: Compact(0),
            burn: Compact(Burn::<T>::get(netuid)),
            owner: SubnetOwner::<T>::get(netuid),
        })
    }

    /// [`Self::get_subnet_info`] with the identity.
    pub fn get_subnet_info_v2(netuid: NetUid) -> Option<SubnetInfov2> {
        let identity = SubnetIdentitiesV3::<T>::get(netuid);
        Self::get_subnet_info(netuid).map(|info| SubnetInfov2::from_first(info, identity))
    }

    /// Hyperparameters, first version.
    pub fn get_subnet_hyperparams(netuid: NetUid) -> Option<SubnetHyperparams> {
        let (alpha_low, alpha_high) = AlphaValues::<T>::get(netuid);
        Self::exists(netuid).then(|| SubnetHyperparams {
            rho: Compact(Rho::<T>::get(netuid)),
            kappa: Compact(Kappa::<T>::get(netuid)),
            immunity_period: Compact(ImmunityPeriod::<T>::get(netuid)),
            min_allowed_weights: Compact(MinAllowedWeights::<T>::get(netuid)),
            max_weights_limit: Compact(MaxWeightsLimit::<T>::get(netuid)),
            tempo: Compact(Tempo::<T>::get(netuid)),
            min_difficulty: Compact(MinDifficulty::<T>::get(netuid)),
            max_difficulty: Compact(MaxDifficulty::<T>::get(netuid)),
            weights_version: Compact(WeightsVersionKey::<T>::get(netuid)),
            weights_rate_limit: Compact(WeightsSetRateLimit::<T>::get(netuid)),
            adjustment_interval: Compact(AdjustmentInterval::<T>::get(netuid)),
            activity_cutoff: Compact(Self::activity_cutoff(netuid)),
            registration_allowed: NetworkRegistrationAllowed::<T>::get(netuid),
            target_regs_per_interval: Compact(TargetRegistrationsPerInterval::<T>::get(netuid)),
            min_burn: Compact(MinBurn::<T>::get(netuid)),
            max_burn: Compact(MaxBurn::<T>::get(netuid)),
            bonds_moving_avg: Compact(BondsMovingAverage::<T>::get(netuid)),
            max_regs_per_block: Compact(MaxRegistrationsPerBlock::<T>::get(netuid)),
            serving_rate_limit: Compact(ServingRateLimit::<T>::get(netuid)),
            max_validators: Compact(MaxAllowedValidators::<T>::get(netuid)),
            adjustment_alpha: Compact(AdjustmentAlpha::<T>::get(netuid)),
            difficulty: Compact(Difficulty::<T>::get(netuid)),
            commit_reveal_period: Compact(RevealPeriodEpochs::<T>::get(netuid)),
            commit_reveal_weights_enabled: CommitRevealWeightsEnabled::<T>::get(netuid),
            alpha_high: Compact(alpha_high),
            alpha_low: Compact(alpha_low),
            liquid_alpha_enabled: LiquidAlphaOn::<T>::get(netuid),
        })
    }

    fn yuma_version(netuid: NetUid) -> u16 {
        if Yuma3On::<T>::get(netuid) { 3 } else { 2 }
    }

    fn is_started(netuid: NetUid) -> bool {
        FirstEmissionBlockNumber::<T>::contains_key(netuid)
    }

    fn steepness(netuid: NetUid) -> I32F32 {
        I32F32::from_num(AlphaSigmoidSteepness::<T>::get(netuid))
    }

    /// Hyperparameters, second version.
    pub fn get_subnet_hyperparams_v2(netuid: NetUid) -> Option<SubnetHyperparamsV2> {
        Some(SubnetHyperparamsV2::from_first(
            Self::get_subnet_hyperparams(netuid)?,
            Self::steepness(netuid),
            Compact(Self::yuma_version(netuid)),
            Self::is_started(netuid),
            TransferToggle::<T>::get(netuid),
            BondsResetOn::<T>::get(netuid),
            false,
        ))
    }

    /// Hyperparameters by name.
    pub fn get_subnet_hyperparams_v3(netuid: NetUid) -> Option<Vec<HyperparamEntry>> {
        use HyperparamValue::{Bool, TaoBalance, U16, U32, U64};
        let v1 = Self::get_subnet_hyperparams(netuid)?;
        let entries = [
            ("kappa", U16(v1.kappa)),
            ("immunity_period", U16(v1.immunity_period)),
            ("min_allowed_weights", U16(v1.min_allowed_weights)),
            ("max_weights_limit", U16(v1.max_weights_limit)),
            ("tempo", U16(v1.tempo)),
            ("weights_version", U64(v1.weights_version)),
            ("weights_rate_limit", U64(v1.weights_rate_limit)),
            ("activity_cutoff", U64(v1.activity_cutoff)),
            ("activity_cutoff_factor", U32(Compact(ActivityCutoffFactorMilli::<T>::get(netuid)))),
            ("registration_allowed", Bool(v1.registration_allowed)),
            ("target_regs_per_interval", U16(v1.target_regs_per_interval)),
            ("min_burn", TaoBalance(v1.min_burn)),
            ("max_burn", TaoBalance(v1.max_burn)),
            ("burn_half_life", U16(Compact(BurnHalfLife::<T>::get(netuid)))),
            ("burn_increase_mult", HyperparamValue::U64F64(BurnIncreaseMult::<T>::get(netuid))),
            ("bonds_moving_avg", U64(v1.bonds_moving_avg)),
            ("max_regs_per_block", U16(v1.max_regs_per_block)),
            ("serving_rate_limit", U64(v1.serving_rate_limit)),
            ("max_validators", U16(v1.max_validators)),
            ("commit_reveal_period", U64(v1.commit_reveal_period)),
            ("commit_reveal_weights_enabled", Bool(v1.commit_reveal_weights_enabled)),
            ("alpha_high", U16(v1.alpha_high)),
            ("alpha_low", U16(v1.alpha_low)),
            ("liquid_alpha_enabled", Bool(v1.liquid_alpha_enabled)),
            ("alpha_sigmoid_steepness", HyperparamValue::I32F32(Self::steepness(netuid))),
            ("yuma_version", U16(Compact(Self::yuma_version(netuid)))),
            ("subnet_is_active", Bool(Self::is_started(netuid))),
            ("transfers_enabled", Bool(TransferToggle::<T>::get(netuid))),
            ("bonds_reset_enabled", Bool(BondsResetOn::<T>::get(netuid))),
            ("user_liquidity_enabled", Bool(false)),
            ("owner_cut_enabled", Bool(OwnerCutEnabled::<T>::get(netuid))),
            ("owner_cut_auto_lock_enabled", Bool(OwnerCutAutoLockEnabled::<T>::get(netuid))),
            ("min_childkey_take", U16(Compact(Self::min_childkey_take(netuid)))),
        ];
        let entry = |(name, value): (&str, HyperparamValue)| HyperparamEntry { name: name.into(), value };
        Some(entries.into_iter().map(entry).collect())
    }
}
