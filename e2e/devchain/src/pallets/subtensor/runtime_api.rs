//! Runtime APIs of `SubtensorModule`, by the names and argument orders that clients use.

use std::collections::BTreeMap;

use sp_runtime::AccountId32;
use substrate_fixed::types::U64F64;

use super::info::{
    DelegateInfo, Delegated, DynamicInfo, HyperparamEntry, Metagraph, NeuronInfo, NeuronInfoLite, SelectiveMetagraph,
    StakeAvailability, StakeInfo, SubnetHyperparams, SubnetHyperparamsV2, SubnetInfo, SubnetInfov2, SubnetState,
};
use super::types::{AlphaBalance, LockState, MechId, NetUid, TaoBalance};

/// What a swap would give, with its fees and what the price's movement costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, codec::Encode, codec::Decode, scale_info::TypeInfo)]
pub struct SimSwapResult {
    /// TAO in or out.
    pub tao_amount: TaoBalance,
    /// Alpha in or out.
    pub alpha_amount: AlphaBalance,
    /// Fee in TAO.
    pub tao_fee: TaoBalance,
    /// Fee in alpha.
    pub alpha_fee: AlphaBalance,
    /// TAO lost to the movement of the price.
    pub tao_slippage: TaoBalance,
    /// Alpha lost to the movement of the price.
    pub alpha_slippage: AlphaBalance,
}

/// Price of a subnet's alpha.
#[derive(Debug, Clone, Copy, PartialEq, Eq, codec::Encode, codec::Decode, scale_info::TypeInfo)]
pub struct SubnetPrice {
    /// Subnet.
    pub netuid: NetUid,
    /// Rao of TAO per alpha.
    pub price: u64,
}

sp_api::decl_runtime_apis! {
    /// Neurons one by one.
    pub trait NeuronInfoRuntimeApi {
        /// Every neuron of a subnet, with weights and bonds.
        fn get_neurons(netuid: NetUid) -> Vec<NeuronInfo>;
        /// One neuron, with weights and bonds.
        fn get_neuron(netuid: NetUid, uid: u16) -> Option<NeuronInfo>;
        /// Every neuron of a subnet.
        fn get_neurons_lite(netuid: NetUid) -> Vec<NeuronInfoLite>;
        /// One neuron.
        fn get_neuron_lite(netuid: NetUid, uid: u16) -> Option<NeuronInfoLite>;
    }

    /// Subnets.
    pub trait SubnetInfoRuntimeApi {
        /// A subnet as clients before dynamic TAO read it.
        fn get_subnet_info(netuid: NetUid) -> Option<SubnetInfo>;
        /// Every subnet as clients before dynamic TAO read it.
        fn get_subnets_info() -> Vec<Option<SubnetInfo>>;
        /// A subnet with its identity.
        fn get_subnet_info_v2(netuid: NetUid) -> Option<SubnetInfov2>;
        /// Every subnet with its identity.
        fn get_subnets_info_v2() -> Vec<Option<SubnetInfov2>>;
        /// Hyperparameters, first version.
        fn get_subnet_hyperparams(netuid: NetUid) -> Option<SubnetHyperparams>;
        /// Hyperparameters, second version.
        fn get_subnet_hyperparams_v2(netuid: NetUid) -> Option<SubnetHyperparamsV2>;
        /// Hyperparameters by name.
        fn get_subnet_hyperparams_v3(netuid: NetUid) -> Option<Vec<HyperparamEntry>>;
        /// Every subnet with its pool.
        fn get_all_dynamic_info() -> Vec<Option<DynamicInfo>>;
        /// A subnet with its pool.
        fn get_dynamic_info(netuid: NetUid) -> Option<DynamicInfo>;
        /// Every metagraph.
        fn get_all_metagraphs() -> Vec<Option<Metagraph>>;
        /// A metagraph.
        fn get_metagraph(netuid: NetUid) -> Option<Metagraph>;
        /// The metagraph of every mechanism.
        fn get_all_mechagraphs() -> Vec<Option<Metagraph>>;
        /// The metagraph of a mechanism.
        fn get_mechagraph(netuid: NetUid, mecid: MechId) -> Option<Metagraph>;
        /// Every per-uid vector.
        fn get_subnet_state(netuid: NetUid) -> Option<SubnetState>;
        /// The fields of a metagraph that are asked for.
        fn get_selective_metagraph(netuid: NetUid, metagraph_indexes: Vec<u16>) -> Option<SelectiveMetagraph>;
        /// The fields of a mechanism's metagraph that are asked for.
        fn get_selective_mechagraph(
            netuid: NetUid,
            subid: MechId,
            metagraph_indexes: Vec<u16>
        ) -> Option<SelectiveMetagraph>;
        /// Block of the next epoch.
        fn get_next_epoch_start_block(netuid: NetUid) -> Option<u64>;
        /// TAO emitted per block.
        fn get_block_emission() -> TaoBalance;
        /// Hotkey to which what a coldkey's miners earn is staked.
        fn get_coldkey_auto_stake_hotkey(coldkey: AccountId32, netuid: NetUid) -> Option<AccountId32>;
        /// Subnet that would make room for another.
        fn get_subnet_to_prune() -> Option<NetUid>;
        /// Account that holds what a subnet has.
        fn get_subnet_account_id(netuid: NetUid) -> Option<AccountId32>;
    }

    /// Stakes.
    pub trait StakeInfoRuntimeApi {
        /// Every stake of a coldkey.
        fn get_stake_info_for_coldkey(coldkey_account: AccountId32) -> Vec<StakeInfo>;
        /// Every stake of each coldkey.
        fn get_stake_info_for_coldkeys(coldkey_accounts: Vec<AccountId32>) -> Vec<(AccountId32, Vec<StakeInfo>)>;
        /// One stake.
        fn get_stake_info_for_hotkey_coldkey_netuid(
            hotkey_account: AccountId32,
            coldkey_account: AccountId32,
            netuid: NetUid
        ) -> Option<StakeInfo>;
        /// What each coldkey could take out.
        fn get_stake_availability_for_coldkeys(
            coldkey_accounts: Vec<AccountId32>,
            netuids: Option<Vec<NetUid>>
        ) -> BTreeMap<AccountId32, BTreeMap<NetUid, StakeAvailability>>;
        /// Fee of moving stake.
        fn get_stake_fee(
            origin: Option<(AccountId32, NetUid)>,
            origin_coldkey_account: AccountId32,
            destination: Option<(AccountId32, NetUid)>,
            destination_coldkey_account: AccountId32,
            amount: u64
        ) -> u64;
        /// A coldkey's lock; this chain has none.
        fn get_coldkey_lock(coldkey: AccountId32, netuid: NetUid) -> Option<LockState>;
        /// Conviction of the locks on a hotkey; this chain has none.
        fn get_hotkey_conviction(hotkey: AccountId32, netuid: NetUid) -> U64F64;
        /// Hotkey with the most conviction; this chain has none.
        fn get_most_convicted_hotkey_on_subnet(netuid: NetUid) -> Option<AccountId32>;
    }

    /// Delegates.
    pub trait DelegateInfoRuntimeApi {
        /// Every delegate.
        fn get_delegates() -> Vec<DelegateInfo<AccountId32>>;
        /// One delegate.
        fn get_delegate(delegate_account: AccountId32) -> Option<DelegateInfo<AccountId32>>;
        /// Delegates that a coldkey stakes to.
        fn get_delegated(delegatee_account: AccountId32) -> Vec<Delegated>;
    }

    /// Price of a subnet.
    pub trait SubnetRegistrationRuntimeApi {
        /// What adding a subnet costs now.
        fn get_network_registration_cost() -> TaoBalance;
    }

    /// Prices and swaps.
    pub trait SwapRuntimeApi {
        /// Rao of TAO per alpha.
        fn current_alpha_price(netuid: NetUid) -> u64;
        /// The same for every subnet.
        fn current_alpha_price_all() -> Vec<SubnetPrice>;
        /// What TAO would buy.
        fn sim_swap_tao_for_alpha(netuid: NetUid, tao: TaoBalance) -> SimSwapResult;
        /// What alpha would buy.
        fn sim_swap_alpha_for_tao(netuid: NetUid, alpha: AlphaBalance) -> SimSwapResult;
    }
}
