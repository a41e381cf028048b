//! The pallets that are the chain's own; the others come from FRAME.
#![cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "a pallet's storage items are used all over it, a hundred of them")
)]

pub mod admin_utils;
pub mod commitments;
pub mod crowdloan;
pub mod drand;
pub mod mev_shield;
pub mod proxies;
pub mod subtensor;
pub mod swap;
