//! A connection to one endpoint of a chain, kept open between calls and made again when it was lost.

use std::sync::Arc;
use std::time::Duration;

use jsonrpsee::core::client::{ClientT, Error as RpcError};
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};
use parking_lot::Mutex;
use pyo3::prelude::*;
use serde_json::Value;
use sidecar_metagraph::{
    CALL_DEADLINE, CONNECT_DEADLINE, ChainError, ChainSource, Connect, Head, SubxtConnect, check_endpoint,
};
use sidecar_util::{BlockHash, NetUid};
use tokio::sync::Mutex as AsyncMutex;

use crate::convert::{self, NodeFields};
use crate::errors::of_call;
use crate::runtime::wait;

/// A lost connection is made again once in a call; the second loss is the caller's to know.
const ATTEMPTS: u32 = 2;

/// Largest answer to a raw call; the same as for calls with metadata.
const RESPONSE_BYTES_MAX: u32 = 32 << 20;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallFailure {
    /// In the client of the chain.
    #[error("{}", .0.chain())]
    Chain(#[from] ChainError),
    /// The chain has no such subnet.
    #[error("the chain at `{url}` has no subnet with netuid {netuid}: correct the netuid, or the endpoint")]
    NoSubnet { url: String, netuid: NetUid },
    /// The chain has no such block.
    #[error("the chain at `{url}` has no block {block}: it is not made yet, or this node is not there yet")]
    NoBlock { url: String, block: String },
    /// A raw call whose parameters are no JSON list.
    #[error("params: not a JSON list ({0})")]
    Parameters(serde_json::Error),
    /// The node refused a raw call.
    #[error("`{method}` was refused by the node at `{url}`: {message} (code {code})")]
    Refused { url: String, method: String, code: i32, message: String },
    /// No connection for a raw call, or none any more.
    #[error("could not call `{method}` at `{url}`: {cause}")]
    Lost { url: String, method: String, cause: String },
    /// An answer that is not what the method gives.
    #[error("could not decode {what} from `{url}`: {found}")]
    Shape { url: String, what: &'static str, found: String },
}

impl CallFailure {
    fn is_connection_lost(&self) -> bool {
        match self {
            Self::Chain(error) => error.is_connection_lost(),
            Self::Lost { .. } => true,
            _ => false,
        }
    }
}

/// What calls with metadata go to.
type Source = dyn ChainSource;

/// A connection, if there is one. Locked while it is being made, so that threads wait for the same one.
type Slot<S> = AsyncMutex<Option<Arc<S>>>;

/// What is open. Both are made when first needed.
#[derive(Default)]
struct Sockets {
    /// Calls that need the runtime's metadata.
    chain: Slot<Source>,
    /// Raw calls. A socket of its own: the trait above has no raw calls, so that it can be tested without a node.
    raw: Slot<WsClient>,
}

/// One endpoint of a chain. Threads may share it. After `close`, and after a fork, the next call connects anew.
#[pyclass(frozen, module = "mycelium._native")]
pub(crate) struct Connection {
    /// The WebSocket address.
    #[pyo3(get)]
    url: String,
    /// With the process that opened them.
    sockets: Mutex<(u32, Arc<Sockets>)>,
}

#[pymethods]
impl Connection {
    /// Checks the address and does not connect yet.
    #[new]
    fn new(url: String) -> PyResult<Self> {
        check_endpoint(&url).map_err(|error| of_call(error.into()))?;
        Ok(Self { url, sockets: Mutex::new((std::process::id(), Arc::default())) })
    }

    /// Connects, unless connected.
    fn connect(&self, py: Python<'_>) -> PyResult<()> {
        wait(py, || self.on_chain(async |_: &Source| Ok(())))?.map_err(of_call)
    }

    /// Number and hash of the best block, or of the last finalised one.
    fn head(&self, py: Python<'_>, finalized: bool) -> PyResult<(u64, String)> {
        let head = wait(py, || {
            self.on_chain(async |source: &Source| {
                Ok(if finalized { source.finalized_head().await? } else { source.head().await? })
            })
        })?;
        head.map(|head| (head.number, head.hash.to_string())).map_err(of_call)
    }

    /// Hash of a block.
    fn block_hash(&self, py: Python<'_>, block: u64) -> PyResult<String> {
        wait(py, || self.hash_of(block))?.map(|hash| hash.to_string()).map_err(of_call)
    }

    /// Number of a block.
    fn block_number(&self, py: Python<'_>, block_hash: &str) -> PyResult<u64> {
        wait(py, || self.number_of(block_hash))?.map_err(of_call)
    }

    /// Every neuron of a subnet, at the best block or at the one given.
    #[pyo3(signature = (netuid, block=None))]
    fn nodes(&self, py: Python<'_>, netuid: u16, block: Option<u64>) -> PyResult<Vec<NodeFields>> {
        wait(py, || self.read_nodes(NetUid(netuid), block))?.map_err(of_call)
    }

    /// A raw JSON-RPC call; parameters and result are JSON texts.
    fn rpc(&self, py: Python<'_>, method: &str, params: &str) -> PyResult<String> {
        let params = serde_json::from_str(params).map_err(|error| of_call(CallFailure::Parameters(error)))?;
        wait(py, || self.raw_call(method, params))?.map(|result| result.to_string()).map_err(of_call)
    }

    /// Ends the connection.
    fn close(&self, py: Python<'_>) {
        let sockets = std::mem::take(&mut self.sockets.lock().1);
        py.detach(|| drop(sockets));
    }
}

impl Connection {
    fn sockets(&self) -> Arc<Sockets> {
        let process = std::process::id();
        let mut held = self.sockets.lock();
        if held.0 != process {
            let parents = std::mem::replace(&mut *held, (process, Arc::default()));
            // Closing them here would say goodbye on the sockets that the parent still uses.
            std::mem::forget(parents);
        }
        held.1.clone()
    }

    /// Calls on what is open, and once more on a new connection when that turns out to be lost.
    async fn on_socket<S: ?Sized, T>(
        &self,
        slot: impl Fn(&Sockets) -> &Slot<S>,
        connect: impl AsyncFn() -> Result<Arc<S>, CallFailure>,
        call: impl AsyncFn(&S) -> Result<T, CallFailure>,
    ) -> Result<T, CallFailure> {
        let mut attempt = 1;
        loop {
            let sockets = self.sockets();
            let mut held = slot(&sockets).lock().await;
            let (socket, fresh) = match &*held {
                Some(socket) => (socket.clone(), false),
                None => (held.insert(connect().await?).clone(), true),
            };
            drop(held);
            let answer = call(&socket).await;
            let lost = answer.as_ref().is_err_and(CallFailure::is_connection_lost);
            if !lost {
                return answer;
            }
            let mut held = slot(&sockets).lock().await;
            // Another thread may have connected again in between.
            if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, &socket)) {
                *held = None;
            }
            if fresh || attempt == ATTEMPTS {
                return answer;
            }
            attempt += 1;
        }
    }

    async fn on_chain<T>(&self, call: impl AsyncFn(&Source) -> Result<T, CallFailure>) -> Result<T, CallFailure> {
        let connect = async || Ok(SubxtConnect.connect(&self.url).await?);
        self.on_socket(|sockets| &sockets.chain, connect, call).await
    }

    async fn read_nodes(&self, netuid: NetUid, block: Option<u64>) -> Result<Vec<NodeFields>, CallFailure> {
        let at = match block {
            Some(number) => Some(Head { number, hash: self.hash_of(number).await? }),
            None => None,
        };
        let metagraph = self
            .on_chain(async |source: &Source| {
                let head = match at {
                    Some(head) => head,
                    None => source.head().await?,
                };
                Ok(source.metagraph(netuid, head).await?)
            })
            .await?;
        let metagraph = metagraph.ok_or_else(|| CallFailure::NoSubnet { url: self.url.clone(), netuid })?;
        Ok(convert::nodes(&metagraph))
    }

    async fn hash_of(&self, block: u64) -> Result<BlockHash, CallFailure> {
        match self.raw_call("chain_getBlockHash", vec![block.into()]).await? {
            Value::String(hash) => hash.parse().map_err(|_| self.shape("a block hash", hash)),
            Value::Null => Err(self.no_block(block.to_string())),
            other => Err(self.shape("a block hash", other.to_string())),
        }
    }

    async fn number_of(&self, block_hash: &str) -> Result<u64, CallFailure> {
        let header = self.raw_call("chain_getHeader", vec![block_hash.into()]).await?;
        if header.is_null() {
            return Err(self.no_block(block_hash.to_owned()));
        }
        let number =
            header["number"].as_str().and_then(|hex| u64::from_str_radix(hex.trim_start_matches("0x"), 16).ok());
        number.ok_or_else(|| self.shape("a header", header.to_string()))
    }

    async fn raw_call(&self, method: &str, params: Vec<Value>) -> Result<Value, CallFailure> {
        let call = async |client: &WsClient| match client.request(method, params.clone()).await {
            Ok(value) => Ok(value),
            Err(RpcError::Call(error)) => Err(CallFailure::Refused {
                url: self.url.clone(),
                method: method.to_owned(),
                code: error.code(),
                message: error.message().to_owned(),
            }),
            Err(error) => Err(self.lost(method, &error)),
        };
        self.on_socket(|sockets| &sockets.raw, async || self.connect_raw(method).await, call).await
    }

    async fn connect_raw(&self, method: &str) -> Result<Arc<WsClient>, CallFailure> {
        let client = WsClientBuilder::new()
            .connection_timeout(CONNECT_DEADLINE)
            .request_timeout(CALL_DEADLINE)
            .max_response_size(RESPONSE_BYTES_MAX)
            .build(&self.url);
        // The builder's own deadline covers the TCP connection only, not a peer that accepts and then says nothing.
        let client = tokio::time::timeout(CONNECT_DEADLINE, client).await;
        let client = client.map_err(|_| self.lost(method, &silence(CONNECT_DEADLINE)))?;
        Ok(Arc::new(client.map_err(|error| self.lost(method, &error))?))
    }

    fn lost(&self, method: &str, cause: &dyn std::fmt::Display) -> CallFailure {
        CallFailure::Lost { url: self.url.clone(), method: method.to_owned(), cause: cause.to_string() }
    }

    fn no_block(&self, block: String) -> CallFailure {
        CallFailure::NoBlock { url: self.url.clone(), block }
    }

    fn shape(&self, what: &'static str, found: String) -> CallFailure {
        CallFailure::Shape { url: self.url.clone(), what, found }
    }
}

fn silence(after: Duration) -> String {
    format!("no WebSocket handshake within {} s", after.as_secs())
}
