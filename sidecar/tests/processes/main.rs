//! Real sidecars beside a real development chain, on loopback, with network files written by hand.
//!
//! The chain's program is found by `MYCELIUM_DEVCHAIN`, or else where cargo puts it beside this test.
#![expect(clippy::unwrap_used, clippy::panic, reason = "clippy takes the helpers of tests for production code")]

mod axon;
mod chain;
mod cli;
mod group;
mod pod;
mod reads;
mod rpc;
mod signer;
mod single;
mod takeover;
mod tls;
mod traces;
mod wire;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use sidecar_metagraph::keys::HotkeyPair;

/// Long enough for a loaded machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_mins(2);

/// The key of one test validator.
fn pair(id: u8) -> HotkeyPair {
    HotkeyPair::from_seed(&seed(id)).unwrap()
}

fn seed(id: u8) -> [u8; 32] {
    [id; 32]
}

/// An address that was free a moment ago. Restarted processes have to come back under theirs, so port 0 does not do.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Asks until there is an answer.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "never {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
