//! What can go wrong between this process and the chain.

use std::time::Duration;

use sidecar_util::{BlockHash, NetUid};

/// Cause of a [`ChainError`], kept as it came from the client library.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// One call to the chain that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The endpoint is not a WebSocket address.
    #[error("chain endpoint: `{endpoint}` {expected}")]
    Endpoint {
        /// The address as it was configured.
        endpoint: String,
        /// What was wrong with it, as the end of a sentence.
        expected: String,
    },
    /// No connection could be made.
    #[error("could not connect to `{endpoint}`")]
    Connect {
        /// The address.
        endpoint: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The connection broke while a call was under way, or a subscription ended.
    #[error("connection lost during {operation}")]
    Disconnected {
        /// The call.
        operation: &'static str,
    },
    /// No answer came within the deadline.
    #[error("no answer to {operation} within {} s", after.as_secs_f64())]
    Timeout {
        /// The call.
        operation: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The node answered with an error.
    #[error("{operation} was refused by the node")]
    Rpc {
        /// The call.
        operation: &'static str,
        /// The node's answer.
        #[source]
        source: Cause,
    },
    /// The endpoint was asked too often.
    #[error("too many requests for {operation}: {said}; use an endpoint of your own, or wait")]
    RateLimited {
        /// The call.
        operation: &'static str,
        /// What the endpoint said.
        said: String,
        /// How long it asked to wait, if it did.
        retry_after: Option<Duration>,
    },
    /// The node no longer has the state of that block.
    #[error(
        "the node no longer has the state for {operation} ({said}): configure an archive endpoint \
         (`spec.chain.archiveEndpoints` of the Network, `archive_endpoints` in its file), or ask for a newer block"
    )]
    StateDiscarded {
        /// The call.
        operation: &'static str,
        /// What the node said.
        said: String,
    },
    /// The chain has no such block.
    #[error("the chain has no block {block}: it is not made yet, or this node is not there yet")]
    NoBlock {
        /// The number or the hash that was asked for.
        block: String,
    },
    /// This runtime does not have what was asked for.
    #[error(
        "the chain's runtime (spec version {spec_version}) has no {what}: ask for a block of a runtime that has it"
    )]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Version of the runtime in force.
        spec_version: u32,
    },
    /// No endpoint is connected.
    #[error("no chain endpoint is connected: {problem}")]
    NotConnected {
        /// Why.
        problem: String,
    },
    /// The answer does not have the shape that the chain's metadata or the subnet promises.
    #[error("could not decode {what}")]
    Decode {
        /// What was decoded.
        what: &'static str,
        /// Where it did not fit.
        #[source]
        source: Cause,
    },
}

impl ChainError {
    /// The same under the name that the caller has for the call.
    pub(crate) fn during(self, operation: &'static str) -> Self {
        match self {
            Self::Timeout { after, .. } => Self::Timeout { operation, after },
            Self::RateLimited { said, retry_after, .. } => Self::RateLimited { operation, said, retry_after },
            other => other,
        }
    }

    /// Whether the connection is of no further use.
    pub fn is_connection_lost(&self) -> bool {
        matches!(self, Self::Endpoint { .. } | Self::Connect { .. } | Self::Disconnected { .. } | Self::Timeout { .. })
    }

    /// Whether the endpoint asks for fewer requests.
    pub fn is_rate_limited(&self) -> bool {
        matches!(self, Self::RateLimited { .. })
    }

    /// Whether an archive node could answer.
    pub fn is_state_discarded(&self) -> bool {
        matches!(self, Self::StateDiscarded { .. })
    }

    /// Whether the same call may succeed later or elsewhere.
    pub fn is_retryable(&self) -> bool {
        self.is_connection_lost() || self.is_rate_limited() || matches!(self, Self::NotConnected { .. })
    }

    /// Whether the chain answered with something this version cannot read.
    pub fn is_decode(&self) -> bool {
        matches!(self, Self::Decode { .. })
    }

    /// The error and all its causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Client libraries repeat the cause in their own message.
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        text
    }
}

/// Why the view of the chain is not current. The last good metagraph stays available meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChainProblem {
    /// The first connection is still being made.
    Connecting,
    /// No endpoint was configured.
    NoEndpoint,
    /// No endpoint could be reached; this is what the last one said.
    EndpointDown {
        /// The endpoint tried last.
        endpoint: String,
        /// What happened there.
        error: String,
    },
    /// The endpoint serves another chain.
    GenesisMismatch {
        /// The endpoint.
        endpoint: String,
        /// The genesis hash that was configured.
        expected: BlockHash,
        /// The genesis hash of the chain found there.
        found: BlockHash,
    },
    /// The chain has no such subnet.
    SubnetMissing {
        /// The subnet.
        netuid: NetUid,
    },
    /// The node refused a call or could not serve it.
    Refused {
        /// What it said.
        error: String,
    },
    /// An answer could not be read.
    Decode {
        /// What and where.
        error: String,
    },
    /// Every endpoint that works wants fewer requests.
    RateLimited {
        /// The endpoint asked last.
        endpoint: String,
    },
    /// Blocks come, but none of them becomes final.
    FinalityStalled {
        /// The last final block.
        block: u64,
    },
    /// The node answers, but brought no new block for three block times.
    Stale {
        /// The newest block seen.
        block: u64,
    },
}

impl ChainProblem {
    /// The problem as one word in `CamelCase`, from a closed set: reason of a Kubernetes condition, label of a metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connecting => "Connecting",
            Self::NoEndpoint => "NoEndpoint",
            Self::EndpointDown { .. } => "EndpointDown",
            Self::GenesisMismatch { .. } => "GenesisMismatch",
            Self::SubnetMissing { .. } => "SubnetMissing",
            Self::Refused { .. } => "RequestRefused",
            Self::Decode { .. } => "DecodeFailed",
            Self::RateLimited { .. } => "RateLimited",
            Self::FinalityStalled { .. } => "FinalityStalled",
            Self::Stale { .. } => "NoNewBlock",
        }
    }

    /// Whether the configuration has to change before this can go away.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::NoEndpoint | Self::GenesisMismatch { .. } | Self::SubnetMissing { .. })
    }

    /// The problem that a failed call makes.
    pub(crate) fn of(endpoint: &str, error: &ChainError) -> Self {
        match error {
            ChainError::Decode { .. } => Self::Decode { error: error.chain() },
            ChainError::Rpc { .. }
            | ChainError::StateDiscarded { .. }
            | ChainError::NoBlock { .. }
            | ChainError::Unsupported { .. } => Self::Refused { error: error.chain() },
            ChainError::RateLimited { .. } => Self::RateLimited { endpoint: endpoint.to_owned() },
            _ => Self::EndpointDown { endpoint: endpoint.to_owned(), error: error.chain() },
        }
    }
}

// Messages carry no times or counters: they end in status conditions, which must not change while nothing changes.
impl std::fmt::Display for ChainProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connecting => write!(f, "the first connection to the chain is being made"),
            Self::NoEndpoint => write!(f, "no chain endpoint is configured: give at least one ws:// or wss:// address"),
            Self::EndpointDown { endpoint, error } => write!(
                f,
                "chain endpoint `{endpoint}` cannot be used: {error}; check the address and that the node is up, \
                 it is tried again until it answers"
            ),
            Self::GenesisMismatch { endpoint, expected, found } => write!(
                f,
                "chain endpoint `{endpoint}` has genesis hash {found}, expected {expected}: \
                 correct the endpoint or the genesis hash"
            ),
            Self::SubnetMissing { netuid } => {
                write!(f, "the chain has no subnet with netuid {netuid}: correct the netuid or register the subnet")
            }
            Self::Refused { error } => {
                write!(f, "the chain's node does not serve what is asked: {error}; use a node that does")
            }
            Self::Decode { error } => write!(
                f,
                "an answer of the chain could not be read: {error}; upgrade Mycelium to a version that knows this runtime"
            ),
            Self::RateLimited { endpoint } => write!(
                f,
                "chain endpoint `{endpoint}` wants fewer requests: it is asked once a second at most; configure another \
                 endpoint, or a node of your own"
            ),
            Self::FinalityStalled { block } => write!(
                f,
                "no block after block {block} became final although new ones come: the chain's validators do not agree, \
                 or its node lost its peers"
            ),
            Self::Stale { block } => {
                write!(f, "no new block came after block {block}: the chain stands still or its node lost its peers")
            }
        }
    }
}
