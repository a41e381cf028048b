//! The replicated state: pure and deterministic
