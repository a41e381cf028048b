//! Nonces: a request is taken once.
//!
//! Every nonce carries its time, as a part of it (Fiber) or beside it (`mycelium-v1`), and is refused outside a window
//! around the receiver's clock. So a nonce has to be remembered until its own time has left the window: that a clock
//! ahead of ours made it does not let it in again. Remembered nonces lie in one bucket for each second of their own time:
//! the same nonce is always looked for in the same bucket, and a bucket is dropped as a whole once nothing in it can be
//! valid.
//!
//! # Invariants
//! - What was taken is never taken again, also when the clock is set back: nothing older than what was dropped is let in.
//! - Nothing from before the store was made is let in, because a process that ran before may have taken it.
//! - Only [`NonceStore::remember`] stores, and its caller has checked the signature: strangers cannot fill the store.
//! - When a hotkey or the store is full, new requests are refused. Room is never made by forgetting.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use rand::RngCore;
use sha2::{Digest, Sha256};
use sidecar_util::Hotkey;

use super::UnixTime;
use crate::sync::Mutex;

/// How far the time of a Fiber nonce may be from the receiver's clock: `NONCE_WINDOW_NS` of Fiber.
pub const FIBER_WINDOW: Duration = Duration::from_mins(2);

/// Longest nonce taken. Fiber's have 30 characters.
pub const NONCE_BYTES_MAX: usize = 128;

/// Length of the random part of a Fiber nonce.
const SUFFIX: usize = 10;

/// A nonce as Fiber's clients make it: nanoseconds, an underscore, ten letters and digits.
pub fn fiber_nonce(now: UnixTime, random: &mut impl RngCore) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut nonce = format!("{}_", now.nanos());
    while nonce.len() < now.nanos().to_string().len() + 1 + SUFFIX {
        // Six bits; the two values beyond the alphabet are drawn again, so that no letter is likelier than another.
        let index = random.next_u32() as usize & 63;
        if let Some(letter) = ALPHABET.get(index) {
            nonce.push(char::from(*letter));
        }
    }
    nonce
}

/// The time in a Fiber nonce, as its server reads it: a whole number up to the first underscore.
pub fn fiber_nonce_time(nonce: &str) -> Option<UnixTime> {
    let number = nonce.split('_').next().unwrap_or_default();
    let digits = number.strip_prefix('+').unwrap_or(number);
    let whole = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    // What does not fit into 64 bits is centuries outside the window.
    whole.then(|| digits.parse().ok()).flatten().map(UnixTime::from_nanos)
}

/// How much is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonceLimits {
    /// Nonces of one hotkey.
    pub per_hotkey: usize,
    /// Nonces altogether.
    pub total: usize,
}

impl Default for NonceLimits {
    fn default() -> Self {
        // 500 requests a second from one hotkey, and 8,000 from all, for a whole window; about 35 bytes each.
        Self { per_hotkey: 1 << 16, total: 1 << 20 }
    }
}

/// Why a nonce is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NonceProblem {
    /// It does not carry a time.
    #[error("the nonce does not begin with a time in nanoseconds: make it as `{{time}}_{{random}}`")]
    Malformed,
    /// Longer than any honest one.
    #[error("the nonce is longer than {NONCE_BYTES_MAX} bytes: make it shorter")]
    TooLong,
    /// Too old or too new.
    #[error("the time of the nonce is outside the window around this receiver's clock: set your clock, and sign again")]
    OutsideWindow,
    /// Older than what this receiver can know to be new.
    #[error("the nonce is from before this receiver started: sign again")]
    BeforeStart,
    /// Taken before.
    #[error("the nonce was used before: make a new one for every request")]
    Used,
    /// No room for one more of this hotkey, or at all.
    #[error("too many requests within the window of nonces: slow down")]
    Full,
}

/// Nonces that were taken.
#[derive(Debug)]
pub struct NonceStore {
    window: Duration,
    limits: NonceLimits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Nothing from before this is let in.
    floor: UnixTime,
    /// By the second of the nonces' own time.
    buckets: BTreeMap<u64, Bucket>,
    /// How many of each hotkey there are in all buckets.
    counts: HashMap<Hotkey, usize>,
    /// How many there are.
    total: usize,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Half of the SHA-256 of hotkey and nonce: to find two that are the same takes 2^64 attempts, and then harms nobody
    /// but their maker.
    seen: HashSet<[u8; 16]>,
    counts: HashMap<Hotkey, usize>,
}

impl NonceStore {
    /// An empty store for nonces whose time is at most `window` away from the clock; it starts now.
    pub fn new(window: Duration, limits: NonceLimits, started: UnixTime) -> Self {
        let state = State { floor: started, buckets: BTreeMap::new(), counts: HashMap::new(), total: 0 };
        Self { window, limits, state: Mutex::new(state) }
    }

    /// Whether a nonce could be taken now. Stores nothing, so it can be asked before the signature is looked at.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, hotkey: &Hotkey, nonce: &str, time: UnixTime, now: UnixTime) -> Result<(), NonceProblem> {
        self.refuse(&self.state.lock(), hotkey, &digest(hotkey, nonce), nonce, time, now)
    }

    /// Takes a nonce. The signature over it must have been verified.
    ///
    /// # Errors
    /// Why it cannot be taken: another request may have taken it since it was checked.
    pub fn remember(&self, hotkey: &Hotkey, nonce: &str, time: UnixTime, now: UnixTime) -> Result<(), NonceProblem> {
        let digest = digest(hotkey, nonce);
        let mut state = self.state.lock();
        state.drop_before(now.minus(self.window));
        self.refuse(&state, hotkey, &digest, nonce, time, now)?;
        let bucket = state.buckets.entry(time.secs()).or_default();
        bucket.seen.insert(digest);
        *bucket.counts.entry(*hotkey).or_default() += 1;
        *state.counts.entry(*hotkey).or_default() += 1;
        state.total += 1;
        Ok(())
    }

    /// How many nonces are remembered.
    pub fn len(&self) -> usize {
        self.state.lock().total
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn refuse(
        &self,
        state: &State,
        hotkey: &Hotkey,
        digest: &[u8; 16],
        nonce: &str,
        time: UnixTime,
        now: UnixTime,
    ) -> Result<(), NonceProblem> {
        if nonce.len() > NONCE_BYTES_MAX {
            return Err(NonceProblem::TooLong);
        }
        if time.distance(now) > self.window {
            return Err(NonceProblem::OutsideWindow);
        }
        if time < state.floor {
            return Err(NonceProblem::BeforeStart);
        }
        if state.buckets.get(&time.secs()).is_some_and(|bucket| bucket.seen.contains(digest)) {
            return Err(NonceProblem::Used);
        }
        let of_hotkey = state.counts.get(hotkey).copied().unwrap_or_default();
        if state.total >= self.limits.total || of_hotkey >= self.limits.per_hotkey {
            return Err(NonceProblem::Full);
        }
        Ok(())
    }
}

impl State {
    /// Drops the buckets that end before a moment, and lets nothing in any more that would lie in them.
    fn drop_before(&mut self, moment: UnixTime) {
        while let Some(bucket) = self.buckets.first_entry().filter(|bucket| *bucket.key() < moment.secs()) {
            let (second, bucket) = bucket.remove_entry();
            self.floor = self.floor.max(UnixTime::from_secs(second.saturating_add(1)));
            self.total -= bucket.seen.len();
            #[expect(clippy::iter_over_hash_type, reason = "sums do not depend on the order")]
            for (hotkey, count) in bucket.counts {
                if let Some(left) = self.counts.get_mut(&hotkey) {
                    *left -= count;
                    if *left == 0 {
                        self.counts.remove(&hotkey);
                    }
                }
            }
        }
    }
}

fn digest(hotkey: &Hotkey, nonce: &str) -> [u8; 16] {
    let full = Sha256::new().chain_update(hotkey.as_bytes()).chain_update(nonce).finalize();
    let mut half = [0; 16];
    half.copy_from_slice(&full[..16]);
    half
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const LIMITS: NonceLimits = NonceLimits { per_hotkey: 4, total: 6 };

    fn at(secs: u64) -> UnixTime {
        UnixTime::from_secs(1_000_000 + secs)
    }

    fn hotkey(id: u8) -> Hotkey {
        [id; 32].into()
    }

    fn store() -> NonceStore {
        NonceStore::new(FIBER_WINDOW, LIMITS, at(0))
    }

    fn take(store: &NonceStore, id: u8, nonce: &str, time: u64, now: u64) -> Result<(), NonceProblem> {
        store.remember(&hotkey(id), nonce, at(time), at(now))
    }

    #[test]
    fn nonces_look_as_fibers_clients_make_them() {
        let mut random = StdRng::seed_from_u64(1);
        let now = UnixTime::from_nanos(1_764_000_000_123_456_789);
        let nonce = fiber_nonce(now, &mut random);
        let (time, suffix) = nonce.split_once('_').unwrap();
        assert_eq!((time, suffix.len()), ("1764000000123456789", 10));
        assert!(suffix.bytes().all(|letter| letter.is_ascii_alphanumeric()));
        assert_eq!(fiber_nonce_time(&nonce), Some(now));
        assert_ne!(fiber_nonce(now, &mut random), nonce);
    }

    #[test]
    fn times_of_nonces_are_read_as_fibers_server_reads_them() {
        let check = |nonce: &str, nanos: Option<u64>| assert_eq!(fiber_nonce_time(nonce).map(UnixTime::nanos), nanos);
        check("123_abc", Some(123));
        check("+123", Some(123));
        check("123_4_5_6", Some(123));
        check("123", Some(123));
        for bad in ["", "_", "abc_1", "12.5_a", "-5_a", "0x10", "++1", "99999999999999999999999_a"] {
            check(bad, None);
        }
    }

    #[test]
    fn the_window_is_120_seconds_to_both_sides() {
        for (time, now, taken) in [(0, 119, true), (0, 120, true), (0, 121, false), (119, 0, true), (121, 0, false)] {
            let got = take(&store(), 1, "a", time, now);
            assert_eq!(got.is_ok(), taken, "{time} at {now}: {got:?}");
        }
    }

    #[test]
    fn fiber_5_3_1_a_nonce_from_the_future_is_no_second_time_accepted() {
        // Fiber forgets 120 s after receipt, but takes times up to 120 s ahead: at second 121 the nonce is new again.
        let store = store();
        take(&store, 1, "a", 119, 0).unwrap();
        for now in 0..239 {
            assert_eq!(take(&store, 1, "a", 119, now), Err(NonceProblem::Used), "second {now}");
        }
        assert_eq!(take(&store, 1, "a", 119, 240), Err(NonceProblem::OutsideWindow));
    }

    #[test]
    fn fiber_5_3_2_nonces_are_forgotten_and_bounded_for_each_hotkey_and_in_all() {
        let store = store();
        for nonce in 0..4 {
            take(&store, 1, &nonce.to_string(), 10, 10).unwrap();
        }
        assert_eq!(take(&store, 1, "4", 10, 10), Err(NonceProblem::Full));
        take(&store, 2, "0", 10, 10).unwrap();
        take(&store, 2, "1", 10, 10).unwrap();
        assert_eq!(take(&store, 3, "0", 10, 10), Err(NonceProblem::Full), "six altogether");
        assert_eq!(take(&store, 1, "0", 10, 10), Err(NonceProblem::Used), "to be full forgets nothing");
        // All of them have left the window, and the next one finds an empty store.
        take(&store, 1, "5", 200, 200).unwrap();
        assert_eq!(store.len(), 1);
        assert_eq!(store.state.lock().counts.len(), 1);
    }

    #[test]
    fn a_check_and_a_refusal_store_nothing() {
        let store = store();
        for nonce in 0..1000 {
            store.check(&hotkey(1), &nonce.to_string(), at(1), at(1)).unwrap();
            take(&store, 1, &nonce.to_string(), 500, 1).unwrap_err();
        }
        assert!(store.is_empty());
    }

    #[test]
    fn the_same_nonce_of_two_hotkeys_is_two_nonces() {
        let store = store();
        take(&store, 1, "a", 1, 1).unwrap();
        take(&store, 2, "a", 1, 1).unwrap();
        assert_eq!(take(&store, 2, "a", 1, 1), Err(NonceProblem::Used));
    }

    #[test]
    fn a_clock_that_is_set_back_lets_nothing_in_again() {
        let store = store();
        take(&store, 1, "a", 10, 10).unwrap();
        take(&store, 1, "b", 1000, 1000).unwrap();
        assert_eq!(take(&store, 1, "a", 10, 10), Err(NonceProblem::BeforeStart));
        take(&store, 1, "c", 1000, 990).unwrap();
    }

    #[test]
    fn what_another_process_may_have_taken_is_not_taken() {
        let store = NonceStore::new(FIBER_WINDOW, LIMITS, at(50));
        assert_eq!(take(&store, 1, "a", 49, 51), Err(NonceProblem::BeforeStart));
        take(&store, 1, "a", 50, 51).unwrap();
    }

    #[test]
    fn endless_nonces_are_refused() {
        let long = "1".repeat(NONCE_BYTES_MAX + 1);
        assert_eq!(take(&store(), 1, &long, 1, 1), Err(NonceProblem::TooLong));
    }

    proptest! {
        #[test]
        fn no_nonce_is_ever_taken_twice(steps in prop::collection::vec((0..3_u8, 0..4_u8, 0..400_u64, 0..400_u64), 1..200)) {
            let store = NonceStore::new(FIBER_WINDOW, NonceLimits { per_hotkey: 8, total: 12 }, at(0));
            let mut taken = std::collections::BTreeSet::new();
            for (id, nonce, time, now) in steps {
                if take(&store, id, &nonce.to_string(), time, now).is_ok() {
                    prop_assert!(taken.insert((id, nonce, time)));
                }
                prop_assert!(store.len() <= 12);
                let state = store.state.lock();
                prop_assert_eq!(state.counts.values().sum::<usize>(), state.total);
                prop_assert_eq!(state.buckets.values().map(|bucket| bucket.seen.len()).sum::<usize>(), state.total);
            }
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".*") {
            let _ = fiber_nonce_time(&text);
        }
    }
}
