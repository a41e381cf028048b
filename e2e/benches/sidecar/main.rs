//! Measures the chain side of the sidecar against the SDKs that it replaces: the same chain, the same subnet, one run.
//!
//! The SDKs are the packages of the conformance run, timed in a process of their own by `benches/sdk.py`, each call after
//! its connection is warm; ours are timed the same way. The programs are found by `MYCELIUM_DEVCHAIN` and
//! `MYCELIUM_SIDECAR`, as `make bench` sets them.
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on stops and says so")]

mod client;
mod load;
mod peer;
mod process;

use std::process::ExitCode;

use e2e::bench::{Bench, run};

fn main() -> ExitCode {
    run(vec![
        Bench::new(&client::NAMES, client::metagraph),
        Bench::new(&peer::NAMES, peer::verification),
        Bench::new(&load::NAMES, load::verify),
        Bench::new(&process::MEMORY, process::memory),
        Bench::new(&process::IDLE, process::idle),
    ])
}
