//! Submissions against the development chain as a process of its own: with its faults, and with our end killed at every step.
//!
//! The program is found by `MYCELIUM_DEVCHAIN`, or else where cargo puts it beside this test.
#![expect(clippy::unwrap_used, clippy::panic, reason = "clippy takes the helpers of tests for production code")]

#[path = "extrinsics/lab.rs"]
mod lab;

#[path = "extrinsics/calls.rs"]
mod calls;
#[path = "extrinsics/faults.rs"]
mod faults;
#[path = "extrinsics/restart.rs"]
mod restart;
