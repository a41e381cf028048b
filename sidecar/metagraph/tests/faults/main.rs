//! The querier against a chain that misbehaves: each fault that the development chain can inject, and the failures that
//! operators of this ecosystem reported, by the name of the project and the number of the report.
//!
//! In all of them the querier recovers by itself; nothing is restarted.
#![expect(clippy::unwrap_used, clippy::panic, reason = "clippy takes the helpers of tests for production code")]

mod chain;
mod reads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chain::{Chain, NETUID, genesis, large_genesis, reason, synced, synced_after, until};
use serde_json::json;
use sidecar_metagraph::{
    At, ChainConfig, ChainError, ChainView, Connect, EndpointState, FailureClass, Querier, SubxtConnect,
};

#[tokio::test]
async fn drop_a_dropped_socket_is_replaced() {
    let chain = Chain::fast();
    let querier = Querier::spawn(chain.config());
    let before = synced(&querier).await;
    for _ in 0..3 {
        let before = querier.view();
        chain.fault(&json!({"kind": "drop", "times": 1}));
        synced_after(&querier, &before).await;
    }
    let view = synced_after(&querier, &before).await;
    assert_eq!(view.endpoints[0].last_failure, Some(FailureClass::Unreachable));
    querier.shutdown().await;
}

#[tokio::test]
async fn subnet_2_488_a_half_open_socket_is_noticed_within_three_block_times() {
    let block_time = Duration::from_secs(2);
    let chain = Chain::start(&genesis(), &["--block-time", "2s"]);
    let querier = Querier::spawn(chain.config());
    let before = synced(&querier).await;
    let start = Instant::now();
    chain.fault(&json!({"kind": "half_open", "times": 1}));
    let view = reason(&querier, "NoNewBlock").await;
    let noticed = start.elapsed();
    assert!(noticed <= 3 * block_time + Duration::from_secs(1), "{noticed:?}");
    assert!(view.metagraph.is_some(), "the last good one stays");
    synced_after(&querier, &before).await;
    querier.shutdown().await;
}

#[tokio::test]
async fn a_half_open_socket_of_a_fast_chain_is_noticed_within_a_second() {
    let chain = Chain::fast();
    let querier = Querier::spawn(chain.config());
    for _ in 0..3 {
        let before = synced(&querier).await;
        let start = Instant::now();
        chain.fault(&json!({"kind": "half_open", "times": 1}));
        reason(&querier, "NoNewBlock").await;
        // The last block may have come up to a block time after the fault was asked for.
        let noticed = start.elapsed();
        assert!(noticed <= Duration::from_millis(1_000 + 500), "{noticed:?}");
        synced_after(&querier, &before).await;
    }
    querier.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_machine_and_a_large_subnet_are_no_dead_socket() {
    let chain = Chain::start(&large_genesis(1024), &["--block-time", "250ms"]);
    let querier = Querier::spawn(chain.config());
    let before = synced(&querier).await;
    // Twice as many busy threads as there are processors, beside the chain and the refreshes of four blocks a second.
    let busy = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let processors = std::thread::available_parallelism().unwrap().get();
    let threads: Vec<_> = (0..2 * processors)
        .map(|_| {
            let busy = busy.clone();
            std::thread::spawn(move || while busy.load(std::sync::atomic::Ordering::Relaxed) {})
        })
        .collect();
    let start = Instant::now();
    let mut problems = Vec::new();
    let mut watch = querier.watch();
    while start.elapsed() < Duration::from_secs(8) {
        if tokio::time::timeout(Duration::from_secs(1), watch.changed()).await.is_ok() {
            problems.extend(watch.borrow_and_update().problem.clone());
        }
    }
    busy.store(false, std::sync::atomic::Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(problems, []);
    let view = synced_after(&querier, &before).await;
    assert_eq!(view.endpoints[0].last_failure, None, "{view:?}");
    querier.shutdown().await;
}

#[tokio::test]
async fn allways_724_callers_are_answered_while_the_socket_is_dead() {
    let chain = Chain::fast();
    let querier = Querier::spawn(chain.config());
    until(&querier, "past the first block", |view| view.is_synced() && view.block >= Some(1)).await;
    chain.fault(&json!({"kind": "half_open", "times": 1}));
    // Past the blocks that were announced before.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let start = Instant::now();
    let (refresh, handle) = (querier.handle(), querier.handle());
    let (refresh, read) = tokio::join!(refresh.refresh(), handle.reads().hyperparameters(NETUID, At::Block(1)));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(refresh.is_err() || refresh.is_ok_and(|view| view.is_synced()));
    read.unwrap();
    querier.shutdown().await;
}

#[tokio::test]
async fn swap_subnet_129_rate_limited_endpoint_is_asked_once_a_second() {
    let chain = Chain::fast();
    let querier = Querier::spawn(chain.config());
    synced(&querier).await;
    chain.fault(&json!({"kind": "rate_limit", "per_second": 1}));
    let limited = |view: &ChainView| view.endpoints[0].state == EndpointState::RateLimited;
    let connection = querier.handle().reads().connection().await.unwrap();
    // Blocks come four times a second, and so would refreshes of two calls each.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(limited(&querier.view()), "{:?}", querier.view());
    let (calls, struck, block) = (connection.calls(), chain.struck("rate_limit"), querier.view().block);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let calls = connection.calls() - calls;
    assert!(calls <= 6, "{calls} calls in four seconds");
    assert!(chain.struck("rate_limit") - struck <= 1, "{}", chain.struck("rate_limit"));
    assert!(querier.view().block > block, "slowly, but it goes on");
    assert!(connection.calls() > 0 && querier.view().is_synced(), "{:?}", querier.view());
    chain.lift();
    synced_after(&querier, &querier.view()).await;
    querier.shutdown().await;
}

#[tokio::test]
async fn finetuning_182_a_handshake_that_meets_429_is_not_repeated_at_once() {
    let chain = Chain::fast();
    chain.fault(&json!({"kind": "rate_limit", "per_second": 1}));
    // Takes the only slot of this second.
    let _ = SubxtConnect.connect(&chain.endpoint).await;
    let querier = Querier::spawn(chain.config());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let struck = chain.struck("rate_limit");
    assert!(struck <= 6, "{struck} requests too many in three seconds");
    chain.lift();
    synced(&querier).await;
    querier.shutdown().await;
}

#[tokio::test]
async fn slow_answers_hold_up_neither_readers_nor_the_next_refresh() {
    let chain = Chain::fast();
    let querier = Querier::spawn(chain.config());
    synced(&querier).await;
    chain.fault(&json!({"kind": "slow", "delay_ms": 700, "methods": ["state_call"]}));
    let before = querier.view();
    let after = until(&querier, "refreshed slowly", |view| {
        view.block > before.block && view.refresh_time.is_some_and(|time| time >= Duration::from_millis(700))
    })
    .await;
    assert!(after.is_synced());
    let start = Instant::now();
    for _ in 0..1000 {
        assert!(querier.view().metagraph.is_some());
    }
    assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
    assert!(querier.view().endpoints[0].latency_ms.unwrap() > 100.0, "{:?}", querier.view().endpoints);
    querier.shutdown().await;
}

#[tokio::test]
async fn ridges_507_a_call_that_is_never_answered_ends_at_its_deadline() {
    let chain = Chain::fast();
    let source = SubxtConnect.connect(&chain.endpoint).await.unwrap();
    let head = source.finalized_head().await.unwrap();
    chain.fault(&json!({"kind": "slow", "delay_ms": 50_000, "methods": ["state_"]}));
    let start = Instant::now();
    let error = source.metagraph(NETUID, head).await.unwrap_err();
    assert!(matches!(error, ChainError::Timeout { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(17), "{:?}", start.elapsed());
}

#[tokio::test]
async fn async_substrate_interface_367_a_poisoned_connection_is_replaced() {
    let chain = Chain::fast();
    let querier = Querier::spawn(chain.config());
    let before = synced(&querier).await;
    chain.fault(&json!({"kind": "truncate", "methods": ["state_call"], "times": 3}));
    let start = Instant::now();
    while chain.is_on("truncate") {
        assert!(start.elapsed() < chain::PATIENCE, "never cut three times: {:?}", querier.view());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    synced_after(&querier, &before).await;
    querier.shutdown().await;
}

#[tokio::test]
async fn stall_a_chain_that_stands_still_is_a_problem_until_it_goes_on() {
    let chain = Chain::fast();
    let querier = Querier::spawn(chain.config());
    let before = synced(&querier).await;
    chain.fault(&json!({"kind": "stall"}));
    let view = reason(&querier, "NoNewBlock").await;
    assert!(view.metagraph.is_some());
    // Also across reconnects.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(querier.view().problem.as_ref().unwrap().reason(), "NoNewBlock");
    chain.lift();
    synced_after(&querier, &before).await;
    querier.shutdown().await;
}

#[tokio::test]
async fn finality_stall_the_last_final_block_stays_and_is_named() {
    let chain = Chain::fast();
    let querier = Querier::spawn(chain.config());
    synced(&querier).await;
    chain.fault(&json!({"kind": "finality_stall"}));
    let view = reason(&querier, "FinalityStalled").await;
    assert_eq!(
        (view.block, view.metagraph.as_ref().map(|metagraph| metagraph.block)),
        (view.finalized_block, view.block)
    );
    assert!(querier.view().best_block > view.finalized_block.map(|block| block + 4), "{view:?}");
    chain.lift();
    synced_after(&querier, &view).await;
    querier.shutdown().await;
}

#[tokio::test]
async fn reorg_no_block_that_is_replaced_is_ever_published() {
    let chain = Chain::fast();
    chain.fault(&json!({"kind": "reorg", "blocks": 1, "every": 2, "at_block": 2}));
    let querier = Querier::spawn(chain.config());
    let mut watch = querier.watch();
    let mut published = BTreeMap::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        if tokio::time::timeout(Duration::from_secs(1), watch.changed()).await.is_ok()
            && let Some(metagraph) = &watch.borrow_and_update().metagraph
        {
            let before = published.insert(metagraph.block, metagraph.block_hash);
            assert!(before.is_none_or(|before| before == metagraph.block_hash), "{} twice", metagraph.block);
        }
    }
    assert!(published.len() >= 4 && chain.struck("reorg") >= 3, "{published:?}");
    let reads = querier.handle();
    for (block, hash) in published {
        let read = reads.reads().balance([0; 32].into(), At::Block(block)).await.unwrap();
        assert_eq!(read.block_hash, hash, "block {block} is another one now");
    }
    querier.shutdown().await;
}

#[tokio::test]
async fn swap_subnet_166_an_upgrade_needs_no_restart() {
    let chain = Chain::fast();
    let querier = Querier::spawn(chain.config());
    let before = synced(&querier).await;
    let connection = querier.handle().reads().connection().await.unwrap();
    let mut watch = querier.watch();
    for upgrades in 1..=2 {
        chain.upgrade();
        let version = before.spec_version.map(|version| version + upgrades);
        let seen = watch.wait_for(|view| {
            assert!(view.is_synced(), "{view:?}");
            view.spec_version == version
        });
        tokio::time::timeout(chain::PATIENCE, seen).await.unwrap().unwrap();
    }
    synced_after(&querier, &querier.view()).await;
    let after = querier.handle().reads().connection().await.unwrap();
    assert_eq!(format!("{after:?}"), format!("{connection:?}"));
    assert!(after.calls() > connection.calls() - 1 && querier.view().endpoints[0].failures == 0);
    querier.shutdown().await;
}

#[tokio::test]
async fn data_universe_883_netuids_of_a_type_of_their_own_are_read_alike() {
    let plain = Chain::start(&genesis(), &["--block-time", "250ms", "--netuid-type", "u16"]);
    let newtype = Chain::start(&genesis(), &["--block-time", "250ms", "--netuid-type", "newtype"]);
    let mut neurons = Vec::new();
    for chain in [&plain, &newtype] {
        let querier = Querier::spawn(chain.config());
        let view = synced(&querier).await;
        neurons.push(view.metagraph.as_ref().unwrap().neurons.iter().map(|neuron| neuron.hotkey).collect::<Vec<_>>());
        let weights = querier.handle().reads().weights(NETUID, 0, At::Head).await.unwrap();
        assert_eq!(weights.value.rows.len(), 1);
        querier.shutdown().await;
    }
    assert_eq!(neurons[0], neurons[1]);
}

#[tokio::test]
async fn allways_198_concurrent_readers_share_one_connection() {
    let chain = Chain::fast();
    let querier = Querier::spawn(chain.config());
    synced(&querier).await;
    let readers = (0..200).map(|reader: u32| {
        let handle = querier.handle();
        tokio::spawn(async move {
            if reader.is_multiple_of(2) {
                handle.refresh().await.map(drop).map_err(|problem| problem.to_string())
            } else {
                let read = handle.reads().hyperparameters(NETUID, At::Head).await;
                read.map(drop).map_err(|error| error.chain())
            }
        })
    });
    for answer in futures::future::join_all(readers).await {
        answer.unwrap().unwrap();
    }
    assert_eq!(sockets(&chain), 1);
    querier.shutdown().await;
}

/// Sockets that are open on the chain, without the one that asks.
fn sockets(chain: &Chain) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    let open = chain.metric("substrate_rpc_sessions", "") as u64;
    open.saturating_sub(1)
}

#[tokio::test]
async fn bittensor_2585_connections_are_closed() {
    let chain = Chain::fast();
    let sockets_before = sockets(&chain);
    for _ in 0..10 {
        let querier = Querier::spawn(chain.config());
        synced(&querier).await;
        querier.shutdown().await;
        drop(SubxtConnect.connect(&chain.endpoint).await.unwrap());
    }
    let start = Instant::now();
    while sockets(&chain) > sockets_before {
        assert!(start.elapsed() < Duration::from_secs(10), "{} sockets are left", sockets(&chain));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn ridges_280_no_memory_per_connection() {
    let chain = Chain::fast();
    let connect = async |times: usize| {
        for _ in 0..times {
            let source = SubxtConnect.connect(&chain.endpoint).await.unwrap();
            let head = source.finalized_head().await.unwrap();
            source.metagraph(NETUID, head).await.unwrap().unwrap();
        }
    };
    connect(10).await;
    let before = resident_bytes();
    connect(60).await;
    let grown = resident_bytes().saturating_sub(before);
    // Each has metadata of several megabytes; tests beside this one have theirs.
    assert!(grown < 100 << 20, "60 connections left {} MB behind", grown >> 20);
}

/// Memory of this process.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test]
async fn allways_198_a_refresh_of_1024_neurons_is_two_calls_and_milliseconds() {
    let chain = Chain::start(&large_genesis(1024), &["--block-time", "250ms"]);
    let querier = Querier::spawn(chain.config());
    let view = synced(&querier).await;
    assert_eq!(view.metagraph.as_ref().unwrap().neurons.len(), 1024);
    let connection = querier.handle().reads().connection().await.unwrap();
    let mut watch = querier.watch();
    watch.changed().await.unwrap();
    let (calls, served) = (connection.calls(), chain.metric("substrate_rpc_calls_finished", "state_"));
    let mut times = Vec::new();
    for _ in 0..10 {
        watch.changed().await.unwrap();
        let view = watch.borrow_and_update().clone();
        assert!(view.is_synced());
        times.push(view.refresh_time.unwrap());
    }
    let calls = connection.calls() - calls;
    let served = chain.metric("substrate_rpc_calls_finished", "state_") - served;
    assert!(calls <= 22, "{calls} calls for ten refreshes, as this side counts");
    assert!((0.0..=22.5).contains(&served), "{served} calls for ten refreshes, as the chain counts");
    times.sort();
    assert!(times[5] < Duration::from_millis(250), "{times:?}");
    querier.shutdown().await;
}

#[tokio::test]
async fn ridges_350_refreshes_do_not_pile_up_memory() {
    let chain = Chain::start(&large_genesis(1024), &["--block-time", "250ms"]);
    let source = SubxtConnect.connect(&chain.endpoint).await.unwrap();
    let head = source.finalized_head().await.unwrap();
    let refresh = async |times: usize| {
        for _ in 0..times {
            assert_eq!(source.metagraph(NETUID, head).await.unwrap().unwrap().neurons.len(), 1024);
        }
    };
    refresh(20).await;
    let before = resident_bytes();
    refresh(200).await;
    let grown = resident_bytes().saturating_sub(before);
    // Each is 600 kB of JSON and as much of neurons; tests beside this one have theirs.
    assert!(grown < 60 << 20, "200 refreshes left {} MB behind", grown >> 20);
}

#[tokio::test]
async fn an_endpoint_on_another_genesis_is_excluded_and_another_one_is_used() {
    let (chain, other) = (Chain::fast(), Chain::start(&large_genesis(32), &["--block-time", "250ms"]));
    assert_ne!(chain.genesis_hash, other.genesis_hash);
    let endpoints = vec![other.endpoint.clone(), "ws://127.0.0.1:1".to_owned(), chain.endpoint.clone()];
    let querier = Querier::spawn(ChainConfig { endpoints, ..chain.config() });
    let view = synced(&querier).await;
    assert_eq!(view.endpoint.as_deref(), Some(chain.endpoint.as_str()));
    let states: Vec<EndpointState> = view.endpoints.iter().map(|health| health.state).collect();
    assert_eq!(states, [EndpointState::WrongChain, EndpointState::Failing, EndpointState::InUse]);
    querier.shutdown().await;
}

#[tokio::test]
async fn a_view_is_one_value_for_all_readers() {
    let chain = Chain::fast();
    let querier = Querier::spawn(chain.config());
    synced(&querier).await;
    let (one, other) = (querier.view(), querier.view());
    let same = Arc::ptr_eq(one.metagraph.as_ref().unwrap(), other.metagraph.as_ref().unwrap());
    assert!(same || one.block != other.block, "neurons are shared, not copied for each reader");
    querier.shutdown().await;
}
