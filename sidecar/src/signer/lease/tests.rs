use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::signer::guard::Fence;

/// A clock that follows tokio's, which tests pause.
struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn now(&self) -> Moment {
        let boot = self.0.elapsed() + Duration::from_secs(1000);
        Moment { boot, wall: boot }
    }
}

/// What the API server does with a request instead of answering it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Status(u16),
    /// No answer, and nothing done.
    Lost,
    /// Done, but no answer.
    AnswerLost,
}

/// An API server with one Lease, which checks versions as the real one does.
#[derive(Default)]
struct ApiServer {
    lease: Mutex<Option<Value>>,
    versions: AtomicU64,
    faults: Mutex<VecDeque<Fault>>,
    down: Mutex<Option<Fault>>,
    calls: Mutex<Vec<Method>>,
}

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

impl ApiServer {
    fn start() -> (Arc<Self>, Client) {
        let server = Arc::new(Self::default());
        let answering = server.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let server = answering.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        (server, Client::new(service, "default"))
    }

    async fn answer(&self, request: http::Request<Body>) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let bytes = request.into_body().collect_bytes().await.unwrap();
        self.calls.lock().push(method.clone());
        let fault = self.down.lock().or_else(|| self.faults.lock().pop_front());
        match fault {
            Some(Fault::Status(code)) => return respond(code, &failure(code)),
            Some(Fault::Lost) => return std::future::pending().await,
            Some(Fault::AnswerLost) | None => {}
        }
        let (code, body) = self.act(&method, &path, &bytes);
        if fault == Some(Fault::AnswerLost) {
            return std::future::pending().await;
        }
        respond(code, &body)
    }

    fn act(&self, method: &Method, path: &str, bytes: &[u8]) -> (u16, Value) {
        let mut lease = self.lease.lock();
        let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let next = || (self.versions.fetch_add(1, Ordering::Relaxed) + 1).to_string();
        match (method.as_str(), &*lease) {
            ("GET", Some(found)) => {
                assert_eq!(path, format!("{PATH}/v1-signer"));
                (200, found.clone())
            }
            ("GET" | "PUT", None) => (404, failure(404)),
            ("POST", Some(_)) => (409, failure(409)),
            ("PUT", Some(found)) if found["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] => {
                (409, failure(409))
            }
            ("POST" | "PUT", _) => {
                let mut body = body;
                body["metadata"]["resourceVersion"] = json!(next());
                *lease = Some(body.clone());
                (if method == Method::POST { 201 } else { 200 }, body)
            }
            _ => (405, failure(405)),
        }
    }

    fn spec(&self, field: &str) -> Value {
        self.lease.lock().as_ref().unwrap()["spec"][field].clone()
    }

    /// Somebody else writes the lease.
    fn put(&self, spec: &Value) {
        let version = self.versions.fetch_add(1, Ordering::Relaxed) + 1;
        let metadata = json!({"name": "v1-signer", "namespace": "default", "resourceVersion": version.to_string()});
        *self.lease.lock() =
            Some(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}));
    }
}

fn failure(code: u16) -> Value {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let message = "as the test wants";
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code})
}

fn respond(code: u16, body: &Value) -> Response<Body> {
    let status = StatusCode::from_u16(code).unwrap();
    Response::builder().status(status).body(serde_json::to_vec(body).unwrap().into()).unwrap()
}

/// One sidecar's lease and the task that keeps it.
struct Sidecar {
    lease: Arc<Lease>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Sidecar {
    fn start(client: &Client, name: &str) -> Self {
        let clock = Arc::new(TokioClock(tokio::time::Instant::now()));
        let lease = Arc::new(Lease::new(Rules::KUBERNETES, name.to_owned(), clock));
        let stop = CancellationToken::new();
        let (kept, stopped) = (lease.clone(), stop.clone());
        let store = KubernetesStore::new(client.clone(), "default", "v1-signer");
        let task = tokio::spawn(async move { kept.keep(&store, stopped).await });
        Self { lease, stop, task }
    }

    fn reason(&self) -> &'static str {
        self.lease.permit().map_or_else(|cause| cause.reason(), |_| "Held")
    }

    async fn held(&self) {
        tokio::time::timeout(Duration::from_mins(2), async {
            while self.lease.permit().is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("never held: {:?}", self.lease.permit()));
    }
}

/// The annotation with the fence.
const FENCE: &str = "mycelium.network/signed-until-block";

/// A lease as a holder leaves it that has nothing under way.
fn given_back() -> Value {
    json!({"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 1})
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nobody_made_is_made_and_waited_for_and_then_renewed() {
    let (server, client) = ApiServer::start();
    let sidecar = Sidecar::start(&client, "a");
    seconds(1).await;
    // Whoever held the lease that was removed may still count on it.
    assert_eq!(sidecar.reason(), "Settling");
    seconds(15).await;
    assert_eq!(sidecar.reason(), "Held");
    assert_eq!((server.spec("holderIdentity"), server.spec("leaseTransitions")), (json!("a"), json!(1)));
    seconds(60).await;
    assert_eq!(sidecar.reason(), "Held");
    assert_eq!(sidecar.lease.tenure().unwrap().1, 1);
}

#[tokio::test(start_paused = true)]
async fn the_second_waits_for_the_first_and_takes_over_what_it_released() {
    let (server, client) = ApiServer::start();
    server.put(&given_back());
    let first = Sidecar::start(&client, "first");
    first.held().await;
    let second = Sidecar::start(&client, "second");
    seconds(120).await;
    assert_eq!((first.reason(), second.reason()), ("Held", "HeldByAnother"));
    first.stop.cancel();
    first.task.await.unwrap();
    assert_eq!((server.spec("holderIdentity"), server.spec("leaseDurationSeconds")), (json!(""), json!(1)));
    // Given back by these rules, so there is nothing to wait for but the next look.
    seconds(3).await;
    assert_eq!((first.lease.permit(), second.reason()), (Err(NotHeld::Released), "Held"));
    assert_eq!(second.lease.tenure().unwrap().1, 3);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_died_is_replaced_after_its_whole_duration_on_our_clock_only() {
    let (server, client) = ApiServer::start();
    // Renewed long ago by its own clock, which says nothing.
    server.put(&json!({"holderIdentity": "dead", "leaseDurationSeconds": 20, "leaseTransitions": 4, "renewTime": "2020-01-01T00:00:00.000000Z"}));
    let sidecar = Sidecar::start(&client, "a");
    seconds(19).await;
    assert_eq!(sidecar.lease.permit().unwrap_err(), NotHeld::Foreign { holder: "dead".into(), epoch: 4 });
    seconds(3).await;
    assert_eq!((sidecar.reason(), sidecar.lease.tenure().unwrap().1), ("Held", 5));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_lost_ends_signing_before_anybody_else_may_start() {
    for fault in [Fault::Lost, Fault::AnswerLost, Fault::Status(500), Fault::Status(503), Fault::Status(403)] {
        let (server, client) = ApiServer::start();
        let sidecar = Sidecar::start(&client, "a");
        sidecar.held().await;
        *server.down.lock() = Some(fault);
        seconds(13).await;
        let NotHeld::Unreachable { error } = sidecar.lease.permit().unwrap_err() else {
            panic!("{fault:?}: {:?}", sidecar.lease.permit())
        };
        assert!(fault != Fault::Status(403) || error.contains("the verbs get and update"), "{error}");
        *server.down.lock() = None;
        seconds(10).await;
        assert_eq!((sidecar.reason(), sidecar.lease.tenure().unwrap().1), ("Held", 1), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn single_failures_and_conflicts_do_not_end_signing() {
    for fault in [Fault::Lost, Fault::AnswerLost, Fault::Status(500), Fault::Status(409), Fault::Status(429)] {
        let (server, client) = ApiServer::start();
        let sidecar = Sidecar::start(&client, "a");
        sidecar.held().await;
        for _ in 0..20 {
            server.faults.lock().push_back(fault);
            for _ in 0..10 {
                seconds(1).await;
                assert_eq!(sidecar.reason(), "Held", "{fault:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_taken_away_by_hand_stops_signing_at_the_next_renewal() {
    let (server, client) = ApiServer::start();
    let sidecar = Sidecar::start(&client, "a");
    sidecar.held().await;
    server.put(&json!({"holderIdentity": "b", "leaseDurationSeconds": 15, "leaseTransitions": 9}));
    seconds(6).await;
    assert_eq!(sidecar.reason(), "HeldByAnother");
    seconds(20).await;
    assert_eq!((sidecar.reason(), sidecar.lease.tenure().unwrap().1), ("Held", 10));
}

#[tokio::test(start_paused = true)]
async fn the_fence_is_written_before_an_extrinsic_is_permitted_and_binds_the_next_holder() {
    let (server, client) = ApiServer::start();
    server.put(&given_back());
    let first = Sidecar::start(&client, "first");
    first.held().await;
    assert!(first.lease.permit_extrinsic(164, 100).await.is_ok());
    let annotation =
        |server: &ApiServer| server.lease.lock().as_ref().unwrap()["metadata"]["annotations"][FENCE].clone();
    assert_eq!(annotation(&server), json!("164"));
    // As after a crash: nothing is given back.
    first.task.abort();
    let second = Sidecar::start(&client, "second");
    second.held().await;
    let refused = second.lease.permit_extrinsic(180, 120).await.unwrap_err();
    assert_eq!(refused, NotHeld::Fenced { fence: 164, finalized: 120 });
    assert!(second.lease.permit_extrinsic(230, 164).await.is_ok());
    assert_eq!(annotation(&server), json!("230"));

    // What is settled binds nobody.
    second.lease.looked(second.lease.now(), 231, 230);
    second.stop.cancel();
    second.task.await.unwrap();
    assert_eq!(annotation(&server), Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_lease_made_anew_holds_extrinsics_back_for_as_long_as_the_one_removed_could_have_signed() {
    let (server, client) = ApiServer::start();
    let sidecar = Sidecar::start(&client, "a");
    seconds(1).await;
    assert!(!sidecar.lease.look_is_due(), "the holder before may sign still");
    sidecar.held().await;
    assert_eq!(sidecar.lease.permit_extrinsic(116, 100).await, Err(NotHeld::NotLooked));
    assert!(sidecar.lease.look_is_due());
    let mortality = Rules::KUBERNETES.mortality_blocks;
    sidecar.lease.looked(sidecar.lease.now(), 101, 100);
    assert!(!sidecar.lease.look_is_due());
    let fenced = NotHeld::Fenced { fence: 101 + mortality, finalized: 100 };
    assert_eq!(sidecar.lease.permit_extrinsic(116, 100).await, Err(fenced));
    // The next holder has to wait as well, even if this one goes at once.
    sidecar.stop.cancel();
    sidecar.task.await.unwrap();
    let annotation = server.lease.lock().as_ref().unwrap()["metadata"]["annotations"][FENCE].clone();
    assert_eq!(annotation, json!((101 + mortality).to_string()));
}

#[tokio::test(start_paused = true)]
async fn a_lease_as_the_operator_makes_it_is_written_over_and_believed_no_more_than_none() {
    let (server, client) = ApiServer::start();
    server.put(&Value::Null);
    let sidecar = Sidecar::start(&client, "a");
    seconds(1).await;
    // It may have been made in place of one that was removed, whose holder still counts on it.
    assert_eq!((server.spec("holderIdentity"), sidecar.reason()), (json!("a"), "Settling"));
    seconds(15).await;
    assert_eq!(sidecar.reason(), "Held");
    assert_eq!(sidecar.lease.permit_extrinsic(116, 100).await, Err(NotHeld::NotLooked));
    assert!(!server.calls.lock().contains(&Method::POST), "it was there");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_counts_no_holders_is_waited_for_and_may_have_signed_anything() {
    let (server, client) = ApiServer::start();
    server.put(&json!({"holderIdentity": "somebody", "leaseDurationSeconds": 15}));
    let sidecar = Sidecar::start(&client, "a");
    seconds(14).await;
    assert_eq!(sidecar.reason(), "HeldByAnother");
    sidecar.held().await;
    assert_eq!(sidecar.lease.permit_extrinsic(116, 100).await, Err(NotHeld::NotLooked));
}

#[tokio::test(start_paused = true)]
async fn no_fence_no_extrinsic_while_messages_are_still_signed() {
    let (server, client) = ApiServer::start();
    server.put(&given_back());
    let sidecar = Sidecar::start(&client, "a");
    sidecar.held().await;
    *server.down.lock() = Some(Fault::Status(500));
    assert_eq!(sidecar.lease.permit_extrinsic(164, 100).await, Err(NotHeld::FenceNotWritten));
    assert_eq!(sidecar.reason(), "Held");
}

#[tokio::test(start_paused = true)]
async fn labels_of_others_on_the_object_stay() {
    let (server, client) = ApiServer::start();
    server.put(&given_back());
    server.lease.lock().as_mut().unwrap()["metadata"]["labels"] = json!({"app": "x"});
    let sidecar = Sidecar::start(&client, "a");
    sidecar.held().await;
    assert_eq!(server.lease.lock().as_ref().unwrap()["metadata"]["labels"], json!({"app": "x"}));
    assert_eq!(server.spec("leaseTransitions"), json!(2));
}

#[test]
fn what_is_made_while_the_lease_runs_out_is_thrown_away() {
    struct Hand(Mutex<Moment>);
    impl Clock for Hand {
        fn now(&self) -> Moment {
            *self.0.lock()
        }
    }
    let start = Moment { boot: Duration::from_secs(50), wall: Duration::from_secs(5000) };
    let clock = Arc::new(Hand(Mutex::new(start)));
    let lease = Lease::new(Rules::KUBERNETES, "a".into(), clock.clone());
    let released = LeaseRecord {
        holder: None,
        duration: Duration::from_secs(1),
        epoch: 1,
        fence: Fence::Settled,
        version: "1".into(),
        alive: false,
    };
    let mine = LeaseRecord { holder: Some("a".into()), version: "2".into(), epoch: 2, ..released.clone() };
    for answer in [Answer::Found(Some(released)), Answer::Written(mine)] {
        let ticket = lease.guard.lock().begin(start).unwrap();
        lease.guard.lock().finish(&ticket, answer, start);
    }
    assert_eq!(lease.under(|| 7).unwrap().0, 7);
    let pause = |time| move || *clock.0.lock() = start.plus(time);
    assert_eq!(lease.under(pause(Duration::from_secs(13))).unwrap_err(), NotHeld::Expired);
}
