//! Measurements against bars: what one figure is, and the report that all benches write into.
//!
//! A bench is a program that measures what users do and names its figures as they are promised. [`run`] gives every
//! bench the same command line: `--report PATH` (several times) names files that the results are merged into, results of
//! other benches stay there; `--only PREFIX` runs a part. A missed bar is an error.

pub mod chain;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use serde_json::{Value, json};

#[derive(Parser)]
struct Args {
    /// File that the results are merged into.
    #[arg(long)]
    report: Vec<PathBuf>,
    /// Beginning of the names of what is measured; everything when empty.
    #[arg(long, default_value = "")]
    only: String,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Which side of a bar is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Good {
    /// At most the bar: times and sizes.
    Below,
    /// At least the bar: rates and ratios.
    Above,
}

/// What a figure is compared with, measured in the same run.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// Name and version of the program that it was measured of.
    pub name: &'static str,
    /// Its figure, in the unit of ours.
    pub value: f64,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Name as it is promised.
    pub name: &'static str,
    /// Unit of `ours` and of the baseline.
    pub unit: &'static str,
    /// Our figure.
    pub ours: f64,
    /// What it is compared with.
    pub baseline: Option<Baseline>,
    /// What is promised: of the ratio to the baseline where there is one, else of our figure. `None` for what stands beside.
    pub bar: Option<(Good, f64)>,
}

impl Measured {
    /// How many times better ours is than the baseline, where both are times.
    pub fn ratio(&self) -> Option<f64> {
        self.baseline.as_ref().map(|baseline| baseline.value / self.ours)
    }

    /// Whether the bar is met.
    pub fn passes(&self) -> bool {
        let judged = self.ratio().unwrap_or(self.ours);
        match self.bar {
            Some((Good::Below, bar)) => judged <= bar,
            Some((Good::Above, bar)) => judged >= bar,
            None => true,
        }
    }

    fn json(&self) -> Value {
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        json!({
            "name": self.name,
            "unit": self.unit,
            "ours": rounded(self.ours),
            "baseline": self.baseline.as_ref().map(|baseline| rounded(baseline.value)),
            "baseline_name": self.baseline.as_ref().map(|baseline| baseline.name),
            "ratio": self.ratio().map(rounded),
            "bar": self.bar.map(|(_, bar)| bar),
            "pass": self.passes(),
        })
    }
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:<34} {:>10.2} {:<4}", self.name, self.ours, self.unit)?;
        if let (Some(baseline), Some(ratio)) = (&self.baseline, self.ratio()) {
            write!(f, " {ratio:.1} times as good as {:.2} of {}", baseline.value, baseline.name)?;
        }
        if let Some((_, bar)) = self.bar {
            write!(f, " bar {bar} {}", if self.passes() { "ok" } else { "MISSED" })?;
        }
        Ok(())
    }
}

/// One measurement, which may give several figures: the names of all of them, and how they are measured.
pub struct Bench<'a> {
    /// Names of the figures; it is run when one of them is asked for.
    pub names: &'a [&'static str],
    /// Measures.
    pub run: Box<dyn FnOnce() -> anyhow::Result<Vec<Measured>> + 'a>,
}

impl<'a> Bench<'a> {
    /// A measurement of these figures.
    pub fn new(names: &'a [&'static str], run: impl FnOnce() -> anyhow::Result<Vec<Measured>> + 'a) -> Self {
        Self { names, run: Box::new(run) }
    }
}

/// Runs what the command line asks for, prints it and writes the report.
#[expect(clippy::print_stdout, reason = "figures are what a bench is for")]
pub fn run(benches: Vec<Bench<'_>>) -> ExitCode {
    let args = Args::parse();
    let mut results: Vec<Measured> = Vec::new();
    let mut failed = false;
    for bench in benches {
        if !bench.names.iter().any(|name| name.starts_with(&args.only)) {
            continue;
        }
        match (bench.run)() {
            Ok(measured) => {
                for measured in measured.into_iter().filter(|measured| measured.name.starts_with(&args.only)) {
                    println!("{measured}");
                    results.push(measured);
                }
            }
            Err(error) => {
                failed = true;
                println!("{}: not measured: {error:#}", bench.names.join(", "));
            }
        }
    }
    for path in &args.report {
        if let Err(error) = merge(path, &results) {
            failed = true;
            println!("report `{}`: {error:#}", path.display());
        }
    }
    if !failed && results.iter().all(Measured::passes) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Puts the results into a report that others write to as well.
fn merge(path: &Path, results: &[Measured]) -> anyhow::Result<()> {
    let known = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Vec<Value>>(&bytes).ok());
    let by_name = |value: Value| (value["name"].as_str().unwrap_or_default().to_owned(), value);
    let mut all: BTreeMap<String, Value> = known.unwrap_or_default().into_iter().map(by_name).collect();
    all.extend(results.iter().map(|measured| (measured.name.to_owned(), measured.json())));
    let all: Vec<Value> = all.into_values().collect();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).context("making its folder")?;
    }
    std::fs::write(path, format!("{}\n", serde_json::to_string_pretty(&all)?)).context("writing it")
}

/// The value in the middle.
///
/// # Panics
/// There is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(ours: f64, baseline: Option<f64>, bar: Option<(Good, f64)>) -> Measured {
        let baseline = baseline.map(|value| Baseline { name: "other 1.0", value });
        Measured { name: "a_ms", unit: "ms", ours, baseline, bar }
    }

    #[test]
    fn a_bar_is_of_the_ratio_where_there_is_a_baseline() {
        assert!(measured(2.0, Some(600.0), Some((Good::Above, 250.0))).passes());
        assert!(!measured(3.0, Some(600.0), Some((Good::Above, 250.0))).passes());
        assert!(measured(3.0, None, Some((Good::Below, 3.0))).passes());
        assert!(!measured(3.1, None, Some((Good::Below, 3.0))).passes());
        assert!(measured(1e9, None, None).passes());
    }

    #[test]
    fn a_report_keeps_what_other_benches_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bench/report.json");
        merge(&path, &[measured(1.0, None, None), Measured { name: "b_ms", ..measured(2.0, None, None) }]).unwrap();
        merge(&path, &[measured(4.0, Some(8.0), Some((Good::Above, 2.0)))]).unwrap();
        let report: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let expected = json!([
            {"name": "a_ms", "unit": "ms", "ours": 4.0, "baseline": 8.0, "baseline_name": "other 1.0", "ratio": 2.0, "bar": 2.0, "pass": true},
            {"name": "b_ms", "unit": "ms", "ours": 2.0, "baseline": null, "baseline_name": null, "ratio": null, "bar": null, "pass": true},
        ]);
        assert_eq!(report, expected);
    }
}
