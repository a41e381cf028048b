//! The first state of a chain: what a genesis file says, or the default network.

mod rules;
mod source;

pub use source::Problem;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use sidecar_util::{Tao, ip_to_chain};
use sp_consensus_aura::sr25519::AuthorityId as AuraId;
use sp_core::Pair;
use sp_keyring::Sr25519Keyring;
use sp_runtime::BuildStorage;
use sp_state_machine::BasicExternalities;

use self::source::Source;
use crate::keys::{self, DEV_NAMES};
use crate::node::{BlockTime, StateMap};
use crate::pallets::subtensor::{self, AxonInfo, NetUid, NetuidType, NewSubnet, Pallet};
use crate::runtime::{
    AccountId, AuraConfig, BalancesConfig, ManyBlocksPerSlot, MinimumPeriod, NetuidIsNewtype, Runtime,
    RuntimeGenesisConfig, SlotDuration, SudoConfig,
};

/// TAO of each development account.
const DEV_BALANCE: u64 = 1_000_000_000_000_000;

/// Slot of chains without a block time of their own, in milliseconds.
const INSTANT_SLOT_MS: u64 = 250;

/// Why a genesis file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// It cannot be read.
    #[error("cannot read the genesis file `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It holds what no chain can start with.
    #[error(
        "genesis file `{path}` has {}:\n  {}",
        count(.problems.len()),
        .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// Every problem, in the order of the lines.
        problems: Vec<Problem>,
    },
    /// The runtime refuses the state.
    #[error("cannot build the first state: {0}")]
    Build(String),
}

fn count(problems: usize) -> String {
    if problems == 1 { "a problem".into() } else { format!("{problems} problems") }
}

/// What a genesis file holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// Who may use sudo; //Alice unless said otherwise.
    #[serde(default = "alice")]
    pub sudo: Account,
    /// Accounts with TAO, beside the development accounts.
    #[serde(default)]
    pub accounts: Vec<FundedAccount>,
    /// Least total stake to set weights and to count in an epoch.
    #[serde(default)]
    pub stake_threshold: Tao,
    /// Subnets; the root network is always there.
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    /// How metadata shows subnets. No part of the file: it is chosen for the clients that are to be used.
    #[serde(skip)]
    pub netuid_type: NetuidType,
}

/// An account with TAO.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FundedAccount {
    /// Address, or `//Name`.
    pub account: Account,
    /// Its TAO.
    pub balance: Tao,
}

/// How a subnet's alpha is priced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pricing {
    /// One alpha costs one TAO.
    #[default]
    Stable,
    /// The pool decides.
    Dynamic,
}

/// A subnet. Hyperparameters that are absent have the values of a new subnet, but no limits that slow tests down.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// Its number, from 1.
    pub netuid: u16,
    /// Coldkey of its owner.
    pub owner: Option<Account>,
    /// Hotkey of its owner.
    pub owner_hotkey: Option<Account>,
    /// How its alpha is priced.
    #[serde(default)]
    pub pricing: Pricing,
    /// TAO and alpha in its pool.
    #[serde(default = "default_pool")]
    pub pool: Pool,
    /// Whether alpha is emitted.
    #[serde(default = "yes")]
    pub emission: bool,
    /// Hyperparameters.
    #[serde(default)]
    pub hyperparameters: Hyperparameters,
    /// Neurons in the order of uids.
    #[serde(default)]
    pub neurons: Vec<Neuron>,
}

/// A subnet's pool.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// TAO in it.
    pub tao: Tao,
    /// Alpha in it.
    pub alpha: Tao,
}

/// Hyperparameters, by the names of the runtime API where it has them; those that are absent keep the chain's values.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hyperparameters {
    /// Blocks between epochs.
    pub tempo: Option<u16>,
    /// Most neurons.
    pub max_uids: Option<u16>,
    /// Most permits.
    pub max_validators: Option<u16>,
    /// Least number of weights.
    pub min_allowed_weights: Option<u16>,
    /// Largest share of one weight in 65535ths.
    pub max_weights_limit: Option<u16>,
    /// Least version key.
    pub weights_version: Option<u64>,
    /// Blocks between weights; none by default.
    pub weights_rate_limit: Option<u64>,
    /// Whether weights are committed first; no by default.
    pub commit_reveal: Option<bool>,
    /// Epochs from commit to reveal.
    pub commit_reveal_period: Option<u64>,
    /// Blocks between axons; none by default.
    pub serving_rate_limit: Option<u64>,
    /// Blocks in which a neuron is not replaced.
    pub immunity_period: Option<u16>,
    /// Thousandths of a tempo for which weights count.
    pub activity_cutoff_factor_milli: Option<u32>,
    /// Whether neurons may register.
    pub registration_allowed: Option<bool>,
    /// Price of a registration.
    pub burn: Option<Tao>,
    /// Least price of a registration.
    pub min_burn: Option<Tao>,
    /// Largest price of a registration.
    pub max_burn: Option<Tao>,
    /// Blocks in which the price halves.
    pub burn_half_life: Option<u16>,
    /// Majority of the consensus in 65535ths.
    pub kappa: Option<u16>,
    /// Legacy.
    pub rho: Option<u16>,
    /// Share of old bonds kept per epoch, in millionths.
    pub bonds_moving_avg: Option<u64>,
    /// How far clipped weights replace raw ones in bonds, in 65535ths.
    pub bonds_penalty: Option<u16>,
    /// Whether a commitment may reset bonds.
    pub bonds_reset_enabled: Option<bool>,
    /// Whether bonds are kept per pair instead of per column.
    pub yuma3_enabled: Option<bool>,
    /// Whether bonds move at a rate per pair.
    pub liquid_alpha_enabled: Option<bool>,
    /// Least rate of liquid alpha in 65535ths.
    pub alpha_low: Option<u16>,
    /// Largest rate of liquid alpha in 65535ths.
    pub alpha_high: Option<u16>,
    /// Steepness of liquid alpha.
    pub alpha_sigmoid_steepness: Option<i16>,
    /// Whether stake may be transferred.
    pub transfers_enabled: Option<bool>,
    /// Whether the owner has a cut.
    pub owner_cut_enabled: Option<bool>,
    /// Least neurons that may be replaced.
    pub min_non_immune_uids: Option<u16>,
    /// Hotkeys of the owner that are never replaced.
    pub owner_immune_neuron_limit: Option<u16>,
    /// Number of mechanisms.
    pub mechanism_count: Option<u8>,
    /// Shares of the mechanisms, which sum to 65535.
    pub mechanism_emission_split: Option<Vec<u16>>,
}

/// A registered neuron.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neuron {
    /// Key it is registered under.
    pub hotkey: Account,
    /// Owner of the hotkey.
    pub coldkey: Account,
    /// Alpha that the coldkey has staked to it.
    #[serde(default)]
    pub stake: Tao,
    /// TAO that the coldkey has staked to it on the root network.
    #[serde(default)]
    pub root_stake: Tao,
    /// Where it can be reached.
    pub axon: Option<Axon>,
    /// Its weights: uid and value.
    #[serde(default)]
    pub weights: Vec<(u16, u16)>,
}

/// Where a neuron can be reached.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axon {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: std::num::NonZeroU16,
    /// 0 TCP, 1 UDP, others reserved.
    #[serde(default = "http_protocol")]
    pub protocol: u8,
    /// Version of its software.
    #[serde(default)]
    pub version: u32,
}

/// An account written as an address or as `//Name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account(pub AccountId);

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        keys::account(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

fn alice() -> Account {
    Account(Sr25519Keyring::Alice.to_account_id())
}

fn yes() -> bool {
    true
}

fn http_protocol() -> u8 {
    4
}

fn default_pool() -> Pool {
    Pool { tao: Tao::from_rao(10_000_000_000), alpha: Tao::from_rao(10_000_000_000) }
}

impl Genesis {
    /// Reads a genesis file.
    ///
    /// # Errors
    /// [`GenesisError`] with line and field of what is wrong.
    pub fn read(path: &Path) -> Result<Self, GenesisError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| GenesisError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, GenesisError> {
        let refused = |problems| GenesisError::Content { path: path.to_owned(), problems };
        let mut source = Source::read(text, &rules::GENESIS);
        contradictions(&mut source);
        let problems = source.problems();
        if !problems.is_empty() {
            return Err(refused(problems));
        }
        // The walk is at least as strict as the structs are; should it ever not be, they have the last word.
        serde_json::from_str(text).map_err(|error| {
            let (line, why) = (error.line(), error.to_string());
            refused(vec![Problem { line, field: String::new(), why }])
        })
    }

    /// The default network: the root network and one open subnet, as the public localnet has them.
    pub fn localnet() -> Self {
        let nobody = Account(AccountId::new([0; 32]));
        let neuron = Neuron {
            hotkey: nobody.clone(),
            coldkey: nobody,
            stake: Tao::ZERO,
            root_stake: Tao::ZERO,
            axon: None,
            weights: Vec::new(),
        };
        let subnet = Subnet {
            netuid: 1,
            owner: None,
            owner_hotkey: None,
            pricing: Pricing::Dynamic,
            pool: default_pool(),
            emission: true,
            hyperparameters: Hyperparameters { tempo: Some(100), ..Hyperparameters::default() },
            neurons: vec![neuron],
        };
        Self {
            sudo: alice(),
            accounts: Vec::new(),
            stake_threshold: Tao::ZERO,
            subnets: vec![subnet],
            netuid_type: NetuidType::default(),
        }
    }

    /// Builds the first state. The same genesis and block time give the same hash on every machine.
    ///
    /// # Errors
    /// [`GenesisError::Build`] when the runtime refuses a value.
    pub fn build(&self, block_time: BlockTime) -> Result<StateMap, GenesisError> {
        let mut balances: BTreeMap<AccountId, u64> = BTreeMap::new();
        for name in DEV_NAMES {
            let pair = keys::pair_from_uri(&format!("//{name}")).map_err(|e| GenesisError::Build(e.to_string()))?;
            balances.insert(keys::account_of(&pair), DEV_BALANCE);
        }
        for funded in &self.accounts {
            balances.insert(funded.account.0.clone(), funded.balance.rao);
        }
        let config = RuntimeGenesisConfig {
            balances: BalancesConfig { balances: balances.into_iter().collect(), dev_accounts: None },
            aura: AuraConfig { authorities: vec![AuraId::from(author().public())] },
            sudo: SudoConfig { key: Some(self.sudo.0.clone()) },
            ..RuntimeGenesisConfig::default()
        };
        let storage = config.build_storage().map_err(GenesisError::Build)?;
        let mut externalities = BasicExternalities::new(storage);
        externalities.execute_with(|| self.write(block_time));
        let top = externalities.into_storages().top;
        Ok(top.into_iter().map(|(key, value)| (Arc::<[u8]>::from(key), Arc::<[u8]>::from(value))).collect())
    }

    fn write(&self, block_time: BlockTime) {
        let slot_ms = match block_time {
            BlockTime::Every(period) => u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1),
            BlockTime::Instant => INSTANT_SLOT_MS,
        };
        SlotDuration::set(&slot_ms);
        let instant = block_time == BlockTime::Instant;
        MinimumPeriod::set(&if instant { 1 } else { slot_ms / 2 });
        ManyBlocksPerSlot::set(&instant);
        if self.netuid_type == NetuidType::Newtype {
            NetuidIsNewtype::set(&true);
        }

        write_root();
        // Tests add subnets faster than the public chain lets anyone.
        subtensor::NetworkRateLimit::<Runtime>::put(0);
        subtensor::StakeThreshold::<Runtime>::put(self.stake_threshold.rao);
        for subnet in &self.subnets {
            subnet.write();
        }
        subtensor::TotalStake::<Runtime>::put(subtensor::SubnetTAO::<Runtime>::iter_values().sum::<u64>());
        let issued = pallet_balances::Pallet::<Runtime>::total_issuance();
        subtensor::TotalIssuance::<Runtime>::put(issued + subtensor::TotalStake::<Runtime>::get());
    }
}

/// Key of the one authority.
pub fn author() -> sp_core::sr25519::Pair {
    Sr25519Keyring::Alice.pair()
}

fn write_root() {
    let root = NetUid::ROOT;
    subtensor::NetworksAdded::<Runtime>::insert(root, true);
    subtensor::TotalNetworks::<Runtime>::mutate(|total| *total += 1);
    subtensor::MaxAllowedUids::<Runtime>::insert(root, 64);
    subtensor::MaxAllowedValidators::<Runtime>::insert(root, 64);
    subtensor::MinAllowedWeights::<Runtime>::insert(root, 0);
    subtensor::Tempo::<Runtime>::insert(root, 100);
    subtensor::SubtokenEnabled::<Runtime>::insert(root, true);
    subtensor::NetworkRegistrationAllowed::<Runtime>::insert(root, true);
}

impl Subnet {
    fn write(&self) {
        let netuid = NetUid(self.netuid);
        let nobody = AccountId::new([0; 32]);
        let owner = self.owner.as_ref().map_or_else(|| nobody.clone(), |account| account.0.clone());
        let owner_hotkey = self.owner_hotkey.as_ref().map_or(nobody, |account| account.0.clone());
        Pallet::<Runtime>::init_subnet(
            netuid,
            NewSubnet {
                owner,
                owner_hotkey,
                mechanism: u16::from(self.pricing == Pricing::Dynamic),
                pool_tao: self.pool.tao.rao,
                pool_alpha: self.pool.alpha.rao,
            },
        );
        if self.owner.is_none() {
            // Whoever has no owner must not look owned by the zero account, which pays an owner's cut.
            subtensor::SubnetOwner::<Runtime>::remove(netuid);
            subtensor::SubnetOwnerHotkey::<Runtime>::remove(netuid);
        }
        self.hyperparameters.write(netuid);
        Pallet::<Runtime>::start_subnet(netuid, 1);
        subtensor::SubnetEmissionEnabled::<Runtime>::insert(netuid, self.emission);
        for (uid, neuron) in (0u16..).zip(&self.neurons) {
            neuron.write(netuid, uid, self.pricing);
        }
        Pallet::<Runtime>::give_permits(netuid);
    }
}

impl Hyperparameters {
    fn write(&self, netuid: NetUid) {
        use subtensor as s;
        macro_rules! set {
            ($($field:ident => $item:ident),* $(,)?) => {
                $(if let Some(value) = self.$field {
                    s::$item::<Runtime>::insert(netuid, value);
                })*
            };
        }
        set! {
            tempo => Tempo,
            max_uids => MaxAllowedUids,
            max_validators => MaxAllowedValidators,
            min_allowed_weights => MinAllowedWeights,
            max_weights_limit => MaxWeightsLimit,
            weights_version => WeightsVersionKey,
            commit_reveal_period => RevealPeriodEpochs,
            immunity_period => ImmunityPeriod,
            activity_cutoff_factor_milli => ActivityCutoffFactorMilli,
            registration_allowed => NetworkRegistrationAllowed,
            burn_half_life => BurnHalfLife,
            kappa => Kappa,
            rho => Rho,
            bonds_moving_avg => BondsMovingAverage,
            bonds_penalty => BondsPenalty,
            bonds_reset_enabled => BondsResetOn,
            yuma3_enabled => Yuma3On,
            liquid_alpha_enabled => LiquidAlphaOn,
            alpha_sigmoid_steepness => AlphaSigmoidSteepness,
            transfers_enabled => TransferToggle,
            owner_cut_enabled => OwnerCutEnabled,
            min_non_immune_uids => MinNonImmuneUids,
            owner_immune_neuron_limit => ImmuneOwnerUidsLimit,
            mechanism_count => MechanismCountCurrent,
        }
        if let Some(count) = self.mechanism_count {
            s::MaxMechanismCount::<Runtime>::mutate(|most| *most = count.max(*most));
        }
        if let Some(split) = &self.mechanism_emission_split {
            s::MechanismEmissionSplit::<Runtime>::insert(netuid, split);
        }
        if let Some(burn) = self.min_burn {
            s::MinBurn::<Runtime>::insert(netuid, burn.rao);
        }
        if let Some(burn) = self.max_burn {
            s::MaxBurn::<Runtime>::insert(netuid, burn.rao);
        }
        let (low, high) = s::AlphaValues::<Runtime>::get(netuid);
        let bounds = (self.alpha_low.unwrap_or(low), self.alpha_high.unwrap_or(high));
        s::AlphaValues::<Runtime>::insert(netuid, bounds);
        s::WeightsSetRateLimit::<Runtime>::insert(netuid, self.weights_rate_limit.unwrap_or(0));
        s::ServingRateLimit::<Runtime>::insert(netuid, self.serving_rate_limit.unwrap_or(0));
        s::CommitRevealWeightsEnabled::<Runtime>::insert(netuid, self.commit_reveal.unwrap_or(false));
        s::Burn::<Runtime>::insert(netuid, self.burn.map_or(100_000_000, |burn| burn.rao));
    }
}

impl Neuron {
    fn write(&self, netuid: NetUid, uid: u16, pricing: Pricing) {
        let (hotkey, coldkey) = (&self.hotkey.0, &self.coldkey.0);
        Pallet::<Runtime>::create_hotkey_if_new(coldkey, hotkey);
        // The file's neurons were checked to fit, so each takes the next uid.
        let registered = Pallet::<Runtime>::register_neuron(netuid, hotkey);
        debug_assert_eq!(registered, Ok(uid));
        for (pool, stake) in [(netuid, self.stake), (NetUid::ROOT, self.root_stake)] {
            if stake > Tao::ZERO {
                Pallet::<Runtime>::increase_stake(hotkey, coldkey, pool, stake.rao);
                subtensor::SubnetAlphaOut::<Runtime>::mutate(pool, |out| *out += stake.rao);
                // A pool that prices alpha holds what the file says; elsewhere what is staked lies in the pool.
                if pool.is_root() || pricing == Pricing::Stable {
                    subtensor::SubnetTAO::<Runtime>::mutate(pool, |tao| *tao += stake.rao);
                }
            }
        }
        if let Some(axon) = self.axon {
            let (ip, ip_type) = ip_to_chain(axon.ip);
            let info = AxonInfo {
                version: axon.version,
                ip,
                port: axon.port.get(),
                ip_type,
                protocol: axon.protocol,
                ..AxonInfo::default()
            };
            subtensor::Axons::<Runtime>::insert(netuid, hotkey, info);
        }
        if !self.weights.is_empty() {
            subtensor::Weights::<Runtime>::insert(netuid.index(0), uid, &self.weights);
            // As if set in the first block: an epoch drops weights that are not younger than the registration they are about.
            subtensor::LastUpdate::<Runtime>::mutate(netuid.index(0), |all| all[usize::from(uid)] = 1);
        }
    }
}

/// Finds what contradicts something else, also in a file of which other parts cannot be read.
fn contradictions(source: &mut Source<'_>) {
    let mut netuids = BTreeSet::new();
    let mut owners: BTreeMap<Account, Account> = BTreeMap::new();
    let mut funded = BTreeSet::new();
    for a in 0..source.len("accounts") {
        let path = format!("accounts[{a}].account");
        if let Some(account) = source.get::<Account>(&path)
            && !funded.insert(account.clone())
        {
            source.refuse(&path, format!("{} is there twice", keys::address(&account.0)));
        }
    }
    for s in 0..source.len("subnets") {
        let subnet = format!("subnets[{s}]");
        let path = format!("{subnet}.netuid");
        if let Some(netuid) = source.get::<u16>(&path) {
            if netuid == 0 || netuid >= subtensor::GLOBAL_MAX_SUBNET_COUNT {
                source.refuse(&path, format!("{netuid} is not from 1 to 4095; 0 is the root network"));
            }
            if !netuids.insert(netuid) {
                source.refuse(&path, format!("{netuid} is there twice"));
            }
        }
        contradictory_hyperparameters(source, &format!("{subnet}.hyperparameters"));
        contradictory_neurons(source, &subnet, &mut owners);
    }
}

fn contradictory_hyperparameters(source: &mut Source<'_>, path: &str) {
    let Some(values) = source.get::<Hyperparameters>(path) else { return };
    let field = |name: &str| format!("{path}.{name}");
    let mut refuse = |name: &str, why: String| source.refuse(&field(name), why);
    if let Some(kept) = values.bonds_moving_avg.filter(|kept| *kept > 1_000_000) {
        refuse("bonds_moving_avg", format!("{kept} is above 1000000, which is everything"));
    }
    if values.tempo == Some(0) {
        refuse("tempo", "0 would be no epoch ever; the least is 1".into());
    }
    if let Some(count) = values.mechanism_count.filter(|count| !(1..=16).contains(count)) {
        refuse("mechanism_count", format!("{count} is not from 1 to 16"));
    }
    if let Some(split) = &values.mechanism_emission_split {
        let count = usize::from(values.mechanism_count.unwrap_or(1));
        let sum: u64 = split.iter().copied().map(u64::from).sum();
        if split.len() != count {
            let n = split.len();
            refuse("mechanism_emission_split", format!("{n} shares for a mechanism_count of {count}"));
        } else if sum != u64::from(u16::MAX) {
            refuse("mechanism_emission_split", format!("the shares sum to {sum} instead of 65535"));
        }
    }
    if let (Some(low), Some(high)) = (values.alpha_low, values.alpha_high)
        && low > high
    {
        refuse("alpha_low", format!("{low} is above alpha_high, {high}"));
    }
    if let (Some(least), Some(most)) = (values.min_burn, values.max_burn)
        && least > most
    {
        refuse("min_burn", format!("{least} is above max_burn, {most}"));
    }
}

fn contradictory_neurons(source: &mut Source<'_>, subnet: &str, owners: &mut BTreeMap<Account, Account>) {
    let neurons = format!("{subnet}.neurons");
    let n = source.len(&neurons);
    let room = source.get::<u16>(&format!("{subnet}.hyperparameters.max_uids")).unwrap_or(256);
    if n > usize::from(room) {
        source.refuse(&neurons, format!("{n} neurons do not fit into max_uids {room}"));
    }
    let mut hotkeys = BTreeSet::new();
    for i in 0..n {
        let neuron = format!("{neurons}[{i}]");
        let (hotkey_path, coldkey_path) = (format!("{neuron}.hotkey"), format!("{neuron}.coldkey"));
        if let Some(hotkey) = source.get::<Account>(&hotkey_path) {
            let address = keys::address(&hotkey.0);
            if !hotkeys.insert(hotkey.clone()) {
                source.refuse(&hotkey_path, format!("{address} is registered twice on this subnet"));
            }
            if let Some(coldkey) = source.get::<Account>(&coldkey_path)
                && *owners.entry(hotkey).or_insert_with(|| coldkey.clone()) != coldkey
            {
                source.refuse(&coldkey_path, format!("{address} has another owner elsewhere in this file"));
            }
        }
        let weights_path = format!("{neuron}.weights");
        if let Some(weights) = source.get::<Vec<(u16, u16)>>(&weights_path) {
            let mut uids = BTreeSet::new();
            for (uid, _) in weights {
                if usize::from(uid) >= n {
                    source.refuse(&weights_path, format!("there is no uid {uid}: the subnet has {n} neurons"));
                }
                if !uids.insert(uid) {
                    source.refuse(&weights_path, format!("uid {uid} is there twice"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::source::Rule;
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        match Genesis::parse(Path::new("genesis.json"), text) {
            Err(GenesisError::Content { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_walk_and_the_structs_know_the_same_fields() {
        fn check<T: DeserializeOwned>(rule: &Rule) {
            let Rule::Object(fields) = rule else { panic!("not an object") };
            // An unknown field makes serde list those it knows.
            let error = serde_json::from_str::<T>(r#"{"?": 0}"#).err().unwrap().to_string();
            let known: BTreeSet<&str> = error.split('`').skip(3).step_by(2).collect();
            let walked: BTreeSet<&str> = fields.iter().map(|field| field.name).collect();
            assert_eq!(walked, known);
            // Without the required fields it misses one of them, and with them it is content.
            let required: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.name).collect();
            let error = serde_json::from_str::<T>("{}").err().map(|error| error.to_string());
            assert_eq!(error.is_some(), !required.is_empty(), "{error:?}");
            assert!(error.is_none_or(|error| required.iter().any(|name| error.contains(name))));
        }
        check::<Genesis>(&rules::GENESIS);
        check::<FundedAccount>(&rules::FUNDED);
        check::<Subnet>(&rules::SUBNET);
        check::<Pool>(&rules::POOL);
        check::<Hyperparameters>(&rules::HYPERPARAMETERS);
        check::<Neuron>(&rules::NEURON);
        check::<Axon>(&rules::AXON);
    }

    #[test]
    fn every_problem_is_told_at_once_with_its_line_and_field() {
        let text = r#"{
  "sudo": "//Alice",
  "sudoer": true,
  "accounts": [{ "account": "//Bob" }],
  "subnets": [
    { "netuid": 1, "netuid": 1,
      "hyperparameters": { "tempo": 70000, "kappa": null, "mechanism_emission_split": [1, 2] },
      "neurons": [
        { "hotkey": "5Grwva", "coldkey": "//Bob",
          "stake": "1e9" },
        { "hotkey": "//H", "coldkey": "//C", "axon": { "ip": "300.1.1.1", "port": 0 }, "weights": [[7, 1]] },
        { "hotkey": "//H", "coldkey": "//D", "weights": [[0, 1], [0, 2]] }
      ] },
    { "netuid": 1, "neurons": {} }
  ]
}"#;
        let problems = problems(text);
        let expected = [
            "line 3, sudoer: there is no such field: known are sudo, accounts",
            "line 4, accounts[0].balance: this field is missing",
            "line 6, subnets[0].netuid: this field is there twice",
            "line 7, subnets[0].hyperparameters.tempo: ",
            "line 9, subnets[0].neurons[0].hotkey: `5Grwva`",
            "line 10, subnets[0].neurons[0].stake: ",
            "line 11, subnets[0].neurons[1].axon.ip: ",
            "line 11, subnets[0].neurons[1].axon.port: ",
            "line 11, subnets[0].neurons[1].weights: there is no uid 7",
            "line 12, subnets[0].neurons[2].hotkey: ",
            "line 12, subnets[0].neurons[2].coldkey: ",
            "line 12, subnets[0].neurons[2].weights: uid 0 is there twice",
            "line 14, subnets[1].netuid: 1 is there twice",
            "line 14, subnets[1].neurons: this is not a list",
        ];
        for part in expected {
            assert!(problems.iter().any(|problem| problem.starts_with(part)), "{part}: {problems:#?}");
        }
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    }

    #[test]
    fn hyperparameters_that_contradict_one_another_are_told() {
        let text = r#"{"subnets": [{"netuid": 1, "hyperparameters": {"tempo": 0, "alpha_low": 9, "alpha_high": 8,
            "min_burn": "2", "max_burn": "1", "bonds_moving_avg": 1000001, "mechanism_count": 2,
            "mechanism_emission_split": [1, 2]}}]}"#;
        let problems = problems(text);
        for field in ["tempo", "alpha_low", "min_burn", "bonds_moving_avg", "mechanism_emission_split"] {
            assert!(
                problems.iter().any(|problem| problem.contains(&format!("hyperparameters.{field}: "))),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn a_pool_holds_what_the_file_says() {
        let genesis: Genesis = serde_json::from_value(serde_json::json!({
            "subnets": [{
                "netuid": 1, "pricing": "dynamic", "pool": { "tao": "1000", "alpha": "4000" },
                "neurons": [{ "hotkey": "//H", "coldkey": "//C", "stake": "1500" }],
            }],
        }))
        .unwrap();
        let state = genesis.build(BlockTime::Instant).unwrap();
        let read = || {
            let netuid = NetUid(1);
            let tao = subtensor::SubnetTAO::<Runtime>::get(netuid);
            let out = subtensor::SubnetAlphaOut::<Runtime>::get(netuid);
            (tao, subtensor::SubnetAlphaIn::<Runtime>::get(netuid), out, Pallet::<Runtime>::alpha_price(netuid))
        };
        let tao = 1_000_000_000;
        assert_eq!(crate::node::inspect(&state, read).unwrap(), (1000 * tao, 4000 * tao, 1500 * tao, tao / 4));
    }

    #[test]
    fn the_kind_of_netuid_is_part_of_the_first_state() {
        let of = |netuid_type| Genesis { netuid_type, ..Genesis::localnet() }.build(BlockTime::Instant).unwrap();
        assert_ne!(of(NetuidType::U16), of(NetuidType::Newtype));
        assert_eq!(of(NetuidType::U16), Genesis::localnet().build(BlockTime::Instant).unwrap());
    }
}
