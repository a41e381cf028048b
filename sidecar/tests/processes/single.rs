//! One sidecar: what it says, and how it starts and fails to start.

use std::process::Output;

use sidecar_util::BlockHash;
use sidecar_util::NetUid;
use sidecar_util::config::NetworkConfig;

use super::chain::Devchain;
use super::pod::{Pod, network};
use super::until;

fn start(chain: &Devchain, change: impl FnOnce(&mut NetworkConfig)) -> Pod {
    let mut pod = Pod::new("miner", 1);
    let mut described = network(chain);
    change(&mut described);
    pod.configure(&described);
    pod.run();
    pod
}

/// Waits until it is not ready for this reason, and returns what it says.
fn unready(pod: &Pod, reason: &str) -> String {
    until(reason, || {
        let answer = pod.get("/readyz").filter(|answer| answer.status == 503)?;
        let detail = answer.body["detail"].as_str()?.to_owned();
        detail.starts_with(reason).then_some(detail)
    })
}

#[test]
fn a_sidecar_waits_for_its_chain_and_serves_tcp_and_socket_alike() {
    let mut chain = Devchain::new(&[(1, 5000)]);
    let pod = start(&chain, |_| {});
    let detail = unready(&pod, "EndpointDown");
    assert!(detail.contains(&chain.endpoint()), "{detail}");
    assert_eq!(pod.get("/healthz").unwrap().status, 200);
    chain.run();
    until("ready", || pod.get("/readyz").filter(|answer| answer.status == 200));
    let status = pod.status().unwrap();
    assert_eq!((status.neuron.unwrap().hotkey, status.group), (pod.hotkey, None));
    assert_eq!(status.chain.genesis_hash, chain.genesis_hash);
    let by_socket = pod.get_by_socket("/v1/metagraph").unwrap();
    assert_eq!((by_socket.status, &by_socket.body["netuid"]), (200, &serde_json::json!(1)));
    assert_eq!(pod.get_by_socket("/v1/validators/5Grw/verify").unwrap().status, 400);
}

#[test]
fn another_genesis_and_a_missing_subnet_keep_it_unready_until_the_file_is_corrected() {
    let chain = Devchain::start(&[(1, 5000)]);
    let mut pod = start(&chain, |network| network.genesis_hash = Some(BlockHash([1; 32])));
    assert!(unready(&pod, "GenesisMismatch").contains("correct the endpoint or the genesis hash"));
    assert!(pod.status().unwrap().chain.error.unwrap().contains("genesis"));

    let mut described = network(&chain);
    described.netuid = NetUid(7);
    pod.configure(&described);
    assert!(unready(&pod, "SubnetMissing").contains("netuid 7"));

    std::fs::write(pod.path("network.json"), "{").unwrap();
    until("the bad file is told of", || {
        let status = pod.get("/v1/status")?;
        status.body["network_file_error"].as_str()?.contains("cannot be understood").then_some(())
    });
    pod.configure(&network(&chain));
    until("ready", || pod.get("/readyz").filter(|answer| answer.status == 200));
    assert!(pod.is_running());
}

#[test]
fn what_cannot_start_says_why_in_one_line() {
    let chain = Devchain::new(&[(1, 5000)]);
    let pod = Pod::new("validator", 1);
    pod.configure(&network(&chain));
    let refused = |parts: &[&str], flags: &[&str]| {
        let Output { status, stderr, .. } = pod.command().args(flags).args(["--log", "error"]).output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.starts_with("error: ") && parts.iter().all(|part| stderr.contains(part)), "{stderr}");
    };
    let hotkey = pod.path("hotkey").display().to_string();
    std::fs::write(&hotkey, r#"{"secretSeed": "0x12", "ss58Address": "5Grw"}"#).unwrap();
    refused(&[&hotkey, "field `secretSeed`", "take the file from the wallet again"], &[]);
    std::fs::write(&hotkey, "$NACL...").unwrap();
    refused(&[&hotkey, "is encrypted", "--no-use-password"], &[]);
    std::fs::remove_file(&hotkey).unwrap();
    refused(&[&hotkey, "cannot be read", "check the path"], &[]);
    std::fs::write(&hotkey, format!("0x{}", "01".repeat(32))).unwrap();
    std::fs::write(pod.path("network.json"), "{}").unwrap();
    refused(&["network.json", "missing field"], &[]);
    pod.configure(&network(&chain));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut other = Pod::new("miner", 2);
    other.configure(&network(&chain));
    other.run();
    until("alive", || other.get("/healthz"));
    let socket = other.path("sidecar.sock").display().to_string();
    let Output { status, stderr, .. } = {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mycelium-sidecar"));
        let flags = ["--kind", "miner", "--listen", &address, "--socket", &socket, "--log", "error"];
        let config = pod.path("network.json");
        command.args(flags).arg("--hotkey-file").arg(&hotkey).arg("--config").arg(config).output().unwrap()
    };
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.starts_with("error: --listen: cannot listen on"), "{stderr}");
}
