use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::Full;

use serde_json::{Value, json};
use sidecar_metagraph::fake::{FakeChain, Faults, neuron};
use sidecar_metagraph::{ChainConfig, Querier};
use sidecar_peer::handshake::UnixTime;
use sidecar_util::config::NetworkConfig;
use sidecar_util::http::{NodeBody, NodeKind, NodesBody, StatusBody, ValidatorsBody, VerifyBody};
use sidecar_util::{Axon, AxonProtocol, BlockHash, Coldkey, Hotkey, Metagraph, NetUid, Neuron, Score, Tao, Uid};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::network_file::NetworkFile;
use crate::reads::{
    BalanceBody, ChainReads, HyperparametersBody, IdentitiesBody, MatrixAsked, MatrixBody, MatrixRow, MatrixValue,
    ReadFailure,
};

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

/// What came back, with its body in memory.
type Answer = http::Response<Bytes>;

impl Bench {
    fn start(chain: FakeChain) -> Self {
        Self::start_with(chain, |_| {})
    }

    fn start_with(chain: FakeChain, change: impl FnOnce(&mut App)) -> Self {
        let network = NetworkConfig {
            network: "default".into(),
            endpoints: vec!["ws://chain:9944".into()],
            archive_endpoints: vec![],
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
            archive_endpoints: vec![],
            netuid: network.netuid,
            genesis_hash: None,
            min_interval: ChainConfig::MIN_INTERVAL,
        };
        let querier = Querier::spawn_with(config, Arc::new(chain.clone()));
        let (network, error) = (watch::Sender::new(Arc::new(network)), watch::Sender::new(None));
        let file = NetworkFile { network: network.subscribe(), error: error.subscribe() };
        let group = watch::channel(None).1;
        let mut app = App::new(NodeKind::Validator, OWN.into(), file, querier.handle(), group);
        change(&mut app);
        let app = Arc::new(app);
        let stop = CancellationToken::new();
        tokio::spawn(crate::ingest::run(app.clone(), stop.clone()));
        Self { chain, querier, app, stop }
    }

    async fn synced() -> Self {
        Self::synced_with(neurons()).await
    }

    async fn synced_with(neurons: Vec<Neuron>) -> Self {
        Self::settled(Self::start(FakeChain::new(NetUid(1), neurons))).await
    }

    async fn settled(bench: Self) -> Self {
        bench.querier.watch().wait_for(|view| view.is_synced()).await.unwrap();
        // Lets ingestion run: time is paused, so this ends when nothing else has anything to do.
        tokio::time::sleep(Duration::from_millis(1)).await;
        bench
    }

    /// Goes on to the next block and waits until all have heard of it.
    async fn advance(&self) {
        let next = self.app.chain.view().block.unwrap() + 1;
        self.chain.advance();
        self.querier.watch().wait_for(|view| view.block == Some(next)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    async fn ask(&self, door: Door, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = api(&self.app, door).answer(request.body(Full::new(Bytes::new())).unwrap()).await;
        let (head, body) = response.into_parts();
        Answer::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    async fn with_headers(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask(Door::Tcp, "GET", path, headers).await
    }

    async fn get(&self, path: &str) -> (u16, String, Value) {
        let response = self.with_headers(path, &[]).await;
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
    // Encoded or not, it is the same address.
    let (status, _, body) = bench.get(&format!("/v1/validators/%35{}/verify", &ss58(OWN)[1..])).await;
    assert_eq!((status, &body["verified"]), (200, &json!(true)));
}

#[tokio::test(start_paused = true)]
async fn unknown_paths_and_methods_are_problems_too() {
    let bench = Bench::synced().await;
    for path in ["/", "/v1", "/v1/statuss", "/v1/status/x", "/v1/validators/x", "/v1/validators//verify"] {
        assert_eq!(bench.problem(path).await.1, "urn:mycelium:not-found", "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
        let response = bench.ask(Door::Tcp, method, "/v1/status", &[]).await;
        let body: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!((response.status().as_u16(), &body["type"]), (405, &json!("urn:mycelium:method-not-allowed")));
        assert_eq!(response.headers()["allow"], "GET, HEAD, OPTIONS");
    }
    let response = bench.ask(Door::Tcp, "OPTIONS", "/v1/nodes/7", &[]).await;
    assert_eq!((response.status().as_u16(), response.body().len()), (204, 0));
    assert_eq!(response.headers()["allow"], "GET, HEAD, OPTIONS");
}

#[tokio::test(start_paused = true)]
async fn the_head_alone_says_how_long_the_body_would_be() {
    let bench = Bench::synced().await;
    for path in ["/v1/metagraph", "/v1/nodes", "/v1/openapi.json", "/v1/nodes/99"] {
        for headers in [&[][..], &[("accept-encoding", "gzip")]] {
            let whole = bench.ask(Door::Tcp, "GET", path, headers).await;
            let head = bench.ask(Door::Tcp, "HEAD", path, headers).await;
            assert_eq!((head.status(), head.body().len()), (whole.status(), 0), "{path}");
            assert_eq!(head.headers()["content-length"], whole.body().len().to_string(), "{path}");
            assert_eq!(head.headers().get("etag"), whole.headers().get("etag"));
        }
    }
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
    let paths = ["/v1/metagraph", "/v1/validators", "/v1/nodes?kind=miner", "/v1/nodes/0"];
    let mut tags = vec![];
    for path in paths {
        let response = bench.with_headers(path, &[]).await;
        let etag = response.headers()["etag"].to_str().unwrap().to_owned();
        for known in [&etag, "*", etag.trim_start_matches("W/"), &format!("\"x\", {etag}")] {
            let again = bench.with_headers(path, &[("if-none-match", known)]).await;
            assert_eq!((again.status().as_u16(), again.body().len()), (304, 0), "{path} {known}");
            assert_eq!(again.headers()["etag"], etag);
            assert_eq!(again.headers()["cache-control"], "no-cache");
        }
        tags.push(etag);
    }
    bench.advance().await;
    for (path, etag) in paths.iter().zip(&tags) {
        let changed = bench.with_headers(path, &[("if-none-match", etag)]).await;
        assert_eq!(changed.status().as_u16(), 200, "{path}");
    }
    // Within a block the chain says nothing new, but peers may be heard.
    let etag = bench.with_headers("/v1/nodes", &[]).await.headers()["etag"].to_str().unwrap().to_owned();
    let change = bench.app.registry.heard_from(&OWN.into()).unwrap();
    crate::ingest::announce(&bench.app, &change);
    assert_eq!(bench.with_headers("/v1/nodes", &[("if-none-match", &etag)]).await.status().as_u16(), 200);
}

#[tokio::test(start_paused = true)]
async fn metrics_are_open_metrics_with_closed_labels() {
    let bench = Bench::synced().await;
    bench.get("/v1/some/path/of/a/stranger").await;
    bench.get(&format!("/v1/validators/{}/verify", ss58(OWN))).await;
    let response = bench.with_headers("/metrics", &[]).await;
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

#[tokio::test(start_paused = true)]
async fn every_path_that_is_described_is_served_and_no_other() {
    let bench = Bench::synced().await;
    let document: Value = serde_json::from_str(description()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), openapi::TABLE.paths().len());
    let api = api(&bench.app, Door::Socket);
    // Or the answer of `/v1/watch` would have no end.
    bench.app.watchers.close();
    for (index, path) in openapi::TABLE.paths().iter().enumerate() {
        assert!(api.routes[index].is_some(), "{} is described and not built in", path.template);
        let filled =
            path.template.replace("{hotkey}", &ss58(OWN)).replace("{coldkey}", &ss58(OWN)).replace("{id}", "0");
        for (method, operation) in paths[path.template].as_object().unwrap() {
            let answer = bench.ask(Door::Socket, &method.to_uppercase(), &filled, &[]).await;
            let status = answer.status().as_u16().to_string();
            let body: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
            assert!(operation["responses"].get(&status).is_some(), "{method} {filled}: {status} is not described");
            assert_ne!(body["type"], "urn:mycelium:not-found", "{method} {filled} is described and not served");
        }
    }
    // The other way round: whatever has a handler has a description, without which nobody could reach it.
    let groups = [
        admin::routes(&bench.app),
        read::routes(&bench.app),
        nodes::routes(&bench.app),
        super::watch::routes(&bench.app),
        chain::routes(&bench.app),
    ];
    for (template, _) in groups.into_iter().flatten() {
        assert!(paths.contains_key(template), "{template} is built in and not described");
    }
}

/// Twenty neurons: validators and miners by turns, with stakes that fall and trust that rises.
fn twenty() -> Vec<Neuron> {
    (0..20_u8)
        .map(|uid| {
            let stake = Tao::from_rao(u64::from(20 - uid) * 250_000_000_000);
            let mut one = neuron(uid.into(), [uid + 1; 32].into(), stake);
            one.validator_permit = uid % 2 == 0;
            one.coldkey = [if uid < 5 { 0xaa } else { 0xbb }; 32].into();
            one.vtrust = Score::from_f64(f64::from(uid) / 20.0);
            one.incentive = Score::from_f64(if uid % 2 == 0 { 0.0 } else { 0.5 });
            one.active = uid < 15;
            one.last_update = u64::from(uid < 10);
            one.axon = Some(Axon {
                ip: [10, 0, 0, uid].into(),
                port: 8091,
                protocol: AxonProtocol::Tcp,
                version: 1,
                block: 0,
            });
            one
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn nodes_are_filtered_and_sorted_as_asked() {
    let bench = Bench::synced_with(twenty()).await;
    let uids = async |query: &str| {
        let (status, _, body) = bench.get(&format!("/v1/nodes?{query}")).await;
        assert_eq!(status, 200, "{query}: {body}");
        let body: NodesBody = serde_json::from_value(body).unwrap();
        assert_eq!(body.total, body.nodes.len());
        body.nodes.iter().map(|node| node.neuron.uid.0).collect::<Vec<_>>()
    };
    assert_eq!(uids("").await, (0..20).collect::<Vec<_>>());
    // Who has stake enough counts as a validator with or without a permit.
    assert_eq!(uids("kind=miner&limit=1024").await, [17, 19]);
    assert_eq!(uids("permit=false").await, (1..20).step_by(2).collect::<Vec<_>>());
    assert_eq!(uids("min_stake=4500").await, [0, 1, 2]);
    assert_eq!(uids("max_stake=500&min_stake=250.5").await, [18]);
    assert_eq!(uids("state=below_stake&kind=validator").await, [18]);
    assert_eq!(uids("min_trust=0.9").await, [18, 19]);
    assert_eq!(uids("max_trust=0.05&min_trust=0").await, [0, 1]);
    assert_eq!(uids("min_incentive=0.4&active=false").await, [15, 17, 19]);
    assert_eq!(uids("max_incentive=0&active=false").await, [16, 18]);
    assert_eq!(uids(&format!("coldkey={}", ss58([0xaa; 32]))).await, [0, 1, 2, 3, 4]);
    assert_eq!(uids(&format!("hotkey={},{}", ss58([20; 32]), ss58([3; 32]))).await, [2, 19]);
    assert_eq!(uids("uid=7,3,500&uid=1").await, [1, 3, 7]);
    assert_eq!(uids("updated_within=0").await, (0..10).collect::<Vec<_>>());
    assert_eq!(uids("sort=stake&uid=1,2,3").await, [3, 2, 1]);
    assert_eq!(uids("sort=trust&desc=true&uid=1,2,3").await, [3, 2, 1]);
    assert_eq!(uids("sort=incentive&desc=true&uid=1,2,3,4").await, [1, 3, 2, 4]);
    // Who was heard is alive, wherever it was heard from; whether its axon can be reached only a probe says.
    bench.app.registry.heard_from(&[5; 32].into()).unwrap();
    assert_eq!(uids("state=active").await, [4]);
    assert_eq!(uids("reachable=true").await, Vec::<u16>::new());
    for (uid, answers) in [(7, true), (8, false)] {
        let (hotkey, asked) = ([uid + 1; 32].into(), ([10, 0, 0, uid], 8091).into());
        bench.app.registry.reached(&hotkey, asked, answers, UnixTime::from_secs(1_700_000_000)).unwrap();
    }
    assert_eq!((uids("reachable=true").await, uids("reachable=false").await), (vec![7], vec![8]));
    for (uid, reachable, since) in
        [(7, Some(true), Some("2023-11-14T22:13:20Z")), (8, Some(false), Some("2023-11-14T22:13:20Z")), (4, None, None)]
    {
        let body = bench.get(&format!("/v1/nodes/{uid}")).await.2;
        assert_eq!((body["reachable"].as_bool(), body["reachable_since"].as_str()), (reachable, since), "{uid}");
    }
}

#[tokio::test(start_paused = true)]
async fn pages_are_of_one_block_and_a_cursor_says_when_that_is_gone() {
    let bench = Bench::synced_with(twenty()).await;
    let page = async |query: &str| {
        let (status, _, body) = bench.get(&format!("/v1/nodes?{query}")).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_value::<NodesBody>(body).unwrap()
    };
    let first = page("sort=stake&limit=8").await;
    assert_eq!((first.block, first.total, first.nodes.len()), (1, 20, 8));
    // The subnet turns around between two pages.
    let mut turned = twenty();
    turned.reverse();
    for (uid, neuron) in (0..).zip(&mut turned) {
        neuron.uid = Uid(uid);
    }
    bench.chain.set_neurons(Some(turned));
    bench.advance().await;
    let second = page(&format!("sort=stake&limit=8&cursor={}", first.next.as_ref().unwrap())).await;
    let third = page(&format!("cursor={}&limit=100&sort=stake", second.next.as_ref().unwrap())).await;
    assert_eq!((second.block, third.block, third.nodes.len(), &third.next), (1, 1, 4, &None));
    let uids: Vec<u16> =
        [&first, &second, &third].iter().flat_map(|page| &page.nodes).map(|node| node.neuron.uid.0).collect();
    assert_eq!(uids, (0..20).rev().collect::<Vec<_>>(), "each once, as of the first page");
    assert_eq!(page("sort=stake&limit=8").await.block, 2);

    let cursor = first.next.unwrap();
    let (status, kind, _) = bench.problem(&format!("/v1/nodes?sort=trust&cursor={cursor}")).await;
    assert_eq!((status, kind.as_str()), (400, "urn:mycelium:invalid-parameter"));
    for _ in 0..16 {
        bench.advance().await;
        page("limit=1").await;
    }
    let (status, kind, detail) = bench.problem(&format!("/v1/nodes?sort=stake&limit=8&cursor={cursor}")).await;
    assert_eq!((status, kind.as_str()), (410, "urn:mycelium:cursor-expired"));
    assert!(detail.contains("start again"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn all_bad_parameters_are_told_at_once() {
    let bench = Bench::synced().await;
    let (status, _, body) = bench.get("/v1/nodes?kind=both&min_stake=x&limit=0&nodes=1").await;
    assert_eq!((status, &body["type"]), (400, &json!("urn:mycelium:invalid-parameter")));
    let errors = body["errors"].as_array().unwrap();
    let fields: Vec<&str> = errors.iter().map(|error| error["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["kind", "min_stake", "limit", "nodes"]);
    assert!(errors.iter().all(|error| error["value"].is_string() && !error["expected"].as_str().unwrap().is_empty()));
    for path in ["/v1/weights?mechanism=-1", "/v1/bonds?uid=x", "/v1/hyperparameters?block=0", "/v1/identities?x=1"] {
        assert_eq!(bench.problem(path).await.1, "urn:mycelium:invalid-parameter", "{path}");
    }
    assert_eq!(bench.get("/v1/balances/5Grw").await.2["errors"][0]["field"], "coldkey");
}

#[tokio::test(start_paused = true)]
async fn one_node_is_found_by_hotkey_and_by_uid() {
    let bench = Bench::synced().await;
    let (_, _, by_uid) = bench.get("/v1/nodes/2").await;
    let (_, _, by_hotkey) = bench.get(&format!("/v1/nodes/{}", ss58(MINER))).await;
    assert_eq!(by_uid, by_hotkey);
    golden("node.json", &by_uid);
    let node: NodeBody = serde_json::from_value(by_uid).unwrap();
    assert_eq!((node.kind, node.reachable, node.neuron.hotkey), (NodeKind::Miner, None, MINER.into()));
    for id in ["99", &ss58([9; 32])] {
        let (status, kind, detail) = bench.problem(&format!("/v1/nodes/{id}")).await;
        assert_eq!((status, kind.as_str()), (404, "urn:mycelium:unknown-node"));
        assert!(detail.contains(id), "{detail}");
    }
    for id in ["70000", "5Grw", "-1", "%zz"] {
        assert_eq!(bench.problem(&format!("/v1/nodes/{id}")).await.0, 400, "{id}");
    }
}

#[tokio::test]
async fn large_bodies_are_gzipped_for_those_who_take_it() {
    let bench = Bench::synced_with(twenty()).await;
    for path in ["/v1/metagraph", "/v1/nodes", "/v1/openapi.json"] {
        let plain = bench.with_headers(path, &[("accept-encoding", "gzip;q=0, identity")]).await;
        assert!(plain.headers().get("content-encoding").is_none(), "{path}");
        let packed = bench.with_headers(path, &[("accept-encoding", "gzip, br")]).await;
        assert_eq!(
            (&packed.headers()["content-encoding"], &packed.headers()["vary"]),
            (&"gzip".parse().unwrap(), &"accept-encoding".parse().unwrap())
        );
        let mut back = vec![];
        flate2::read::GzDecoder::new(&**packed.body()).read_to_end(&mut back).unwrap();
        assert!(back == **plain.body() && packed.body().len() < plain.body().len() / 2, "{path}");
    }
    let small = bench.with_headers("/healthz", &[("accept-encoding", "gzip")]).await;
    assert!(small.headers().get("content-encoding").is_none());
    // Made once for a block, however often it is asked for.
    let first = bench.with_headers("/v1/metagraph", &[("accept-encoding", "gzip")]).await;
    let second = bench.with_headers("/v1/metagraph", &[("accept-encoding", "gzip")]).await;
    assert_eq!(first.body().as_ptr(), second.body().as_ptr());
}

#[tokio::test(start_paused = true)]
async fn heads_that_are_too_large_are_told_what_is_taken() {
    let bench = Bench::synced().await;
    let problem = async |path: &str, headers: &[(&str, &str)]| {
        let response = bench.with_headers(path, headers).await;
        let body: Value = serde_json::from_slice(response.body()).unwrap();
        (response.status().as_u16(), body["type"].as_str().unwrap().to_owned())
    };
    let long = "x".repeat(9000);
    assert_eq!(problem(&format!("/v1/nodes?hotkey={long}"), &[]).await, (414, "urn:mycelium:uri-too-long".into()));
    let too_large = (431, "urn:mycelium:headers-too-large".to_owned());
    assert_eq!(problem("/v1/status", &[("x-long", &long)]).await, too_large);
    let names: Vec<String> = (0..65).map(|i| format!("x-{i}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(problem("/v1/status", &many).await, too_large);
}

/// A chain that answers with what it was asked.
struct Echo;

#[async_trait]
impl ChainReads for Echo {
    async fn matrix(&self, asked: MatrixAsked) -> Result<MatrixBody, ReadFailure> {
        let uid = asked.uid.unwrap_or_default();
        let values = vec![MatrixValue { uid: Uid(1), value: 65535 }];
        Ok(MatrixBody {
            netuid: NetUid(1),
            mechanism: asked.mechanism,
            block: asked.block.unwrap_or(7),
            block_hash: BlockHash::default(),
            rows: vec![MatrixRow { uid, values }],
        })
    }

    async fn hyperparameters(&self, block: Option<u64>) -> Result<HyperparametersBody, ReadFailure> {
        Err(ReadFailure::Absent(format!("block {block:?} is not there")))
    }

    async fn identities(&self, _: BTreeSet<Coldkey>, _: Option<u64>) -> Result<IdentitiesBody, ReadFailure> {
        Err(ReadFailure::Chain { reason: "EndpointDown", detail: "gone".into() })
    }

    async fn balance(&self, coldkey: Coldkey, block: Option<u64>) -> Result<BalanceBody, ReadFailure> {
        let block = block.unwrap_or(7);
        Ok(BalanceBody {
            coldkey,
            block,
            block_hash: BlockHash::default(),
            free: tao("1.5"),
            reserved: Tao::ZERO,
            frozen: Tao::ZERO,
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_read_from_the_chain_is_asked_and_answered_as_described() {
    let bench = Bench::start_with(FakeChain::new(NetUid(1), neurons()), |app| app.reads = Arc::new(Echo));
    let bench = Bench::settled(bench).await;
    let (status, _, body) = bench.get("/v1/weights?mechanism=3&uid=2&block=5").await;
    assert_eq!(
        (status, &body["mechanism"], &body["block"], &body["rows"][0]["uid"]),
        (200, &json!(3), &json!(5), &json!(2))
    );
    golden("weights.json", &body);
    assert_eq!(bench.problem("/v1/hyperparameters?block=9").await.1, "urn:mycelium:absent");
    assert_eq!(bench.problem("/v1/identities").await.1, "urn:mycelium:chain-unavailable");
    let (_, _, body) = bench.get(&format!("/v1/balances/{}", ss58(OWN))).await;
    golden("balance.json", &body);
    // A chain that does not answer is said to be so.
    let bench = Bench::synced().await;
    assert_eq!(bench.problem("/v1/weights").await.1, "urn:mycelium:chain-unavailable");
}

#[tokio::test(start_paused = true)]
async fn watchers_see_what_changes_and_heartbeats_when_nothing_does() {
    let bench = Bench::synced().await;
    let watch = async |headers: &[(&str, &str)]| {
        let mut request = Request::builder().uri("/v1/watch");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = api(&bench.app, Door::Tcp).answer(request.body(Full::new(Bytes::new())).unwrap()).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        response.into_body()
    };
    let mut body = watch(&[("accept-encoding", "gzip")]).await;
    let mut next = async || {
        let frame = body.frame().await?.unwrap().into_data().unwrap();
        Some(String::from_utf8(frame.to_vec()).unwrap())
    };
    assert!(next().await.unwrap().starts_with("event: snapshot\nid: "));
    assert_eq!(next().await.unwrap(), ": heartbeat\n\n");
    let change = bench.app.registry.heard_from(&OWN.into()).unwrap();
    crate::ingest::announce(&bench.app, &change);
    let event = next().await.unwrap();
    assert!(event.starts_with("event: registry\n") && event.contains("\"state\":\"active\""), "{event}");
    let id = event.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    bench.advance().await;
    assert!(next().await.unwrap().starts_with("event: metagraph\n"));

    let mut resumed = watch(&[("last-event-id", &id)]).await;
    let frame = resumed.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(frame.starts_with(b"event: metagraph\n"), "{frame:?}");

    let mut others = vec![];
    for _ in 0..62 {
        others.push(watch(&[]).await);
    }
    let (status, kind, _) = bench.problem("/v1/watch").await;
    assert_eq!((status, kind.as_str()), (503, "urn:mycelium:too-many-watchers"));
    drop(others);
    bench.app.watchers.close();
    assert_eq!(next().await, None);
}

/// Values that the labels of all metrics can have: from closed sets, however many strangers ask.
fn is_known_label(name: &str, value: &str) -> bool {
    let words = |words: &str| words.split(' ').any(|word| word == value);
    match name {
        "route" => value == "other" || openapi::TABLE.paths().iter().any(|path| path.template == value),
        "status" => value.parse::<u16>().is_ok_and(|status| StatusCode::from_u16(status).is_ok()),
        "state" => {
            words("discovered verified active inactive below_stake")
                || words("unknown in_use healthy rate_limited lagging failing wrong_chain")
        }
        "event" => words("discovered activated deactivated changed removed"),
        "result" => words("other verified not_registered below_minimum_stake no_validator_permit EndpointDown"),
        "cached" => words("true false"),
        "reason" => words("full address_full Connecting EndpointDown"),
        // Places in the configuration, of which this one has one.
        "endpoint" => value == "0",
        "version" => value == env!("CARGO_PKG_VERSION"),
        "kind" => words("validator miner"),
        "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
        _ => false,
    }
}

#[derive(Default)]
struct FamilyOfMetrics {
    kind: String,
    unit: Option<String>,
    has_help: bool,
}

/// Reads a line such as `name{a="b",c="d"} 1.5`.
fn sample(line: &str) -> (&str, Vec<(&str, &str)>, f64) {
    let (head, value) = line.rsplit_once(' ').unwrap();
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    let Some((name, labels)) = head.split_once('{') else { return (head, vec![], value) };
    let labels = labels.strip_suffix('}').unwrap();
    let labels = labels.split("\",").map(|pair| pair.trim_end_matches('"').split_once("=\"").unwrap()).collect();
    (name, labels, value)
}

#[tokio::test(start_paused = true)]
async fn metrics_pass_a_strict_reading() {
    let bench = Bench::synced().await;
    for path in ["/v1/status", "/v1/some/path", "/v1/nodes?x=1", "/v1/nodes/0", "/v1/nodes/%ff"] {
        bench.get(path).await;
    }
    for key in [OWN, OWN, POOR, [9; 32]] {
        bench.get(&format!("/v1/validators/{}/verify", ss58(key))).await;
    }
    bench.app.metrics.verification("a reason of a later version", false);
    bench.app.metrics.connection_refused(Refusal::Full);
    let response = bench.with_headers("/metrics", &[]).await;
    assert_eq!(response.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = std::str::from_utf8(response.body()).unwrap();
    let lines = text.strip_suffix("# EOF\n").expect("it ends with its end");
    assert!(!lines.contains("# EOF"));

    let mut seen = BTreeSet::new();
    let mut name = String::new();
    let mut family = FamilyOfMetrics::default();
    let mut samples = BTreeSet::new();
    let mut bucket = 0.0;
    for line in lines.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let (word, rest) = comment.split_once(' ').unwrap();
            let (of, rest) = rest.split_once(' ').unwrap();
            if of != name {
                assert!(seen.insert(of.to_owned()), "{of} comes in two places");
                assert!(
                    of.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
                    "{of}"
                );
                assert!(of.starts_with("mycelium_sidecar_"), "{of}");
                (name, family) = (of.to_owned(), FamilyOfMetrics::default());
            }
            match word {
                "TYPE" => rest.clone_into(&mut family.kind),
                "UNIT" => family.unit = Some(rest.to_owned()),
                "HELP" => family.has_help = rest.len() > 5,
                _ => panic!("{line}"),
            }
            continue;
        }
        let (of, labels, value) = sample(line);
        let suffix = of.strip_prefix(&name).unwrap_or_else(|| panic!("{line} stands under {name}"));
        let allowed: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            other => panic!("{name}: {other}"),
        };
        assert!(allowed.contains(&suffix), "{line}: {}", family.kind);
        assert!(family.has_help, "{name} says not what it is");
        assert!(
            family.unit.as_ref().is_none_or(|unit| name.ends_with(&format!("_{unit}"))),
            "{name}: {:?}",
            family.unit
        );
        assert!(!name.ends_with("_total") && (!name.contains("duration") || family.unit.as_deref() == Some("seconds")));
        assert!(value.is_finite() && (family.kind == "gauge" || value >= 0.0), "{line}");
        assert!(samples.insert(line.rsplit_once(' ').unwrap().0), "{line} comes twice");
        for (label, value) in &labels {
            assert!(is_known_label(label, value), "{line}: {label} can be anything");
        }
        if suffix == "_bucket" {
            let first = labels.iter().any(|(label, value)| *label == "le" && *value == "0.0001");
            assert!(first || value >= bucket || !name.contains("http"), "{line}: buckets only grow");
            bucket = value;
        }
    }
    for family in [
        "http_requests",
        "http_request_duration_seconds",
        "http_connections_refused",
        "chain_refresh_duration_seconds",
        "chain_endpoint_state",
        "chain_endpoint_score",
        "metagraph_age_seconds",
        "registry_entries",
        "verifications",
        "weights_age_blocks",
        "build",
        "resident_memory_bytes",
    ] {
        assert!(seen.contains(&format!("mycelium_sidecar_{family}")), "{family} is missing: {seen:?}");
    }
    assert!(text.contains("mycelium_sidecar_verifications_total{result=\"other\",cached=\"false\"} 1\n"), "{text}");
}
