//! Token buckets for each operation and each user of the socket: pure, time comes in.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clock::Moment;
use super::policy::{Operation, Rates};

/// Users that have buckets of their own. A pod has a handful of containers; all others share one.
const USERS_MAX: usize = 64;

/// The user that all others are.
const OTHERS: u32 = u32::MAX;

/// What everybody has left.
#[derive(Debug)]
pub(crate) struct Buckets {
    rates: Rates,
    buckets: BTreeMap<(u32, Operation), Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Time that was saved up; `burst` times the time for one more at the most.
    saved: Duration,
    at: Moment,
}

impl Buckets {
    pub(crate) fn new(rates: Rates) -> Self {
        Self { rates, buckets: BTreeMap::new() }
    }

    /// Takes one token of a user.
    ///
    /// # Errors
    /// There is none: after so long there is one again.
    pub(crate) fn take(&mut self, user: u32, operation: Operation, now: Moment) -> Result<(), Duration> {
        let (price, full) = self.price(operation);
        let known = self.buckets.contains_key(&(user, operation));
        let users = self.buckets.keys().filter(|(_, other)| *other == operation).count();
        let user = if known || users < USERS_MAX { user } else { OTHERS };
        let bucket = self.buckets.entry((user, operation)).or_insert(Bucket { saved: full, at: now });
        bucket.saved = bucket.saved.saturating_add(bucket.at.age_at_least(now)).min(full);
        bucket.at = now;
        match bucket.saved.checked_sub(price) {
            Some(rest) => {
                bucket.saved = rest;
                Ok(())
            }
            None => Err(price.saturating_sub(bucket.saved)),
        }
    }

    /// Gives a token back that bought nothing.
    pub(crate) fn give_back(&mut self, user: u32, operation: Operation) {
        let (price, full) = self.price(operation);
        let own = self.buckets.contains_key(&(user, operation));
        if let Some(bucket) = self.buckets.get_mut(&(if own { user } else { OTHERS }, operation)) {
            bucket.saved = bucket.saved.saturating_add(price).min(full);
        }
    }

    /// What one token costs in time, and what a full bucket holds.
    fn price(&self, operation: Operation) -> (Duration, Duration) {
        let rate = self.rates.of(operation);
        (rate.every(), rate.every().saturating_mul(rate.burst))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::signer::policy::Rate;

    const START: Moment = Moment { boot: Duration::from_secs(1), wall: Duration::from_secs(1) };

    fn buckets() -> Buckets {
        Buckets::new(Rates { weights: Rate { burst: 2, every_s: 10.0 }, ..Rates::default() })
    }

    #[test]
    fn a_burst_and_then_one_at_a_time_for_each_user() {
        let mut buckets = buckets();
        let mut take = |user, seconds| buckets.take(user, Operation::Weights, START.plus(Duration::from_secs(seconds)));
        assert_eq!([take(1, 0), take(1, 0)], [Ok(()), Ok(())]);
        assert_eq!(take(1, 4), Err(Duration::from_secs(6)));
        assert_eq!(take(2, 4), Ok(()));
        assert_eq!([take(1, 10), take(1, 10)], [Ok(()), Err(Duration::from_secs(10))]);
    }

    #[test]
    fn what_is_given_back_is_there_again_and_never_more_than_the_burst() {
        let mut buckets = buckets();
        // The last one has no number of its own by then.
        let users = u32::try_from(USERS_MAX).unwrap();
        for user in 0..=users {
            buckets.give_back(user, Operation::Weights);
            let taken: Vec<bool> = (0..5)
                .map(|_| {
                    let taken = buckets.take(user, Operation::Weights, START).is_ok();
                    buckets.give_back(user, Operation::Weights);
                    taken
                })
                .collect();
            assert_eq!(taken, [true; 5]);
            let left = (0..5).filter(|_| buckets.take(user, Operation::Weights, START).is_ok()).count();
            assert_eq!(left, 2);
        }
    }

    #[test]
    fn a_wall_clock_that_jumps_gives_nothing() {
        let mut buckets = buckets();
        for _ in 0..2 {
            buckets.take(1, Operation::Weights, START).unwrap();
        }
        let jumped = Moment { wall: Duration::from_secs(99_999), ..START };
        assert!(buckets.take(1, Operation::Weights, jumped).is_err());
    }

    #[test]
    fn users_without_number_share_one_bucket() {
        let mut buckets = buckets();
        let taken = (0..10_000).filter(|user| buckets.take(*user, Operation::Weights, START).is_ok()).count();
        assert_eq!((taken, buckets.buckets.len()), (USERS_MAX + 2, USERS_MAX + 1));
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_what_time_adds(steps in prop::collection::vec(0_u64..5_000, 1..200)) {
            let (mut buckets, mut now, mut taken) = (buckets(), 0, 0);
            for step in steps {
                now += step;
                taken += u64::from(buckets.take(1, Operation::Weights, START.plus(Duration::from_millis(now))).is_ok());
                prop_assert!(taken <= 2 + now / 10_000);
            }
        }
    }
}
