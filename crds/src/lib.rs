//! Mycelium's Kubernetes resources: Network, Validator, Miner, HotkeyReservation
