//! The runtime: pallets at the public chain's indices, and the runtime APIs that clients call.
#![expect(missing_docs, reason = "FRAME's macros generate items without documentation")]

use std::borrow::Cow;

use frame_support::dispatch::DispatchClass;
use frame_support::traits::{ConstU8, ConstU16, ConstU32, ConstU64, Get};
use frame_support::weights::constants::{RocksDbWeight, WEIGHT_REF_TIME_PER_SECOND};
use frame_support::weights::{
    ConstantMultiplier, Weight, WeightToFeeCoefficient, WeightToFeeCoefficients, WeightToFeePolynomial,
};
use frame_support::{construct_runtime, derive_impl, parameter_types};
use pallet_transaction_payment::FungibleAdapter;
use sp_api::impl_runtime_apis;
use sp_consensus_aura::sr25519::AuthorityId as AuraId;
use sp_core::OpaqueMetadata;
use sp_runtime::generic::{self, Era};
use sp_runtime::traits::{BlakeTwo256, Block as BlockT, IdentifyAccount, Verify};
use sp_runtime::transaction_validity::{TransactionSource, TransactionValidity};
use sp_runtime::{ApplyExtrinsicResult, ExtrinsicInclusionMode, MultiAddress, MultiSignature, Perbill};
use sp_version::RuntimeVersion;
use substrate_fixed::types::U64F64;

use crate::extensions::{CheckNonce, CheckShieldedTxValidity, DrandPriority, SudoTransactionExtension};
use crate::metadata::with_public_paths;
use crate::pallets::proxies::ProxyType;
use crate::pallets::subtensor::runtime_api::{SimSwapResult, SubnetPrice};
use crate::pallets::subtensor::{self, NetUid, NetuidType, SubtensorTransactionExtension, showing_netuid_as};
use crate::pallets::{admin_utils, commitments, crowdloan, drand, mev_shield, swap};
use crate::upgrade::SpecVersion;

/// Signature of any of the three kinds of key.
pub type Signature = MultiSignature;
/// Account of the chain.
pub type AccountId = <<Signature as Verify>::Signer as IdentifyAccount>::AccountId;
/// Address in an extrinsic.
pub type Address = MultiAddress<AccountId, ()>;
/// Head of a block.
pub type Header = generic::Header<u32, BlakeTwo256>;
/// Extrinsic with its signature.
pub type UncheckedExtrinsic = generic::UncheckedExtrinsic<Address, RuntimeCall, Signature, TxExtension>;
/// What a signature is made over.
pub type SignedPayload = generic::SignedPayload<RuntimeCall, TxExtension>;
/// Block of the chain.
pub type Block = generic::Block<Header, UncheckedExtrinsic>;
/// Hash of blocks, extrinsics and state.
pub type Hash = sp_core::H256;

/// Transaction extensions in signing order. Nested, because a tuple of FRAME holds at most twelve.
pub type TxExtension = (
    (
        frame_system::CheckNonZeroSender<Runtime>,
        frame_system::CheckSpecVersion<Runtime>,
        frame_system::CheckTxVersion<Runtime>,
        frame_system::CheckGenesis<Runtime>,
        frame_system::CheckMortality<Runtime>,
        CheckNonce<Runtime>,
        frame_system::CheckWeight<Runtime>,
    ),
    (
        pallet_transaction_payment::ChargeTransactionPayment<Runtime>,
        SudoTransactionExtension<Runtime>,
        CheckShieldedTxValidity,
        SubtensorTransactionExtension<Runtime>,
        DrandPriority,
        frame_metadata_hash_extension::CheckMetadataHash<Runtime>,
    ),
);

/// Dispatch of blocks and extrinsics.
pub type Executive =
    frame_executive::Executive<Runtime, Block, frame_system::ChainContext<Runtime>, Runtime, AllPalletsWithSystem>;

/// Fills in the transaction extensions of an extrinsic.
pub fn tx_extension(era: Era, nonce: u32, tip: u64) -> TxExtension {
    (
        (
            frame_system::CheckNonZeroSender::new(),
            frame_system::CheckSpecVersion::new(),
            frame_system::CheckTxVersion::new(),
            frame_system::CheckGenesis::new(),
            frame_system::CheckMortality::from(era),
            CheckNonce(nonce),
            frame_system::CheckWeight::new(),
        ),
        (
            pallet_transaction_payment::ChargeTransactionPayment::from(tip),
            SudoTransactionExtension::default(),
            CheckShieldedTxValidity,
            SubtensorTransactionExtension::default(),
            DrandPriority,
            frame_metadata_hash_extension::CheckMetadataHash::new(false),
        ),
    )
}

/// Version of the runtime. Clients cache metadata by genesis hash and `spec_version`: raise it when metadata changes.
pub const VERSION: RuntimeVersion = RuntimeVersion {
    spec_name: Cow::Borrowed("node-subtensor"),
    impl_name: Cow::Borrowed("node-subtensor"),
    authoring_version: 1,
    spec_version: 461,
    impl_version: 1,
    apis: RUNTIME_API_VERSIONS,
    transaction_version: 1,
    system_version: 1,
};

/// Share of a block's weight that normal extrinsics may use.
const NORMAL_RATIO: Perbill = Perbill::from_percent(75);
/// Bytes of a block.
const BLOCK_BYTES: u32 = 10 * 1024 * 1024;
/// Four seconds of execution, as on the public chain.
const BLOCK_WEIGHT: Weight = Weight::from_parts(WEIGHT_REF_TIME_PER_SECOND.saturating_mul(4), u64::MAX);

parameter_types! {
    pub BlockWeights: frame_system::limits::BlockWeights =
        frame_system::limits::BlockWeights::with_sensible_defaults(BLOCK_WEIGHT, NORMAL_RATIO);
    pub BlockLength: frame_system::limits::BlockLength =
        frame_system::limits::BlockLength::builder()
            .max_length(BLOCK_BYTES)
            .modify_max_length_for_class(DispatchClass::Normal, |length| *length = NORMAL_RATIO * BLOCK_BYTES)
            .build();
    pub const Kept: u32 = 2400;
    pub FeeMultiplier: pallet_transaction_payment::Multiplier = pallet_transaction_payment::Multiplier::from_u32(1);
    /// Milliseconds of a slot. Part of the state: it is fixed at genesis, and clients read it from metadata.
    pub storage SlotDuration: u64 = 12_000;
    /// Least milliseconds between two blocks.
    pub storage MinimumPeriod: u64 = 6_000;
    /// Whether a slot may have several blocks, as in instant mode.
    pub storage ManyBlocksPerSlot: bool = false;
    /// Whether metadata shows subnets as a type of their own. Part of the state: two chains that differ in it differ in
    /// their genesis hash, by which clients cache metadata.
    pub storage NetuidIsNewtype: bool = false;
}

#[derive_impl(frame_system::config_preludes::SolochainDefaultConfig as frame_system::DefaultConfig)]
impl frame_system::Config for Runtime {
    type BlockWeights = BlockWeights;
    type BlockLength = BlockLength;
    type Block = Block;
    type BlockHashCount = Kept;
    type DbWeight = RocksDbWeight;
    type Version = SpecVersion;
    type AccountData = pallet_balances::AccountData<u64>;
    type SS58Prefix = ConstU16<42>;
    type RuntimeTask = RuntimeTask;
    type MaxConsumers = ConstU32<16>;
}

impl pallet_timestamp::Config for Runtime {
    type Moment = u64;
    type OnTimestampSet = Aura;
    type MinimumPeriod = MinimumPeriod;
    type WeightInfo = ();
}

impl pallet_aura::Config for Runtime {
    type AuthorityId = AuraId;
    type DisabledValidators = ();
    type MaxAuthorities = ConstU32<32>;
    type AllowMultipleBlocksPerSlot = ManyBlocksPerSlot;
    type SlotDuration = SlotDuration;
}

impl pallet_balances::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type RuntimeHoldReason = RuntimeHoldReason;
    type RuntimeFreezeReason = RuntimeFreezeReason;
    type WeightInfo = ();
    type Balance = u64;
    type DustRemoval = ();
    type ExistentialDeposit = ConstU64<500>;
    type AccountStore = System;
    type ReserveIdentifier = [u8; 8];
    type FreezeIdentifier = RuntimeFreezeReason;
    type MaxLocks = ConstU32<50>;
    type MaxReserves = ConstU32<50>;
    type MaxFreezes = ConstU32<50>;
    type DoneSlashHandler = ();
}

/// Fee of weight: a two-thousandth of a rao per picosecond of execution.
pub struct LinearWeightToFee;

impl WeightToFeePolynomial for LinearWeightToFee {
    type Balance = u64;

    fn polynomial() -> WeightToFeeCoefficients<Self::Balance> {
        let coefficient = WeightToFeeCoefficient {
            coeff_integer: 0,
            coeff_frac: Perbill::from_parts(500_000),
            negative: false,
            degree: 1,
        };
        [coefficient].into_iter().collect()
    }
}

impl pallet_transaction_payment::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    // Fees are burned instead of paid to the author, whose account is a developer's: balances stay easy to predict.
    type OnChargeTransaction = FungibleAdapter<Balances, ()>;
    type WeightToFee = LinearWeightToFee;
    type LengthToFee = ConstantMultiplier<u64, ConstU64<1>>;
    // Fees do not depend on how full blocks are.
    type FeeMultiplierUpdate = pallet_transaction_payment::ConstFeeMultiplier<FeeMultiplier>;
    type OperationalFeeMultiplier = ConstU8<5>;
    type WeightInfo = ();
}

impl subtensor::Config for Runtime {
    type MinTempo = ConstU16<{ subtensor::MIN_TEMPO }>;
    type MaxTempo = ConstU16<{ subtensor::MAX_TEMPO }>;
    type InitialStartCallDelay = ConstU64<0>;

    fn commitments(netuid: NetUid) -> Vec<(AccountId, Vec<u8>)> {
        Commitments::commitments(netuid)
    }

    fn swap_fee_rate(netuid: NetUid) -> u16 {
        swap::FeeRate::<Runtime>::get(netuid)
    }

    fn last_drand_round() -> u64 {
        drand::LastStoredRound::<Runtime>::get()
    }
}

impl pallet_utility::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type RuntimeCall = RuntimeCall;
    type PalletsOrigin = OriginCaller;
    type WeightInfo = ();
}

impl pallet_sudo::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type RuntimeCall = RuntimeCall;
    type WeightInfo = ();
}

impl pallet_proxy::Config for Runtime {
    type RuntimeEvent = RuntimeEvent;
    type RuntimeCall = RuntimeCall;
    type Currency = Balances;
    type ProxyType = ProxyType;
    type ProxyDepositBase = ConstU64<60_000_000>;
    type ProxyDepositFactor = ConstU64<33_000_000>;
    type MaxProxies = ConstU32<20>;
    type WeightInfo = ();
    type MaxPending = ConstU32<75>;
    type CallHasher = BlakeTwo256;
    type AnnouncementDepositBase = ConstU64<36_000_000>;
    type AnnouncementDepositFactor = ConstU64<68_000_000>;
    type BlockNumberProvider = System;
}

impl commitments::Config for Runtime {
    type MaxFields = ConstU32<3>;
    type InitialDeposit = ConstU64<0>;
    type FieldDeposit = ConstU64<0>;
}

impl admin_utils::Config for Runtime {}

impl crowdloan::Config for Runtime {}

impl drand::Config for Runtime {}

impl mev_shield::Config for Runtime {}

impl swap::Config for Runtime {
    type MaxFeeRate = ConstU16<10_000>;
}

construct_runtime!(
    pub enum Runtime {
        System: frame_system = 0,
        Timestamp: pallet_timestamp = 2,
        Aura: pallet_aura = 3,
        Balances: pallet_balances = 5,
        TransactionPayment: pallet_transaction_payment = 6,
        SubtensorModule: subtensor = 7,
        Utility: pallet_utility = 11,
        Sudo: pallet_sudo = 12,
        Proxy: pallet_proxy = 16,
        Commitments: commitments = 18,
        AdminUtils: admin_utils = 19,
        Drand: drand = 26,
        Crowdloan: crowdloan = 27,
        Swap: swap = 28,
        MevShield: mev_shield = 30,
    }
);

/// How this chain's metadata shows subnets.
fn netuid_type() -> NetuidType {
    if NetuidIsNewtype::get() { NetuidType::Newtype } else { NetuidType::U16 }
}

/// Fees of a swap seen from one side: what is lost against the price before it.
fn sim_swap(netuid: NetUid, swap: subtensor::Swap, buys_alpha: bool) -> SimSwapResult {
    let unit = 1_000_000_000u128;
    let price = u128::from(SubtensorModule::alpha_price(netuid).max(1));
    let paid = u128::from(if buys_alpha { swap.tao } else { swap.alpha }) - u128::from(swap.fee);
    let ideal = if buys_alpha { paid * unit / price } else { paid * price / unit };
    let got = u128::from(if buys_alpha { swap.alpha } else { swap.tao });
    let slippage = u64::try_from(ideal.saturating_sub(got)).unwrap_or(u64::MAX);
    SimSwapResult {
        tao_amount: swap.tao,
        alpha_amount: swap.alpha,
        tao_fee: if buys_alpha { swap.fee } else { 0 },
        alpha_fee: if buys_alpha { 0 } else { swap.fee },
        tao_slippage: if buys_alpha { 0 } else { slippage },
        alpha_slippage: if buys_alpha { slippage } else { 0 },
    }
}

impl_runtime_apis! {
    impl sp_api::Core<Block> for Runtime {
        fn version() -> RuntimeVersion {
            SpecVersion::get()
        }

        fn execute_block(block: <Block as BlockT>::LazyBlock) {
            Executive::execute_block(block);
        }

        fn initialize_block(header: &<Block as BlockT>::Header) -> ExtrinsicInclusionMode {
            Executive::initialize_block(header)
        }
    }

    impl sp_api::Metadata<Block> for Runtime {
        fn metadata() -> OpaqueMetadata {
            OpaqueMetadata::new(with_public_paths(showing_netuid_as(netuid_type(), Runtime::metadata).into()))
        }

        fn metadata_at_version(version: u32) -> Option<OpaqueMetadata> {
            showing_netuid_as(netuid_type(), || Runtime::metadata_at_version(version))
                .map(|metadata| OpaqueMetadata::new(with_public_paths(metadata.to_vec())))
        }

        fn metadata_versions() -> Vec<u32> {
            Runtime::metadata_versions()
        }
    }

    impl sp_block_builder::BlockBuilder<Block> for Runtime {
        fn apply_extrinsic(extrinsic: <Block as BlockT>::Extrinsic) -> ApplyExtrinsicResult {
            Executive::apply_extrinsic(extrinsic)
        }

        fn finalize_block() -> <Block as BlockT>::Header {
            Executive::finalize_block()
        }

        fn inherent_extrinsics(data: sp_inherents::InherentData) -> Vec<<Block as BlockT>::Extrinsic> {
            data.create_extrinsics()
        }

        fn check_inherents(
            block: <Block as BlockT>::LazyBlock,
            data: sp_inherents::InherentData,
        ) -> sp_inherents::CheckInherentsResult {
            data.check_extrinsics(&block)
        }
    }

    impl sp_transaction_pool::runtime_api::TaggedTransactionQueue<Block> for Runtime {
        fn validate_transaction(
            source: TransactionSource,
            tx: <Block as BlockT>::Extrinsic,
            block_hash: <Block as BlockT>::Hash,
        ) -> TransactionValidity {
            Executive::validate_transaction(source, tx, block_hash)
        }
    }

    impl sp_consensus_aura::AuraApi<Block, AuraId> for Runtime {
        fn slot_duration() -> sp_consensus_aura::SlotDuration {
            sp_consensus_aura::SlotDuration::from_millis(SlotDuration::get())
        }

        fn authorities() -> Vec<AuraId> {
            pallet_aura::Authorities::<Runtime>::get().into_inner()
        }
    }

    impl frame_system_rpc_runtime_api::AccountNonceApi<Block, AccountId, u32> for Runtime {
        fn account_nonce(account: AccountId) -> u32 {
            System::account_nonce(account)
        }
    }

    impl pallet_transaction_payment_rpc_runtime_api::TransactionPaymentApi<Block, u64> for Runtime {
        fn query_info(
            uxt: <Block as BlockT>::Extrinsic,
            len: u32,
        ) -> pallet_transaction_payment::RuntimeDispatchInfo<u64> {
            TransactionPayment::query_info(uxt, len)
        }

        fn query_fee_details(
            uxt: <Block as BlockT>::Extrinsic,
            len: u32,
        ) -> pallet_transaction_payment::FeeDetails<u64> {
            TransactionPayment::query_fee_details(uxt, len)
        }

        fn query_weight_to_fee(weight: Weight) -> u64 {
            TransactionPayment::weight_to_fee(weight)
        }

        fn query_length_to_fee(length: u32) -> u64 {
            TransactionPayment::length_to_fee(length)
        }
    }

    impl pallet_transaction_payment_rpc_runtime_api::TransactionPaymentCallApi<Block, u64, RuntimeCall> for Runtime {
        fn query_call_info(call: RuntimeCall, len: u32) -> pallet_transaction_payment::RuntimeDispatchInfo<u64> {
            TransactionPayment::query_call_info(call, len)
        }

        fn query_call_fee_details(call: RuntimeCall, len: u32) -> pallet_transaction_payment::FeeDetails<u64> {
            TransactionPayment::query_call_fee_details(call, len)
        }

        fn query_weight_to_fee(weight: Weight) -> u64 {
            TransactionPayment::weight_to_fee(weight)
        }

        fn query_length_to_fee(length: u32) -> u64 {
            TransactionPayment::length_to_fee(length)
        }
    }

    impl subtensor::runtime_api::NeuronInfoRuntimeApi<Block> for Runtime {
        fn get_neurons(netuid: NetUid) -> Vec<subtensor::NeuronInfo> {
            SubtensorModule::get_neurons(netuid)
        }

        fn get_neuron(netuid: NetUid, uid: u16) -> Option<subtensor::NeuronInfo> {
            SubtensorModule::get_neuron(netuid, uid)
        }

        fn get_neurons_lite(netuid: NetUid) -> Vec<subtensor::NeuronInfoLite> {
            SubtensorModule::get_neurons_lite(netuid)
        }

        fn get_neuron_lite(netuid: NetUid, uid: u16) -> Option<subtensor::NeuronInfoLite> {
            SubtensorModule::get_neuron_lite(netuid, uid)
        }
    }

    impl subtensor::runtime_api::SubnetInfoRuntimeApi<Block> for Runtime {
        fn get_subnet_info(netuid: NetUid) -> Option<subtensor::SubnetInfo> {
            SubtensorModule::get_subnet_info(netuid)
        }

        fn get_subnets_info() -> Vec<Option<subtensor::SubnetInfo>> {
            SubtensorModule::netuids().into_iter().map(SubtensorModule::get_subnet_info).collect()
        }

        fn get_subnet_info_v2(netuid: NetUid) -> Option<subtensor::SubnetInfov2> {
            SubtensorModule::get_subnet_info_v2(netuid)
        }

        fn get_subnets_info_v2() -> Vec<Option<subtensor::SubnetInfov2>> {
            SubtensorModule::netuids().into_iter().map(SubtensorModule::get_subnet_info_v2).collect()
        }

        fn get_subnet_hyperparams(netuid: NetUid) -> Option<subtensor::SubnetHyperparams> {
            SubtensorModule::get_subnet_hyperparams(netuid)
        }

        fn get_subnet_hyperparams_v2(netuid: NetUid) -> Option<subtensor::SubnetHyperparamsV2> {
            SubtensorModule::get_subnet_hyperparams_v2(netuid)
        }

        fn get_subnet_hyperparams_v3(netuid: NetUid) -> Option<Vec<subtensor::HyperparamEntry>> {
            SubtensorModule::get_subnet_hyperparams_v3(netuid)
        }

        fn get_all_dynamic_info() -> Vec<Option<subtensor::DynamicInfo>> {
            SubtensorModule::netuids().into_iter().map(SubtensorModule::get_dynamic_info).collect()
        }

        fn get_dynamic_info(netuid: NetUid) -> Option<subtensor::DynamicInfo> {
            SubtensorModule::get_dynamic_info(netuid)
        }

        fn get_all_metagraphs() -> Vec<Option<subtensor::Metagraph>> {
            let netuids = SubtensorModule::netuids().into_iter();
            netuids.map(|netuid| SubtensorModule::get_mechagraph(netuid, 0)).collect()
        }

        fn get_metagraph(netuid: NetUid) -> Option<subtensor::Metagraph> {
            SubtensorModule::get_mechagraph(netuid, 0)
        }

        fn get_all_mechagraphs() -> Vec<Option<subtensor::Metagraph>> {
            let mechanisms = |netuid| 0..subtensor::MechanismCountCurrent::<Runtime>::get(netuid);
            let netuids = SubtensorModule::netuids().into_iter();
            let pairs = netuids.flat_map(|netuid| mechanisms(netuid).map(move |mecid| (netuid, mecid)));
            pairs.map(|(netuid, mecid)| SubtensorModule::get_mechagraph(netuid, mecid)).collect()
        }

        fn get_mechagraph(netuid: NetUid, mecid: u8) -> Option<subtensor::Metagraph> {
            SubtensorModule::get_mechagraph(netuid, mecid)
        }

        fn get_subnet_state(netuid: NetUid) -> Option<subtensor::SubnetState> {
            SubtensorModule::get_subnet_state(netuid)
        }

        fn get_selective_metagraph(
            netuid: NetUid,
            metagraph_indexes: Vec<u16>,
        ) -> Option<subtensor::SelectiveMetagraph> {
            SubtensorModule::get_selective_mechagraph(netuid, 0, &metagraph_indexes)
        }

        fn get_selective_mechagraph(
            netuid: NetUid,
            subid: u8,
            metagraph_indexes: Vec<u16>,
        ) -> Option<subtensor::SelectiveMetagraph> {
            SubtensorModule::get_selective_mechagraph(netuid, subid, &metagraph_indexes)
        }

        fn get_next_epoch_start_block(netuid: NetUid) -> Option<u64> {
            SubtensorModule::next_epoch_block(netuid)
        }

        fn get_block_emission() -> u64 {
            subtensor::BlockEmission::<Runtime>::get()
        }

        fn get_coldkey_auto_stake_hotkey(coldkey: AccountId, netuid: NetUid) -> Option<AccountId> {
            subtensor::AutoStakeDestination::<Runtime>::get(coldkey, netuid)
        }

        fn get_subnet_to_prune() -> Option<NetUid> {
            SubtensorModule::subnet_to_prune()
        }

        fn get_subnet_account_id(netuid: NetUid) -> Option<AccountId> {
            SubtensorModule::exists(netuid).then(|| subtensor::subnet_account(netuid))
        }
    }

    impl subtensor::runtime_api::StakeInfoRuntimeApi<Block> for Runtime {
        fn get_stake_info_for_coldkey(coldkey_account: AccountId) -> Vec<subtensor::StakeInfo> {
            SubtensorModule::get_stake_infos(&coldkey_account)
        }

        fn get_stake_info_for_coldkeys(
            coldkey_accounts: Vec<AccountId>,
        ) -> Vec<(AccountId, Vec<subtensor::StakeInfo>)> {
            let infos = |coldkey: AccountId| {
                let infos = SubtensorModule::get_stake_infos(&coldkey);
                (coldkey, infos)
            };
            coldkey_accounts.into_iter().map(infos).collect()
        }

        fn get_stake_info_for_hotkey_coldkey_netuid(
            hotkey_account: AccountId,
            coldkey_account: AccountId,
            netuid: NetUid,
        ) -> Option<subtensor::StakeInfo> {
            Some(SubtensorModule::get_stake_info(&hotkey_account, &coldkey_account, netuid))
        }

        fn get_stake_availability_for_coldkeys(
            coldkey_accounts: Vec<AccountId>,
            netuids: Option<Vec<NetUid>>,
        ) -> std::collections::BTreeMap<AccountId, std::collections::BTreeMap<NetUid, subtensor::StakeAvailability>> {
            let netuids = netuids.unwrap_or_else(SubtensorModule::netuids);
            let of = |coldkey: &AccountId| {
                let each = |netuid: &NetUid| (*netuid, SubtensorModule::get_stake_availability(coldkey, *netuid));
                netuids.iter().map(each).filter(|(_, stake)| stake.total.0 > 0).collect()
            };
            coldkey_accounts.into_iter().map(|coldkey| (coldkey.clone(), of(&coldkey))).collect()
        }

        fn get_stake_fee(
            origin: Option<(AccountId, NetUid)>,
            origin_coldkey_account: AccountId,
            destination: Option<(AccountId, NetUid)>,
            destination_coldkey_account: AccountId,
            amount: u64,
        ) -> u64 {
            // The fee of a swap is that of its pool, whoever makes it.
            let _ = (origin, origin_coldkey_account, destination_coldkey_account);
            destination.map_or(0, |(_, netuid)| SubtensorModule::sim_buy(netuid, amount).fee)
        }

        fn get_coldkey_lock(coldkey: AccountId, netuid: NetUid) -> Option<subtensor::LockState> {
            subtensor::Lock::<Runtime>::iter_prefix_values((coldkey, netuid)).next()
        }

        fn get_hotkey_conviction(hotkey: AccountId, netuid: NetUid) -> U64F64 {
            subtensor::HotkeyLock::<Runtime>::get(netuid, hotkey).map_or(U64F64::from_num(0), |lock| lock.conviction)
        }

        fn get_most_convicted_hotkey_on_subnet(netuid: NetUid) -> Option<AccountId> {
            let locks = subtensor::HotkeyLock::<Runtime>::iter_prefix(netuid);
            locks.max_by_key(|(_, lock)| lock.conviction).map(|(hotkey, _)| hotkey)
        }
    }

    impl subtensor::runtime_api::DelegateInfoRuntimeApi<Block> for Runtime {
        fn get_delegates() -> Vec<subtensor::DelegateInfo<AccountId>> {
            SubtensorModule::get_delegates()
        }

        fn get_delegate(delegate_account: AccountId) -> Option<subtensor::DelegateInfo<AccountId>> {
            SubtensorModule::get_delegate(&delegate_account)
        }

        fn get_delegated(delegatee_account: AccountId) -> Vec<subtensor::Delegated> {
            SubtensorModule::get_delegated(&delegatee_account)
        }
    }

    impl subtensor::runtime_api::SubnetRegistrationRuntimeApi<Block> for Runtime {
        fn get_network_registration_cost() -> u64 {
            SubtensorModule::network_lock_cost()
        }
    }

    impl subtensor::runtime_api::SwapRuntimeApi<Block> for Runtime {
        fn current_alpha_price(netuid: NetUid) -> u64 {
            SubtensorModule::alpha_price(netuid)
        }

        fn current_alpha_price_all() -> Vec<SubnetPrice> {
            let price = |netuid| SubnetPrice { netuid, price: SubtensorModule::alpha_price(netuid) };
            SubtensorModule::netuids().into_iter().map(price).collect()
        }

        fn sim_swap_tao_for_alpha(netuid: NetUid, tao: u64) -> SimSwapResult {
            sim_swap(netuid, SubtensorModule::sim_buy(netuid, tao), true)
        }

        fn sim_swap_alpha_for_tao(netuid: NetUid, alpha: u64) -> SimSwapResult {
            sim_swap(netuid, SubtensorModule::sim_sell(netuid, alpha), false)
        }
    }
}
