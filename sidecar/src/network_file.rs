//! The Network's description on disk, followed while the sidecar runs.
//!
//! The file's folder is watched for changes, and the file's content compared after each of them, whatever it was: the
//! kubelet swaps symbolic links two levels above the file. It is compared every now and then all the same, because some
//! file systems tell of nothing, and because a kernel watches a limited number of folders. A file that cannot be used
//! changes nothing but what is said about it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::ready;
use futures::stream::{BoxStream, StreamExt, pending};
use inotify::{Inotify, WatchMask};
use sidecar_util::config::NetworkConfig;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use crate::config::{NetworkConfigError, parse_network};

/// How often the file is looked at where its folder cannot be watched. The kubelet itself needs up to a minute to bring a
/// change.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is looked at all the same where its folder is watched.
const DISTRUST_INTERVAL: Duration = Duration::from_mins(1);

/// Bytes of events that are read at once; what they say is not looked at.
const EVENT_BYTES: usize = 4096;

/// The description in force, and what is wrong with the file if it is another one.
#[derive(Debug, Clone)]
pub(crate) struct NetworkFile {
    /// The last description that could be used.
    pub(crate) network: watch::Receiver<Arc<NetworkConfig>>,
    /// Why the file as it is now cannot be used.
    pub(crate) error: watch::Receiver<Option<NetworkConfigError>>,
}

/// Looks at the file until nobody reads the description any more.
pub(crate) struct NetworkFileWatch {
    path: PathBuf,
    /// Content seen last; `None` when the file could not be read.
    seen: Option<Vec<u8>>,
    network: watch::Sender<Arc<NetworkConfig>>,
    error: watch::Sender<Option<NetworkConfigError>>,
}

/// Reads the file for the first time.
///
/// # Errors
/// There is nothing to start with.
pub(crate) async fn open(path: PathBuf) -> Result<(NetworkFile, NetworkFileWatch), NetworkConfigError> {
    let bytes = read(&path).await?;
    let (network, network_rx) = watch::channel(Arc::new(parse_network(&path, &bytes)?));
    let (error, error_rx) = watch::channel(None);
    let watch = NetworkFileWatch { path, seen: Some(bytes), network, error };
    Ok((NetworkFile { network: network_rx, error: error_rx }, watch))
}

async fn read(path: &PathBuf) -> Result<Vec<u8>, NetworkConfigError> {
    let read = tokio::fs::read(path).await;
    read.map_err(|error| NetworkConfigError::Read { path: path.clone(), cause: error.to_string() })
}

impl NetworkFileWatch {
    /// Follows the file.
    pub(crate) async fn run(mut self) {
        let (mut events, interval) = match events(&self.path) {
            Ok(events) => (events, DISTRUST_INTERVAL),
            Err(error) => {
                warn!(path = %self.path.display(), %error, "the folder of the network file cannot be watched: the file is read every few seconds");
                (pending().boxed(), POLL_INTERVAL)
            }
        };
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.network.is_closed() {
            tokio::select! {
                _ = ticks.tick() => {}
                Some(()) = events.next() => {}
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let read = read(&self.path).await;
        if read.as_ref().ok() == self.seen.as_ref() {
            return;
        }
        let parsed = read.as_ref().map_err(Clone::clone).and_then(|bytes| parse_network(&self.path, bytes));
        self.seen = read.ok();
        match parsed {
            Ok(network) => {
                self.error.send_replace(None);
                let changed = self.network.send_if_modified(|current| {
                    let changed = **current != network;
                    if changed {
                        *current = Arc::new(network);
                    }
                    changed
                });
                if changed {
                    info!(path = %self.path.display(), "network file changed and was taken over");
                }
            }
            Err(problem) => {
                error!(%problem, "network file cannot be used: the last good one stays in force");
                self.error.send_replace(Some(problem));
            }
        }
    }
}

/// Something for each change in the folder of a file.
fn events(path: &Path) -> std::io::Result<BoxStream<'static, ()>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let inotify = Inotify::init()?;
    // Not the making of a file, which is empty then.
    inotify.watches().add(folder, WatchMask::CLOSE_WRITE | WatchMask::MOVE | WatchMask::DELETE)?;
    let events = inotify.into_event_stream([0; EVENT_BYTES])?;
    Ok(events.take_while(|event| ready(event.is_ok())).map(|_| ()).boxed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(netuid: u16) -> String {
        format!(
            r#"{{"network": "default", "endpoints": ["ws://chain:9944"], "netuid": {netuid}, "genesis_hash": null,
                "minimum_stake": "1000", "verification_ttl_s": 60, "group": null}}"#
        )
    }

    #[tokio::test]
    async fn changes_are_taken_over_and_bad_files_change_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("network.json");
        assert!(matches!(open(path.clone()).await.err().unwrap(), NetworkConfigError::Read { .. }));
        std::fs::write(&path, content(1)).unwrap();
        let (file, mut watch) = open(path.clone()).await.unwrap();
        let netuid = || file.network.borrow().netuid.0;
        let problem = || file.error.borrow().as_ref().map(ToString::to_string);

        std::fs::write(&path, content(2)).unwrap();
        watch.look().await;
        assert_eq!((netuid(), problem()), (2, None));

        std::fs::write(&path, "{").unwrap();
        watch.look().await;
        assert_eq!(netuid(), 2);
        assert!(problem().unwrap().contains("cannot be understood"));

        std::fs::remove_file(&path).unwrap();
        watch.look().await;
        assert!(problem().unwrap().contains("cannot be read"));

        std::fs::write(&path, content(2)).unwrap();
        watch.look().await;
        assert_eq!((netuid(), problem()), (2, None));
    }

    #[tokio::test]
    async fn a_change_is_seen_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("network.json");
        std::fs::write(&path, content(1)).unwrap();
        let (mut file, watch) = open(path.clone()).await.unwrap();
        let watching = tokio::spawn(watch.run());
        // Written in place, and as editors and the kubelet do it.
        let renamed = |netuid| {
            let new = directory.path().join("new");
            std::fs::write(&new, content(netuid)).unwrap();
            std::fs::rename(&new, &path).unwrap();
        };
        let steps: [&dyn Fn(); 2] = [&|| std::fs::write(&path, content(2)).unwrap(), &|| renamed(3)];
        for (netuid, step) in (2..).zip(steps) {
            step();
            let seen = file.network.wait_for(|network| network.netuid.0 == netuid);
            assert!(tokio::time::timeout(POLL_INTERVAL, seen).await.expect("it is told").is_ok());
        }
        drop(file);
        std::fs::write(&path, content(4)).unwrap();
        watching.await.unwrap();
    }

    #[tokio::test]
    async fn the_kubelet_way_of_swapping_links_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (data, netuid) in [("..1", 1), ("..2", 2)] {
            std::fs::create_dir(at(data)).unwrap();
            std::fs::write(at(data).join("network.json"), content(netuid)).unwrap();
        }
        std::os::unix::fs::symlink("..1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/network.json", at("network.json")).unwrap();
        let (file, mut watch) = open(at("network.json")).await.unwrap();
        assert_eq!(file.network.borrow().netuid.0, 1);
        std::os::unix::fs::symlink("..2", at("..data_tmp")).unwrap();
        std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
        watch.look().await;
        assert_eq!(file.network.borrow().netuid.0, 2);
    }
}
