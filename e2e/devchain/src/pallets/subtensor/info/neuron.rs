//! One neuron, and the vectors of all of them.

use codec::{Compact, Decode, Encode};
use scale_info::TypeInfo;
use sp_runtime::AccountId32;

use super::super::columns::{
    Column, by_hotkey, by_hotkey_and_netuid, by_netuid_and_hotkey, by_netuid_and_uid, hash_hotkey,
};
use super::super::pallet::*;
use super::super::types::{AlphaBalance, AxonInfo, NetUid, PrometheusInfo, TaoBalance};
use super::compact;

/// A neuron with its weights and bonds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct NeuronInfo {
    /// Key it is registered under.
    pub hotkey: AccountId32,
    /// Owner of the hotkey.
    pub coldkey: AccountId32,
    /// Slot.
    pub uid: Compact<u16>,
    /// Subnet.
    pub netuid: Compact<NetUid>,
    /// Whether its weights are recent.
    pub active: bool,
    /// Where it can be reached.
    pub axon_info: AxonInfo,
    /// Where its metrics are.
    pub prometheus_info: PrometheusInfo,
    /// Coldkey and stake of the hotkey.
    pub stake: Vec<(AccountId32, Compact<AlphaBalance>)>,
    /// Always 0 since spec 401.
    pub rank: Compact<u16>,
    /// Alpha of the last epoch.
    pub emission: Compact<AlphaBalance>,
    /// Share of the miners' emission.
    pub incentive: Compact<u16>,
    /// Stake-weighted median of the weights on it.
    pub consensus: Compact<u16>,
    /// Always 0 since spec 401.
    pub trust: Compact<u16>,
    /// How much of its weights the consensus kept.
    pub validator_trust: Compact<u16>,
    /// Share of the validators' emission.
    pub dividends: Compact<u16>,
    /// Block of its last weights.
    pub last_update: Compact<u64>,
    /// Whether its weights count.
    pub validator_permit: bool,
    /// Its weights.
    pub weights: Vec<(Compact<u16>, Compact<u16>)>,
    /// Its bonds.
    pub bonds: Vec<(Compact<u16>, Compact<u16>)>,
    /// Always 65535 since spec 401.
    pub pruning_score: Compact<u16>,
}

/// A neuron without its weights and bonds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct NeuronInfoLite {
    /// Key it is registered under.
    pub hotkey: AccountId32,
    /// Owner of the hotkey.
    pub coldkey: AccountId32,
    /// Slot.
    pub uid: Compact<u16>,
    /// Subnet.
    pub netuid: Compact<NetUid>,
    /// Whether its weights are recent.
    pub active: bool,
    /// Where it can be reached.
    pub axon_info: AxonInfo,
    /// Where its metrics are.
    pub prometheus_info: PrometheusInfo,
    /// Coldkey and stake of the hotkey.
    pub stake: Vec<(AccountId32, Compact<AlphaBalance>)>,
    /// Always 0 since spec 401.
    pub rank: Compact<u16>,
    /// Alpha of the last epoch.
    pub emission: Compact<AlphaBalance>,
    /// Share of the miners' emission.
    pub incentive: Compact<u16>,
    /// Stake-weighted median of the weights on it.
    pub consensus: Compact<u16>,
    /// Always 0 since spec 401.
    pub trust: Compact<u16>,
    /// How much of its weights the consensus kept.
    pub validator_trust: Compact<u16>,
    /// Share of the validators' emission.
    pub dividends: Compact<u16>,
    /// Block of its last weights.
    pub last_update: Compact<u64>,
    /// Whether its weights count.
    pub validator_permit: bool,
    /// Always 65535 since spec 401.
    pub pruning_score: Compact<u16>,
}

/// Every per-uid vector of a subnet.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, TypeInfo)]
pub struct SubnetState {
    /// Subnet.
    pub netuid: Compact<NetUid>,
    /// Hotkeys.
    pub hotkeys: Vec<AccountId32>,
    /// Owners of the hotkeys.
    pub coldkeys: Vec<AccountId32>,
    /// Whether weights are recent.
    pub active: Vec<bool>,
    /// Whether weights count.
    pub validator_permit: Vec<bool>,
    /// Always 65535 since spec 401.
    pub pruning_score: Vec<Compact<u16>>,
    /// Blocks of the last weights.
    pub last_update: Vec<Compact<u64>>,
    /// Alpha of the last epoch.
    pub emission: Vec<Compact<AlphaBalance>>,
    /// Shares of the validators' emission.
    pub dividends: Vec<Compact<u16>>,
    /// Shares of the miners' emission.
    pub incentives: Vec<Compact<u16>>,
    /// Consensus.
    pub consensus: Vec<Compact<u16>>,
    /// Always 0 since spec 401.
    pub trust: Vec<Compact<u16>>,
    /// Always 0 since spec 401.
    pub rank: Vec<Compact<u16>>,
    /// Blocks of registration.
    pub block_at_registration: Vec<Compact<u64>>,
    /// Alpha staked.
    pub alpha_stake: Vec<Compact<AlphaBalance>>,
    /// Root TAO staked, unweighted.
    pub tao_stake: Vec<Compact<TaoBalance>>,
    /// Alpha plus weighted root TAO.
    pub total_stake: Vec<Compact<TaoBalance>>,
    /// Per subnet, alpha of each hotkey in that subnet's last epoch.
    pub emission_history: Vec<Vec<Compact<AlphaBalance>>>,
}

/// What every neuron of a subnet is read from: the per-uid vectors, read once for all of them, and the maps.
struct Neurons {
    keys: Column<2, AccountId32, AccountId32>,
    owner: Column<48, AccountId32, AccountId32>,
    axons: Column<48, AxonInfo, Option<AxonInfo>>,
    prometheus: Column<48, PrometheusInfo, Option<PrometheusInfo>>,
    alpha: Column<48, AlphaBalance, AlphaBalance>,
    active: Vec<bool>,
    permit: Vec<bool>,
    emission: Vec<AlphaBalance>,
    incentive: Vec<u16>,
    consensus: Vec<u16>,
    trust: Vec<u16>,
    dividends: Vec<u16>,
    last_update: Vec<u64>,
}

fn at<V: Copy + Default>(values: &[V], uid: u16) -> V {
    values.get(usize::from(uid)).copied().unwrap_or_default()
}

fn compact_pairs(row: Vec<(u16, u16)>) -> Vec<(Compact<u16>, Compact<u16>)> {
    row.into_iter().map(|(uid, value)| (Compact(uid), Compact(value))).collect()
}

impl<T: Config> Pallet<T> {
    fn neurons_of(netuid: NetUid) -> Neurons {
        Neurons {
            keys: by_netuid_and_uid::<Keys<T>, _>(netuid),
            owner: by_hotkey::<Owner<T>, _, _>(),
            axons: by_netuid_and_hotkey::<Axons<T>, _, _>(netuid),
            prometheus: by_netuid_and_hotkey::<Prometheus<T>, _, _>(netuid),
            alpha: by_hotkey_and_netuid::<TotalHotkeyAlpha<T>, _, _>(netuid),
            active: Active::<T>::get(netuid),
            permit: ValidatorPermit::<T>::get(netuid),
            emission: Emission::<T>::get(netuid),
            incentive: Incentive::<T>::get(netuid.index(0)),
            consensus: Consensus::<T>::get(netuid),
            trust: ValidatorTrust::<T>::get(netuid),
            dividends: Dividends::<T>::get(netuid),
            last_update: LastUpdate::<T>::get(netuid.index(0)),
        }
    }

    fn neuron_lite_from(netuid: NetUid, uid: u16, of: &Neurons) -> NeuronInfoLite {
        let hotkey = of.keys.get(&uid.to_le_bytes());
        let hash = hash_hotkey(&hotkey);
        let coldkey = of.owner.get(&hash);
        NeuronInfoLite {
            uid: Compact(uid),
            netuid: Compact(netuid),
            active: at(&of.active, uid),
            axon_info: of.axons.get(&hash).unwrap_or_default(),
            prometheus_info: of.prometheus.get(&hash).unwrap_or_default(),
            stake: vec![(coldkey.clone(), Compact(of.alpha.get(&hash)))],
            rank: Compact(0),
            emission: Compact(at(&of.emission, uid)),
            incentive: Compact(at(&of.incentive, uid)),
            consensus: Compact(at(&of.consensus, uid)),
            trust: Compact(0),
            validator_trust: Compact(at(&of.trust, uid)),
            dividends: Compact(at(&of.dividends, uid)),
            last_update: Compact(at(&of.last_update, uid)),
            validator_permit: at(&of.permit, uid),
            pruning_score: Compact(u16::MAX),
            hotkey,
            coldkey,
        }
    }

    fn with_weights(netuid: NetUid, uid: u16, lite: NeuronInfoLite) -> NeuronInfo {
        NeuronInfo {
            hotkey: lite.hotkey,
            coldkey: lite.coldkey,
            uid: lite.uid,
            netuid: lite.netuid,
            active: lite.active,
            axon_info: lite.axon_info,
            prometheus_info: lite.prometheus_info,
            stake: lite.stake,
            rank: lite.rank,
            emission: lite.emission,
            incentive: lite.incentive,
            consensus: lite.consensus,
            trust: lite.trust,
            validator_trust: lite.validator_trust,
            dividends: lite.dividends,
            last_update: lite.last_update,
            validator_permit: lite.validator_permit,
            weights: compact_pairs(Weights::<T>::get(netuid.index(0), uid)),
            bonds: compact_pairs(Bonds::<T>::get(netuid.index(0), uid)),
            pruning_score: lite.pruning_score,
        }
    }

    /// Every neuron of a subnet.
    pub fn get_neurons_lite(netuid: NetUid) -> Vec<NeuronInfoLite> {
        let of = Self::neurons_of(netuid);
        (0..SubnetworkN::<T>::get(netuid)).map(|uid| Self::neuron_lite_from(netuid, uid, &of)).collect()
    }

    /// One neuron of a subnet.
    pub fn get_neuron_lite(netuid: NetUid, uid: u16) -> Option<NeuronInfoLite> {
        let known = uid < SubnetworkN::<T>::get(netuid);
        known.then(|| Self::neuron_lite_from(netuid, uid, &Self::neurons_of(netuid)))
    }

    /// Every neuron of a subnet, with weights and bonds.
    pub fn get_neurons(netuid: NetUid) -> Vec<NeuronInfo> {
        let lite = Self::get_neurons_lite(netuid);
        (0..).zip(lite).map(|(uid, lite)| Self::with_weights(netuid, uid, lite)).collect()
    }

    /// One neuron of a subnet, with weights and bonds.
    pub fn get_neuron(netuid: NetUid, uid: u16) -> Option<NeuronInfo> {
        Some(Self::with_weights(netuid, uid, Self::get_neuron_lite(netuid, uid)?))
    }

    /// Every per-uid vector of a subnet.
    pub fn get_subnet_state(netuid: NetUid) -> Option<SubnetState> {
        if !Self::exists(netuid) {
            return None;
        }
        let hotkeys = Self::hotkeys(netuid);
        let n = hotkeys.len();
        let of = Self::neurons_of(netuid);
        let hashes: Vec<_> = hotkeys.iter().map(hash_hotkey).collect();
        let stakes = Self::stake_weights_of(&hashes, netuid);
        let fit = |mut flags: Vec<bool>| {
            flags.resize(n, false);
            flags
        };
        let emitted = |netuid: NetUid| -> Vec<Compact<u64>> {
            let emission = Emission::<T>::get(netuid);
            let of = |hotkey| emission.get(usize::from(Uids::<T>::get(netuid, hotkey)?)).copied();
            hotkeys.iter().map(|hotkey| Compact(of(hotkey).unwrap_or(0))).collect()
        };
        Some(SubnetState {
            netuid: Compact(netuid),
            coldkeys: hashes.iter().map(|hotkey| of.owner.get(hotkey)).collect(),
            active: fit(of.active),
            validator_permit: fit(of.permit),
            pruning_score: vec![Compact(u16::MAX); n],
            last_update: compact(of.last_update, n),
            emission: compact(of.emission, n),
            dividends: compact(of.dividends, n),
            incentives: compact(of.incentive, n),
            consensus: compact(of.consensus, n),
            trust: vec![Compact(0); n],
            rank: vec![Compact(0); n],
            block_at_registration: compact(Self::registration_blocks(netuid), n),
            alpha_stake: stakes.iter().map(|stake| Compact(stake.0)).collect(),
            tao_stake: stakes.iter().map(|stake| Compact(stake.1)).collect(),
            total_stake: stakes.iter().map(|stake| Compact(stake.2)).collect(),
            emission_history: Self::netuids().into_iter().map(emitted).collect(),
            hotkeys,
        })
    }
}
