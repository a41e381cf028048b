//! What a person sees while the program works: one line a step, what it does, how long it has done so and how far it is.
//!
//! On a terminal the line of the running step is rewritten; anywhere else a line is added now and then, so that a log stays
//! readable and a silent minute never looks like a hang.

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

/// How often a terminal's line is rewritten, and how often a log gets another line.
const TERMINAL_PACE: Duration = Duration::from_millis(250);
const LOG_PACE: Duration = Duration::from_secs(20);

/// The steps of one run: what they were, how long they took, whether they changed anything.
pub struct Progress {
    started: Instant,
    terminal: bool,
    steps: Mutex<Vec<Finished>>,
}

/// One step that came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// What was done, as the line named it.
    pub name: String,
    /// How long it took.
    pub took: Duration,
    /// How it ended, and whether that changed anything.
    pub outcome: Outcome,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All was as it should be; the text says what was found.
    Unchanged(String),
    /// Something was made, started or repaired; the text says what.
    Changed(String),
}

/// The running step; work reports through it.
pub struct Step {
    shared: Arc<Mutex<StepState>>,
}

#[derive(Default)]
struct StepState {
    message: String,
    outcome: Option<Outcome>,
}

impl Step {
    /// Says how far the work is.
    pub fn say(&self, message: impl Into<String>) {
        self.state().message = message.into();
    }

    /// The step found everything as it should be.
    pub fn unchanged(&self, text: impl Into<String>) {
        self.state().outcome = Some(Outcome::Unchanged(text.into()));
    }

    /// The step changed something.
    pub fn changed(&self, text: impl Into<String>) {
        self.state().outcome = Some(Outcome::Changed(text.into()));
    }

    fn state(&self) -> MutexGuard<'_, StepState> {
        locked(&self.shared)
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// A new run; its clock starts now.
    pub fn new() -> Self {
        Self { started: Instant::now(), terminal: std::io::stderr().is_terminal(), steps: Mutex::default() }
    }

    /// Runs one step and shows it until it ends. A step that says nothing about its outcome has changed something.
    ///
    /// # Errors
    /// Those of the work.
    pub fn step<T>(&self, name: &str, work: impl FnOnce(&Step) -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let step = Step { shared: Arc::default() };
        let (finished, ticks) = mpsc::channel::<()>();
        let painter = self.painter(name, begun, Arc::clone(&step.shared), ticks);
        let result = work(&step);
        drop(finished);
        // The painter only formats and prints; if it died, the work's result still counts.
        let _ = painter.join();
        let took = begun.elapsed();
        let outcome = step.state().outcome.take().unwrap_or_else(|| Outcome::Changed("done".to_owned()));
        match &result {
            Ok(_) => {
                self.print(&line(self.started.elapsed(), name, took, &describe(&outcome)));
                locked(&self.steps).push(Finished { name: name.to_owned(), took, outcome });
            }
            Err(_) => self.print(&line(self.started.elapsed(), name, took, "failed")),
        }
        result
    }

    /// A line of its own between the steps.
    pub fn note(&self, text: &str) {
        self.print(text);
    }

    /// The steps that changed something.
    pub fn changes(&self) -> Vec<Finished> {
        let steps = locked(&self.steps);
        steps.iter().filter(|step| matches!(step.outcome, Outcome::Changed(_))).cloned().collect()
    }

    /// The times of all steps, one a line, and their sum.
    pub fn summary(&self) -> String {
        let steps = locked(&self.steps);
        let mut text = String::from("Times:\n");
        for step in steps.iter() {
            let _ = writeln!(text, "  {:>8}  {:<28} {}", seconds(step.took), step.name, describe(&step.outcome));
        }
        let _ = writeln!(text, "  {:>8}  in all", seconds(self.started.elapsed()));
        text
    }

    fn painter(
        &self,
        name: &str,
        begun: Instant,
        state: Arc<Mutex<StepState>>,
        ticks: mpsc::Receiver<()>,
    ) -> thread::JoinHandle<()> {
        let (name, terminal, started) = (name.to_owned(), self.terminal, self.started);
        thread::spawn(move || {
            let pace = if terminal { TERMINAL_PACE } else { LOG_PACE };
            while ticks.recv_timeout(pace) == Err(mpsc::RecvTimeoutError::Timeout) {
                let message = locked(&state).message.clone();
                let text = line(started.elapsed(), &name, begun.elapsed(), &message);
                let _ = if terminal {
                    write!(std::io::stderr(), "\r\x1b[2K{}", text.chars().take(150).collect::<String>())
                } else {
                    writeln!(std::io::stderr(), "{text}")
                };
            }
        })
    }

    fn print(&self, text: &str) {
        let start = if self.terminal { "\r\x1b[2K" } else { "" };
        // Whoever closed the terminal does not want the line any more, but wants the cluster.
        let _ = writeln!(std::io::stderr(), "{start}{text}");
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking step left behind is still the best that is known.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Unchanged(text) => format!("unchanged: {text}"),
        Outcome::Changed(text) => text.clone(),
    }
}

fn line(since_start: Duration, name: &str, took: Duration, message: &str) -> String {
    let clock = since_start.as_secs();
    let colon = if message.is_empty() { "" } else { ": " };
    format!("[{:02}:{:02}] {name}{colon}{message} ({})", clock / 60, clock % 60, seconds(took))
}

/// A duration as people read it: tenths below a minute, then minutes and seconds.
pub fn seconds(duration: Duration) -> String {
    if duration < Duration::from_mins(1) {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} m {:02} s", duration.as_secs() / 60, duration.as_secs() % 60)
    }
}

/// A number of bytes as people read it, in units of a million.
pub fn megabytes(bytes: u64) -> String {
    let tenths = bytes.div_ceil(100_000);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_what_how_far_and_how_long() {
        let text = line(Duration::from_secs(75), "programs", Duration::from_secs(63), "12 of 30 packages");
        assert_eq!(text, "[01:15] programs: 12 of 30 packages (1 m 03 s)");
        assert_eq!(line(Duration::ZERO, "etcd", Duration::from_millis(140), ""), "[00:00] etcd (0.1 s)");
    }

    #[test]
    fn only_steps_that_changed_something_count_as_changes() {
        let progress = Progress::new();
        progress
            .step("one", |step| {
                step.unchanged("running");
                Ok(())
            })
            .unwrap();
        progress
            .step("two", |step| {
                step.changed("started");
                Ok(())
            })
            .unwrap();
        progress.step("three", |_| Ok(())).unwrap();
        progress.step("four", |_| anyhow::Result::<()>::Err(anyhow::anyhow!("no"))).unwrap_err();
        let names: Vec<_> = progress.changes().into_iter().map(|step| step.name).collect();
        assert_eq!(names, ["two", "three"]);
        assert!(progress.summary().contains("unchanged: running"), "{}", progress.summary());
    }

    #[test]
    fn sizes_are_rounded_up_to_tenths() {
        assert_eq!(megabytes(1), "0.1 MB");
        assert_eq!(megabytes(29_940_000), "30.0 MB");
    }
}
