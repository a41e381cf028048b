//! Local clusters, end-to-end suites and benches of Mycelium
