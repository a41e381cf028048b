//! What the owner of a subnet may do, how often and when; Alice owns the subnet.

use super::*;
use crate::pallets::admin_utils;

type AdminUtils = admin_utils::Pallet<Runtime>;
type AdminError = admin_utils::Error<Runtime>;

fn admin_refused(result: Result<(), DispatchError>, error: AdminError) {
    assert_eq!(result.unwrap_err(), error.into());
}

#[test]
fn an_owner_waits_between_changes_and_before_epochs_and_root_does_not() {
    with_subnet(|| {
        AdminFreezeWindow::<Runtime>::put(3);
        let set = |origin, limit| AdminUtils::sudo_set_serving_rate_limit(origin, NET, limit);
        assert_eq!(set(by("Bob"), 1), Err(DispatchError::BadOrigin));
        assert_ok!(set(by("Alice"), 11));
        assert_eq!(ServingRateLimit::<Runtime>::get(NET), 11);
        refused(set(by("Alice"), 12), Error::TxRateLimitExceeded);
        // Every hyperparameter has a clock of its own.
        assert_ok!(AdminUtils::sudo_set_bonds_penalty(by("Alice"), NET, 7));
        assert_ok!(set(RuntimeOrigin::root(), 13));
        go_to(20);
        refused(set(by("Alice"), 12), Error::TxRateLimitExceeded);
        // Two epochs of ten blocks are over.
        go_to(21);
        assert_ok!(set(by("Alice"), 12));
        go_to(47);
        assert!(!Subtensor::in_freeze_window(NET));
        go_to(48);
        refused(set(by("Alice"), 14), Error::AdminActionProhibitedDuringWeightsWindow);
        assert_ok!(set(RuntimeOrigin::root(), 14));
        // The epoch opens the window again.
        go_to(50);
        assert_ok!(set(by("Alice"), 15));
    });
}

#[test]
fn what_fails_does_not_start_the_clock() {
    with_subnet(|| {
        AdminFreezeWindow::<Runtime>::put(0);
        MinAllowedUids::<Runtime>::insert(NET, 2);
        let set = |uids| AdminUtils::sudo_set_max_allowed_uids(by("Alice"), NET, uids);
        admin_refused(set(1), AdminError::MaxAllowedUidsLessThanMinAllowedUids);
        admin_refused(set(2), AdminError::MaxAllowedUIdsLessThanCurrentUIds);
        admin_refused(set(257), AdminError::MaxAllowedUidsGreaterThanDefaultMaxAllowedUids);
        assert_ok!(set(256));
        refused(set(255), Error::TxRateLimitExceeded);
    });
}

#[test]
fn root_alone_sets_what_concerns_everyone() {
    with_subnet(|| {
        for result in [
            AdminUtils::sudo_set_stake_threshold(by("Alice"), 1),
            AdminUtils::sudo_set_network_registration_allowed(by("Alice"), NET, false),
            AdminUtils::sudo_set_subnet_limit(by("Alice"), 1),
            AdminUtils::sudo_set_max_allowed_validators(by("Alice"), NET, 1),
        ] {
            assert_eq!(result, Err(DispatchError::BadOrigin));
        }
        let nowhere = AdminUtils::sudo_set_max_allowed_validators(RuntimeOrigin::root(), NetUid(9), 1);
        admin_refused(nowhere, AdminError::SubnetDoesNotExist);
        let many = AdminUtils::sudo_set_max_allowed_validators(RuntimeOrigin::root(), NET, 5);
        admin_refused(many, AdminError::MaxValidatorsLargerThanMaxUIds);
        assert_ok!(AdminUtils::sudo_set_stake_threshold(RuntimeOrigin::root(), 5));
        assert_eq!(StakeThreshold::<Runtime>::get(), 5);
        System::assert_last_event(Event::StakeThresholdSet(5).into());
    });
}

#[test]
fn mechanisms_come_and_go_with_their_tables() {
    with_subnet(|| {
        AdminFreezeWindow::<Runtime>::put(0);
        let count = |count| AdminUtils::sudo_set_mechanism_count(by("Alice"), NET, count);
        refused(count(0), Error::InvalidValue);
        refused(count(3), Error::InvalidValue);
        assert_ok!(count(2));
        assert_eq!(Incentive::<Runtime>::get(NET.index(1)), [0, 0, 0]);
        let split = |split| AdminUtils::sudo_set_mechanism_emission_split(RuntimeOrigin::root(), NET, split);
        refused(split(Some(vec![65_535])), Error::InvalidValue);
        refused(split(Some(vec![1, 1])), Error::InvalidValue);
        assert_ok!(split(Some(vec![65_000, 535])));
        go_to(2);
        assert_ok!(Subtensor::set_mechanism_weights(by("Val"), NET, 1, vec![2], vec![1], 0));
        assert_eq!(Weights::<Runtime>::get(NET.index(1), 0), [(2, 65_535)]);
        refused(count(1), Error::TxRateLimitExceeded);
        assert_ok!(AdminUtils::sudo_set_mechanism_count(RuntimeOrigin::root(), NET, 1));
        assert!(Weights::<Runtime>::get(NET.index(1), 0).is_empty());
        assert_eq!(MechanismEmissionSplit::<Runtime>::get(NET), None);
    });
}

#[test]
fn a_trim_keeps_those_who_earn_and_renumbers_what_points_at_them() {
    with_subnet(|| {
        AdminFreezeWindow::<Runtime>::put(0);
        MinAllowedUids::<Runtime>::insert(NET, 1);
        let trim = |n| AdminUtils::sudo_trim_to_max_allowed_uids(by("Alice"), NET, n);
        refused(trim(5), Error::InvalidValue);
        refused(trim(2), Error::TrimmingWouldExceedMaxImmunePercentage);
        go_to(10);
        assert_ok!(set("Val", &[1, 2], &[1, 1], 0));
        assert_ok!(Subtensor::serve_axon(by("Two"), NET, 1, 16_909_060, 80, 4, 4, 0, 0));
        Emission::<Runtime>::insert(NET, vec![9, 0, 5]);
        assert_ok!(trim(2));
        assert_eq!((SubnetworkN::<Runtime>::get(NET), MaxAllowedUids::<Runtime>::get(NET)), (2, 2));
        assert_eq!((Keys::<Runtime>::get(NET, 1), Uids::<Runtime>::get(NET, id("Min"))), (id("Min"), Some(1)));
        assert_eq!(Uids::<Runtime>::get(NET, id("Two")), None);
        assert!(!IsNetworkMember::<Runtime>::get(id("Two"), NET) && !Axons::<Runtime>::contains_key(NET, id("Two")));
        assert_eq!(Weights::<Runtime>::get(NET.index(0), 0), [(1, 65_535)]);
        assert_eq!(Emission::<Runtime>::get(NET), [9, 5]);
        // What is gone keeps its stake.
        assert_eq!(Subtensor::stake_of(&id("Two"), &id("Charlie"), NET), 50 * TAO);
        go_to(20);
        assert_eq!(Subtensor::get_mechagraph(NET, 0).unwrap().hotkeys, [id("Val"), id("Min")]);
    });
}

#[test]
fn names_and_symbols_are_the_owners() {
    with_subnet(|| {
        let name = |who: &str, length| {
            let text = vec![b'x'; length];
            let none = Vec::new;
            Subtensor::set_subnet_identity(by(who), NET, text, none(), none(), none(), none(), none(), none(), none())
        };
        refused(name("Bob", 1), Error::NotSubnetOwner);
        refused(name("Alice", 257), Error::InvalidIdentity);
        assert_ok!(name("Alice", 256));
        assert_ok!(Subtensor::update_symbol(by("Alice"), NET, "τ1".into()));
        System::assert_last_event(Event::SymbolUpdated { netuid: NET, symbol: "τ1".into() }.into());
        assert_ok!(Subtensor::register_network(by("Eve"), id("EveHot")));
        refused(Subtensor::update_symbol(by("Eve"), NetUid(2), "τ1".into()), Error::SymbolAlreadyInUse);

        let identity = |who: &str| {
            let none = Vec::new;
            Subtensor::set_identity(by(who), b"me".to_vec(), none(), none(), none(), none(), none(), none())
        };
        refused(identity("Ferdie"), Error::HotKeyNotRegisteredInNetwork);
        assert_ok!(identity("Bob"));
        assert_eq!(IdentitiesV2::<Runtime>::get(id("Bob")).unwrap().name, b"me");
    });
}

#[test]
fn a_subnet_that_ends_pays_its_stakes_out_and_leaves_nothing() {
    with_subnet(|| {
        go_to(2);
        assert_ok!(set("Val", &[2], &[1], 0));
        assert_ok!(Subtensor::serve_axon(by("Val"), NET, 1, 16_909_060, 80, 4, 4, 0, 0));
        let before = Subtensor::spendable(&id("Bob"));
        let pool = SubnetTAO::<Runtime>::get(NET);
        assert_eq!(Subtensor::root_dissolve_network(by("Alice"), NET), Err(DispatchError::BadOrigin));
        assert_ok!(Subtensor::root_dissolve_network(RuntimeOrigin::root(), NET));
        System::assert_last_event(Event::NetworkRemoved(NET).into());
        // Two thirds of all stake are Bob's, so two thirds of the pool are his.
        assert_eq!(Subtensor::spendable(&id("Bob")) - before, pool * 2 / 3);
        assert!(!Subtensor::exists(NET));
        assert_eq!(Subtensor::stake_of(&id("Val"), &id("Bob"), NET), 0);
        assert!(Uids::<Runtime>::iter_prefix(NET).next().is_none());
        assert!(Axons::<Runtime>::iter_prefix(NET).next().is_none());
        assert!(Weights::<Runtime>::iter_prefix(NET.index(0)).next().is_none());
        assert_eq!(Subtensor::get_mechagraph(NET, 0), None);
        go_to(20);
        // The number is given again.
        assert_ok!(Subtensor::register_network(by("Eve"), id("EveHot")));
        assert_eq!(SubnetOwner::<Runtime>::get(NET), id("Eve"));
        assert_eq!(SubnetworkN::<Runtime>::get(NET), 1);
    });
}

#[test]
fn a_full_network_gives_up_the_cheapest_subnet_that_is_old_enough() {
    with_subnet(|| {
        SubnetLimit::<Runtime>::put(2);
        NetworkImmunityPeriod::<Runtime>::put(5);
        assert_ok!(Subtensor::register_network(by("Eve"), id("EveHot")));
        SubnetMechanism::<Runtime>::insert(NET, 1);
        SubnetTAO::<Runtime>::insert(NET, 3000 * TAO);
        SubnetAlphaIn::<Runtime>::insert(NET, 1000 * TAO);
        NetworkRegisteredAt::<Runtime>::insert(NET, 1);
        let register = || Subtensor::register_network(by("Ferdie"), id("FerdieHot"));
        refused(register(), Error::SubnetLimitReached);
        go_to(6);
        assert_eq!(Subtensor::subnet_to_prune(), Some(NetUid(2)));
        assert_ok!(register());
        assert_eq!(SubnetOwner::<Runtime>::get(NetUid(2)), id("Ferdie"));
        assert_eq!(SubnetOwner::<Runtime>::get(NET), id("Alice"));
    });
}
