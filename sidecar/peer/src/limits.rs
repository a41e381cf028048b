//! How often whom: limits that are asked before anything costly is done.
//!
//! Token buckets in the form of the generic cell rate algorithm: one moment for each key, and no timer. Time is given, so
//! what is decided can be replayed. A table of buckets is bounded. When it is full, keys that are in it keep their bucket
//! and all others share one: who sends from a million addresses slows down strangers, and nobody who was here before.
//! (`governor` has the same algorithm, but cannot tell whether a key is known, which that rule needs.)

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use sidecar_util::Hotkey;

use crate::handshake::UnixTime;
use crate::handshake::refusal::Refusal;
use crate::sync::Mutex;

/// How often, and how many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: NonZeroU32,
    /// At once, after a pause.
    pub burst: NonZeroU32,
}

impl Rate {
    /// So many a second, and so many at once; noughts count as one.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        const fn at_least_one(number: u32) -> NonZeroU32 {
            match NonZeroU32::new(number) {
                Some(number) => number,
                None => NonZeroU32::MIN,
            }
        }
        Self { per_second: at_least_one(per_second), burst: at_least_one(burst) }
    }

    /// Time that one request uses up, in nanoseconds.
    const fn cost(self) -> u64 {
        1_000_000_000 / self.per_second.get() as u64
    }

    /// Time that may be used up in advance.
    const fn credit(self) -> u64 {
        self.cost().saturating_mul(self.burst.get() as u64 - 1)
    }
}

/// Limits of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitPolicy {
    /// Requests from one address, whatever they claim. For IPv6 that is a /64, which one host has to itself.
    pub per_ip: Rate,
    /// Requests from one address that claim one hotkey, before the claim is verified. A hotkey's own bucket is only charged
    /// for what is proved to be its own, or anybody could use it up.
    pub per_claim: Rate,
    /// Proved requests of one hotkey, wherever they come from.
    pub per_hotkey: Rate,
    /// Exchanges of symmetric keys of one hotkey: each costs an operation with the RSA key.
    pub exchanges: Rate,
    /// Requests that need no signature, together.
    pub unsigned: Rate,
    /// Whoever finds a table full, together.
    pub strangers: Rate,
    /// Buckets in each table.
    pub keys_max: usize,
    /// Largest body.
    pub body_bytes_max: u64,
}

impl Default for LimitPolicy {
    fn default() -> Self {
        Self {
            per_ip: Rate::new(500, 2000),
            per_claim: Rate::new(200, 1000),
            per_hotkey: Rate::new(200, 1000),
            exchanges: Rate::new(1, 20),
            unsigned: Rate::new(50, 200),
            strangers: Rate::new(200, 400),
            // Some 3 MB for each table that somebody fills.
            keys_max: 32 * 1024,
            body_bytes_max: 8 * 1024 * 1024,
        }
    }
}

/// The buckets of a receiver.
#[derive(Debug)]
pub struct Limits {
    policy: LimitPolicy,
    ips: Buckets<IpAddr>,
    claims: Buckets<(IpAddr, Hotkey)>,
    hotkeys: Buckets<Hotkey>,
    exchanges: Buckets<Hotkey>,
    unsigned: Buckets<()>,
}

impl Limits {
    /// Full buckets.
    pub fn new(policy: LimitPolicy) -> Self {
        let LimitPolicy { strangers, keys_max, .. } = policy;
        Self {
            policy,
            ips: Buckets::new(policy.per_ip, strangers, keys_max),
            claims: Buckets::new(policy.per_claim, strangers, keys_max),
            hotkeys: Buckets::new(policy.per_hotkey, strangers, keys_max),
            exchanges: Buckets::new(policy.exchanges, policy.exchanges, keys_max),
            unsigned: Buckets::new(policy.unsigned, policy.unsigned, 1),
        }
    }

    /// The limits.
    pub fn policy(&self) -> &LimitPolicy {
        &self.policy
    }

    /// Asks for one request from an address.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`], as of all of these.
    pub fn ask_ip(&self, ip: IpAddr, now: UnixTime) -> Result<(), Refusal> {
        self.ips.ask(network(ip), now)
    }

    /// Asks for one request from an address that claims a hotkey which is registered.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`]
    pub fn ask_claim(&self, ip: IpAddr, hotkey: Hotkey, now: UnixTime) -> Result<(), Refusal> {
        self.claims.ask((network(ip), hotkey), now)
    }

    /// Asks for one request that is proved to be of a hotkey.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`]
    pub fn ask_hotkey(&self, hotkey: Hotkey, now: UnixTime) -> Result<(), Refusal> {
        self.hotkeys.ask(hotkey, now)
    }

    /// Asks for one exchange of a symmetric key.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`]
    pub fn ask_exchange(&self, hotkey: Hotkey, now: UnixTime) -> Result<(), Refusal> {
        self.exchanges.ask(hotkey, now)
    }

    /// Asks for one request that needs no signature.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`]
    pub fn ask_unsigned(&self, now: UnixTime) -> Result<(), Refusal> {
        self.unsigned.ask((), now)
    }
}

/// What counts as one sender.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(mapped) => mapped.into(),
            None => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        },
    }
}

/// A bounded table of buckets.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    strangers: Rate,
    keys_max: usize,
    state: Mutex<Table<K>>,
}

#[derive(Debug)]
struct Table<K> {
    /// When each bucket is full again, in nanoseconds since 1970.
    full_at: HashMap<K, u64>,
    /// The same of the bucket that is shared.
    strangers: u64,
    /// When full buckets were dropped last.
    last_sweep: u64,
}

/// A full table is swept so often: each time costs a look at all keys.
const SWEEP: u64 = 1_000_000_000;

impl<K: Eq + Hash> Buckets<K> {
    /// Full buckets: `keys_max` of this rate, and one for everybody else.
    pub fn new(rate: Rate, strangers: Rate, keys_max: usize) -> Self {
        let table = Table { full_at: HashMap::new(), strangers: 0, last_sweep: 0 };
        Self { rate, strangers, keys_max, state: Mutex::new(table) }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`] with when there is one again.
    pub fn ask(&self, key: K, now: UnixTime) -> Result<(), Refusal> {
        let now = now.nanos();
        let mut table = self.state.lock();
        let full = table.full_at.len() >= self.keys_max;
        if full && !table.full_at.contains_key(&key) {
            // Also after the clock was set back: then the table waits no longer than it did before.
            if now.abs_diff(table.last_sweep) >= SWEEP {
                table.last_sweep = now;
                // A bucket that is full again is as good as none.
                table.full_at.retain(|_, full_at| *full_at > now);
            }
            if table.full_at.len() >= self.keys_max {
                return take(&mut table.strangers, self.strangers, now);
            }
        }
        take(table.full_at.entry(key).or_insert(0), self.rate, now)
    }

    /// How many buckets there are.
    pub fn len(&self) -> usize {
        self.state.lock().full_at.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn take(full_at: &mut u64, rate: Rate, now: u64) -> Result<(), Refusal> {
    // Further ahead than an empty bucket it is only after the clock was set back: then the bucket is empty now.
    *full_at = (*full_at).min(now.saturating_add(rate.credit()).saturating_add(rate.cost()));
    let ahead = full_at.saturating_sub(now);
    if let Some(wait) = ahead.checked_sub(rate.credit()).filter(|wait| *wait > 0) {
        return Err(Refusal::RateLimited { retry_after: Duration::from_nanos(wait) });
    }
    *full_at = now.saturating_add(ahead).saturating_add(rate.cost());
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> UnixTime {
        UnixTime::from_millis(1_764_000_000_000 + millis)
    }

    fn taken(buckets: &Buckets<u32>, key: u32, asked: usize, now: UnixTime) -> usize {
        (0..asked).filter(|_| buckets.ask(key, now).is_ok()).count()
    }

    #[test]
    fn a_burst_is_taken_at_once_and_the_rest_in_time() {
        let buckets = Buckets::new(Rate::new(10, 5), Rate::new(1, 1), 8);
        assert_eq!(taken(&buckets, 1, 20, at(0)), 5);
        let refused = buckets.ask(1, at(0)).unwrap_err();
        assert_eq!(refused, Refusal::RateLimited { retry_after: Duration::from_millis(100) });
        assert_eq!(taken(&buckets, 1, 20, at(99)), 0);
        assert_eq!(taken(&buckets, 1, 20, at(100)), 1);
        assert_eq!(taken(&buckets, 1, 20, at(10_000)), 5, "no more than a burst is saved up");
        assert_eq!(taken(&buckets, 2, 20, at(10_000)), 5, "everybody has a bucket");
    }

    #[test]
    fn in_a_full_table_the_known_keep_their_buckets_and_strangers_share_one() {
        let buckets = Buckets::new(Rate::new(10, 5), Rate::new(10, 2), 4);
        for key in 0..4 {
            assert_eq!(taken(&buckets, key, 5, at(0)), 5);
        }
        let strangers: usize = (100..200).map(|key| taken(&buckets, key, 1, at(0))).sum();
        assert_eq!((strangers, buckets.len()), (2, 4));
        assert_eq!(taken(&buckets, 3, 9, at(100)), 1, "a known one is not hurt");
        // All buckets are full again, and so none of them is needed any more.
        assert_eq!(taken(&buckets, 500, 9, at(5_000)), 5);
        assert_eq!(buckets.len(), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let buckets = Buckets::new(Rate::new(10, 5), Rate::new(1, 1), 8);
        assert_eq!(taken(&buckets, 1, 20, at(1_000_000)), 5);
        assert_eq!(taken(&buckets, 1, 20, at(0)), 0);
        assert_eq!(taken(&buckets, 1, 20, at(100)), 1);
        assert_eq!(taken(&buckets, 1, 20, at(10_000)), 5);
    }

    #[test]
    fn one_host_is_one_sender_whatever_it_calls_itself() {
        let check = |one: &str, other: &str, same: bool| {
            assert_eq!(network(one.parse().unwrap()) == network(other.parse().unwrap()), same, "{one} {other}");
        };
        check("2606:4700::1", "2606:4700::2", true);
        check("2606:4700:0:1::1", "2606:4700::1", false);
        check("::ffff:1.2.3.4", "1.2.3.4", true);
        check("1.2.3.4", "1.2.3.5", false);
    }

    #[test]
    fn claims_from_elsewhere_do_not_use_up_a_hotkeys_bucket() {
        let limits = Limits::new(LimitPolicy { per_claim: Rate::new(1, 2), ..LimitPolicy::default() });
        let hotkey: Hotkey = [1; 32].into();
        let (attacker, honest) = ("1.1.1.1".parse().unwrap(), "2.2.2.2".parse().unwrap());
        let taken = (0..100).filter(|_| limits.ask_claim(attacker, hotkey, at(0)).is_ok()).count();
        assert_eq!(taken, 2);
        limits.ask_claim(honest, hotkey, at(0)).unwrap();
        limits.ask_hotkey(hotkey, at(0)).unwrap();
    }

    proptest! {
        #[test]
        fn no_more_is_ever_taken_than_rate_and_burst_allow(
            per_second in 1..2000_u32,
            burst in 1..50_u32,
            waits in prop::collection::vec(0..50_u64, 1..200),
        ) {
            let buckets = Buckets::new(Rate::new(per_second, burst), Rate::new(1, 1), 1);
            let (mut millis, mut total) = (0, 0_u64);
            for wait in waits {
                millis += wait;
                total += taken(&buckets, 1, 3, at(millis)) as u64;
                // One nanosecond of rounding for each token.
                let allowed = u64::from(burst) + (millis * u64::from(per_second)).div_ceil(1000) + total / 1_000_000 + 1;
                prop_assert!(total <= allowed, "{total} of {allowed}");
            }
        }

        #[test]
        fn tables_stay_bounded(keys in prop::collection::vec((any::<u32>(), 0..10_000_u64), 1..300)) {
            let buckets = Buckets::new(Rate::new(1, 1), Rate::new(1, 1), 16);
            for (key, millis) in keys {
                let _ = buckets.ask(key, at(millis));
                prop_assert!(buckets.len() <= 16);
            }
        }
    }
}
