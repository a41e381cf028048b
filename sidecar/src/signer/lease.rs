//! The lease: where it is kept, and the task that carries requests to it.
//!
//! Everything that is decided is decided in [`Guard`]; a store only reads, and writes where nobody else wrote.

mod file;
mod kubernetes;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub(crate) use file::FileStore;
pub(crate) use kubernetes::KubernetesStore;

use super::clock::{Clock, Moment};
use super::foreign::Standing;
use super::guard::{Answer, Guard, LeaseRecord, NotHeld, Permit, Request, Rules, Ticket};

/// Longest wait between two looks at what is due: bounds what a missed wake-up costs.
const TICK_MAX: Duration = Duration::from_secs(10);

/// Time to give the lease back at the end. It lapses by itself where that fails.
const RELEASE_DEADLINE: Duration = Duration::from_secs(3);

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// The record is not the one that was to be written over.
    #[error("somebody else wrote the lease in between")]
    Conflict,
    /// Anything else; with the remedy where there is one.
    #[error("{0}")]
    Failed(String),
}

/// Where a lease is kept.
///
/// # Guarantees
/// A write replaces exactly the version it names, or nothing. A call that was dropped or failed may have had its effect.
#[async_trait]
pub(crate) trait LeaseStore: Send + Sync {
    /// The record; `None` where there is none.
    async fn read(&self) -> Result<Option<LeaseRecord>, StoreError>;

    /// Writes over a version, or makes what is not there yet, and returns the record with its version: a new one, unless it
    /// was the very record already.
    async fn write(&self, record: &LeaseRecord, over: Option<&str>) -> Result<LeaseRecord, StoreError>;
}

/// A store that cannot be used, and says why.
pub(crate) struct Unusable(pub(crate) String);

#[async_trait]
impl LeaseStore for Unusable {
    async fn read(&self) -> Result<Option<LeaseRecord>, StoreError> {
        Err(StoreError::Failed(self.0.clone()))
    }

    async fn write(&self, _record: &LeaseRecord, _over: Option<&str>) -> Result<LeaseRecord, StoreError> {
        Err(StoreError::Failed(self.0.clone()))
    }
}

/// The lease as the rest of the process asks for it.
pub(crate) struct Lease {
    guard: Mutex<Guard>,
    clock: Arc<dyn Clock>,
    /// Wakes the task that renews.
    due: Notify,
    /// Counts what was heard of the store, for those who wait for it.
    heard: watch::Sender<u64>,
}

impl Lease {
    pub(crate) fn new(rules: Rules, identity: String, clock: Arc<dyn Clock>) -> Self {
        let guard = Mutex::new(Guard::new(rules, identity));
        Self { guard, clock, due: Notify::new(), heard: watch::Sender::new(0) }
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Leave to sign a message now.
    pub(crate) fn permit(&self) -> Result<Permit, NotHeld> {
        self.guard.lock().permit(self.clock.now())
    }

    /// Makes something under the lease; what was made while it ran out is thrown away.
    ///
    /// # Errors
    /// The lease is not held, or is held no longer.
    pub(crate) fn under<T>(&self, work: impl FnOnce() -> T) -> Result<(T, Permit), NotHeld> {
        let permit = self.permit()?;
        let made = work();
        self.guard.lock().confirm(permit, self.clock.now())?;
        Ok((made, permit))
    }

    /// Leave to sign or send an extrinsic that dies at a block. Waits until that block stands in the lease.
    ///
    /// # Errors
    /// Why not, at the latest after two requests to the store.
    pub(crate) async fn permit_extrinsic(&self, death: u64, finalized: u64) -> Result<Permit, NotHeld> {
        let mut heard = self.heard.subscribe();
        let ask = || self.guard.lock().permit_extrinsic(self.clock.now(), death, finalized);
        let deadline = 2 * self.guard.lock().rules().deadline;
        let written = async {
            loop {
                heard.borrow_and_update();
                match ask() {
                    Err(NotHeld::FenceNotWritten) => self.due.notify_one(),
                    outcome => return outcome,
                }
                if heard.changed().await.is_err() {
                    return Err(NotHeld::FenceNotWritten);
                }
            }
        };
        tokio::time::timeout(deadline, written).await.unwrap_or(Err(NotHeld::FenceNotWritten))
    }

    /// See [`Guard::looked`].
    pub(crate) fn looked(&self, asked: Moment, best: u64, finalized: u64) {
        self.guard.lock().looked(asked, best, finalized);
    }

    /// See [`Guard::look_is_due`].
    pub(crate) fn look_is_due(&self) -> bool {
        self.guard.lock().look_is_due(self.clock.now())
    }

    /// Time left in which signing is permitted.
    pub(crate) fn time_left(&self) -> Duration {
        self.guard.lock().time_left(self.clock.now())
    }

    /// For how long it has been held without a break, and its epoch.
    pub(crate) fn tenure(&self) -> Option<(Duration, u64)> {
        let (since, epoch) = self.guard.lock().tenure()?;
        Some((since.age_at_least(self.clock.now()), epoch))
    }

    /// See [`Guard::standing`].
    pub(crate) fn standing(&self) -> Option<Standing> {
        self.guard.lock().standing()
    }

    /// Counts what is heard of the store.
    pub(crate) fn listen(&self) -> watch::Receiver<u64> {
        self.heard.subscribe()
    }

    /// Carries requests to the store until `stop`, and gives the lease back then.
    pub(crate) async fn keep(&self, store: &dyn LeaseStore, stop: CancellationToken) {
        let mut said = None;
        while !stop.is_cancelled() {
            let now = self.clock.now();
            let ticket = self.guard.lock().begin(now);
            if let Some(ticket) = ticket {
                self.carry(store, ticket).await;
                self.tell(&mut said);
                continue;
            }
            let wait = self.guard.lock().wait(now).min(TICK_MAX);
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.due.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.guard.lock().stop();
        let release = async {
            while let Some(ticket) = {
                let now = self.clock.now();
                self.guard.lock().begin(now)
            } {
                self.carry(store, ticket).await;
            }
        };
        let released = tokio::time::timeout(RELEASE_DEADLINE, release).await.is_ok();
        if released && self.guard.lock().is_stopped() {
            info!("signing lease released");
        } else {
            warn!("the signing lease was not released: it ends by itself");
        }
    }

    async fn carry(&self, store: &dyn LeaseStore, ticket: Ticket) {
        let deadline = self.guard.lock().rules().deadline;
        let asked = async {
            match &ticket.request {
                Request::Read => store.read().await.map(Answer::Found),
                Request::Write { record, over } => store.write(record, over.as_deref()).await.map(Answer::Written),
            }
        };
        let answer = match tokio::time::timeout(deadline, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(StoreError::Conflict)) => Answer::Conflict,
            Ok(Err(StoreError::Failed(error))) => Answer::Failed(error),
            Err(_) => Answer::Failed(format!("no answer within {} s", deadline.as_secs())),
        };
        debug!(request = ?ticket.request, ?answer, "signing lease");
        let now = self.clock.now();
        self.guard.lock().finish(&ticket, answer, now);
        self.heard.send_modify(|count| *count += 1);
    }

    /// One line for each change.
    fn tell(&self, said: &mut Option<&'static str>) {
        let outcome = self.permit();
        let reason = outcome.as_ref().map_or_else(NotHeld::reason, |_| "Held");
        if said.replace(reason) == Some(reason) {
            return;
        }
        match outcome {
            Ok(permit) => info!(epoch = permit.epoch, "signing lease held"),
            Err(cause) => warn!(reason, %cause, "nothing is signed"),
        }
    }
}

/// A name that no other process has, and that tells people where it runs.
pub(crate) fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "sidecar",
        host => host,
    };
    format!("{host}_{:016x}", rand::random::<u64>())
}

#[cfg(test)]
mod tests;
