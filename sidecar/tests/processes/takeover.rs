//! Two sidecars with one key and one lease, asked for weights all the time, in every kind of trouble.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use serde_json::json;
use sidecar_util::http::SignerState;

use super::chain::Devchain;
use super::pod::{Pod, network, post};
use super::signer::{acknowledge, signal, state};
use super::until;
use super::wire::Wire;

/// How long a holder is stopped: longer than its lease.
const PAST_LEASE: Duration = Duration::from_secs(16);

/// What whoever asks for weights knows.
struct Asked {
    /// Number of the request that both sidecars are asked for now.
    number: AtomicU64,
    /// Hashes of the extrinsics that sidecars named in their answers, by number of the request.
    answered: Mutex<BTreeMap<u64, String>>,
    over: AtomicBool,
}

impl Asked {
    /// Asks one sidecar for weights until this is over. An answered request is followed by the next one.
    fn ask(&self, socket: &Path) {
        while !self.over.load(Ordering::SeqCst) {
            let number = self.number.load(Ordering::SeqCst);
            // The version key stands at the end of the extrinsic, where it tells which request this was.
            let body = json!({"uids": [0], "weights": [1.0], "version_key": number});
            let answer = post(socket, "/v1/weights", &[("idempotency-key", &number.to_string())], &body);
            let Some(answer) = answer.filter(|answer| answer.status == 200) else {
                sleep(Duration::from_millis(20));
                continue;
            };
            let extrinsic = answer.body["extrinsic"].as_str().unwrap().to_owned();
            let before = self.answered.lock().unwrap().insert(number, extrinsic.clone());
            assert!(before.is_none_or(|before| before == extrinsic), "request {number} was carried out twice");
            let _ = self.number.compare_exchange(number, number + 1, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Gives up the request that is open: whether it was carried out, nobody can tell any more.
    fn give_up(&self) {
        self.number.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until some more requests were carried out.
    fn goes_on(&self, what: &str) {
        let count = || self.answered.lock().unwrap().len();
        let before = count();
        until(what, || (count() >= before + 2).then_some(()));
    }
}

/// Says that it is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The two, and their wires to the chain.
struct Pair {
    pods: [Pod; 2],
    wires: [Wire; 2],
}

impl Pair {
    /// Which of them signs; never both do.
    fn holder(&self) -> usize {
        until("one signs", || {
            let held = self.pods.each_ref().map(|pod| state(pod) == Some(SignerState::Held));
            held.iter().position(|held| *held)
        })
    }

    fn takes_over(&self, other: usize) {
        until("the other one takes over", || (state(&self.pods[other]) == Some(SignerState::Held)).then_some(()));
    }

    fn is_out_of_sync(&self, which: usize) {
        self.pods[which].until("the cut is noticed", |status| !status.chain.synced);
    }
}

#[test]
fn no_weights_are_set_twice_whoever_is_stopped_killed_or_cut_off() {
    let chain = Devchain::start(&[(1, 5000)]);
    let directory = tempfile::tempdir().unwrap();
    let lease = directory.path().join("lease");
    // As often as it goes: here the chain is what keeps one request from being two.
    let policy = directory.path().join("policy.json");
    std::fs::write(&policy, r#"{"rates": {"weights": {"burst": 1000, "every_s": 0.01}}}"#).unwrap();
    let flags = ["--lease-file", lease.to_str().unwrap(), "--signer-policy", policy.to_str().unwrap()];
    let wires = [Wire::to(&chain), Wire::to(&chain)];
    let pods = wires.each_ref().map(|wire| {
        let mut pod = Pod::new("miner", 1);
        pod.flags = flags.map(str::to_owned).to_vec();
        let mut network = network(&chain);
        network.endpoints = vec![wire.endpoint()];
        pod.configure(&network);
        pod.run();
        pod
    });
    let hotkey = pods[0].hotkey;
    let sockets: [PathBuf; 2] = pods.each_ref().map(|pod| pod.path("sidecar.sock"));
    let asked =
        Asked { number: AtomicU64::new(1), answered: Mutex::new(BTreeMap::new()), over: AtomicBool::new(false) };
    scope(|threads| {
        // Dropped on a failure as well: the scope waits for those who ask.
        let _over = Over(&asked.over);
        for socket in &sockets {
            threads.spawn(|| asked.ask(socket));
        }
        trouble(&mut Pair { pods, wires }, &asked, &lease);
    });

    let mut carried_out = BTreeMap::new();
    for (block, extrinsic) in chain.rpc().signed_by(&hotkey) {
        let number = u64::from_le_bytes(*extrinsic.last_chunk().unwrap());
        let before = carried_out.insert(number, block);
        assert_eq!(before, None, "request {number} again in block {block}");
    }
    let answered = asked.answered.into_inner().unwrap();
    assert!(answered.len() >= 12, "{answered:?}");
    for number in answered.keys() {
        assert!(carried_out.contains_key(number), "request {number} was answered: {carried_out:?}");
    }
    // Of those that were given up some may have been carried out; beside them there is nothing.
    let unknown: Vec<u64> = carried_out.keys().filter(|number| !answered.contains_key(number)).copied().collect();
    assert!(unknown.len() <= GIVEN_UP, "{unknown:?}");
}

/// Requests that [`trouble`] gives up.
const GIVEN_UP: usize = 3;

fn trouble(pair: &mut Pair, asked: &Asked, lease: &Path) {
    asked.goes_on("weights are set");

    // A holder that is stopped keeps the lock, so that nobody signs meanwhile; and goes on afterwards.
    let (holder, other) = (pair.holder(), 1 - pair.holder());
    signal(&pair.pods[holder], "-STOP");
    let stopped = Instant::now();
    while stopped.elapsed() < PAST_LEASE {
        assert_ne!(state(&pair.pods[other]), Some(SignerState::Held));
        sleep(Duration::from_millis(100));
    }
    signal(&pair.pods[holder], "-CONT");
    asked.goes_on("weights are set after a stop");
    assert_eq!(pair.holder(), holder);

    // So does one that is cut off from the chain.
    pair.wires[holder].set_cut(true);
    pair.is_out_of_sync(holder);
    assert_ne!(state(&pair.pods[other]), Some(SignerState::Held));
    pair.wires[holder].set_cut(false);
    asked.goes_on("weights are set after a cut");
    assert_eq!(pair.holder(), holder);

    // One that is killed is followed by the other one, and stands by when it comes back.
    pair.pods[holder].kill();
    asked.give_up();
    pair.takes_over(other);
    asked.goes_on("weights are set by the other one");
    pair.pods[holder].run();
    pair.pods[holder]
        .until("stands by", |status| status.signer.as_ref().is_some_and(|signer| signer.state == SignerState::Waiting));

    // Cut off and then killed: what it sent last arrives when the other one has taken over.
    let (holder, other) = (other, holder);
    pair.wires[holder].set_cut(true);
    pair.is_out_of_sync(holder);
    pair.pods[holder].kill();
    asked.give_up();
    pair.takes_over(other);
    pair.wires[holder].set_cut(false);
    asked.goes_on("weights are set by the first one again");
    pair.pods[holder].run();
    pair.pods[holder]
        .until("stands by", |status| status.signer.as_ref().is_some_and(|signer| signer.state == SignerState::Waiting));

    // Somebody takes the lease away from a holder that is stopped: the other one has it by the time the first one wakes up.
    let (holder, other) = (other, holder);
    signal(&pair.pods[holder], "-STOP");
    asked.give_up();
    std::fs::remove_file(lease).unwrap();
    // What the stopped one sent last is in no record any more: if it comes into a block now, it looks like a stranger's,
    // and somebody has to say that it is not.
    until("the other one has the new lease", || {
        if state(&pair.pods[other]) == Some(SignerState::ForeignSigner) {
            acknowledge(&pair.pods[other]);
        }
        (state(&pair.pods[other]) == Some(SignerState::Held)).then_some(())
    });
    signal(&pair.pods[holder], "-CONT");
    pair.pods[holder]
        .until("it knows", |status| status.signer.as_ref().is_some_and(|signer| signer.state == SignerState::Waiting));
    asked.goes_on("weights are set by who has the lease");
    assert_eq!(pair.holder(), other);
}
