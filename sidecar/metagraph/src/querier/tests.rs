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
    assert!(down.elapsed() <= BACKOFF.1, "{:?}", down.elapsed());
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
