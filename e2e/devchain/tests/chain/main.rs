//! The real binary, driven as clients drive it: JSON-RPC over sockets, signed extrinsics, signals.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

mod bad_input;
mod basics;
mod faults;
mod harness;
mod operation;
