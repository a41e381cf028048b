//! How messages reach another member: a trait, because this crate does no networking.

use std::time::Duration;

use async_trait::async_trait;
use sidecar_util::config::Member;

use crate::wire::{PeerReply, PeerRequest};

/// Carries a request to a member and brings the reply back.
///
/// The address is a name and may lead somewhere else after a failure: look it up again then. Connect to nobody but the
/// member's hotkey where the transport can tell.
///
/// # Cancel safety
/// A call may be dropped at any time; the request may have arrived by then.
#[async_trait]
pub trait PeerTransport: Send + Sync + 'static {
    /// Calls a member. Fails within `timeout`.
    async fn call(&self, peer: &Member, request: PeerRequest, timeout: Duration) -> Result<PeerReply, TransportError>;
}

/// Why a call brought no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection could be made, or it broke.
    #[error("no connection to {address}: {cause}")]
    Unreachable {
        /// Address that was tried.
        address: String,
        /// What the system said.
        cause: String,
    },
    /// Nothing came back in time.
    #[error("no reply from {address} within {} ms", timeout.as_millis())]
    Timeout {
        /// Address that was asked.
        address: String,
        /// How long the reply was waited for.
        timeout: Duration,
    },
    /// What came back could not be read.
    #[error("unreadable reply from {address}: {cause}")]
    Malformed {
        /// Address that replied.
        address: String,
        /// What was wrong.
        cause: String,
    },
}
