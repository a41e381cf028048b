//! This validator's part in the group: consensus, the peer service under it, and signs of life.
//!
//! Starts when the Network's description names a group, which may be long after the sidecar did.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sidecar_consensus::{Consensus, ConsensusConfig, PeerReply, PeerRequest, PeerTransport, TransportError};
use sidecar_metagraph::keys::HotkeyPair;
use sidecar_util::Hotkey;
use sidecar_util::config::{GroupConfig, Member, NetworkConfig};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{error, info};

use crate::app::App;
use crate::ingest::announce;
use crate::peer_rpc::{self, PeerClient, PeerHandler};
use crate::peer_tls::PeerTls;

/// How often every member is asked for a sign of life.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Time for the answer.
const PROBE_DEADLINE: Duration = Duration::from_secs(3);

/// A member that was not heard for so long is called silent: three probes without an answer.
const SILENCE: Duration = Duration::from_secs(15);

/// Time for calls under way when the process ends.
const GRACE: Duration = Duration::from_secs(3);

/// What it takes to be a member.
pub(crate) struct GroupParts {
    /// Signs certificates.
    pub(crate) pair: HotkeyPair,
    /// Folder of the log.
    pub(crate) data_dir: PathBuf,
    /// Where members connect to.
    pub(crate) listener: TcpListener,
    /// Told when there is a member to ask.
    pub(crate) member: watch::Sender<Option<Consensus>>,
}

/// Takes part in the group from when there is one until `stop`.
///
/// # Errors
/// The member cannot start or has stopped for good: the process has to end, and start again from its disk.
pub(crate) async fn run(app: Arc<App>, parts: GroupParts, stop: CancellationToken) -> anyhow::Result<()> {
    let mut networks = app.file.network.clone();
    let Some(described) = stop.run_until_cancelled(named_group(&mut networks)).await else { return Ok(()) };
    let (group, followed) = watch::channel(described?);
    let tls = PeerTls::new(parts.pair, followed.clone()).context("identity of the peer service")?;
    let peers = Arc::new(Peers { app, client: PeerClient::new(tls.clone()), heard: Mutex::default() });

    let config = ConsensusConfig { data_dir: parts.data_dir, hotkey: peers.app.hotkey };
    let consensus = Consensus::start(config, peers.clone(), followed.clone()).await?;
    parts.member.send_replace(Some(consensus.clone()));

    let serving_stop = CancellationToken::new();
    let handler = Arc::new(Service { peers: peers.clone(), consensus: consensus.clone() });
    let mut serving = tokio::spawn(peer_rpc::serve(parts.listener, tls, handler, serving_stop.clone()));
    let probing = tokio::spawn(peers.clone().probe(followed, serving_stop.clone()));

    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(()),
        cause = consensus.stopped() => Err(anyhow::anyhow!(cause).context("the member of the group has stopped")),
        served = &mut serving => Err(match served {
            Ok(Ok(())) => anyhow::anyhow!("the peer service has ended"),
            Ok(Err(error)) => error.context("peer service"),
            Err(panic) => anyhow::Error::new(panic).context("peer service"),
        }),
        never = follow(&mut networks, &group, &peers) => match never {},
    };
    // While the others can still reach this member, so that it can hand over.
    consensus.shutdown().await;
    serving_stop.cancel();
    probing.await.context("probing of members")?;
    if !serving.is_finished() && tokio::time::timeout(GRACE, &mut serving).await.is_err() {
        // A member that keeps its connection open must not keep this process.
        serving.abort();
    }
    outcome
}

/// Waits until the Network's description names a group.
async fn named_group(networks: &mut watch::Receiver<Arc<NetworkConfig>>) -> anyhow::Result<GroupConfig> {
    let network = networks.wait_for(|network| network.group.is_some()).await.context("network file")?;
    match &network.group {
        Some(group) => Ok(group.clone()),
        None => bail!("the wait above ends with a group only"),
    }
}

/// Takes over changes of the group's description. A member belongs to one group as long as its process lives.
async fn follow(
    networks: &mut watch::Receiver<Arc<NetworkConfig>>,
    group: &watch::Sender<GroupConfig>,
    peers: &Peers,
) -> std::convert::Infallible {
    while networks.changed().await.is_ok() {
        let network = networks.borrow_and_update().clone();
        let Some(described) = &network.group else { continue };
        let (cluster_id, timing) = (group.borrow().cluster_id.clone(), group.borrow().timing);
        if (&described.cluster_id, described.timing) != (&cluster_id, timing) {
            error!(
                cluster_id,
                described = described.cluster_id,
                "the network file describes another group or another timing: this member stays in its own until the \
                 sidecar is restarted"
            );
            continue;
        }
        peers.client.retain(&described.members);
        group.send_if_modified(|current| {
            let changed = current != described;
            current.clone_from(described);
            changed
        });
    }
    std::future::pending().await
}

/// The other members, as this one reaches and hears them.
struct Peers {
    app: Arc<App>,
    client: PeerClient,
    /// When who was heard last.
    heard: Mutex<BTreeMap<Hotkey, Instant>>,
}

impl Peers {
    fn heard_from(&self, hotkey: Hotkey) {
        self.heard.lock().insert(hotkey, Instant::now());
        if let Some(change) = self.app.registry.heard_from(&hotkey) {
            announce(&self.app, &change);
        }
    }

    async fn probe(self: Arc<Self>, mut group: watch::Receiver<GroupConfig>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let is_other = |member: &Member| member.hotkey != self.app.hotkey;
        loop {
            let due = async {
                // Until then nobody is to be asked, and nobody can fall silent.
                let _ =
                    group.wait_for(|group| group.members.iter().any(is_other) || !self.heard.lock().is_empty()).await;
                ticks.tick().await
            };
            if stop.run_until_cancelled(due).await.is_none() {
                return;
            }
            let members = group.borrow().members.clone();
            let others = members.iter().filter(|member| is_other(member));
            let probes = futures::future::join_all(others.map(|member| self.probe_one(member)));
            if stop.run_until_cancelled(probes).await.is_none() {
                return;
            }
            self.sweep();
        }
    }

    async fn probe_one(&self, member: &Member) {
        let answer = self.client.ping(member, PROBE_DEADLINE).await;
        self.app.metrics.peer_call("out", "probe", result(answer.as_ref().err()));
        if answer.is_ok() {
            self.heard_from(member.hotkey);
        }
    }

    fn sweep(&self) {
        let silent: Vec<Hotkey> = {
            let mut heard = self.heard.lock();
            let silent = heard.iter().filter(|(_, at)| at.elapsed() > SILENCE).map(|(hotkey, _)| *hotkey).collect();
            heard.retain(|_, at| at.elapsed() <= SILENCE);
            silent
        };
        for hotkey in silent {
            if let Some(change) = self.app.registry.silent(&hotkey) {
                announce(&self.app, &change);
            }
        }
    }
}

fn result(error: Option<&TransportError>) -> &'static str {
    match error {
        None => "ok",
        Some(TransportError::Unreachable { .. }) => "unreachable",
        Some(TransportError::Timeout { .. }) => "timeout",
        Some(_) => "malformed",
    }
}

#[async_trait]
impl PeerTransport for Peers {
    async fn call(&self, peer: &Member, request: PeerRequest, timeout: Duration) -> Result<PeerReply, TransportError> {
        let kind = request.kind();
        let reply = self.client.call(peer, request, timeout).await;
        self.app.metrics.peer_call("out", kind, result(reply.as_ref().err()));
        if reply.is_ok() {
            self.heard_from(peer.hotkey);
        }
        reply
    }
}

/// Answers members.
struct Service {
    peers: Arc<Peers>,
    consensus: Consensus,
}

#[async_trait]
impl PeerHandler for Service {
    async fn call(&self, frame: Bytes, from: Hotkey) -> Result<Bytes, Status> {
        let request = PeerRequest::decode(&frame).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let kind = request.kind();
        let reply = self.consensus.handle(request, Some(from)).await;
        let refused = reply.refusal().map(|refusal| refusal.to_string());
        self.peers.app.metrics.peer_call("in", kind, if refused.is_some() { "refused" } else { "ok" });
        if let Some(refusal) = refused {
            info!(%from, kind, refusal, "refused a member's call");
        }
        Ok(reply.encode().into())
    }

    fn heard_from(&self, from: Hotkey) {
        self.peers.heard_from(from);
    }
}
