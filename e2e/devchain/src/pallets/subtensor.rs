//! `SubtensorModule`: subnets, neurons, stake, weights, epochs.
//!
//! Names, indices, storage keys and encodings are those of the public chain (spec 461), because clients address them;
//! what only the public chain's economy needs (root baskets, leases, locks, EVM) is left out. Money flows are kept
//! simple where no client can tell: TAO that is staked or paid leaves the issuance of `Balances`, TAO that is unstaked
//! returns to it.

mod coinbase;
mod commit_reveal;
mod epoch;
mod guards;
mod info;
mod registration;
mod serving;
mod staking;
mod types;
mod weights;
mod yuma;

pub mod runtime_api;

pub use commit_reveal::Reveal;
pub use guards::SubtensorTransactionExtension;
pub use info::*;
pub use pallet::*;
pub use registration::NewSubnet;
pub use staking::{PriceLimit, Swap};
pub use types::*;

use frame_support::weights::Weight;

/// Least tempo that an owner may set, in blocks.
pub const MIN_TEMPO: u16 = 360;
/// Largest tempo that an owner may set, in blocks.
pub const MAX_TEMPO: u16 = 50_400;
/// Least amount of TAO to stake or unstake, in rao.
pub const MIN_STAKE: u64 = 2_000_000;

/// Weights of calls: what the public chain charges, to the order of magnitude. Fees follow from them.
const WEIGHTS_CALL: Weight = Weight::from_parts(1_500_000_000, 0);
const STAKE_CALL: Weight = Weight::from_parts(440_000_000, 0);
const REGISTER_CALL: Weight = Weight::from_parts(350_000_000, 0);
const SERVE_CALL: Weight = Weight::from_parts(230_000_000, 0);

#[frame_support::pallet]
#[expect(missing_docs, reason = "the pallet macro generates items without documentation")]
pub mod pallet {
    use std::collections::VecDeque;

    use codec::Compact;
    use frame_support::pallet_prelude::*;
    use frame_support::traits::{ConstU8, ConstU16, ConstU32, ConstU64};
    use frame_system::pallet_prelude::*;
    use sp_core::H256;
    use sp_core::{ConstBool, ConstI16};
    use sp_runtime::AccountId32;
    use substrate_fixed::types::{I96F32, U64F64};

    use super::*;

    #[pallet::pallet]
    #[pallet::without_storage_info]
    pub struct Pallet<T>(_);

    #[pallet::config]
    pub trait Config:
        frame_system::Config<AccountId = AccountId32, RuntimeEvent: From<Event<Self>>>
        + pallet_balances::Config<Balance = u64>
    {
        /// Least tempo an owner may set, shown to clients.
        #[pallet::constant]
        type MinTempo: Get<u16>;
        /// Largest tempo an owner may set, shown to clients.
        #[pallet::constant]
        type MaxTempo: Get<u16>;

        /// Commitments of a subnet's hotkeys, which another pallet holds.
        fn commitments(netuid: NetUid) -> Vec<(AccountId32, Vec<u8>)>;
    }

    /// The account that stands where there is none.
    pub struct ZeroAccount<T>(PhantomData<T>);

    impl<T: Config> Get<T::AccountId> for ZeroAccount<T> {
        fn get() -> T::AccountId {
            AccountId32::new([0; 32])
        }
    }

    macro_rules! default {
        ($name:ident, $type:ty, $value:expr) => {
            #[doc = concat!("Default of a storage item: `", stringify!($value), "`.")]
            pub struct $name;

            impl Get<$type> for $name {
                fn get() -> $type {
                    $value
                }
            }
        };
    }

    default!(DefaultTokenSymbol, Vec<u8>, "\u{1d70f}".as_bytes().to_vec());
    default!(DefaultAlphaValues, (u16, u16), (45_875, 58_982));
    default!(DefaultBurnIncreaseMult, U64F64, U64F64::from_num(1.26));
    default!(DefaultMovingPrice, I96F32, I96F32::from_num(0));

    // ---- neurons ----

    /// Hotkey to uid.
    #[pallet::storage]
    pub type Uids<T: Config> = StorageDoubleMap<_, Identity, NetUid, Blake2_128Concat, T::AccountId, u16, OptionQuery>;

    /// Uid to hotkey.
    #[pallet::storage]
    pub type Keys<T: Config> =
        StorageDoubleMap<_, Identity, NetUid, Identity, u16, T::AccountId, ValueQuery, ZeroAccount<T>>;

    /// Hotkey to coldkey.
    #[pallet::storage]
    pub type Owner<T: Config> = StorageMap<_, Blake2_128Concat, T::AccountId, T::AccountId, ValueQuery, ZeroAccount<T>>;

    /// Coldkey to the hotkeys it owns.
    #[pallet::storage]
    pub type OwnedHotkeys<T: Config> = StorageMap<_, Blake2_128Concat, T::AccountId, Vec<T::AccountId>, ValueQuery>;

    /// Coldkey to the hotkeys it has stake on.
    #[pallet::storage]
    pub type StakingHotkeys<T: Config> = StorageMap<_, Blake2_128Concat, T::AccountId, Vec<T::AccountId>, ValueQuery>;

    /// Whether a hotkey is registered on a subnet.
    #[pallet::storage]
    pub type IsNetworkMember<T: Config> =
        StorageDoubleMap<_, Blake2_128Concat, T::AccountId, Identity, NetUid, bool, ValueQuery>;

    /// Number of neurons.
    #[pallet::storage]
    pub type SubnetworkN<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery>;

    /// Block of a uid's registration.
    #[pallet::storage]
    pub type BlockAtRegistration<T: Config> = StorageDoubleMap<_, Identity, NetUid, Identity, u16, u64, ValueQuery>;

    /// Per uid, whether its weights are recent; written by the epoch.
    #[pallet::storage]
    pub type Active<T: Config> = StorageMap<_, Identity, NetUid, Vec<bool>, ValueQuery>;

    /// Per uid, whether its weights count; written by the epoch.
    #[pallet::storage]
    pub type ValidatorPermit<T: Config> = StorageMap<_, Identity, NetUid, Vec<bool>, ValueQuery>;

    /// Per uid, stake-weighted median of the weights set on it.
    #[pallet::storage]
    pub type Consensus<T: Config> = StorageMap<_, Identity, NetUid, Vec<u16>, ValueQuery>;

    /// Per mechanism and uid, share of the miners' emission.
    #[pallet::storage]
    pub type Incentive<T: Config> = StorageMap<_, Identity, NetUidStorageIndex, Vec<u16>, ValueQuery>;

    /// Per uid, share of the validators' emission.
    #[pallet::storage]
    pub type Dividends<T: Config> = StorageMap<_, Identity, NetUid, Vec<u16>, ValueQuery>;

    /// Per uid, how much of its weights the consensus kept.
    #[pallet::storage]
    pub type ValidatorTrust<T: Config> = StorageMap<_, Identity, NetUid, Vec<u16>, ValueQuery>;

    /// Per uid, alpha of the last epoch.
    #[pallet::storage]
    pub type Emission<T: Config> = StorageMap<_, Identity, NetUid, Vec<AlphaBalance>, ValueQuery>;

    /// Per mechanism and uid, block of its last weights.
    #[pallet::storage]
    pub type LastUpdate<T: Config> = StorageMap<_, Identity, NetUidStorageIndex, Vec<u64>, ValueQuery>;

    /// Per mechanism, weights of a uid on others.
    #[pallet::storage]
    pub type Weights<T: Config> =
        StorageDoubleMap<_, Identity, NetUidStorageIndex, Identity, u16, Vec<(u16, u16)>, ValueQuery>;

    /// Per mechanism, bonds of a uid with others.
    #[pallet::storage]
    pub type Bonds<T: Config> =
        StorageDoubleMap<_, Identity, NetUidStorageIndex, Identity, u16, Vec<(u16, u16)>, ValueQuery>;

    /// Per uid, share of the stake seen by the last epoch.
    #[pallet::storage]
    pub type StakeWeight<T: Config> = StorageMap<_, Identity, NetUid, Vec<u16>, ValueQuery>;

    /// Least total stake, in rao, to set weights and to count in an epoch.
    #[pallet::storage]
    pub type StakeThreshold<T: Config> = StorageValue<_, u64, ValueQuery>;

    // ---- serving and identity ----

    /// Where a hotkey can be reached.
    #[pallet::storage]
    pub type Axons<T: Config> =
        StorageDoubleMap<_, Identity, NetUid, Blake2_128Concat, T::AccountId, AxonInfo, OptionQuery>;

    /// TLS key of a hotkey's axon.
    #[pallet::storage]
    pub type NeuronCertificates<T: Config> =
        StorageDoubleMap<_, Identity, NetUid, Blake2_128Concat, T::AccountId, NeuronCertificate, OptionQuery>;

    /// Where a hotkey's metrics are.
    #[pallet::storage]
    pub type Prometheus<T: Config> =
        StorageDoubleMap<_, Identity, NetUid, Blake2_128Concat, T::AccountId, PrometheusInfo, OptionQuery>;

    /// Identity of a coldkey.
    #[pallet::storage]
    pub type IdentitiesV2<T: Config> = StorageMap<_, Blake2_128Concat, T::AccountId, ChainIdentityV2, OptionQuery>;

    /// Identity of a subnet.
    #[pallet::storage]
    pub type SubnetIdentitiesV3<T: Config> = StorageMap<_, Blake2_128Concat, NetUid, SubnetIdentityV3, OptionQuery>;

    /// Symbol of a subnet's token, UTF-8.
    #[pallet::storage]
    pub type TokenSymbol<T: Config> = StorageMap<_, Identity, NetUid, Vec<u8>, ValueQuery, DefaultTokenSymbol>;

    // ---- subnets ----

    /// Whether a subnet exists.
    #[pallet::storage]
    pub type NetworksAdded<T: Config> = StorageMap<_, Identity, NetUid, bool, ValueQuery>;

    /// Number of subnets, root included.
    #[pallet::storage]
    pub type TotalNetworks<T: Config> = StorageValue<_, u16, ValueQuery>;

    /// Block of a subnet's registration.
    #[pallet::storage]
    pub type NetworkRegisteredAt<T: Config> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;

    /// How often a netuid was given out.
    #[pallet::storage]
    pub type RegisteredSubnetCounter<T: Config> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;

    /// Coldkey of a subnet's owner.
    #[pallet::storage]
    pub type SubnetOwner<T: Config> = StorageMap<_, Identity, NetUid, T::AccountId, ValueQuery, ZeroAccount<T>>;

    /// Hotkey of a subnet's owner.
    #[pallet::storage]
    pub type SubnetOwnerHotkey<T: Config> = StorageMap<_, Identity, NetUid, T::AccountId, ValueQuery, ZeroAccount<T>>;

    /// 0: alpha costs one TAO; 1: alpha is priced by the pool.
    #[pallet::storage]
    pub type SubnetMechanism<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery>;

    /// First block with emission, set by `start_call`.
    #[pallet::storage]
    pub type FirstEmissionBlockNumber<T: Config> = StorageMap<_, Identity, NetUid, u64, OptionQuery>;

    /// Whether staking is allowed.
    #[pallet::storage]
    pub type SubtokenEnabled<T: Config> = StorageMap<_, Identity, NetUid, bool, ValueQuery>;

    /// Whether alpha is emitted.
    #[pallet::storage]
    pub type SubnetEmissionEnabled<T: Config> = StorageMap<_, Identity, NetUid, bool, ValueQuery, ConstBool<true>>;

    /// Whether stake may be transferred.
    #[pallet::storage]
    pub type TransferToggle<T: Config> = StorageMap<_, Identity, NetUid, bool, ValueQuery, ConstBool<true>>;

    /// Most subnets.
    #[pallet::storage]
    pub type SubnetLimit<T: Config> = StorageValue<_, u16, ValueQuery, ConstU16<128>>;

    /// TAO locked by a subnet's registration.
    #[pallet::storage]
    pub type SubnetLocked<T: Config> = StorageMap<_, Identity, NetUid, TaoBalance, ValueQuery>;

    /// Blocks in which a new subnet is not pruned.
    #[pallet::storage]
    pub type NetworkImmunityPeriod<T: Config> = StorageValue<_, u64, ValueQuery, ConstU64<1_296_000>>;

    /// Least price of a subnet.
    #[pallet::storage]
    pub type NetworkMinLockCost<T: Config> = StorageValue<_, TaoBalance, ValueQuery, ConstU64<1_000_000_000_000>>;

    /// Price of the last subnet.
    #[pallet::storage]
    pub type NetworkLastLockCost<T: Config> = StorageValue<_, TaoBalance, ValueQuery, ConstU64<1_000_000_000_000>>;

    /// Blocks in which the price halves.
    #[pallet::storage]
    pub type NetworkLockReductionInterval<T: Config> = StorageValue<_, u64, ValueQuery, ConstU64<100_800>>;

    /// Least blocks between two subnets of an owner.
    #[pallet::storage]
    pub type NetworkRateLimit<T: Config> = StorageValue<_, u64, ValueQuery, ConstU64<0>>;

    /// Blocks from registration to `start_call`.
    #[pallet::storage]
    pub type StartCallDelay<T: Config> = StorageValue<_, u64, ValueQuery, ConstU64<0>>;

    // ---- hyperparameters ----

    /// Rho, legacy.
    #[pallet::storage]
    pub type Rho<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<10>>;

    /// Majority of the consensus, in 65535ths.
    #[pallet::storage]
    pub type Kappa<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<32_767>>;

    /// Most neurons.
    #[pallet::storage]
    pub type MaxAllowedUids<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<256>>;

    /// Least value of `MaxAllowedUids`.
    #[pallet::storage]
    pub type MinAllowedUids<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<64>>;

    /// Least number of weights to set.
    #[pallet::storage]
    pub type MinAllowedWeights<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<1024>>;

    /// Largest share of one weight; 65535 is no limit.
    #[pallet::storage]
    pub type MaxWeightsLimit<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<65_535>>;

    /// Blocks in which a new neuron is not replaced.
    #[pallet::storage]
    pub type ImmunityPeriod<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<4096>>;

    /// Superseded by `ActivityCutoffFactorMilli`.
    #[pallet::storage]
    pub type ActivityCutoff<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<5000>>;

    /// Weights count for this many thousandths of a tempo.
    #[pallet::storage]
    pub type ActivityCutoffFactorMilli<T: Config> = StorageMap<_, Identity, NetUid, u32, ValueQuery, ConstU32<13_889>>;

    /// Most permits.
    #[pallet::storage]
    pub type MaxAllowedValidators<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<128>>;

    /// Least version key of `set_weights`.
    #[pallet::storage]
    pub type WeightsVersionKey<T: Config> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;

    /// Blocks between two weights of a neuron.
    #[pallet::storage]
    pub type WeightsSetRateLimit<T: Config> = StorageMap<_, Identity, NetUid, u64, ValueQuery, ConstU64<100>>;

    /// Blocks between two axons of a neuron.
    #[pallet::storage]
    pub type ServingRateLimit<T: Config> = StorageMap<_, Identity, NetUid, u64, ValueQuery, ConstU64<50>>;

    /// Share of old bonds kept per epoch, in millionths.
    #[pallet::storage]
    pub type BondsMovingAverage<T: Config> = StorageMap<_, Identity, NetUid, u64, ValueQuery, ConstU64<900_000>>;

    /// How far clipped weights replace raw ones in bonds.
    #[pallet::storage]
    pub type BondsPenalty<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<65_535>>;

    /// Whether a commitment may reset bonds.
    #[pallet::storage]
    pub type BondsResetOn<T: Config> = StorageMap<_, Identity, NetUid, bool, ValueQuery>;

    /// Whether bonds move at a rate per pair.
    #[pallet::storage]
    pub type LiquidAlphaOn<T: Config> = StorageMap<_, Blake2_128Concat, NetUid, bool, ValueQuery>;

    /// Whether bonds are kept per pair instead of per column.
    #[pallet::storage]
    pub type Yuma3On<T: Config> = StorageMap<_, Blake2_128Concat, NetUid, bool, ValueQuery>;

    /// Least and largest rate of liquid alpha.
    #[pallet::storage]
    pub type AlphaValues<T: Config> = StorageMap<_, Identity, NetUid, (u16, u16), ValueQuery, DefaultAlphaValues>;

    /// Steepness of liquid alpha.
    #[pallet::storage]
    pub type AlphaSigmoidSteepness<T: Config> = StorageMap<_, Identity, NetUid, i16, ValueQuery, ConstI16<1000>>;

    /// Whether neurons may register.
    #[pallet::storage]
    pub type NetworkRegistrationAllowed<T: Config> = StorageMap<_, Identity, NetUid, bool, ValueQuery, ConstBool<true>>;

    /// Legacy.
    #[pallet::storage]
    pub type NetworkPowRegistrationAllowed<T: Config> =
        StorageMap<_, Identity, NetUid, bool, ValueQuery, ConstBool<true>>;

    /// Price of a registration.
    #[pallet::storage]
    pub type Burn<T: Config> = StorageMap<_, Identity, NetUid, TaoBalance, ValueQuery, ConstU64<100_000_000>>;

    /// Least price of a registration.
    #[pallet::storage]
    pub type MinBurn<T: Config> = StorageMap<_, Identity, NetUid, TaoBalance, ValueQuery, ConstU64<500_000>>;

    /// Largest price of a registration.
    #[pallet::storage]
    pub type MaxBurn<T: Config> = StorageMap<_, Identity, NetUid, TaoBalance, ValueQuery, ConstU64<100_000_000_000>>;

    /// Blocks in which the price halves.
    #[pallet::storage]
    pub type BurnHalfLife<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<360>>;

    /// Factor on the price after a registration.
    #[pallet::storage]
    pub type BurnIncreaseMult<T: Config> = StorageMap<_, Identity, NetUid, U64F64, ValueQuery, DefaultBurnIncreaseMult>;

    /// Legacy.
    #[pallet::storage]
    pub type TargetRegistrationsPerInterval<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<2>>;

    /// Legacy.
    #[pallet::storage]
    pub type MaxRegistrationsPerBlock<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<1>>;

    /// Legacy.
    #[pallet::storage]
    pub type AdjustmentInterval<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<100>>;

    /// Legacy.
    #[pallet::storage]
    pub type AdjustmentAlpha<T: Config> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;

    /// Legacy.
    #[pallet::storage]
    pub type Difficulty<T: Config> = StorageMap<_, Identity, NetUid, u64, ValueQuery, ConstU64<10_000_000>>;

    /// Legacy.
    #[pallet::storage]
    pub type MinDifficulty<T: Config> = StorageMap<_, Identity, NetUid, u64, ValueQuery, ConstU64<10_000_000>>;

    /// Legacy.
    #[pallet::storage]
    pub type MaxDifficulty<T: Config> =
        StorageMap<_, Identity, NetUid, u64, ValueQuery, ConstU64<4_611_686_018_427_387_903>>;

    /// Whether weights are committed first.
    #[pallet::storage]
    pub type CommitRevealWeightsEnabled<T: Config> = StorageMap<_, Identity, NetUid, bool, ValueQuery, ConstBool<true>>;

    /// Epochs from commit to reveal.
    #[pallet::storage]
    pub type RevealPeriodEpochs<T: Config> = StorageMap<_, Twox64Concat, NetUid, u64, ValueQuery, ConstU64<1>>;

    /// Version that commits must name.
    #[pallet::storage]
    pub type CommitRevealWeightsVersion<T: Config> = StorageValue<_, u16, ValueQuery, ConstU16<4>>;

    /// Hotkeys of the owner that are never replaced.
    #[pallet::storage]
    pub type ImmuneOwnerUidsLimit<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<1>>;

    /// Least neurons that may be replaced.
    #[pallet::storage]
    pub type MinNonImmuneUids<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<10>>;

    /// Whether the owner has a cut.
    #[pallet::storage]
    pub type OwnerCutEnabled<T: Config> = StorageMap<_, Identity, NetUid, bool, ValueQuery, ConstBool<true>>;

    /// The owner's cut, in 65535ths.
    #[pallet::storage]
    pub type SubnetOwnerCut<T: Config> = StorageValue<_, u16, ValueQuery, ConstU16<11_796>>;

    /// What happens to the owner's miner emission.
    #[pallet::storage]
    pub type RecycleOrBurn<T: Config> = StorageMap<_, Identity, NetUid, RecycleOrBurnEnum, ValueQuery>;

    // ---- clock and emission ----

    /// Blocks between two epochs.
    #[pallet::storage]
    pub type Tempo<T: Config> = StorageMap<_, Identity, NetUid, u16, ValueQuery, ConstU16<360>>;

    /// Blocks since the last epoch.
    #[pallet::storage]
    pub type BlocksSinceLastStep<T: Config> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;

    /// Block of the last epoch; spelt as on the chain.
    #[pallet::storage]
    pub type LastMechansimStepBlock<T: Config> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;

    /// Block from which the tempo counts.
    #[pallet::storage]
    pub type LastEpochBlock<T: Config> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;

    /// Block of an epoch out of turn, or 0.
    #[pallet::storage]
    pub type PendingEpochAt<T: Config> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;

    /// Number of epochs so far.
    #[pallet::storage]
    pub type SubnetEpochIndex<T: Config> = StorageMap<_, Identity, NetUid, u64, ValueQuery>;

    /// Most epochs in one block; others wait.
    #[pallet::storage]
    pub type MaxEpochsPerBlock<T: Config> = StorageValue<_, u8, ValueQuery, ConstU8<2>>;

    /// Blocks before an epoch in which owners change nothing.
    #[pallet::storage]
    pub type AdminFreezeWindow<T: Config> = StorageValue<_, u16, ValueQuery, ConstU16<10>>;

    /// Epochs between two changes of one hyperparameter.
    #[pallet::storage]
    pub type OwnerHyperparamRateLimit<T: Config> = StorageValue<_, u16, ValueQuery, ConstU16<2>>;

    /// Alpha for miners since the last epoch.
    #[pallet::storage]
    pub type PendingServerEmission<T: Config> = StorageMap<_, Identity, NetUid, AlphaBalance, ValueQuery>;

    /// Alpha for validators since the last epoch.
    #[pallet::storage]
    pub type PendingValidatorEmission<T: Config> = StorageMap<_, Identity, NetUid, AlphaBalance, ValueQuery>;

    /// Alpha for root stake since the last epoch.
    #[pallet::storage]
    pub type PendingRootAlphaDivs<T: Config> = StorageMap<_, Identity, NetUid, AlphaBalance, ValueQuery>;

    /// Alpha for the owner since the last epoch.
    #[pallet::storage]
    pub type PendingOwnerCut<T: Config> = StorageMap<_, Identity, NetUid, AlphaBalance, ValueQuery>;

    /// TAO emitted per block.
    #[pallet::storage]
    pub type BlockEmission<T: Config> = StorageValue<_, u64, ValueQuery, ConstU64<1_000_000_000>>;

    /// Dividends of a hotkey in the last epoch.
    #[pallet::storage]
    pub type AlphaDividendsPerSubnet<T: Config> =
        StorageDoubleMap<_, Identity, NetUid, Blake2_128Concat, T::AccountId, AlphaBalance, ValueQuery>;

    // ---- commit-reveal ----

    /// Unrevealed commits: hash, epoch, block, 0.
    #[pallet::storage]
    pub type WeightCommits<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        NetUidStorageIndex,
        Twox64Concat,
        T::AccountId,
        VecDeque<(H256, u64, u64, u64)>,
        OptionQuery,
    >;

    /// Timelocked commits of an epoch.
    #[pallet::storage]
    pub type TimelockedWeightCommits<T: Config> = StorageDoubleMap<
        _,
        Twox64Concat,
        NetUidStorageIndex,
        Twox64Concat,
        u64,
        VecDeque<(T::AccountId, u64, BoundedVec<u8, ConstU32<5000>>, u64)>,
        ValueQuery,
    >;

    // ---- mechanisms ----

    /// Most mechanisms of a subnet.
    #[pallet::storage]
    pub type MaxMechanismCount<T: Config> = StorageValue<_, MechId, ValueQuery, ConstU8<2>>;

    /// Mechanisms of a subnet.
    #[pallet::storage]
    pub type MechanismCountCurrent<T: Config> = StorageMap<_, Twox64Concat, NetUid, MechId, ValueQuery, ConstU8<1>>;

    /// Shares of the mechanisms; equal when absent.
    #[pallet::storage]
    pub type MechanismEmissionSplit<T: Config> = StorageMap<_, Twox64Concat, NetUid, Vec<u16>, OptionQuery>;

    // ---- stake and pool ----

    /// Alpha staked to a hotkey.
    #[pallet::storage]
    pub type TotalHotkeyAlpha<T: Config> =
        StorageDoubleMap<_, Blake2_128Concat, T::AccountId, Identity, NetUid, AlphaBalance, ValueQuery>;

    /// Shares of a hotkey's pool.
    #[pallet::storage]
    pub type TotalHotkeySharesV2<T: Config> =
        StorageDoubleMap<_, Blake2_128Concat, T::AccountId, Identity, NetUid, SafeFloat, ValueQuery>;

    /// Shares of a hotkey, coldkey and subnet.
    #[pallet::storage]
    pub type AlphaV2<T: Config> = StorageNMap<
        _,
        (NMapKey<Blake2_128Concat, T::AccountId>, NMapKey<Blake2_128Concat, T::AccountId>, NMapKey<Identity, NetUid>),
        SafeFloat,
        ValueQuery,
    >;

    /// Alpha staked on a subnet.
    #[pallet::storage]
    pub type TotalAlphaStaked<T: Config> = StorageMap<_, Identity, NetUid, AlphaBalance, ValueQuery>;

    /// Alpha staked to a hotkey at the last epoch.
    #[pallet::storage]
    pub type TotalHotkeyAlphaLastEpoch<T: Config> =
        StorageDoubleMap<_, Blake2_128Concat, T::AccountId, Identity, NetUid, AlphaBalance, ValueQuery>;

    /// TAO staked.
    #[pallet::storage]
    pub type TotalStake<T: Config> = StorageValue<_, TaoBalance, ValueQuery>;

    /// TAO in existence.
    #[pallet::storage]
    pub type TotalIssuance<T: Config> = StorageValue<_, TaoBalance, ValueQuery>;

    /// TAO in the pool.
    #[pallet::storage]
    pub type SubnetTAO<T: Config> = StorageMap<_, Identity, NetUid, TaoBalance, ValueQuery>;

    /// Alpha in the pool.
    #[pallet::storage]
    pub type SubnetAlphaIn<T: Config> = StorageMap<_, Identity, NetUid, AlphaBalance, ValueQuery>;

    /// Alpha outside the pool.
    #[pallet::storage]
    pub type SubnetAlphaOut<T: Config> = StorageMap<_, Identity, NetUid, AlphaBalance, ValueQuery>;

    /// TAO traded so far.
    #[pallet::storage]
    pub type SubnetVolume<T: Config> = StorageMap<_, Identity, NetUid, u128, ValueQuery>;

    /// Moving average of the price.
    #[pallet::storage]
    pub type SubnetMovingPrice<T: Config> = StorageMap<_, Identity, NetUid, I96F32, ValueQuery, DefaultMovingPrice>;

    /// TAO put into the pool per block.
    #[pallet::storage]
    pub type SubnetTaoInEmission<T: Config> = StorageMap<_, Identity, NetUid, TaoBalance, ValueQuery>;

    /// Alpha put into the pool per block.
    #[pallet::storage]
    pub type SubnetAlphaInEmission<T: Config> = StorageMap<_, Identity, NetUid, AlphaBalance, ValueQuery>;

    /// Alpha emitted per block.
    #[pallet::storage]
    pub type SubnetAlphaOutEmission<T: Config> = StorageMap<_, Identity, NetUid, AlphaBalance, ValueQuery>;

    /// Worth of root TAO in total stake, in 2^-64ths.
    #[pallet::storage]
    pub type TaoWeight<T: Config> = StorageValue<_, u64, ValueQuery, ConstU64<971_718_665_099_567_868>>;

    /// Least stake of a nominator.
    #[pallet::storage]
    pub type NominatorMinRequiredStake<T: Config> = StorageValue<_, u64, ValueQuery>;

    // ---- delegation and limits ----

    /// Take of a hotkey, in 65535ths.
    #[pallet::storage]
    pub type Delegates<T: Config> = StorageMap<_, Blake2_128Concat, T::AccountId, u16, ValueQuery, ConstU16<11_796>>;

    /// Take of a child hotkey.
    #[pallet::storage]
    pub type ChildkeyTake<T: Config> =
        StorageDoubleMap<_, Blake2_128Concat, T::AccountId, Identity, NetUid, u16, ValueQuery>;

    /// Children of a hotkey with proportions.
    #[pallet::storage]
    pub type ChildKeys<T: Config> =
        StorageDoubleMap<_, Blake2_128Concat, T::AccountId, Identity, NetUid, Vec<(u64, T::AccountId)>, ValueQuery>;

    /// Parents of a hotkey with proportions.
    #[pallet::storage]
    pub type ParentKeys<T: Config> =
        StorageDoubleMap<_, Blake2_128Concat, T::AccountId, Identity, NetUid, Vec<(u64, T::AccountId)>, ValueQuery>;

    /// Least take.
    #[pallet::storage]
    pub type MinDelegateTake<T: Config> = StorageValue<_, u16, ValueQuery>;

    /// Largest take.
    #[pallet::storage]
    pub type MaxDelegateTake<T: Config> = StorageValue<_, u16, ValueQuery, ConstU16<11_796>>;

    /// Blocks between two rate-limited transactions.
    #[pallet::storage]
    pub type TxRateLimit<T: Config> = StorageValue<_, u64, ValueQuery, ConstU64<1000>>;

    /// Block of an account's last rate-limited transaction.
    #[pallet::storage]
    pub type LastTxBlock<T: Config> = StorageMap<_, Identity, T::AccountId, u64, ValueQuery>;

    /// Blocks of other rate-limited actions.
    #[pallet::storage]
    pub type LastRateLimitedBlock<T: Config> = StorageMap<_, Identity, RateLimitKey<T::AccountId>, u64, ValueQuery>;

    #[pallet::error]
    pub enum Error<T> {
        /// The root network does not exist.
        #[codec(index = 0)]
        RootNetworkDoesNotExist,
        /// The user is trying to serve an axon which is not of type 4 (IPv4) or 6 (IPv6).
        #[codec(index = 1)]
        InvalidIpType,
        /// An invalid IP address is passed to the serve function.
        #[codec(index = 2)]
        InvalidIpAddress,
        /// An invalid port is passed to the serve function.
        #[codec(index = 3)]
        InvalidPort,
        /// The hotkey is not registered in subnet
        #[codec(index = 4)]
        HotKeyNotRegisteredInSubNet,
        /// The hotkey does not exists
        #[codec(index = 5)]
        HotKeyAccountNotExists,
        /// The hotkey is not registered in any subnet.
        #[codec(index = 6)]
        HotKeyNotRegisteredInNetwork,
        /// Request to stake, unstake or subscribe is made by a coldkey that is not associated with the hotkey
        /// account.
        #[codec(index = 7)]
        NonAssociatedColdKey,
        /// The caller does not have enought stake to perform this action.
        #[codec(index = 8)]
        NotEnoughStake,
        /// The caller is requesting removing more stake than there exists in the staking account.
        #[codec(index = 9)]
        NotEnoughStakeToWithdraw,
        /// The caller is requesting to set weights but the caller has less than minimum stake required to set
        /// weights (less than WeightsMinStake).
        #[codec(index = 10)]
        NotEnoughStakeToSetWeights,
        /// The parent hotkey doesn't have enough own stake to set childkeys.
        #[codec(index = 11)]
        NotEnoughStakeToSetChildkeys,
        /// The caller is requesting adding more stake than there exists in the coldkey account.
        #[codec(index = 12)]
        NotEnoughBalanceToStake,
        /// The caller is trying to add stake, but for some reason the requested amount could not be withdrawn
        /// from the coldkey account.
        #[codec(index = 13)]
        BalanceWithdrawalError,
        /// Unsuccessfully withdraw, balance could be zero (can not make account exist) after withdrawal.
        #[codec(index = 14)]
        ZeroBalanceAfterWithdrawn,
        /// The caller is attempting to set non-self weights without being a permitted validator.
        #[codec(index = 15)]
        NeuronNoValidatorPermit,
        /// The caller is attempting to set the weight keys and values but these vectors have different size.
        #[codec(index = 16)]
        WeightVecNotEqualSize,
        /// The caller is attempting to set weights with duplicate UIDs in the weight matrix.
        #[codec(index = 17)]
        DuplicateUids,
        /// The caller is attempting to set weight to at least one UID that does not exist in the metagraph.
        #[codec(index = 18)]
        UidVecContainInvalidOne,
        /// The dispatch is attempting to set weights on chain with fewer elements than are allowed.
        #[codec(index = 19)]
        WeightVecLengthIsLow,
        /// The caller is requesting registering a neuron which already exists in the active set.
        #[codec(index = 21)]
        HotKeyAlreadyRegisteredInSubNet,
        /// The dispatch is attempting to set weights on chain with weight value exceeding the configured max
        /// weight limit (currently `u16::MAX`).
        #[codec(index = 27)]
        MaxWeightExceeded,
        /// A transactor exceeded the rate limit for setting weights.
        #[codec(index = 29)]
        SettingWeightsTooFast,
        /// A validator is attempting to set weights from a validator with incorrect weight version.
        #[codec(index = 30)]
        IncorrectWeightVersionKey,
        /// An axon or prometheus serving exceeded the rate limit for a registered neuron.
        #[codec(index = 31)]
        ServingRateLimitExceeded,
        /// The caller is attempting to set weights with more UIDs than allowed.
        #[codec(index = 32)]
        UidsLengthExceedUidsInSubNet,
        /// A transactor exceeded the rate limit for add network transaction.
        #[codec(index = 33)]
        NetworkTxRateLimitExceeded,
        /// A transactor exceeded the rate limit for delegate transaction.
        #[codec(index = 34)]
        DelegateTxRateLimitExceeded,
        /// A transactor exceeded the rate limit for staking.
        #[codec(index = 36)]
        StakingRateLimitExceeded,
        /// Registration is disabled.
        #[codec(index = 37)]
        SubNetRegistrationDisabled,
        /// Not a subnet owner.
        #[codec(index = 41)]
        NotSubnetOwner,
        /// Operation is not permitted on the root subnet.
        #[codec(index = 42)]
        RegistrationNotPermittedOnRootSubnet,
        /// A root registrant must hold at least as much root stake as the seat it would evict.
        #[codec(index = 43)]
        StakeTooLowForRoot,
        /// Can not set weights for the root network.
        #[codec(index = 47)]
        CanNotSetRootNetworkWeights,
        /// No neuron ID is available.
        #[codec(index = 48)]
        NoNeuronIdAvailable,
        /// Delegate take is too low.
        #[codec(index = 49)]
        DelegateTakeTooLow,
        /// Delegate take is too high.
        #[codec(index = 50)]
        DelegateTakeTooHigh,
        /// No commit found for the provided hotkey+netuid combination when attempting to reveal the weights.
        #[codec(index = 51)]
        NoWeightsCommitFound,
        /// Committed hash does not equal the hashed reveal data.
        #[codec(index = 52)]
        InvalidRevealCommitHashNotMatch,
        /// Attempting to call set_weights when commit/reveal is enabled
        #[codec(index = 53)]
        CommitRevealEnabled,
        /// Attemtping to commit/reveal weights when disabled.
        #[codec(index = 54)]
        CommitRevealDisabled,
        /// Attempting to set alpha high/low while disabled
        #[codec(index = 55)]
        LiquidAlphaDisabled,
        /// Attempting to set an invalid child for a hotkey on a network.
        #[codec(index = 60)]
        InvalidChild,
        /// Duplicate child when setting children.
        #[codec(index = 61)]
        DuplicateChild,
        /// Proportion overflow when setting children.
        #[codec(index = 62)]
        ProportionOverflow,
        /// Too many children MAX 5.
        #[codec(index = 63)]
        TooManyChildren,
        /// Default transaction rate limit exceeded.
        #[codec(index = 64)]
        TxRateLimitExceeded,
        /// Childkey take is invalid.
        #[codec(index = 71)]
        InvalidChildkeyTake,
        /// Invalid identity.
        #[codec(index = 73)]
        InvalidIdentity,
        /// Subnet mechanism does not exist.
        #[codec(index = 74)]
        MechanismDoesNotExist,
        /// Trying to unstake or re-lock the locked amount.
        #[codec(index = 75)]
        StakeUnavailable,
        /// Trying to perform action on non-existent subnet.
        #[codec(index = 76)]
        SubnetNotExists,
        /// Maximum commit limit reached
        #[codec(index = 77)]
        TooManyUnrevealedCommits,
        /// Attempted to reveal weights that are expired.
        #[codec(index = 78)]
        ExpiredWeightCommit,
        /// Attempted to reveal weights too early.
        #[codec(index = 79)]
        RevealTooEarly,
        /// Attempted to batch reveal weights with mismatched vector input lenghts.
        #[codec(index = 80)]
        InputLengthsUnequal,
        /// A transactor exceeded the rate limit for setting weights.
        #[codec(index = 81)]
        CommittingWeightsTooFast,
        /// Stake amount is too low.
        #[codec(index = 82)]
        AmountTooLow,
        /// Not enough liquidity.
        #[codec(index = 83)]
        InsufficientLiquidity,
        /// Slippage is too high for the transaction.
        #[codec(index = 84)]
        SlippageTooHigh,
        /// Subnet disallows transfer.
        #[codec(index = 85)]
        TransferDisallowed,
        /// Activity cutoff is being set too low.
        #[codec(index = 86)]
        ActivityCutoffTooLow,
        /// FirstEmissionBlockNumber is already set.
        #[codec(index = 88)]
        FirstEmissionBlockNumberAlreadySet,
        /// need wait for more blocks to accept the start call extrinsic.
        #[codec(index = 89)]
        NeedWaitingMoreBlocksToStarCall,
        /// SubToken disabled now
        #[codec(index = 94)]
        SubtokenDisabled,
        /// Invalid netuid duplication
        #[codec(index = 97)]
        SameNetuid,
        /// The caller does not have enough TAO balance for the operation.
        #[codec(index = 98)]
        InsufficientTaoBalance,
        /// An overflow occurred.
        #[codec(index = 105)]
        Overflow,
        /// Admin operation is prohibited during the protected weights window
        #[codec(index = 108)]
        AdminActionProhibitedDuringWeightsWindow,
        /// Incorrect commit-reveal version.
        #[codec(index = 111)]
        IncorrectCommitRevealVersion,
        /// Reveal round is older than the most recently stored DRAND round.
        #[codec(index = 112)]
        InvalidRevealRound,
        /// Generic error for out-of-range parameter value
        #[codec(index = 115)]
        InvalidValue,
        /// Subnet limit reached & there is no eligible subnet to prune
        #[codec(index = 116)]
        SubnetLimitReached,
        /// Insufficient funds to meet the subnet lock cost
        #[codec(index = 117)]
        CannotAffordLockCost,
        /// Registration Price Limit Exceeded
        #[codec(index = 136)]
        RegistrationPriceLimitExceeded,
        /// The supplied tempo is outside the allowed range.
        #[codec(index = 144)]
        TempoOutOfBounds,
        /// The supplied activity-cutoff factor is outside the allowed range.
        #[codec(index = 145)]
        ActivityCutoffFactorMilliOutOfBounds,
        /// An epoch trigger is already pending for this subnet; wait for it to fire before triggering again.
        #[codec(index = 146)]
        EpochTriggerAlreadyPending,
        /// The next automatic epoch is already imminent; a manual trigger would have no effect.
        #[codec(index = 147)]
        AutoEpochAlreadyImminent,
        /// `trigger_epoch` is blocked because commit-reveal is enabled for this subnet: an out-of-band epoch
        /// would desync the CRv3 reveal window from the wall-clock Drand schedule and silently drop committed
        /// weights.
        #[codec(index = 148)]
        DynamicTempoBlockedByCommitReveal,
    }

    #[pallet::event]
    #[pallet::generate_deposit(pub(crate) fn deposit_event)]
    pub enum Event<T: Config> {
        /// A subnet was added, with its mechanism.
        #[codec(index = 0)]
        NetworkAdded(NetUid, u16),
        /// Stake was added: coldkey, hotkey, TAO, alpha, subnet, fee.
        #[codec(index = 2)]
        StakeAdded(T::AccountId, T::AccountId, TaoBalance, AlphaBalance, NetUid, u64),
        /// Stake was removed: coldkey, hotkey, TAO, alpha, subnet, fee.
        #[codec(index = 3)]
        StakeRemoved(T::AccountId, T::AccountId, TaoBalance, AlphaBalance, NetUid, u64),
        /// Stake was moved: coldkey, from hotkey and subnet, to hotkey and subnet, TAO.
        #[codec(index = 4)]
        StakeMoved(T::AccountId, T::AccountId, NetUid, T::AccountId, NetUid, TaoBalance),
        /// A neuron set weights: table index, uid.
        #[codec(index = 5)]
        WeightsSet(NetUidStorageIndex, u16),
        /// A neuron was registered: subnet, uid, hotkey.
        #[codec(index = 7)]
        NeuronRegistered(NetUid, u16, T::AccountId),
        /// Most neurons of a subnet.
        #[codec(index = 10)]
        MaxAllowedUidsSet(NetUid, u16),
        /// Difficulty of a subnet.
        #[codec(index = 12)]
        DifficultySet(NetUid, u64),
        /// Adjustment interval of a subnet.
        #[codec(index = 13)]
        AdjustmentIntervalSet(NetUid, u16),
        /// Target registrations of a subnet.
        #[codec(index = 14)]
        RegistrationPerIntervalSet(NetUid, u16),
        /// Most registrations per block of a subnet.
        #[codec(index = 15)]
        MaxRegistrationsPerBlockSet(NetUid, u16),
        /// Activity cutoff of a subnet.
        #[codec(index = 16)]
        ActivityCutoffSet(NetUid, u16),
        /// Rho of a subnet.
        #[codec(index = 17)]
        RhoSet(NetUid, u16),
        /// Kappa of a subnet.
        #[codec(index = 19)]
        KappaSet(NetUid, u16),
        /// Least number of weights of a subnet.
        #[codec(index = 20)]
        MinAllowedWeightSet(NetUid, u16),
        /// Blocks between two weights of a neuron.
        #[codec(index = 23)]
        WeightsSetRateLimitSet(NetUid, u64),
        /// Immunity period of a subnet.
        #[codec(index = 24)]
        ImmunityPeriodSet(NetUid, u16),
        /// Moving average of a subnet's bonds.
        #[codec(index = 25)]
        BondsMovingAverageSet(NetUid, u64),
        /// Bonds penalty of a subnet.
        #[codec(index = 26)]
        BondsPenaltySet(NetUid, u16),
        /// Most permits of a subnet.
        #[codec(index = 28)]
        MaxAllowedValidatorsSet(NetUid, u16),
        /// A hotkey served its axon.
        #[codec(index = 29)]
        AxonServed(NetUid, T::AccountId),
        /// A hotkey served its metrics.
        #[codec(index = 30)]
        PrometheusServed(NetUid, T::AccountId),
        /// Least version key of a subnet's weights.
        #[codec(index = 33)]
        WeightsVersionKeySet(NetUid, u64),
        /// Blocks between two axons of a neuron.
        #[codec(index = 36)]
        ServingRateLimitSet(NetUid, u64),
        /// Price of a registration.
        #[codec(index = 37)]
        BurnSet(NetUid, TaoBalance),
        /// Largest price of a registration.
        #[codec(index = 38)]
        MaxBurnSet(NetUid, TaoBalance),
        /// Least price of a registration.
        #[codec(index = 39)]
        MinBurnSet(NetUid, TaoBalance),
        /// Blocks between two rate-limited transactions.
        #[codec(index = 41)]
        TxRateLimitSet(u64),
        /// Blocks before an epoch in which owners change nothing.
        #[codec(index = 44)]
        AdminFreezeWindowSet(u16),
        /// Epochs between two changes of one hyperparameter.
        #[codec(index = 45)]
        OwnerHyperparamRateLimitSet(u16),
        /// Whether a subnet takes registrations.
        #[codec(index = 51)]
        RegistrationAllowed(NetUid, bool),
        /// Whether a subnet takes proof of work.
        #[codec(index = 52)]
        PowRegistrationAllowed(NetUid, bool),
        /// Tempo of a subnet.
        #[codec(index = 53)]
        TempoSet(NetUid, u16),
        /// Least stake to set weights.
        #[codec(index = 55)]
        StakeThresholdSet(u64),
        /// Adjustment alpha of a subnet.
        #[codec(index = 56)]
        AdjustmentAlphaSet(NetUid, u64),
        /// The owners' cut.
        #[codec(index = 58)]
        SubnetOwnerCutSet(u16),
        /// Blocks between two subnets of an owner.
        #[codec(index = 59)]
        NetworkRateLimitSet(u64),
        /// Blocks from registration to `start_call`.
        #[codec(index = 61)]
        StartCallDelaySet(u64),
        /// Least price of a subnet.
        #[codec(index = 62)]
        NetworkMinLockCostSet(TaoBalance),
        /// Most subnets.
        #[codec(index = 63)]
        SubnetLimitSet(u16),
        /// A take was lowered: coldkey, hotkey, take.
        #[codec(index = 65)]
        TakeDecreased(T::AccountId, T::AccountId, u16),
        /// A take was raised: coldkey, hotkey, take.
        #[codec(index = 66)]
        TakeIncreased(T::AccountId, T::AccountId, u16),
        /// A coldkey set its identity.
        #[codec(index = 78)]
        ChainIdentitySet(T::AccountId),
        /// An owner set a subnet's identity.
        #[codec(index = 79)]
        SubnetIdentitySet(NetUid),
        /// Weights were committed: hotkey, table index, hash.
        #[codec(index = 86)]
        WeightsCommitted(T::AccountId, NetUidStorageIndex, H256),
        /// Weights were revealed: hotkey, table index, hash.
        #[codec(index = 87)]
        WeightsRevealed(T::AccountId, NetUidStorageIndex, H256),
        /// Several weights were revealed: hotkey, subnet, hashes.
        #[codec(index = 88)]
        WeightsBatchRevealed(T::AccountId, NetUid, Vec<H256>),
        /// A batch of weights went through.
        #[codec(index = 89)]
        BatchWeightsCompleted(Vec<Compact<NetUid>>, T::AccountId),
        /// Some items of a batch failed.
        #[codec(index = 90)]
        BatchCompletedWithErrors,
        /// An item of a batch failed.
        #[codec(index = 91)]
        BatchWeightItemFailed(NetUid, DispatchError),
        /// Stake changed its coldkey: from, to, hotkey, from subnet, to subnet, TAO.
        #[codec(index = 92)]
        StakeTransferred(T::AccountId, T::AccountId, T::AccountId, NetUid, NetUid, TaoBalance),
        /// Stake changed its subnet: coldkey, hotkey, from, to, TAO.
        #[codec(index = 93)]
        StakeSwapped(T::AccountId, T::AccountId, NetUid, NetUid, TaoBalance),
        /// Whether a subnet's stake may be transferred.
        #[codec(index = 94)]
        TransferToggle(NetUid, bool),
        /// A subnet emits from this block on.
        #[codec(index = 96)]
        FirstEmissionBlockNumberSet(NetUid, u64),
        /// Epochs from commit to reveal.
        #[codec(index = 101)]
        CommitRevealPeriodsSet(NetUid, u64),
        /// Whether a subnet's weights are committed first.
        #[codec(index = 102)]
        CommitRevealEnabled(NetUid, bool),
        /// Timelocked weights were committed: hotkey, table index, hash, drand round.
        #[codec(index = 108)]
        TimelockedWeightsCommitted(T::AccountId, NetUidStorageIndex, H256, u64),
        /// Least value of a subnet's most neurons.
        #[codec(index = 112)]
        MinAllowedUidsSet(NetUid, u16),
        /// Most epochs in one block.
        #[codec(index = 40)]
        MaxEpochsPerBlockSet(u8),
        /// Activity cutoff of a subnet in thousandths of its tempo.
        #[codec(index = 135)]
        ActivityCutoffFactorMilliSet {
            /// Subnet.
            netuid: NetUid,
            /// Thousandths of a tempo.
            factor_milli: u32,
        },
        /// An epoch out of turn was asked for.
        #[codec(index = 136)]
        EpochTriggered {
            /// Subnet.
            netuid: NetUid,
            /// Who asked.
            by: T::AccountId,
            /// Its block.
            fires_at: u64,
        },
        /// An epoch waits for the next block.
        #[codec(index = 137)]
        EpochDeferred {
            /// Subnet.
            netuid: NetUid,
            /// Block in which it was due.
            from_block: u64,
            /// Block to which it moved.
            to_block: u64,
        },
        /// Version that commits must name.
        #[codec(index = 107)]
        CommitRevealVersionSet(u16),
    }

    #[pallet::hooks]
    impl<T: Config> Hooks<BlockNumberFor<T>> for Pallet<T> {
        fn on_initialize(_number: BlockNumberFor<T>) -> Weight {
            Self::block_step();
            Weight::zero()
        }
    }

    #[pallet::call]
    impl<T: Config> Pallet<T> {
        /// Sets a validator's weights on the subnet's first mechanism.
        #[pallet::call_index(0)]
        #[pallet::weight((WEIGHTS_CALL, DispatchClass::Normal, Pays::No))]
        pub fn set_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            dests: Vec<u16>,
            weights: Vec<u16>,
            version_key: u64,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            Self::do_set_weights(&hotkey, netuid, 0, &dests, &weights, version_key)
        }

        /// Swaps TAO of the signing coldkey for alpha and stakes it to a hotkey.
        #[pallet::call_index(2)]
        #[pallet::weight(STAKE_CALL)]
        pub fn add_stake(
            origin: OriginFor<T>,
            hotkey: T::AccountId,
            netuid: NetUid,
            amount_staked: TaoBalance,
        ) -> DispatchResult {
            let coldkey = ensure_signed(origin)?;
            Self::do_add_stake(&coldkey, &hotkey, netuid, amount_staked, None)
        }

        /// Takes alpha from a hotkey and swaps it for TAO of the signing coldkey.
        #[pallet::call_index(3)]
        #[pallet::weight(STAKE_CALL)]
        pub fn remove_stake(
            origin: OriginFor<T>,
            hotkey: T::AccountId,
            netuid: NetUid,
            amount_unstaked: AlphaBalance,
        ) -> DispatchResult {
            let coldkey = ensure_signed(origin)?;
            Self::do_remove_stake(&coldkey, &hotkey, netuid, amount_unstaked, None)
        }

        /// Publishes where a neuron can be reached.
        #[pallet::call_index(4)]
        #[pallet::weight((SERVE_CALL, DispatchClass::Normal, Pays::No))]
        #[expect(clippy::too_many_arguments, reason = "the arguments are the chain's")]
        pub fn serve_axon(
            origin: OriginFor<T>,
            netuid: NetUid,
            version: u32,
            ip: u128,
            port: u16,
            ip_type: u8,
            protocol: u8,
            placeholder1: u8,
            placeholder2: u8,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            let axon = AxonInfo { block: 0, version, ip, port, ip_type, protocol, placeholder1, placeholder2 };
            Self::do_serve_axon(hotkey, netuid, axon, None)
        }

        /// Publishes where a neuron's metrics can be read.
        #[pallet::call_index(5)]
        #[pallet::weight((SERVE_CALL, DispatchClass::Normal, Pays::No))]
        pub fn serve_prometheus(
            origin: OriginFor<T>,
            netuid: NetUid,
            version: u32,
            ip: u128,
            port: u16,
            ip_type: u8,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            Self::do_serve_prometheus(hotkey, netuid, PrometheusInfo { block: 0, version, ip, port, ip_type })
        }

        /// The same as `burned_register`: the proof of work is ignored since spec 401.
        #[pallet::call_index(6)]
        #[pallet::weight(REGISTER_CALL)]
        pub fn register(
            origin: OriginFor<T>,
            netuid: NetUid,
            block_number: u64,
            nonce: u64,
            work: Vec<u8>,
            hotkey: T::AccountId,
            coldkey: T::AccountId,
        ) -> DispatchResult {
            let _ = (block_number, nonce, work, coldkey);
            let coldkey = ensure_signed(origin)?;
            Self::do_register(&coldkey, &hotkey, netuid, None)
        }

        /// Registers a hotkey for the current price, paid by the signing coldkey.
        #[pallet::call_index(7)]
        #[pallet::weight(REGISTER_CALL)]
        pub fn burned_register(origin: OriginFor<T>, netuid: NetUid, hotkey: T::AccountId) -> DispatchResult {
            let coldkey = ensure_signed(origin)?;
            Self::do_register(&coldkey, &hotkey, netuid, None)
        }

        /// Publishes where a neuron can be reached, with its TLS key.
        #[pallet::call_index(40)]
        #[pallet::weight((SERVE_CALL, DispatchClass::Normal, Pays::No))]
        #[expect(clippy::too_many_arguments, reason = "the arguments are the chain's")]
        pub fn serve_axon_tls(
            origin: OriginFor<T>,
            netuid: NetUid,
            version: u32,
            ip: u128,
            port: u16,
            ip_type: u8,
            protocol: u8,
            placeholder1: u8,
            placeholder2: u8,
            certificate: Vec<u8>,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            let axon = AxonInfo { block: 0, version, ip, port, ip_type, protocol, placeholder1, placeholder2 };
            Self::do_serve_axon(hotkey, netuid, axon, NeuronCertificate::from_bytes(&certificate))
        }

        /// Adds a subnet owned by the signing coldkey, with a hotkey in its first slot.
        #[pallet::call_index(59)]
        #[pallet::weight(REGISTER_CALL)]
        pub fn register_network(origin: OriginFor<T>, hotkey: T::AccountId) -> DispatchResult {
            let coldkey = ensure_signed(origin)?;
            Self::do_register_network(&coldkey, &hotkey, None)
        }

        /// Adds a subnet with its identity.
        #[pallet::call_index(79)]
        #[pallet::weight(REGISTER_CALL)]
        pub fn register_network_with_identity(
            origin: OriginFor<T>,
            hotkey: T::AccountId,
            identity: Option<SubnetIdentityV3>,
        ) -> DispatchResult {
            let coldkey = ensure_signed(origin)?;
            Self::do_register_network(&coldkey, &hotkey, identity)
        }

        /// As `add_stake`, unless the price is above a limit.
        #[pallet::call_index(88)]
        #[pallet::weight(STAKE_CALL)]
        pub fn add_stake_limit(
            origin: OriginFor<T>,
            hotkey: T::AccountId,
            netuid: NetUid,
            amount_staked: TaoBalance,
            limit_price: TaoBalance,
            allow_partial: bool,
        ) -> DispatchResult {
            let coldkey = ensure_signed(origin)?;
            let limit = PriceLimit { price: limit_price, allow_partial };
            Self::do_add_stake(&coldkey, &hotkey, netuid, amount_staked, Some(limit))
        }

        /// As `remove_stake`, unless the price is below a limit.
        #[pallet::call_index(89)]
        #[pallet::weight(STAKE_CALL)]
        pub fn remove_stake_limit(
            origin: OriginFor<T>,
            hotkey: T::AccountId,
            netuid: NetUid,
            amount_unstaked: AlphaBalance,
            limit_price: TaoBalance,
            allow_partial: bool,
        ) -> DispatchResult {
            let coldkey = ensure_signed(origin)?;
            let limit = PriceLimit { price: limit_price, allow_partial };
            Self::do_remove_stake(&coldkey, &hotkey, netuid, amount_unstaked, Some(limit))
        }

        /// Starts a subnet's emission and allows staking on it.
        #[pallet::call_index(92)]
        #[pallet::weight(SERVE_CALL)]
        pub fn start_call(origin: OriginFor<T>, netuid: NetUid) -> DispatchResult {
            let coldkey = ensure_signed(origin)?;
            Self::do_start_call(&coldkey, netuid)
        }

        /// Commits to weights by hash, to be revealed after the reveal period.
        #[pallet::call_index(96)]
        #[pallet::weight((SERVE_CALL, DispatchClass::Normal, Pays::No))]
        pub fn commit_weights(origin: OriginFor<T>, netuid: NetUid, commit_hash: H256) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            Self::do_commit_weights(&hotkey, netuid, 0, commit_hash)
        }

        /// Reveals weights that were committed by hash.
        #[pallet::call_index(97)]
        #[pallet::weight((WEIGHTS_CALL, DispatchClass::Normal, Pays::No))]
        pub fn reveal_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            uids: Vec<u16>,
            values: Vec<u16>,
            salt: Vec<u16>,
            version_key: u64,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            Self::do_reveal_weights(&hotkey, netuid, 0, &Reveal { uids, values, salt, version_key })
        }

        /// Commits to weights encrypted for a drand round.
        #[pallet::call_index(113)]
        #[pallet::weight((SERVE_CALL, DispatchClass::Normal, Pays::No))]
        pub fn commit_timelocked_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            commit: BoundedVec<u8, ConstU32<5000>>,
            reveal_round: u64,
            commit_reveal_version: u16,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            Self::do_commit_timelocked(&hotkey, netuid, 0, commit, reveal_round, commit_reveal_version)
        }

        /// As `commit_weights`, for any mechanism.
        #[pallet::call_index(115)]
        #[pallet::weight((SERVE_CALL, DispatchClass::Normal, Pays::No))]
        pub fn commit_mechanism_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            mecid: MechId,
            commit_hash: H256,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            Self::do_commit_weights(&hotkey, netuid, mecid, commit_hash)
        }

        /// As `reveal_weights`, for any mechanism.
        #[pallet::call_index(116)]
        #[pallet::weight((WEIGHTS_CALL, DispatchClass::Normal, Pays::No))]
        pub fn reveal_mechanism_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            mecid: MechId,
            uids: Vec<u16>,
            values: Vec<u16>,
            salt: Vec<u16>,
            version_key: u64,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            Self::do_reveal_weights(&hotkey, netuid, mecid, &Reveal { uids, values, salt, version_key })
        }

        /// As `commit_timelocked_weights`, for any mechanism.
        #[pallet::call_index(118)]
        #[pallet::weight((SERVE_CALL, DispatchClass::Normal, Pays::No))]
        pub fn commit_timelocked_mechanism_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            mecid: MechId,
            commit: BoundedVec<u8, ConstU32<5000>>,
            reveal_round: u64,
            commit_reveal_version: u16,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            Self::do_commit_timelocked(&hotkey, netuid, mecid, commit, reveal_round, commit_reveal_version)
        }

        /// As `set_weights`, for any mechanism.
        #[pallet::call_index(119)]
        #[pallet::weight((WEIGHTS_CALL, DispatchClass::Normal, Pays::No))]
        pub fn set_mechanism_weights(
            origin: OriginFor<T>,
            netuid: NetUid,
            mecid: MechId,
            dests: Vec<u16>,
            weights: Vec<u16>,
            version_key: u64,
        ) -> DispatchResult {
            let hotkey = ensure_signed(origin)?;
            Self::do_set_weights(&hotkey, netuid, mecid, &dests, &weights, version_key)
        }

        /// As `burned_register`, unless the price is above a limit.
        #[pallet::call_index(134)]
        #[pallet::weight(REGISTER_CALL)]
        pub fn register_limit(
            origin: OriginFor<T>,
            netuid: NetUid,
            hotkey: T::AccountId,
            limit_price: u64,
        ) -> DispatchResult {
            let coldkey = ensure_signed(origin)?;
            Self::do_register(&coldkey, &hotkey, netuid, Some(limit_price))
        }

        /// Sets the tempo of the signing owner's subnet.
        #[pallet::call_index(139)]
        #[pallet::weight(SERVE_CALL)]
        pub fn set_tempo(origin: OriginFor<T>, netuid: NetUid, tempo: u16) -> DispatchResult {
            Self::ensure_subnet_owner(origin, netuid)?;
            ensure!((MIN_TEMPO..=MAX_TEMPO).contains(&tempo), Error::<T>::TempoOutOfBounds);
            Self::write_tempo(netuid, tempo);
            Ok(())
        }

        /// Asks for an epoch of the signing owner's subnet at the end of the freeze window.
        #[pallet::call_index(141)]
        #[pallet::weight(SERVE_CALL)]
        pub fn trigger_epoch(origin: OriginFor<T>, netuid: NetUid) -> DispatchResult {
            let owner = Self::ensure_subnet_owner(origin, netuid)?;
            Self::do_trigger_epoch(owner, netuid)
        }
    }
}
