//! How often each object's reconcile has failed in a row: waits grow with it.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

/// First and longest wait after a failure.
const WAIT_FIRST: Duration = Duration::from_millis(500);
const WAIT_LAST: Duration = Duration::from_mins(1);

/// Failures in a row, by object.
#[derive(Default)]
pub(crate) struct Retries(Mutex<HashMap<String, u32>>);

impl Retries {
    /// Counts a failure and says how long to wait: twice as long after each.
    pub(crate) fn failed(&self, object: &str) -> Duration {
        let mut failures = self.0.lock();
        let count = failures.entry(object.to_owned()).or_default();
        *count = count.saturating_add(1);
        WAIT_FIRST.saturating_mul(1 << (*count - 1).min(10)).min(WAIT_LAST)
    }

    /// Forgets the failures of an object.
    pub(crate) fn succeeded(&self, object: &str) {
        self.0.lock().remove(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_start_anew_after_a_success() {
        let retries = Retries::default();
        assert_eq!(retries.failed("a"), WAIT_FIRST);
        assert_eq!(retries.failed("a"), WAIT_FIRST * 2);
        assert_eq!(retries.failed("b"), WAIT_FIRST);
        for _ in 0..100 {
            assert!(retries.failed("a") <= WAIT_LAST);
        }
        retries.succeeded("a");
        assert_eq!(retries.failed("a"), WAIT_FIRST);
    }
}
