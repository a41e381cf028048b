//! A development chain on which unmodified Bittensor clients work
