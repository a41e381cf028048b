//! A network inside one process, for tests: members call each other directly, links can be cut and slowed.
//!
//! Messages are encoded and decoded on the way, as on a real one. A closed door answers at once, as a host without the
//! program does; a cut link answers nothing, as a firewall does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sidecar_util::Hotkey;
use sidecar_util::config::Member;

use crate::node::Consensus;
use crate::transport::{PeerTransport, TransportError};
use crate::wire::{PeerReply, PeerRequest};

/// See the module. Clones are the same network.
#[derive(Clone, Default)]
pub struct FakeNetwork {
    state: Arc<Mutex<NetworkState>>,
}

#[derive(Default)]
struct NetworkState {
    /// Who answers at an address.
    doors: BTreeMap<String, (Hotkey, Consensus)>,
    /// Links that carry nothing, from whom to whom.
    cut: BTreeSet<(Hotkey, Hotkey)>,
    /// How long a message takes, one way.
    latency: Duration,
}

impl FakeNetwork {
    /// A network without anybody.
    pub fn new() -> Self {
        Self::default()
    }

    /// The transport of one member.
    pub fn transport(&self, hotkey: Hotkey) -> Arc<dyn PeerTransport> {
        Arc::new(FakeTransport { network: self.clone(), hotkey })
    }

    /// Lets a member answer at an address.
    pub fn open(&self, member: &Member, consensus: Consensus) {
        self.state.lock().doors.insert(member.address.clone(), (member.hotkey, consensus));
    }

    /// Nobody answers at an address any more.
    pub fn close(&self, address: &str) {
        self.state.lock().doors.remove(address);
    }

    /// Cuts one link in one direction.
    pub fn cut(&self, from: Hotkey, to: Hotkey) {
        self.state.lock().cut.insert((from, to));
    }

    /// Cuts a member off from all the others in both directions.
    pub fn isolate(&self, member: Hotkey, others: impl IntoIterator<Item = Hotkey>) {
        let mut state = self.state.lock();
        for other in others {
            state.cut.extend([(member, other), (other, member)]);
        }
    }

    /// Restores all links.
    pub fn heal(&self) {
        self.state.lock().cut.clear();
    }

    /// Makes every message take this long, one way.
    pub fn set_latency(&self, latency: Duration) {
        self.state.lock().latency = latency;
    }

    fn is_cut(&self, from: Hotkey, to: Hotkey) -> bool {
        self.state.lock().cut.contains(&(from, to))
    }

    fn latency(&self) -> Duration {
        self.state.lock().latency
    }
}

struct FakeTransport {
    network: FakeNetwork,
    hotkey: Hotkey,
}

impl FakeTransport {
    async fn carry(&self, peer: &Member, request: PeerRequest) -> Result<PeerReply, TransportError> {
        let malformed = |cause: crate::WireError| TransportError::Malformed {
            address: peer.address.clone(),
            cause: cause.to_string(),
        };
        self.travel(self.hotkey, peer.hotkey).await;
        let request = PeerRequest::decode(&request.encode()).map_err(malformed)?;
        let door = self.network.state.lock().doors.get(&peer.address).cloned();
        // A transport that checks certificates refuses whoever is not the member it wants.
        let Some((_, consensus)) = door.filter(|(hotkey, _)| *hotkey == peer.hotkey) else {
            return Err(TransportError::Unreachable { address: peer.address.clone(), cause: "nobody is there".into() });
        };
        let reply = consensus.handle(request, Some(self.hotkey)).await;
        self.travel(peer.hotkey, self.hotkey).await;
        PeerReply::decode(&reply.encode()).map_err(malformed)
    }

    /// Takes the latency, or for ever on a cut link.
    async fn travel(&self, from: Hotkey, to: Hotkey) {
        let latency = self.network.latency();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        if self.network.is_cut(from, to) {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl PeerTransport for FakeTransport {
    async fn call(&self, peer: &Member, request: PeerRequest, timeout: Duration) -> Result<PeerReply, TransportError> {
        tokio::time::timeout(timeout, self.carry(peer, request))
            .await
            .map_err(|_| TransportError::Timeout { address: peer.address.clone(), timeout })?
    }
}
