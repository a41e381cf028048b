//! Builds every part and owns the order of their end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use crds::v1alpha1::{Miner, Network, Validator};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::{Api, Client};
use kube_runtime::controller::{self, Controller};
use kube_runtime::events::{Recorder, Reporter};
use kube_runtime::reflector::ObjectRef;
use kube_runtime::watcher;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use sidecar_util::{Hotkey, Neuron};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Readiness};
use crate::args::Args;
use crate::chains::{ChainState, Chains, Problem};
use crate::context::{Context, Guarded, Queue, Stores, Triggers, Watched};
use crate::leader::Leadership;
use crate::metrics::Metrics;
use crate::node::{Node, NodeKey};
use crate::retries::Retries;
use crate::sidecars::Sidecars;
use crate::{labels, network, reconcile, status};

/// Reconciles at the same time, per kind.
const CONCURRENCY: u16 = 16;
/// A Network sums up many nodes: a burst of their changes is one look.
const NETWORK_DEBOUNCE: Duration = Duration::from_millis(100);
/// How long reconciles may go on after the signal to stop: well below a pod's 30 s, so that the Lease is given back.
const GRACE: Duration = Duration::from_secs(10);

/// Runs until a signal comes or the Lease is lost.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    let metrics = Metrics::new();
    let ready = Readiness::default();
    let endpoints = tokio::spawn(admin::serve(args.listen, metrics.clone(), ready.clone(), stop.clone()));
    let client =
        Client::try_default().await.context("no way to the API server: neither in a cluster nor a kubeconfig")?;
    let result = lead(&args, client, metrics, &ready, &stop).await;
    stop.cancel();
    endpoints.await.context("endpoints panicked")??;
    result
}

fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
            () = token.cancelled() => {}
        }
        token.cancel();
    });
    Ok(stop)
}

/// Waits for the Lease, acts while it is held, and gives it back.
async fn lead(
    args: &Args,
    client: Client,
    metrics: Metrics,
    ready: &Readiness,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut leadership = Leadership::seek(client.clone(), args).await?;
    // A replica that waits is ready: it is there to take over.
    ready.set();
    tracing::info!(lease = args.lease_name, identity = args.identity, "waiting for the Lease");
    if let Some(gained) = stop.run_until_cancelled(leadership.gained()).await {
        gained?;
        tracing::info!("Lease held, acting");
        let acting = stop.child_token();
        let controllers = tokio::spawn(act(args.clone(), client, metrics, acting.clone()));
        tokio::select! {
            () = stop.cancelled() => {}
            () = leadership.lost() => tracing::error!("Lease lost, stopping"),
        }
        acting.cancel();
        controllers.await.context("controllers panicked")??;
    }
    leadership.release().await;
    Ok(())
}

/// Runs the controllers until told to stop.
async fn act(args: Args, client: Client, metrics: Metrics, stop: CancellationToken) -> anyhow::Result<()> {
    let (networks, of_networks) = watch::<Network>(&client);
    let (validators, of_validators) = watch::<Validator>(&client);
    let (miners, of_miners) = watch::<Miner>(&client);
    let stores = Stores { networks: of_networks, validators: of_validators, miners: of_miners };
    let ctx = Arc::new(context(&args, client.clone(), stores, metrics)?);

    let managed = || watcher::Config::default().labels(labels::MANAGED);
    let networks = networks
        .with_config(controller::Config::default().concurrency(CONCURRENCY).debounce(NETWORK_DEBOUNCE))
        .owns(Api::<ConfigMap>::all(client.clone()), managed())
        .reconcile_on(queue(&ctx, |triggers| &triggers.networks).map(|name| ObjectRef::new(&name)))
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(network::reconcile, network::error_policy, Arc::clone(&ctx));
    let validators = node_controller(validators, &client, queue(&ctx, |triggers| &triggers.validators), &ctx, &stop);
    let miners = node_controller(miners, &client, queue(&ctx, |triggers| &triggers.miners), &ctx, &stop);

    let sidecars = tokio::spawn(Arc::clone(&ctx.sidecars).run(stop.clone()));
    let told = Arc::clone(&ctx);
    let controllers = async {
        tokio::join!(
            networks.for_each(move |result| {
                // A Network that is gone: its nodes must say so.
                if let Err(controller::Error::ObjectNotFound(gone)) = &result {
                    told.chains.retain(|name| name != gone.name);
                    told.tell_nodes_of(&gone.name);
                }
                log(result)
            }),
            validators.for_each(log),
            miners.for_each(log),
        )
    };
    let patience = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        _ = controllers => {}
        () = patience => tracing::warn!(grace = ?GRACE, "reconciles that did not end in time are cut off"),
    }
    sidecars.await.context("the task that asks the sidecars panicked")?;
    ctx.chains.shutdown().await;
    Ok(())
}

/// A controller of all objects of a kind, and what its watch tells.
fn watch<K>(client: &Client) -> (Controller<Guarded<K>>, Watched<K>)
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let events = watcher(Api::<Guarded<K>>::all(client.clone()), watcher::Config::default());
    let (watched, objects) = Watched::new(events);
    (Controller::for_stream(objects, watched.store()), watched)
}

fn node_controller<N: Node>(
    controller: Controller<Guarded<N>>,
    client: &Client,
    keys: impl Stream<Item = NodeKey> + Send + 'static,
    ctx: &Arc<Context>,
    stop: &CancellationToken,
) -> impl Stream<Item = Outcome<N>> {
    let managed = || watcher::Config::default().labels(labels::MANAGED);
    controller
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .owns(Api::<Pod>::all(client.clone()), managed())
        .owns(Api::<Service>::all(client.clone()), managed())
        .owns(Api::<ServiceAccount>::all(client.clone()), managed())
        .owns(Api::<Role>::all(client.clone()), managed())
        .owns(Api::<RoleBinding>::all(client.clone()), managed())
        // Leases are not watched: each is renewed every few seconds, and a sidecar that misses its own says so.
        // Volumes that outlive their node have no owner, but a label that names it.
        .watches(Api::<PersistentVolumeClaim>::all(client.clone()), managed(), |claim| node_of_claim::<N>(&claim))
        .reconcile_on(keys.map(|key| ObjectRef::new(&key.name).within(&key.namespace)))
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(reconcile::reconcile::<N>, reconcile::error_policy::<N>, Arc::clone(ctx))
}

fn node_of_claim<N: Node>(claim: &PersistentVolumeClaim) -> Option<ObjectRef<Guarded<N>>> {
    let labels = claim.metadata.labels.as_ref()?;
    (labels.get(labels::KIND)? == N::KIND.word())
        .then(|| Some(ObjectRef::new(labels.get(labels::NODE)?).within(claim.metadata.namespace.as_deref()?)))
        .flatten()
}

type Outcome<K> =
    Result<(ObjectRef<Guarded<K>>, controller::Action), controller::Error<crate::error::Error, watcher::Error>>;

/// Failures of reconciles are logged where they are decided on; what is left are failures of watches.
async fn log<K>(result: Outcome<K>)
where
    K: kube::Resource<DynamicType = ()> + 'static,
{
    if let Err(controller::Error::QueueError(error)) = result {
        tracing::warn!(error = crate::error::chain(&error), "watch failed, will start again");
    }
}

/// A queue of triggers as the stream that a controller reads.
fn queue<K: Ord + Send + Clone + 'static>(
    ctx: &Arc<Context>,
    of: fn(&Triggers) -> &Queue<K>,
) -> impl Stream<Item = K> + Send + 'static {
    let triggers = Arc::clone(&ctx.triggers);
    futures::stream::unfold(triggers, move |triggers| async move {
        let key = of(&triggers).next().await;
        Some((key, triggers))
    })
}

fn context(args: &Args, client: Client, stores: Stores, metrics: Metrics) -> anyhow::Result<Context> {
    let triggers = Arc::new(Triggers::default());
    let http = reqwest::Client::builder().no_proxy().build().context("cannot make an HTTP client")?;
    let on_answer = Arc::clone(&triggers);
    let reporter = Reporter { controller: labels::FIELD_MANAGER.into(), instance: Some(args.identity.clone()) };
    Ok(Context {
        chains: Arc::new(Chains::new(chain_teller(stores.clone(), Arc::clone(&triggers)))),
        sidecars: Arc::new(Sidecars::new(http, Arc::new(move |key| on_answer.node(key)))),
        recorder: Recorder::new(client.clone(), reporter),
        client,
        stores,
        triggers,
        metrics,
        retries: Retries::default(),
        default_image: args.sidecar_image.clone(),
        versions: Mutex::default(),
    })
}

/// Tells the controllers what a new view of a chain is news for: everything when a problem came or went, else the nodes
/// whose own values changed in a way that counts.
fn chain_teller(stores: Stores, triggers: Arc<Triggers>) -> crate::chains::OnChange {
    let told: Mutex<HashMap<String, (Option<Problem>, bool)>> = Mutex::default();
    Arc::new(move |network, state| {
        let now = (state.problem.clone(), state.metagraph.is_some());
        let turned = told.lock().insert(network.to_owned(), now.clone()) != Some(now);
        if turned {
            triggers.network(network);
            stores.keys_of(network).iter().for_each(|key| triggers.node(key));
        } else {
            tell_of_block(&stores, &triggers, network, state);
        }
    })
}

fn tell_of_block(stores: &Stores, triggers: &Triggers, network: &str, state: &ChainState) {
    let (Some(metagraph), Some(object)) = (&state.metagraph, stores.network(network)) else { return };
    let minimum_stake = object.spec.minimum_stake.0;
    let by_hotkey: HashMap<Hotkey, &Neuron> = metagraph.neurons.iter().map(|neuron| (neuron.hotkey, neuron)).collect();
    let news = |status: Option<&crds::v1alpha1::NodeStatus>| {
        let Some(status) = status else { return false };
        let hotkey = status.hotkey.as_ref().and_then(|hotkey| hotkey.parse::<Hotkey>().ok());
        let neuron = hotkey.and_then(|hotkey| by_hotkey.get(&hotkey).copied());
        hotkey.is_some() && status::chain_news(status, neuron, metagraph, minimum_stake)
    };
    let validators = stores.validators_of(network);
    validators.iter().filter(|node| news(node.node_status())).for_each(|node| triggers.node(&node.key()));
    let miners = stores.miners_of(network);
    miners.iter().filter(|node| news(node.node_status())).for_each(|node| triggers.node(&node.key()));
    let written = object.status.as_ref().and_then(|status| status.chain.as_ref()?.block).unwrap_or(0);
    if metagraph.block.abs_diff(written) >= u64::from(metagraph.tempo) {
        triggers.network(network);
    }
}
