//! Injected faults, as clients meet them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use codec::{Decode, Encode};
use e2e_devchain::pallets::subtensor::{self, NetUid};
use e2e_devchain::runtime::Hash;
use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use jsonrpsee::core::client::{ClientT, Subscription, SubscriptionClientT};
use jsonrpsee::rpc_params;
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};
use scale_info::PortableRegistry;
use serde_json::{Value, json};
use sp_core::OpaqueMetadata;

use crate::harness::{Chain, PATIENCE, http, id, number, number_of, pair, reach, send, succeeded};

const ADMIN: [&str; 2] = ["--admin", "127.0.0.1:0"];

fn start(args: &[&str]) -> Chain {
    Chain::start(&[&ADMIN, args].concat())
}

async fn system_chain(client: &WsClient) -> Result<String, jsonrpsee::core::ClientError> {
    client.request("system_chain", rpc_params![]).await
}

#[tokio::test]
async fn sockets_are_dropped_at_once_and_new_ones_after_their_replies() {
    let chain = start(&["--block-time", "instant"]);
    let client = chain.client().await;
    system_chain(&client).await.unwrap();
    chain.fault(&json!({ "kind": "drop", "times": 1 }));
    tokio::time::timeout(PATIENCE, client.on_disconnect()).await.unwrap();

    chain.fault(&json!({ "kind": "drop", "after_replies": 2 }));
    let client = chain.client().await;
    system_chain(&client).await.unwrap();
    system_chain(&client).await.unwrap();
    assert!(system_chain(&client).await.is_err());
    chain.lift("drop");
    system_chain(&chain.client().await).await.unwrap();
}

#[tokio::test]
async fn a_half_open_socket_stays_silent_for_good_while_others_work() {
    let chain = start(&["--block-time", "50ms"]);
    let builder = || WsClientBuilder::default().request_timeout(Duration::from_millis(500));
    let client = builder().build(chain.url()).await.unwrap();
    let mut heads: Subscription<Value> =
        client.subscribe("chain_subscribeNewHeads", rpc_params![], "chain_unsubscribeNewHeads").await.unwrap();
    heads.next().await.unwrap().unwrap();
    chain.fault(&json!({ "kind": "half_open", "times": 1 }));
    assert_eq!(chain.admin("GET", "/faults", &Value::Null).1, json!([]), "it has struck its one socket");

    let error = system_chain(&client).await.unwrap_err();
    assert!(matches!(error, jsonrpsee::core::ClientError::RequestTimeout), "{error}");
    assert!(client.is_connected());
    // What was on its way may still come; then there is nothing.
    let silence =
        async { while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(500), heads.next()).await {} };
    tokio::time::timeout(PATIENCE, silence).await.unwrap();
    system_chain(&builder().build(chain.url()).await.unwrap()).await.unwrap();
    assert!(system_chain(&client).await.is_err());
}

#[tokio::test]
async fn clients_that_ask_too_often_get_429() {
    let chain = start(&["--block-time", "instant"]);
    let client = chain.client().await;
    chain.fault(&json!({ "kind": "rate_limit", "per_second": 0 }));
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"system_chain","params":[]}"#;
    let answer = http(&chain.address, "POST", "/", &[], request);
    assert_eq!(answer.status, 429);
    assert!(answer.head.to_lowercase().contains("retry-after: 1"), "{}", answer.head);
    let error = WsClientBuilder::default().build(chain.url()).await.unwrap_err().to_string();
    assert!(error.contains("429"), "{error}");
    let error = system_chain(&client).await.unwrap_err().to_string();
    assert!(error.contains("-32005"), "{error}");

    // One a second: of three at once, two are too many; after a second there is another.
    chain.fault(&json!({ "kind": "rate_limit", "per_second": 1 }));
    let statuses: Vec<u16> = (0..3).map(|_| http(&chain.address, "POST", "/", &[], request).status).collect();
    assert_eq!(statuses, [200, 429, 429]);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(http(&chain.address, "POST", "/", &[], request).status, 200);
    // Who looks after the chain is not limited.
    assert_eq!(http(&chain.address, "GET", "/metrics", &[], "").status, 200);
}

#[tokio::test]
async fn answers_are_slow_for_the_methods_named() {
    let chain = start(&["--block-time", "instant", "--fault", "slow:delay_ms=700,methods=state_,times=1"]);
    let client = chain.client().await;
    let timed = async |method: &str| {
        let started = Instant::now();
        let _: Value = client.request(method, rpc_params![]).await.unwrap();
        started.elapsed()
    };
    assert!(timed("chain_getHead").await < Duration::from_millis(600));
    assert!(timed("state_getRuntimeVersion").await >= Duration::from_millis(700));
    assert!(timed("state_getRuntimeVersion").await < Duration::from_millis(600));
}

#[tokio::test]
async fn answers_end_in_the_middle() {
    let chain = start(&["--block-time", "instant"]);
    let client = chain.client().await;
    chain.fault(&json!({ "kind": "truncate", "methods": ["state_getMetadata"], "times": 2 }));
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"state_getMetadata","params":[]}"#;
    let answer = http(&chain.address, "POST", "/", &[], request);
    let length =
        answer.head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let length: usize = length.unwrap();
    assert!((length / 3..length * 2 / 3).contains(&answer.body.len()), "{} of {length}", answer.body.len());

    assert!(client.request::<String, _>("state_getMetadata", rpc_params![]).await.is_err());
    tokio::time::timeout(PATIENCE, client.on_disconnect()).await.unwrap();
    let client = chain.client().await;
    let whole: String = client.request("state_getMetadata", rpc_params![]).await.unwrap();
    assert!(whole.starts_with("0x6d657461"));
}

#[tokio::test]
async fn the_pool_turns_extrinsics_away_as_often_as_asked() {
    let chain = start(&["--block-time", "instant"]);
    let connection = chain.connect().await;
    let transfer = || {
        let dest = sp_runtime::MultiAddress::Id(id("Bob"));
        pallet_balances::Call::transfer_keep_alive { dest, value: 1_000 }
    };
    for (fault, expected) in [
        (json!({ "kind": "pool_error", "code": 1010, "custom": 6 }), "1010 Invalid Transaction: \"Custom error: 6\""),
        (json!({ "kind": "pool_error", "code": 1010 }), "1010 Invalid Transaction: \"Transaction is outdated\""),
        (json!({ "kind": "pool_error", "code": 1012 }), "1012 Transaction is temporarily banned"),
        (json!({ "kind": "pool_error", "code": 1014 }), "1014 Priority is too low"),
    ] {
        let mut fault = fault;
        fault["times"] = json!(1);
        chain.fault(&fault);
        let error = send(&connection, transfer(), "Alice").await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(succeeded(&send(&connection, transfer(), "Alice").await.unwrap()));
    }
}

#[tokio::test]
async fn a_stalled_chain_stands_still_until_the_fault_is_lifted() {
    let chain = start(&["--block-time", "50ms", "--fault", "stall:at_block=5"]);
    let client = chain.client().await;
    reach(&client, 5).await;
    // An extrinsic waits; the head does not move although forty blocks' time passes.
    let connection = chain.connect().await;
    let remark = frame_system::Call::remark { remark: vec![1] };
    let waiting = send(&connection, remark, "Bob");
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_secs(2), &mut waiting).await.is_err());
    assert_eq!(number(&client, "chain_getHead").await, 5);
    chain.lift("stall");
    assert!(succeeded(&waiting.await.unwrap()));
    reach(&client, 8).await;
}

#[tokio::test]
async fn finality_can_stall_while_blocks_come() {
    let chain = start(&["--block-time", "50ms", "--finality-lag", "1", "--fault", "finality_stall:at_block=3"]);
    let client = chain.client().await;
    reach(&client, 12).await;
    assert_eq!(number(&client, "chain_getFinalizedHead").await, 3);
    chain.lift("finality_stall");
    reach(&client, 14).await;
    assert!(number(&client, "chain_getFinalizedHead").await >= 12);
}

#[tokio::test]
async fn state_is_pruned_at_once_with_the_text_that_clients_match() {
    let chain = start(&["--block-time", "50ms"]);
    let client = chain.client().await;
    reach(&client, 6).await;
    let old: Hash = client.request("chain_getBlockHash", rpc_params![2]).await.unwrap();
    let read = async |at: Hash| client.request::<Value, _>("state_getStorage", rpc_params!["0x00", at]).await;
    read(old).await.unwrap();
    chain.fault(&json!({ "kind": "prune", "keep": 2 }));
    let error = read(old).await.unwrap_err().to_string();
    assert!(error.contains(&format!("State already discarded for {old:?}")), "{error}");
    let head: Hash = client.request("chain_getHead", rpc_params![]).await.unwrap();
    read(head).await.unwrap();
    // The block itself is still there.
    let block: Value = client.request("chain_getBlock", rpc_params![old]).await.unwrap();
    assert!(block["block"]["extrinsics"].is_array());
}

/// Metadata at a block, or at the best one.
async fn types(client: &WsClient, at: Option<Hash>) -> (PortableRegistry, u32) {
    let data = format!("0x{}", hex::encode(15u32.encode()));
    let answer: String =
        client.request("state_call", rpc_params!["Metadata_metadata_at_version", data, at]).await.unwrap();
    let opaque = Option::<OpaqueMetadata>::decode(&mut hex::decode(&answer[2..]).unwrap().as_slice()).unwrap().unwrap();
    let prefixed = RuntimeMetadataPrefixed::decode(&mut opaque.as_slice()).unwrap();
    let RuntimeMetadata::V15(metadata) = prefixed.1 else { panic!("not version 15") };
    let system = metadata.pallets.iter().find(|pallet| pallet.name == "System").unwrap();
    let events = system.storage.as_ref().unwrap().entries.iter().find(|entry| entry.name == "Events").unwrap();
    let frame_metadata::v15::StorageEntryType::Plain(ty) = events.ty else { panic!("events are a map") };
    (metadata.types, ty.id)
}

/// Index of a variant by name.
fn variant(types: &PortableRegistry, path: &str, name: &str) -> u8 {
    let ty = types.types.iter().find(|ty| ty.ty.path.segments.join("::") == path).unwrap();
    let scale_info::TypeDef::Variant(def) = &ty.ty.type_def else { panic!("{path} is no enum") };
    def.variants.iter().find(|variant| variant.name == name).unwrap().index
}

/// Events of a block as text, read by the metadata of some block.
async fn events(client: &WsClient, block: Hash, runtime: Hash) -> Result<String, scale_value::scale::DecodeError> {
    let key = format!("0x{}", hex::encode(frame_support::storage::storage_prefix(b"System", b"Events")));
    let value: String = client.request("state_getStorage", rpc_params![key, block]).await.unwrap();
    let bytes = hex::decode(&value[2..]).unwrap();
    let (types, ty) = types(client, Some(runtime)).await;
    let mut rest = bytes.as_slice();
    let events = scale_value::scale::decode_as_type(&mut rest, ty, &types)?;
    assert!(rest.is_empty(), "bytes after the events");
    Ok(events.to_string())
}

/// Submits a call signed for the spec version at hand; the typed client refuses runtimes it does not know.
async fn submit(chain: &Chain, client: &WsClient, call: subtensor::Call<e2e_devchain::runtime::Runtime>) -> Hash {
    use e2e_devchain::runtime::{RuntimeCall, SignedPayload, UncheckedExtrinsic, tx_extension};
    use sp_core::Pair;
    use sp_runtime::generic::Era;
    let genesis: Hash = client.request("chain_getBlockHash", rpc_params![0]).await.unwrap();
    let version: Value = client.request("state_getRuntimeVersion", rpc_params![]).await.unwrap();
    let spec_version = u32::try_from(version["specVersion"].as_u64().unwrap()).unwrap();
    let account = e2e_devchain::keys::address(&id("Bob"));
    let nonce = chain.call("system_accountNextIndex", &json!([account]))["result"].as_u64().unwrap();
    let extension = tx_extension(Era::Immortal, u32::try_from(nonce).unwrap(), 0);
    let implicit = (((), spec_version, 1, genesis, genesis, (), ()), ((), (), (), (), (), None));
    let call = RuntimeCall::from(call);
    let payload = SignedPayload::from_raw(call.clone(), extension.clone(), implicit);
    let signature = payload.using_encoded(|bytes| pair("Bob").sign(bytes));
    let address = sp_runtime::MultiAddress::Id(id("Bob"));
    let extrinsic = UncheckedExtrinsic::new_signed(call, address, signature.into(), extension);
    let hex = format!("0x{}", hex::encode(extrinsic.encode()));
    let mut updates: Subscription<Value> =
        client.subscribe("author_submitAndWatchExtrinsic", rpc_params![hex], "author_unwatchExtrinsic").await.unwrap();
    loop {
        let update = tokio::time::timeout(PATIENCE, updates.next()).await.unwrap().unwrap().unwrap();
        if let Some(block) = update.get("inBlock") {
            return serde_json::from_value(block.clone()).unwrap();
        }
    }
}

#[tokio::test]
async fn an_upgrade_shifts_indices_and_its_block_speaks_the_old_language() {
    let chain = start(&["--block-time", "instant"]);
    let client = chain.client().await;
    let mut versions: Subscription<Value> = client
        .subscribe("state_subscribeRuntimeVersion", rpc_params![], "state_unsubscribeRuntimeVersion")
        .await
        .unwrap();
    assert_eq!(versions.next().await.unwrap().unwrap()["specVersion"], 461);
    let register = |name: &str| subtensor::Call::burned_register { netuid: NetUid(1), hotkey: id(name) };
    let before = submit(&chain, &client, register("First")).await;
    assert!(events(&client, before, before).await.unwrap().contains("NeuronRegistered"));

    let (status, done) = chain.admin("POST", "/upgrade", &Value::Null);
    assert_eq!((status, &done["spec_version"]), (200, &json!(462)), "{done}");
    let upgrade: Hash = serde_json::from_value(done["block"]["hash"].clone()).unwrap();
    assert_eq!(versions.next().await.unwrap().unwrap()["specVersion"], 462);
    let version = |at: Hash| chain.call("state_getRuntimeVersion", &json!([at]))["result"]["specVersion"].clone();
    assert_eq!((version(before), version(upgrade)), (json!(461), json!(462)));

    // The same names have other indices from then on, events and errors alike.
    let ((old, _), (new, _)) = (types(&client, Some(before)).await, types(&client, Some(upgrade)).await);
    for (path, name) in [
        ("pallet_subtensor::pallet::Event", "NeuronRegistered"),
        ("pallet_subtensor::pallet::Error", "SettingWeightsTooFast"),
    ] {
        assert_eq!(variant(&new, path, name), variant(&old, path, name) + 1, "{name}");
    }
    // The upgrade's own block is read with its parent's runtime, the next with its own.
    assert!(events(&client, upgrade, before).await.unwrap().contains("CodeUpdated"));
    let after = submit(&chain, &client, register("Second")).await;
    assert!(events(&client, after, upgrade).await.unwrap().contains("NeuronRegistered"));
    let misread = events(&client, after, before).await;
    assert!(misread.as_ref().map_or(true, |text| !text.contains("NeuronRegistered")), "{misread:?}");
    let failed = submit(&chain, &client, register("Second")).await;
    let text = events(&client, failed, failed).await.unwrap();
    let error = variant(&new, "pallet_subtensor::pallet::Error", "HotKeyAlreadyRegisteredInSubNet");
    assert!(text.contains("ExtrinsicFailed") && text.contains(&format!("error: ({error}, 0, 0, 0)")), "{text}");

    // Who signs for the old version is told so.
    let error = chain.connect_error().await;
    assert!(error.contains("462"), "{error}");
}

#[tokio::test]
async fn a_reorg_replaces_blocks_and_takes_their_extrinsics_along() {
    let chain = start(&["--block-time", "200ms", "--finality-lag", "20"]);
    let (client, connection) = (chain.client().await, chain.connect().await);
    let mut all_heads: Subscription<Value> =
        client.subscribe("chain_subscribeAllHeads", rpc_params![], "chain_unsubscribeAllHeads").await.unwrap();
    let transfer =
        pallet_balances::Call::transfer_keep_alive { dest: sp_runtime::MultiAddress::Id(id("Zoe")), value: 5_000_000 };
    let extrinsic = connection.sign(transfer.into(), &pair("Bob")).await.unwrap();
    let hex = format!("0x{}", hex::encode(extrinsic.encode()));
    let mut updates: Subscription<Value> =
        client.subscribe("author_submitAndWatchExtrinsic", rpc_params![&hex], "author_unwatchExtrinsic").await.unwrap();
    let mut next = async || tokio::time::timeout(PATIENCE, updates.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(next().await, "ready");
    let first: Hash = serde_json::from_value(next().await["inBlock"].clone()).unwrap();
    let included_at = number_of(&client, first).await;
    // Deep enough for the reorg, and not so deep that it spares the extrinsic's block.
    reach(&client, included_at.max(3)).await;

    let (status, done) = chain.admin("POST", "/reorg", &json!({ "blocks": 3 }));
    assert_eq!(status, 200, "{done}");
    let retracted = done["retracted"].as_array().unwrap();
    assert_eq!(retracted.len(), 3);
    assert!(retracted.iter().any(|block| block["hash"] == json!(first)), "{done}");
    assert_eq!(done["best"]["number"].as_u64().unwrap(), done["common"]["number"].as_u64().unwrap() + 4);

    // The watcher is told that its block is gone and where the extrinsic is now.
    assert_eq!(next().await, json!({ "retracted": first }));
    assert_eq!(next().await, "ready");
    let second: Hash = serde_json::from_value(next().await["inBlock"].clone()).unwrap();
    assert_ne!(first, second);
    let block: Value = client.request("chain_getBlock", rpc_params![second]).await.unwrap();
    assert!(block["block"]["extrinsics"].as_array().unwrap().contains(&json!(hex)));
    // Numbers lead to the new fork; the old block can still be asked for by its hash.
    let number = number_of(&client, second).await;
    assert_eq!(client.request::<Hash, _>("chain_getBlockHash", rpc_params![number]).await.unwrap(), second);
    assert_eq!(number_of(&client, first).await, included_at);
    // Every block of the fork is announced to those who follow all heads, each a child of the one before.
    let best: Hash = serde_json::from_value(done["best"]["hash"].clone()).unwrap();
    let common: Hash = serde_json::from_value(done["common"]["hash"].clone()).unwrap();
    let mut parent = None;
    let following = async {
        loop {
            let head = all_heads.next().await.unwrap().unwrap();
            let header: e2e_devchain::runtime::Header = serde_json::from_value(head).unwrap();
            if header.parent_hash == common && retracted[0]["hash"] != json!(header.hash()) {
                parent = Some(header.hash());
            } else if let Some(known) = parent {
                assert_eq!(header.parent_hash, known);
                parent = Some(header.hash());
            }
            if parent == Some(best) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, following).await.unwrap();

    let (status, refused) = chain.admin("POST", "/reorg", &json!({ "blocks": 1000 }));
    assert_eq!(status, 409);
    assert!(refused["error"].as_str().unwrap().contains("not final yet"), "{refused}");
    // The chain goes on and the fork becomes final.
    loop {
        let update = next().await;
        if let Some(block) = update.get("finalized") {
            assert_eq!(*block, json!(second));
            break;
        }
    }
}

#[tokio::test]
async fn reorgs_by_flag_come_at_their_block_and_the_chain_survives_them_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let args = ["--block-time", "50ms", "--finality-lag", "4", "--state-dir", state.to_str().unwrap()];
    let chain = start(&[&args[..], &["--fault", "reorg:blocks=2,at_block=6,every=5"]].concat());
    let client = chain.client().await;
    reach(&client, 30).await;
    let finalized: Hash = client.request("chain_getFinalizedHead", rpc_params![]).await.unwrap();
    let final_number = number_of(&client, finalized).await;
    assert!(final_number > 11, "two reorgs are final");
    let metrics = http(&chain.address, "GET", "/metrics", &[], "").body;
    assert!(metrics.contains(r#"devchain_faults_struck{kind="reorg"}"#), "{metrics}");
    // From the final head down to genesis each block is its child's parent.
    let mut at = finalized;
    for number in (0..final_number).rev() {
        let header: Value = client.request("chain_getHeader", rpc_params![at]).await.unwrap();
        at = serde_json::from_value(header["parentHash"].clone()).unwrap();
        assert_eq!(client.request::<Hash, _>("chain_getBlockHash", rpc_params![number]).await.unwrap(), at);
    }
    drop(client);
    chain.kill();
    let chain = start(&args);
    let kept = chain.call("chain_getBlockHash", &json!([final_number]));
    assert_eq!(kept["result"], json!(finalized));
}

#[tokio::test]
async fn the_admin_endpoint_is_off_by_default_and_refuses_web_pages_and_nonsense() {
    let chain = Chain::start(&["--block-time", "instant"]);
    assert_eq!(chain.admin, None);
    assert_eq!(http(&chain.address, "GET", "/faults", &[], "").status, 405);
    drop(chain);

    let chain = start(&["--block-time", "instant"]);
    let address = chain.admin.clone().unwrap();
    assert_eq!(http(&address, "GET", "/faults", &["Origin: http://evil.example"], "").status, 403);
    let check = |method: &str, path: &str, body: &Value, status: u16, part: &str| {
        let (found, answer) = chain.admin(method, path, body);
        assert_eq!(found, status, "{method} {path} {body}: {answer}");
        assert!(answer["error"].as_str().unwrap_or_default().contains(part), "{answer}");
    };
    check("PUT", "/faults", &json!({ "kind": "slow", "delay_ms": 0 }), 400, "slow.delay_ms: 0 is not from 1 to 600000");
    check("PUT", "/faults", &json!({ "kind": "slow", "delay": 1 }), 400, "unknown field `delay`");
    check("PUT", "/faults", &json!({ "kind": "flood" }), 400, "unknown variant `flood`");
    check("PUT", "/faults", &Value::Null, 400, "body:");
    check("DELETE", "/faults/slow", &Value::Null, 404, "`slow` is not on");
    check("DELETE", "/faults/flood", &Value::Null, 404, "flood");
    check("POST", "/reorg", &json!({ "blocks": 1 }), 409, "--finality-lag");
    check("POST", "/blocks", &json!({ "blocks": 0 }), 400, "from 1 to 10000");
    check("POST", "/snapshots/7/revert", &Value::Null, 404, "no snapshot 7");
    check("GET", "/nothing", &Value::Null, 404, "no such path");
    check("PATCH", "/faults", &Value::Null, 405, "another method");
    // It still answers after all of that, also to someone who says nothing and goes.
    drop(TcpStream::connect(&address).unwrap());
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(b"\x00\xff nonsense\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(chain.admin("GET", "/faults", &Value::Null), (200, json!([])));
}

#[test]
fn wrong_flags_are_refused_with_the_rule() {
    let check = |args: &[&str], part: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_mycelium-devchain"))
            .args(["--listen", "127.0.0.1:0"])
            .args(args)
            .output()
            .unwrap();
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(part), "{error}");
    };
    check(&["--admin", "0.0.0.0:9945"], "loopback only");
    check(&["--fault", "slow:delay_ms=0"], "slow.delay_ms: 0 is not from 1 to 600000");
    check(&["--fault", "meteor"], "unknown variant `meteor`");
    check(&["--finality-lag", "300"], "--history 256");
}
