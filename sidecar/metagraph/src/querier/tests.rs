use std::collections::BTreeMap;

use sidecar_util::Tao;

use super::*;
use crate::fake::{FakeChain, Faults, neuron};

const NETUID: NetUid = NetUid(1);

fn neurons(stake: u64) -> Vec<sidecar_util::Neuron> {
    vec![neuron(0, [1; 32].into(), Tao::from_rao(stake))]
}

fn chain() -> FakeChain {
    FakeChain::new(NETUID, neurons(1))
}

fn config(endpoints: &[&str]) -> ChainConfig {
    ChainConfig {
        endpoints: endpoints.iter().map(ToString::to_string).collect(),
        archive_endpoints: vec![],
        netuid: NETUID,
        genesis_hash: None,
        min_interval: ChainConfig::MIN_INTERVAL,
    }
}

fn spawn(chain: &FakeChain) -> Querier {
    Querier::spawn_with(config(&["ws://a"]), Arc::new(chain.clone()))
}

/// Waits until the view is as wanted; time is paused, so that an hour passes at once when it never becomes so.
async fn until(querier: &Querier, what: &str, wanted: impl Fn(&ChainView) -> bool) -> Arc<ChainView> {
    let mut watch = querier.watch();
    let found = watch.wait_for(|view| wanted(view));
    let found = tokio::time::timeout(Duration::from_hours(1), found).await;
    found.unwrap_or_else(|_| panic!("never {what}: {:?}", querier.view())).unwrap().clone()
}

async fn synced(querier: &Querier) -> Arc<ChainView> {
    until(querier, "in sync", ChainView::is_synced).await
}

async fn problem(querier: &Querier, reason: &str) -> Arc<ChainView> {
    until(querier, reason, |view| view.problem.as_ref().is_some_and(|problem| problem.reason() == reason)).await
}

fn stake(view: &ChainView) -> u64 {
    view.metagraph.as_ref().unwrap().neurons[0].total_stake.rao
}

#[tokio::test(start_paused = true)]
async fn a_new_block_brings_a_new_metagraph() {
    let chain = chain();
    let querier = spawn(&chain);
    let view = synced(&querier).await;
    assert_eq!((view.block, stake(&view), view.endpoint.as_deref()), (Some(1), 1, Some("ws://a")));
    chain.set_neurons(Some(neurons(2)));
    chain.advance();
    let view = until(&querier, "at block 2", |view| view.block == Some(2)).await;
    assert_eq!(stake(&view), 2);
    querier.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn fast_blocks_are_read_at_most_once_per_interval() {
    let chain = chain();
    let querier = spawn(&chain);
    synced(&querier).await;
    let before = chain.metagraph_calls();
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        chain.advance();
    }
    until(&querier, "at the last block", |view| view.block == Some(41)).await;
    let calls = chain.metagraph_calls() - before;
    assert!((9..=12).contains(&calls), "{calls} calls in 10 s");
}

#[tokio::test(start_paused = true)]
async fn the_metagraph_stays_while_the_chain_is_down_and_the_chain_is_found_again() {
    let chain = chain();
    let querier = spawn(&chain);
    synced(&querier).await;
    chain.set_faults(Faults { refuse: true, ..Faults::default() });
    chain.drop_connections();
    let view = problem(&querier, "EndpointDown").await;
    assert_eq!(stake(&view), 1);
    assert!(view.problem.as_ref().unwrap().to_string().contains("ws://a"), "{:?}", view.problem);
    tokio::time::sleep(Duration::from_mins(1)).await;
    chain.set_faults(Faults::default());
    let down = Instant::now();
    synced(&querier).await;
    assert!(down.elapsed() <= crate::endpoints::BACKOFF.1, "{:?}", down.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_that_comes_back_at_once_is_no_problem() {
    let chain = chain();
    let querier = spawn(&chain);
    synced(&querier).await;
    let mut watch = querier.watch();
    watch.mark_unchanged();
    chain.drop_connections();
    watch.changed().await.unwrap();
    assert!(watch.borrow().is_synced(), "{:?}", watch.borrow());
    assert_eq!(chain.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_half_open_socket_is_noticed_after_three_block_times() {
    let chain = chain();
    let querier = spawn(&chain);
    synced(&querier).await;
    let start = Instant::now();
    chain.set_faults(Faults { hang: true, ..Faults::default() });
    let view = problem(&querier, "NoNewBlock").await;
    assert_eq!(start.elapsed().as_secs(), 36);
    assert_eq!(stake(&view), 1);
    problem(&querier, "EndpointDown").await;
    chain.set_faults(Faults::default());
    chain.advance();
    synced(&querier).await;
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_stands_still_stays_a_problem_across_reconnects() {
    let chain = chain();
    let querier = spawn(&chain);
    synced(&querier).await;
    problem(&querier, "NoNewBlock").await;
    let mut watch = querier.watch();
    let connections = chain.connections();
    let recovered = watch.wait_for(|view| view.is_synced());
    assert!(tokio::time::timeout(Duration::from_mins(10), recovered).await.is_err());
    assert!(chain.connections() > connections);
    chain.advance();
    synced(&querier).await;
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_makes_blocks_on_demand_is_not_called_stale() {
    let chain = chain().with_block_time(None);
    let querier = spawn(&chain);
    synced(&querier).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(querier.view().is_synced(), "{:?}", querier.view());
    assert_eq!(chain.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_endpoint_takes_over_without_a_problem_being_said() {
    let (first, second) = (chain(), chain());
    second.set_neurons(Some(neurons(2)));
    let network = BTreeMap::from([("ws://a".to_owned(), first.clone()), ("ws://b".to_owned(), second)]);
    let querier = Querier::spawn_with(config(&["ws://a", "ws://b"]), Arc::new(network));
    synced(&querier).await;
    let mut watch = querier.watch();
    watch.mark_unchanged();
    first.set_faults(Faults { refuse: true, ..Faults::default() });
    first.drop_connections();
    watch.changed().await.unwrap();
    let view = watch.borrow().clone();
    assert!(view.is_synced(), "{view:?}");
    assert_eq!((view.endpoint.as_deref(), stake(&view)), (Some("ws://b"), 2));
}

#[tokio::test(start_paused = true)]
async fn another_genesis_is_refused_and_named_even_beside_an_endpoint_that_is_down() {
    let expected = BlockHash([1; 32]);
    let network = BTreeMap::from([("ws://a".to_owned(), chain())]);
    let config = ChainConfig { genesis_hash: Some(expected), ..config(&["ws://a", "ws://b"]) };
    let querier = Querier::spawn_with(config, Arc::new(network));
    let view = problem(&querier, "GenesisMismatch").await;
    assert_eq!(view.metagraph, None);
    let text = view.problem.as_ref().unwrap().to_string();
    assert!(text.contains(&expected.to_string()) && text.contains("ws://a"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_subnet_is_a_problem_until_it_is_registered() {
    let chain = chain();
    chain.set_neurons(None);
    let querier = spawn(&chain);
    let view = problem(&querier, "SubnetMissing").await;
    assert_eq!((view.block, view.metagraph.as_ref()), (Some(1), None));
    chain.set_neurons(Some(neurons(1)));
    chain.advance();
    synced(&querier).await;
    assert_eq!(chain.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn answers_that_cannot_be_read_are_named() {
    let chain = chain();
    chain.set_faults(Faults { undecodable: true, ..Faults::default() });
    let querier = spawn(&chain);
    let view = problem(&querier, "DecodeFailed").await;
    assert!(view.problem.as_ref().unwrap().to_string().contains("hotkeys"), "{:?}", view.problem);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_twice_is_repeated_on_the_same_connection() {
    let chain = chain();
    chain.set_faults(Faults { fail_calls: 2, ..Faults::default() });
    let querier = spawn(&chain);
    synced(&querier).await;
    assert_eq!((chain.connections(), chain.metagraph_calls()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_starts_again_from_its_genesis_is_followed() {
    let chain = chain();
    chain.set_block(500);
    let querier = spawn(&chain);
    synced(&querier).await;
    chain.set_block(3);
    until(&querier, "at block 3", |view| view.block == Some(3) && view.is_synced()).await;
}

#[tokio::test(start_paused = true)]
async fn other_endpoints_keep_the_metagraph_and_another_subnet_forgets_it() {
    let network = BTreeMap::from([("ws://a".to_owned(), chain()), ("ws://b".to_owned(), chain())]);
    let querier = Querier::spawn_with(config(&["ws://a"]), Arc::new(network));
    synced(&querier).await;
    querier.reconfigure(config(&["ws://b"]));
    until(&querier, "at the other endpoint", |view| view.endpoint.as_deref() == Some("ws://b")).await;
    querier.reconfigure(ChainConfig { netuid: NetUid(9), ..config(&["ws://b"]) });
    let view = problem(&querier, "SubnetMissing").await;
    assert_eq!(view.metagraph, None);
}

#[tokio::test(start_paused = true)]
async fn no_endpoint_is_said_and_healed_by_a_configuration() {
    let chain = chain();
    let querier = Querier::spawn_with(config(&[]), Arc::new(chain));
    problem(&querier, "NoEndpoint").await;
    assert_eq!(querier.handle().refresh().await.unwrap_err(), ChainProblem::NoEndpoint);
    querier.reconfigure(config(&["ws://a"]));
    synced(&querier).await;
}

#[tokio::test(start_paused = true)]
async fn callers_at_the_same_time_share_one_query() {
    let chain = chain();
    let querier = spawn(&chain);
    synced(&querier).await;
    chain.advance();
    let before = chain.metagraph_calls();
    let handle = querier.handle();
    let answers = futures::future::join_all((0..20).map(|_| handle.refresh())).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().block == Some(2)));
    assert_eq!(chain.metagraph_calls() - before, 1);
    handle.refresh().await.unwrap();
    assert_eq!(chain.metagraph_calls() - before, 1, "the view was at the newest block already");
}

#[tokio::test(start_paused = true)]
async fn a_caller_of_a_chain_that_is_down_gets_the_problem() {
    let chain = chain();
    chain.set_faults(Faults { refuse: true, ..Faults::default() });
    let querier = spawn(&chain);
    problem(&querier, "EndpointDown").await;
    assert_eq!(querier.handle().refresh().await.unwrap_err().reason(), "EndpointDown");
}

#[tokio::test(start_paused = true)]
async fn finality_that_stands_still_is_told_from_a_chain_that_does() {
    let chain = chain();
    let querier = spawn(&chain);
    synced(&querier).await;
    chain.set_faults(Faults { finality_stall: true, ..Faults::default() });
    chain.set_neurons(Some(neurons(2)));
    let start = Instant::now();
    let blocks = async {
        loop {
            tokio::time::sleep(Duration::from_secs(12)).await;
            chain.advance();
        }
    };
    let view = tokio::select! {
        view = problem(&querier, "FinalityStalled") => view,
        () = blocks => unreachable!("blocks go on"),
    };
    assert_eq!(start.elapsed().as_secs(), 132, "ten block times after the first block that is not final");
    assert_eq!((view.block, view.finalized_block, stake(&view)), (Some(1), Some(1), 1), "the last final one stays");
    assert!(view.best_block >= Some(11), "{view:?}");
    assert!(view.problem.as_ref().unwrap().to_string().contains("after block 1"), "{:?}", view.problem);
    chain.set_faults(Faults::default());
    chain.finalize();
    let view = synced(&querier).await;
    assert_eq!((view.block, stake(&view)), (Some(12), 2));
    assert_eq!(chain.connections(), 1, "the only endpoint is not left for that");
}

#[tokio::test(start_paused = true)]
async fn a_block_that_is_replaced_is_never_published() {
    let chain = chain();
    let querier = spawn(&chain);
    synced(&querier).await;
    let mut watch = querier.watch();
    watch.mark_unchanged();
    chain.set_faults(Faults { finality_stall: true, ..Faults::default() });
    chain.advance();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let other = chain.reorganise();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!watch.has_changed().unwrap(), "{:?}", watch.borrow());
    chain.finalize();
    watch.changed().await.unwrap();
    assert_eq!(watch.borrow().metagraph.as_ref().unwrap().block_hash, other.hash);
}

#[tokio::test(start_paused = true)]
async fn new_blocks_are_in_the_view_and_wake_nobody() {
    let chain = chain();
    let querier = spawn(&chain);
    synced(&querier).await;
    chain.set_faults(Faults { finality_stall: true, ..Faults::default() });
    let mut watch = querier.watch();
    watch.mark_unchanged();
    chain.advance();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(!watch.has_changed().unwrap());
    assert_eq!((querier.view().best_block, querier.view().finalized_block), (Some(2), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_preferred_endpoint_is_taken_back_once_it_is_well_again() {
    let (first, second) = (chain(), chain());
    let network = BTreeMap::from([("ws://a".to_owned(), first.clone()), ("ws://b".to_owned(), second.clone())]);
    let querier = Querier::spawn_with(config(&["ws://a", "ws://b"]), Arc::new(network));
    let heartbeat = async |wanted: &str| {
        let start = Instant::now();
        while querier.view().endpoint.as_deref() != Some(wanted) {
            assert!(start.elapsed() < Duration::from_mins(10), "{:?}", querier.view());
            tokio::time::sleep(Duration::from_secs(12)).await;
            first.advance();
            second.advance();
        }
        start.elapsed()
    };
    synced(&querier).await;
    first.set_faults(Faults { refuse: true, ..Faults::default() });
    first.drop_connections();
    until(&querier, "at b", |view| view.endpoint.as_deref() == Some("ws://b")).await;
    first.set_faults(Faults::default());
    let took = heartbeat("ws://a").await;
    assert!(took >= 2 * PROBE_INTERVAL && took <= 5 * PROBE_INTERVAL, "{took:?}");
    let health = querier.handle().endpoints();
    assert_eq!(health[0].state, crate::EndpointState::InUse);
    assert_eq!(health[1].last_failure, None, "leaving it was no failure of its own");
}

#[tokio::test(start_paused = true)]
async fn a_rate_limited_endpoint_is_left_for_another_and_kept_where_there_is_none() {
    let (first, second) = (chain(), chain());
    let network = BTreeMap::from([("ws://a".to_owned(), first.clone()), ("ws://b".to_owned(), second)]);
    let querier = Querier::spawn_with(config(&["ws://a", "ws://b"]), Arc::new(network));
    synced(&querier).await;
    first.set_faults(Faults { rate_limit: true, ..Faults::default() });
    first.advance();
    let view = until(&querier, "at b", |view| view.endpoint.as_deref() == Some("ws://b")).await;
    assert_eq!(view.endpoints[0].last_failure, Some(FailureClass::RateLimited));

    let alone = chain();
    let querier = spawn(&alone);
    synced(&querier).await;
    alone.set_faults(Faults { rate_limit: true, ..Faults::default() });
    alone.advance();
    problem(&querier, "RateLimited").await;
    assert_eq!(alone.connections(), 1);
    alone.set_faults(Faults::default());
    synced(&querier).await;
    assert_eq!(alone.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn updates_begin_with_the_whole_and_go_on_with_what_changed() {
    let chain = chain();
    let querier = spawn(&chain);
    let mut updates = querier.handle().updates();
    let first = updates.next().await.unwrap();
    assert_eq!((first.metagraph.block, &first.diff), (1, &None));
    chain.set_neurons(Some(vec![neurons(2).remove(0), neuron(1, [2; 32].into(), Tao::from_rao(3))]));
    chain.advance();
    let second = updates.next().await.unwrap();
    let diff = second.diff.as_ref().unwrap();
    assert_eq!(diff.apply(&first.metagraph).unwrap(), *second.metagraph);
    assert_eq!((diff.added.len(), diff.changed.len(), diff.removed.len()), (1, 1, 0));
    let stakes = [sidecar_util::NeuronField::TotalStake, sidecar_util::NeuronField::AlphaStake];
    assert_eq!(diff.changed[0].fields, stakes);

    // A reader that comes later begins with the whole too.
    let mut late = querier.handle().updates();
    let whole = late.next().await.unwrap();
    assert_eq!((whole.metagraph.block, &whole.diff), (2, &None));
    querier.shutdown().await;
    assert_eq!(late.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_updates_that_falls_behind_gets_the_whole_again() {
    let chain = chain();
    let querier = spawn(&chain);
    let mut updates = querier.handle().updates();
    let mut has = Metagraph::clone(&updates.next().await.unwrap().metagraph);
    for block in 2..100 {
        chain.set_neurons(Some(neurons(block)));
        chain.advance();
        until(&querier, "at the block", |view| view.block == Some(block)).await;
    }
    let mut wholes = 0;
    while has.block < 99 {
        let update = updates.next().await.unwrap();
        has = if let Some(diff) = &update.diff {
            diff.apply(&has).unwrap()
        } else {
            wholes += 1;
            Metagraph::clone(&update.metagraph)
        };
        assert_eq!(has, *update.metagraph);
    }
    assert_eq!(wholes, 1);
}
