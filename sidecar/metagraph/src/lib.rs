//! The chain: client, queries, extrinsics, keys
