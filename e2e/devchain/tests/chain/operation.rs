//! Running a chain: snapshots, metrics, logs, and what it says of itself.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use e2e_devchain::runtime::Hash;
use jsonrpsee::core::client::ClientT;
use jsonrpsee::rpc_params;
use serde_json::{Value, json};

use crate::harness::{Chain, PATIENCE, free, http, id, number, reach, send, succeeded};

fn transfer(value: u64) -> pallet_balances::Call<e2e_devchain::runtime::Runtime> {
    pallet_balances::Call::transfer_keep_alive { dest: sp_runtime::MultiAddress::Id(id("Zoe")), value }
}

/// Takes a snapshot; its number.
fn snapshot(chain: &Chain) -> u64 {
    let (status, taken) = chain.admin("POST", "/snapshots", &Value::Null);
    assert_eq!(status, 200, "{taken}");
    taken["id"].as_u64().unwrap()
}

fn revert(chain: &Chain, id: u64) -> (u16, Value) {
    chain.admin("POST", &format!("/snapshots/{id}/revert"), &Value::Null)
}

#[tokio::test]
async fn a_revert_undoes_what_came_after_the_snapshot_as_often_as_wanted() {
    let chain = Chain::start(&["--block-time", "instant", "--admin", "127.0.0.1:0"]);
    let (client, connection) = (chain.client().await, chain.connect().await);
    send(&connection, transfer(1_000_000), "Bob").await.unwrap();
    let early = snapshot(&chain);
    let head: Hash = client.request("chain_getHead", rpc_params![]).await.unwrap();
    for round in 0..3 {
        let sent = send(&connection, transfer(2_000_000 + round), "Bob").await.unwrap();
        assert!(succeeded(&sent));
        let late = snapshot(&chain);
        send(&connection, transfer(4_000_000), "Charlie").await.unwrap();
        assert_eq!(free(&connection, "Zoe").await, 7_000_000 + round);

        let (status, reverted) = revert(&chain, early);
        assert_eq!((status, &reverted["block"]["hash"]), (200, &json!(head)), "{reverted}");
        assert_eq!(free(&connection, "Zoe").await, 1_000_000);
        for method in ["chain_getHead", "chain_getFinalizedHead"] {
            assert_eq!(client.request::<Hash, _>(method, rpc_params![]).await.unwrap(), head);
        }
        let gone: Value = client.request("chain_getBlockHash", rpc_params![sent.number + 1]).await.unwrap();
        assert_eq!(gone, Value::Null);
        // A snapshot of blocks that are gone is gone as well; the nonce is free again.
        assert_eq!(revert(&chain, late).0, 404);
    }
    assert_eq!(chain.admin("GET", "/snapshots", &Value::Null).1.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_revert_reaches_the_disk_and_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let args = ["--block-time", "50ms", "--admin", "127.0.0.1:0", "--state-dir", state.to_str().unwrap()];
    let chain = Chain::start(&args);
    let (client, connection) = (chain.client().await, chain.connect().await);
    send(&connection, transfer(1_000_000), "Bob").await.unwrap();
    let taken = snapshot(&chain);
    // Not final yet when the snapshot was taken, final and on disk when it is reverted to.
    let sent = send(&connection, transfer(2_000_000), "Bob").await.unwrap();
    reach(&client, u64::from(sent.number) + 6).await;
    let (status, reverted) = revert(&chain, taken);
    assert_eq!(status, 200);
    let number_then = reverted["block"]["number"].as_u64().unwrap();
    assert_eq!(free(&connection, "Zoe").await, 1_000_000);
    drop((client, connection));
    chain.kill();

    let chain = Chain::start(&args);
    let (client, connection) = (chain.client().await, chain.connect().await);
    assert_eq!(free(&connection, "Zoe").await, 1_000_000);
    let kept: Value = client.request("chain_getBlockHash", rpc_params![number_then]).await.unwrap();
    assert_eq!(kept, reverted["block"]["hash"]);
    reach(&client, number_then + 3).await;
    assert!(succeeded(&send(&connection, transfer(3_000_000), "Bob").await.unwrap()));
    // And the chain that went on from there survives as well.
    reach(&client, number(&client, "chain_getHead").await + 4).await;
    drop((client, connection));
    chain.kill();
    let chain = Chain::start(&args);
    assert_eq!(free(&chain.connect().await, "Zoe").await, 4_000_000);
}

#[tokio::test]
async fn a_snapshot_of_blocks_that_a_reorg_replaced_brings_them_back() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let args = ["--block-time", "3600s", "--admin", "127.0.0.1:0", "--finality-lag", "5"];
    let args = [&args[..], &["--state-dir", state.to_str().unwrap()]].concat();
    let chain = Chain::start(&args);
    let hash = |number: u64| chain.call("chain_getBlockHash", &json!([number]))["result"].clone();
    chain.admin("POST", "/blocks", &json!({ "blocks": 10 }));
    let taken = snapshot(&chain);
    let before: Vec<Value> = (0..=10).map(hash).collect();
    let (status, done) = chain.admin("POST", "/reorg", &json!({ "blocks": 4 }));
    assert_eq!((status, &done["best"]["number"]), (200, &json!(11)), "{done}");
    assert_ne!(hash(10), before[10]);
    // The fork becomes final, on disk as well.
    chain.admin("POST", "/blocks", &json!({ "blocks": 10 }));

    assert_eq!(revert(&chain, taken).0, 200);
    assert_eq!((0..=10).map(hash).collect::<Vec<Value>>(), before);
    assert_eq!(hash(11), Value::Null);
    chain.admin("POST", "/blocks", &json!({ "blocks": 8 }));
    let after: Vec<Value> = (0..=13).map(hash).collect();
    chain.kill();
    let chain = Chain::start(&args);
    let hash = |number: u64| chain.call("chain_getBlockHash", &json!([number]))["result"].clone();
    assert_eq!((0..=13).map(hash).collect::<Vec<Value>>(), after);
}

#[tokio::test]
async fn blocks_are_made_on_demand() {
    let chain = Chain::start(&["--block-time", "instant", "--admin", "127.0.0.1:0"]);
    let (status, made) = chain.admin("POST", "/blocks", &json!({ "blocks": 25 }));
    assert_eq!((status, &made["number"]), (200, &json!(25)), "{made}");
    assert_eq!(number(&chain.client().await, "chain_getFinalizedHead").await, 25);
}

#[tokio::test]
async fn metrics_count_blocks_calls_and_extrinsics() {
    let chain = Chain::start(&["--block-time", "instant"]);
    let connection = chain.connect().await;
    let sent = send(&connection, transfer(1_000_000), "Bob").await.unwrap();
    // A block is final a moment after it is made.
    let started = Instant::now();
    while chain.call("chain_getFinalizedHead", &json!([]))["result"] != json!(sent.block) {
        assert!(started.elapsed() < PATIENCE, "the block does not become final");
    }
    chain.call("no_suchMethod", &json!([]));
    chain.call("state_getStorage", &json!(["0xzz"]));
    let answer = http(&chain.address, "GET", "/metrics", &[], "");
    assert_eq!(answer.status, 200);
    let value = |name: &str| {
        let line = answer.body.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        line.unwrap_or_else(|| panic!("{name} is not in {}", answer.body))
    };
    assert_eq!(value(r#"substrate_block_height{status="best"}"#), 1);
    assert_eq!(value(r#"substrate_block_height{status="finalized"}"#), 1);
    assert_eq!(value("devchain_extrinsics_total"), 1);
    assert_eq!(value("devchain_spec_version"), 461);
    assert_eq!(value(r#"devchain_submissions_total{result="accepted"}"#), 1);
    // Names of a client's choosing do not become labels.
    assert_eq!(value(r#"substrate_rpc_calls_finished_total{method="unknown",is_error="true"}"#), 1);
    assert_eq!(value(r#"substrate_rpc_calls_finished_total{method="state_getStorage",is_error="true"}"#), 1);
    assert_eq!(value("substrate_proposer_block_constructed_count"), 1);
    assert!(answer.body.ends_with("# EOF\n"));
    assert_eq!(
        http(&chain.address, "GET", "/health", &[], "").body,
        r#"{"peers":0,"isSyncing":false,"shouldHavePeers":false}"#
    );
}

#[tokio::test]
async fn each_block_is_one_line_of_the_log_and_json_when_asked() {
    for format in ["text", "json"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mycelium-devchain"))
            .args(["--listen", "127.0.0.1:0", "--block-time", "50ms", "--verbose", "--log", format])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let blocks: Vec<String> = lines.filter(|line| line.contains("took_ms")).take(3).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        for (number, line) in (1..).zip(&blocks) {
            if format == "json" {
                let object: Value = serde_json::from_str(line).unwrap();
                assert_eq!((&object["message"], &object["number"]), (&json!("block"), &json!(number)), "{line}");
                assert!(object["hash"].as_str().unwrap().len() == 66, "{line}");
            } else {
                assert!(line.contains(&format!("block number={number} hash=\"0x")), "{line}");
            }
        }
    }
}

#[tokio::test]
async fn a_dry_run_tells_what_would_happen_and_changes_nothing() {
    let chain = Chain::start(&["--block-time", "instant"]);
    let connection = chain.connect().await;
    let signed = connection.sign(transfer(1_000_000).into(), &crate::harness::pair("Bob")).await.unwrap();
    let hex = format!("0x{}", hex::encode(codec::Encode::encode(&signed)));
    // Ok(Ok(())): it would be included, and its dispatch would succeed.
    assert_eq!(chain.call("system_dryRun", &json!([hex, null]))["result"], "0x0000");
    assert_eq!(free(&connection, "Zoe").await, 0);
    let too_much = connection.sign(transfer(u64::MAX).into(), &crate::harness::pair("Bob")).await.unwrap();
    let hex = format!("0x{}", hex::encode(codec::Encode::encode(&too_much)));
    let refused = chain.call("system_dryRun", &json!([hex]));
    assert!(refused["result"].as_str().unwrap().starts_with("0x0001"), "{refused}");
}

#[tokio::test]
async fn no_kill_loses_a_block_that_was_seen_as_final() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let args = ["--block-time", "20ms", "--finality-lag", "1", "--state-dir", state.to_str().unwrap()];
    let mut seen: Vec<(u64, Hash)> = Vec::new();
    for round in 0..8u64 {
        let chain = Chain::start(&args);
        let client = chain.client().await;
        for (number, hash) in &seen {
            let kept: Hash = client.request("chain_getBlockHash", rpc_params![number]).await.unwrap();
            assert_eq!(kept, *hash, "block {number} in round {round}");
        }
        // At another moment of a block in every round, and right after the answer.
        tokio::time::sleep(std::time::Duration::from_millis(150 + 7 * round)).await;
        let finalized: Hash = client.request("chain_getFinalizedHead", rpc_params![]).await.unwrap();
        let header: e2e_devchain::runtime::Header =
            client.request("chain_getHeader", rpc_params![finalized]).await.unwrap();
        seen.push((header.number.into(), finalized));
        chain.kill();
    }
    let numbers: Vec<u64> = seen.iter().map(|(number, _)| *number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "the chain went on each time: {numbers:?}");
}
