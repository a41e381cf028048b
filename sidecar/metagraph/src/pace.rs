//! How fast one endpoint may be asked.
//!
//! Public endpoints allow one request a second and answer 429 beyond that; who goes on asking is shut out for longer. So
//! nothing limits requests until an endpoint complains. From then on it is asked once a second at most, not at all before
//! the moment it named, and the rate comes back in steps while it stays content. The pace outlives connections: a
//! reconnect must not be a way around it.
//!
//! [`Bucket`] decides and is pure, its clock is an argument; [`Pace`] waits. [`Paces`] are those of one process: its querier
//! and its submitter ask the same endpoint from the same address, so that they have to share what it allows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Time between two requests to an endpoint that complained: its own limit is one a second, and its windows need not
/// begin where ours do.
pub(crate) const LIMITED_INTERVAL: Duration = Duration::from_millis(1050);

/// How long an endpoint has to be content before its interval is halved.
const RELAX_AFTER: Duration = Duration::from_secs(30);

/// An interval that short limits nobody.
const UNLIMITED_BELOW: Duration = Duration::from_millis(100);

/// Silence after a complaint that names no time: the first, then doubled up to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// An endpoint that asks for more patience than this is asked again anyway.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

/// Token bucket of one token, with a memory of complaints.
#[derive(Debug, Default)]
struct Bucket {
    /// Time between two requests; `None` limits nothing.
    interval: Option<Duration>,
    /// When the next request may go.
    free_at: Option<Instant>,
    /// Complaints in a row.
    strikes: u32,
    /// Since when the endpoint may be content: the end of the last silence, or the last halving after it.
    calm_since: Option<Instant>,
}

impl Bucket {
    /// Takes the next slot, unless it is further away than `patience`: then says how far and takes nothing.
    fn take(&mut self, now: Instant, patience: Duration) -> Result<Instant, Duration> {
        self.relax(now);
        let Some(interval) = self.interval else { return Ok(now) };
        let slot = self.free_at.map_or(now, |free_at| free_at.max(now));
        let wait = slot - now;
        if wait > patience {
            return Err(wait);
        }
        self.free_at = Some(slot + interval);
        Ok(slot)
    }

    /// The endpoint complained.
    fn strike(&mut self, now: Instant, retry_after: Option<Duration>) {
        if retry_after.is_none() && self.calm_since.is_some_and(|calm_since| now < calm_since) {
            // Calls that were under way together are one complaint.
            return;
        }
        let (first, last) = BACKOFF;
        let doubled = first.saturating_mul(2_u32.saturating_pow(self.strikes)).min(last);
        let silence = retry_after.map_or(doubled, |asked| asked.min(RETRY_AFTER_MAX)).max(LIMITED_INTERVAL);
        self.strikes = self.strikes.saturating_add(1);
        self.interval = Some(LIMITED_INTERVAL);
        // Slots that were given out already are lost on a deaf endpoint; whoever holds one learns it by its own answer.
        let until = now + silence;
        self.free_at = Some(self.free_at.map_or(until, |free_at| free_at.max(until)));
        self.calm_since = Some(until);
    }

    fn relax(&mut self, now: Instant) {
        while let (Some(interval), Some(calm_since)) = (self.interval, self.calm_since) {
            if now.saturating_duration_since(calm_since) < RELAX_AFTER {
                return;
            }
            let halved = interval / 2;
            if halved < UNLIMITED_BELOW {
                *self = Self::default();
                return;
            }
            self.interval = Some(halved);
            self.strikes = self.strikes.saturating_sub(1);
            self.calm_since = Some(calm_since + RELAX_AFTER);
        }
    }

    /// Until when requests wait, if they do.
    fn limited_until(&self) -> Option<Instant> {
        self.interval.and(self.free_at)
    }
}

/// The pace of one endpoint, shared by all connections to it.
#[derive(Debug, Default)]
pub struct Pace {
    bucket: Mutex<Bucket>,
}

impl Pace {
    /// Waits for the next slot; refuses at once, with the time to wait, when that is longer than `patience`.
    pub(crate) async fn admit(&self, patience: Duration) -> Result<(), Duration> {
        let now = Instant::now();
        let slot = self.bucket.lock().take(now, patience)?;
        if slot > now {
            tokio::time::sleep_until(slot).await;
        }
        Ok(())
    }

    /// The endpoint complained about too many requests.
    pub(crate) fn strike(&self, retry_after: Option<Duration>) {
        self.bucket.lock().strike(Instant::now(), retry_after);
    }

    /// Until when the endpoint is asked no faster than once a second, or not at all; `None` where nothing limits it.
    pub fn limited_until(&self) -> Option<Instant> {
        let mut bucket = self.bucket.lock();
        bucket.relax(Instant::now());
        bucket.limited_until()
    }

    /// Time before the next request may go.
    pub(crate) fn wait(&self) -> Duration {
        let now = Instant::now();
        self.limited_until().map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

/// The pace of every endpoint that a process asks, whichever of its parts does. Clones share them. There are as many as
/// endpoints were ever configured.
#[derive(Debug, Clone, Default)]
pub struct Paces {
    by_endpoint: Arc<Mutex<BTreeMap<String, Arc<Pace>>>>,
}

impl Paces {
    /// The pace of one endpoint.
    pub fn of(&self, endpoint: &str) -> Arc<Pace> {
        self.by_endpoint.lock().entry(endpoint.to_owned()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FOREVER: Duration = Duration::from_hours(100);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn nothing_is_limited_before_a_complaint() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        for _ in 0..1000 {
            assert_eq!(bucket.take(now, Duration::ZERO), Ok(now));
        }
        assert_eq!(bucket.limited_until(), None);
    }

    #[test]
    fn a_complaint_is_followed_by_the_silence_it_asked_for_and_one_request_a_second() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        bucket.strike(now, Some(ms(7000)));
        assert_eq!(bucket.take(now, ms(1000)), Err(ms(7000)));
        assert_eq!(bucket.take(now, FOREVER), Ok(now + ms(7000)));
        assert_eq!(bucket.take(now, FOREVER), Ok(now + ms(7000) + LIMITED_INTERVAL));
    }

    #[test]
    fn complaints_that_name_no_time_double_the_silence_up_to_a_minute() {
        let (mut bucket, mut now) = (Bucket::default(), Instant::now());
        let mut silences = Vec::new();
        for _ in 0..8 {
            bucket.free_at = None;
            bucket.strike(now, None);
            let slot = bucket.take(now, FOREVER).unwrap();
            silences.push((slot - now).as_secs());
            now = slot;
        }
        assert_eq!(silences, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn calls_that_were_under_way_together_are_one_complaint() {
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        for _ in 0..10 {
            bucket.strike(now, None);
        }
        assert_eq!(bucket.take(now, FOREVER), Ok(now + LIMITED_INTERVAL));
        bucket.strike(now, Some(ms(9000)));
        assert_eq!(bucket.take(now, FOREVER), Ok(now + ms(9000)), "a time that is named counts always");
    }

    #[test]
    fn the_rate_comes_back_in_steps() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        bucket.strike(start, None);
        let mut gaps = Vec::new();
        for minute in 1..=4 {
            let now = start + Duration::from_secs(32) * minute;
            let first = bucket.take(now, FOREVER).unwrap();
            gaps.push((bucket.take(now, FOREVER).unwrap() - first).as_millis());
        }
        assert_eq!(gaps, [525, 262, 131, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_takes_as_long_as_the_slot_is_away() {
        let pace = Pace::default();
        pace.strike(Some(ms(3000)));
        let start = Instant::now();
        assert_eq!(pace.admit(ms(100)).await, Err(ms(3000)));
        pace.admit(ms(5000)).await.unwrap();
        assert_eq!(start.elapsed(), ms(3000));
    }

    proptest! {
        /// Whatever happens, a limited endpoint is never asked twice within its interval, and never before it allowed it.
        #[test]
        fn a_limited_endpoint_is_never_asked_faster_than_its_pace(
            steps in proptest::collection::vec((0u64..5_000, 0u8..4, proptest::option::of(0u64..20_000)), 1..200)
        ) {
            let (mut bucket, mut now) = (Bucket::default(), Instant::now());
            let mut last: Option<Instant> = None;
            let mut silent_until = now;
            for (pause, what, retry_after) in steps {
                now += ms(pause);
                if what == 0 {
                    bucket.strike(now, retry_after.map(ms));
                    silent_until = now + retry_after.map_or(Duration::ZERO, ms);
                    last = None;
                } else if let Ok(slot) = bucket.take(now, FOREVER) {
                    prop_assert!(slot >= now && slot >= silent_until.min(now + RETRY_AFTER_MAX));
                    if let (Some(before), Some(interval)) = (last, bucket.interval) {
                        prop_assert!(slot >= before + interval, "{:?}", slot - before);
                    }
                    last = Some(slot);
                }
            }
        }
    }
}
