//! Which replica acts: the one that holds the Lease.

use anyhow::Context as _;
use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::args::Args;

/// A replica that stops renewing is replaced after this long. Seconds.
const LEASE_DURATION_S: u64 = 15;
/// The holder renews this long before the Lease ends. Seconds.
const LEASE_GRACE_S: u64 = 5;

/// The Lease as this replica sees it.
pub(crate) struct Leadership {
    held: watch::Receiver<bool>,
    task: JoinHandle<kube_lease_manager::Result<LeaseManager>>,
}

impl Leadership {
    /// Starts to ask for the Lease.
    pub(crate) async fn seek(client: Client, args: &Args) -> anyhow::Result<Self> {
        let manager = LeaseManagerBuilder::new(client, &args.lease_name)
            .with_namespace(&args.lease_namespace)
            .with_identity(&args.identity)
            .with_duration(LEASE_DURATION_S)
            .with_grace(LEASE_GRACE_S)
            .build()
            .await
            .context("cannot read or create the Lease of the operator")?;
        let (held, task) = manager.watch().await;
        Ok(Self { held, task })
    }

    /// Returns once the Lease is held.
    pub(crate) async fn gained(&mut self) -> anyhow::Result<()> {
        self.held.wait_for(|held| *held).await.context("the task that renews the Lease ended")?;
        Ok(())
    }

    /// Returns once the Lease is held no more: from then on another replica may act.
    pub(crate) async fn lost(&mut self) {
        // An error means that the task is gone, and with it the Lease.
        let _ = self.held.wait_for(|held| !*held).await;
    }

    /// Gives the Lease back, so that another replica need not wait for its end.
    pub(crate) async fn release(self) {
        drop(self.held);
        match self.task.await {
            Ok(Ok(manager)) => {
                if let Err(error) = manager.release().await {
                    tracing::warn!(%error, "Lease not released");
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "Lease not released"),
            Err(error) => tracing::warn!(%error, "Lease task failed"),
        }
    }
}
