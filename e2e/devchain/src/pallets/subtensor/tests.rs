//! The pallet on a state of its own: errors in the order of the public chain, epochs, stake, replacement.

mod children;
mod moving;
mod owner;
mod swaps;

use frame_support::assert_ok;
use sp_core::storage::Storage;
use sp_io::TestExternalities;
use sp_runtime::DispatchError;

use super::commit_reveal::Reveal;
use super::*;
use crate::genesis::Genesis;
use crate::keys;
use crate::node::BlockTime;
use crate::runtime::{AccountId, Runtime, RuntimeOrigin, System};

type Subtensor = Pallet<Runtime>;

pub(super) const NET: NetUid = NetUid(1);
const TAO: u64 = 1_000_000_000;

pub(super) fn id(name: &str) -> AccountId {
    keys::account(&format!("//{name}")).unwrap()
}

fn by(name: &str) -> RuntimeOrigin {
    RuntimeOrigin::signed(id(name))
}

/// A subnet without emission: Val and Two are validators, Min a miner; coldkeys are the development accounts.
pub(super) fn with_subnet(run: impl FnOnce()) {
    let genesis = serde_json::json!({
        "subnets": [{
            "netuid": 1,
            "owner": "//Alice",
            "emission": false,
            "hyperparameters": { "tempo": 10, "max_uids": 4, "immunity_period": 5 },
            "neurons": [
                { "hotkey": "//Val", "coldkey": "//Bob", "stake": "100" },
                { "hotkey": "//Two", "coldkey": "//Charlie", "stake": "50" },
                { "hotkey": "//Min", "coldkey": "//Dave" },
            ],
        }],
    });
    let genesis: Genesis = serde_json::from_value(genesis).unwrap();
    let state = genesis.build(BlockTime::Instant).unwrap();
    let top = state.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    let mut externalities = TestExternalities::new(Storage { top, ..Storage::default() });
    externalities.execute_with(|| {
        go_to(1);
        run();
    });
}

/// Runs the start of every block up to a number.
fn go_to(number: u32) {
    while System::block_number() < number {
        System::set_block_number(System::block_number() + 1);
        Subtensor::block_step();
    }
}

fn refused<V: std::fmt::Debug, E: Into<DispatchError>>(result: Result<V, E>, error: Error<Runtime>) {
    assert_eq!(result.map_err(Into::into).unwrap_err(), error.into());
}

fn set(name: &str, uids: &[u16], values: &[u16], version_key: u64) -> Result<(), DispatchError> {
    Subtensor::set_weights(by(name), NET, uids.to_vec(), values.to_vec(), version_key)
}

#[test]
fn weights_are_checked_in_the_order_of_the_public_chain() {
    with_subnet(|| {
        let root = Subtensor::set_weights(by("Nobody"), NetUid::ROOT, vec![0], vec![], 0);
        refused(root, Error::CanNotSetRootNetworkWeights);
        // Everything is wrong at first; each step puts one thing right and meets the next check.
        StakeThreshold::<Runtime>::put(60 * TAO);
        WeightsVersionKey::<Runtime>::insert(NET, 7);
        WeightsSetRateLimit::<Runtime>::insert(NET, 100);
        MinAllowedWeights::<Runtime>::insert(NET, 2);
        MaxWeightsLimit::<Runtime>::insert(NET, 40_000);
        LastUpdate::<Runtime>::insert(NET.index(0), vec![1, 1, 1]);
        ValidatorPermit::<Runtime>::insert(NET, vec![false; 3]);
        refused(set("Nobody", &[0, 0, 9, 9], &[1], 0), Error::WeightVecNotEqualSize);
        let mechanism = Subtensor::set_mechanism_weights(by("Nobody"), NET, 1, vec![0; 4], vec![1; 4], 0);
        refused(mechanism, Error::MechanismDoesNotExist);
        refused(set("Nobody", &[0, 0, 9, 9], &[1; 4], 0), Error::UidsLengthExceedUidsInSubNet);
        refused(set("Nobody", &[0, 0, 9], &[1; 3], 0), Error::HotKeyNotRegisteredInSubNet);
        refused(set("Two", &[0, 0, 9], &[1; 3], 0), Error::NotEnoughStakeToSetWeights);
        refused(set("Val", &[0, 0, 9], &[1; 3], 0), Error::IncorrectWeightVersionKey);
        refused(set("Val", &[0, 0, 9], &[1; 3], 7), Error::SettingWeightsTooFast);
        go_to(101);
        ValidatorPermit::<Runtime>::insert(NET, vec![false; 3]);
        refused(set("Val", &[0, 0, 9], &[1; 3], 7), Error::NeuronNoValidatorPermit);
        ValidatorPermit::<Runtime>::insert(NET, vec![true, false, false]);
        refused(set("Val", &[0, 0, 9], &[1; 3], 7), Error::DuplicateUids);
        refused(set("Val", &[0, 1, 9], &[1; 3], 7), Error::UidVecContainInvalidOne);
        refused(set("Val", &[1], &[1], 7), Error::WeightVecLengthIsLow);
        refused(set("Val", &[1, 2], &[1, 9], 7), Error::MaxWeightExceeded);
        assert_ok!(set("Val", &[1, 2], &[4, 5], 7));
        assert_eq!(Weights::<Runtime>::get(NET.index(0), 0), [(1, 52_428), (2, 65_535)]);
        assert_eq!(LastUpdate::<Runtime>::get(NET.index(0)), [101, 1, 1]);
        System::assert_last_event(Event::<Runtime>::WeightsSet(NET.index(0), 0).into());
    });
}

#[test]
fn a_single_weight_on_oneself_needs_no_permit() {
    with_subnet(|| {
        ValidatorPermit::<Runtime>::insert(NET, vec![false; 3]);
        MinAllowedWeights::<Runtime>::insert(NET, 3);
        assert_ok!(set("Min", &[2], &[1], 0));
        refused(set("Min", &[1], &[1], 0), Error::NeuronNoValidatorPermit);
    });
}

#[test]
fn an_epoch_gives_permits_to_the_heaviest() {
    with_subnet(|| {
        MaxAllowedValidators::<Runtime>::insert(NET, 1);
        go_to(9);
        assert_eq!(ValidatorPermit::<Runtime>::get(NET), [true, true, false]);
        assert_eq!(BlocksSinceLastStep::<Runtime>::get(NET), 9);
        go_to(10);
        assert_eq!(ValidatorPermit::<Runtime>::get(NET), [true, false, false]);
        assert_eq!(Subtensor::next_epoch_block(NET), Some(20));
        assert_eq!((SubnetEpochIndex::<Runtime>::get(NET), BlocksSinceLastStep::<Runtime>::get(NET)), (1, 0));

        // Stake that is taken away costs the permit at the next epoch.
        assert_ok!(Subtensor::remove_stake(by("Bob"), id("Val"), NET, 100 * TAO));
        go_to(20);
        assert_eq!(ValidatorPermit::<Runtime>::get(NET), [false, true, false]);
    });
}

#[test]
fn stake_below_the_threshold_does_not_count() {
    with_subnet(|| {
        StakeThreshold::<Runtime>::put(60 * TAO);
        go_to(10);
        assert_eq!(ValidatorPermit::<Runtime>::get(NET), [true, false, false]);
        assert_eq!(StakeWeight::<Runtime>::get(NET), [65_535, 0, 0]);
    });
}

#[test]
fn root_stake_counts_by_its_weight() {
    with_subnet(|| {
        assert_ok!(Subtensor::add_stake(by("Bob"), id("Two"), NetUid::ROOT, 1000 * TAO));
        let (alpha, tao, total) = Subtensor::stake_weights(&id("Two"), NET);
        assert_eq!((alpha, tao), (50 * TAO, 1000 * TAO));
        // 971718665099567868 / 2^64 of a thousand TAO, and the alpha.
        assert_eq!(total, 50 * TAO + 52_676_974_387);
    });
}

#[test]
fn emission_goes_to_miners_by_weight_and_to_validators_by_stake() {
    with_subnet(|| {
        SubnetEmissionEnabled::<Runtime>::insert(NET, true);
        OwnerCutEnabled::<Runtime>::insert(NET, false);
        System::set_block_number(2);
        assert_ok!(set("Val", &[2], &[1], 0));
        assert_ok!(set("Two", &[2], &[1], 0));
        System::set_block_number(1);
        let before = TotalAlphaStaked::<Runtime>::get(NET);
        go_to(10);
        let emission = Emission::<Runtime>::get(NET);
        // Nine blocks of one alpha since block 1: half to the miner, half to the validators two to one.
        assert_eq!(emission[2], 4_500_000_000);
        assert!(emission[0].abs_diff(3_000_000_000) < 5 && emission[1].abs_diff(1_500_000_000) < 5, "{emission:?}");
        assert_eq!(Subtensor::stake_of(&id("Min"), &id("Dave"), NET), 4_500_000_000);
        let staked = TotalAlphaStaked::<Runtime>::get(NET) - before;
        assert!(staked.abs_diff(9_000_000_000) < 5, "{staked}");
        assert_eq!(Incentive::<Runtime>::get(NET.index(0)), [0, 0, 65_535]);
        assert_eq!(ValidatorTrust::<Runtime>::get(NET), [65_535, 65_535, 0]);
    });
}

#[test]
fn nominators_share_dividends_in_proportion() {
    with_subnet(|| {
        assert_ok!(Subtensor::add_stake(by("Eve"), id("Val"), NET, 300 * TAO));
        Subtensor::increase_hotkey_alpha(&id("Val"), NET, 40 * TAO);
        assert_eq!(Subtensor::stake_of(&id("Val"), &id("Bob"), NET), 110 * TAO);
        assert_eq!(Subtensor::stake_of(&id("Val"), &id("Eve"), NET), 330 * TAO);
        // Stake added later has no part in what was earned before.
        assert_ok!(Subtensor::add_stake(by("Ferdie"), id("Val"), NET, 44 * TAO));
        assert!(Subtensor::stake_of(&id("Val"), &id("Ferdie"), NET).abs_diff(44 * TAO) <= 1);
        assert!(Subtensor::stake_of(&id("Val"), &id("Bob"), NET).abs_diff(110 * TAO) <= 1);
    });
}

#[test]
fn stake_is_checked_in_the_order_of_the_public_chain() {
    with_subnet(|| {
        let add = |netuid, hotkey: &str, amount| Subtensor::add_stake(by("Bob"), id(hotkey), netuid, amount);
        refused(add(NetUid(9), "Nobody", 0), Error::SubnetNotExists);
        SubtokenEnabled::<Runtime>::insert(NET, false);
        refused(add(NET, "Nobody", 0), Error::SubtokenDisabled);
        SubtokenEnabled::<Runtime>::insert(NET, true);
        refused(add(NET, "Nobody", MIN_STAKE - 1), Error::AmountTooLow);
        refused(add(NET, "Nobody", 2_000_000 * TAO), Error::NotEnoughBalanceToStake);
        refused(add(NET, "Nobody", MIN_STAKE), Error::HotKeyAccountNotExists);
        assert_ok!(add(NET, "Val", MIN_STAKE));
        let remove = |hotkey: &str, amount| Subtensor::remove_stake(by("Bob"), id(hotkey), NET, amount);
        refused(remove("Nobody", 1), Error::HotKeyAccountNotExists);
        refused(remove("Two", 1), Error::NotEnoughStakeToWithdraw);
        refused(remove("Val", 101 * TAO), Error::NotEnoughStakeToWithdraw);
        refused(remove("Val", 5), Error::AmountTooLow);
    });
}

#[test]
fn a_pool_moves_its_price_and_limits_hold() {
    with_subnet(|| {
        SubnetMechanism::<Runtime>::insert(NET, 1);
        SubnetTAO::<Runtime>::insert(NET, 1000 * TAO);
        SubnetAlphaIn::<Runtime>::insert(NET, 1000 * TAO);
        assert_eq!(Subtensor::alpha_price(NET), TAO);
        let limited = |price, allow_partial| {
            Subtensor::add_stake_limit(by("Bob"), id("Val"), NET, 500 * TAO, price, allow_partial)
        };
        refused(limited(TAO - 1, true), Error::SlippageTooHigh);
        refused(limited(TAO * 11 / 10, false), Error::SlippageTooHigh);
        assert_ok!(limited(TAO * 11 / 10, true));
        let price = Subtensor::alpha_price(NET);
        assert!(price <= TAO * 11 / 10 && price > TAO * 109 / 100, "{price}");
        // What went in comes out again, less two fees of 0.05 %.
        let before = Subtensor::spendable(&id("Bob"));
        let staked = Subtensor::stake_of(&id("Val"), &id("Bob"), NET) - 100 * TAO;
        assert_ok!(Subtensor::remove_stake(by("Bob"), id("Val"), NET, staked));
        let back = Subtensor::spendable(&id("Bob")) - before;
        assert!(back < 48_809 * TAO / 1000 && back > 48_700 * TAO / 1000, "{back}");
    });
}

#[test]
fn registration_is_checked_priced_and_replaces_the_least_useful() {
    with_subnet(|| {
        let register =
            |coldkey: &str, netuid, hotkey: &str| Subtensor::burned_register(by(coldkey), netuid, id(hotkey));
        refused(register("Bob", NetUid::ROOT, "N1"), Error::RegistrationNotPermittedOnRootSubnet);
        refused(register("Bob", NetUid(9), "N1"), Error::SubnetNotExists);
        NetworkRegistrationAllowed::<Runtime>::insert(NET, false);
        refused(register("Bob", NET, "Val"), Error::SubNetRegistrationDisabled);
        NetworkRegistrationAllowed::<Runtime>::insert(NET, true);
        refused(register("Poor", NET, "Val"), Error::HotKeyAlreadyRegisteredInSubNet);
        refused(register("Poor", NET, "N1"), Error::NotEnoughBalanceToStake);

        let price = Burn::<Runtime>::get(NET);
        let before = Subtensor::spendable(&id("Eve"));
        assert_ok!(register("Eve", NET, "N1"));
        assert_eq!(before - Subtensor::spendable(&id("Eve")), price);
        assert_eq!((Uids::<Runtime>::get(NET, id("N1")), SubnetworkN::<Runtime>::get(NET)), (Some(3), 4));
        assert!(Burn::<Runtime>::get(NET).abs_diff(price * 126 / 100) <= 1);
        assert_ok!(Subtensor::serve_axon(by("N1"), NET, 1, 16_909_060, 80, 4, 4, 0, 0));

        // The subnet is full. Val and Two earned, Min and N1 nothing; Min was there first but everyone's immunity is
        // over by now, so the older of the two goes.
        go_to(10);
        Emission::<Runtime>::insert(NET, vec![9, 9, 0, 0]);
        MinNonImmuneUids::<Runtime>::insert(NET, 0);
        assert_ok!(register("Eve", NET, "N2"));
        assert_eq!(Uids::<Runtime>::get(NET, id("Min")), None);
        assert_eq!(Keys::<Runtime>::get(NET, 2), id("N2"));
        assert!(!IsNetworkMember::<Runtime>::get(id("Min"), NET));
        assert_eq!(LastUpdate::<Runtime>::get(NET.index(0))[2], 10);
        assert_ok!(register("Eve", NET, "N3"));
        assert_eq!((Keys::<Runtime>::get(NET, 3), Axons::<Runtime>::get(NET, id("N1"))), (id("N3"), None));

        let limit = Burn::<Runtime>::get(NET) - 1;
        let limited = Subtensor::register_limit(by("Eve"), NET, id("N4"), limit);
        refused(limited, Error::RegistrationPriceLimitExceeded);
    });
}

#[test]
fn the_price_of_a_registration_halves_in_its_half_life() {
    with_subnet(|| {
        Burn::<Runtime>::insert(NET, 8 * TAO);
        BurnHalfLife::<Runtime>::insert(NET, 10);
        go_to(21);
        let price = Burn::<Runtime>::get(NET);
        assert!(price.abs_diff(2 * TAO) < 100, "{price}");
        MinBurn::<Runtime>::insert(NET, TAO);
        go_to(60);
        assert_eq!(Burn::<Runtime>::get(NET), TAO);
    });
}

#[test]
fn axons_are_checked_in_the_order_of_the_public_chain() {
    with_subnet(|| {
        ServingRateLimit::<Runtime>::insert(NET, 20);
        let serve = |name: &str, ip, port, ip_type| Subtensor::serve_axon(by(name), NET, 1, ip, port, ip_type, 4, 0, 0);
        refused(serve("Nobody", 1, 0, 5), Error::HotKeyNotRegisteredInNetwork);
        refused(serve("Min", 1, 0, 5), Error::InvalidIpType);
        for (ip, ip_type) in [(2_130_706_433, 4), (u128::from(u32::MAX), 4), (1, 6), (u128::MAX, 6)] {
            refused(serve("Min", ip, 0, ip_type), Error::InvalidIpAddress);
        }
        refused(serve("Min", 16_909_060, 0, 4), Error::InvalidPort);
        assert_ok!(serve("Min", 16_909_060, 80, 4));
        refused(serve("Min", 16_909_060, 0, 4), Error::ServingRateLimitExceeded);
        go_to(21);
        assert_ok!(serve("Min", 0, 80, 4));
        let metrics = Subtensor::serve_prometheus(by("Min"), NET, 1, 0, 80, 4);
        refused(metrics, Error::InvalidIpAddress);
    });
}

#[test]
fn hashed_weights_are_revealed_in_their_epoch_only() {
    with_subnet(|| {
        let reveal = Reveal { uids: vec![2], values: vec![7], salt: vec![1, 2], version_key: 0 };
        let hash = Subtensor::commit_hash(&id("Val"), NET.index(0), &reveal);
        let tell = || Subtensor::reveal_weights(by("Val"), NET, vec![2], vec![7], vec![1, 2], 0);
        refused(Subtensor::commit_weights(by("Val"), NET, hash), Error::CommitRevealDisabled);
        CommitRevealWeightsEnabled::<Runtime>::insert(NET, true);
        refused(tell(), Error::NoWeightsCommitFound);
        assert_ok!(Subtensor::commit_weights(by("Val"), NET, hash));
        refused(tell(), Error::RevealTooEarly);
        go_to(11);
        let other = Subtensor::reveal_weights(by("Val"), NET, vec![2], vec![8], vec![1, 2], 0);
        refused(other, Error::InvalidRevealCommitHashNotMatch);
        assert_ok!(tell());
        assert_eq!(Weights::<Runtime>::get(NET.index(0), 0), [(2, 65_535)]);
        refused(tell(), Error::NoWeightsCommitFound);
        assert_ok!(Subtensor::commit_weights(by("Val"), NET, hash));
        go_to(31);
        refused(tell(), Error::ExpiredWeightCommit);
    });
}

#[test]
fn timelocked_commits_are_kept_for_their_epochs() {
    with_subnet(|| {
        CommitRevealWeightsEnabled::<Runtime>::insert(NET, true);
        let commit = |version| {
            let bytes = vec![1, 2, 3].try_into().unwrap();
            Subtensor::commit_timelocked_mechanism_weights(by("Val"), NET, 0, bytes, 77, version)
        };
        refused(commit(3), Error::IncorrectCommitRevealVersion);
        assert_ok!(commit(4));
        assert_eq!(TimelockedWeightCommits::<Runtime>::get(NET.index(0), 0).len(), 1);
        go_to(31);
        assert_eq!(TimelockedWeightCommits::<Runtime>::get(NET.index(0), 0).len(), 0);
    });
}

#[test]
fn a_network_is_registered_started_and_owned() {
    with_subnet(|| {
        assert_ok!(Subtensor::register_network(by("Eve"), id("EveHot")));
        let net = NetUid(2);
        assert_eq!((SubnetOwner::<Runtime>::get(net), Uids::<Runtime>::get(net, id("EveHot"))), (id("Eve"), Some(0)));
        refused(Subtensor::add_stake(by("Eve"), id("EveHot"), net, TAO), Error::SubtokenDisabled);
        refused(Subtensor::start_call(by("Bob"), net), Error::NotSubnetOwner);
        assert_ok!(Subtensor::start_call(by("Eve"), net));
        refused(Subtensor::start_call(by("Eve"), net), Error::FirstEmissionBlockNumberAlreadySet);
        assert_ok!(Subtensor::add_stake(by("Eve"), id("EveHot"), net, TAO));
        refused(Subtensor::set_tempo(by("Eve"), net, 10), Error::TempoOutOfBounds);
        // The next one costs twice as much.
        assert_eq!(Subtensor::network_lock_cost(), 2000 * TAO);
    });
}

#[test]
fn storage_keys_are_those_of_the_public_chain() {
    let hash = |key: Vec<u8>| hex::encode(&key[16..32]);
    let prefix = "658faa385070e074c85bf6b568cf0555";
    let uids = Uids::<Runtime>::hashed_key_for(NET, id("Val"));
    assert_eq!(hex::encode(&uids[..16]), prefix);
    // The netuid stands plain, then the hash of the account and the account.
    assert_eq!(uids.len(), 32 + 2 + 16 + 32);
    assert_eq!(uids[32..34], [1, 0]);
    assert_eq!(hash(uids), "aab1b4e78e1ea8305462ee53b3686dc8");
    assert_eq!(hash(Tempo::<Runtime>::hashed_key_for(NET)), "7641384bb339f3758acddfd7053d3317");
    assert_eq!(hash(Weights::<Runtime>::hashed_key_for(1, 0)), "a1e7036061f484bc3048a64b64e35ec4");
    assert_eq!(hash(LastUpdate::<Runtime>::hashed_key_for(1)), "696e262a16e52255a69d8acd79354146");
    assert_eq!(hash(NetworksAdded::<Runtime>::hashed_key_for(NET)), "0e30450fc4d507a846032a7fa65d9a43");
    assert_eq!(hash(MechanismCountCurrent::<Runtime>::hashed_key_for(NET)), "604fb97037feb8522bf37d42d54fa6e9");
    assert_eq!(hash(IsNetworkMember::<Runtime>::hashed_key_for(id("Val"), NET)), "ea6aa4e81a33d2c120ef55203e0eb560");
    assert_eq!(hash(Owner::<Runtime>::hashed_key_for(id("Val"))), "eca6b7a1fdc9f689184ecb4f359c0518");
}

#[test]
fn a_selective_metagraph_has_the_fields_asked_for() {
    with_subnet(|| {
        let whole = Subtensor::get_mechagraph(NET, 0).unwrap();
        let some = Subtensor::get_selective_mechagraph(NET, 0, &[7, 52, 57, 69, 72]).unwrap();
        assert_eq!((some.block, some.hotkeys), (Some(whole.block), Some(whole.hotkeys)));
        assert_eq!(some.validator_permit, Some(vec![true, true, false]));
        assert_eq!(some.validators, Some(vec![codec::Compact(0), codec::Compact(1)]));
        assert_eq!(some.total_stake, Some(whole.total_stake));
        assert_eq!((some.tempo, some.coldkeys, some.axons, some.name), (None, None, None, None));
        assert_eq!(Subtensor::get_selective_mechagraph(NET, 9, &[7]), None);
        assert_eq!(Subtensor::get_mechagraph(NetUid(9), 0), None);
    });
}
