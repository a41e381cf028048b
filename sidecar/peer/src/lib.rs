//! Validator registry, stake verification and request signing
