//! What can go wrong in a reconcile and is tried again.

/// A reconcile that did not come to its end. What a user must mend is no error but a condition.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server could not be asked, or refused.
    #[error("{operation}")]
    Api {
        /// What was tried, such as "apply Pod default/validator-a".
        operation: String,
        #[source]
        source: kube::Error,
    },
    /// An object of ours cannot be written as JSON.
    #[error("cannot serialize {what}")]
    Serialize {
        /// What it was.
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// Word for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Api { .. } => "api",
            Self::Serialize { .. } => "serialize",
        }
    }
}

/// Adds what was tried to an answer of the API server.
pub(crate) trait ApiContext<T> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> ApiContext<T> for Result<T, kube::Error> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Api { operation: operation(), source })
    }
}

/// The whole chain of causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
