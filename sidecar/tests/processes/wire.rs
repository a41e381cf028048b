//! A loopback wire to a chain, which can be cut, and which can carry TLS.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::chain::Devchain;

/// One end is here, the other one is the chain. It goes with its connections when this is dropped.
pub(crate) struct Wire {
    port: u16,
    tls: bool,
    cut: watch::Sender<bool>,
    _runtime: Runtime,
}

impl Wire {
    pub(crate) fn to(chain: &Devchain) -> Self {
        Self::start(chain, None)
    }

    /// Ends TLS, as a proxy in front of a node does.
    pub(crate) fn with_tls(chain: &Devchain, config: ServerConfig) -> Self {
        Self::start(chain, Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn start(chain: &Devchain, tls: Option<TlsAcceptor>) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (port, has_tls) = (listener.local_addr().unwrap().port(), tls.is_some());
        let (cut, is_cut) = watch::channel(false);
        let address = chain.endpoint().trim_start_matches("ws://").to_owned();
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(carry(stream, address.clone(), tls.clone(), is_cut.clone()));
            }
        });
        Self { port, tls: has_tls, cut, _runtime: runtime }
    }

    /// The chain's endpoint at this end.
    pub(crate) fn endpoint(&self) -> String {
        let scheme = if self.tls { "wss" } else { "ws" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Lets nothing through, and says so to nobody; or again what comes, and what was under way.
    pub(crate) fn set_cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

async fn carry(
    stream: TcpStream,
    address: String,
    tls: Option<TlsAcceptor>,
    mut cut: watch::Receiver<bool>,
) -> io::Result<()> {
    connected(&mut cut).await?;
    let chain = TcpStream::connect(address).await?;
    match tls {
        Some(tls) => join(tls.accept(stream).await?, chain, cut).await,
        None => join(stream, chain, cut).await,
    }
}

async fn join(one: impl AsyncRead + AsyncWrite, other: TcpStream, cut: watch::Receiver<bool>) -> io::Result<()> {
    let ((from_one, to_one), (from_other, to_other)) = (split(one), split(other));
    tokio::select! {
        ended = pass(from_one, to_other, cut.clone()) => ended,
        ended = pass(from_other, to_one, cut) => ended,
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut cut: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut bytes).await?;
        // What was sent before the cut arrives after it, as with TCP, also when its sender is gone by then.
        connected(&mut cut).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..read]).await?;
    }
}

async fn connected(cut: &mut watch::Receiver<bool>) -> io::Result<()> {
    cut.wait_for(|cut| !cut).await.map(drop).map_err(|_| io::ErrorKind::ConnectionAborted.into())
}
