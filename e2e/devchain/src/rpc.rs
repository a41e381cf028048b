//! Substrate's JSON-RPC, over WebSocket and HTTP on one port.
//!
//! Method names, aliases, parameter forms, error codes and texts are those of a Substrate node as clients expect them,
//! including what only some nodes have (`account_nextIndex`, `state_getStorageAt`).

mod author;
mod chain;
mod params;
mod server;
mod state;
mod system;

use std::net::SocketAddr;
use std::sync::Arc;

use jsonrpsee::RpcModule;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::server::{RandomStringIdProvider, ServerConfig, ServerHandle};
use jsonrpsee::types::ErrorObjectOwned;
use tokio::net::TcpListener;

use crate::node::{BlockError, Node, NodeError};

/// Bytes of a request: the largest extrinsic in hex, with room to spare.
const MAX_REQUEST_BYTES: u32 = 16 * 1024 * 1024;

/// Bytes of an answer: the neurons of a full subnet with weights and bonds, in hex.
const MAX_RESPONSE_BYTES: u32 = 64 * 1024 * 1024;

/// Open sockets; Python clients open one per object.
const MAX_CONNECTIONS: u32 = 10_000;

/// Subscriptions of one socket.
const MAX_SUBSCRIPTIONS: u32 = 1024;

/// Code of errors of `state_*` and `chain_*`, as Substrate's `Client error`.
const CLIENT_ERROR: i32 = 4003;

/// The JSON-RPC server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The address is taken or not this machine's.
    #[error("cannot listen on {address}: choose another address with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Two methods have the same name.
    #[error(transparent)]
    Methods(#[from] RegisterMethodError),
}

/// A running server.
pub struct RpcServer {
    /// Where it listens; the port is known even if 0 was asked for.
    pub address: SocketAddr,
    /// Stops it when dropped or told to.
    pub handle: ServerHandle,
}

/// Starts the server.
///
/// # Errors
/// [`RpcError`] when the address cannot be used.
pub async fn serve(node: Arc<Node>, address: SocketAddr) -> Result<RpcServer, RpcError> {
    let wrap = |source| RpcError::Listen { address, source };
    let config = ServerConfig::builder()
        .max_request_body_size(MAX_REQUEST_BYTES)
        .max_response_body_size(MAX_RESPONSE_BYTES)
        .max_connections(MAX_CONNECTIONS)
        .max_subscriptions_per_connection(MAX_SUBSCRIPTIONS)
        .set_id_provider(RandomStringIdProvider::new(16))
        .build();
    let listener = TcpListener::bind(address).await.map_err(wrap)?;
    let address = listener.local_addr().map_err(wrap)?;
    let methods = methods(Arc::clone(&node))?;
    let handle = server::start(listener, node, methods.into(), config);
    Ok(RpcServer { address, handle })
}

/// Every method of the server.
///
/// # Errors
/// [`RegisterMethodError`] when a name is registered twice.
pub fn methods(node: Arc<Node>) -> Result<RpcModule<Arc<Node>>, RegisterMethodError> {
    let mut module = RpcModule::new(node);
    chain::register(&mut module)?;
    state::register(&mut module)?;
    author::register(&mut module)?;
    system::register(&mut module)?;
    let mut names: Vec<String> = module.method_names().map(ToOwned::to_owned).collect();
    names.push("rpc_methods".into());
    names.sort_unstable();
    module.register_method("rpc_methods", move |_, _, _| serde_json::json!({ "methods": names }))?;
    Ok(module)
}

/// Result of a method.
type Answer<V> = Result<V, RpcFailure>;

/// An error on its way to a client. A type of this crate, so that the node's errors convert into it.
struct RpcFailure(ErrorObjectOwned);

fn client_error(error: impl std::fmt::Display) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(CLIENT_ERROR, format!("Client error: {error}"), None::<()>)
}

impl From<BlockError> for RpcFailure {
    fn from(error: BlockError) -> Self {
        Self(client_error(error))
    }
}

impl From<NodeError> for RpcFailure {
    fn from(error: NodeError) -> Self {
        Self(match error {
            NodeError::Block(error) => client_error(error),
            NodeError::Call(error) => client_error(format!("Execution failed: {error}")),
        })
    }
}

impl From<ErrorObjectOwned> for RpcFailure {
    fn from(error: ErrorObjectOwned) -> Self {
        Self(error)
    }
}

impl From<RpcFailure> for ErrorObjectOwned {
    fn from(failure: RpcFailure) -> Self {
        failure.0
    }
}

impl From<RpcFailure> for jsonrpsee::core::server::ResponsePayload<'static, ()> {
    fn from(failure: RpcFailure) -> Self {
        Self::error(failure.0)
    }
}
