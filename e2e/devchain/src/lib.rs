//! A development chain on which unmodified Bittensor clients work

pub mod extensions;
pub mod pallets;
pub mod runtime;
