//! The connections of one listener: how many there may be, and which has to go when there are too many.
//!
//! A connection is idle while nothing that was asked on it is unanswered; that is so for a kept one between two requests as
//! well as for one that sends the head of a request byte by byte. When there is no room the longest idle one is closed, so
//! that whoever opens thousands of connections and leaves them pushes out their own; only when all are busy is the new one
//! refused.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// State of a connection that has unanswered requests.
const BUSY: u64 = 0;

/// State of a connection that was told to go.
const EVICTED: u64 = u64::MAX;

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// In all.
    pub(crate) connections_max: usize,
    /// From one address.
    pub(crate) of_address_max: usize,
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// All connections are busy.
    Full,
    /// All connections of its address are busy.
    AddressFull,
}

/// All connections of one listener.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: Limits,
    state: Mutex<State>,
    /// Counts how often a connection became idle: a clock that orders them.
    ticks: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    open: BTreeMap<u64, Arc<Slot>>,
}

#[derive(Debug)]
struct Slot {
    origin: Option<IpAddr>,
    /// [`BUSY`], [`EVICTED`], or the tick since which it is idle.
    idle_since: AtomicU64,
    evicted: CancellationToken,
}

impl Connections {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default(), ticks: AtomicU64::new(1) })
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes room for a connection from this address, if that can be.
    pub(crate) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Admitted, Refusal> {
        let origin = address.map(origin);
        let mut state = self.state.lock();
        if let Some(origin) = origin {
            let same = |slot: &Slot| slot.origin == Some(origin);
            if state.open.values().filter(|slot| same(slot)).count() >= self.limits.of_address_max && !state.evict(same)
            {
                return Err(Refusal::AddressFull);
            }
        }
        if state.open.len() >= self.limits.connections_max && !state.evict(|_| true) {
            return Err(Refusal::Full);
        }
        let id = state.next_id;
        state.next_id += 1;
        let slot = Slot { origin, idle_since: AtomicU64::new(self.tick()), evicted: CancellationToken::new() };
        let slot = Arc::new(slot);
        state.open.insert(id, slot.clone());
        Ok(Admitted { connections: self.clone(), id, slot })
    }

    /// How many there are.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.state.lock().open.len()
    }
}

impl State {
    /// Tells the longest idle one of these to go; `false` when none is idle.
    fn evict(&mut self, of: impl Fn(&Slot) -> bool) -> bool {
        loop {
            let idle = self.open.iter().filter(|(_, slot)| of(slot)).filter_map(|(id, slot)| {
                let since = slot.idle_since.load(Ordering::Acquire);
                (since != BUSY && since != EVICTED).then_some((since, *id))
            });
            let Some((since, id)) = idle.min() else { return false };
            let taken = self.open[&id].idle_since.compare_exchange(since, EVICTED, Ordering::AcqRel, Ordering::Acquire);
            // It may have been asked something in this moment, and then another one has to go.
            if taken.is_ok() {
                if let Some(slot) = self.open.remove(&id) {
                    slot.evicted.cancel();
                }
                return true;
            }
        }
    }
}

/// Whom an address belongs to, as far as it tells: in IPv6 everybody has a whole /64.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            [a, b, c, d, 0, 0, 0, 0].into()
        }
    }
}

/// A connection that has a place until this is dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    connections: Arc<Connections>,
    id: u64,
    slot: Arc<Slot>,
}

impl Admitted {
    /// Ends when the connection has to go.
    pub(crate) async fn evicted(&self) {
        self.slot.evicted.cancelled().await;
    }

    /// The connection is busy until the answer is dropped.
    pub(crate) fn busy(&self) -> Busy {
        self.slot.idle_since.store(BUSY, Ordering::Release);
        Busy { connections: self.connections.clone(), slot: self.slot.clone() }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.state.lock().open.remove(&self.id);
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Busy {
    connections: Arc<Connections>,
    slot: Arc<Slot>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.slot.idle_since.store(self.connections.tick(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const LIMITS: Limits = Limits { connections_max: 3, of_address_max: 2 };

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn is_evicted(connection: &Admitted) -> bool {
        connection.evicted().now_or_never().is_some()
    }

    #[test]
    fn the_longest_idle_goes_and_the_busy_stay() {
        let connections = Connections::new(LIMITS);
        let all: Vec<Admitted> = (1..=3).map(|last| connections.admit(Some(ip(last))).unwrap()).collect();
        let busy = all[0].busy();
        let fourth = connections.admit(Some(ip(4))).unwrap();
        assert!(!is_evicted(&all[0]) && is_evicted(&all[1]) && !is_evicted(&all[2]));
        let (_third, _fourth) = (all[2].busy(), fourth.busy());
        assert_eq!(connections.admit(Some(ip(5))).unwrap_err(), Refusal::Full);
        drop(busy);
        connections.admit(Some(ip(5))).unwrap();
        assert!(is_evicted(&all[0]));
    }

    #[test]
    fn one_address_pushes_out_its_own_only() {
        let connections = Connections::new(LIMITS);
        let other = connections.admit(Some(ip(1))).unwrap();
        let mine: Vec<Admitted> = (0..5).map(|_| connections.admit(Some(ip(2))).unwrap()).collect();
        assert!(!is_evicted(&other) && mine[..3].iter().all(is_evicted));
        let _busy = (mine[3].busy(), mine[4].busy());
        assert_eq!(connections.admit(Some(ip(2))).unwrap_err(), Refusal::AddressFull);
        drop(mine);
        drop(other);
        assert_eq!(connections.count(), 0);
    }

    #[test]
    fn neighbours_in_one_ipv6_network_are_one_and_the_socket_is_nobody() {
        let connections = Connections::new(LIMITS);
        let of = |text: &str| connections.admit(Some(text.parse().unwrap())).unwrap();
        let (first, _second) = (of("2001:db8::1"), of("2001:db8::2"));
        let _third = of("2001:db8::3");
        assert!(is_evicted(&first));
        let mapped = of("::ffff:10.0.0.1");
        assert_eq!(mapped.slot.origin, Some(ip(1)));
        assert!(connections.admit(None).is_ok());
    }
}
