//! What goes wrong on the way, each named after the report of those it hurt.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value as Json, json};
use sidecar_metagraph::extrinsics::{
    Call, CommitmentField, FailureClass, Gate, GateError, Intent, OpenGate, Probe, Step, SubmitConfig, SubmitError,
    Submitted, Submitter, Wait,
};
use subxt::dynamic::Value;

use crate::lab::{Admin, Lab, NETUID, alice, bob, intent, set_weights, submit};

const WEIGHTS_SET: (&str, &str) = ("SubtensorModule", "WeightsSet");

#[tokio::test(flavor = "multi_thread")]
async fn agent_arena_135_an_outdated_transaction_is_signed_again() {
    let lab = Lab::start(&json!({}), &[]);
    lab.fault(&json!({ "kind": "pool_error", "code": 1010, "times": 2 }));
    let submitter = lab.submitter();
    submit(&submitter, "a", set_weights(&[1], &[1])).await.unwrap();
    assert_eq!(lab.count(WEIGHTS_SET.0, WEIGHTS_SET.1).await, 1);
    submitter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subtensor_641_priority_too_low_is_no_second_submission() {
    let lab = Lab::start(&json!({}), &[]);
    lab.fault(&json!({ "kind": "pool_error", "code": 1014, "times": 1 }));
    let submitter = lab.submitter();
    submit(&submitter, "once", set_weights(&[1], &[1])).await.unwrap();
    assert_eq!(lab.count(WEIGHTS_SET.0, WEIGHTS_SET.1).await, 1);
    // Whoever always bids more is told of, not fought.
    lab.fault(&json!({ "kind": "pool_error", "code": 1014 }));
    let error = submit(&submitter, "never", set_weights(&[2], &[1])).await.unwrap_err();
    assert_eq!(error.chain_error(), Some("PriorityTooLow"), "{error}");
    assert!(error.remedy().contains("second process"), "{error}");
    lab.lift("pool_error");
    submit(&submitter, "never", set_weights(&[2], &[1])).await.unwrap();
    assert_eq!(lab.count(WEIGHTS_SET.0, WEIGHTS_SET.1).await, 2);
    submitter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn masa_49_setting_weights_too_fast_waits() {
    let lab = Lab::start(&json!({ "weights_rate_limit": 500 }), &[]);
    let submitter = lab.submitter();
    submit(&submitter, "first", set_weights(&[1], &[1])).await.unwrap();
    let error = submit(&submitter, "too soon", set_weights(&[2], &[1])).await.unwrap_err();
    let FailureClass::WaitBlocks(blocks) = error.class() else { panic!("{error:?}") };
    assert!((400..500).contains(&blocks), "{blocks}");
    // It is as good as its word.
    lab.blocks(u32::try_from(blocks).unwrap());
    submit(&submitter, "too soon", set_weights(&[2], &[1])).await.unwrap();
    assert_eq!(lab.count(WEIGHTS_SET.0, WEIGHTS_SET.1).await, 2);
    submitter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bittensor_2444_no_freeze_waiting_for_inclusion() {
    let lab = Lab::start(&json!({}), &[]);
    let config = SubmitConfig { patience: Duration::from_secs(2), ..lab.config() };
    let submitter = Submitter::spawn(config, alice(), Arc::new(OpenGate)).unwrap();
    lab.fault(&json!({ "kind": "stall" }));
    let started = Instant::now();
    let error = submitter.handle().submit(intent("a", set_weights(&[1], &[1]))).await.unwrap_err();
    assert!(matches!(error, SubmitError::Pending { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    lab.lift("stall");
    let mut answer = Err(error);
    while let Err(SubmitError::Pending { .. }) = answer {
        answer = submitter.handle().submit(intent("a", set_weights(&[1], &[1]))).await;
    }
    answer.unwrap();
    assert_eq!(lab.count(WEIGHTS_SET.0, WEIGHTS_SET.1).await, 1);
    submitter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dippy_126_a_deadline_of_the_caller_leads_to_no_second_submission() {
    let lab = Lab::start(&json!({}), &[]);
    let submitter = lab.submitter();
    let handle = submitter.handle();
    lab.fault(&json!({ "kind": "stall" }));
    // The caller gives up wherever the submission is, twice, and asks again.
    for patience_ms in [3, 600] {
        let asked = handle.submit(intent("a", set_weights(&[1], &[1])));
        assert!(tokio::time::timeout(Duration::from_millis(patience_ms), asked).await.is_err());
    }
    lab.lift("stall");
    submit(&submitter, "a", set_weights(&[1], &[1])).await.unwrap();
    lab.blocks(3);
    assert_eq!(lab.count(WEIGHTS_SET.0, WEIGHTS_SET.1).await, 1);
    submitter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadpoet_69_weights_get_through_when_an_endpoint_times_out() {
    let lab = Lab::start(&json!({}), &[]);
    // The first socket falls silent in the middle of the submission. A dead endpoint stands before the good one.
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead_endpoint = format!("ws://{}", dead.local_addr().unwrap());
    drop(dead);
    lab.fault(&json!({ "kind": "half_open", "after_replies": 14, "times": 1 }));
    let config = SubmitConfig { endpoints: vec![dead_endpoint, lab.endpoint.clone()], ..lab.config() };
    let submitter = Submitter::spawn(config, alice(), Arc::new(OpenGate)).unwrap();
    submit(&submitter, "a", set_weights(&[1], &[1])).await.unwrap();
    assert!(lab.has_struck("half_open"));
    assert_eq!(lab.count(WEIGHTS_SET.0, WEIGHTS_SET.1).await, 1);
    submitter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_drop_at_any_reply_lead_to_one_submission_each() {
    let lab = Lab::start(&json!({}), &[]);
    // Connecting takes some replies, signing and sending the next, following the rest.
    let cuts: Vec<u32> = (8..=26).collect();
    let mut struck = 0;
    for cut in &cuts {
        lab.fault(&json!({ "kind": "drop", "after_replies": cut, "times": 1 }));
        let submitter = lab.submitter();
        submit(&submitter, &format!("cut {cut}"), set_weights(&[1], &[1])).await.unwrap();
        submitter.shutdown().await;
        struck += usize::from(lab.has_struck("drop"));
    }
    // The last cuts may come after the end of a quick submission.
    assert!(struck >= cuts.len() / 2, "{struck} of {}", cuts.len());
    assert_eq!(lab.count(WEIGHTS_SET.0, WEIGHTS_SET.1).await, cuts.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_endpoint_is_asked_once_a_second_and_takes_each_submission_once() {
    // Each block that may hold the extrinsic is a call, so that one call a second does not keep up with fast blocks.
    let lab = Lab::start(&json!({}), &["--block-time", "4s"]);
    lab.fault(&json!({ "kind": "rate_limit", "per_second": 1 }));
    let submitter = lab.submitter();
    let included = |key: &str| Intent { wait: Wait::Included, ..intent(key, set_weights(&[1], &[1])) };
    submitter.handle().submit(included("first")).await.unwrap();
    // What met the limit was the first call that was one too many, and what was under way beside it.
    let struck = lab.struck("rate_limit");
    assert!((1..=3).contains(&struck), "{struck}");
    submitter.handle().submit(included("second")).await.unwrap();
    assert_eq!(lab.struck("rate_limit"), struck, "from then on the pace is kept");
    lab.lift("rate_limit");
    // Asked for again it is no other one; now it is final, and counted below.
    submit(&submitter, "second", set_weights(&[1], &[1])).await.unwrap();
    assert_eq!(lab.count(WEIGHTS_SET.0, WEIGHTS_SET.1).await, 2);
    submitter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_asked_for_silence_is_not_asked_by_the_next_submitter_either() {
    let lab = Lab::start(&json!({}), &[]);
    let limited = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("ws://{}", limited.local_addr().unwrap());
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    std::thread::spawn(move || {
        for stream in limited.incoming().map_while(Result::ok) {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4096];
            let _ = (&stream).read(&mut request);
            let answer = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 240\r\nContent-Length: 0\r\n\r\n";
            let _ = (&stream).write_all(answer.as_bytes());
        }
    });
    let config = SubmitConfig { endpoints: vec![endpoint, lab.endpoint.clone()], ..lab.config() };
    for key in ["a", "b"] {
        // The paces outlive the submitter, as they do when a Network's description changes.
        let submitter = Submitter::spawn(config.clone(), alice(), Arc::new(OpenGate)).unwrap();
        submit(&submitter, key, set_weights(&[1], &[1])).await.unwrap();
        submitter.shutdown().await;
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(lab.count(WEIGHTS_SET.0, WEIGHTS_SET.1).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn template_133_commitment_rate_limit() {
    let lab = Lab::start(&json!({}), &[]);
    lab.sudo("Commitments", "set_max_space", vec![("new_limit", Value::u128(150))]).await;
    let submitter = lab.submitter();
    let commit = |byte| Call::SetCommitment { netuid: NETUID, fields: vec![CommitmentField::Raw(vec![byte; 10])] };
    // The first of an epoch fits, the second does not.
    let mut answers = Vec::new();
    for byte in 0..3 {
        answers.push(submit(&submitter, &format!("{byte}"), commit(byte)).await);
    }
    let error = answers.into_iter().find_map(Result::err).expect("one was too much");
    assert_eq!(error.chain_error(), Some("SpaceLimitExceeded"), "{error}");
    assert!(matches!(error.class(), FailureClass::WaitBlocks(1..=11)), "{error:?}");
    submitter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_pool_have_names_and_classes_and_leave_the_key_free() {
    let lab = Lab::start(&json!({ "weights_rate_limit": 100 }), &[]);
    let submitter = lab.submitter();
    let check = async |fault: Json, name: &str, right: fn(FailureClass) -> bool| {
        lab.fault(&fault);
        let error = submit(&submitter, "a", set_weights(&[1], &[1])).await.unwrap_err();
        assert!(matches!(error, SubmitError::Refused { .. }), "{error:?}");
        assert_eq!(error.chain_error(), Some(name), "{error}");
        assert!(right(error.class()), "{error:?}");
    };
    let fault = |code, custom: Json| json!({ "kind": "pool_error", "code": code, "custom": custom, "times": 1 });
    check(fault(1012, Json::Null), "TemporarilyBanned", |class| class == FailureClass::WaitBlocks(25)).await;
    check(fault(1010, 6.into()), "RateLimitExceeded", |class| matches!(class, FailureClass::WaitBlocks(_))).await;
    check(fault(1010, 1.into()), "StakeAmountTooLow", |class| class == FailureClass::Configuration).await;
    check(fault(1010, 10.into()), "HotKeyNotRegisteredInNetwork", |class| class == FailureClass::Stop).await;
    check(fault(1010, 99.into()), "Custom99", |class| class == FailureClass::Stop).await;
    assert_eq!(lab.count(WEIGHTS_SET.0, WEIGHTS_SET.1).await, 0);
    submit(&submitter, "a", set_weights(&[1], &[1])).await.unwrap();
    submitter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_failed_in_its_block_is_done_and_not_sent_again() {
    let lab = Lab::start(&json!({}), &[]);
    let config = SubmitConfig { journal_dir: lab.directory.path().join("bob"), ..lab.config() };
    let submitter = Submitter::spawn(config.clone(), bob(), Arc::new(OpenGate)).unwrap();
    let failed = async |submitter: &Submitter| {
        let error = submit(submitter, "a", set_weights(&[0, 2], &[1, 1])).await.unwrap_err();
        assert_eq!(error.chain_error(), Some("NeuronNoValidatorPermit"), "{error}");
        assert_eq!(error.class(), FailureClass::Stop);
        assert!(error.remedy().contains("permit"), "{error}");
    };
    failed(&submitter).await;
    failed(&submitter).await;
    submitter.shutdown().await;
    let submitter = Submitter::spawn(config, bob(), Arc::new(OpenGate)).unwrap();
    failed(&submitter).await;
    assert_eq!(lab.count("System", "ExtrinsicFailed").await, 1);
    let error = submit(&submitter, "a", set_weights(&[1], &[1])).await.unwrap_err();
    assert!(matches!(error, SubmitError::KeyReused { .. }), "{error}");
    submitter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganisation_of_its_block_neither_loses_nor_doubles_it() {
    let lab = Lab::start(&json!({}), &["--finality-lag", "6"]);
    let submitter = lab.submitter();
    let handle = submitter.handle();
    let weights = |wait| Intent { wait, ..intent("a", set_weights(&[1], &[1])) };
    let sent = handle.submit(weights(Wait::Sent)).await.unwrap();
    let Submitted::Sent { extrinsic_hash } = sent else { panic!("{sent:?}") };
    let first = handle.submit(weights(Wait::Included)).await.unwrap().receipt().unwrap();
    assert_eq!((first.extrinsic_hash, first.finalized), (extrinsic_hash, false));
    let known = handle.submit(weights(Wait::Sent)).await.unwrap();
    assert_eq!(known.receipt().as_ref(), Some(&first), "what is known is told");
    lab.admin().post("/reorg", &json!({ "blocks": 3 }));
    let last = submit(&submitter, "a", set_weights(&[1], &[1])).await.unwrap();
    assert!(last.finalized);
    assert_ne!(first.block_hash, last.block_hash);
    assert_eq!(lab.count(WEIGHTS_SET.0, WEIGHTS_SET.1).await, 1);
    submitter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fiber_5_3_10_what_nobody_waits_for_is_refused_while_somebody_does_and_is_no_second_submission() {
    let lab = Lab::start(&json!({}), &[]);
    lab.fault(&json!({ "kind": "pool_error", "code": 1010, "times": 2 }));
    let submitter = lab.submitter();
    let sent = |key| Intent { wait: Wait::Sent, ..intent(key, set_weights(&[1], &[1])) };
    // A node that takes nothing has nothing: the caller hears of what the pool took in the end.
    let first = submitter.handle().submit(sent("a")).await.unwrap();
    assert!(lab.has_struck("pool_error"));
    let Submitted::Sent { extrinsic_hash } = first else { panic!("{first:?}") };
    let again = submitter.handle().submit(sent("a")).await.unwrap();
    let done = submit(&submitter, "a", set_weights(&[1], &[1])).await.unwrap();
    assert_eq!((done.extrinsic_hash, done.finalized), (extrinsic_hash, true), "{again:?}");
    // What the pool refuses for good is told to who waits for no more than the pool.
    lab.fault(&json!({ "kind": "pool_error", "code": 1014 }));
    let error = submitter.handle().submit(sent("b")).await.unwrap_err();
    assert_eq!(error.chain_error(), Some("PriorityTooLow"), "{error}");
    assert_eq!(lab.count(WEIGHTS_SET.0, WEIGHTS_SET.1).await, 1);
    submitter.shutdown().await;
}

/// Does something to the chain right after a step, once.
struct Meanwhile {
    step: Step,
    done: AtomicBool,
    act: Box<dyn Fn() + Send + Sync>,
}

impl Meanwhile {
    fn at(step: Step, act: impl Fn() + Send + Sync + 'static) -> Arc<dyn Probe> {
        Arc::new(Self { step, done: AtomicBool::new(false), act: Box::new(act) })
    }
}

impl Probe for Meanwhile {
    fn kill_after(&self, step: Step) -> bool {
        if step == self.step && !self.done.swap(true, Ordering::SeqCst) {
            (self.act)();
        }
        false
    }
}

async fn survives(act: impl Fn(&Admin) + Send + Sync + 'static, step: Step, era_blocks: u64) {
    let lab = Lab::start(&json!({}), &[]);
    let admin = lab.admin();
    let config = SubmitConfig { probe: Some(Meanwhile::at(step, move || act(&admin))), era_blocks, ..lab.config() };
    let submitter = Submitter::spawn(config, alice(), Arc::new(OpenGate)).unwrap();
    let receipt = submit(&submitter, "a", set_weights(&[1], &[1])).await.unwrap();
    assert!(receipt.has_event(WEIGHTS_SET.0, WEIGHTS_SET.1), "{receipt:?}");
    assert_eq!(lab.count(WEIGHTS_SET.0, WEIGHTS_SET.1).await, 1);
    submitter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_between_signing_and_sending_is_signed_again() {
    survives(|admin| admin.post("/upgrade", &Json::Null), Step::Signed, 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_right_after_sending_is_read_in_the_old_language() {
    survives(|admin| admin.post("/upgrade", &Json::Null), Step::Sent, 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_era_that_passed_before_sending_is_signed_again() {
    survives(|admin| admin.post("/blocks", &json!({ "blocks": 20 })), Step::Signed, 8).await;
}

/// A guard that says no at the nth question.
struct NoAt {
    asked: AtomicU32,
    no_from: u32,
}

#[async_trait]
impl Gate for NoAt {
    async fn permit(&self, _call: &Call) -> Result<(), GateError> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        if asked < self.no_from {
            return Ok(());
        }
        Err(GateError { reason: "another process signs for this hotkey".to_owned(), class: FailureClass::Stop })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_gate_nothing_is_signed_and_nothing_that_was_signed_is_sent() {
    let lab = Lab::start(&json!({}), &[]);
    for no_from in [0, 1] {
        let config = SubmitConfig { journal_dir: lab.directory.path().join(no_from.to_string()), ..lab.config() };
        let gate = Arc::new(NoAt { asked: AtomicU32::new(0), no_from });
        let submitter = Submitter::spawn(config.clone(), alice(), gate.clone()).unwrap();
        let error = submit(&submitter, "a", set_weights(&[1], &[1])).await.unwrap_err();
        assert!(matches!(error, SubmitError::Gate { .. }), "{error}");
        assert_eq!(error.class(), FailureClass::Stop);
        assert_eq!(gate.asked.load(Ordering::SeqCst), no_from + 1);
        submitter.shutdown().await;
    }
    lab.blocks(3);
    assert_eq!(lab.count(WEIGHTS_SET.0, WEIGHTS_SET.1).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_chain_is_told_by_its_genesis() {
    let lab = Lab::start(&json!({}), &[]);
    let expected = sidecar_util::BlockHash([1; 32]);
    let config = SubmitConfig { genesis_hash: Some(expected), ..lab.config() };
    let submitter = Submitter::spawn(config, alice(), Arc::new(OpenGate)).unwrap();
    let error = submit(&submitter, "a", set_weights(&[1], &[1])).await.unwrap_err();
    assert!(matches!(error, SubmitError::Genesis { found, .. } if found == lab.genesis_hash), "{error}");
    submitter.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_intents_at_once_each_happen_once() {
    let lab = Lab::start(&json!({}), &[]);
    let submitter = lab.submitter();
    let all = (0..12).map(|i| submit(&submitter, if i < 6 { "same" } else { KEYS[i] }, set_weights(&[1], &[1])));
    for answer in futures::future::join_all(all).await {
        answer.unwrap();
    }
    assert_eq!(lab.count(WEIGHTS_SET.0, WEIGHTS_SET.1).await, 7);
    submitter.shutdown().await;
}

const KEYS: [&str; 12] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"];
