//! The sidecar that runs beside every validator and miner
