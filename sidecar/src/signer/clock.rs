//! Time that neither a pause of the process nor a jump of the wall clock can fool.
//!
//! A lease is only as good as the clock it is measured on. `Instant` stands still while the machine sleeps, the wall clock
//! jumps, and a paused virtual machine sees only the wall clock jump once it is set again. So a [`Moment`] is both the
//! time since boot, sleep included, and the wall clock; who holds a lease counts the longer of the two, who waits for one
//! to end counts the time since boot alone. Either way a disagreement of the clocks costs time, never safety.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::ClockId;

/// A point in time of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Since the machine booted, with the time it slept.
    pub(crate) boot: Duration,
    /// Since 1970, as the wall clock says.
    pub(crate) wall: Duration,
}

impl Moment {
    /// How old something of `self` is at the most. A clock that went back says that it is as old as can be: a process
    /// that was moved to another machine has another time of boot.
    pub(crate) fn age_at_most(self, now: Self) -> Duration {
        let Some(boot) = now.boot.checked_sub(self.boot) else { return Duration::MAX };
        boot.max(now.wall.saturating_sub(self.wall))
    }

    /// How long ago `self` was at the least.
    pub(crate) fn age_at_least(self, now: Self) -> Duration {
        now.boot.saturating_sub(self.boot)
    }

    /// Later by so much on both clocks.
    #[cfg(test)]
    pub(crate) fn plus(self, time: Duration) -> Self {
        Self { boot: self.boot + time, wall: self.wall + time }
    }
}

/// Tells the time.
pub(crate) trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Moment;
}

/// The machine's clocks.
#[derive(Debug)]
pub(crate) struct MachineClock;

impl Clock for MachineClock {
    fn now(&self) -> Moment {
        // The standard library has no way to this clock.
        let boot = rustix::time::clock_gettime(ClockId::Boottime);
        let boot = Duration::try_from(boot).expect("no machine boots after now");
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { boot, wall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(boot: u64, wall: u64) -> Moment {
        Moment { boot: Duration::from_secs(boot), wall: Duration::from_secs(wall) }
    }

    #[test]
    fn the_clock_that_says_later_counts_for_who_holds_and_boot_alone_for_who_waits() {
        let since = at(10, 1000);
        for (now, at_most, at_least) in [
            (at(15, 1005), 5, 5),
            // Set forward, or a pause that only the wall clock saw.
            (at(15, 1060), 60, 5),
            // Set back.
            (at(15, 500), 5, 5),
        ] {
            assert_eq!(since.age_at_most(now), Duration::from_secs(at_most));
            assert_eq!(since.age_at_least(now), Duration::from_secs(at_least));
        }
        assert_eq!(since.age_at_most(at(9, 1001)), Duration::MAX);
        assert_eq!(since.age_at_least(at(9, 1001)), Duration::ZERO);
    }

    #[test]
    fn the_machine_tells_the_time_since_boot() {
        let uptime = || {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            Duration::from_secs_f64(text.split_whitespace().next().unwrap().parse().unwrap())
        };
        let hundredth = Duration::from_millis(10);
        let (before, now, after) = (uptime(), MachineClock.now(), uptime());
        assert!((before..=after + hundredth).contains(&now.boot), "{before:?} {now:?} {after:?}");
    }
}
