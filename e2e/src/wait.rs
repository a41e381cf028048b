//! Waiting for a state of the world, by its level and not by its edges: the question is asked until the answer is yes.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

/// The pause between two questions: short beside a reconcile, long beside a call of kubectl.
const PACE: Duration = Duration::from_millis(500);

/// Asks until the answer is `Ok` and returns it. `Err` means "not yet" and says why; the last reason is part of the failure.
///
/// # Errors
/// When `deadline` passes.
pub fn wait_until<T>(deadline: Duration, what: &str, question: impl FnMut() -> Result<T>) -> Result<T> {
    wait_with(&mut SystemClock(Instant::now()), deadline, what, question)
}

/// Asks for the whole of `period` and fails as soon as the answer is no: for what must not happen.
///
/// # Errors
/// The first `Err` of the question.
pub fn holds_for(period: Duration, what: &str, mut question: impl FnMut() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < period {
        question().map_err(|error| anyhow!("{what} held for {} s only: {error:#}", begun.elapsed().as_secs()))?;
        thread::sleep(PACE);
    }
    Ok(())
}

trait Clock {
    fn elapsed(&self) -> Duration;
    fn sleep(&mut self, pause: Duration);
}

struct SystemClock(Instant);

impl Clock for SystemClock {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&mut self, pause: Duration) {
        thread::sleep(pause);
    }
}

fn wait_with<T>(
    clock: &mut impl Clock,
    deadline: Duration,
    what: &str,
    mut question: impl FnMut() -> Result<T>,
) -> Result<T> {
    loop {
        let reason = match question() {
            Ok(answer) => return Ok(answer),
            Err(reason) => reason,
        };
        if clock.elapsed() >= deadline {
            return Err(anyhow!("waited {} s for {what}. Last seen: {reason:#}", deadline.as_secs()));
        }
        clock.sleep(PACE);
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[derive(Default)]
    struct PaintedClock(Duration);

    impl Clock for PaintedClock {
        fn elapsed(&self) -> Duration {
            self.0
        }

        fn sleep(&mut self, pause: Duration) {
            self.0 += pause;
        }
    }

    #[test]
    fn the_first_yes_is_the_answer() {
        let mut asked = 0;
        let answer = wait_with(&mut PaintedClock::default(), Duration::from_mins(1), "three", || {
            asked += 1;
            if asked == 3 { Ok(asked) } else { bail!("only {asked}") }
        });
        assert_eq!(answer.unwrap(), 3);
    }

    #[test]
    fn a_timeout_says_what_was_waited_for_and_what_was_seen_last() {
        let mut asked = 0;
        let answer: Result<()> =
            wait_with(&mut PaintedClock::default(), Duration::from_secs(10), "the pod to run", || {
                asked += 1;
                bail!("phase Pending, asked {asked} times")
            });
        let error = answer.unwrap_err().to_string();
        assert_eq!(error, "waited 10 s for the pod to run. Last seen: phase Pending, asked 21 times");
    }

    #[test]
    fn a_deadline_of_zero_still_asks_once() {
        assert!(wait_with(&mut PaintedClock::default(), Duration::ZERO, "now", || Ok(())).is_ok());
    }
}
