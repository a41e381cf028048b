use crds::v1alpha1::Validator;
use futures::{FutureExt as _, StreamExt as _};
use kube_runtime::events::{Recorder, Reporter};
use kube_runtime::watcher::Event;
use serde_json::Value;

use super::*;
use crate::chains::Chains;
use crate::context::{NetworkVersion, Stores, Triggers, Watched};
use crate::fixtures::api_server::ApiServer;
use crate::fixtures::{GENESIS, hotkey, network, validator};
use crate::metrics::Metrics;
use crate::retries::Retries;
use crate::sidecars::Sidecars;

const VALIDATOR: &str = "/apis/mycelium.network/v1alpha1/namespaces/default/validators/v1";
const OTHER: &str = "/apis/mycelium.network/v1alpha1/namespaces/default/validators/other";
const POD: &str = "/api/v1/namespaces/default/pods/validator-v1";
const SECRET: &str = "/api/v1/namespaces/default/secrets/v1-hotkey";

fn watched<K>(objects: Vec<K>) -> Watched<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug,
{
    let all = objects.into_iter().map(|object| Event::InitApply(kube::core::DeserializeGuard(Ok(object))));
    let events = [Event::Init].into_iter().chain(all).chain([Event::InitDone]);
    let (watched, heard) = Watched::new(futures::stream::iter(events.map(Ok)));
    heard.count().now_or_never().expect("every event is there");
    watched
}

/// A cluster with the Network `default`, and an operator that has not looked at anything yet.
struct World {
    server: Arc<ApiServer>,
    ctx: Context,
}

impl World {
    fn new() -> Self {
        let (server, client) = ApiServer::start();
        let stores =
            Stores { networks: watched(vec![network()]), validators: watched(Vec::new()), miners: watched(Vec::new()) };
        let reporter = Reporter { controller: "test".into(), instance: None };
        let ctx = Context {
            chains: Arc::new(Chains::new(Arc::new(|_, _| {}))),
            sidecars: Arc::new(Sidecars::new(reqwest::Client::new(), Arc::new(|_| {}))),
            recorder: Recorder::new(client.clone(), reporter),
            client,
            stores,
            triggers: Arc::new(Triggers::default()),
            metrics: Metrics::new(),
            retries: Retries::default(),
            default_image: "example/sidecar:1".into(),
            versions: parking_lot::Mutex::default(),
        };
        let version = NetworkVersion { file: "c1".into(), namespaces: ["default".to_owned()].into(), generation: None };
        ctx.network_seen("default", version);
        Self { server, ctx }
    }

    fn with_secret(self) -> Self {
        let file = format!(r#"{{"ss58Address": "{}"}}"#, hotkey(1));
        let encoded = k8s_openapi::ByteString(file.into_bytes());
        self.server.put(SECRET, json!({ "metadata": { "name": "v1-hotkey" }, "data": { "hotkey": encoded } }));
        self
    }

    /// Looks at the node once, as it stands on the server; gives the writes, without those of events.
    async fn look(&self, node: &Value) -> Vec<String> {
        let node: Validator = serde_json::from_value(node.clone()).unwrap();
        Box::pin(reconcile_node::<Validator>(&node.to_object(), &self.ctx)).await.unwrap();
        let mut writes = self.server.take_writes();
        writes.retain(|write| !write.contains("/events"));
        writes
    }

    fn stored(&self) -> Value {
        self.server.get(VALIDATOR).unwrap()
    }

    fn condition(&self, type_: &str) -> (String, String) {
        let node = self.stored();
        let conditions = node["status"]["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|condition| condition["type"] == type_).unwrap();
        (found["status"].as_str().unwrap().into(), found["reason"].as_str().unwrap().into())
    }
}

fn written(change: impl FnOnce(&mut Value)) -> Value {
    let mut written = Value::Null;
    validator(|value| {
        change(value);
        written = value.clone();
    });
    written
}

#[tokio::test]
async fn a_validator_is_reserved_then_made_and_then_left_alone() {
    let world = World::new().with_secret();
    world.server.put(VALIDATOR, written(|_| {}));
    let reservation = format!(
        "/apis/mycelium.network/v1alpha1/hotkeyreservations/{}",
        crate::resources::reservation::name(GENESIS, sidecar_util::NetUid(1), &hotkey(1))
    );

    let first = world.look(&world.stored()).await;
    assert_eq!(
        first,
        [
            format!("PATCH {VALIDATOR}"),
            "POST /apis/mycelium.network/v1alpha1/hotkeyreservations".into(),
            format!("PATCH {VALIDATOR}/status"),
        ]
    );
    assert!(world.server.get(&reservation).is_some());

    let second = world.look(&world.stored()).await;
    assert_eq!(
        second,
        [
            "PATCH /api/v1/namespaces/default/serviceaccounts/validator-v1".into(),
            "PATCH /apis/rbac.authorization.k8s.io/v1/namespaces/default/roles/validator-v1".into(),
            "PATCH /apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings/validator-v1".into(),
            format!(
                "PATCH /apis/coordination.k8s.io/v1/namespaces/default/leases/{}",
                crate::resources::lease::name(GENESIS, &hotkey(1))
            ),
            "PATCH /api/v1/namespaces/default/services/validator-v1".into(),
            "PATCH /api/v1/namespaces/default/persistentvolumeclaims/state-validator-v1".into(),
            "POST /api/v1/namespaces/default/pods".into(),
            format!("PATCH {VALIDATOR}/status"),
        ]
    );

    world.look(&world.stored()).await;
    assert_eq!(
        world.look(&world.stored()).await,
        Vec::<String>::new(),
        "a look that finds all as wanted writes nothing"
    );
}

#[tokio::test]
async fn a_service_that_somebody_changed_or_deleted_is_put_back() {
    let service = "/api/v1/namespaces/default/services/validator-v1";
    let world = World::new().with_secret();
    world.server.put(VALIDATOR, written(|_| {}));
    for _ in 0..3 {
        world.look(&world.stored()).await;
    }
    let made = world.server.get(service).unwrap();
    let mut changed = made.clone();
    changed["spec"]["ports"][0]["port"] = json!(1);
    world.server.put(service, changed);
    assert_eq!(world.look(&world.stored()).await, [format!("PATCH {service}")]);
    assert_eq!(world.server.get(service).unwrap()["spec"]["ports"], made["spec"]["ports"]);
}

#[tokio::test]
async fn without_its_secret_a_validator_only_gets_a_condition() {
    let world = World::new();
    world.server.put(VALIDATOR, written(|_| {}));
    assert_eq!(world.look(&world.stored()).await, [format!("PATCH {VALIDATOR}"), format!("PATCH {VALIDATOR}/status")]);
    assert_eq!(world.condition("InvalidSpec"), ("True".into(), "SecretMissing".into()));
    assert_eq!(world.look(&world.stored()).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_hotkey_that_another_runs_is_refused_by_name() {
    let world = World::new().with_secret();
    world.server.put(VALIDATOR, written(|_| {}));
    let mut other = written(|value| {
        value["metadata"]["uid"] = json!("other-uid");
        value["metadata"]["name"] = json!("other");
    });
    other["metadata"]["finalizers"] = json!([labels::FINALIZER]);
    world.server.put(OTHER, other.clone());
    world.look(&other).await;
    world.look(&world.stored()).await;
    assert_eq!(world.condition("HotkeyReserved"), ("False".into(), "HotkeyTaken".into()));
    let message = world.stored()["status"]["conditions"].to_string();
    assert!(message.contains("run by Validator default/other"), "{message}");
    assert!(world.server.get(POD).is_none());
}

#[tokio::test]
async fn a_deleted_validator_frees_its_hotkey_after_its_pod_is_gone() {
    let world = World::new().with_secret();
    world.server.put(VALIDATOR, written(|_| {}));
    for _ in 0..2 {
        world.look(&world.stored()).await;
    }
    let mut deleted = world.stored();
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.server.put("/apis/mycelium.network/v1alpha1/hotkeyreservations", reservations(&world));
    assert_eq!(world.look(&deleted).await, [format!("DELETE {POD}")]);
    let last = world.look(&deleted).await;
    assert!(last[0].starts_with("DELETE /apis/mycelium.network/v1alpha1/hotkeyreservations/"), "{last:?}");
    assert_eq!(last[1..], [format!("PATCH {VALIDATOR}")]);
}

/// The list that the server would give.
fn reservations(world: &World) -> Value {
    let name = crate::resources::reservation::name(GENESIS, sidecar_util::NetUid(1), &hotkey(1));
    let one = world.server.get(&format!("/apis/mycelium.network/v1alpha1/hotkeyreservations/{name}")).unwrap();
    json!({ "apiVersion": "mycelium.network/v1alpha1", "kind": "HotkeyReservationList", "metadata": {}, "items": [one] })
}
