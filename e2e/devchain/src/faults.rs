//! Faults on purpose: what public endpoints and chains do to their clients, on demand.
//!
//! Faults that only sockets, replies or the pool see are decided here, at the moment they strike. Those of the chain
//! itself (a reorg, an upgrade, a stall, pruned state) are only kept here; the author asks for them block by block.
//! Nothing strikes unless it was asked for by `--fault` or through the admin endpoint, and nothing is random: the same
//! requests meet the same faults.

mod socket;
mod spec;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

pub(crate) use socket::{Connection, FaultyStream};
pub use spec::{
    AtBlock, Fault, FaultError, FaultKind, FinalityStall, PoolFault, Prune, RateLimit, Reorg, ReplyFault, Slow,
    SocketFault,
};

use crate::node::PoolError;

/// Clients whose request rate is remembered; beyond it the longest silent ones are forgotten.
const MAX_CLIENTS: usize = 4096;

/// A fault that is switched on.
#[derive(Debug, Clone, Serialize)]
pub struct ActiveFault {
    /// What it does.
    #[serde(flatten)]
    pub fault: Fault,
    /// How often it struck so far.
    pub struck: u64,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is answered, perhaps late, perhaps only in part.
    Answer {
        /// How long the answer is held back.
        delay: Option<Duration>,
        /// Whether the answer is cut in the middle and the socket closed.
        truncate: bool,
    },
    /// The socket is dead: whatever is answered never arrives.
    Dead,
}

/// What is switched on, and the sockets it may strike.
#[derive(Default)]
pub struct Faults {
    inner: Mutex<Inner>,
    next_socket: AtomicU64,
    /// Strikes of every kind since the start, also of faults that are lifted.
    totals: Mutex<BTreeMap<FaultKind, u64>>,
}

#[derive(Default)]
struct Inner {
    active: BTreeMap<FaultKind, ActiveFault>,
    sockets: BTreeMap<u64, Weak<Connection>>,
    /// Start of the current second of each client, and its requests within it.
    clients: BTreeMap<IpAddr, (Instant, u32)>,
}

impl Faults {
    /// Switches a fault on; one of the same kind is replaced. Sockets that it concerns at once are struck at once.
    ///
    /// # Errors
    /// [`FaultError`] when a value is outside its range.
    pub fn set(&self, fault: Fault) -> Result<(), FaultError> {
        fault.check()?;
        let kind = fault.kind();
        // Outlives the lock: whoever drops the last reference to a socket takes the lock to forget it.
        let sockets: Vec<Arc<Connection>>;
        let mut inner = self.inner.lock();
        inner.active.insert(kind, ActiveFault { fault, struck: 0 });
        inner.clients.clear();
        if matches!(kind, FaultKind::Drop | FaultKind::HalfOpen) {
            sockets = inner.sockets.values().filter_map(Weak::upgrade).collect();
            for socket in &sockets {
                self.strike_socket(&mut inner, socket);
            }
        }
        Ok(())
    }

    /// Switches one kind off; false when it was not on. Sockets that are half-open stay so, as they do in life.
    pub fn lift(&self, kind: FaultKind) -> bool {
        self.inner.lock().active.remove(&kind).is_some()
    }

    /// Switches everything off.
    pub fn lift_all(&self) {
        self.inner.lock().active.clear();
    }

    /// What is switched on.
    pub fn list(&self) -> Vec<ActiveFault> {
        self.inner.lock().active.values().cloned().collect()
    }

    /// Strikes since the start, by kind.
    pub fn totals(&self) -> BTreeMap<FaultKind, u64> {
        self.totals.lock().clone()
    }

    /// Sockets that are open.
    pub fn open_sockets(&self) -> usize {
        self.inner.lock().sockets.len()
    }

    /// A socket was accepted.
    pub(crate) fn accept(self: &Arc<Self>, peer: IpAddr) -> Arc<Connection> {
        let id = self.next_socket.fetch_add(1, Ordering::Relaxed);
        let socket = Arc::new(Connection::new(id, peer, Arc::downgrade(self)));
        let mut inner = self.inner.lock();
        inner.sockets.insert(id, Arc::downgrade(&socket));
        self.strike_socket(&mut inner, &socket);
        socket
    }

    fn forget(&self, id: u64) {
        self.inner.lock().sockets.remove(&id);
    }

    /// Counts a strike; a fault that has used up its number of strikes is lifted.
    fn struck(&self, inner: &mut Inner, kind: FaultKind) {
        *self.totals.lock().entry(kind).or_default() += 1;
        let Some(active) = inner.active.get_mut(&kind) else { return };
        active.struck += 1;
        if active.fault.times().is_some_and(|times| active.struck >= u64::from(times)) {
            inner.active.remove(&kind);
        }
    }

    /// Drops or freezes a socket that has had as many replies as it gets; true when it is dead from now on.
    fn strike_socket(&self, inner: &mut Inner, socket: &Connection) -> bool {
        if socket.is_dead() {
            return true;
        }
        let due = |inner: &Inner, kind| match inner.active.get(&kind).map(|active| &active.fault) {
            Some(Fault::Drop(fault) | Fault::HalfOpen(fault)) => socket.replies() >= fault.after_replies,
            _ => false,
        };
        if due(inner, FaultKind::Drop) {
            socket.close();
            self.struck(inner, FaultKind::Drop);
            return true;
        }
        if due(inner, FaultKind::HalfOpen) {
            socket.freeze();
            self.struck(inner, FaultKind::HalfOpen);
            return true;
        }
        false
    }

    /// Whether a client may make another HTTP request or open another WebSocket now.
    pub(crate) fn rate_limited(&self, peer: IpAddr) -> Option<u32> {
        let mut inner = self.inner.lock();
        let per_second = match inner.active.get(&FaultKind::RateLimit).map(|active| &active.fault) {
            Some(Fault::RateLimit(limit)) => limit.per_second,
            _ => return None,
        };
        let now = Instant::now();
        if inner.clients.len() >= MAX_CLIENTS && !inner.clients.contains_key(&peer) {
            inner.clients.retain(|_, (start, _)| now.duration_since(*start) < Duration::from_secs(1));
        }
        let (start, requests) = inner.clients.entry(peer).or_insert((now, 0));
        if now.duration_since(*start) >= Duration::from_secs(1) {
            (*start, *requests) = (now, 0);
        }
        *requests = requests.saturating_add(1);
        if *requests <= per_second {
            return None;
        }
        self.struck(&mut inner, FaultKind::RateLimit);
        Some(per_second)
    }

    /// Decides on one request, which may be a batch of several methods.
    pub(crate) fn request(&self, socket: &Connection, methods: &[&str]) -> Verdict {
        let mut inner = self.inner.lock();
        if inner.active.is_empty() && !socket.is_dead() {
            return Verdict::Answer { delay: None, truncate: false };
        }
        if self.strike_socket(&mut inner, socket) {
            return Verdict::Dead;
        }
        let delay = match inner.active.get(&FaultKind::Slow).map(|active| &active.fault) {
            Some(Fault::Slow(slow)) if slow.concerns(methods) => Some(Duration::from_millis(slow.delay_ms)),
            _ => None,
        };
        if delay.is_some() {
            self.struck(&mut inner, FaultKind::Slow);
        }
        let truncate = match inner.active.get(&FaultKind::Truncate).map(|active| &active.fault) {
            Some(Fault::Truncate(fault)) => fault.concerns(methods),
            _ => false,
        };
        if truncate {
            self.struck(&mut inner, FaultKind::Truncate);
        }
        Verdict::Answer { delay, truncate }
    }

    /// The error with which the pool turns the next extrinsic away, whatever the extrinsic is.
    pub(crate) fn pool_error(&self) -> Option<PoolError> {
        let mut inner = self.inner.lock();
        let error = match inner.active.get(&FaultKind::PoolError).map(|active| &active.fault) {
            Some(Fault::PoolError(fault)) => fault.error(),
            _ => return None,
        };
        self.struck(&mut inner, FaultKind::PoolError);
        Some(error)
    }

    /// Whether no block may follow the one with this number.
    pub(crate) fn stalls_after(&self, number: u32) -> bool {
        let mut inner = self.inner.lock();
        let stalls = match inner.active.get(&FaultKind::Stall).map(|active| &active.fault) {
            Some(Fault::Stall(stall)) => stall.at_block.is_none_or(|at| number >= at),
            _ => false,
        };
        if stalls {
            self.struck(&mut inner, FaultKind::Stall);
        }
        stalls
    }

    /// The highest block that may become final.
    pub(crate) fn finality_limit(&self) -> Option<u32> {
        match self.inner.lock().active.get(&FaultKind::FinalityStall).map(|active| &active.fault) {
            Some(Fault::FinalityStall(stall)) => Some(stall.at_block.unwrap_or(0)),
            _ => None,
        }
    }

    /// Blocks whose state may be read, where fewer than usual.
    pub(crate) fn kept_states(&self, best: u32) -> Option<u32> {
        match self.inner.lock().active.get(&FaultKind::Prune).map(|active| &active.fault) {
            Some(Fault::Prune(prune)) if prune.at_block.is_none_or(|at| best >= at) => Some(prune.keep),
            _ => None,
        }
    }

    /// Whether the block with this number brings a runtime upgrade.
    pub(crate) fn upgrades_in(&self, number: u32) -> bool {
        let mut inner = self.inner.lock();
        let due = match inner.active.get(&FaultKind::Upgrade).map(|active| &active.fault) {
            Some(Fault::Upgrade(upgrade)) => upgrade.at_block.is_none_or(|at| number >= at),
            _ => false,
        };
        if due {
            self.struck(&mut inner, FaultKind::Upgrade);
        }
        due
    }

    /// How many blocks are replaced once the block with this number is the best one.
    pub(crate) fn reorg_after(&self, number: u32) -> Option<u32> {
        let mut inner = self.inner.lock();
        let blocks = match inner.active.get(&FaultKind::Reorg).map(|active| &active.fault) {
            Some(Fault::Reorg(reorg)) if reorg.is_due(number) => reorg.blocks,
            _ => return None,
        };
        self.struck(&mut inner, FaultKind::Reorg);
        Some(blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(all: &[&str]) -> Arc<Faults> {
        let faults = Arc::new(Faults::default());
        for text in all {
            faults.set(text.parse().unwrap()).unwrap();
        }
        faults
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const UNTOUCHED: Verdict = Verdict::Answer { delay: None, truncate: false };

    #[test]
    fn a_socket_gets_its_replies_before_it_is_dropped() {
        let faults = faults(&["drop:after_replies=2,times=1"]);
        let socket = faults.accept(CLIENT);
        for _ in 0..2 {
            assert_eq!(faults.request(&socket, &["system_chain"]), UNTOUCHED);
            socket.replied();
        }
        assert_eq!(faults.request(&socket, &["system_chain"]), Verdict::Dead);
        assert!(faults.list().is_empty(), "it strikes once");
        assert_eq!(faults.totals()[&FaultKind::Drop], 1);
        let other = faults.accept(CLIENT);
        assert_eq!(faults.request(&other, &["system_chain"]), UNTOUCHED);
    }

    #[test]
    fn open_sockets_freeze_at_once_and_for_good() {
        let faults = faults(&[]);
        let socket = faults.accept(CLIENT);
        faults.set("half_open".parse().unwrap()).unwrap();
        assert!(socket.is_dead());
        faults.lift_all();
        assert_eq!(faults.request(&socket, &["system_chain"]), Verdict::Dead);
        drop(socket);
        assert_eq!(faults.open_sockets(), 0);
    }

    #[test]
    fn replies_are_slow_or_cut_for_the_methods_named_only() {
        let faults = faults(&["slow:delay_ms=50,methods=state_", "truncate:methods=state_call,times=1"]);
        let socket = faults.accept(CLIENT);
        let delay = Some(Duration::from_millis(50));
        assert_eq!(faults.request(&socket, &["chain_getHeader"]), UNTOUCHED);
        assert_eq!(
            faults.request(&socket, &["chain_getHeader", "state_call"]),
            Verdict::Answer { delay, truncate: true }
        );
        assert_eq!(faults.request(&socket, &["state_call"]), Verdict::Answer { delay, truncate: false });
    }

    #[test]
    fn a_client_has_its_requests_a_second_and_others_have_theirs() {
        let faults = faults(&["rate_limit:per_second=2"]);
        let other = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!([(); 3].map(|()| faults.rate_limited(CLIENT)), [None, None, Some(2)]);
        assert_eq!(faults.rate_limited(other), None);
    }

    #[test]
    fn chain_faults_wait_for_their_block() {
        let faults = faults(&["stall:at_block=5", "upgrade:at_block=3", "reorg:blocks=2,at_block=4", "prune:keep=1"]);
        assert!(!faults.stalls_after(4) && faults.stalls_after(5));
        assert_eq!([2, 3, 4].map(|number| faults.upgrades_in(number)), [false, true, false]);
        assert_eq!([3, 4, 5].map(|number| faults.reorg_after(number)), [None, Some(2), None]);
        assert_eq!(faults.kept_states(1), Some(1));
    }
}
