//! Weighted Raft on openraft
