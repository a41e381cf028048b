//! The axon gate: what the neuron's address on the chain leads to.
//!
//! Strangers reach the sidecar here, and through it the user's container. Every request is verified before the container
//! sees a byte of it: who sent it (by any of the three schemes of `sidecar_peer::handshake`), that its stake is enough, that
//! it is new, and that it comes within limits. So a miner in any language gets requests whose sender is known, as headers
//! that nobody outside can set:
//!
//! | header | |
//! |---|---|
//! | `x-mycelium-hotkey` | SS58 address of the sender |
//! | `x-mycelium-uid` | its slot |
//! | `x-mycelium-scheme` | `plain`, `encrypted` or `mycelium-v1` |
//!
//! Three paths are answered here: `/public-encryption-key` and `/exchange-symmetric-key` of Fiber's handshake, and
//! `/.well-known/mycelium`, the signed peer record by which peers find each other and see that one is alive ([`probe`]).
//!
//! A request's body is read whole before it is forwarded, because what is signed of it is the hash of all of it; answers are
//! streamed. In the same order for every request: connections and heads (`listener`), the sender's address, headers, stake,
//! nonce, body, signature, the sender's own limit.

mod forward;
mod gate;
mod listener;

pub(crate) use forward::check_upstream;

pub(crate) mod probe;
pub(crate) mod requests;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sidecar_peer::handshake::encrypted::KeyExchange;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::app::App;
use forward::Upstream;
use gate::Gate;
use requests::Requests;

/// Where the gate listens, and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AxonConfig {
    /// Address of the gate.
    pub listen: SocketAddr,
    /// Where verified requests go; absent when there is nothing behind the gate but this sidecar.
    pub upstream: Option<String>,
}

/// A gate on a port, not yet open.
pub(crate) struct AxonParts {
    /// What is behind it.
    pub(crate) config: AxonConfig,
    /// Its port.
    pub(crate) listener: TcpListener,
    /// Who it stands for.
    pub(crate) requests: Arc<Requests>,
}

/// Serves the axon until `stop`, then lets requests that are under way finish.
pub(crate) async fn run(app: Arc<App>, parts: AxonParts, stop: CancellationToken) {
    let made = tokio::task::spawn_blocking(|| KeyExchange::generate(&mut StdRng::from_os_rng())).await;
    let gate = async {
        let exchange = made.context("making of the RSA key")??;
        let upstream = parts.config.upstream.as_deref().map(Upstream::new).transpose()?;
        anyhow::Ok(Gate::new(app, parts.requests, exchange, upstream))
    };
    match gate.await {
        Ok(gate) => {
            info!(upstream = parts.config.upstream, "axon gate is open");
            listener::serve(parts.listener, Arc::new(gate), stop).await;
        }
        // Ends the process, which is what ends of parts do.
        Err(error) => error!(error = format!("{error:#}"), "axon gate cannot open"),
    }
}
