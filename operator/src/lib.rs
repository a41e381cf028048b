//! The Kubernetes operator of Mycelium
