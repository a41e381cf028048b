//! Every exception class, and which failure becomes which.

use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::{create_exception, intern};
use sidecar_metagraph::ChainError as ChainFailure;
use sidecar_util::ValueError;

use crate::chain::CallFailure;
use crate::sidecar::SidecarFailure;

// `mycelium.errors` is where users find them.
create_exception!(mycelium.errors, MyceliumError, PyException, "Base of all errors of this package.");
create_exception!(
    mycelium.errors,
    ChainError,
    MyceliumError,
    "The chain refused a call, or its answer cannot be read."
);
create_exception!(
    mycelium.errors,
    ChainConnectionError,
    ChainError,
    "The chain's endpoint cannot be reached, or did not answer in time. Trying again later may help."
);
create_exception!(mycelium.errors, SubnetNotFoundError, ChainError, "The chain has no subnet with that netuid.");
create_exception!(
    mycelium.errors,
    SidecarError,
    MyceliumError,
    "The sidecar answered with a problem. `status` is the HTTP status, `kind` the stable name of the problem."
);
create_exception!(
    mycelium.errors,
    SidecarUnavailableError,
    SidecarError,
    "The sidecar's socket does not answer. Sidecars come back after a restart: trying again later helps."
);

/// Attributes that every instance of [`SidecarError`] has, also where Python code makes one.
pub(crate) fn add_attributes(py: Python<'_>) -> PyResult<()> {
    let class = py.get_type::<SidecarError>();
    class.setattr(intern!(py, "status"), py.None())?;
    class.setattr(intern!(py, "kind"), py.None())
}

pub(crate) fn bad_value(error: &ValueError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

pub(crate) fn of_call(failure: CallFailure) -> PyErr {
    let text = failure.to_string();
    match failure {
        CallFailure::Chain(ChainFailure::Endpoint { .. }) | CallFailure::Parameters(_) => PyValueError::new_err(text),
        CallFailure::Chain(error) if error.is_connection_lost() => ChainConnectionError::new_err(error.chain()),
        CallFailure::Chain(error) => ChainError::new_err(error.chain()),
        CallFailure::Lost { .. } => ChainConnectionError::new_err(text),
        CallFailure::NoSubnet { .. } => SubnetNotFoundError::new_err(text),
        CallFailure::Refused { .. } | CallFailure::NoBlock { .. } | CallFailure::Shape { .. } => {
            ChainError::new_err(text)
        }
    }
}

pub(crate) fn of_sidecar(py: Python<'_>, failure: &SidecarFailure) -> PyErr {
    let text = failure.to_string();
    match failure {
        SidecarFailure::Unreachable { .. } | SidecarFailure::Broken { .. } | SidecarFailure::Timeout { .. } => {
            SidecarUnavailableError::new_err(text)
        }
        SidecarFailure::Body { .. } => SidecarError::new_err(text),
        SidecarFailure::Problem { status, kind, .. } => {
            let error = SidecarError::new_err(text);
            let instance = error.value(py);
            let set = instance
                .setattr(intern!(py, "status"), status)
                .and_then(|()| instance.setattr(intern!(py, "kind"), kind.as_deref()));
            set.err().unwrap_or(error)
        }
    }
}
