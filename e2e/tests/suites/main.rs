//! The whole of Mycelium, as a user drives it: through `kubectl` alone, on the cluster that `make up` left running.
//!
//! Tests take things away from each other (the chain, the leader), so they run one after the other, and each leaves the
//! quickstart as it found it.

mod bad_input;
mod chain;
mod deletion;
mod group;
mod install;
mod python;
mod repair;
mod signing;
mod world;
