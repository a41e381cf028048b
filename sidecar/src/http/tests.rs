use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sidecar_metagraph::fake::{FakeChain, Faults, neuron};
use sidecar_metagraph::{ChainConfig, Querier};
use sidecar_util::config::NetworkConfig;
use sidecar_util::http::{NodeKind, StatusBody, ValidatorsBody, VerifyBody};
use sidecar_util::{Hotkey, Metagraph, NetUid, Neuron, Tao};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use warp::test::request;

use super::*;
use crate::network_file::NetworkFile;

const OWN: [u8; 32] = [1; 32];
const POOR: [u8; 32] = [2; 32];
const MINER: [u8; 32] = [3; 32];

fn ss58(key: [u8; 32]) -> String {
    Hotkey::from(key).to_string()
}

fn tao(text: &str) -> Tao {
    text.parse().unwrap()
}

fn neurons() -> Vec<Neuron> {
    let miner = Neuron { validator_permit: false, ..neuron(2, MINER.into(), tao("0")) };
    vec![neuron(0, OWN.into(), tao("5000")), neuron(1, POOR.into(), tao("10.5")), miner]
}

/// A sidecar without sockets beside a chain in memory.
struct Bench {
    chain: FakeChain,
    querier: Querier,
    app: Arc<App>,
    stop: CancellationToken,
}

impl Bench {
    fn start(chain: FakeChain) -> Self {
        let network = NetworkConfig {
            network: "default".into(),
            endpoints: vec!["ws://chain:9944".into()],
            netuid: NetUid(1),
            genesis_hash: None,
            local: true,
            minimum_stake: tao("1000"),
            verification_ttl_s: 60,
            tiers: vec![],
            group: None,
        };
        let config = ChainConfig {
            endpoints: network.endpoints.clone(),
            netuid: network.netuid,
            genesis_hash: None,
            min_interval: ChainConfig::MIN_INTERVAL,
        };
        let querier = Querier::spawn_with(config, Arc::new(chain.clone()));
        let (network, error) = (watch::Sender::new(Arc::new(network)), watch::Sender::new(None));
        let file = NetworkFile { network: network.subscribe(), error: error.subscribe() };
        let group = watch::channel(None).1;
        let app = Arc::new(App::new(NodeKind::Validator, OWN.into(), file, querier.handle(), group));
        let stop = CancellationToken::new();
        tokio::spawn(crate::ingest::run(app.clone(), stop.clone()));
        Self { chain, querier, app, stop }
    }

    async fn synced() -> Self {
        let bench = Self::start(FakeChain::new(NetUid(1), neurons()));
        bench.querier.watch().wait_for(|view| view.is_synced()).await.unwrap();
        // Lets ingestion run: time is paused, so this ends when nothing else has anything to do.
        tokio::time::sleep(Duration::from_millis(1)).await;
        bench
    }

    async fn get(&self, path: &str) -> (u16, String, Value) {
        let response = request().path(path).reply(&api(&self.app, Door::Tcp)).await;
        let content_type = response.headers().get("content-type").map(|it| it.to_str().unwrap().to_owned());
        let body = serde_json::from_slice(response.body()).unwrap_or(Value::Null);
        (response.status().as_u16(), content_type.unwrap_or_default(), body)
    }

    async fn problem(&self, path: &str) -> (u16, String, String) {
        let (status, content_type, body) = self.get(path).await;
        assert_eq!((content_type.as_str(), &body["status"]), ("application/problem+json", &json!(status)), "{body}");
        (status, body["type"].as_str().unwrap().into(), body["detail"].as_str().unwrap().into())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Compares with a file beside the tests; `UPDATE_GOLDEN=1` writes it.
fn golden(name: &str, found: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = serde_json::to_string_pretty(found).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} differs: run with UPDATE_GOLDEN=1 if that is meant", path.display());
}

#[tokio::test(start_paused = true)]
async fn every_body_is_as_documented_and_reads_back() {
    let bench = Bench::synced().await;
    let (status, content_type, body) = bench.get("/v1/status").await;
    assert_eq!((status, content_type.as_str()), (200, "application/json"));
    golden("status.json", &body);
    let read: StatusBody = serde_json::from_value(body).unwrap();
    assert_eq!((read.registry.total, read.neuron.unwrap().total_stake), (3, tao("5000")));

    let (_, _, body) = bench.get("/v1/metagraph").await;
    golden("metagraph.json", &body);
    assert_eq!(serde_json::from_value::<Metagraph>(body).unwrap().neurons, neurons());

    let (_, _, body) = bench.get("/v1/validators").await;
    golden("validators.json", &body);
    assert_eq!(serde_json::from_value::<ValidatorsBody>(body).unwrap().validators.len(), 2);

    let (_, _, body) = bench.get(&format!("/v1/validators/{}/verify", ss58(OWN))).await;
    golden("verify.json", &body);
    assert!(serde_json::from_value::<VerifyBody>(body).unwrap().verified);
}

#[tokio::test(start_paused = true)]
async fn verification_says_no_with_a_word_and_repeats_itself_from_its_cache() {
    let bench = Bench::synced().await;
    for (key, reason, cached) in [
        (POOR, "below_minimum_stake", false),
        (POOR, "below_minimum_stake", true),
        (MINER, "below_minimum_stake", false),
        ([9; 32], "not_registered", false),
    ] {
        let (status, _, body) = bench.get(&format!("/v1/validators/{}/verify", ss58(key))).await;
        let expected = (200, &json!(false), &json!(reason), &json!(cached));
        assert_eq!((status, &body["verified"], &body["reason"], &body["cached"]), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn stake_that_falls_is_known_in_the_next_block_whatever_was_cached() {
    let bench = Bench::synced().await;
    let path = format!("/v1/validators/{}/verify", ss58(OWN));
    assert_eq!(bench.get(&path).await.2["verified"], json!(true));
    bench.chain.set_neurons(Some(vec![neuron(0, OWN.into(), tao("1"))]));
    bench.chain.advance();
    bench.querier.watch().wait_for(|view| view.block == Some(2)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let (_, _, body) = bench.get(&path).await;
    assert_eq!((&body["verified"], &body["block"]), (&json!(false), &json!(2)));
    let (_, _, body) = bench.get("/v1/validators").await;
    assert_eq!(body["validators"][0]["state"], json!("below_stake"));
}

#[tokio::test(start_paused = true)]
async fn a_bad_hotkey_is_refused_by_name() {
    let bench = Bench::synced().await;
    let (status, kind, detail) = bench.problem("/v1/validators/5Grw/verify").await;
    assert_eq!((status, kind.as_str()), (400, "urn:mycelium:invalid-hotkey"));
    assert!(detail.starts_with("hotkey: `5Grw`"), "{detail}");
    assert_eq!(bench.problem("/v1/validators/%00%ff/verify").await.0, 400);
}

#[tokio::test(start_paused = true)]
async fn unknown_paths_and_methods_are_problems_too() {
    let bench = Bench::synced().await;
    for path in ["/", "/v1", "/v1/statuss", "/v1/status/x", "/v1/validators/x", "/v1/validators//verify"] {
        let response = request().path(path).reply(&api(&bench.app, Door::Tcp)).await;
        assert!([404, 400].contains(&response.status().as_u16()), "{path}: {}", response.status());
    }
    assert_eq!(bench.problem("/v2").await.1, "urn:mycelium:not-found");
    let response = request().method("POST").path("/v1/status").reply(&api(&bench.app, Door::Tcp)).await;
    assert_eq!(response.status().as_u16(), 405);
}

#[tokio::test(start_paused = true)]
async fn before_the_chain_is_read_it_lives_and_is_not_ready_and_says_why() {
    let chain = FakeChain::new(NetUid(1), neurons());
    chain.set_faults(Faults { refuse: true, ..Faults::default() });
    let bench = Bench::start(chain);
    bench.querier.watch().wait_for(|view| view.endpoint.is_none() && view.problem.is_some()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.get("/healthz").await.0, 200);
    let (status, kind, detail) = bench.problem("/readyz").await;
    assert_eq!((status, kind.as_str()), (503, "urn:mycelium:not-ready"));
    assert!(detail.starts_with("EndpointDown: ") && detail.contains("ws://chain:9944"), "{detail}");
    for path in ["/v1/metagraph".to_owned(), "/v1/validators".into(), format!("/v1/validators/{}/verify", ss58(OWN))] {
        let (status, kind, _) = bench.problem(&path).await;
        assert_eq!((status, kind.as_str()), (503, "urn:mycelium:chain-unavailable"), "{path}");
    }
    let (status, _, body) = bench.get("/v1/status").await;
    assert_eq!((status, &body["chain"]["synced"]), (200, &json!(false)));
    bench.chain.set_faults(Faults::default());
    bench.querier.watch().wait_for(|view| view.is_synced()).await.unwrap();
    assert_eq!(bench.get("/readyz").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_is_down_later_leaves_it_ready_and_verifying_until_the_ttl() {
    let bench = Bench::synced().await;
    bench.chain.set_faults(Faults { refuse: true, ..Faults::default() });
    bench.chain.drop_connections();
    bench.querier.watch().wait_for(|view| view.problem.is_some()).await.unwrap();
    assert_eq!(bench.get("/readyz").await.0, 200);
    assert_eq!(bench.get("/v1/metagraph").await.0, 200);
    let path = format!("/v1/validators/{}/verify", ss58(OWN));
    assert_eq!(bench.get(&path).await.0, 200);
    tokio::time::sleep(Duration::from_mins(2)).await;
    let (status, _, detail) = bench.problem(&path).await;
    assert_eq!(status, 503);
    assert!(detail.starts_with("EndpointDown"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn a_subnet_that_vanished_makes_it_unready_and_verifies_nobody() {
    let bench = Bench::synced().await;
    bench.chain.set_neurons(None);
    bench.chain.advance();
    bench.querier.watch().wait_for(|view| view.problem.is_some()).await.unwrap();
    assert!(bench.problem("/readyz").await.2.starts_with("SubnetMissing"));
    assert_eq!(bench.problem(&format!("/v1/validators/{}/verify", ss58(OWN))).await.0, 503);
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_metagraph_is_not_sent_again() {
    let bench = Bench::synced().await;
    let response = request().path("/v1/metagraph").reply(&api(&bench.app, Door::Tcp)).await;
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    let again = request().path("/v1/metagraph").header("if-none-match", &etag).reply(&api(&bench.app, Door::Tcp)).await;
    assert_eq!((again.status().as_u16(), again.body().len()), (304, 0));
    bench.chain.advance();
    bench.querier.watch().wait_for(|view| view.block == Some(2)).await.unwrap();
    let changed =
        request().path("/v1/metagraph").header("if-none-match", &etag).reply(&api(&bench.app, Door::Tcp)).await;
    assert_eq!(changed.status().as_u16(), 200);
}

#[tokio::test(start_paused = true)]
async fn metrics_are_open_metrics_with_closed_labels() {
    let bench = Bench::synced().await;
    bench.get("/v1/some/path/of/a/stranger").await;
    bench.get(&format!("/v1/validators/{}/verify", ss58(OWN))).await;
    let response = request().path("/metrics").reply(&api(&bench.app, Door::Tcp)).await;
    let text = std::str::from_utf8(response.body()).unwrap();
    for line in [
        "mycelium_sidecar_chain_synced 1",
        "mycelium_sidecar_chain_block 1",
        "mycelium_sidecar_registry_entries{state=\"verified\"} 1",
        "mycelium_sidecar_registry_entries{state=\"below_stake\"} 1",
        "mycelium_sidecar_verifications_total{result=\"verified\",cached=\"false\"} 1",
        "mycelium_sidecar_http_requests_total{route=\"other\",status=\"404\"} 1",
        "mycelium_sidecar_registry_events_total{event=\"discovered\"} 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.ends_with("# EOF\n") && !text.contains("stranger"));
}
