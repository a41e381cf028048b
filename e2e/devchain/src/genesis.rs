//! The first state of a chain: what a genesis file says, or the default network.

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

use crate::keys::{self, DEV_NAMES};
use crate::node::{BlockTime, StateMap};
use crate::pallets::subtensor::{self, AxonInfo, NetUid, NewSubnet, Pallet};
use crate::runtime::{
    AccountId, AuraConfig, BalancesConfig, ManyBlocksPerSlot, MinimumPeriod, Runtime, RuntimeGenesisConfig,
    SlotDuration, SudoConfig,
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
    /// It is not JSON of the right shape.
    #[error("genesis file `{path}`, line {line}, column {column}, field `{field}`: {why}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// Line of the error, from 1.
        line: usize,
        /// Column of the error, from 1.
        column: usize,
        /// Path of the field.
        field: String,
        /// What is wrong.
        why: String,
    },
    /// Its parts contradict one another.
    #[error("genesis file `{path}`:\n  {}", .problems.join("\n  "))]
    Content {
        /// The file.
        path: PathBuf,
        /// Every problem, each with the path of its field.
        problems: Vec<String>,
    },
    /// The runtime refuses the state.
    #[error("cannot build the first state: {0}")]
    Build(String),
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

/// Hyperparameters that tests set most; the others can be set by `AdminUtils`.
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
    /// Majority of the consensus in 65535ths.
    pub kappa: Option<u16>,
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
        let mut json = serde_json::Deserializer::from_str(text);
        let shape = |field: String, error: &serde_json::Error| GenesisError::Shape {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
            field,
            why: strip_position(&error.to_string()),
        };
        let genesis: Self = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| shape(error.path().to_string(), error.inner()))?;
        json.end().map_err(|error| shape(".".into(), &error))?;
        let problems = genesis.problems();
        if problems.is_empty() {
            return Ok(genesis);
        }
        Err(GenesisError::Content { path: path.to_owned(), problems })
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
        Self { sudo: alice(), accounts: Vec::new(), stake_threshold: Tao::ZERO, subnets: vec![subnet] }
    }

    /// Everything that contradicts something else.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut netuids = BTreeSet::new();
        let mut owners: BTreeMap<&Account, &Account> = BTreeMap::new();
        for (s, subnet) in self.subnets.iter().enumerate() {
            let netuid = subnet.netuid;
            if netuid == 0 || netuid >= subtensor::GLOBAL_MAX_SUBNET_COUNT {
                problems.push(format!("subnets[{s}].netuid: {netuid} is not from 1 to 4095; 0 is the root network"));
            }
            if !netuids.insert(netuid) {
                problems.push(format!("subnets[{s}].netuid: {netuid} is there twice"));
            }
            let room = subnet.hyperparameters.max_uids.unwrap_or(256);
            if subnet.neurons.len() > usize::from(room) {
                let n = subnet.neurons.len();
                problems.push(format!("subnets[{s}].neurons: {n} neurons do not fit into max_uids {room}"));
            }
            let mut hotkeys = BTreeSet::new();
            for (n, neuron) in subnet.neurons.iter().enumerate() {
                let field = format!("subnets[{s}].neurons[{n}]");
                let hotkey = keys::address(&neuron.hotkey.0);
                if !hotkeys.insert(&neuron.hotkey) {
                    problems.push(format!("{field}.hotkey: {hotkey} is registered twice on subnet {netuid}"));
                }
                if *owners.entry(&neuron.hotkey).or_insert(&neuron.coldkey) != &neuron.coldkey {
                    problems.push(format!("{field}.coldkey: {hotkey} has another owner elsewhere in this file"));
                }
                let unknown = neuron.weights.iter().find(|(uid, _)| usize::from(*uid) >= subnet.neurons.len());
                if let Some((uid, _)) = unknown {
                    problems.push(format!("{field}.weights: there is no uid {uid}"));
                }
            }
        }
        problems
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

        write_root();
        subtensor::StakeThreshold::<Runtime>::put(self.stake_threshold.rao);
        for subnet in &self.subnets {
            subnet.write();
        }
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
            neuron.write(netuid, uid);
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
            weights_version => WeightsVersionKey,
            commit_reveal_period => RevealPeriodEpochs,
            immunity_period => ImmunityPeriod,
            activity_cutoff_factor_milli => ActivityCutoffFactorMilli,
            registration_allowed => NetworkRegistrationAllowed,
            kappa => Kappa,
        }
        s::WeightsSetRateLimit::<Runtime>::insert(netuid, self.weights_rate_limit.unwrap_or(0));
        s::ServingRateLimit::<Runtime>::insert(netuid, self.serving_rate_limit.unwrap_or(0));
        s::CommitRevealWeightsEnabled::<Runtime>::insert(netuid, self.commit_reveal.unwrap_or(false));
        s::Burn::<Runtime>::insert(netuid, self.burn.map_or(100_000_000, |burn| burn.rao));
    }
}

impl Neuron {
    fn write(&self, netuid: NetUid, uid: u16) {
        let (hotkey, coldkey) = (&self.hotkey.0, &self.coldkey.0);
        Pallet::<Runtime>::create_hotkey_if_new(coldkey, hotkey);
        // The file's neurons were checked to fit, so each takes the next uid.
        let registered = Pallet::<Runtime>::register_neuron(netuid, hotkey);
        debug_assert_eq!(registered, Ok(uid));
        for (pool, stake) in [(netuid, self.stake), (NetUid::ROOT, self.root_stake)] {
            if stake > Tao::ZERO {
                Pallet::<Runtime>::increase_stake(hotkey, coldkey, pool, stake.rao);
                subtensor::SubnetAlphaOut::<Runtime>::mutate(pool, |out| *out += stake.rao);
                subtensor::SubnetTAO::<Runtime>::mutate(pool, |tao| *tao += stake.rao);
                subtensor::TotalStake::<Runtime>::mutate(|total| *total += stake.rao);
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

/// The error's text without the position, which is said already.
fn strip_position(text: &str) -> String {
    text.rsplit_once(" at line ").map_or(text, |(message, _)| message).to_owned()
}
