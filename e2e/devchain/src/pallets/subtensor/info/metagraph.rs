//! The metagraph: everything about a subnet in one answer, whole or only the fields that were asked for.

use std::cell::OnceCell;
use std::marker::PhantomData;

use codec::{Compact, Decode, Encode, FullCodec};
use scale_info::TypeInfo;
use sp_runtime::AccountId32;
use substrate_fixed::types::I96F32;

use super::super::columns::{Column, HotkeyHash, by_hotkey, by_netuid_and_hotkey, hash_hotkey};
use super::super::pallet::*;
use super::super::types::{AlphaBalance, AxonInfo, ChainIdentityV2, MechId, NetUid, SubnetIdentityV3, TaoBalance};
use super::{compact, compact_bytes};

/// A subnet's mechanism, from which fields are read one by one.
struct View<T: Config> {
    netuid: NetUid,
    mecid: MechId,
    hotkeys: OnceCell<Vec<AccountId32>>,
    hashes: OnceCell<Vec<HotkeyHash>>,
    coldkeys: OnceCell<Vec<AccountId32>>,
    stakes: OnceCell<Vec<(AlphaBalance, TaoBalance, u64)>>,
    runtime: PhantomData<T>,
}

impl<T: Config> View<T> {
    fn new(netuid: NetUid, mecid: MechId) -> Option<Self> {
        let known = Pallet::<T>::exists(netuid) && mecid < MechanismCountCurrent::<T>::get(netuid);
        known.then(|| Self {
            netuid,
            mecid,
            hotkeys: OnceCell::new(),
            hashes: OnceCell::new(),
            coldkeys: OnceCell::new(),
            stakes: OnceCell::new(),
            runtime: PhantomData,
        })
    }

    fn index(&self) -> u16 {
        self.netuid.index(self.mecid)
    }

    fn hotkeys(&self) -> &[AccountId32] {
        self.hotkeys.get_or_init(|| Pallet::<T>::hotkeys(self.netuid))
    }

    fn coldkeys(&self) -> &[AccountId32] {
        self.coldkeys.get_or_init(|| self.column(&by_hotkey::<Owner<T>, _, _>()))
    }

    fn n(&self) -> usize {
        usize::from(SubnetworkN::<T>::get(self.netuid))
    }

    fn stakes(&self) -> &[(AlphaBalance, TaoBalance, u64)] {
        self.stakes.get_or_init(|| Pallet::<T>::stake_weights_of(self.hashes(), self.netuid))
    }

    fn hashes(&self) -> &[HotkeyHash] {
        self.hashes.get_or_init(|| self.hotkeys().iter().map(hash_hotkey).collect())
    }

    /// What a map has of every hotkey.
    fn column<V: FullCodec, Q>(&self, column: &Column<48, V, Q>) -> Vec<Q> {
        self.hashes().iter().map(|hotkey| column.get(hotkey)).collect()
    }

    fn with_hotkeys<V>(&self, values: Vec<V>) -> Vec<(AccountId32, Compact<V>)> {
        self.hotkeys().iter().cloned().zip(values.into_iter().map(Compact)).collect()
    }

    fn flags(&self, mut flags: Vec<bool>) -> Vec<bool> {
        flags.resize(self.n(), false);
        flags
    }

    fn zeros<V: Clone + Default>(&self) -> Vec<Compact<V>> {
        compact(Vec::new(), self.n())
    }
}

/// Defines both structs and how each field is read. The number is the field's index in selective requests.
macro_rules! metagraph {
    ($($(#[$doc:meta])* $index:literal $name:ident: $type:ty = $read:expr;)*
        selective { $($(#[$only_doc:meta])* $only_index:literal $only:ident: $only_type:ty = $only_read:expr;)* }
        $($(#[$tail_doc:meta])* $tail_index:literal $tail:ident: $tail_type:ty = $tail_read:expr;)*
    ) => {
        /// A subnet and all of its neurons.
        #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, TypeInfo)]
        pub struct Metagraph {
            /// Subnet.
            pub netuid: Compact<NetUid>,
            $($(#[$doc])* pub $name: $type,)*
            $($(#[$tail_doc])* pub $tail: $tail_type,)*
        }

        /// A subnet and those fields that were asked for.
        #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, TypeInfo)]
        pub struct SelectiveMetagraph {
            /// Subnet.
            pub netuid: Compact<NetUid>,
            $($(#[$doc])* pub $name: Option<$type>,)*
            $($(#[$only_doc])* pub $only: Option<$only_type>,)*
            $($(#[$tail_doc])* pub $tail: Option<$tail_type>,)*
        }

        fn whole<T: Config>(view: &View<T>) -> Metagraph {
            fn read<T: Config, V>(view: &View<T>, read: impl Fn(&View<T>) -> V) -> V {
                read(view)
            }
            Metagraph {
                netuid: Compact(view.netuid),
                $($name: read(view, $read),)*
                $($tail: read(view, $tail_read),)*
            }
        }

        fn selected<T: Config>(view: &View<T>, indexes: &[u16]) -> SelectiveMetagraph {
            fn read<T: Config, V>(view: &View<T>, wanted: bool, read: impl Fn(&View<T>) -> V) -> Option<V> {
                wanted.then(|| read(view))
            }
            SelectiveMetagraph {
                netuid: Compact(view.netuid),
                $($name: read(view, indexes.contains(&$index), $read),)*
                $($only: read(view, indexes.contains(&$only_index), $only_read),)*
                $($tail: read(view, indexes.contains(&$tail_index), $tail_read),)*
            }
        }
    };
}

metagraph! {
    /// Name of the subnet.
    1 name: Vec<Compact<u8>> = |v| compact_bytes(&Pallet::<T>::subnet_name(v.netuid));
    /// Symbol of its token.
    2 symbol: Vec<Compact<u8>> = |v| compact_bytes(&TokenSymbol::<T>::get(v.netuid));
    /// Identity given by its owner.
    3 identity: Option<SubnetIdentityV3> = |v| SubnetIdentitiesV3::<T>::get(v.netuid);
    /// Block of its registration.
    4 network_registered_at: Compact<u64> = |v| Compact(NetworkRegisteredAt::<T>::get(v.netuid));
    /// Hotkey of its owner.
    5 owner_hotkey: AccountId32 = |v| SubnetOwnerHotkey::<T>::get(v.netuid);
    /// Coldkey of its owner.
    6 owner_coldkey: AccountId32 = |v| SubnetOwner::<T>::get(v.netuid);
    /// Block of this view.
    7 block: Compact<u64> = |_| Compact(Pallet::<T>::block());
    /// Blocks between epochs.
    8 tempo: Compact<u16> = |v| Compact(Tempo::<T>::get(v.netuid));
    /// Block of the last epoch.
    9 last_step: Compact<u64> = |v| Compact(LastMechansimStepBlock::<T>::get(v.netuid));
    /// Blocks since the last epoch.
    10 blocks_since_last_step: Compact<u64> = |v| Compact(BlocksSinceLastStep::<T>::get(v.netuid));
    /// Emission of the subnet, 0 since emission is per alpha.
    11 subnet_emission: Compact<u64> = |_| Compact(0);
    /// Alpha in the pool.
    12 alpha_in: Compact<AlphaBalance> = |v| Compact(SubnetAlphaIn::<T>::get(v.netuid));
    /// Alpha outside the pool.
    13 alpha_out: Compact<AlphaBalance> = |v| Compact(SubnetAlphaOut::<T>::get(v.netuid));
    /// TAO in the pool.
    14 tao_in: Compact<TaoBalance> = |v| Compact(SubnetTAO::<T>::get(v.netuid));
    /// Alpha emitted per block.
    15 alpha_out_emission: Compact<AlphaBalance> = |v| Compact(SubnetAlphaOutEmission::<T>::get(v.netuid));
    /// Alpha put into the pool per block.
    16 alpha_in_emission: Compact<AlphaBalance> = |v| Compact(SubnetAlphaInEmission::<T>::get(v.netuid));
    /// TAO put into the pool per block.
    17 tao_in_emission: Compact<TaoBalance> = |v| Compact(SubnetTaoInEmission::<T>::get(v.netuid));
    /// Alpha waiting for the epoch.
    18 pending_alpha_emission: Compact<AlphaBalance> = |v| Compact(Pallet::<T>::pending_alpha(v.netuid));
    /// Alpha waiting for root stake.
    19 pending_root_emission: Compact<TaoBalance> = |v| Compact(PendingRootAlphaDivs::<T>::get(v.netuid));
    /// TAO traded so far.
    20 subnet_volume: Compact<u128> = |v| Compact(SubnetVolume::<T>::get(v.netuid));
    /// Moving average of the price.
    21 moving_price: I96F32 = |v| SubnetMovingPrice::<T>::get(v.netuid);
    /// Hyperparameter `rho`.
    22 rho: Compact<u16> = |v| Compact(Rho::<T>::get(v.netuid));
    /// Hyperparameter `kappa`.
    23 kappa: Compact<u16> = |v| Compact(Kappa::<T>::get(v.netuid));
    /// Least number of weights.
    24 min_allowed_weights: Compact<u16> = |v| Compact(MinAllowedWeights::<T>::get(v.netuid));
    /// Largest share of one weight.
    25 max_weights_limit: Compact<u16> = |v| Compact(MaxWeightsLimit::<T>::get(v.netuid));
    /// Least version key.
    26 weights_version: Compact<u64> = |v| Compact(WeightsVersionKey::<T>::get(v.netuid));
    /// Blocks between weights.
    27 weights_rate_limit: Compact<u64> = |v| Compact(WeightsSetRateLimit::<T>::get(v.netuid));
    /// Blocks for which weights count.
    28 activity_cutoff: Compact<u64> = |v| Compact(Pallet::<T>::activity_cutoff(v.netuid));
    /// Most permits.
    29 max_validators: Compact<u16> = |v| Compact(MaxAllowedValidators::<T>::get(v.netuid));
    /// Number of neurons.
    30 num_uids: Compact<u16> = |v| Compact(SubnetworkN::<T>::get(v.netuid));
    /// Most neurons.
    31 max_uids: Compact<u16> = |v| Compact(MaxAllowedUids::<T>::get(v.netuid));
    /// Price of a registration.
    32 burn: Compact<TaoBalance> = |v| Compact(Burn::<T>::get(v.netuid));
    /// Legacy.
    33 difficulty: Compact<u64> = |v| Compact(Difficulty::<T>::get(v.netuid));
    /// Whether neurons may register.
    34 registration_allowed: bool = |v| NetworkRegistrationAllowed::<T>::get(v.netuid);
    /// Legacy.
    35 pow_registration_allowed: bool = |v| NetworkPowRegistrationAllowed::<T>::get(v.netuid);
    /// Blocks in which a neuron is not replaced.
    36 immunity_period: Compact<u16> = |v| Compact(ImmunityPeriod::<T>::get(v.netuid));
    /// Legacy.
    37 min_difficulty: Compact<u64> = |v| Compact(MinDifficulty::<T>::get(v.netuid));
    /// Legacy.
    38 max_difficulty: Compact<u64> = |v| Compact(MaxDifficulty::<T>::get(v.netuid));
    /// Least price of a registration.
    39 min_burn: Compact<TaoBalance> = |v| Compact(MinBurn::<T>::get(v.netuid));
    /// Largest price of a registration.
    40 max_burn: Compact<TaoBalance> = |v| Compact(MaxBurn::<T>::get(v.netuid));
    /// Legacy.
    41 adjustment_alpha: Compact<u64> = |v| Compact(AdjustmentAlpha::<T>::get(v.netuid));
    /// Legacy.
    42 adjustment_interval: Compact<u16> = |v| Compact(AdjustmentInterval::<T>::get(v.netuid));
    /// Legacy.
    43 target_regs_per_interval: Compact<u16> = |v| Compact(TargetRegistrationsPerInterval::<T>::get(v.netuid));
    /// Legacy.
    44 max_regs_per_block: Compact<u16> = |v| Compact(MaxRegistrationsPerBlock::<T>::get(v.netuid));
    /// Blocks between axons.
    45 serving_rate_limit: Compact<u64> = |v| Compact(ServingRateLimit::<T>::get(v.netuid));
    /// Whether weights are committed first.
    46 commit_reveal_weights_enabled: bool = |v| CommitRevealWeightsEnabled::<T>::get(v.netuid);
    /// Epochs from commit to reveal.
    47 commit_reveal_period: Compact<u64> = |v| Compact(RevealPeriodEpochs::<T>::get(v.netuid));
    /// Whether bonds move at a rate per pair.
    48 liquid_alpha_enabled: bool = |v| LiquidAlphaOn::<T>::get(v.netuid);
    /// Largest rate of liquid alpha.
    49 alpha_high: Compact<u16> = |v| Compact(AlphaValues::<T>::get(v.netuid).1);
    /// Least rate of liquid alpha.
    50 alpha_low: Compact<u16> = |v| Compact(AlphaValues::<T>::get(v.netuid).0);
    /// Share of old bonds kept, in millionths.
    51 bonds_moving_avg: Compact<u64> = |v| Compact(BondsMovingAverage::<T>::get(v.netuid));
    /// Hotkeys.
    52 hotkeys: Vec<AccountId32> = |v| v.hotkeys().to_vec();
    /// Owners of the hotkeys.
    53 coldkeys: Vec<AccountId32> = |v| v.coldkeys().to_vec();
    /// Identities of the owners.
    54 identities: Vec<Option<ChainIdentityV2>> = |v| v.coldkeys().iter().map(IdentitiesV2::<T>::get).collect();
    /// Where neurons can be reached.
    55 axons: Vec<AxonInfo> = |v| {
        let axons = v.column(&by_netuid_and_hotkey::<Axons<T>, _, _>(v.netuid));
        axons.into_iter().map(Option::unwrap_or_default).collect()
    };
    /// Whether weights are recent.
    56 active: Vec<bool> = |v| v.flags(Active::<T>::get(v.netuid));
    /// Whether weights count.
    57 validator_permit: Vec<bool> = |v| v.flags(ValidatorPermit::<T>::get(v.netuid));
    /// Always 65535 since spec 401.
    58 pruning_score: Vec<Compact<u16>> = |v| vec![Compact(u16::MAX); v.n()];
    /// Blocks of the last weights.
    59 last_update: Vec<Compact<u64>> = |v| compact(LastUpdate::<T>::get(v.index()), v.n());
    /// Alpha of the last epoch.
    60 emission: Vec<Compact<AlphaBalance>> = |v| compact(Emission::<T>::get(v.netuid), v.n());
    /// Shares of the validators' emission.
    61 dividends: Vec<Compact<u16>> = |v| compact(Dividends::<T>::get(v.netuid), v.n());
    /// Shares of the miners' emission.
    62 incentives: Vec<Compact<u16>> = |v| compact(Incentive::<T>::get(v.index()), v.n());
    /// Consensus.
    63 consensus: Vec<Compact<u16>> = |v| compact(Consensus::<T>::get(v.netuid), v.n());
    /// Always 0 since spec 401.
    64 trust: Vec<Compact<u16>> = View::zeros;
    /// Always 0 since spec 401.
    65 rank: Vec<Compact<u16>> = View::zeros;
    /// Blocks of registration.
    66 block_at_registration: Vec<Compact<u64>> = |v| compact(Pallet::<T>::registration_blocks(v.netuid), v.n());
    /// Alpha staked.
    67 alpha_stake: Vec<Compact<AlphaBalance>> = |v| v.stakes().iter().map(|stake| Compact(stake.0)).collect();
    /// Root TAO staked, unweighted.
    68 tao_stake: Vec<Compact<TaoBalance>> = |v| v.stakes().iter().map(|stake| Compact(stake.1)).collect();
    /// Alpha plus weighted root TAO.
    69 total_stake: Vec<Compact<TaoBalance>> = |v| v.stakes().iter().map(|stake| Compact(stake.2)).collect();
    /// Root dividends of the last epoch: paid in alpha here, so 0.
    70 tao_dividends_per_hotkey: Vec<(AccountId32, Compact<TaoBalance>)> =
        |v| v.with_hotkeys(vec![0; v.n()]);
    /// Dividends of the last epoch.
    71 alpha_dividends_per_hotkey: Vec<(AccountId32, Compact<AlphaBalance>)> =
        |v| v.with_hotkeys(v.column(&by_netuid_and_hotkey::<AlphaDividendsPerSubnet<T>, _, _>(v.netuid)));
    selective {
        /// Slots with a permit.
        72 validators: Vec<Compact<u16>> = |v| {
            let permits = ValidatorPermit::<T>::get(v.netuid);
            (0u16..).zip(permits).filter(|(_, permit)| *permit).map(|(uid, _)| Compact(uid)).collect()
        };
        /// Commitments of the hotkeys.
        73 commitments: Vec<(AccountId32, Vec<Compact<u8>>)> =
            |v| T::commitments(v.netuid).into_iter().map(|(who, data)| (who, compact_bytes(&data))).collect();
    }
    /// Collateral of miners, which this chain has not.
    74 collateral_locked: Vec<Compact<AlphaBalance>> = View::zeros;
    /// Least collateral of miners, which this chain has not.
    75 collateral_min: Vec<Compact<AlphaBalance>> = View::zeros;
    /// Earned collateral of miners, which this chain has not.
    76 collateral_earned: Vec<Compact<AlphaBalance>> = View::zeros;
}

impl<T: Config> Pallet<T> {
    /// Name of a subnet: what its owner calls it.
    pub fn subnet_name(netuid: NetUid) -> Vec<u8> {
        match SubnetIdentitiesV3::<T>::get(netuid) {
            Some(identity) => identity.subnet_name,
            None if netuid.is_root() => b"root".to_vec(),
            None => format!("subnet {netuid}").into_bytes(),
        }
    }

    /// Alpha that waits for the next epoch.
    pub(super) fn pending_alpha(netuid: NetUid) -> AlphaBalance {
        PendingServerEmission::<T>::get(netuid) + PendingValidatorEmission::<T>::get(netuid)
    }

    /// A subnet's mechanism and all of its neurons.
    pub fn get_mechagraph(netuid: NetUid, mecid: MechId) -> Option<Metagraph> {
        View::<T>::new(netuid, mecid).map(|view| whole(&view))
    }

    /// Those fields of a subnet's mechanism that were asked for.
    pub fn get_selective_mechagraph(netuid: NetUid, mecid: MechId, indexes: &[u16]) -> Option<SelectiveMetagraph> {
        View::<T>::new(netuid, mecid).map(|view| selected(&view, indexes))
    }
}
