//! The fields of a genesis file. The structs of the parent module say the same to serde; a test holds them together.

use std::net::IpAddr;
use std::num::NonZeroU16;

use sidecar_util::Tao;

use super::source::{Field, Rule, is};
use super::{Account, Pricing};

const fn required(name: &'static str, rule: Rule) -> Field {
    Field { name, required: true, rule }
}

const fn optional(name: &'static str, rule: Rule) -> Field {
    Field { name, required: false, rule }
}

const ACCOUNT: Rule = Rule::Value(is::<Account>);
const TAO: Rule = Rule::Value(is::<Tao>);
const BOOL: Rule = Rule::Value(is::<bool>);
const U8: Rule = Rule::Value(is::<u8>);
const U16: Rule = Rule::Value(is::<u16>);
const U32: Rule = Rule::Value(is::<u32>);
const U64: Rule = Rule::Value(is::<u64>);

pub(super) const GENESIS: Rule = Rule::Object(&[
    optional("sudo", ACCOUNT),
    optional("accounts", Rule::List(&FUNDED)),
    optional("stake_threshold", TAO),
    optional("subnets", Rule::List(&SUBNET)),
]);

pub(super) const FUNDED: Rule = Rule::Object(&[required("account", ACCOUNT), required("balance", TAO)]);

pub(super) const SUBNET: Rule = Rule::Object(&[
    required("netuid", U16),
    optional("owner", ACCOUNT),
    optional("owner_hotkey", ACCOUNT),
    optional("pricing", Rule::Value(is::<Pricing>)),
    optional("pool", POOL),
    optional("emission", BOOL),
    optional("hyperparameters", HYPERPARAMETERS),
    optional("neurons", Rule::List(&NEURON)),
]);

pub(super) const POOL: Rule = Rule::Object(&[required("tao", TAO), required("alpha", TAO)]);

pub(super) const HYPERPARAMETERS: Rule = Rule::Object(&[
    optional("tempo", U16),
    optional("max_uids", U16),
    optional("max_validators", U16),
    optional("min_allowed_weights", U16),
    optional("max_weights_limit", U16),
    optional("weights_version", U64),
    optional("weights_rate_limit", U64),
    optional("commit_reveal", BOOL),
    optional("commit_reveal_period", U64),
    optional("serving_rate_limit", U64),
    optional("immunity_period", U16),
    optional("activity_cutoff_factor_milli", U32),
    optional("registration_allowed", BOOL),
    optional("burn", TAO),
    optional("min_burn", TAO),
    optional("max_burn", TAO),
    optional("burn_half_life", U16),
    optional("kappa", U16),
    optional("rho", U16),
    optional("bonds_moving_avg", U64),
    optional("bonds_penalty", U16),
    optional("bonds_reset_enabled", BOOL),
    optional("yuma3_enabled", BOOL),
    optional("liquid_alpha_enabled", BOOL),
    optional("alpha_low", U16),
    optional("alpha_high", U16),
    optional("alpha_sigmoid_steepness", Rule::Value(is::<i16>)),
    optional("transfers_enabled", BOOL),
    optional("owner_cut_enabled", BOOL),
    optional("min_non_immune_uids", U16),
    optional("owner_immune_neuron_limit", U16),
    optional("mechanism_count", U8),
    optional("mechanism_emission_split", Rule::Value(is::<Vec<u16>>)),
]);

pub(super) const NEURON: Rule = Rule::Object(&[
    required("hotkey", ACCOUNT),
    required("coldkey", ACCOUNT),
    optional("stake", TAO),
    optional("root_stake", TAO),
    optional("axon", AXON),
    optional("weights", Rule::Value(is::<Vec<(u16, u16)>>)),
]);

pub(super) const AXON: Rule = Rule::Object(&[
    required("ip", Rule::Value(is::<IpAddr>)),
    required("port", Rule::Value(is::<NonZeroU16>)),
    optional("protocol", U8),
    optional("version", U32),
]);
