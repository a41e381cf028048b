//! Children and takes: who lends stake to whom, and what comes back.

use super::*;

/// Half of all stake.
const HALF: u64 = u64::MAX / 2;
/// 18 %, the largest take.
const MOST: u16 = 11_796;

fn set_children(coldkey: &str, hotkey: &str, children: &[(u64, &str)]) -> Result<(), DispatchError> {
    let children = children.iter().map(|(share, name)| (*share, id(name))).collect();
    Subtensor::set_children(by(coldkey), id(hotkey), NET, children)
}

#[test]
fn children_are_checked_in_the_order_of_the_public_chain() {
    with_subnet(|| {
        let root = Subtensor::set_children(by("Bob"), id("Val"), NetUid::ROOT, vec![]);
        refused(root, Error::RegistrationNotPermittedOnRootSubnet);
        refused(Subtensor::set_children(by("Bob"), id("Val"), NetUid(9), vec![]), Error::SubnetNotExists);
        refused(set_children("Eve", "Val", &[(1, "Two")]), Error::NonAssociatedColdKey);
        refused(set_children("Bob", "Val", &[(1, "Two"), (2, "Two")]), Error::DuplicateChild);
        refused(set_children("Bob", "Val", &[(1, "Val")]), Error::InvalidChild);
        let six = ["A", "B", "C", "D", "E", "F"].map(|name| (1, name));
        refused(set_children("Bob", "Val", &six), Error::TooManyChildren);
        refused(set_children("Bob", "Val", &[(u64::MAX, "Two"), (1, "Min")]), Error::ProportionOverflow);
        StakeThreshold::<Runtime>::put(200 * TAO);
        refused(set_children("Bob", "Val", &[(1, "Two")]), Error::NotEnoughStakeToSetChildkeys);
        StakeThreshold::<Runtime>::put(60 * TAO);
        assert_ok!(set_children("Bob", "Val", &[(1, "Two")]));
        refused(set_children("Bob", "Val", &[]), Error::TxRateLimitExceeded);
        go_to(1 + 150);
        assert_ok!(set_children("Bob", "Val", &[]));
    });
}

#[test]
fn children_count_after_their_cooldown_and_cannot_be_parents_of_their_parent() {
    with_subnet(|| {
        assert_ok!(set_children("Bob", "Val", &[(HALF, "Two")]));
        let from = 1 + PendingChildKeyCooldown::<Runtime>::get();
        let scheduled = Event::SetChildrenScheduled(id("Val"), NET, from, vec![(HALF, id("Two"))]);
        System::assert_last_event(scheduled.into());
        assert_eq!(PendingChildKeys::<Runtime>::get(NET, id("Val")), (vec![(HALF, id("Two"))], from));
        assert!(ChildKeys::<Runtime>::get(id("Val"), NET).is_empty());
        go_to(30);
        assert_eq!(ChildKeys::<Runtime>::get(id("Val"), NET), [(HALF, id("Two"))]);
        assert_eq!(ParentKeys::<Runtime>::get(id("Two"), NET), [(HALF, id("Val"))]);
        assert!(!PendingChildKeys::<Runtime>::contains_key(NET, id("Val")));
        refused(set_children("Charlie", "Two", &[(1, "Val")]), Error::ChildParentInconsistency);
        // The stake that counts has moved.
        let (alpha, ..) = Subtensor::stake_weights(&id("Two"), NET);
        assert!(alpha.abs_diff(100 * TAO) <= 1, "{alpha}");

        go_to(200);
        assert_ok!(set_children("Bob", "Val", &[]));
        go_to(230);
        assert!(!ChildKeys::<Runtime>::contains_key(id("Val"), NET));
        assert!(!ParentKeys::<Runtime>::contains_key(id("Two"), NET));
    });
}

#[test]
fn stake_that_falls_below_the_threshold_drops_children_that_wait() {
    with_subnet(|| {
        StakeThreshold::<Runtime>::put(60 * TAO);
        assert_ok!(set_children("Bob", "Val", &[(HALF, "Two")]));
        assert_ok!(Subtensor::remove_stake(by("Bob"), id("Val"), NET, 50 * TAO));
        assert!(!PendingChildKeys::<Runtime>::contains_key(NET, id("Val")));
    });
}

#[test]
fn parents_earn_by_what_they_lent_less_the_childs_take() {
    with_subnet(|| {
        OwnerCutEnabled::<Runtime>::insert(NET, false);
        PendingChildKeyCooldown::<Runtime>::put(0);
        assert_ok!(set_children("Bob", "Val", &[(HALF, "Two")]));
        assert_ok!(Subtensor::set_childkey_take(by("Charlie"), id("Two"), NET, MOST));
        go_to(2);
        assert_ok!(set("Val", &[2], &[1], 0));
        assert_ok!(set("Two", &[2], &[1], 0));
        go_to(10);
        SubnetEmissionEnabled::<Runtime>::insert(NET, true);
        let staked = || {
            let bob = Subtensor::stake_of(&id("Val"), &id("Bob"), NET);
            (bob, Subtensor::stake_of(&id("Two"), &id("Charlie"), NET))
        };
        let before = staked();
        go_to(20);
        let after = staked();
        let earned = (after.0 - before.0, after.1 - before.1);
        // Validators share five alpha by the stake that counts: 50 to 100. Half of the child's 100 was lent, so half of
        // its third is the parent's, less 18 %.
        let third = 5_000_000_000 / 3;
        let take = third * u64::from(MOST) / 65_535;
        let expected = (2 * third - take, third + take);
        // Permits and dividends are rounded to 65535ths on the way.
        let close = |a: u64, b: u64| a.abs_diff(b) < 200_000;
        assert!(close(earned.0, expected.0) && close(earned.1, expected.1), "{earned:?} {expected:?}");
    });
}

#[test]
fn takes_have_bounds_and_may_rise_slowly_only() {
    with_subnet(|| {
        let set_take = |coldkey: &str, take| Subtensor::set_childkey_take(by(coldkey), id("Two"), NET, take);
        refused(set_take("Bob", 1), Error::NonAssociatedColdKey);
        refused(set_take("Charlie", MOST + 1), Error::InvalidChildkeyTake);
        MinChildkeyTakePerSubnet::<Runtime>::insert(NET, 100);
        refused(set_take("Charlie", 99), Error::InvalidChildkeyTake);
        TxChildkeyTakeRateLimit::<Runtime>::put(50);
        assert_ok!(set_take("Charlie", 200));
        refused(set_take("Charlie", 201), Error::TxChildkeyTakeRateLimitExceeded);
        assert_ok!(set_take("Charlie", 150));
        go_to(51);
        assert_ok!(set_take("Charlie", 201));

        let decrease = |coldkey: &str, take| Subtensor::decrease_take(by(coldkey), id("Val"), take);
        let increase = |coldkey: &str, take| Subtensor::increase_take(by(coldkey), id("Val"), take);
        refused(Subtensor::decrease_take(by("Bob"), id("Nobody"), 1), Error::HotKeyAccountNotExists);
        refused(decrease("Eve", 1), Error::NonAssociatedColdKey);
        Delegates::<Runtime>::insert(id("Val"), 5000);
        refused(decrease("Bob", 5000), Error::DelegateTakeTooLow);
        assert_ok!(decrease("Bob", 4000));
        refused(increase("Bob", 4000), Error::DelegateTakeTooLow);
        refused(increase("Bob", MOST + 1), Error::DelegateTakeTooHigh);
        refused(increase("Bob", 4001), Error::DelegateTxRateLimitExceeded);
        TxDelegateTakeRateLimit::<Runtime>::put(0);
        assert_ok!(increase("Bob", 4001));
        System::assert_last_event(Event::TakeIncreased(id("Bob"), id("Val"), 4001).into());
        let delegate = Subtensor::get_delegate(&id("Val")).unwrap();
        assert_eq!((delegate.take.0, delegate.owner_ss58), (4001, id("Bob")));
        assert_eq!(delegate.nominators, [(id("Bob"), vec![(codec::Compact(NET), codec::Compact(100 * TAO))])]);
    });
}
