//! What clients do all day: stake, weights, heads, storage, metadata, and the command line.

use std::process::Command;
use std::time::Duration;

use codec::Encode;
use e2e_devchain::client::Inclusion;
use e2e_devchain::keys;
use e2e_devchain::pallets::commitments::{self, CommitmentInfo, Data, Registration};
use e2e_devchain::pallets::proxies::ProxyType;
use e2e_devchain::pallets::subtensor::{self, NetUid};
use e2e_devchain::runtime::{Hash, Runtime, RuntimeCall, RuntimeEvent};
use jsonrpsee::core::client::{ClientT, SubscriptionClientT};
use jsonrpsee::rpc_params;
use serde_json::{Value, json};

use crate::harness::{
    Chain, PATIENCE, free, genesis, id, metagraph, number, number_of, pair, reach, send, succeeded, sudo,
};

#[tokio::test]
async fn stake_moves_balance_events_nonce_and_metagraph() {
    let dir = tempfile::tempdir().unwrap();
    let chain = Chain::start(&["--block-time", "instant", "--genesis", genesis(dir.path(), 100).to_str().unwrap()]);
    let chain = chain.connect().await;
    let before = free(&chain, "Bob").await;
    assert_eq!(metagraph(&chain, 2).await.total_stake[0].0, 1_000_500_000_000);

    let amount_staked = 250_000_000_000;
    let hotkey = id("Bob//hot");
    let call = subtensor::Call::add_stake { hotkey: hotkey.clone(), netuid: NetUid(2), amount_staked };
    let inclusion = send(&chain, call, "Bob").await.unwrap();
    assert!(succeeded(&inclusion));
    let added = inclusion.events.iter().any(|event| {
        matches!(event, RuntimeEvent::SubtensorModule(subtensor::Event::StakeAdded(cold, hot, tao, alpha, NetUid(2), 0))
            if *cold == id("Bob") && *hot == hotkey && *tao == amount_staked && *alpha == amount_staked)
    });
    assert!(added, "{:?}", inclusion.events);

    // What left the account is the stake and the fee that the block's event names.
    let fee = inclusion.events.iter().find_map(|event| match event {
        RuntimeEvent::TransactionPayment(pallet_transaction_payment::Event::TransactionFeePaid {
            actual_fee, ..
        }) => Some(*actual_fee),
        _ => None,
    });
    assert!(fee.is_some_and(|fee| fee > 100_000));
    assert_eq!(before - free(&chain, "Bob").await, amount_staked + fee.unwrap());
    assert_eq!(metagraph(&chain, 2).await.total_stake[0].0, 1_250_500_000_000);
    let nonce: u32 = chain.request("account_nextIndex", rpc_params![keys::address(&id("Bob"))]).await.unwrap();
    assert_eq!(nonce, 1);

    // Everything can be taken out again.
    let call = subtensor::Call::remove_stake { hotkey, netuid: NetUid(2), amount_unstaked: 1_250_500_000_000 };
    assert!(succeeded(&send(&chain, call, "Bob").await.unwrap()));
    assert_eq!(metagraph(&chain, 2).await.total_stake[0].0, 0);
}

#[tokio::test]
async fn an_epoch_gives_permits_and_weights_give_incentive() {
    let dir = tempfile::tempdir().unwrap();
    let path = genesis(dir.path(), 8);
    let chain = Chain::start(&["--block-time", "50ms", "--genesis", path.to_str().unwrap()]);
    let (client, connection) = (chain.client().await, chain.connect().await);
    let graph = metagraph(&connection, 2).await;
    assert_eq!(graph.validator_permit, [true, true, false, false]);

    // A miner that stakes more than a validator takes its permit at the next epoch, not before.
    let call =
        subtensor::Call::add_stake { hotkey: id("Dave//hot"), netuid: NetUid(2), amount_staked: 700_000_000_000 };
    let staked = send(&connection, call, "Dave").await.unwrap();
    let tempo_later = u64::from(staked.number) + 9;
    reach(&client, tempo_later).await;
    let graph = metagraph(&connection, 2).await;
    assert_eq!(graph.validator_permit, [true, false, true, false]);

    // Bob's weights decide: he has the majority of the stake that counts.
    let call =
        subtensor::Call::set_weights { netuid: NetUid(2), dests: vec![1, 3], weights: vec![1, 3], version_key: 0 };
    let set = send(&connection, call.clone(), "Bob//hot").await.unwrap();
    assert!(succeeded(&set), "{:?}", set.events);
    reach(&client, u64::from(set.number) + 9).await;
    let graph = metagraph(&connection, 2).await;
    let incentives: Vec<u16> = graph.incentives.iter().map(|score| score.0).collect();
    assert_eq!(incentives, [0, 16_383, 0, 49_151]);
    assert_eq!(graph.dividends[0].0, u16::MAX);
    assert_eq!(graph.last_update[0].0, u64::from(set.number));

    // Weights again within the limit never reach a block: the pool refuses them.
    let error = send(&connection, call, "Bob//hot").await.unwrap_err().to_string();
    assert!(error.contains("1010") && error.contains("Custom error: 6"), "{error}");
}

#[tokio::test]
async fn weights_of_the_genesis_file_count_at_the_first_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let path = genesis(dir.path(), 8);
    let mut file: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    file["subnets"][0]["neurons"][0]["weights"] = json!([[2, 1], [3, 3]]);
    std::fs::write(&path, file.to_string()).unwrap();
    let chain = Chain::start(&["--block-time", "50ms", "--genesis", path.to_str().unwrap()]);
    reach(&chain.client().await, 10).await;
    let graph = metagraph(&chain.connect().await, 2).await;
    let incentives: Vec<u16> = graph.incentives.iter().map(|score| score.0).collect();
    assert_eq!(incentives, [0, 0, 16_383, 49_151]);
}

#[tokio::test]
async fn dispatch_errors_and_pool_rejections_say_why() {
    let chain = Chain::start(&["--block-time", "instant"]);
    let connection = chain.connect().await;

    // Dispatch refuses what only it can know.
    let call = subtensor::Call::add_stake { hotkey: id("Nobody"), netuid: NetUid(1), amount_staked: 1_000_000_000 };
    let inclusion = send(&connection, call, "Bob").await.unwrap();
    let expected: sp_runtime::DispatchError = subtensor::Error::<Runtime>::HotKeyAccountNotExists.into();
    let failed = inclusion.events.iter().find_map(|event| match event {
        RuntimeEvent::System(frame_system::Event::ExtrinsicFailed { dispatch_error, .. }) => Some(*dispatch_error),
        _ => None,
    });
    assert_eq!(failed.map(|error| error.encode()), Some(expected.encode()));

    let remark = || RuntimeCall::from(frame_system::Call::remark { remark: vec![1] });
    let refused = |error: anyhow::Error, part: &str| {
        let error = error.to_string();
        assert!(error.starts_with("1010 Invalid Transaction") && error.contains(part), "{error}");
    };
    let stale = connection.sign_with_nonce(remark(), &pair("Bob"), 0).await.unwrap();
    refused(connection.submit(&stale).await.unwrap_err(), "outdated");

    let mut forged = connection.sign(remark(), &pair("Charlie")).await.unwrap();
    forged.function = frame_system::Call::remark { remark: vec![2] }.into();
    refused(connection.submit(&forged).await.unwrap_err(), "bad signature");

    let not_sudo = connection.sign(sudo(remark()), &pair("Bob")).await.unwrap();
    refused(connection.submit(&not_sudo).await.unwrap_err(), "signing address");

    let poor = connection.sign(remark(), &pair("NoTao")).await.unwrap();
    refused(connection.submit(&poor).await.unwrap_err(), "pay");

    let axon = subtensor::Call::serve_axon {
        netuid: NetUid(1),
        version: 1,
        ip: 16_909_060,
        port: 80,
        ip_type: 4,
        protocol: 4,
        placeholder1: 0,
        placeholder2: 0,
    };
    let unregistered = connection.sign(axon.into(), &pair("NoTao")).await.unwrap();
    refused(connection.submit(&unregistered).await.unwrap_err(), "Custom error: 10");
}

#[tokio::test]
async fn a_hotkey_without_balance_registers_serves_and_sets_its_own_weight() {
    let chain = Chain::start(&["--block-time", "instant"]);
    let connection = chain.connect().await;
    let call = subtensor::Call::burned_register { netuid: NetUid(1), hotkey: id("Miner") };
    let inclusion = send(&connection, call, "Bob").await.unwrap();
    assert!(succeeded(&inclusion), "{:?}", inclusion.events);

    let axon = subtensor::Call::serve_axon {
        netuid: NetUid(1),
        version: 7,
        ip: 16_909_060,
        port: 8091,
        ip_type: 4,
        protocol: 4,
        placeholder1: 0,
        placeholder2: 0,
    };
    let inclusion = send(&connection, axon, "Miner").await.unwrap();
    assert!(succeeded(&inclusion));
    let own = subtensor::Call::set_weights { netuid: NetUid(1), dests: vec![1], weights: vec![1], version_key: 0 };
    assert!(succeeded(&send(&connection, own, "Miner").await.unwrap()));
    let graph = metagraph(&connection, 1).await;
    assert_eq!((graph.axons[1].ip, graph.axons[1].port, graph.axons[1].version), (16_909_060, 8091, 7));
    assert_eq!(graph.axons[1].block, u64::from(inclusion.number));
    assert_eq!(free(&connection, "Miner").await, 0);
}

#[tokio::test]
async fn neurons_commit_and_proxies_act_within_their_kind() {
    let dir = tempfile::tempdir().unwrap();
    let path = genesis(dir.path(), 100);
    let chain = Chain::start(&["--block-time", "instant", "--genesis", path.to_str().unwrap()]);
    let connection = chain.connect().await;
    let data = Data::Raw(b"http://1.2.3.4".to_vec().try_into().unwrap());
    let info = CommitmentInfo { fields: vec![data].try_into().unwrap() };
    let call = commitments::Call::set_commitment { netuid: NetUid(2), info: Box::new(info.clone()) };
    let inclusion = send(&connection, call.clone(), "Dave//hot").await.unwrap();
    assert!(succeeded(&inclusion), "{:?}", inclusion.events);
    let key = commitments::CommitmentOf::<Runtime>::hashed_key_for(NetUid(2), id("Dave//hot"));
    let stored: Registration = connection.storage(&key, None).await.unwrap().unwrap();
    assert_eq!(stored, Registration { deposit: 0, block: inclusion.number, info });
    assert!(!succeeded(&send(&connection, call, "Eve").await.unwrap()), "only neurons commit");

    let delegate = sp_runtime::MultiAddress::Id(id("Eve"));
    let call = pallet_proxy::Call::add_proxy { delegate, proxy_type: ProxyType::Staking, delay: 0 };
    assert!(succeeded(&send(&connection, call, "Bob").await.unwrap()));
    let executed = |inclusion: &Inclusion| {
        inclusion.events.iter().find_map(|event| match event {
            RuntimeEvent::Proxy(pallet_proxy::Event::ProxyExecuted { result }) => Some(result.is_ok()),
            _ => None,
        })
    };
    let as_bob = |call: RuntimeCall| pallet_proxy::Call::proxy {
        real: sp_runtime::MultiAddress::Id(id("Bob")),
        force_proxy_type: None,
        call: Box::new(call),
    };
    let hotkey = id("Bob//hot");
    let stake = subtensor::Call::add_stake { hotkey, netuid: NetUid(2), amount_staked: 1_000_000_000 };
    let inclusion = send(&connection, as_bob(stake.into()), "Eve").await.unwrap();
    assert_eq!(executed(&inclusion), Some(true), "{:?}", inclusion.events);
    let dest = sp_runtime::MultiAddress::Id(id("Eve"));
    let steal = pallet_balances::Call::transfer_keep_alive { dest, value: 1_000_000_000 };
    let inclusion = send(&connection, as_bob(steal.into()), "Eve").await.unwrap();
    assert_eq!(executed(&inclusion), Some(false), "{:?}", inclusion.events);
}

#[tokio::test]
async fn several_nonces_of_one_account_go_into_one_block_whatever_their_order() {
    let chain = Chain::start(&["--block-time", "300ms"]);
    let connection = chain.connect().await;
    let client = chain.client().await;
    for nonce in [2u32, 0, 1] {
        let remark = frame_system::Call::remark { remark: vec![0] }.into();
        let extrinsic = connection.sign_with_nonce(remark, &pair("Bob"), nonce).await.unwrap();
        let hex = format!("0x{}", hex::encode(extrinsic.encode()));
        let _: Hash = client.request("author_submitExtrinsic", rpc_params![&hex]).await.unwrap();
        let again = client.request::<Value, _>("author_submitExtrinsic", rpc_params![hex]).await.unwrap_err();
        assert!(again.to_string().contains("Already Imported"), "{again}");
    }
    let next: u32 = client.request("account_nextIndex", rpc_params![keys::address(&id("Bob"))]).await.unwrap();
    assert_eq!(next, 3);
    let last = frame_system::Call::remark { remark: vec![1] };
    send(&connection, last, "Bob").await.unwrap();
    let pending: Vec<String> = client.request("author_pendingExtrinsics", rpc_params![]).await.unwrap();
    assert!(pending.is_empty());
}

#[tokio::test]
async fn final_blocks_and_state_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = genesis(dir.path(), 8);
    let state = dir.path().join("state");
    let args = ["--block-time", "50ms", "--genesis", path.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    let chain = Chain::start(&args);
    let (client, connection) = (chain.client().await, chain.connect().await);
    let call =
        subtensor::Call::add_stake { hotkey: id("Dave//hot"), netuid: NetUid(2), amount_staked: 700_000_000_000 };
    let staked = send(&connection, call, "Dave").await.unwrap();
    reach(&client, u64::from(staked.number) + 6).await;
    let finalized: Hash = client.request("chain_getFinalizedHead", rpc_params![]).await.unwrap();
    let final_number = number_of(&client, finalized).await;
    assert!(final_number >= u64::from(staked.number));
    drop((client, connection));
    chain.kill();

    let chain = Chain::start(&args);
    let (client, connection) = (chain.client().await, chain.connect().await);
    let kept: Hash = client.request("chain_getBlockHash", rpc_params![final_number]).await.unwrap();
    assert_eq!(kept, finalized);
    assert_eq!(metagraph(&connection, 2).await.alpha_stake[2].0, 700_000_000_000);
    // Blocks from before are there with their extrinsics, and the chain goes on.
    let block: Value = client.request("chain_getBlock", rpc_params![staked.block]).await.unwrap();
    assert_eq!(block["block"]["extrinsics"].as_array().unwrap().len(), 2);
    reach(&client, final_number + 5).await;
    let transfer = frame_system::Call::remark { remark: vec![3] };
    assert!(succeeded(&send(&connection, transfer, "Dave").await.unwrap()));
    drop((client, connection));
    chain.kill();

    // Another genesis does not take over the directory.
    let other = Command::new(env!("CARGO_BIN_EXE_mycelium-devchain"))
        .args(["--listen", "127.0.0.1:0", "--block-time", "60ms", "--state-dir", state.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(!other.status.success());
    let error = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(error.contains("holds the chain") && error.contains("use another directory"), "{error}");
}

#[tokio::test]
async fn a_stopped_chain_goes_on_without_catching_up() {
    let chain = Chain::start(&["--block-time", "100ms"]);
    let client = chain.client().await;
    reach(&client, 3).await;
    let before = number(&client, "chain_getHead").await;
    chain.signal("-STOP");
    std::thread::sleep(Duration::from_secs(2));
    chain.signal("-CONT");
    let resumed_at = number(&client, "chain_getHead").await;
    assert!(resumed_at - before < 12, "made blocks while stopped: from {before} to {resumed_at}");
    reach(&client, resumed_at + 3).await;
}

#[tokio::test]
async fn heads_are_pushed_and_finality_lags() {
    let chain = Chain::start(&["--block-time", "50ms", "--finality-lag", "3"]);
    let client = chain.client().await;
    reach(&client, 8).await;
    let before = number(&client, "chain_getHead").await;
    let final_number = number(&client, "chain_getFinalizedHead").await;
    let after = number(&client, "chain_getHead").await;
    // A block is the best one shortly before the one three blocks behind it becomes final.
    assert!((before - 4..=after - 3).contains(&final_number), "{before} {final_number} {after}");
    let mut finalized = client
        .subscribe::<Value, _>("chain_subscribeFinalizedHeads", rpc_params![], "chain_unsubscribeFinalizedHeads")
        .await
        .unwrap();
    let mut last = None;
    for _ in 0..4 {
        let head = finalized.next().await.unwrap().unwrap();
        let parent = head["parentHash"].clone();
        let hash = serde_json::from_value::<e2e_devchain::runtime::Header>(head).unwrap().hash();
        assert!(last.is_none_or(|last: Hash| json!(last) == parent), "a gap in the final heads");
        last = Some(hash);
    }
}

#[tokio::test]
async fn storage_is_pushed_at_once_and_on_change() {
    let chain = Chain::start(&["--block-time", "instant"]);
    let (client, connection) = (chain.client().await, chain.connect().await);
    let key = frame_system::Account::<Runtime>::hashed_key_for(id("Zoe"));
    let key = format!("0x{}", hex::encode(key));
    let mut values = client
        .subscribe::<Value, _>("state_subscribeStorage", rpc_params![[&key]], "state_unsubscribeStorage")
        .await
        .unwrap();
    let first = values.next().await.unwrap().unwrap();
    assert_eq!(first["changes"], json!([[key, null]]));
    let dest = sp_runtime::MultiAddress::Id(id("Zoe"));
    let sent =
        send(&connection, pallet_balances::Call::transfer_keep_alive { dest, value: 77_000 }, "Bob").await.unwrap();
    let second = tokio::time::timeout(PATIENCE, values.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(second["block"], json!(sent.block));
    assert!(second["changes"][0][1].is_string());
}

#[tokio::test]
async fn old_state_is_discarded_with_the_text_that_clients_match() {
    let chain = Chain::start(&["--block-time", "20ms", "--history", "60"]);
    let client = chain.client().await;
    reach(&client, 63).await;
    let old: Hash = client.request("chain_getBlockHash", rpc_params![1]).await.unwrap();
    let error = client.request::<Value, _>("state_getStorage", rpc_params!["0x00", old]).await.unwrap_err().to_string();
    let text = format!("Client error: Api called for an unknown Block: State already discarded for {old:?}");
    assert!(error.contains(&text), "{error}");
    let recent: Hash = client.request("chain_getHead", rpc_params![]).await.unwrap();
    client.request::<Value, _>("state_getStorage", rpc_params!["0x00", recent]).await.unwrap();
}

#[tokio::test]
async fn every_metadata_version_is_served_and_methods_are_listed() {
    let chain = Chain::start(&["--block-time", "instant"]);
    let client = chain.client().await;
    let listed: Value = client.request("rpc_methods", rpc_params![]).await.unwrap();
    let methods: Vec<&str> = listed["methods"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let expected = "\
        account_nextIndex author_pendingExtrinsics author_submitAndWatchExtrinsic author_submitExtrinsic \
        author_unwatchExtrinsic chainSpec_v1_chainName chainSpec_v1_genesisHash chainSpec_v1_properties chain_getBlock \
        chain_getBlockHash chain_getFinalisedHead chain_getFinalizedHead chain_getHead chain_getHeader \
        chain_getRuntimeVersion chain_subscribeAllHeads chain_subscribeFinalisedHeads chain_subscribeFinalizedHeads \
        chain_subscribeNewHead chain_subscribeNewHeads chain_subscribeRuntimeVersion chain_unsubscribeAllHeads \
        chain_unsubscribeFinalisedHeads chain_unsubscribeFinalizedHeads chain_unsubscribeNewHead \
        chain_unsubscribeNewHeads chain_unsubscribeRuntimeVersion payment_queryFeeDetails payment_queryInfo rpc_methods \
        state_call state_callAt state_getKeys state_getKeysPaged state_getKeysPagedAt state_getMetadata state_getPairs \
        state_getRuntimeVersion state_getStorage state_getStorageAt state_getStorageHash state_getStorageHashAt \
        state_getStorageSize state_getStorageSizeAt state_queryStorage state_queryStorageAt \
        state_subscribeRuntimeVersion state_subscribeStorage state_unsubscribeRuntimeVersion state_unsubscribeStorage \
        system_accountNextIndex system_chain system_chainType system_dryRun system_dryRunAt system_health \
        system_localListenAddresses system_localPeerId system_name system_nodeRoles system_peers system_properties \
        system_syncState system_version";
    for name in expected.split_whitespace() {
        assert!(methods.contains(&name), "{name} is not listed");
    }
    assert_eq!(
        chain.call("chainSpec_v1_genesisHash", &json!([]))["result"],
        chain.call("chain_getBlockHash", &json!([0]))["result"]
    );
    for version in [14u32, 15, 16] {
        let data = format!("0x{}", hex::encode(version.encode()));
        let answer: String =
            client.request("state_call", rpc_params!["Metadata_metadata_at_version", data]).await.unwrap();
        // Some, a length of four bytes, then `meta` and the version.
        let bytes = hex::decode(&answer[2..]).unwrap();
        assert_eq!((bytes[0], &bytes[5..9], u32::from(bytes[9])), (1, b"meta".as_slice(), version));
    }
    let plain: String = client.request("state_getMetadata", rpc_params![]).await.unwrap();
    assert!(plain.starts_with("0x6d6574610e"));
}

#[tokio::test]
async fn netuids_are_shown_as_numbers_or_as_a_type_of_their_own() {
    for (kind, is_type) in [("u16", false), ("newtype", true)] {
        let chain = Chain::start(&["--block-time", "instant", "--netuid-type", kind]);
        for version in [14u32, 15, 16] {
            let data = format!("0x{}", hex::encode(version.encode()));
            let answer = chain.call("state_call", &json!(["Metadata_metadata_at_version", data]));
            let bytes = hex::decode(&answer["result"].as_str().unwrap()[2..]).unwrap();
            // The path of a type ends in its name; as a parameter's name alone, `NetUid` is no type.
            let path = [&b"subtensor_runtime_common"[..], b"\x18NetUid"].concat();
            let as_type = bytes.windows(path.len()).any(|window| window == path);
            assert_eq!(as_type, is_type, "{kind} in version {version}");
        }
        // What is encoded is the same.
        let graph = metagraph(&chain.connect().await, 1).await;
        assert_eq!(graph.netuid.0, NetUid(1));
    }
}

#[test]
fn errors_in_a_genesis_file_name_line_field_and_value() {
    let dir = tempfile::tempdir().unwrap();
    let check = |content: &str, parts: &[&str]| {
        let path = dir.path().join("bad.json");
        std::fs::write(&path, content).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_mycelium-devchain"))
            .args(["--listen", "127.0.0.1:0", "--genesis", path.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    check("{\n  \"subnets\": [\n", &["line 3", "subnets", "EOF"]);
    check("{\n \"subnetz\": []\n}", &["line 2", "subnetz"]);
    check(
        "{\"subnets\": [{\"netuid\": 1,\n\"neurons\": [{\"hotkey\": \"5Grwva\", \"coldkey\": \"//Bob\"}]}]}",
        &["line 2", "subnets[0].neurons[0].hotkey", "5Grwva"],
    );
    check(
        "{\"subnets\": [{\"netuid\": 1, \"neurons\": [\n{\"hotkey\": \"//A\", \"coldkey\": \"//B\", \"stake\": \"1e9\"}]}]}",
        &["line 2", "neurons[0].stake", "1e9"],
    );
    check(
        "{\"subnets\": [{\"netuid\": 0}, {\"netuid\": 3}, {\"netuid\": 3}]}",
        &["subnets[0].netuid: 0 is not", "subnets[2].netuid: 3 is there twice"],
    );
}

#[tokio::test]
async fn the_command_line_client_sends_and_reads() {
    let dir = tempfile::tempdir().unwrap();
    let path = genesis(dir.path(), 100);
    let chain = Chain::start(&["--block-time", "instant", "--genesis", path.to_str().unwrap()]);
    let url = chain.url();
    let run = |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_mycelium-devchain")).args(args).args(["--url", &url]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    let hotkey = keys::address(&id("Charlie//hot"));
    let (ok, out, err) =
        run(&["tx", "add-stake", "--hotkey", &hotkey, "--netuid", "2", "--amount", "10", "--from", "//Charlie"]);
    assert!(ok && out.contains("SubtensorModule.StakeAdded") && out.contains(&hotkey), "{out}{err}");
    let (ok, out, _) = run(&["query", "neurons", "--netuid", "2", "--json"]);
    let rows: Value = serde_json::from_str(&out).unwrap();
    assert!(ok);
    assert_eq!((rows[1]["hotkey"].as_str(), rows[1]["stake"].as_str()), (Some(hotkey.as_str()), Some("510")));
    let (ok, out, err) = run(&["tx", "sudo-set", "tempo", "42", "--netuid", "2"]);
    assert!(ok, "{out}{err}");
    let (_, out, _) = run(&["query", "subnets"]);
    assert!(out.contains("TEMPO") && out.contains("42"), "{out}");
    let (ok, _, err) = run(&["tx", "register", "--netuid", "9", "--hotkey", "//New"]);
    assert!(!ok && err.contains("SubtensorModule.SubnetNotExists"), "{err}");
}

#[tokio::test]
async fn hashes_roots_and_the_seal_of_a_block_verify() {
    use sp_core::crypto::Pair;
    use sp_runtime::traits::{BlakeTwo256, Header as _};
    use sp_trie::TrieConfiguration;
    type Info = frame_system::AccountInfo<u32, pallet_balances::AccountData<u64>>;
    let chain = Chain::start(&["--block-time", "instant"]);
    let (client, connection) = (chain.client().await, chain.connect().await);
    let dest = sp_runtime::MultiAddress::Id(id("Zoe"));
    let call = pallet_balances::Call::transfer_keep_alive { dest, value: 77_000 };
    let first = send(&connection, call.clone(), "Bob").await.unwrap();
    let second = send(&connection, call, "Bob").await.unwrap();

    let block: Value = client.request("chain_getBlock", rpc_params![first.block]).await.unwrap();
    let mut header: e2e_devchain::runtime::Header = serde_json::from_value(block["block"]["header"].clone()).unwrap();
    assert_eq!(header.hash(), first.block);
    let genesis: Hash = client.request("chain_getBlockHash", rpc_params![0]).await.unwrap();
    assert_eq!(header.parent_hash, genesis);
    let bytes = |hex: &Value| hex::decode(&hex.as_str().unwrap()[2..]).unwrap();
    let extrinsics = block["block"]["extrinsics"].as_array().unwrap().iter().map(bytes).collect();
    // The trie of extrinsics is of the older kind with this chain's `system_version`.
    let version = sp_core::storage::StateVersion::V0;
    assert_eq!(header.extrinsics_root, frame_system::extrinsics_data_root::<BlakeTwo256>(extrinsics, version));

    // The state of that block, which is not the newest any more, has the root that its header names.
    let pairs: Vec<(String, Value)> = client.request("state_getPairs", rpc_params!["0x", first.block]).await.unwrap();
    let pairs: Vec<(Vec<u8>, Vec<u8>)> =
        pairs.iter().map(|(key, value)| (hex::decode(&key[2..]).unwrap(), bytes(value))).collect();
    let root = sp_trie::LayoutV1::<BlakeTwo256>::trie_root(pairs);
    assert_eq!(header.state_root, root);
    let zoe = frame_system::Account::<Runtime>::hashed_key_for(id("Zoe"));
    for (at, expected) in [(first.block, 77_000), (second.block, 154_000)] {
        let info: Info = connection.storage(&zoe, Some(at)).await.unwrap().unwrap();
        assert_eq!(info.data.free, expected);
    }

    // The author signed the header as it was before the seal.
    let Some(sp_runtime::DigestItem::Seal(engine, seal)) = header.digest_mut().pop() else { panic!("no seal") };
    assert_eq!(&engine, b"aura");
    let signature = sp_core::sr25519::Signature::try_from(seal.as_slice()).unwrap();
    assert!(sp_core::sr25519::Pair::verify(&signature, header.hash().as_bytes(), &pair("Alice").public()));
}
