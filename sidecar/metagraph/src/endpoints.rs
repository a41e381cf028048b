//! Which endpoint to use: what is known of each, and the choice between them.
//!
//! Endpoints stand in the order of preference. Each carries a latency that forgets slowly, its failures in a row, how far
//! its head lags behind the best head seen anywhere, and what went wrong last. The best score is used; a preferred
//! endpoint that failed is taken back only after it proved itself several times in a row, so that an endpoint which comes
//! and goes does not take the connection with it each time. One that serves another chain is left alone for a while.
//!
//! Pure: the clock is an argument, and whoever uses it does the connecting and the waiting.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::pace::{Pace, Paces};

/// Weight of a new latency against what was known: half of what is remembered is of the last three calls.
const LATENCY_WEIGHT: f64 = 0.2;

/// Pause after a failure: the first, then doubled up to the last.
pub(crate) const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Pause before an endpoint of another chain is looked at again: somebody has to change its address or ours.
const WRONG_CHAIN_PAUSE: Duration = Duration::from_secs(30);

/// Heads seen longer ago are not compared: the other endpoint may have gone on since.
const HEAD_FRESH: Duration = Duration::from_mins(1);

/// Blocks behind the best head seen that are no lag: nodes hear of a block at different times.
const LAG_TOLERATED: u64 = 3;

/// Looks in a row that have to succeed before a preferred endpoint is taken back.
pub(crate) const PROBES_TO_RETURN: u32 = 3;

/// What an endpoint is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndpointState {
    /// Not tried yet.
    Unknown,
    /// The one in use.
    InUse,
    /// Works, as far as is known.
    Healthy,
    /// Works, and wants fewer requests.
    RateLimited,
    /// Works, and is behind the others.
    Lagging,
    /// Failed last.
    Failing,
    /// Serves another chain.
    WrongChain,
}

impl EndpointState {
    /// All states, for metrics that show each of them.
    pub const ALL: [Self; 7] =
        [Self::Unknown, Self::InUse, Self::Healthy, Self::RateLimited, Self::Lagging, Self::Failing, Self::WrongChain];

    /// The state as one word in `snake_case`: label of a metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::InUse => "in_use",
            Self::Healthy => "healthy",
            Self::RateLimited => "rate_limited",
            Self::Lagging => "lagging",
            Self::Failing => "failing",
            Self::WrongChain => "wrong_chain",
        }
    }
}

/// What kind of failure an endpoint had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureClass {
    /// No connection, or it was lost.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// Too many requests.
    RateLimited,
    /// The node refused.
    Refused,
    /// The answer could not be read.
    Undecodable,
    /// No new blocks.
    Stale,
    /// Blocks that do not become final.
    FinalityStalled,
    /// Another genesis.
    WrongChain,
}

/// An endpoint at one moment, for status and metrics.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EndpointHealth {
    /// The address.
    pub endpoint: String,
    /// What it is good for.
    pub state: EndpointState,
    /// Mean time of a call in milliseconds, recent calls counting most; `None` before the first.
    pub latency_ms: Option<f64>,
    /// From 0, of no use, to 1; the highest is used.
    pub score: f64,
    /// Failures in a row.
    pub failures: u32,
    /// What went wrong last, also when it works again since.
    pub last_failure: Option<FailureClass>,
    /// Blocks by which it is behind the best head seen anywhere in the last minute.
    pub lag_blocks: u64,
    /// Milliseconds for which it will not be asked because it wanted fewer requests.
    pub rate_limited_for_ms: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    endpoint: String,
    pace: Arc<Pace>,
    latency: Option<f64>,
    /// Whether it ever worked.
    worked: bool,
    failures: u32,
    last_failure: Option<FailureClass>,
    head: Option<(u64, Instant)>,
    /// Not to be tried before.
    retry_at: Option<Instant>,
    wrong_chain: bool,
    /// Looks in a row that succeeded while another endpoint was in use.
    probes: u32,
}

impl Entry {
    fn new(endpoint: &str, paces: &Paces) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            pace: paces.of(endpoint),
            latency: None,
            worked: false,
            failures: 0,
            last_failure: None,
            head: None,
            retry_at: None,
            wrong_chain: false,
            probes: 0,
        }
    }

    /// Between 0 and 1. Failures halve it, a second of latency halves it, ten blocks of lag halve it.
    fn score(&self, lag: u64, limited: bool) -> f64 {
        if self.wrong_chain {
            return 0.0;
        }
        let failures = 0.5_f64.powi(i32::try_from(self.failures.min(32)).unwrap_or(32));
        let latency = 1.0 / (1.0 + self.latency.unwrap_or_default());
        let lag = 10.0 / (10.0 + f64::from(u32::try_from(lag).unwrap_or(u32::MAX)));
        let limited = if limited { 0.5 } else { 1.0 };
        failures * latency * lag * limited
    }
}

/// The endpoints of one chain.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    entries: Vec<Entry>,
    paces: Paces,
    in_use: Option<usize>,
    /// Failed since the last success: when all have, there is something to say.
    failed: usize,
}

impl Endpoints {
    pub(crate) fn new(endpoints: &[String], paces: Paces) -> Self {
        let entries = endpoints.iter().map(|endpoint| Entry::new(endpoint, &paces)).collect();
        Self { entries, paces, in_use: None, failed: 0 }
    }

    /// Takes over another list; what is known of endpoints that stay is kept, except that they may be tried at once.
    pub(crate) fn set(&mut self, endpoints: &[String]) {
        let mut old = std::mem::take(&mut self.entries);
        self.entries = endpoints
            .iter()
            .map(|endpoint| {
                let known =
                    old.iter().position(|entry| entry.endpoint == *endpoint).map(|index| old.swap_remove(index));
                let mut entry = known.unwrap_or_else(|| Entry::new(endpoint, &self.paces));
                (entry.retry_at, entry.failures, entry.wrong_chain, entry.probes) = (None, 0, false, 0);
                entry
            })
            .collect();
        (self.in_use, self.failed) = (None, 0);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn endpoint(&self, index: usize) -> &str {
        &self.entries[index].endpoint
    }

    pub(crate) fn pace(&self, index: usize) -> Arc<Pace> {
        self.entries[index].pace.clone()
    }

    /// The endpoint to connect to, or when there will be one. `None` where there are no endpoints.
    ///
    /// Differences that are too small to matter do not overrule the order of preference.
    pub(crate) fn choose(&self, now: Instant) -> Option<Result<usize, Instant>> {
        let ready_at = |entry: &Entry| {
            let limited = entry.pace.limited_until().filter(|until| *until > now + Duration::from_secs(1));
            entry.retry_at.into_iter().chain(limited).max().unwrap_or(now)
        };
        let ready = self.entries.iter().enumerate().filter(|(_, entry)| ready_at(entry) <= now);
        let best =
            ready.map(|(index, _)| (self.score(index, now), index)).fold(None, |best: Option<(f64, usize)>, one| {
                match best {
                    // The later one has to be clearly better: a fifth.
                    Some((score, _)) if one.0 <= score * 1.2 => best,
                    _ => Some(one),
                }
            });
        match best {
            Some((_, index)) => Some(Ok(index)),
            None => self.entries.iter().map(ready_at).min().map(Err),
        }
    }

    /// Goes to another one of its own accord.
    pub(crate) fn leaves(&mut self) {
        self.in_use = None;
    }

    /// This one is in use now.
    pub(crate) fn uses(&mut self, index: usize) {
        self.in_use = Some(index);
        self.entries[index].probes = 0;
    }

    /// A call, or the handshake with its first calls, took so long.
    pub(crate) fn answered(&mut self, index: usize, took: Duration) {
        let entry = &mut self.entries[index];
        let seconds = took.as_secs_f64();
        entry.latency = Some(match entry.latency {
            Some(known) => known + LATENCY_WEIGHT * (seconds - known),
            None => seconds,
        });
    }

    /// It does what it is for.
    pub(crate) fn works(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        (entry.worked, entry.failures, entry.retry_at, entry.wrong_chain) = (true, 0, None, false);
        self.failed = 0;
    }

    /// It announced this block.
    pub(crate) fn saw(&mut self, index: usize, block: u64, now: Instant) {
        self.entries[index].head = Some((block, now));
    }

    /// It failed after it had worked: perhaps one reconnect is all it takes, so nobody needs to know yet.
    pub(crate) fn lost(&mut self, index: usize, class: FailureClass, now: Instant) {
        self.failed(index, class, now);
        self.failed = 0;
    }

    /// It failed. Returns whether every endpoint failed since one worked last.
    pub(crate) fn failed(&mut self, index: usize, class: FailureClass, now: Instant) -> bool {
        let entry = &mut self.entries[index];
        let pause = if class == FailureClass::WrongChain {
            WRONG_CHAIN_PAUSE
        } else {
            let (first, last) = BACKOFF;
            first.saturating_mul(2_u32.saturating_pow(entry.failures)).min(last)
        };
        entry.wrong_chain = class == FailureClass::WrongChain;
        entry.failures = entry.failures.saturating_add(1);
        entry.last_failure = Some(class);
        entry.probes = 0;
        entry.retry_at = Some(now + pause);
        if self.in_use == Some(index) {
            self.in_use = None;
        }
        self.failed = self.failed.saturating_add(1);
        self.failed >= self.entries.len()
    }

    /// Endpoints that are preferred to the one in use, and worth a look.
    pub(crate) fn to_probe(&self, now: Instant) -> Option<usize> {
        let in_use = self.in_use?;
        (0..in_use).find(|index| {
            let entry = &self.entries[*index];
            entry.retry_at.is_none_or(|at| at <= now) && entry.pace.limited_until().is_none_or(|until| until <= now)
        })
    }

    /// A look at a preferred endpoint went well. Returns whether it did so often enough to go back to it.
    pub(crate) fn probed(&mut self, index: usize, best: u64, took: Duration, now: Instant) -> bool {
        self.answered(index, took);
        self.saw(index, best, now);
        let lag = self.lag(index, now);
        let entry = &mut self.entries[index];
        entry.probes = if lag <= LAG_TOLERATED { entry.probes.saturating_add(1) } else { 0 };
        let returns = entry.probes >= PROBES_TO_RETURN;
        if returns {
            (entry.failures, entry.retry_at, entry.wrong_chain) = (0, None, false);
        }
        returns
    }

    /// A look at a preferred endpoint went wrong. The one in use works, so nothing is lost by that.
    pub(crate) fn probe_failed(&mut self, index: usize, class: FailureClass, now: Instant) {
        let failed = self.failed;
        self.failed(index, class, now);
        self.failed = failed;
    }

    fn lag(&self, index: usize, now: Instant) -> u64 {
        let fresh = |entry: &Entry| entry.head.filter(|(_, at)| now.saturating_duration_since(*at) <= HEAD_FRESH);
        let best = self.entries.iter().filter_map(fresh).map(|(block, _)| block).max();
        match (best, fresh(&self.entries[index])) {
            (Some(best), Some((own, _))) => best.saturating_sub(own),
            _ => 0,
        }
    }

    fn score(&self, index: usize, now: Instant) -> f64 {
        let lag = self.lag(index, now);
        let lag = if lag <= LAG_TOLERATED { 0 } else { lag };
        let entry = &self.entries[index];
        entry.score(lag, entry.pace.limited_until().is_some())
    }

    /// All of them, for status and metrics.
    pub(crate) fn health(&self, now: Instant) -> Vec<EndpointHealth> {
        let state = |index: usize, entry: &Entry| {
            let limited = entry.pace.limited_until().is_some();
            match () {
                () if entry.wrong_chain => EndpointState::WrongChain,
                () if limited => EndpointState::RateLimited,
                () if self.in_use == Some(index) => EndpointState::InUse,
                () if entry.failures > 0 => EndpointState::Failing,
                () if self.lag(index, now) > LAG_TOLERATED => EndpointState::Lagging,
                () if entry.worked || entry.probes > 0 => EndpointState::Healthy,
                () => EndpointState::Unknown,
            }
        };
        let health = |(index, entry): (usize, &Entry)| EndpointHealth {
            endpoint: entry.endpoint.clone(),
            state: state(index, entry),
            latency_ms: entry.latency.map(|seconds| seconds * 1e3),
            score: self.score(index, now),
            failures: entry.failures,
            last_failure: entry.last_failure,
            lag_blocks: self.lag(index, now),
            rate_limited_for_ms: entry
                .pace
                .limited_until()
                .map(|until| u64::try_from(until.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX)),
        };
        self.entries.iter().enumerate().map(health).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoints(count: usize) -> Endpoints {
        let names: Vec<String> = (0..count).map(|index| format!("ws://{index}")).collect();
        Endpoints::new(&names, Paces::default())
    }

    fn chosen(endpoints: &Endpoints, now: Instant) -> usize {
        endpoints.choose(now).unwrap().unwrap()
    }

    #[test]
    fn the_order_decides_while_nothing_is_known() {
        let now = Instant::now();
        assert_eq!(endpoints(0).choose(now), None);
        assert_eq!(chosen(&endpoints(3), now), 0);
    }

    #[test]
    fn a_failure_moves_on_and_the_last_of_them_is_worth_saying() {
        let (mut endpoints, now) = (endpoints(2), Instant::now());
        assert!(!endpoints.failed(0, FailureClass::Unreachable, now));
        assert_eq!(chosen(&endpoints, now), 1);
        assert!(endpoints.failed(1, FailureClass::Unreachable, now));
        assert_eq!(endpoints.choose(now), Some(Err(now + BACKOFF.0)));
        assert_eq!(chosen(&endpoints, now + BACKOFF.0), 0);
    }

    #[test]
    fn an_endpoint_on_another_genesis_is_excluded() {
        let (mut endpoints, now) = (endpoints(2), Instant::now());
        endpoints.failed(0, FailureClass::WrongChain, now);
        for second in 0..WRONG_CHAIN_PAUSE.as_secs() {
            assert_eq!(chosen(&endpoints, now + Duration::from_secs(second)), 1);
        }
        // Also later, as long as there is any other.
        assert_eq!(chosen(&endpoints, now + WRONG_CHAIN_PAUSE), 1);
        let health = &endpoints.health(now)[0];
        assert_eq!((health.state, health.score), (EndpointState::WrongChain, 0.0));
    }

    #[test]
    fn the_slower_one_is_used_only_if_the_faster_one_is_preferred_less_clearly() {
        let (mut endpoints, now) = (endpoints(2), Instant::now());
        let ms = Duration::from_millis;
        endpoints.answered(0, ms(110));
        endpoints.answered(1, ms(100));
        assert_eq!(chosen(&endpoints, now), 0, "a difference that small is none");
        for _ in 0..50 {
            endpoints.answered(0, ms(900));
        }
        assert_eq!(chosen(&endpoints, now), 1);
    }

    #[test]
    fn one_that_lags_behind_is_used_last() {
        let (mut endpoints, now) = (endpoints(2), Instant::now());
        endpoints.saw(0, 1_000, now);
        endpoints.saw(1, 1_002, now);
        assert_eq!(chosen(&endpoints, now), 0);
        endpoints.saw(1, 1_100, now);
        assert_eq!(chosen(&endpoints, now), 1);
        assert_eq!(
            (endpoints.health(now)[0].state, endpoints.health(now)[0].lag_blocks),
            (EndpointState::Lagging, 100)
        );
        let later = now + HEAD_FRESH + Duration::from_secs(1);
        assert_eq!(chosen(&endpoints, later), 0, "what was seen long ago says nothing");
    }

    #[test]
    fn the_preferred_one_comes_back_after_three_good_looks_in_a_row() {
        let (mut endpoints, mut now) = (endpoints(2), Instant::now());
        endpoints.failed(0, FailureClass::Timeout, now);
        endpoints.uses(1);
        endpoints.works(1);
        assert_eq!(endpoints.to_probe(now), None, "not before its pause is over");
        now += BACKOFF.1;
        let ms = Duration::from_millis(5);
        assert_eq!(endpoints.to_probe(now), Some(0));
        assert!(!endpoints.probed(0, 7, ms, now) && !endpoints.probed(0, 8, ms, now));
        endpoints.failed(0, FailureClass::Timeout, now);
        assert!(!endpoints.probed(0, 9, ms, now) && !endpoints.probed(0, 10, ms, now));
        assert!(endpoints.probed(0, 11, ms, now));
        assert_eq!(chosen(&endpoints, now), 0);
        endpoints.uses(0);
        assert_eq!(endpoints.to_probe(now), None, "nothing is preferred to it");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_wants_silence_is_left_alone_while_there_is_another() {
        let (endpoints, now) = (endpoints(2), Instant::now());
        endpoints.pace(0).strike(Some(Duration::from_secs(30)));
        assert_eq!(chosen(&endpoints, now), 1);
        let health = &endpoints.health(now)[0];
        assert_eq!((health.state, health.rate_limited_for_ms), (EndpointState::RateLimited, Some(30_000)));
    }

    #[test]
    fn another_list_keeps_what_is_known_of_endpoints_that_stay() {
        let (mut endpoints, now) = (endpoints(2), Instant::now());
        endpoints.answered(1, Duration::from_millis(40));
        endpoints.failed(1, FailureClass::Timeout, now);
        endpoints.set(&["ws://1".to_owned(), "ws://9".to_owned()]);
        let health = endpoints.health(now);
        assert_eq!((health[0].latency_ms, health[0].failures, health[1].latency_ms), (Some(40.0), 0, None));
        assert_eq!(chosen(&endpoints, now), 0);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Failed(usize, u8),
        Works(usize),
        Answered(usize, u16),
        Saw(usize, u16),
        Probed(usize, u16),
        Later(u16),
    }

    fn event() -> impl Strategy<Value = Event> {
        let index = 0..4_usize;
        prop_oneof![
            (index.clone(), 0..8_u8).prop_map(|(index, class)| Event::Failed(index, class)),
            index.clone().prop_map(Event::Works),
            (index.clone(), any::<u16>()).prop_map(|(index, ms)| Event::Answered(index, ms)),
            (index.clone(), any::<u16>()).prop_map(|(index, block)| Event::Saw(index, block)),
            (index, any::<u16>()).prop_map(|(index, block)| Event::Probed(index, block)),
            any::<u16>().prop_map(Event::Later),
        ]
    }

    const CLASSES: [FailureClass; 8] = [
        FailureClass::Unreachable,
        FailureClass::Timeout,
        FailureClass::RateLimited,
        FailureClass::Refused,
        FailureClass::Undecodable,
        FailureClass::Stale,
        FailureClass::FinalityStalled,
        FailureClass::WrongChain,
    ];

    proptest! {
        /// Whatever happens: scores stay between 0 and 1, one that is chosen may be tried, and there always is a time
        /// at which one may be tried, no further away than the longest pause.
        #[test]
        fn there_is_always_an_endpoint_to_try_and_it_is_allowed(events in proptest::collection::vec(event(), 0..100)) {
            let (mut endpoints, mut now) = (endpoints(4), Instant::now());
            for event in events {
                match event {
                    Event::Failed(index, class) => drop(endpoints.failed(index, CLASSES[usize::from(class)], now)),
                    Event::Works(index) => endpoints.works(index),
                    Event::Answered(index, ms) => endpoints.answered(index, Duration::from_millis(ms.into())),
                    Event::Saw(index, block) => endpoints.saw(index, block.into(), now),
                    Event::Probed(index, block) => {
                        endpoints.probed(index, block.into(), Duration::from_millis(1), now);
                    }
                    Event::Later(ms) => now += Duration::from_millis(ms.into()),
                }
                match endpoints.choose(now).unwrap() {
                    Ok(index) => prop_assert!(endpoints.entries[index].retry_at.is_none_or(|at| at <= now)),
                    Err(at) => {
                        prop_assert!(at > now && at <= now + WRONG_CHAIN_PAUSE);
                        prop_assert!(endpoints.choose(at).unwrap().is_ok());
                    }
                }
                for health in endpoints.health(now) {
                    prop_assert!((0.0..=1.0).contains(&health.score), "{}", health.score);
                }
            }
        }
    }
}
