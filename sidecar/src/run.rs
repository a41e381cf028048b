//! Builds every part, and owns the order in which they end.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use sidecar_metagraph::keys::{HotkeyPair, KeyError, Password, read_hotkey_with};
use sidecar_metagraph::{ChainConfig, Querier};
use sidecar_util::NetUid;
use sidecar_util::config::NetworkConfig;
use sidecar_util::http::NodeKind;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::app::App;
use crate::axon::requests::Requests;
use crate::axon::{self, AxonConfig, AxonParts};
use crate::config::{Config, parse_network};
use crate::group::{self, GroupParts};
use crate::http::{self, Door, serve::serve};
use crate::signer::{Policy, Signer, SignerParts};
use crate::{ingest, network_file};

/// Who may use the unix socket: this user, and the group that the pod's containers share.
const SOCKET_MODE: u32 = 0o660;

/// Runs with its hotkey until a signal, or until something fails that only a restart can heal.
///
/// # Errors
/// A flag, a file or an address that cannot be used, named with its remedy; or the group's member stopped for good.
pub async fn run(config: Config, pair: HotkeyPair) -> anyhow::Result<()> {
    let (file, file_watch) = network_file::open(config.network_file.clone()).await?;
    let Doors { listener, socket, peer_listener, axon_listener } = Doors::open(&config).await?;
    info!(
        kind = ?config.kind,
        hotkey = %pair.hotkey(),
        http = %listener.local_addr()?,
        peer = peer_listener.as_ref().and_then(|listener| listener.local_addr().ok()).map(tracing::field::display),
        axon = axon_listener.as_ref().and_then(|(_, axon)| axon.local_addr().ok()).map(tracing::field::display),
        socket = %config.socket.display(),
        version = env!("CARGO_PKG_VERSION"),
        "sidecar started"
    );

    let mut networks = file.network.clone();
    let querier = Querier::spawn(chain_config(&networks.borrow_and_update()));
    let (member, group) = watch::channel(None);
    let app = Arc::new(App::new(config.kind, pair.hotkey(), file, querier.handle(), group));

    let requests = Arc::new(Requests::new(pair.clone()));
    let requests = app.requests.get_or_init(|| requests).clone();
    let signer = signer(&config, &pair, &app, &querier)?;
    app.signer.get_or_init(|| signer.clone());

    let [stop_serving, stop_group, stop_core] = std::array::from_fn(|_| CancellationToken::new());
    // Cancelled by the end of any part, a panic included: nothing goes on with a part missing.
    let ended_early = CancellationToken::new();
    let watching = tokio::spawn(guarded(&ended_early, file_watch.run()));
    let ingesting = tokio::spawn(guarded(&ended_early, ingest::run(app.clone(), stop_core.clone())));
    let stop_signing = stop_core.clone();
    let place = config.lease.clone();
    let signing = tokio::spawn(guarded(&ended_early, async move { signer.run(place, stop_signing).await }));
    let tcp = TcpListenerStream::new(listener);
    let tcp = serve(tcp, http::api(&app, Door::Tcp), app.metrics.clone(), stop_serving.clone());
    let socket = UnixListenerStream::new(socket);
    let socket = serve(socket, http::api(&app, Door::Socket), app.metrics.clone(), stop_serving.clone());
    let mut serving = vec![tokio::spawn(guarded(&ended_early, tcp)), tokio::spawn(guarded(&ended_early, socket))];
    if let Some((config, listener)) = axon_listener {
        let parts = AxonParts { config, listener, requests: requests.clone() };
        serving.push(tokio::spawn(guarded(&ended_early, axon::run(app.clone(), parts, stop_serving.clone()))));
    }
    if let Some(interval) = config.probe_interval {
        let probing = axon::probe::run(app.clone(), requests, interval, stop_serving.clone());
        serving.push(tokio::spawn(guarded(&ended_early, probing)));
    }
    let taking_part = async {
        let Some(listener) = peer_listener else {
            stop_group.cancelled().await;
            return Ok(());
        };
        let parts = GroupParts { pair, data_dir: config.data_dir.clone(), listener, member };
        group::run(app.clone(), parts, stop_group.clone()).await
    };
    tokio::pin!(taking_part);

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut in_group = true;
    let mut outcome = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            () = ended_early.cancelled() => break Err(anyhow!("a part of the sidecar has ended: see the log above")),
            ended = &mut taking_part => {
                in_group = false;
                break ended;
            }
            Ok(()) = networks.changed() => querier.reconfigure(chain_config(&networks.borrow_and_update())),
        }
    };
    info!(failed = outcome.is_err(), "sidecar stops");
    stop_serving.cancel();
    app.watchers.close();
    for server in serving {
        server.await?;
    }
    stop_group.cancel();
    if in_group {
        outcome = outcome.and(taking_part.await);
    }
    stop_core.cancel();
    watching.abort();
    ingesting.await?;
    signing.await?;
    querier.shutdown().await;
    if let Err(error) = std::fs::remove_file(&config.socket) {
        warn!(%error, socket = %config.socket.display(), "socket was not removed");
    }
    info!("sidecar stopped");
    outcome
}

/// The subnet that the network file names, read ahead of everything else: traces tell it.
///
/// # Errors
/// The file that cannot be used, with the remedy.
pub fn netuid(config: &Config) -> anyhow::Result<NetUid> {
    let path = &config.network_file;
    let bytes = std::fs::read(path).with_context(|| format!("--config: `{}` cannot be read", path.display()))?;
    Ok(parse_network(path, &bytes)?.netuid)
}

/// Reads the hotkey, with the password from its file or from the variable in which Bittensor's wallet keeps it. Once: a
/// password takes seconds and half a gigabyte.
///
/// # Errors
/// The file that cannot be used, with the remedy; never its content.
pub fn hotkey(config: &Config) -> Result<HotkeyPair, KeyError> {
    let variable = Password::variable_of(&config.hotkey_file);
    let password = match (&config.hotkey_password_file, std::env::var(&variable)) {
        (Some(path), _) => Some(Password::from_file(path)?),
        (None, Ok(value)) => Some(Password::from_variable(&variable, &value)?),
        (None, Err(_)) => None,
    };
    read_hotkey_with(&config.hotkey_file, password.as_ref())
}

/// Where others reach this process.
struct Doors {
    listener: TcpListener,
    socket: UnixListener,
    peer_listener: Option<TcpListener>,
    axon_listener: Option<(AxonConfig, TcpListener)>,
}

impl Doors {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        let bind = |flag: &'static str, address| async move {
            TcpListener::bind(address).await.with_context(|| format!("{flag}: cannot listen on {address}"))
        };
        let listener = bind("--listen", config.listen).await?;
        let socket = bind_socket(&config.socket)?;
        let peer_listener = match config.kind {
            NodeKind::Validator => Some(bind("--peer-listen", config.peer_listen).await?),
            NodeKind::Miner => None,
        };
        let axon_listener = match &config.axon {
            Some(axon) => Some((axon.clone(), bind("--axon-listen", axon.listen).await?)),
            None => None,
        };
        Ok(Self { listener, socket, peer_listener, axon_listener })
    }
}

fn signer(config: &Config, pair: &HotkeyPair, app: &App, querier: &Querier) -> anyhow::Result<Arc<Signer>> {
    let policy = config.signer_policy.as_deref().map_or_else(|| Ok(Policy::default()), Policy::read)?;
    let parts = SignerParts {
        pair: pair.clone(),
        policy,
        folder: config.data_dir.join("signer"),
        accept_foreign_before: config.accept_foreign_signer_before,
        chain: querier.handle(),
        network: app.file.network.clone(),
        metrics: app.metrics.signer(),
    };
    Signer::new(parts, &config.lease)
}

/// A part of the process, whose end is noticed however it comes.
fn guarded<F: Future>(ended: &CancellationToken, part: F) -> impl Future<Output = F::Output> + use<F> {
    let guard = ended.clone().drop_guard();
    async move {
        let _guard = guard;
        part.await
    }
}

fn chain_config(network: &NetworkConfig) -> ChainConfig {
    ChainConfig {
        endpoints: network.endpoints.clone(),
        archive_endpoints: network.archive_endpoints.clone(),
        netuid: network.netuid,
        genesis_hash: network.genesis_hash,
        min_interval: ChainConfig::MIN_INTERVAL,
    }
}

/// Makes the socket, over one that a killed process left behind.
fn bind_socket(path: &Path) -> anyhow::Result<UnixListener> {
    let context = || format!("--socket: cannot listen on {}", path.display());
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).with_context(context)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(anyhow!("another sidecar answers there: give each its own socket")).with_context(context);
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(context),
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(context)?;
    std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).with_context(context)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/sidecar.sock");
        let first = bind_socket(&path).unwrap();
        let error = format!("{:#}", bind_socket(&path).unwrap_err());
        assert!(error.contains("--socket") && error.contains("another sidecar answers there"), "{error}");
        drop(first);
        bind_socket(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
    }
}
