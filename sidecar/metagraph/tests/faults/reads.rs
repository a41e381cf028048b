//! Reads beyond the refresh, at the head and at old blocks.

use std::time::{Duration, Instant};

use serde_json::json;
use sidecar_metagraph::{At, ChainConfig, ChainError, Querier};
use sidecar_util::chain::HyperparamValue;
use sidecar_util::{Alpha, Tao, Uid};
use subxt_signer::sr25519::dev;

use crate::chain::{Chain, NETUID, genesis, synced, until};

fn account(pair: &subxt_signer::sr25519::Keypair) -> [u8; 32] {
    pair.public_key().0
}

#[tokio::test]
async fn everything_is_read_at_the_head_and_at_a_block() {
    let chain = Chain::fast();
    let querier = Querier::spawn(chain.config());
    until(&querier, "past the first block", |view| view.is_synced() && view.block >= Some(1)).await;
    let handle = querier.handle();
    let reads = handle.reads();
    let alice = account(&dev::alice());
    let ferdie = account(&dev::ferdie());
    for at in [At::Head, At::Block(1)] {
        let weights = reads.weights(NETUID, 0, at).await.unwrap();
        assert_eq!(weights.value.rows.len(), 1);
        let row = &weights.value.rows[0];
        assert_eq!((row.uid, row.targets.len()), (Uid(0), 2));
        assert!(row.targets.contains(&(Uid(2), 65535)), "{row:?}");
        assert_eq!(reads.weights_of(NETUID, 0, Uid(0), at).await.unwrap().value, *row);
        assert!(reads.weights_of(NETUID, 0, Uid(1), at).await.unwrap().value.targets.is_empty());
        assert!(reads.weights(NETUID, 1, at).await.unwrap().value.rows.is_empty(), "the other mechanism has none");
        let error = reads.weights(NETUID, 16, at).await.unwrap_err().to_string();
        assert!(error.contains("mechanism 16 of netuid 1"), "{error}");

        let hyperparameters = reads.hyperparameters(NETUID, at).await.unwrap().value.unwrap();
        assert_eq!(hyperparameters.version, 3);
        assert_eq!(hyperparameters.values["tempo"], HyperparamValue::Integer(10));
        assert_eq!(hyperparameters.values["commit_reveal_weights_enabled"], HyperparamValue::Bool(false));
        assert!(matches!(hyperparameters.values["min_burn"], HyperparamValue::Tao(_)), "{hyperparameters:?}");
        assert_eq!(reads.hyperparameters(sidecar_util::NetUid(9), at).await.unwrap().value, None);

        let balance = reads.balance(ferdie.into(), at).await.unwrap().value;
        assert!(balance.free > Tao::ZERO, "{balance:?}");
        assert_eq!(reads.balance([9; 32].into(), at).await.unwrap().value.free, Tao::ZERO);

        let stake = reads.stake(alice.into(), ferdie.into(), NETUID, at).await.unwrap().value.unwrap();
        assert!(stake.is_registered && stake.stake >= "5000".parse::<Alpha>().unwrap(), "{stake:?}");

        let axon = reads.axon(NETUID, alice.into(), at).await.unwrap().value.unwrap();
        assert_eq!((axon.ip.to_string().as_str(), axon.port), ("10.0.0.1", 8091));
        assert_eq!(reads.axon(NETUID, ferdie.into(), at).await.unwrap().value, None);

        assert_eq!(reads.identity(ferdie.into(), at).await.unwrap().value, None);
        reads.subnet_identity(NETUID, at).await.unwrap();
        assert_eq!(reads.commitments(NETUID, at).await.unwrap().value, []);
        assert_eq!(reads.commitment(NETUID, alice.into(), at).await.unwrap().value, None);
        let metagraph = reads.metagraph(NETUID, at).await.unwrap().unwrap();
        assert_eq!(metagraph.neurons.len(), 3);
        reads.events(at).await.unwrap();
    }
    let first = reads.metagraph(NETUID, At::Block(1)).await.unwrap().unwrap();
    let by_hash = reads.metagraph(NETUID, At::Hash(first.block_hash)).await.unwrap().unwrap();
    assert_eq!((by_hash, first.block), (first.clone(), 1));
    let error = reads.metagraph(NETUID, At::Block(1_000_000)).await.unwrap_err();
    assert!(matches!(error, ChainError::NoBlock { .. }), "{error}");

    // An epoch makes bonds of weights.
    until(&querier, "past an epoch", |view| view.metagraph.as_ref().is_some_and(|one| one.last_step > 1)).await;
    reads.bonds(NETUID, 0, At::Head).await.unwrap();
    assert_eq!(reads.bonds_of(NETUID, 0, Uid(2), At::Head).await.unwrap().value.uid, Uid(2));
    querier.shutdown().await;
}

#[tokio::test]
async fn what_was_published_is_read_back() {
    use subxt::dynamic::{self, Value};
    let chain = Chain::fast();
    let client = subxt::OnlineClient::<subxt::PolkadotConfig>::from_url(&chain.endpoint).await.unwrap();
    let field = Value::unnamed_variant("Raw5", [Value::from_bytes(b"hello")]);
    let info = Value::named_composite([("fields", Value::unnamed_composite([field]))]);
    let commit = dynamic::tx("Commitments", "set_commitment", vec![Value::u128(1), info]);
    let identity = dynamic::tx(
        "SubtensorModule",
        "set_identity",
        ["Ferdie", "https://ferdie.example", "", "", "ferdie", "one of six", ""].map(Value::from_bytes).to_vec(),
    );
    for (call, signer) in [(commit, dev::alice()), (identity, dev::ferdie())] {
        let submitted = client.tx().await.unwrap().sign_and_submit_then_watch_default(&call, &signer).await;
        submitted.unwrap().wait_for_finalized_success().await.unwrap();
    }
    let querier = Querier::spawn(chain.config());
    let handle = querier.handle();
    let alice = account(&dev::alice());
    let commitments = handle.reads().commitments(NETUID, At::Head).await.unwrap().value;
    let one = handle.reads().commitment(NETUID, alice.into(), At::Head).await.unwrap().value;
    assert_eq!(commitments.iter().collect::<Vec<_>>(), one.iter().collect::<Vec<_>>());
    let text = serde_json::to_value(&one.unwrap().fields[0]).unwrap();
    assert_eq!(text, json!({"kind": "raw", "bytes": "0x68656c6c6f", "text": "hello"}));
    let identity = handle.reads().identity(account(&dev::ferdie()).into(), At::Head).await.unwrap().value.unwrap();
    assert_eq!((identity.name.as_str(), identity.description.as_str()), ("Ferdie", "one of six"));
    querier.shutdown().await;
}

#[tokio::test]
async fn metagraphed_9339_the_block_of_an_upgrade_is_decoded_with_its_parents_runtime() {
    // Between two blocks there is time to have a transaction in the block of the upgrade.
    let chain = Chain::start(&genesis(), &["--block-time", "12s", "--finality-lag", "0"]);
    let querier = Querier::spawn(chain.config());
    let view = synced(&querier).await;
    let handle = querier.handle();
    let reads = handle.reads();
    let mut sender = chain
        .tx(&["serve-axon", "--netuid", "1", "--ip", "10.0.0.9", "--port", "9001", "--from", "//Bob"])
        .spawn()
        .unwrap();
    let start = Instant::now();
    while chain.metric("substrate_ready_transactions_number", "") < 1.0 {
        assert!(start.elapsed() < Duration::from_secs(20), "the transaction never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let block = chain.upgrade();
    sender.wait().unwrap();
    // The new runtime calls this event by another index, and knows another one by the index of this.
    let events = reads.events(At::Block(block)).await.unwrap().value;
    let names: Vec<String> = events.iter().map(|event| format!("{}.{}", event.pallet, event.name)).collect();
    for wanted in ["System.CodeUpdated", "SubtensorModule.AxonServed"] {
        assert!(names.contains(&wanted.to_owned()), "{names:?}");
    }
    // Storage of that block, and a call at it.
    let axon = reads.axon(NETUID, account(&dev::bob()).into(), At::Block(block)).await.unwrap().value.unwrap();
    assert_eq!(axon.port, 9001);
    assert_eq!(reads.metagraph(NETUID, At::Block(block)).await.unwrap().unwrap().neurons.len(), 3);
    let version = view.spec_version.map(|version| version + 1);
    until(&querier, "at the new runtime", |view| view.is_synced() && view.spec_version == version).await;
    querier.shutdown().await;
}

#[tokio::test]
async fn prune_a_block_whose_state_is_gone_is_read_from_an_archive() {
    let chain = Chain::fast();
    let archive = Chain::fast();
    assert_eq!(chain.genesis_hash, archive.genesis_hash, "both chains begin alike");
    let querier = Querier::spawn(chain.config());
    synced(&querier).await;
    chain.fault(&json!({"kind": "prune", "keep": 6}));
    until(&querier, "at block 12", |view| view.block >= Some(12)).await;
    let handle = querier.handle();
    let error = handle.reads().weights(NETUID, 0, At::Block(1)).await.unwrap_err();
    assert!(error.is_state_discarded(), "{error}");
    assert!(error.to_string().contains("configure an archive endpoint"), "{error}");

    let archives = vec!["ws://127.0.0.1:1".to_owned(), archive.endpoint.clone()];
    querier.reconfigure(ChainConfig { archive_endpoints: archives, ..chain.config() });
    let weights = handle.reads().weights(NETUID, 0, At::Block(1)).await.unwrap();
    assert_eq!((weights.block, weights.value.rows.len()), (1, 1));
    // The head is read where it always was.
    synced(&querier).await;
    assert_eq!(handle.reads().connection().await.unwrap().endpoint(), chain.endpoint);

    // A node that keeps no state that is final is named, and found well again.
    chain.fault(&json!({"kind": "prune", "keep": 1}));
    let view = crate::chain::reason(&querier, "RequestRefused").await;
    assert!(view.problem.as_ref().unwrap().to_string().contains("archive"), "{:?}", view.problem);
    chain.lift();
    synced(&querier).await;
    querier.shutdown().await;
}

#[tokio::test]
async fn a_read_goes_on_over_the_next_connection_when_one_is_lost() {
    let chain = Chain::fast();
    let querier = Querier::spawn(chain.config());
    synced(&querier).await;
    let handle = querier.handle();
    chain.fault(&json!({"kind": "slow", "delay_ms": 400, "methods": ["state_getStorage"]}));
    let reading = tokio::spawn(async move { handle.reads().balance([1; 32].into(), At::Head).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    chain.fault(&json!({"kind": "drop", "times": 1}));
    reading.await.unwrap().unwrap();
    querier.shutdown().await;
}

#[tokio::test]
async fn fiber_5_3_9_a_read_without_a_connection_says_why() {
    let config = ChainConfig {
        endpoints: vec!["ws://127.0.0.1:1".to_owned()],
        archive_endpoints: vec![],
        netuid: NETUID,
        genesis_hash: None,
        min_interval: ChainConfig::MIN_INTERVAL,
    };
    let querier = Querier::spawn(config);
    let start = Instant::now();
    let error = querier.handle().reads().balance([1; 32].into(), At::Head).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(matches!(error, ChainError::NotConnected { .. }) && error.is_retryable(), "{error}");
    assert!(error.to_string().contains("ws://127.0.0.1:1"), "{error}");
    querier.shutdown().await;
}
