//! What all reconciles share.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crds::v1alpha1::{Miner, Network, Validator};
use futures::{Stream, TryStreamExt as _};
use kube::Client;
use kube::core::DeserializeGuard;
use kube_runtime::events::Recorder;
use kube_runtime::reflector::{self, ObjectRef, Store};
use kube_runtime::{WatchStreamExt as _, watcher};
use parking_lot::Mutex;
use tokio::sync::{Notify, SetOnce};

use crate::chains::Chains;
use crate::metrics::Metrics;
use crate::node::{Kind, Node as _, NodeKey};
use crate::retries::Retries;
use crate::sidecars::Sidecars;

/// An object whose spec may not be readable, as after a downgrade; one such object must not stop the watch of all others.
pub(crate) type Guarded<K> = DeserializeGuard<K>;

/// Keys that wait for a look; each waits once, so the queue never holds more than there are objects.
pub(crate) struct Queue<K> {
    waiting: Mutex<BTreeSet<K>>,
    filled: Notify,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), filled: Notify::new() }
    }
}

impl<K: Ord + Send> Queue<K> {
    pub(crate) fn push(&self, key: K) {
        self.waiting.lock().insert(key);
        self.filled.notify_one();
    }

    /// The next key; waits for one. There is one reader.
    pub(crate) async fn next(&self) -> K {
        loop {
            if let Some(key) = self.waiting.lock().pop_first() {
                return key;
            }
            self.filled.notified().await;
        }
    }
}

/// A watched kind: the objects as they were heard of last, and whether all that exist were read once.
#[derive(Clone)]
pub(crate) struct Watched<K: kube::Resource<DynamicType = ()> + 'static> {
    store: Store<Guarded<K>>,
    // `Store::wait_until_ready` wakes the latest of its waiters only, and the controller of the kind is one of them.
    read: Arc<SetOnce<()>>,
}

impl<K> Watched<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    /// Keeps what a watch tells. The returned stream has to be polled, by a controller, for anything to be heard.
    pub(crate) fn new<W>(watch: W) -> (Self, impl Stream<Item = watcher::Result<Guarded<K>>> + use<K, W>)
    where
        W: Stream<Item = watcher::Result<watcher::Event<Guarded<K>>>>,
    {
        let (store, writer) = reflector::store();
        let read = Arc::new(SetOnce::new());
        let mark = Arc::clone(&read);
        let objects = reflector::reflector(writer, watch)
            .inspect_ok(move |event| {
                if matches!(event, watcher::Event::InitDone) {
                    // A watch that starts again reads all once more: it is marked already.
                    let _ = mark.set(());
                }
            })
            .applied_objects();
        (Self { store, read }, objects)
    }

    /// The reader, for the controller of the kind.
    pub(crate) fn store(&self) -> Store<Guarded<K>> {
        self.store.clone()
    }
}

/// Readers of the watched resources.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) networks: Watched<Network>,
    pub(crate) validators: Watched<Validator>,
    pub(crate) miners: Watched<Miner>,
}

impl Stores {
    /// Waits until everything that exists has been read once: before that, what is missing is only not read yet.
    pub(crate) async fn ready(&self) {
        tokio::join!(self.networks.read.wait(), self.validators.read.wait(), self.miners.read.wait());
    }

    /// A Network by name.
    pub(crate) fn network(&self, name: &str) -> Option<Arc<Network>> {
        let found = self.networks.store.get(&ObjectRef::new(name))?;
        found
            .0
            .as_ref()
            .ok()
            .filter(|network| network.metadata.deletion_timestamp.is_none())
            .map(|network| Arc::new(network.clone()))
    }

    /// Validators of a Network.
    pub(crate) fn validators_of(&self, network: &str) -> Vec<Validator> {
        readable(&self.validators, |validator| validator.network() == network)
    }

    /// Miners of a Network.
    pub(crate) fn miners_of(&self, network: &str) -> Vec<Miner> {
        readable(&self.miners, |miner| miner.network() == network)
    }

    /// Keys of all nodes of a Network.
    pub(crate) fn keys_of(&self, network: &str) -> Vec<NodeKey> {
        let validators = self.validators_of(network).into_iter().map(|validator| validator.key());
        let miners = self.miners_of(network).into_iter().map(|miner| miner.key());
        validators.chain(miners).collect()
    }
}

fn readable<K>(watched: &Watched<K>, belongs: impl Fn(&K) -> bool) -> Vec<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    watched
        .store
        .state()
        .iter()
        .filter_map(|guarded| guarded.0.as_ref().ok())
        .filter(|object| belongs(object))
        .cloned()
        .collect()
}

/// Asks for reconciles from outside the watches.
#[derive(Default)]
pub(crate) struct Triggers {
    pub(crate) networks: Queue<String>,
    pub(crate) validators: Queue<NodeKey>,
    pub(crate) miners: Queue<NodeKey>,
}

impl Triggers {
    /// Asks for a look at a node.
    pub(crate) fn node(&self, key: &NodeKey) {
        match key.kind {
            Kind::Validator => self.validators.push(key.clone()),
            Kind::Miner => self.miners.push(key.clone()),
        }
    }

    /// Asks for a look at a Network.
    pub(crate) fn network(&self, name: &str) {
        self.networks.push(name.to_owned());
    }
}

/// What all reconciles share.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) stores: Stores,
    pub(crate) chains: Arc<Chains>,
    pub(crate) sidecars: Arc<Sidecars>,
    pub(crate) triggers: Arc<Triggers>,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
    pub(crate) retries: Retries,
    /// Image of Networks that name none.
    pub(crate) default_image: String,
    /// By Network: what its nodes were made from last.
    pub(crate) versions: Mutex<HashMap<String, NetworkVersion>>,
}

/// What a Network's nodes are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetworkVersion {
    /// Hash of the file that its pods should have.
    pub(crate) file: String,
    /// Where that file stands.
    pub(crate) namespaces: BTreeSet<String>,
    /// Generation of its spec.
    pub(crate) generation: Option<i64>,
}

impl Context {
    /// A Network by name.
    pub(crate) fn network(&self, name: &str) -> Option<Arc<Network>> {
        self.stores.network(name)
    }

    /// Hash of the file of a Network in a namespace; `None` until it was written there.
    pub(crate) fn config_version(&self, network: &str, namespace: &str) -> Option<String> {
        let versions = self.versions.lock();
        let version = versions.get(network).filter(|version| version.namespaces.contains(namespace))?;
        Some(version.file.clone())
    }

    /// Remembers what a look at a Network came to; its nodes have a look, too, when that is something new.
    pub(crate) fn network_seen(&self, network: &str, version: NetworkVersion) {
        let before = self.versions.lock().insert(network.to_owned(), version.clone());
        if before != Some(version) {
            self.tell_nodes_of(network);
        }
    }

    /// Asks for a look at every node of a Network.
    pub(crate) fn tell_nodes_of(&self, network: &str) {
        for key in self.stores.keys_of(network) {
            self.triggers.node(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn all_who_wait_for_the_first_reading_are_woken() {
        let (events, watch) = futures::channel::mpsc::unbounded();
        let (networks, objects) = Watched::<Network>::new(watch);
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let networks = networks.clone();
                tokio::spawn(async move { *networks.read.wait().await })
            })
            .collect();
        // All of them wait before there is anything to hear.
        tokio::task::yield_now().await;
        for event in [watcher::Event::Init, watcher::Event::InitDone] {
            events.unbounded_send(Ok(event)).unwrap();
        }
        drop(events);
        assert_eq!(objects.count().await, 0);
        let all = tokio::time::timeout(Duration::from_secs(30), futures::future::join_all(waiters)).await;
        assert!(all.expect("a waiter still waits").iter().all(Result::is_ok));
    }
}
