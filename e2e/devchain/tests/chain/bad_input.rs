//! What nobody should send: it gets Substrate's errors, breaks nothing, and holds no block up.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use codec::Encode;
use e2e_devchain::runtime::{RuntimeCall, UncheckedExtrinsic};
use jsonrpsee::core::client::ClientT;
use jsonrpsee::rpc_params;
use jsonrpsee::ws_client::WsClientBuilder;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::harness::{Chain, PATIENCE, genesis, http, id, metagraph, pair, send, succeeded};

#[tokio::test]
async fn bad_input_gets_substrates_errors_and_breaks_nothing() {
    let chain = Chain::start(&["--block-time", "instant"]);
    let code = |body: &str| {
        let answer: Value = serde_json::from_str(&chain.post(body)).unwrap();
        answer["error"]["code"].as_i64().unwrap_or_default()
    };
    let call =
        |method: &str, params: &str| format!(r#"{{"jsonrpc":"2.0","id":"x1","method":"{method}","params":{params}}}"#);
    assert_eq!(code("{ not json"), -32700);
    assert_eq!(code(&call("state_noSuchThing", "[]")), -32601);
    assert_eq!(code(&call("state_getStorage", "[]")), -32602);
    assert_eq!(code(&call("state_getStorage", r#"["0xzz"]"#)), -32602);
    assert_eq!(code(&call("chain_getHeader", r#"["0x12"]"#)), -32602);
    assert_eq!(code(&call("state_call", r#"["No_suchMethod", "0x"]"#)), 4003);
    assert_eq!(code(&call("state_call", r#"["NeuronInfoRuntimeApi_get_neurons", "0x"]"#)), 4003);
    assert_eq!(code(&call("state_call", r#"["Core_execute_block", "0x00"]"#)), 4003);
    assert_eq!(code(&call("state_getKeysPaged", r#"["0x", 5000]"#)), 4002);
    assert_eq!(code(&call("author_submitExtrinsic", r#"["0x0badc0de"]"#)), 1001);
    assert_eq!(code(&call("system_accountNextIndex", r#"["5Grwva"]"#)), -32602);
    let unknown = format!(r#"["0x00", "0x{}"]"#, "11".repeat(32));
    assert_eq!(code(&call("state_getStorage", &unknown)), 4003);

    // Forms that real clients send: a batch, null parameters, hex without 0x, ids that are strings.
    let batch = format!("[{},{}]", call("system_chain", "[]"), call("chain_getBlockHash", "[null]"));
    let answers: Value = serde_json::from_str(&chain.post(&batch)).unwrap();
    assert_eq!(answers[0]["result"], "Bittensor");
    assert_eq!(answers[0]["id"], "x1");
    assert!(answers[1]["result"].is_string());
    let neurons = call("state_call", r#"["NeuronInfoRuntimeApi_get_neurons_lite","0100",null]"#);
    let answer: Value = serde_json::from_str(&chain.post(&neurons)).unwrap();
    assert!(answer["result"].as_str().unwrap().len() > 100);
}

/// A chain is well when an extrinsic gets into a block.
async fn is_well(chain: &Chain) {
    let remark = frame_system::Call::remark { remark: vec![7] };
    assert!(succeeded(&send(&chain.connect().await, remark, "Bob").await.unwrap()));
}

fn code(answer: &Value) -> i64 {
    answer["error"]["code"].as_i64().unwrap_or_default()
}

#[tokio::test]
async fn parameters_of_other_types_are_named_as_invalid() {
    let chain = Chain::start(&["--block-time", "instant"]);
    for (method, params) in [
        ("chain_getBlockHash", json!([-1])),
        ("chain_getBlockHash", json!([{}])),
        ("chain_getHeader", json!([5])),
        ("chain_getBlock", json!(["0x"])),
        ("state_getStorage", json!([null])),
        ("state_getStorage", json!(["0x123"])),
        ("state_getKeysPaged", json!(["0x", -5])),
        ("state_getKeysPaged", json!(["0x", "ten"])),
        ("state_queryStorageAt", json!(["0x00"])),
        ("state_queryStorage", json!([["0x00"]])),
        ("state_call", json!(["Core_version"])),
        ("state_call", json!([7, "0x"])),
        ("author_submitExtrinsic", json!([])),
        ("author_submitExtrinsic", json!([["0x00"]])),
        ("system_accountNextIndex", json!([null])),
        ("system_dryRun", json!([{}])),
        ("payment_queryInfo", json!(["zz"])),
    ] {
        let answer = chain.call(method, &params);
        assert_eq!(code(&answer), -32602, "{method} {params}: {answer}");
    }
    // Numbers beyond the chain are no mistake; they have no block.
    assert_eq!(chain.call("chain_getBlockHash", &json!([4_294_967_295u32]))["result"], Value::Null);
    assert_eq!(chain.call("chain_getBlockHash", &json!(["0xffffffffffff"]))["result"], Value::Null);
    assert_eq!(code(&chain.call("payment_queryInfo", &json!(["0x00"]))), 4003);
    assert_eq!(code(&chain.call("system_dryRun", &json!(["0x00"]))), 4003);
    is_well(&chain).await;
}

#[tokio::test]
async fn requests_that_are_none_get_json_rpc_errors() {
    let chain = Chain::start(&["--block-time", "instant"]);
    let error = |body: &str| code(&serde_json::from_str(&chain.post(body)).unwrap());
    assert_eq!(error("[]"), -32600);
    assert_eq!(error(r#"{"id":1}"#), -32600);
    // Without an id it counts as noise, in Substrate as well.
    assert_eq!(error("{}"), -32700);
    assert_eq!(error(r#"{"jsonrpc":"1.0","id":1,"method":"system_chain"}"#), -32600);
    assert_eq!(error(&"[".repeat(100_000)), -32700);
    assert_eq!(error("\u{0}\u{1}"), -32700);
    assert_eq!(http(&chain.address, "PUT", "/", &[], "{}").status, 405);
    assert_eq!(http(&chain.address, "GET", "/nothing", &[], "").status, 405);
    // A batch answers what it can.
    let answers: Value =
        serde_json::from_str(&chain.post(r#"[1,{"jsonrpc":"2.0","id":2,"method":"system_chain"}]"#)).unwrap();
    assert_eq!((code(&answers[0]), &answers[1]["result"]), (-32600, &json!("Bittensor")));
    is_well(&chain).await;
}

#[tokio::test]
async fn bodies_beyond_the_limit_are_refused_on_http_and_on_sockets() {
    let chain = Chain::start(&["--block-time", "instant"]);
    let big = format!("0x{}", "00".repeat(9 * 1024 * 1024));
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "author_submitExtrinsic", "params": [big] }).to_string();
    assert_eq!(http(&chain.address, "POST", "/", &[], &request).status, 413);
    let client = WsClientBuilder::default().max_request_size(64 * 1024 * 1024).build(chain.url()).await.unwrap();
    // The answer has no id, so the client cannot match it: it gives up on its own.
    let sent = client.request::<Value, _>("author_submitExtrinsic", rpc_params![big]);
    let _ = tokio::time::timeout(Duration::from_secs(2), sent).await;
    is_well(&chain).await;
}

#[tokio::test]
async fn extrinsics_that_do_not_decode_or_are_badly_signed_never_reach_a_block() {
    let chain = Chain::start(&["--block-time", "instant"]);
    let connection = chain.connect().await;
    let submit = |bytes: &[u8]| {
        let answer = chain.call("author_submitExtrinsic", &json!([format!("0x{}", hex::encode(bytes))]));
        (code(&answer), answer["error"]["data"].as_str().unwrap_or_default().to_owned())
    };
    let remark = RuntimeCall::from(frame_system::Call::remark { remark: vec![1] });
    let good = connection.sign(remark.clone(), &pair("Bob")).await.unwrap();
    let bytes = good.encode();
    for cut in [0, 1, 2, bytes.len() / 2, bytes.len() - 1] {
        assert_eq!(submit(&bytes[..cut]).0, 1001, "cut at {cut}");
    }
    assert_eq!(submit(&[&bytes[..], &[0]].concat()).0, 1001, "a byte too many");
    assert_eq!(submit(&[0xff; 64]).0, 1001);
    assert_eq!(submit(&UncheckedExtrinsic::new_bare(remark.clone()).encode()).0, 1010, "without a signature");

    // One bit of the signature, of the account, of the call.
    for position in [10, 45, bytes.len() - 1] {
        let mut forged = bytes.clone();
        forged[position] ^= 1;
        let (code, data) = submit(&forged);
        assert_eq!((code, data.contains("bad signature")), (1010, true), "{position}: {data}");
    }
    // The time is the chain's own to set.
    let set = RuntimeCall::from(pallet_timestamp::Call::set { now: 1 });
    assert_eq!(submit(&UncheckedExtrinsic::new_bare(set).encode()).0, 1010);
    assert_eq!(chain.call("author_pendingExtrinsics", &json!([]))["result"], json!([]));
    assert_eq!(submit(&bytes), (0, String::new()));
    is_well(&chain).await;
}

#[tokio::test]
async fn calls_nested_without_end_exhaust_no_stack() {
    let chain = Chain::start(&["--block-time", "instant"]);
    let connection = chain.connect().await;
    let mut call = RuntimeCall::from(frame_system::Call::remark { remark: vec![] });
    for _ in 0..200 {
        call = pallet_utility::Call::batch { calls: vec![call] }.into();
    }
    // As deep as a runtime allows: it is decoded, judged and dispatched.
    let deep = connection.sign(call.clone(), &pair("Bob")).await.unwrap();
    let inclusion = tokio::time::timeout(PATIENCE, connection.submit(&deep)).await.unwrap().unwrap();
    assert!(succeeded(&inclusion), "{:?}", inclusion.events);
    // Deeper than that: encoded by hand, because a type that deep cannot even be dropped.
    let nested = [0x0b, 0x00, 0x04].repeat(100_000);
    let body = [&[0x04u8][..], &nested, &[0x00, 0x00, 0x00]].concat();
    let bytes = [codec::Compact(u32::try_from(body.len()).unwrap()).encode(), body].concat();
    let hex = format!("0x{}", hex::encode(bytes));
    let call_info = json!(["TransactionPaymentCallApi_query_call_info", format!("0x{}", hex::encode(&nested))]);
    assert_eq!(code(&chain.call("state_call", &call_info)), 4003);
    for method in ["BlockBuilder_apply_extrinsic", "TransactionPaymentApi_query_info"] {
        assert_eq!(code(&chain.call("state_call", &json!([method, hex]))), 4003, "{method}");
    }
    assert_eq!(code(&chain.call("author_submitExtrinsic", &json!([hex]))), 1001);
    assert_eq!(code(&chain.call("system_dryRun", &json!([hex]))), 4003);
    assert_eq!(code(&chain.call("payment_queryInfo", &json!([hex]))), 4003);
    is_well(&chain).await;
}

#[tokio::test]
async fn a_thousand_idle_sockets_slow_nobody_down() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = genesis(dir.path(), 100);
    let chain = Chain::start(&["--block-time", "100ms", "--genesis", path.to_str().unwrap()]);
    let upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let half = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let mut sockets = Vec::new();
    for number in 0..1000 {
        let mut socket = TcpStream::connect(&chain.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        match number % 4 {
            // One says nothing, one stops in the middle of its request, the others are WebSockets that ask nothing.
            0 => {}
            1 => socket.write_all(half.as_bytes()).unwrap(),
            _ => {
                socket.write_all(upgrade.as_bytes()).unwrap();
                let mut status = [0; 12];
                socket.read_exact(&mut status).unwrap();
                assert_eq!(&status, b"HTTP/1.1 101");
            }
        }
        sockets.push(socket);
    }
    let client = chain.client().await;
    let started = Instant::now();
    for _ in 0..20 {
        let _: Value = client.request("chain_getHeader", rpc_params![]).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(metagraph(&chain.connect().await, 2).await.hotkeys[0], id("Bob//hot"));
    is_well(&chain).await;
    let metrics = http(&chain.address, "GET", "/metrics", &[], "").body;
    let open = metrics.lines().find_map(|line| line.strip_prefix("substrate_rpc_sessions ")).unwrap();
    assert!(open.parse::<u32>().unwrap() > 1000, "{open}");
    drop(sockets);
    is_well(&chain).await;
}

#[tokio::test]
async fn noise_instead_of_websocket_frames_ends_that_socket_only() {
    let chain = Chain::start(&["--block-time", "instant"]);
    let upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for noise in [&[0xffu8; 64][..], &[0x81, 0x05, b'h', b'e'], &[0x88, 0x80, 1, 2, 3, 4], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut socket = TcpStream::connect(&chain.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.write_all(upgrade.as_bytes()).unwrap();
        let mut head = [0; 12];
        socket.read_exact(&mut head).unwrap();
        socket.write_all(noise).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
    }
    is_well(&chain).await;
}
