use std::sync::Arc;

use k8s_openapi::api::core::v1::PodStatus as CorePodStatus;
use serde_json::json;

use sidecar_util::http::SignerStatus;

use super::*;
use crate::chains::Problem;
use crate::fixtures::{hotkey, metagraph, network, observed, status_body, validator};
use crate::observe::SecretProblem;

fn ready_pod() -> Pod {
    pod(json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] }))
}

fn pod(status: serde_json::Value) -> Pod {
    let status: CorePodStatus = serde_json::from_value(status).unwrap();
    Pod { status: Some(status), ..Pod::default() }
}

fn status_of(node: &NodeObject, observed: &Observed) -> NodeStatus {
    node_status(node, observed, &Outcome::default(), Timestamp::UNIX_EPOCH)
}

fn check(status: &NodeStatus, type_: &str, expected: (&str, &str)) {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), expected, "{type_}: {}", condition.message);
}

#[test]
fn a_running_registered_staked_validator_is_ready() {
    let observed = Observed { pod: Some(ready_pod()), sidecar: Answer::Said(Arc::new(status_body())), ..observed() };
    let status = status_of(&validator(|_| {}), &observed);
    check(&status, c::READY, ("True", "AsExpected"));
    assert_eq!(status.observed_generation, Some(3));
    let neuron = status.neuron.unwrap();
    assert_eq!((neuron.uid, neuron.stake.as_str(), neuron.vtrust.as_str()), (0, "1000", "1.0000"));
    assert_eq!((neuron.last_weights_block, neuron.weights_age_blocks), (90, Some(10)));
}

#[test]
fn ready_repeats_the_first_thing_to_mend() {
    let first = |observed: Observed, reason: &str| {
        check(&status_of(&validator(|_| {}), &observed), c::READY, ("False", reason));
    };
    let with_pod = || Observed { pod: Some(ready_pod()), ..observed() };
    first(Observed { network: None, ..with_pod() }, "NetworkMissing");
    first(Observed { hotkey: Some(Err(SecretProblem::Missing)), ..with_pod() }, "SecretMissing");
    let mut silent = with_pod();
    silent.chain.problem = Some(Problem { reason: "EndpointDown", message: "down".into() });
    first(silent, "EndpointDown");
    let mut unregistered = with_pod();
    unregistered.chain.metagraph = Some(Arc::new(metagraph(&[(2, 1000)])));
    first(unregistered, "NotRegistered");
    let mut poor = with_pod();
    poor.chain.metagraph = Some(Arc::new(metagraph(&[(1, 99)])));
    first(poor, "BelowMinimumStake");
    first(observed(), "PodStarting");
}

#[test]
fn stake_below_the_minimum_says_both_amounts() {
    let mut observed = observed();
    observed.chain.metagraph = Some(Arc::new(metagraph(&[(1, 99)])));
    let status = status_of(&validator(|_| {}), &observed);
    let condition = status.conditions.iter().find(|condition| condition.type_ == c::STAKE_SUFFICIENT).unwrap();
    assert_eq!(condition.status, "False");
    assert!(condition.message.starts_with("total stake is 99 TAO, the Network's minimum is 100 TAO: add stake"));
}

#[test]
fn the_chains_last_words_stay_while_it_is_silent() {
    let mut node = validator(|_| {});
    node.status = status_of(&node, &observed());
    let mut silent = observed();
    silent.chain = crate::chains::ChainState {
        problem: Some(Problem { reason: "EndpointDown", message: "down".into() }),
        looked_at: true,
        ..crate::chains::ChainState::default()
    };
    let status = status_of(&node, &silent);
    assert_eq!(status.neuron, node.status.neuron);
    check(&status, c::CHAIN_SYNCED, ("False", "EndpointDown"));
}

#[test]
fn an_operator_that_has_just_started_takes_nothing_back() {
    let mut node = validator(|_| {});
    let mut body = status_body();
    body.group = Some(crate::fixtures::group_report("g", GroupRole::Leader, Some(1), 3));
    let known = Observed { pod: Some(ready_pod()), sidecar: Answer::Said(Arc::new(body)), ..observed() };
    node.status = status_of(&node, &known);
    check(&node.status, c::VOTER, ("True", "AsExpected"));
    let just_started = Observed {
        chain: crate::chains::ChainState::default(),
        sidecar: Answer::NotAsked,
        pod: Some(ready_pod()),
        ..observed()
    };
    assert_eq!(status_of(&node, &just_started), node.status);
}

#[test]
fn what_keeps_a_sidecar_from_signing_is_told_in_its_words() {
    let signer = |state: SignerState, reason: &str, detail: Option<&str>| SignerStatus {
        state,
        held_since: None,
        epoch: None,
        reason: reason.into(),
        detail: detail.map(Into::into),
    };
    let told = |signer: Option<SignerStatus>| {
        let sidecar = Answer::Said(Arc::new(sidecar_util::http::StatusBody { signer, ..status_body() }));
        let status = status_of(&validator(|_| {}), &Observed { sidecar, ..observed() });
        let condition = status.conditions.iter().find(|condition| condition.type_ == c::SIGNER_HELD).unwrap().clone();
        (condition.status, condition.reason, condition.message)
    };
    let expect = |status: &str, reason: &str, message: &str| (status.to_owned(), reason.to_owned(), message.to_owned());
    let held = expect("True", "AsExpected", "the sidecar holds the signing lease of the hotkey");
    assert_eq!(told(Some(signer(SignerState::Held, "Held", None))), held);
    for (state, status) in [
        (SignerState::Starting, "Unknown"),
        (SignerState::Released, "Unknown"),
        (SignerState::Waiting, "False"),
        (SignerState::Unreachable, "False"),
        (SignerState::MessagesOnly, "False"),
        (SignerState::ForeignSigner, "False"),
    ] {
        let said = expect(status, "MemoryFailed", "`/x` cannot be written: make it writable");
        assert_eq!(told(Some(signer(state, &said.1, Some(&said.2)))), said, "{state:?}");
    }
    assert_eq!(told(None), expect("Unknown", "Unknown", "the sidecar is starting"));
    check(&status_of(&validator(|_| {}), &observed()), c::SIGNER_HELD, ("Unknown", "Unknown"));
    let silent = Observed { sidecar: Answer::Silent, ..observed() };
    check(&status_of(&validator(|_| {}), &silent), c::SIGNER_HELD, ("Unknown", "SidecarSilent"));
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let mut node = validator(|_| {});
    node.status = status_of(&node, &observed());
    let later = Timestamp::from_second(1000).unwrap();
    let mut poor = observed();
    poor.chain.metagraph = Some(Arc::new(metagraph(&[(1, 99)])));
    let status = node_status(&node, &poor, &Outcome::default(), later);
    let time = |type_: &str| {
        status.conditions.iter().find(|condition| condition.type_ == type_).unwrap().last_transition_time.0
    };
    assert_eq!(time(c::REGISTERED), Timestamp::UNIX_EPOCH);
    assert_eq!(time(c::STAKE_SUFFICIENT), later);
}

#[test]
fn a_coldkey_that_does_not_own_the_hotkey_is_told() {
    let node = validator(|value| value["spec"]["coldkey"] = json!(hotkey(5).to_string()));
    check(&status_of(&node, &observed()), c::REGISTERED, ("False", "ForeignColdkey"));
}

#[test]
fn a_failing_container_is_named_with_its_last_words() {
    let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off" } });
    let last = json!({ "terminated": { "exitCode": 1, "message": "{\"level\":\"INFO\"}\nhotkey file is empty\n" } });
    let container = json!({
        "name": "sidecar", "ready": false, "restartCount": 3, "image": "", "imageID": "", "state": waiting, "lastState": last,
    });
    let pod = pod(json!({ "phase": "Pending", "initContainerStatuses": [container] }));
    let status = status_of(&validator(|_| {}), &Observed { pod: Some(pod), ..observed() });
    let ready = &status.conditions[0];
    assert_eq!(
        (ready.reason.as_str(), ready.message.as_str()),
        ("PodFailing", "container `sidecar`: CrashLoopBackOff: hotkey file is empty")
    );
}

#[test]
fn what_the_api_server_refused_is_an_invalid_spec() {
    let outcome =
        Outcome { rejected: Some("apply Pod: spec.containers[0].image: Required value".into()), ..Outcome::default() };
    let status = node_status(&validator(|_| {}), &observed(), &outcome, Timestamp::UNIX_EPOCH);
    check(&status, c::INVALID_SPEC, ("True", "RejectedByApiServer"));
    check(&status, c::READY, ("False", "RejectedByApiServer"));
}

#[test]
fn blocks_alone_are_written_once_a_tempo() {
    let node = validator(|_| {});
    let at = |block: u64, stake: u64, axon: bool| {
        let mut observed = observed();
        let mut metagraph = metagraph(&[(1, stake)]);
        metagraph.block = block;
        if axon {
            metagraph.neurons[0].axon = Some(sidecar_util::Axon {
                ip: [10, 0, 0, 1].into(),
                port: 8091,
                protocol: 0.into(),
                version: 1,
                block,
            });
        }
        observed.chain.metagraph = Some(Arc::new(metagraph));
        status_of(&node, &observed)
    };
    let old = at(100, 1000, false);
    assert!(!worth_writing(&old, &old, Some(40)));
    assert!(!worth_writing(&old, &at(120, 1001, false), Some(40)), "stake that stays sufficient can wait");
    assert!(worth_writing(&old, &at(140, 1001, false), Some(40)));
    assert!(worth_writing(&old, &at(101, 1000, true), Some(40)), "an axon is news at once");
    assert!(worth_writing(&old, &at(101, 99, false), Some(40)), "stake that no longer suffices is news at once");
}

#[test]
fn only_news_wakes_a_node() {
    let mut node = validator(|_| {});
    node.status = status_of(&node, &observed());
    let minimum = network().spec.minimum_stake.0;
    let wakes = |block: u64, stakes: &[(u8, u64)]| {
        let mut metagraph = metagraph(stakes);
        metagraph.block = block;
        chain_news(&node.status, metagraph.by_hotkey(&hotkey(1)), &metagraph, minimum)
    };
    assert!(!wakes(101, &[(1, 1000)]));
    assert!(wakes(101, &[(1, 99)]), "below the minimum");
    assert!(wakes(101, &[(2, 1000)]), "no longer registered");
    assert!(wakes(140, &[(1, 1000)]), "a tempo later");
}
