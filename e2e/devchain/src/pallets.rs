//! The pallets that are the chain's own; the others come from FRAME.

pub mod admin_utils;
pub mod subtensor;
