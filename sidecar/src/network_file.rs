//! The Network's description on disk, followed while the sidecar runs.
//!
//! The file's content is compared every second instead of asking the kernel for events: the kubelet swaps symbolic links
//! two levels above the file, which every notification library sees differently. A file that cannot be used changes nothing
//! but what is said about it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sidecar_util::config::NetworkConfig;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{error, info};

use crate::config::{NetworkConfigError, parse_network};

/// How often the file is looked at. The kubelet itself needs up to a minute to bring a change.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

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
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.network.is_closed() {
            ticks.tick().await;
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
