//! `AdminUtils`: setters of hyperparameters, for root and for owners of subnets.

pub use pallet::*;

#[frame_support::pallet]
#[expect(missing_docs, reason = "the pallet macro generates items without documentation")]
pub mod pallet {
    use frame_support::pallet_prelude::*;
    use frame_support::weights::Weight;
    use frame_system::pallet_prelude::*;
    use substrate_fixed::types::U64F64;

    use crate::pallets::subtensor::pallet::*;
    use crate::pallets::subtensor::{
        self, Error as SubtensorError, Event as SubtensorEvent, NetUid, Pallet as Subtensor, RecycleOrBurnEnum,
        TaoBalance,
    };

    /// Every setter writes one or two values.
    const SETTER: Weight = Weight::from_parts(20_000_000, 0);

    #[pallet::pallet]
    #[pallet::without_storage_info]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config: frame_system::Config + subtensor::Config {}

    #[pallet::error]
    pub enum Error<T> {
        /// The subnet does not exist, check the netuid parameter
        SubnetDoesNotExist,
        /// The maximum number of subnet validators must be less than the maximum number of allowed UIDs in the subnet.
        MaxValidatorsLargerThanMaxUIds,
        /// The maximum number of subnet validators must be more than the current number of UIDs already in the subnet.
        MaxAllowedUIdsLessThanCurrentUIds,
        /// The maximum value for bonds moving average is reached
        BondsMovingAverageMaxReached,
        /// Value not in allowed bounds.
        #[codec(index = 5)]
        ValueNotInBounds,
        /// Operation is not permitted on the root network.
        #[codec(index = 11)]
        NotPermittedOnRootSubnet,
    }

    impl<T: Config> Pallet<T> {
        fn ensure_subnet(netuid: NetUid) -> DispatchResult {
            ensure!(Subtensor::<T>::exists(netuid), Error::<T>::SubnetDoesNotExist);
            Ok(())
        }

        fn ensure_root_for_subnet(origin: OriginFor<T>, netuid: NetUid) -> DispatchResult {
            ensure_root(origin)?;
            Self::ensure_subnet(netuid)
        }

        /// Owners may change nothing shortly before an epoch; root may at any time.
        fn ensure_owner_or_root(origin: OriginFor<T>, netuid: NetUid) -> DispatchResult {
            let Some(who) = ensure_signed_or_root(origin)? else {
                return Self::ensure_subnet(netuid);
            };
            Self::ensure_subnet(netuid)?;
            ensure!(SubnetOwner::<T>::get(netuid) == who, DispatchError::BadOrigin);
            let frozen = Subtensor::<T>::in_freeze_window(netuid);
            ensure!(!frozen, SubtensorError::<T>::AdminActionProhibitedDuringWeightsWindow);
            Ok(())
        }
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Sets: blocks between two rate-limited transactions.
        #[pallet::call_index(2)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_tx_rate_limit(origin: OriginFor<T>, tx_rate_limit: u64) -> DispatchResult {
            ensure_root(origin)?;
            TxRateLimit::<T>::put(tx_rate_limit);
            Subtensor::<T>::deposit_event(SubtensorEvent::TxRateLimitSet(tx_rate_limit));
            Ok(())
        }

        /// Sets: blocks between two axons of a neuron.
        #[pallet::call_index(3)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_serving_rate_limit(
            origin: OriginFor<T>,
            netuid: NetUid,
            serving_rate_limit: u64,
        ) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            ServingRateLimit::<T>::insert(netuid, serving_rate_limit);
            Subtensor::<T>::deposit_event(SubtensorEvent::ServingRateLimitSet(netuid, serving_rate_limit));
            Ok(())
        }

        /// Sets: least version key of `set_weights`.
        #[pallet::call_index(6)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_weights_version_key(
            origin: OriginFor<T>,
            netuid: NetUid,
            weights_version_key: u64,
        ) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            WeightsVersionKey::<T>::insert(netuid, weights_version_key);
            Subtensor::<T>::deposit_event(SubtensorEvent::WeightsVersionKeySet(netuid, weights_version_key));
            Ok(())
        }

        /// Sets: blocks between two weights of a neuron.
        #[pallet::call_index(7)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_weights_set_rate_limit(
            origin: OriginFor<T>,
            netuid: NetUid,
            weights_set_rate_limit: u64,
        ) -> DispatchResult {
            Self::ensure_root_for_subnet(origin, netuid)?;
            WeightsSetRateLimit::<T>::insert(netuid, weights_set_rate_limit);
            Subtensor::<T>::deposit_event(SubtensorEvent::WeightsSetRateLimitSet(netuid, weights_set_rate_limit));
            Ok(())
        }

        /// Sets: legacy.
        #[pallet::call_index(8)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_adjustment_interval(
            origin: OriginFor<T>,
            netuid: NetUid,
            adjustment_interval: u16,
        ) -> DispatchResult {
            Self::ensure_root_for_subnet(origin, netuid)?;
            AdjustmentInterval::<T>::insert(netuid, adjustment_interval);
            Subtensor::<T>::deposit_event(SubtensorEvent::AdjustmentIntervalSet(netuid, adjustment_interval));
            Ok(())
        }

        /// Sets: legacy.
        #[pallet::call_index(9)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_adjustment_alpha(
            origin: OriginFor<T>,
            netuid: NetUid,
            adjustment_alpha: u64,
        ) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            AdjustmentAlpha::<T>::insert(netuid, adjustment_alpha);
            Subtensor::<T>::deposit_event(SubtensorEvent::AdjustmentAlphaSet(netuid, adjustment_alpha));
            Ok(())
        }

        /// Sets: blocks in which a new neuron is not replaced.
        #[pallet::call_index(13)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_immunity_period(origin: OriginFor<T>, netuid: NetUid, immunity_period: u16) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            ImmunityPeriod::<T>::insert(netuid, immunity_period);
            Subtensor::<T>::deposit_event(SubtensorEvent::ImmunityPeriodSet(netuid, immunity_period));
            Ok(())
        }

        /// Sets: least number of weights to set.
        #[pallet::call_index(14)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_min_allowed_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            min_allowed_weights: u16,
        ) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            MinAllowedWeights::<T>::insert(netuid, min_allowed_weights);
            Subtensor::<T>::deposit_event(SubtensorEvent::MinAllowedWeightSet(netuid, min_allowed_weights));
            Ok(())
        }

        /// Sets: most neurons.
        #[pallet::call_index(15)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_max_allowed_uids(
            origin: OriginFor<T>,
            netuid: NetUid,
            max_allowed_uids: u16,
        ) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            ensure!(max_allowed_uids >= SubnetworkN::<T>::get(netuid), Error::<T>::MaxAllowedUIdsLessThanCurrentUIds);
            MaxAllowedUids::<T>::insert(netuid, max_allowed_uids);
            Subtensor::<T>::deposit_event(SubtensorEvent::MaxAllowedUidsSet(netuid, max_allowed_uids));
            Ok(())
        }

        /// Sets: majority of the consensus, in 65535ths.
        #[pallet::call_index(16)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_kappa(origin: OriginFor<T>, netuid: NetUid, kappa: u16) -> DispatchResult {
            Self::ensure_root_for_subnet(origin, netuid)?;
            Kappa::<T>::insert(netuid, kappa);
            Subtensor::<T>::deposit_event(SubtensorEvent::KappaSet(netuid, kappa));
            Ok(())
        }

        /// Sets: rho, legacy.
        #[pallet::call_index(17)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_rho(origin: OriginFor<T>, netuid: NetUid, rho: u16) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            Rho::<T>::insert(netuid, rho);
            Subtensor::<T>::deposit_event(SubtensorEvent::RhoSet(netuid, rho));
            Ok(())
        }

        /// Sets: superseded by `ActivityCutoffFactorMilli`.
        #[pallet::call_index(18)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_activity_cutoff(origin: OriginFor<T>, netuid: NetUid, activity_cutoff: u16) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            ActivityCutoff::<T>::insert(netuid, activity_cutoff);
            Subtensor::<T>::deposit_event(SubtensorEvent::ActivityCutoffSet(netuid, activity_cutoff));
            Ok(())
        }

        /// Sets: whether neurons may register.
        #[pallet::call_index(19)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_network_registration_allowed(
            origin: OriginFor<T>,
            netuid: NetUid,
            registration_allowed: bool,
        ) -> DispatchResult {
            Self::ensure_root_for_subnet(origin, netuid)?;
            NetworkRegistrationAllowed::<T>::insert(netuid, registration_allowed);
            Subtensor::<T>::deposit_event(SubtensorEvent::RegistrationAllowed(netuid, registration_allowed));
            Ok(())
        }

        /// Sets: legacy.
        #[pallet::call_index(20)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_network_pow_registration_allowed(
            origin: OriginFor<T>,
            netuid: NetUid,
            registration_allowed: bool,
        ) -> DispatchResult {
            Self::ensure_root_for_subnet(origin, netuid)?;
            NetworkPowRegistrationAllowed::<T>::insert(netuid, registration_allowed);
            Subtensor::<T>::deposit_event(SubtensorEvent::PowRegistrationAllowed(netuid, registration_allowed));
            Ok(())
        }

        /// Sets: legacy.
        #[pallet::call_index(21)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_target_registrations_per_interval(
            origin: OriginFor<T>,
            netuid: NetUid,
            target_registrations_per_interval: u16,
        ) -> DispatchResult {
            Self::ensure_root_for_subnet(origin, netuid)?;
            TargetRegistrationsPerInterval::<T>::insert(netuid, target_registrations_per_interval);
            Subtensor::<T>::deposit_event(SubtensorEvent::RegistrationPerIntervalSet(
                netuid,
                target_registrations_per_interval,
            ));
            Ok(())
        }

        /// Sets: least price of a registration.
        #[pallet::call_index(22)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_min_burn(origin: OriginFor<T>, netuid: NetUid, min_burn: TaoBalance) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            MinBurn::<T>::insert(netuid, min_burn);
            Subtensor::<T>::deposit_event(SubtensorEvent::MinBurnSet(netuid, min_burn));
            Ok(())
        }

        /// Sets: largest price of a registration.
        #[pallet::call_index(23)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_max_burn(origin: OriginFor<T>, netuid: NetUid, max_burn: TaoBalance) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            MaxBurn::<T>::insert(netuid, max_burn);
            Subtensor::<T>::deposit_event(SubtensorEvent::MaxBurnSet(netuid, max_burn));
            Ok(())
        }

        /// Sets: legacy.
        #[pallet::call_index(24)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_difficulty(origin: OriginFor<T>, netuid: NetUid, difficulty: u64) -> DispatchResult {
            Self::ensure_root_for_subnet(origin, netuid)?;
            Difficulty::<T>::insert(netuid, difficulty);
            Subtensor::<T>::deposit_event(SubtensorEvent::DifficultySet(netuid, difficulty));
            Ok(())
        }

        /// Sets: most permits.
        #[pallet::call_index(25)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_max_allowed_validators(
            origin: OriginFor<T>,
            netuid: NetUid,
            max_allowed_validators: u16,
        ) -> DispatchResult {
            Self::ensure_root_for_subnet(origin, netuid)?;
            ensure!(
                max_allowed_validators <= MaxAllowedUids::<T>::get(netuid),
                Error::<T>::MaxValidatorsLargerThanMaxUIds
            );
            MaxAllowedValidators::<T>::insert(netuid, max_allowed_validators);
            Subtensor::<T>::deposit_event(SubtensorEvent::MaxAllowedValidatorsSet(netuid, max_allowed_validators));
            Ok(())
        }

        /// Sets: share of old bonds kept per epoch, in millionths.
        #[pallet::call_index(26)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_bonds_moving_average(
            origin: OriginFor<T>,
            netuid: NetUid,
            bonds_moving_average: u64,
        ) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            ensure!(bonds_moving_average <= 975_000, Error::<T>::BondsMovingAverageMaxReached);
            BondsMovingAverage::<T>::insert(netuid, bonds_moving_average);
            Subtensor::<T>::deposit_event(SubtensorEvent::BondsMovingAverageSet(netuid, bonds_moving_average));
            Ok(())
        }

        /// Sets: legacy.
        #[pallet::call_index(27)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_max_registrations_per_block(
            origin: OriginFor<T>,
            netuid: NetUid,
            max_registrations_per_block: u16,
        ) -> DispatchResult {
            Self::ensure_root_for_subnet(origin, netuid)?;
            MaxRegistrationsPerBlock::<T>::insert(netuid, max_registrations_per_block);
            Subtensor::<T>::deposit_event(SubtensorEvent::MaxRegistrationsPerBlockSet(
                netuid,
                max_registrations_per_block,
            ));
            Ok(())
        }

        /// Sets: the owner's cut, in 65535ths.
        #[pallet::call_index(28)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_subnet_owner_cut(origin: OriginFor<T>, subnet_owner_cut: u16) -> DispatchResult {
            ensure_root(origin)?;
            SubnetOwnerCut::<T>::put(subnet_owner_cut);
            Subtensor::<T>::deposit_event(SubtensorEvent::SubnetOwnerCutSet(subnet_owner_cut));
            Ok(())
        }

        /// Sets: least blocks between two subnets of an owner.
        #[pallet::call_index(29)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_network_rate_limit(origin: OriginFor<T>, rate_limit: u64) -> DispatchResult {
            ensure_root(origin)?;
            NetworkRateLimit::<T>::put(rate_limit);
            Subtensor::<T>::deposit_event(SubtensorEvent::NetworkRateLimitSet(rate_limit));
            Ok(())
        }

        /// Sets: least price of a subnet.
        #[pallet::call_index(36)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_network_min_lock_cost(origin: OriginFor<T>, lock_cost: TaoBalance) -> DispatchResult {
            ensure_root(origin)?;
            NetworkMinLockCost::<T>::put(lock_cost);
            Subtensor::<T>::deposit_event(SubtensorEvent::NetworkMinLockCostSet(lock_cost));
            Ok(())
        }

        /// Sets: most subnets.
        #[pallet::call_index(37)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_subnet_limit(origin: OriginFor<T>, max_subnets: u16) -> DispatchResult {
            ensure_root(origin)?;
            SubnetLimit::<T>::put(max_subnets);
            Subtensor::<T>::deposit_event(SubtensorEvent::SubnetLimitSet(max_subnets));
            Ok(())
        }

        /// Sets: least total stake, in rao, to set weights and to count in an epoch.
        #[pallet::call_index(42)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_stake_threshold(origin: OriginFor<T>, min_stake: u64) -> DispatchResult {
            ensure_root(origin)?;
            StakeThreshold::<T>::put(min_stake);
            Subtensor::<T>::deposit_event(SubtensorEvent::StakeThresholdSet(min_stake));
            Ok(())
        }

        /// Sets: whether weights are committed first.
        #[pallet::call_index(49)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_commit_reveal_weights_enabled(
            origin: OriginFor<T>,
            netuid: NetUid,
            enabled: bool,
        ) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            CommitRevealWeightsEnabled::<T>::insert(netuid, enabled);
            Subtensor::<T>::deposit_event(SubtensorEvent::CommitRevealEnabled(netuid, enabled));
            Ok(())
        }

        /// Sets: whether bonds move at a rate per pair.
        #[pallet::call_index(50)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_liquid_alpha_enabled(origin: OriginFor<T>, netuid: NetUid, enabled: bool) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            LiquidAlphaOn::<T>::insert(netuid, enabled);
            Ok(())
        }

        /// Sets: epochs from commit to reveal.
        #[pallet::call_index(57)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_commit_reveal_weights_interval(
            origin: OriginFor<T>,
            netuid: NetUid,
            interval: u64,
        ) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            RevealPeriodEpochs::<T>::insert(netuid, interval);
            Subtensor::<T>::deposit_event(SubtensorEvent::CommitRevealPeriodsSet(netuid, interval));
            Ok(())
        }

        /// Sets: how far clipped weights replace raw ones in bonds.
        #[pallet::call_index(60)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_bonds_penalty(origin: OriginFor<T>, netuid: NetUid, bonds_penalty: u16) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            BondsPenalty::<T>::insert(netuid, bonds_penalty);
            Subtensor::<T>::deposit_event(SubtensorEvent::BondsPenaltySet(netuid, bonds_penalty));
            Ok(())
        }

        /// Sets: whether stake may be transferred.
        #[pallet::call_index(61)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_toggle_transfer(origin: OriginFor<T>, netuid: NetUid, toggle: bool) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            TransferToggle::<T>::insert(netuid, toggle);
            Subtensor::<T>::deposit_event(SubtensorEvent::TransferToggle(netuid, toggle));
            Ok(())
        }

        /// Sets: whether staking is allowed.
        #[pallet::call_index(66)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_subtoken_enabled(
            origin: OriginFor<T>,
            netuid: NetUid,
            subtoken_enabled: bool,
        ) -> DispatchResult {
            Self::ensure_root_for_subnet(origin, netuid)?;
            SubtokenEnabled::<T>::insert(netuid, subtoken_enabled);
            Ok(())
        }

        /// Sets: steepness of liquid alpha.
        #[pallet::call_index(68)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_alpha_sigmoid_steepness(
            origin: OriginFor<T>,
            netuid: NetUid,
            steepness: i16,
        ) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            AlphaSigmoidSteepness::<T>::insert(netuid, steepness);
            Ok(())
        }

        /// Sets: whether bonds are kept per pair instead of per column.
        #[pallet::call_index(69)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_yuma3_enabled(origin: OriginFor<T>, netuid: NetUid, enabled: bool) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            Yuma3On::<T>::insert(netuid, enabled);
            Ok(())
        }

        /// Sets: whether a commitment may reset bonds.
        #[pallet::call_index(70)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_bonds_reset_enabled(origin: OriginFor<T>, netuid: NetUid, enabled: bool) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            BondsResetOn::<T>::insert(netuid, enabled);
            Ok(())
        }

        /// Sets: version that commits must name.
        #[pallet::call_index(71)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_commit_reveal_version(origin: OriginFor<T>, version: u16) -> DispatchResult {
            ensure_root(origin)?;
            CommitRevealWeightsVersion::<T>::put(version);
            Subtensor::<T>::deposit_event(SubtensorEvent::CommitRevealVersionSet(version));
            Ok(())
        }

        /// Sets: hotkeys of the owner that are never replaced.
        #[pallet::call_index(72)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_owner_immune_neuron_limit(
            origin: OriginFor<T>,
            netuid: NetUid,
            immune_neurons: u16,
        ) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            ImmuneOwnerUidsLimit::<T>::insert(netuid, immune_neurons);
            Ok(())
        }

        /// Sets: blocks before an epoch in which owners change nothing.
        #[pallet::call_index(74)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_admin_freeze_window(origin: OriginFor<T>, window: u16) -> DispatchResult {
            ensure_root(origin)?;
            AdminFreezeWindow::<T>::put(window);
            Subtensor::<T>::deposit_event(SubtensorEvent::AdminFreezeWindowSet(window));
            Ok(())
        }

        /// Sets: epochs between two changes of one hyperparameter.
        #[pallet::call_index(75)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_owner_hparam_rate_limit(origin: OriginFor<T>, epochs: u16) -> DispatchResult {
            ensure_root(origin)?;
            OwnerHyperparamRateLimit::<T>::put(epochs);
            Subtensor::<T>::deposit_event(SubtensorEvent::OwnerHyperparamRateLimitSet(epochs));
            Ok(())
        }

        /// Sets: least value of `MaxAllowedUids`.
        #[pallet::call_index(79)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_min_allowed_uids(
            origin: OriginFor<T>,
            netuid: NetUid,
            min_allowed_uids: u16,
        ) -> DispatchResult {
            Self::ensure_root_for_subnet(origin, netuid)?;
            MinAllowedUids::<T>::insert(netuid, min_allowed_uids);
            Subtensor::<T>::deposit_event(SubtensorEvent::MinAllowedUidsSet(netuid, min_allowed_uids));
            Ok(())
        }

        /// Sets: what happens to the owner's miner emission.
        #[pallet::call_index(80)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_recycle_or_burn(
            origin: OriginFor<T>,
            netuid: NetUid,
            recycle_or_burn: RecycleOrBurnEnum,
        ) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            RecycleOrBurn::<T>::insert(netuid, recycle_or_burn);
            Ok(())
        }

        /// Sets: least neurons that may be replaced.
        #[pallet::call_index(84)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_min_non_immune_uids(origin: OriginFor<T>, netuid: NetUid, min: u16) -> DispatchResult {
            Self::ensure_root_for_subnet(origin, netuid)?;
            MinNonImmuneUids::<T>::insert(netuid, min);
            Ok(())
        }

        /// Sets: blocks from registration to `start_call`.
        #[pallet::call_index(85)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_start_call_delay(origin: OriginFor<T>, delay: u64) -> DispatchResult {
            ensure_root(origin)?;
            StartCallDelay::<T>::put(delay);
            Subtensor::<T>::deposit_event(SubtensorEvent::StartCallDelaySet(delay));
            Ok(())
        }

        /// Sets: blocks in which the price halves.
        #[pallet::call_index(89)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_burn_half_life(origin: OriginFor<T>, netuid: NetUid, burn_half_life: u16) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            BurnHalfLife::<T>::insert(netuid, burn_half_life);
            Ok(())
        }

        /// Sets: factor on the price after a registration.
        #[pallet::call_index(90)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_burn_increase_mult(
            origin: OriginFor<T>,
            netuid: NetUid,
            burn_increase_mult: U64F64,
        ) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            BurnIncreaseMult::<T>::insert(netuid, burn_increase_mult);
            Ok(())
        }

        /// Sets: whether the owner has a cut.
        #[pallet::call_index(92)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_owner_cut_enabled(origin: OriginFor<T>, netuid: NetUid, enabled: bool) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            OwnerCutEnabled::<T>::insert(netuid, enabled);
            Ok(())
        }

        /// Sets: whether alpha is emitted.
        #[pallet::call_index(94)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_subnet_emission_enabled(origin: OriginFor<T>, netuid: NetUid, enabled: bool) -> DispatchResult {
            Self::ensure_root_for_subnet(origin, netuid)?;
            SubnetEmissionEnabled::<T>::insert(netuid, enabled);
            Ok(())
        }

        /// Sets: most epochs in one block; others wait.
        #[pallet::call_index(96)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_max_epochs_per_block(origin: OriginFor<T>, max_epochs_per_block: u8) -> DispatchResult {
            ensure_root(origin)?;
            MaxEpochsPerBlock::<T>::put(max_epochs_per_block);
            Subtensor::<T>::deposit_event(SubtensorEvent::MaxEpochsPerBlockSet(max_epochs_per_block));
            Ok(())
        }

        /// Sets: weights count for this many thousandths of a tempo.
        #[pallet::call_index(97)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_activity_cutoff_factor(
            origin: OriginFor<T>,
            netuid: NetUid,
            factor_milli: u32,
        ) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            ActivityCutoffFactorMilli::<T>::insert(netuid, factor_milli);
            Subtensor::<T>::deposit_event(SubtensorEvent::ActivityCutoffFactorMilliSet { netuid, factor_milli });
            Ok(())
        }

        /// Sets: blocks between two epochs.
        #[pallet::call_index(30)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_tempo(origin: OriginFor<T>, netuid: NetUid, tempo: u16) -> DispatchResult {
            Self::ensure_root_for_subnet(origin, netuid)?;
            Subtensor::<T>::write_tempo(netuid, tempo);
            Ok(())
        }

        /// Sets: least and largest rate of liquid alpha.
        #[pallet::call_index(51)]
        #[pallet::weight(SETTER)]
        pub fn sudo_set_alpha_values(
            origin: OriginFor<T>,
            netuid: NetUid,
            alpha_low: u16,
            alpha_high: u16,
        ) -> DispatchResult {
            Self::ensure_owner_or_root(origin, netuid)?;
            ensure!(LiquidAlphaOn::<T>::get(netuid), SubtensorError::<T>::LiquidAlphaDisabled);
            ensure!(alpha_low <= alpha_high, Error::<T>::ValueNotInBounds);
            AlphaValues::<T>::insert(netuid, (alpha_low, alpha_high));
            Ok(())
        }
    }
}
