//! Stake that moves without leaving, and stake that is given up.

use super::*;

/// A second subnet, started, whose alpha is worth a TAO whatever moves.
fn second_subnet() -> NetUid {
    assert_ok!(Subtensor::register_network(by("Eve"), id("EveHot")));
    let net = NetUid(2);
    assert_ok!(Subtensor::start_call(by("Eve"), net));
    SubnetMechanism::<Runtime>::insert(net, 0);
    net
}

fn staked(hotkey: &str, coldkey: &str, netuid: NetUid) -> u64 {
    Subtensor::stake_of(&id(hotkey), &id(coldkey), netuid)
}

#[test]
fn stake_changes_hotkey_coldkey_and_subnet() {
    with_subnet(|| {
        let net = second_subnet();
        let issued = TotalIssuance::<Runtime>::get();
        assert_ok!(Subtensor::move_stake(by("Bob"), id("Val"), id("Two"), NET, NET, 10 * TAO));
        let moved = Event::StakeMoved(id("Bob"), id("Val"), NET, id("Two"), NET, 10 * TAO);
        System::assert_last_event(moved.into());
        assert_eq!((staked("Val", "Bob", NET), staked("Two", "Bob", NET)), (90 * TAO, 10 * TAO));
        // Whoever is staked to by others is a delegate.
        assert!(Delegates::<Runtime>::contains_key(id("Two")));

        assert_ok!(Subtensor::transfer_stake(by("Bob"), id("Ferdie"), id("Val"), NET, NET, 20 * TAO));
        let transferred = Event::StakeTransferred(id("Bob"), id("Ferdie"), id("Val"), NET, NET, 20 * TAO);
        System::assert_last_event(transferred.into());
        assert_eq!((staked("Val", "Bob", NET), staked("Val", "Ferdie", NET)), (70 * TAO, 20 * TAO));

        assert_ok!(Subtensor::swap_stake(by("Bob"), id("Val"), NET, net, 30 * TAO));
        System::assert_last_event(Event::StakeSwapped(id("Bob"), id("Val"), NET, net, 30 * TAO).into());
        assert_eq!((staked("Val", "Bob", NET), staked("Val", "Bob", net)), (40 * TAO, 30 * TAO));

        let both =
            Subtensor::transfer_stake_and_hotkey(by("Bob"), id("Ferdie"), id("Val"), id("EveHot"), net, NET, 5 * TAO);
        assert_ok!(both);
        assert_eq!((staked("Val", "Bob", net), staked("EveHot", "Ferdie", NET)), (25 * TAO, 5 * TAO));
        assert_eq!(TotalIssuance::<Runtime>::get(), issued);
    });
}

#[test]
fn moves_are_checked_in_the_order_of_the_public_chain() {
    with_subnet(|| {
        let net = second_subnet();
        let swap = |hotkey: &str, from, to, amount| Subtensor::swap_stake(by("Bob"), id(hotkey), from, to, amount);
        refused(swap("Nobody", NetUid(9), NetUid(9), 0), Error::SameNetuid);
        refused(swap("Nobody", NetUid(9), net, 0), Error::SubnetNotExists);
        SubtokenEnabled::<Runtime>::insert(net, false);
        refused(swap("Nobody", NET, net, 0), Error::SubtokenDisabled);
        SubtokenEnabled::<Runtime>::insert(net, true);
        refused(swap("Nobody", NET, net, 0), Error::HotKeyAccountNotExists);
        refused(swap("Val", NET, net, 101 * TAO), Error::NotEnoughStakeToWithdraw);
        refused(swap("Val", NET, net, MIN_STAKE), Error::AmountTooLow);
        TransferToggle::<Runtime>::insert(NET, false);
        let transfer = |amount| Subtensor::transfer_stake(by("Bob"), id("Eve"), id("Val"), NET, net, amount);
        refused(transfer(MIN_STAKE), Error::AmountTooLow);
        refused(transfer(TAO), Error::TransferDisallowed);
        // Within one coldkey it is no transfer.
        assert_ok!(swap("Val", NET, net, TAO));
    });
}

#[test]
fn a_limit_holds_a_move_between_pools() {
    with_subnet(|| {
        let net = second_subnet();
        for netuid in [NET, net] {
            SubnetMechanism::<Runtime>::insert(netuid, 1);
            SubnetTAO::<Runtime>::insert(netuid, 1000 * TAO);
            SubnetAlphaIn::<Runtime>::insert(netuid, 1000 * TAO);
        }
        let swap = |price, allow_partial| {
            Subtensor::swap_stake_limit(by("Bob"), id("Val"), NET, net, 100 * TAO, price, allow_partial)
        };
        refused(swap(TAO * 101 / 100, true), Error::SlippageTooHigh);
        refused(swap(TAO * 9 / 10, false), Error::SlippageTooHigh);
        assert_ok!(swap(TAO * 9 / 10, true));
        let price = |netuid| f64::from(u32::try_from(Subtensor::alpha_price(netuid)).unwrap());
        let relative = price(NET) / price(net);
        assert!((0.9..0.901).contains(&relative), "{relative}");
        let left = staked("Val", "Bob", NET);
        assert!(left > 70 * TAO && left < 75 * TAO, "{left}");
        // Only one of the two swaps pays a fee, 0.05 %.
        let (sold, bought) = (100 * TAO - left, staked("Val", "Bob", net));
        assert!(bought < sold * 96 / 100 && bought > sold * 94 / 100, "{bought} of {sold}");
    });
}

#[test]
fn everything_can_be_taken_at_once() {
    with_subnet(|| {
        let net = second_subnet();
        assert_ok!(Subtensor::add_stake(by("Bob"), id("Val"), net, 7 * TAO));
        assert_ok!(Subtensor::unstake_all_alpha(by("Bob"), id("Val")));
        assert_eq!((staked("Val", "Bob", NET), staked("Val", "Bob", net)), (0, 0));
        assert_eq!(staked("Val", "Bob", NetUid::ROOT), 107 * TAO);
        refused(Subtensor::unstake_all_alpha(by("Bob"), id("Val")), Error::AmountTooLow);
        let before = Subtensor::spendable(&id("Bob"));
        assert_ok!(Subtensor::unstake_all(by("Bob"), id("Val")));
        assert_eq!(Subtensor::spendable(&id("Bob")) - before, 107 * TAO);
        assert_ok!(Subtensor::remove_stake_full_limit(by("Charlie"), id("Two"), NET, Some(TAO)));
        assert_eq!(staked("Two", "Charlie", NET), 0);
    });
}

#[test]
fn recycled_alpha_is_no_longer_out_and_burned_alpha_is() {
    with_subnet(|| {
        let out = SubnetAlphaOut::<Runtime>::get(NET);
        refused(Subtensor::burn_alpha(by("Bob"), id("Val"), TAO, NetUid::ROOT), Error::CannotBurnOrRecycleOnRootSubnet);
        assert_ok!(Subtensor::recycle_alpha(by("Bob"), id("Val"), 10 * TAO, NET));
        assert_eq!((staked("Val", "Bob", NET), SubnetAlphaOut::<Runtime>::get(NET)), (90 * TAO, out - 10 * TAO));
        assert_ok!(Subtensor::burn_alpha(by("Bob"), id("Val"), 500 * TAO, NET));
        System::assert_last_event(Event::AlphaBurned(id("Bob"), id("Val"), 90 * TAO, NET).into());
        assert_eq!((staked("Val", "Bob", NET), SubnetAlphaOut::<Runtime>::get(NET)), (0, out - 10 * TAO));

        // Only the subnet's owner waits between two purchases that are burned.
        assert_ok!(Subtensor::add_stake_burn(by("Alice"), id("Val"), NET, TAO, None));
        let again = Subtensor::add_stake_burn(by("Alice"), id("Val"), NET, TAO, None);
        refused(again, Error::AddStakeBurnRateLimitExceeded);
        assert_ok!(Subtensor::add_stake_burn(by("Eve"), id("Val"), NET, TAO, None));
        assert_ok!(Subtensor::add_stake_burn(by("Eve"), id("Val"), NET, TAO, None));
        assert_eq!(staked("Val", "Eve", NET), 0);
    });
}
