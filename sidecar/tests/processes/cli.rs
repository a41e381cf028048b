//! The program as a client of a running sidecar.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::chain::Devchain;
use super::pod::{Pod, network};
use super::{pair, until};

const NEURONS: [(u8, u64); 3] = [(1, 5000), (2, 10), (3, 3000)];

fn start(chain: &Devchain) -> Pod {
    let mut pod = Pod::new("miner", 1);
    pod.configure(&network(chain));
    pod.run();
    until("ready", || pod.get("/readyz").filter(|answer| answer.status == 200));
    pod.until("all are known", |status| status.registry.total == NEURONS.len());
    pod
}

fn client(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mycelium-sidecar"));
    command.args(arguments).env_remove("MYCELIUM_SOCKET").env_remove("MYCELIUM_URL").stdin(Stdio::null());
    command
}

fn by_socket(pod: &Pod, arguments: &[&str]) -> Output {
    client(arguments).arg("--socket").arg(pod.path("sidecar.sock")).output().unwrap()
}

fn text(output: &Output) -> (Option<i32>, String, String) {
    let read = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), read(&output.stdout), read(&output.stderr))
}

#[test]
fn verify_tells_by_its_exit_code_and_repeats_what_the_sidecar_says() {
    let chain = Devchain::start(&NEURONS);
    let pod = start(&chain);
    let (rich, poor) = (pair(1).hotkey().to_string(), pair(2).hotkey().to_string());
    let (code, out, err) = text(&by_socket(&pod, &["verify", &rich]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert!(lines[0].starts_with("HOTKEY") && lines[0].contains("VERIFIED"), "{out}");
    assert!(lines[1].starts_with(&rich) && lines[1].contains("yes") && lines[1].contains("5000"), "{out}");
    assert!(!out.contains('|') && lines.iter().all(|line| line.trim_end() == *line), "{out}");

    let (code, out, _) = text(&by_socket(&pod, &["verify", &poor, "-o", "json"]));
    let body: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &body["reason"]), (Some(2), &"below_minimum_stake".into()));

    for wrong in ["5Grw", "5Grw/../../status?x=1", ""] {
        let (code, out, err) = text(&by_socket(&pod, &["verify", wrong]));
        assert_eq!((code, out.as_str(), err.lines().count()), (Some(1), "", 1), "{err}");
        assert!(err.starts_with("error: "), "{err}");
    }
    let (_, _, err) = text(&by_socket(&pod, &["verify", "5Grw"]));
    assert!(err.contains("hotkey: `5Grw` is not an SS58 address") || err.contains("hotkey: `5Grw` has"), "{err}");

    let nowhere = pod.path("nowhere.sock").display().to_string();
    let (code, _, err) = text(&client(&["verify", &rich, "--socket", &nowhere]).output().unwrap());
    assert_eq!((code, err.lines().count()), (Some(1), 1));
    assert!(err.contains(&nowhere) && err.contains("is it running?"), "{err}");
    let (code, _, err) = text(&client(&["status", "--url", "ftp://x"]).output().unwrap());
    assert!(code == Some(1) && err.contains("--url: `ftp://x` does not start with http://"), "{err}");
}

#[test]
fn nodes_and_status_are_shown_as_tables_and_as_json() {
    let chain = Devchain::start(&NEURONS);
    let pod = start(&chain);
    let (code, out, _) = text(&by_socket(&pod, &["nodes", "--sort", "stake", "--desc"]));
    assert_eq!(code, Some(0));
    let uids: Vec<&str> = out.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(uids, ["0", "2", "1"], "{out}");
    let (_, wide, _) = text(&by_socket(&pod, &["nodes", "-o", "wide", "--uid", "0,2"]));
    assert!(wide.contains("COLDKEY") && wide.lines().count() == 3, "{wide}");
    let (_, out, _) = text(&by_socket(&pod, &["nodes", "-o", "json", "--limit", "2"]));
    let body: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((body["nodes"].as_array().unwrap().len(), &body["total"]), (2, &3.into()));
    let (code, _, err) = text(&by_socket(&pod, &["nodes", "--kind", "both", "--min-stake", "x"]));
    assert_eq!(code, Some(1));
    assert!(err.contains("kind: `both` is none of") && err.contains("min_stake: `x` is not an amount"), "{err}");
    let (_, out, _) = text(&by_socket(&pod, &["nodes", "--min-stake", "100000000"]));
    assert!(out.starts_with("no nodes at block "), "{out}");

    let url = format!("http://{}/", pod.address());
    let (code, out, _) = text(&client(&["status"]).env("MYCELIUM_URL", &url).output().unwrap());
    assert!(code == Some(0) && out.contains(&pod.hotkey.to_string()) && out.contains("synced"), "{out}");
    let (_, out, _) = text(&by_socket(&pod, &["status", "-o", "json"]));
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["netuid"], 1);

    let (_, out, _) = text(&client(&["openapi"]).output().unwrap());
    let served = pod.get("/v1/openapi.json").unwrap().body;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), served);
}

#[test]
fn weights_are_shown_as_shares_and_as_the_sidecar_tells_them() {
    let neuron = |id: u8, weights: &[(u16, u16)]| {
        let hotkey = pair(id).hotkey().to_string();
        json!({"hotkey": hotkey, "coldkey": "//Ferdie", "stake": "2000", "weights": weights})
    };
    let neurons = [neuron(1, &[(1, 65535), (2, 21845)]), neuron(2, &[(2, 65535)]), neuron(3, &[])];
    let mut chain = Devchain::with_neurons(&neurons);
    chain.run();
    let pod = start(&chain);
    pod.until("past the genesis", |status| status.chain.block >= Some(1));
    let (code, out, err) = text(&by_socket(&pod, &["weights"]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let cells = |text: &str| -> Vec<Vec<String>> {
        text.lines().map(|line| line.split_whitespace().map(ToOwned::to_owned).collect()).collect()
    };
    assert_eq!(
        cells(&out),
        [["FROM", "TO", "SHARE"], ["0", "1", "0.7500"], ["0", "2", "0.2500"], ["1", "2", "1.0000"]],
        "{out}"
    );
    let (_, wide, _) = text(&by_socket(&pod, &["weights", "-o", "wide", "--uid", "0", "--block", "1"]));
    assert_eq!(
        cells(&wide),
        [["FROM", "TO", "SHARE", "RAW"], ["0", "1", "0.7500", "65535"], ["0", "2", "0.2500", "21845"]],
        "{wide}"
    );

    let (code, out, _) = text(&by_socket(&pod, &["weights", "-o", "json", "--block", "1"]));
    let body: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &body), (Some(0), &pod.get("/v1/weights?block=1").unwrap().body));
    let row = json!({"uid": 0, "values": [{"uid": 1, "value": 65535}, {"uid": 2, "value": 21845}]});
    assert_eq!((&body["block"], &body["rows"][0]), (&json!(1), &row));

    let (code, out, _) = text(&by_socket(&pod, &["weights", "--uid", "2", "--block", "1"]));
    assert_eq!((code, out.as_str()), (Some(0), "no weights at block 1\n"));
    let (code, out, err) = text(&by_socket(&pod, &["weights", "--uid", "x", "--block", "0"]));
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("uid: `x` is") && err.contains("block: `0` is not a number of a block"), "{err}");
}

#[test]
fn watch_follows_blocks_and_ends_with_the_sidecar() {
    let chain = Devchain::start(&NEURONS);
    let mut pod = start(&chain);
    let mut command = client(&["watch"]);
    let mut watching = command
        .arg("--socket")
        .arg(pod.path("sidecar.sock"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("snapshot"));
    let hotkey = pair(1).hotkey().to_string();
    chain.transact(&["remove-stake", "--from", "//Ferdie", "--hotkey", &hotkey, "--netuid", "1", "--amount", "4500"]);
    let change = lines.find(|line| line.starts_with("deactivated")).unwrap();
    assert!(change.contains(&hotkey) && change.contains("below_minimum_stake"), "{change}");
    assert!(lines.any(|line| line.starts_with("metagraph")));
    let told = std::time::Instant::now();
    assert!(pod.terminate().success());
    assert!(told.elapsed().as_secs() < 5, "watchers do not hold up the end");
    let (code, _, err) = text(&watching.wait_with_output().unwrap());
    assert!(code == Some(1) && err.starts_with("error: the sidecar ended the stream"), "{err}");
}
