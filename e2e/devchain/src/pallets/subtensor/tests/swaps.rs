//! Keys that take the place of others, EVM addresses, seats on root and batches.

use codec::Encode;
use sp_core::{H160, H256, Pair, ecdsa};
use sp_io::crypto::secp256k1_ecdsa_recover;
use sp_io::hashing::keccak_256;
use sp_runtime::traits::{BlakeTwo256, Hash};

use super::*;

#[test]
fn a_new_hotkey_takes_over_everything() {
    with_subnet(|| {
        assert_ok!(Subtensor::serve_axon(by("Val"), NET, 1, 16_909_060, 80, 4, 4, 0, 0));
        ParentKeys::<Runtime>::insert(id("Val"), NET, vec![(7, id("Two"))]);
        ChildKeys::<Runtime>::insert(id("Two"), NET, vec![(7, id("Val"))]);
        let swap = |coldkey: &str, old: &str, new: &str| Subtensor::swap_hotkey(by(coldkey), id(old), id(new), None);
        refused(swap("Eve", "Val", "New"), Error::NonAssociatedColdKey);
        refused(swap("Bob", "Val", "Two"), Error::NonAssociatedColdKey);
        refused(swap("Bob", "Val", "Val"), Error::NewHotKeyIsSameWithOld);
        let before = Subtensor::spendable(&id("Bob"));
        assert_ok!(swap("Bob", "Val", "New"));
        assert_eq!(before - Subtensor::spendable(&id("Bob")), TAO / 10);
        assert_eq!((Uids::<Runtime>::get(NET, id("New")), Keys::<Runtime>::get(NET, 0)), (Some(0), id("New")));
        assert_eq!(Uids::<Runtime>::get(NET, id("Val")), None);
        assert!(!Owner::<Runtime>::contains_key(id("Val")));
        assert_eq!(
            (Owner::<Runtime>::get(id("New")), OwnedHotkeys::<Runtime>::get(id("Bob"))),
            (id("Bob"), vec![id("New")])
        );
        assert_eq!(Subtensor::stake_of(&id("New"), &id("Bob"), NET), 100 * TAO);
        assert_eq!(StakingHotkeys::<Runtime>::get(id("Bob")), [id("New")]);
        assert!(Axons::<Runtime>::contains_key(NET, id("New")));
        assert_eq!(ChildKeys::<Runtime>::get(id("Two"), NET), [(7, id("New"))]);
        assert_eq!(ParentKeys::<Runtime>::get(id("New"), NET), [(7, id("Two"))]);
        refused(swap("Bob", "New", "Newer"), Error::HotKeySwapOnSubnetIntervalNotPassed);
        go_to(17);
        // On one subnet it is cheaper, and stake can stay behind.
        let before = Subtensor::spendable(&id("Bob"));
        assert_ok!(Subtensor::swap_hotkey_v2(by("Bob"), id("New"), id("Newer"), Some(NET), true));
        assert_eq!(before - Subtensor::spendable(&id("Bob")), TAO / 1000);
        assert_eq!(Subtensor::stake_of(&id("New"), &id("Bob"), NET), 100 * TAO);
        assert_eq!(Keys::<Runtime>::get(NET, 0), id("Newer"));
        assert_eq!(OwnedHotkeys::<Runtime>::get(id("Bob")), [id("New"), id("Newer")]);
    });
}

#[test]
fn an_announced_coldkey_swap_stops_everything_else_until_it_is_made() {
    with_subnet(|| {
        let (bob, new) = (id("Bob"), id("New"));
        refused(Subtensor::swap_coldkey_announced(by("Bob"), new.clone()), Error::ColdkeySwapAnnouncementNotFound);
        let hash = BlakeTwo256::hash_of(&new);
        assert_ok!(Subtensor::announce_coldkey_swap(by("Bob"), hash));
        refused(Subtensor::announce_coldkey_swap(by("Bob"), hash), Error::ColdkeySwapReannouncedTooEarly);
        // The pool knows, and lets pass only what belongs to the swap.
        let allowed = |call: &Call<Runtime>| Subtensor::check_coldkey_swap(&id("Bob"), Some(call));
        let stake = Call::add_stake { hotkey: id("Val"), netuid: NET, amount_staked: TAO };
        refused(allowed(&stake), Error::ColdkeySwapAnnounced);
        refused(Subtensor::check_coldkey_swap(&bob, None), Error::ColdkeySwapAnnounced);
        assert!(allowed(&Call::swap_coldkey_announced { new_coldkey: new.clone() }).is_ok());
        assert!(Subtensor::check_coldkey_swap(&id("Eve"), Some(&stake)).is_ok());

        let swap = |name: &str| Subtensor::swap_coldkey_announced(by("Bob"), id(name));
        refused(swap("Other"), Error::AnnouncedColdkeyHashDoesNotMatch);
        refused(swap("New"), Error::ColdkeySwapTooEarly);
        go_to(51);
        assert_ok!(Subtensor::dispute_coldkey_swap(by("Bob")));
        refused(Subtensor::dispute_coldkey_swap(by("Bob")), Error::ColdkeySwapAlreadyDisputed);
        refused(allowed(&Call::swap_coldkey_announced { new_coldkey: new.clone() }), Error::ColdkeySwapDisputed);
        refused(swap("New"), Error::ColdkeySwapDisputed);
        ColdkeySwapDisputes::<Runtime>::remove(&bob);

        let tao = Subtensor::spendable(&bob);
        assert_ok!(swap("New"));
        System::assert_last_event(Event::ColdkeySwapped { old_coldkey: bob.clone(), new_coldkey: new.clone() }.into());
        assert_eq!((Subtensor::spendable(&bob), Subtensor::spendable(&new)), (0, tao));
        assert_eq!(Owner::<Runtime>::get(id("Val")), new);
        assert_eq!(Subtensor::stake_of(&id("Val"), &new, NET), 100 * TAO);
        assert!(OwnedHotkeys::<Runtime>::get(&bob).is_empty() && StakingHotkeys::<Runtime>::get(&bob).is_empty());
        assert!(!ColdkeySwapAnnouncements::<Runtime>::contains_key(&bob));
    });
}

#[test]
fn root_swaps_and_resets_coldkeys_at_once() {
    with_subnet(|| {
        let root = RuntimeOrigin::root;
        assert_ok!(Subtensor::announce_coldkey_swap(by("Bob"), H256::zero()));
        assert_eq!(Subtensor::reset_coldkey_swap(by("Bob"), id("Bob")), Err(DispatchError::BadOrigin));
        assert_ok!(Subtensor::reset_coldkey_swap(root(), id("Bob")));
        assert!(Subtensor::check_coldkey_swap(&id("Bob"), None).is_ok());
        refused(Subtensor::swap_coldkey(root(), id("Bob"), id("Val"), 0), Error::NewColdKeyIsHotkey);
        refused(Subtensor::swap_coldkey(root(), id("Bob"), id("Charlie"), 0), Error::ColdKeyAlreadyAssociated);
        assert_ok!(Subtensor::swap_coldkey(root(), id("Alice"), id("New"), TAO));
        assert_eq!(SubnetOwner::<Runtime>::get(NET), id("New"));
        assert_eq!(Subtensor::schedule_swap_coldkey(by("Bob"), id("New")), Err(Error::<Runtime>::Deprecated.into()));
    });
}

/// Address of a key, and its signature of what a wallet is shown.
fn signed(pair: &ecdsa::Pair, hotkey: &AccountId, block: u64) -> (H160, [u8; 65]) {
    let message = [hotkey.encode(), keccak_256(&block.encode()).to_vec()].concat();
    let shown = [b"\x19Ethereum Signed Message:\n64".to_vec(), message].concat();
    let hash = keccak_256(&shown);
    let mut signature = pair.sign_prehashed(&hash).0;
    let public = secp256k1_ecdsa_recover(&signature, &hash).ok().unwrap();
    signature[64] += 27;
    (H160::from_slice(&keccak_256(&public)[12..]), signature)
}

#[test]
fn an_evm_address_signs_for_its_neuron() {
    with_subnet(|| {
        let pair = ecdsa::Pair::from_seed(&[7; 32]);
        let (address, signature) = signed(&pair, &id("Val"), 5);
        let bind = |who: &str, address, block, signature| {
            Subtensor::associate_evm_key(by(who), NET, address, block, signature)
        };
        refused(bind("Nobody", address, 5, signature), Error::NonAssociatedColdKey);
        refused(bind("Val", address, 6, signature), Error::InvalidRecoveredPublicKey);
        refused(bind("Two", address, 5, signature), Error::InvalidRecoveredPublicKey);
        assert_ok!(bind("Val", address, 5, signature));
        assert_eq!(AssociatedEvmAddress::<Runtime>::get(NET, 0), Some((address, 1)));
        assert_eq!(AssociatedUidsByEvmAddress::<Runtime>::get(NET, address).into_inner(), [(0, 1)]);
        let again = Call::associate_evm_key { netuid: NET, evm_key: address, block_number: 5, signature };
        refused(Subtensor::check_before_dispatch(&id("Val"), &again), Error::EvmKeyAssociateRateLimitExceeded);
        System::set_block_number(2);
        // Another address takes the first one's place.
        let (other, signature) = signed(&ecdsa::Pair::from_seed(&[8; 32]), &id("Val"), 5);
        assert_ok!(bind("Val", other, 5, signature));
        assert!(AssociatedUidsByEvmAddress::<Runtime>::get(NET, address).is_empty());
    });
}

#[test]
fn seats_on_root_go_to_the_heaviest() {
    with_subnet(|| {
        MaxAllowedUids::<Runtime>::insert(NetUid::ROOT, 1);
        assert_ok!(Subtensor::root_register(by("Bob"), id("Val")));
        refused(Subtensor::root_register(by("Bob"), id("Val")), Error::HotKeyAlreadyRegisteredInSubNet);
        refused(Subtensor::root_register(by("Charlie"), id("Two")), Error::StakeTooLowForRoot);
        assert_ok!(Subtensor::add_stake(by("Charlie"), id("Two"), NetUid::ROOT, TAO));
        assert_ok!(Subtensor::root_register(by("Charlie"), id("Two")));
        assert_eq!(Keys::<Runtime>::get(NetUid::ROOT, 0), id("Two"));
        assert_eq!(Uids::<Runtime>::get(NetUid::ROOT, id("Val")), None);
        assert!(Delegates::<Runtime>::contains_key(id("Two")));
    });
}

#[test]
fn what_a_miner_earns_goes_where_its_coldkey_says() {
    with_subnet(|| {
        SubnetEmissionEnabled::<Runtime>::insert(NET, true);
        OwnerCutEnabled::<Runtime>::insert(NET, false);
        let send = |hotkey: &str| Subtensor::set_coldkey_auto_stake_hotkey(by("Dave"), NET, id(hotkey));
        refused(send("Nobody"), Error::HotKeyNotRegisteredInSubNet);
        assert_ok!(send("Val"));
        refused(send("Val"), Error::SameAutoStakeHotkeyAlreadySet);
        assert_eq!(AutoStakeDestinationColdkeys::<Runtime>::get(id("Val"), NET), [id("Dave")]);
        go_to(2);
        assert_ok!(set("Val", &[2], &[1], 0));
        go_to(10);
        assert_eq!(Subtensor::stake_of(&id("Min"), &id("Dave"), NET), 0);
        let earned = Subtensor::stake_of(&id("Val"), &id("Dave"), NET);
        assert!(earned > 4 * TAO && earned < 5 * TAO, "{earned}");
    });
}

#[test]
fn a_batch_says_which_of_its_items_failed() {
    with_subnet(|| {
        let (net, none) = (codec::Compact(NET), codec::Compact(NetUid(9)));
        let row = vec![(codec::Compact(2), codec::Compact(5))];
        let batch = |netuids, rows| Subtensor::batch_set_weights(by("Val"), netuids, rows, vec![codec::Compact(0); 2]);
        refused(batch(vec![net], vec![row.clone()]), Error::InputLengthsUnequal);
        assert_ok!(batch(vec![net, none], vec![row.clone(), row]));
        assert_eq!(Weights::<Runtime>::get(NET.index(0), 0), [(2, 65_535)]);
        let events: Vec<_> = System::events().into_iter().map(|record| record.event).collect();
        assert!(events.contains(&Event::BatchCompletedWithErrors.into()));
        // A subnet takes commits unless it says otherwise, and so does one that does not exist.
        let failed = Event::BatchWeightItemFailed(NetUid(9), Error::<Runtime>::CommitRevealEnabled.into());
        assert!(events.contains(&failed.into()), "{events:?}");
        System::assert_last_event(Event::BatchWeightsCompleted(vec![net, none], id("Val")).into());
    });
}
