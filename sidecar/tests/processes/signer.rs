//! Who signs, what is signed, and what is not.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use sidecar_metagraph::keys::verify;
use sidecar_util::http::SignerState;

use super::chain::Devchain;
use super::pod::{Answer, Pod, network};
use super::{seed, until};

fn start(chain: &Devchain, flags: &[&str]) -> Pod {
    let mut pod = Pod::new("miner", 1);
    pod.configure(&network(chain));
    pod.run_with(flags);
    pod
}

pub(crate) fn state(pod: &Pod) -> Option<SignerState> {
    pod.status().and_then(|status| status.signer).map(|signer| signer.state)
}

fn sign(pod: &Pod, text: &str) -> Answer {
    pod.post("/v1/sign", &[], &json!({"domain": "bytes", "text": text})).unwrap()
}

fn epoch(pod: &Pod) -> u64 {
    pod.status().unwrap().signer.unwrap().epoch.unwrap()
}

/// Weights of the own neuron alone, which need no permit.
pub(crate) fn set_weights(pod: &Pod, key: &str) -> Answer {
    pod.post("/v1/weights", &[("idempotency-key", key)], &json!({"uids": [0], "weights": [1.0]})).unwrap()
}

pub(crate) fn signal(pod: &Pod, name: &str) {
    let pid = pod.pid().unwrap().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

#[test]
fn two_sidecars_with_one_key_on_one_machine_sign_one_at_a_time() {
    let chain = Devchain::start(&[(1, 5000)]);
    let directory = tempfile::tempdir().unwrap();
    let lease = directory.path().join("lease").display().to_string();
    let flags = ["--lease-file", lease.as_str()];
    let (mut first, second) = (start(&chain, &flags), start(&chain, &flags));
    until("one signs", || {
        let held = [&first, &second].into_iter().filter(|pod| state(pod) == Some(SignerState::Held)).count();
        (held == 1).then_some(())
    });
    let mut second = second;
    if state(&second) == Some(SignerState::Held) {
        std::mem::swap(&mut first, &mut second);
    }

    let answer = sign(&first, "hello");
    assert_eq!((answer.status, &answer.body["scheme"]), (200, &json!("sr25519")), "{}", answer.body);
    let signature = hex::decode(&answer.body["signature"].as_str().unwrap()[2..]).unwrap();
    assert!(verify(&first.hotkey, b"<Bytes>hello</Bytes>", signature.as_slice().try_into().unwrap()));
    let answer = sign(&second, "hello");
    assert_eq!((answer.status, &answer.body["type"]), (503, &json!("urn:mycelium:signer-not-held")));
    assert_eq!(answer.body["reason"], json!("HeldByAnother"), "{}", answer.body);
    assert_eq!(set_weights(&second, "b").status, 503);
    // Everything else goes on.
    assert_eq!(second.get_by_socket("/v1/metagraph").unwrap().status, 200);

    let answer = set_weights(&first, "a");
    assert_eq!((answer.status, &answer.body["finalized"]), (200, &json!(true)), "{}", answer.body);
    let again = set_weights(&first, "a");
    assert_eq!((again.status, &again.body), (200, &answer.body), "the same key is the same weights");
    let block = answer.body["block"].as_u64().unwrap();
    first
        .until("the own weights are seen", |status| status.neuron.as_ref().is_some_and(|own| own.last_update == block));
    assert_eq!(sign(&first, "and on").status, 200, "its own work is no other signer's");

    // A holder that stands still is not replaced behind its back.
    let before = epoch(&first);
    signal(&first, "-STOP");
    sleep(Duration::from_secs(8));
    assert_eq!(state(&second), Some(SignerState::Waiting));
    signal(&first, "-CONT");
    until("signs again", || (sign(&first, "awake").status == 200).then_some(()));
    assert_eq!((epoch(&first), sign(&second, "now?").status), (before, 503));

    // One that ended is.
    first.kill();
    until("the other one takes over", || (sign(&second, "mine now").status == 200).then_some(()));
    assert!(epoch(&second) > before);
}

#[test]
fn who_asks_until_a_predecessors_extrinsics_are_dead_has_not_asked_too_often() {
    let mut chain = Devchain::new(&[(1, 5000)]);
    // What was sent is out of the way when a final block is past its era: longer here than it takes to get the lease.
    chain.flags = ["--finality-lag", "60"].map(ToOwned::to_owned).to_vec();
    chain.run();
    let mut pod = start(&chain, &[]);
    let axon = |port: u16| json!({"ip": "10.1.2.3", "port": port, "wait": "none"});
    assert_eq!(submit(&pod, "/v1/axon", "before", &axon(1)).status, 202);
    pod.kill();
    pod.run();
    let mut refused = 0;
    let sent = until("what was sent before is dead", || {
        let answer = pod.post("/v1/axon", &[], &axon(2))?;
        if answer.status == 202 || answer.body["type"] == "urn:mycelium:rate-limited" {
            return Some(answer);
        }
        refused += u32::from(answer.body["reason"] == "NotPermitted");
        None
    });
    // Of those that are sent, three are allowed in 15 minutes.
    assert_eq!(sent.status, 202, "{}", sent.body);
    assert!(refused > 3, "only {refused} were refused before");
}

/// Asks again until the signer holds its lease.
fn submit(pod: &Pod, path: &str, key: &str, body: &Value) -> Answer {
    until("the signer answers", || {
        pod.post(path, &[("idempotency-key", key)], body).filter(|answer| answer.status != 503)
    })
}

#[test]
fn a_submission_waits_for_no_more_than_it_is_asked_to_and_is_made_once() {
    let mut chain = Devchain::new(&[(1, 5000)]);
    // So far behind that nothing that is in a block is final when it is told of, on a slow machine as well.
    chain.flags = ["--finality-lag", "24"].map(ToOwned::to_owned).to_vec();
    chain.run();
    let mut pod = Pod::new("miner", 1);
    pod.configure(&network(&chain));
    // Asking often is what this is about.
    let often = json!({"burst": 100, "every_s": 0.1});
    let policy = json!({"rates": {"weights": often, "axon": often, "commitment": often}});
    std::fs::write(pod.path("policy.json"), policy.to_string()).unwrap();
    pod.flags = vec!["--signer-policy".to_owned(), pod.path("policy.json").display().to_string()];
    pod.run();
    let weights = |wait: &str| json!({"uids": [0], "weights": [1.0], "wait": wait});
    let account = pod.hotkey.to_string();
    let made = |count: u64, what: &str| assert_eq!(chain.rpc().nonce(&account), count, "{what}");

    for path in ["/v1/weights", "/v1/axon", "/v1/commitments"] {
        let body = match path {
            "/v1/weights" => weights("sometimes"),
            "/v1/axon" => json!({"ip": "10.1.2.3", "port": 8091, "wait": "sometimes"}),
            _ => json!({"text": "x", "wait": "sometimes"}),
        };
        let answer = submit(&pod, path, "wrong", &body);
        assert_eq!((answer.status, &answer.body["type"]), (400, &json!("urn:mycelium:invalid-parameter")));
        let error = &answer.body["errors"][0];
        assert_eq!((&error["field"], &error["value"]), (&json!("wait"), &json!("sometimes")), "{}", answer.body);
        let expected = error["expected"].as_str().unwrap();
        assert!(expected.contains("none, inclusion, finalization: leave it out"), "{expected}");
    }

    let sent = submit(&pod, "/v1/weights", "one", &weights("none"));
    assert_eq!(sent.status, 202, "{}", sent.body);
    let shown = (&sent.body["block"], &sent.body["block_hash"], &sent.body["finalized"], &sent.body["method"]);
    assert_eq!(shown, (&Value::Null, &Value::Null, &json!(false), &json!("plain")));
    // The journal has it, whatever becomes of the process, and asking again is no second submission.
    pod.kill();
    pod.run();
    let included = submit(&pod, "/v1/weights", "one", &weights("inclusion"));
    assert_eq!((included.status, &included.body["extrinsic"]), (200, &sent.body["extrinsic"]), "{}", included.body);
    let block = included.body["block"].as_u64().unwrap();
    assert_eq!(included.body["finalized"], false, "{}", included.body);
    let known = submit(&pod, "/v1/weights", "one", &weights("none"));
    assert_eq!((known.status, &known.body), (200, &included.body), "what is known is told");
    let done = submit(&pod, "/v1/weights", "one", &json!({"uids": [0], "weights": [1.0]}));
    let shown = (done.status, done.body["block"].as_u64(), &done.body["finalized"], &done.body["extrinsic"]);
    assert_eq!(shown, (200, Some(block), &json!(true), &sent.body["extrinsic"]), "final where nothing is said");
    made(1, "weights");

    let axon = |wait: &str| json!({"ip": "10.1.2.3", "port": 8091, "wait": wait});
    let sent = submit(&pod, "/v1/axon", "one", &axon("none"));
    assert_eq!((sent.status, &sent.body["method"], &sent.body["block"]), (202, &json!("served"), &Value::Null));
    let done = submit(&pod, "/v1/axon", "one", &axon("finalization"));
    let shown = (done.status, &done.body["method"], &done.body["finalized"], &done.body["extrinsic"]);
    assert_eq!(shown, (200, &json!("served"), &json!(true), &sent.body["extrinsic"]), "the same key is the same axon");
    let already = submit(&pod, "/v1/axon", "two", &axon("none"));
    assert_eq!((already.status, &already.body["method"]), (200, &json!("already")), "{}", already.body);
    made(2, "axon");

    let text = |wait: &str| json!({"text": "model 7", "wait": wait});
    let included = submit(&pod, "/v1/commitments", "one", &text("inclusion"));
    assert_eq!((included.status, &included.body["finalized"]), (200, &json!(false)), "{}", included.body);
    let done = submit(&pod, "/v1/commitments", "one", &text("finalization"));
    assert_eq!((done.status, &done.body["extrinsic"]), (200, &included.body["extrinsic"]), "{}", done.body);
    made(3, "commitment");
}

/// Says that what was found is in order.
pub(crate) fn acknowledge(pod: &Pod) {
    let head = pod.status().unwrap().chain.block.unwrap();
    let early = pod.post("/v1/signer/acknowledge", &[], &json!({"before_block": 1})).unwrap();
    assert_eq!(early.status, 409, "{}", early.body);
    let answer = pod.post("/v1/signer/acknowledge", &[], &json!({"before_block": head + 1})).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[test]
fn a_copy_of_the_key_elsewhere_is_seen_on_the_chain_and_stops_signing_until_it_is_acknowledged() {
    let chain = Devchain::start(&[(1, 5000)]);
    // Each has a lease of its own, as in two clusters.
    let (here, there) = (start(&chain, &[]), start(&chain, &[]));
    for pod in [&here, &there] {
        pod.until("signs", |status| status.signer.as_ref().is_some_and(|signer| signer.state == SignerState::Held));
    }
    let answer = set_weights(&there, "there");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let status = here.until("the other one is seen", |status| {
        status.signer.as_ref().is_some_and(|signer| signer.state == SignerState::ForeignSigner)
    });
    let detail = status.signer.unwrap().detail.unwrap();
    assert!(detail.contains("find and stop it") && detail.contains("--accept-foreign-signer-before"), "{detail}");
    let answer = sign(&here, "hello");
    assert_eq!((answer.status, &answer.body["type"]), (409, &json!("urn:mycelium:foreign-signer")));
    assert_eq!(sign(&there, "hello").status, 200);
    let metrics = until("metrics", || here.text("/metrics"));
    assert!(metrics.contains("mycelium_sidecar_signer_foreign_seen 1"), "{metrics}");
    acknowledge(&here);
    assert_eq!(sign(&here, "hello").status, 200);
}

#[test]
fn without_a_place_for_its_journal_it_signs_messages_only_and_says_why_until_there_is_one() {
    let chain = Devchain::start(&[(1, 5000)]);
    let mut pod = Pod::new("miner", 1);
    pod.configure(&network(&chain));
    // A file where the journal's folder should be.
    let journal = pod.path("data").join("signer/extrinsics");
    std::fs::create_dir_all(journal.parent().unwrap()).unwrap();
    std::fs::write(&journal, "").unwrap();
    pod.run();
    let status = pod.until("says so", |status| {
        status.signer.as_ref().is_some_and(|signer| signer.state == SignerState::MessagesOnly)
    });
    let signer = status.signer.unwrap();
    let detail = signer.detail.unwrap();
    assert_eq!(signer.reason, "MemoryFailed");
    assert!(
        detail.contains(&journal.display().to_string()) && detail.contains("extrinsics cannot be made"),
        "{detail}"
    );
    assert_eq!(sign(&pod, "hello").status, 200);
    let refused = set_weights(&pod, "a");
    assert_eq!((refused.status, &refused.body["reason"]), (503, &json!("MemoryFailed")), "{}", refused.body);

    std::fs::remove_file(&journal).unwrap();
    pod.until("signs all", |status| status.signer.as_ref().is_some_and(|signer| signer.state == SignerState::Held));
    let answer = set_weights(&pod, "a");
    assert_eq!((answer.status, &answer.body["finalized"]), (200, &json!(true)), "{}", answer.body);
}

#[test]
fn the_key_shows_nowhere_and_signing_is_for_the_socket_only() {
    let chain = Devchain::start(&[(1, 5000)]);
    let mut pod = start(&chain, &["--log", "trace"]);
    pod.until("signs", |status| status.signer.as_ref().is_some_and(|signer| signer.state == SignerState::Held));
    let body = json!({"domain": "bytes", "text": "a very private message"});
    let signed = pod.post("/v1/sign", &[("idempotency-key", "k")], &body).unwrap();
    assert_eq!(signed.status, 200, "{}", signed.body);
    let again = pod.post("/v1/sign", &[("idempotency-key", "k")], &body).unwrap();
    assert_eq!(again.body, signed.body, "a repeated request is one request");
    let other = pod.post("/v1/sign", &[("idempotency-key", "k")], &json!({"domain": "bytes", "text": "b"})).unwrap();
    assert_eq!((other.status, &other.body["type"]), (422, &json!("urn:mycelium:idempotency-key-reused")));
    for path in ["/v1/sign", "/v1/weights", "/v1/axon", "/v1/commitments", "/v1/signer/acknowledge"] {
        let status = pod.post_by_tcp(path, &body).unwrap().status;
        assert!([403, 404].contains(&status), "{path}: {status}");
    }
    let refused = |path: &str, body: Value, status: u16, part: &str| {
        let answer = pod.post(path, &[], &body).unwrap();
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        assert!(answer.body["detail"].as_str().unwrap().contains(part), "{}", answer.body);
    };
    refused(
        "/v1/sign",
        json!({"domain": "raw", "text": "x"}),
        403,
        "domain: `raw` is no domain of the signer's policy",
    );
    refused("/v1/sign", json!({"domain": "bytes"}), 400, "message: `` is needed once");
    refused("/v1/sign", json!({"domain": "bytes", "message": "%"}), 400, "is not base64");
    refused("/v1/sign", json!({"domain": "bytes", "text": "x", "more": 1}), 400, "unknown field `more`");
    refused("/v1/weights", json!({"uids": [0, 0], "weights": [1, 1]}), 403, "uids[1]: `0` is in the list twice");
    refused("/v1/weights", json!({"uids": [7], "weights": [1]}), 403, "is no uid of the subnet");
    refused("/v1/commitments", json!({"text": "x".repeat(200)}), 400, "128");
    let axon = pod.post("/v1/axon", &[], &json!({"ip": "10.1.2.3", "port": 8091})).unwrap();
    assert_eq!((axon.status, &axon.body["method"]), (200, &json!("served")), "{}", axon.body);
    let axon = pod.post("/v1/axon", &[], &json!({"ip": "10.1.2.3", "port": 8091})).unwrap();
    assert_eq!((axon.status, &axon.body["method"]), (200, &json!("already")), "{}", axon.body);

    let mut shown = Vec::new();
    for name in ["environ", "cmdline", "status", "maps"] {
        shown.push(std::fs::read(format!("/proc/{}/{name}", pod.pid().unwrap())).unwrap());
    }
    for path in ["/v1/status", "/v1/signer", "/metrics"] {
        shown.push(pod.get_by_socket(path).unwrap().body.to_string().into_bytes());
    }
    assert!(pod.terminate().success());
    let mut folders = vec![pod.path("data")];
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if file.file_type().unwrap().is_dir() {
                folders.push(file.path());
            } else {
                shown.push(std::fs::read(file.path()).unwrap());
            }
        }
    }
    let log = std::fs::read(pod.path("log")).unwrap();
    let text = String::from_utf8_lossy(&log);
    assert!(text.contains("sidecar::audit") && text.contains("epoch"), "each signature leaves a line");
    assert!(!text.contains("a very private message"));
    shown.push(log);
    let seed = seed(1);
    let base64 = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
    for needle in [seed.as_slice(), hex::encode(seed).as_bytes(), base64.as_bytes()] {
        for haystack in &shown {
            assert!(!haystack.windows(needle.len()).any(|window| window == needle));
        }
    }
}

#[test]
fn a_policy_that_cannot_be_used_keeps_it_from_starting() {
    let chain = Devchain::new(&[(1, 5000)]);
    let pod = Pod::new("miner", 1);
    pod.configure(&network(&chain));
    let policy = pod.path("policy.json");
    std::fs::write(&policy, r#"{"calls": ["transfer_keep_alive"]}"#).unwrap();
    let output = pod.command().arg("--signer-policy").arg(&policy).args(["--log", "error"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains("policy.json") && stderr.contains("unknown variant `transfer_keep_alive`"), "{stderr}");
}
