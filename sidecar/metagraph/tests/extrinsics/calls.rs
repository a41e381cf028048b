//! Every call: it is carried out, and its effect is read back.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use sidecar_metagraph::extrinsics::{
    AxonWish, Call, CommitmentField, FailureClass, OpenGate, RevealState, Reveals, Served, SubmitConfig, SubmitError,
    Submitted, Submitter, Wait, WeightValues, WeightsMethod, WeightsSetter, WeightsWish, drand_round_at,
};
use sidecar_util::{Alpha, AxonProtocol, Hotkey, NetUid, Tao};
use subxt::dynamic::Value;

use crate::lab::{Lab, NETUID, PATIENCE, account, alice, bob, charlie, set_weights, submit};

fn wish(key: &str, mecid: Option<u8>) -> WeightsWish {
    let values = WeightValues::Scores(vec![0.5, 1.0]);
    let (key, wait) = (key.to_owned(), Wait::Finalized);
    WeightsWish { key, netuid: NETUID, mecid, uids: vec![1, 2], values, version_key: 0, wait }
}

fn setter(lab: &Lab, submitter: &Submitter) -> (WeightsSetter, Reveals) {
    let reveals = Reveals::open(&lab.directory.path().join("reveals")).unwrap();
    (WeightsSetter::new(submitter.handle(), reveals.clone()), reveals)
}

/// Once with each way in which chains have shown netuids.
async fn weights_are_set(netuid_type: &str) {
    let lab = Lab::start(&json!({}), &["--netuid-type", netuid_type]);
    let submitter = lab.submitter();
    let receipt = submit(&submitter, "plain", set_weights(&[1, 2], &[100, 200])).await.unwrap();
    assert!(receipt.finalized && receipt.has_event("SubtensorModule", "WeightsSet"), "{receipt:?}");
    assert_eq!(lab.weights(1).await, [(1, 32768), (2, 65535)]);

    let (setter, _) = setter(&lab, &submitter);
    let outcome = setter.set(wish("scores", None)).await.unwrap();
    assert_eq!(outcome.method, WeightsMethod::Plain);
    assert_eq!(lab.weights(1).await, [(1, 32768), (2, 65535)]);
    setter.set(wish("mechanism", Some(1))).await.unwrap();
    assert_eq!(lab.weights(4097).await, [(1, 32768), (2, 65535)]);
    let error = setter.set(wish("no mechanism", Some(2))).await.unwrap_err();
    assert_eq!(error.chain_error(), Some("MechanismDoesNotExist"), "{error}");

    let commitment = |fields| Call::SetCommitment { netuid: NETUID, fields };
    let raw = CommitmentField::Raw(b"model v1".to_vec());
    submit(&submitter, "one field", commitment(vec![raw.clone()])).await.unwrap();
    let keys = || vec![Value::u128(1), account(&alice().hotkey())];
    let shown = async || lab.value::<Value>("Commitments", "CommitmentOf", keys()).await.unwrap().to_string();
    assert!(shown().await.contains("Raw8"), "{}", shown().await);
    let fields = vec![CommitmentField::Sha256([7; 32]), raw, CommitmentField::Raw(vec![0; 128])];
    submit(&submitter, "three fields", commitment(fields)).await.unwrap();
    let shown = shown().await;
    assert!(shown.contains("Sha256") && shown.contains("Raw128"), "{shown}");
    submitter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_and_commitments_are_set_where_netuids_are_numbers() {
    weights_are_set("u16").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lium_1135_weights_and_commitments_are_set_where_netuids_are_a_type() {
    weights_are_set("newtype").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_axon_is_served_once_and_not_too_often() {
    let lab = Lab::start(&json!({ "serving_rate_limit": 1000 }), &[]);
    let submitter = lab.submitter();
    let handle = submitter.handle();
    let (netuid, protocol) = (NETUID, AxonProtocol::Tcp);
    let axon = AxonWish { netuid, ip: "10.0.0.1".parse().unwrap(), port: 8091, protocol, version: 7, local: true };
    let public = AxonWish { local: false, ..axon.clone() };
    let error = handle.serve_axon("private", &public, Wait::Finalized).await.unwrap_err();
    assert!(error.to_string().contains("ip: `10.0.0.1`"), "{error}");

    let served = handle.serve_axon("first", &axon, Wait::Finalized).await.unwrap();
    let Served::Now(Submitted::Included(receipt)) = served else { panic!("{served:?}") };
    assert!(receipt.has_event("SubtensorModule", "AxonServed"));
    let shown = lab.value::<Value>("SubtensorModule", "Axons", vec![Value::u128(1), account(&alice().hotkey())]).await;
    let shown = shown.unwrap().to_string();
    assert!(shown.contains("port: 8091") && shown.contains("version: 7"), "{shown}");

    let again = handle.serve_axon("again", &axon, Wait::Finalized).await.unwrap();
    assert_eq!(again, Served::Already { block: receipt.block, finalized: true });
    let same = handle.serve_axon("first", &axon, Wait::Finalized).await.unwrap();
    assert_eq!(same, Served::Now(Submitted::Included(receipt)), "the same key is the same submission");
    let moved = AxonWish { port: 8092, ..axon };
    let error = handle.serve_axon("moved", &moved, Wait::Finalized).await.unwrap_err();
    assert_eq!(error.chain_error(), Some("ServingRateLimitExceeded"));
    let FailureClass::WaitBlocks(blocks) = error.class() else { panic!("{error}") };
    assert!((900..1000).contains(&blocks), "{blocks}");
    // The same from the pool, for a call that is made without the look before.
    let Call::ServeAxon { .. } = &axon_call(8093) else { unreachable!() };
    let error = submit(&submitter, "blind", axon_call(8093)).await.unwrap_err();
    assert_eq!(error.chain_error(), Some("ServingRateLimitExceeded"), "{error}");
    assert!(matches!(error.class(), FailureClass::WaitBlocks(900..1000)), "{error:?}");
    assert_eq!(lab.count("SubtensorModule", "AxonServed").await, 1);
    submitter.shutdown().await;
}

fn axon_call(port: u16) -> Call {
    let (netuid, protocol) = (NETUID, AxonProtocol::Tcp);
    Call::ServeAxon { netuid, ip: "10.0.0.1".parse().unwrap(), port, protocol, version: 7 }
}

/// Waits until no commit waits for its reveal.
async fn all_ended(reveals: &Reveals) {
    let mut changed = reveals.watch();
    tokio::time::timeout(PATIENCE, async {
        while reveals.list().iter().any(|material| material.state.is_open()) {
            changed.changed().await.unwrap();
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn subtensor_1787_a_commit_shows_no_weights_before_its_epoch_and_is_revealed_across_a_restart() {
    let lab = Lab::start(&json!({ "commit_reveal": true }), &[]);
    let submitter = lab.submitter();
    let (setter, _) = setter(&lab, &submitter);
    // Nobody waits for the block of the second one, and the process ends before there is one.
    for (mecid, wait) in [(None, Wait::Finalized), (Some(1), Wait::Sent)] {
        let wish = WeightsWish { wait, ..wish(&format!("{mecid:?}"), mecid) };
        let outcome = setter.clone().prefer_hash(true).set(wish).await.unwrap();
        assert_eq!(outcome.method, WeightsMethod::HashCommit);
        let receipt = outcome.submitted.receipt();
        assert_eq!(receipt.is_some(), wait == Wait::Finalized, "{receipt:?}");
        assert!(receipt.is_none_or(|receipt| receipt.has_event("SubtensorModule", "WeightsCommitted")));
    }
    submitter.shutdown().await;
    assert_eq!(lab.weights(1).await, []);

    // Another process finds both on disk.
    let submitter = lab.submitter();
    let reveals = Reveals::open(&lab.directory.path().join("reveals")).unwrap();
    assert_eq!(reveals.list().len(), 2);
    let revealing = tokio::spawn(reveals.clone().run(submitter.handle()));
    all_ended(&reveals).await;
    for material in reveals.list() {
        assert!(matches!(material.state, RevealState::Revealed { .. }), "{material:?}");
    }
    assert_eq!(lab.weights(1).await, [(1, 32768), (2, 65535)]);
    assert_eq!(lab.weights(4097).await, [(1, 32768), (2, 65535)]);
    assert_eq!(lab.count("SubtensorModule", "WeightsRevealed").await, 2);
    submitter.shutdown().await;
    revealing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bittensor_3015_a_commit_in_any_block_of_an_epoch_is_revealed() {
    let lab = Lab::start(&json!({ "commit_reveal": true }), &[]);
    let submitter = lab.submitter();
    let (setter, reveals) = setter(&lab, &submitter);
    let setter = setter.prefer_hash(true);
    let revealing = tokio::spawn(reveals.clone().run(submitter.handle()));
    // Twelve, one after the other, meet every place in an epoch of eleven blocks, its borders too.
    let mut places = BTreeSet::new();
    for i in 0..12 {
        let wish = WeightsWish { wait: Wait::Included, ..wish(&format!("{i}"), None) };
        places.insert(setter.set(wish).await.unwrap().submitted.receipt().unwrap().block % 11);
    }
    assert!(places.len() >= 6, "{places:?}");
    all_ended(&reveals).await;
    // Of those whose turn came at the same time the last one counts: the chain forgets the earlier ones with it.
    let mut revealed = 0;
    for material in reveals.list() {
        match material.state {
            RevealState::Revealed { .. } => revealed += 1,
            RevealState::Superseded { .. } => {}
            _ => panic!("{material:?}"),
        }
    }
    assert!(revealed >= 2, "{:?}", reveals.list());
    assert!(matches!(
        reveals.list().iter().find(|material| material.key == "11").unwrap().state,
        RevealState::Revealed { .. }
    ));
    assert_eq!(lab.count("SubtensorModule", "WeightsRevealed").await, revealed);
    submitter.shutdown().await;
    revealing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reveal_that_missed_its_epoch_is_told_as_lost() {
    let lab = Lab::start(&json!({ "commit_reveal": true }), &[]);
    let submitter = lab.submitter();
    let (setter, reveals) = setter(&lab, &submitter);
    setter.prefer_hash(true).set(wish("late", None)).await.unwrap();
    // Nobody reveals for three epochs.
    lab.blocks(35);
    let revealing = tokio::spawn(reveals.clone().run(submitter.handle()));
    all_ended(&reveals).await;
    assert!(!matches!(reveals.list()[0].state, RevealState::Revealed { .. }), "{:?}", reveals.list());
    assert_eq!(lab.count("SubtensorModule", "WeightsRevealed").await, 0);
    submitter.shutdown().await;
    revealing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timelocked_commit_names_the_round_of_the_reveal_epoch() {
    let lab = Lab::start(&json!({ "commit_reveal": true, "tempo": 360 }), &[]);
    let submitter = lab.submitter();
    let (setter, _) = setter(&lab, &submitter);
    // The subnet is young: its first epoch with this tempo gives the permit.
    lab.blocks(360);
    let now_ms = u64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    for mecid in [None, Some(1)] {
        let outcome = setter.set(wish(&format!("{mecid:?}"), mecid)).await.unwrap();
        assert_eq!(outcome.method, WeightsMethod::Timelocked);
        let receipt = outcome.submitted.clone().receipt().unwrap();
        assert!(receipt.has_event("SubtensorModule", "TimelockedWeightsCommitted"), "{receipt:?}");
        let round = outcome.reveal_round.unwrap();
        // At most two tempos of 250 ms blocks away; with blocks of 12 s it would be an hour and more. Time flew on
        // this chain, by 250 ms a block.
        let latest = drand_round_at(now_ms + (2 * 360 + 400) * 250 + 60_000);
        assert!((drand_round_at(now_ms)..latest).contains(&round), "{round} {latest}");
        // The same key is the same commit, though a new one would be encrypted anew.
        assert_eq!(setter.set(wish(&format!("{mecid:?}"), mecid)).await.unwrap(), outcome);
    }
    assert_eq!(lab.count("SubtensorModule", "TimelockedWeightsCommitted").await, 2);
    submitter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registration_and_stake_are_the_coldkeys_and_only_its() {
    let lab = Lab::start(&json!({ "burn": "1" }), &[]);
    let submitter = lab.submitter();
    let newcomer = Hotkey::from([9; 32]);
    let register = Call::BurnedRegister { netuid: NETUID, hotkey: newcomer };
    let error = submit(&submitter, "register", register.clone()).await.unwrap_err();
    assert!(matches!(error, SubmitError::WrongKey { needed: "coldkey", .. }), "{error}");
    submitter.shutdown().await;

    let config = SubmitConfig { journal_dir: lab.directory.path().join("coldkey"), ..lab.config() };
    let coldkey = Submitter::spawn_for_coldkey(config, charlie(), Arc::new(OpenGate)).unwrap();
    let error = submit(&coldkey, "weights", set_weights(&[1], &[1])).await.unwrap_err();
    assert!(matches!(error, SubmitError::WrongKey { needed: "hotkey", .. }), "{error}");
    let receipt = submit(&coldkey, "register", register).await.unwrap();
    assert!(receipt.has_event("SubtensorModule", "NeuronRegistered"), "{receipt:?}");
    let uid = lab.value::<u16>("SubtensorModule", "Uids", vec![Value::u128(1), account(&newcomer)]).await;
    assert!(uid.is_some());
    let cheap = Call::RegisterLimit { netuid: NETUID, hotkey: Hotkey::from([8; 32]), limit_price: Tao::from_rao(1) };
    let error = submit(&coldkey, "too dear", cheap).await.unwrap_err();
    assert_eq!(error.chain_error(), Some("RegistrationPriceLimitExceeded"), "{error}");
    assert_eq!(error.class(), FailureClass::Configuration);
    let limit_price = Tao::from_rao(100_000_000_000);
    let dear = Call::RegisterLimit { netuid: NETUID, hotkey: Hotkey::from([8; 32]), limit_price };
    submit(&coldkey, "dear", dear).await.unwrap();

    let hotkey = bob().hotkey();
    let stake = async || {
        let keys = vec![account(&hotkey), Value::u128(1)];
        lab.value::<u64>("SubtensorModule", "TotalHotkeyAlpha", keys).await.unwrap_or_default()
    };
    let amount = Tao::from_rao(10_000_000_000);
    submit(&coldkey, "stake", Call::AddStake { hotkey, netuid: NETUID, amount }).await.unwrap();
    let staked = stake().await;
    assert!(staked > 0);
    let amount = Alpha::from_rao(staked / 2);
    submit(&coldkey, "unstake", Call::RemoveStake { hotkey, netuid: NETUID, amount }).await.unwrap();
    assert!(stake().await <= staked - staked / 2 + 1_000_000_000);
    let unknown = Call::AddStake { hotkey, netuid: NetUid(77), amount: Tao::from_rao(10_000_000_000) };
    let error = submit(&coldkey, "no subnet", unknown).await.unwrap_err();
    assert_eq!((error.chain_error(), error.class()), (Some("SubnetNotExists"), FailureClass::Configuration), "{error}");
    coldkey.shutdown().await;
}
