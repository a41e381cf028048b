//! The native core of the Python package `mycelium`: conversions and connections, no logic of its own.
//!
//! `chain` speaks to a chain through `sidecar_metagraph`, `sidecar` to the sidecar of this pod through its unix socket;
//! `convert` turns neurons into what Python shows, `errors` holds every exception class, and `runtime` lets Python threads
//! wait without holding the interpreter.

mod chain;
mod convert;
mod errors;
mod runtime;
mod sidecar;

/// `mycelium._native`: private, `mycelium` is the face of it.
#[pyo3::pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::chain::Connection;
    #[pymodule_export]
    use crate::errors::{
        ChainConnectionError, ChainError, MyceliumError, SidecarError, SidecarUnavailableError, SubnetNotFoundError,
    };
    #[pymodule_export]
    use crate::sidecar::SidecarClient;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        crate::errors::add_attributes(module.py())
    }
}
