//! One hotkey, one signer: the only place that signs for the user's containers and for the chain.
//!
//! A signature is made when four things hold, looked at in this order: the policy allows it ([`policy`]), this process
//! holds the lease for long enough ([`guard`]), nobody else was seen to sign with the hotkey ([`foreign`]), and its caller
//! has not used up its rate ([`rates`]). When any of them is unknown nothing is signed and everything else goes on: what
//! the sidecar says of itself to peers (certificates, records, probes) is signed beside this module, without a lease.
//!
//! The key is read once, lives in memory that is wiped, and leaves the process only as signatures. Every signature made
//! here leaves one line in the log, with the lease's epoch and without what was signed.

mod clock;
mod foreign;
mod guard;
mod lease;
mod metrics;
mod policy;
mod rates;
mod submission;

#[cfg(test)]
mod simulation;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use sidecar_metagraph::extrinsics::SubmitError;
use sidecar_metagraph::keys::HotkeyPair;
use sidecar_metagraph::{ChainView, QuerierHandle};
use sidecar_util::config::NetworkConfig;
use sidecar_util::http::{SignerState, SignerStatus};
use sidecar_util::{Hotkey, ValueError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use clock::MachineClock;
use foreign::{Finding, ForeignWatch, Look, Memory, Standing, Verdict};
use guard::{NotHeld, Rules};
use lease::{FileStore, KubernetesStore, Lease, LeaseStore};
pub(crate) use metrics::{Kind, SignerMetrics};
use policy::Operation;
pub(crate) use policy::Policy;
use rates::Buckets;
pub(crate) use submission::{AxonAddress, Weights};
use submission::{LeaseGate, Running};

/// How many blocks pass between two looks at the account's nonce, which costs a few calls each.
const NONCE_BLOCKS: u64 = 8;

/// How often a clear verdict and the values known are written to disk while nothing is signed. What is signed is written
/// before it is.
const KEEP_BLOCKS: u64 = 25;

/// Pause before the folder is tried again that extrinsics could not be remembered in: a full disk is emptied by somebody.
const FOLDER_RETRY: Duration = Duration::from_secs(5);

/// Where the lease is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeasePlace {
    /// A Lease in the API server of the cluster.
    Kubernetes {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A lock on a file.
    File(PathBuf),
}

/// What a signer is made of.
pub(crate) struct SignerParts {
    /// The key.
    pub(crate) pair: HotkeyPair,
    /// What the user's container may have signed.
    pub(crate) policy: Policy,
    /// Folder that remembers what was signed; it belongs to this sidecar alone.
    pub(crate) folder: PathBuf,
    /// Signatures of others before this block are in order.
    pub(crate) accept_foreign_before: Option<u64>,
    /// The chain.
    pub(crate) chain: QuerierHandle,
    /// The Network's description.
    pub(crate) network: watch::Receiver<Arc<NetworkConfig>>,
    /// Counters.
    pub(crate) metrics: SignerMetrics,
}

/// Who asks for a signature, as the kernel says of the other end of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// User id.
    pub(crate) uid: u32,
    /// Process id, where it is known.
    pub(crate) pid: Option<i32>,
}

impl Default for Caller {
    /// Nobody that the kernel knows.
    fn default() -> Self {
        Self { uid: u32::MAX, pid: None }
    }
}

/// A message that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) hotkey: Hotkey,
    pub(crate) signature: [u8; 64],
    /// What was signed.
    pub(crate) bytes: Vec<u8>,
    /// Epoch of the lease under which it was made.
    pub(crate) epoch: u64,
}

/// Why something was not signed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Refusal {
    /// The policy, or no sense.
    #[error("{0}")]
    Policy(ValueError),
    /// Too often.
    #[error("{operation}: the rate of the signer's policy is used up: try again in {} s", wait.as_secs() + 1)]
    Rate {
        /// What.
        operation: &'static str,
        /// When there is one again.
        wait: Duration,
    },
    /// Somebody else signs with the hotkey.
    #[error("{0}")]
    Foreign(Finding),
    /// The chain was not looked at for as long as it takes.
    #[error("{0}")]
    NotLooked(String),
    /// The lease.
    #[error("{0}")]
    NotHeld(NotHeld),
    /// What was signed could not be remembered.
    #[error("signer memory `{}` cannot be written ({cause}): make its folder writable, nothing is signed meanwhile", path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// Extrinsics cannot be made at all.
    #[error("extrinsics cannot be made: {cause}; messages are signed all the same")]
    NoSubmitter {
        /// Why.
        cause: String,
    },
    /// The submission met something.
    #[error(transparent)]
    Submission(Box<SubmitError>),
}

impl Refusal {
    /// One word from a closed set: label of the metric.
    pub(crate) fn result(&self) -> &'static str {
        match self {
            Self::Policy(_) => "policy_denied",
            Self::Rate { .. } => "rate_limited",
            Self::Foreign(_) => "foreign_signer",
            Self::NotLooked(_) => "chain_not_looked_at",
            Self::NotHeld(_) => "not_held",
            Self::Memory { .. } | Self::NoSubmitter { .. } => "memory_failed",
            Self::Submission(_) => "submission_failed",
        }
    }

    /// One word in `CamelCase` from a closed set: reason of a condition.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Policy(_) => "PolicyDenied",
            Self::Rate { .. } => "RateLimited",
            Self::Foreign(_) => "ForeignSigner",
            Self::NotLooked(_) => "ChainNotLookedAt",
            Self::NotHeld(cause) => cause.reason(),
            Self::Memory { .. } | Self::NoSubmitter { .. } => "MemoryFailed",
            Self::Submission(error) => error.reason(),
        }
    }
}

/// The signer of this process.
pub(crate) struct Signer {
    pair: HotkeyPair,
    lease: Lease,
    policy: Policy,
    buckets: Mutex<Buckets>,
    foreign: Mutex<ForeignWatch>,
    folder: PathBuf,
    /// Makes extrinsics; or why it does not.
    submitter: Mutex<Result<Running, String>>,
    /// Why the memory could not be written, if that failed last.
    forgetful: Mutex<Option<Refusal>>,
    /// For the parts that outlive a call.
    own: Weak<Self>,
    chain: QuerierHandle,
    network: watch::Receiver<Arc<NetworkConfig>>,
    metrics: SignerMetrics,
}

impl Signer {
    /// A signer that holds nothing until [`Self::run`].
    ///
    /// # Errors
    /// The memory file is there and cannot be understood.
    pub(crate) fn new(parts: SignerParts, place: &LeasePlace) -> anyhow::Result<Arc<Self>> {
        let SignerParts { pair, policy, folder, accept_foreign_before, chain, network, metrics } = parts;
        let memory = read_memory(&memory_file(&folder))?;
        let subject = subject(pair.hotkey(), &network.borrow());
        let rules = match place {
            LeasePlace::Kubernetes { .. } => Rules::KUBERNETES,
            LeasePlace::File(_) => Rules::FILE,
        };
        let signer = Arc::new_cyclic(|own| Self {
            lease: Lease::new(rules, lease::identity(), Arc::new(MachineClock)),
            buckets: Mutex::new(Buckets::new(policy.rates)),
            foreign: Mutex::new(ForeignWatch::new(subject, memory, accept_foreign_before)),
            pair,
            policy,
            folder,
            submitter: Mutex::new(Err("the sidecar is starting".to_owned())),
            forgetful: Mutex::default(),
            own: own.clone(),
            chain,
            network,
            metrics,
        });
        let weak = Arc::downgrade(&signer);
        signer.metrics.read_from(move || weak.upgrade().map(|signer| signer.gauges()).unwrap_or_default());
        Ok(signer)
    }

    /// Keeps the lease and watches the chain until `stop`; then gives the lease back.
    pub(crate) async fn run(&self, place: LeasePlace, stop: CancellationToken) {
        let store: Box<dyn LeaseStore> = match place {
            LeasePlace::File(path) => Box::new(FileStore::new(path)),
            LeasePlace::Kubernetes { namespace, name } => match KubernetesStore::in_cluster(&namespace, &name) {
                Ok(store) => Box::new(store),
                // Everything else goes on: what is missing may come by a restart of this pod, and is said in the status.
                Err(cause) => Box::new(lease::Unusable(format!("{cause:#}"))),
            },
        };
        let (watching, submitting) = (stop.clone(), stop.clone());
        tokio::join!(self.lease.keep(&*store, stop), self.watch_chain(watching), self.run_submitter(submitting));
    }

    /// Keeps a submitter for the Network as it is described.
    async fn run_submitter(&self, stop: CancellationToken) {
        let mut networks = self.network.clone();
        let mut said = None;
        loop {
            let network = networks.borrow_and_update().clone();
            let outdated = match &*self.submitter.lock() {
                Ok(running) => running.is_outdated(&network),
                Err(_) => true,
            };
            if outdated {
                self.stop_submitter("the Network's description has changed").await;
                let started = Running::start(self, LeaseGate(self.own.clone()), &self.folder);
                let cause = started.as_ref().err().cloned();
                *self.submitter.lock() = started;
                // One line for each change.
                if cause != said {
                    if let Some(cause) = &cause {
                        warn!(cause, "no extrinsics are made");
                    } else {
                        info!("extrinsics are made again");
                    }
                }
                said = cause;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = networks.changed() => {}
                () = tokio::time::sleep(FOLDER_RETRY), if said.is_some() => {}
            }
        }
        self.stop_submitter("the sidecar stops").await;
    }

    async fn stop_submitter(&self, why: &str) {
        let before = std::mem::replace(&mut *self.submitter.lock(), Err(why.to_owned()));
        if let Ok(running) = before {
            running.shutdown().await;
        }
    }

    fn with_submitter<T>(&self, use_it: impl FnOnce(&Running) -> T) -> Result<T, Refusal> {
        match &*self.submitter.lock() {
            Ok(running) => Ok(use_it(running)),
            Err(cause) => Err(Refusal::NoSubmitter { cause: cause.clone() }),
        }
    }

    /// The public part of the key.
    pub(crate) fn hotkey(&self) -> Hotkey {
        self.pair.hotkey()
    }

    /// The policy in force.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Signs a message of a domain of the policy.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn sign_message(&self, caller: Caller, domain: &str, message: &[u8]) -> Result<Signed, Refusal> {
        let genesis = self.chain.view().genesis_hash.or(self.network.borrow().genesis_hash);
        let signed = self
            .policy
            .message(domain, message, genesis.as_ref())
            .map_err(Refusal::Policy)
            .and_then(|bytes| self.sign(caller, bytes));
        self.account(Kind::Message, caller, domain, message.len(), signed.as_ref().map(|signed| signed.epoch));
        signed
    }

    /// Lets one of the typed request schemes sign what it makes up: never bytes that a caller chose.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn request<T>(
        &self,
        caller: Caller,
        scheme: &'static str,
        make: impl FnOnce() -> T,
    ) -> Result<T, Refusal> {
        let signed = self.permitted(caller).and_then(|()| self.lease.under(make).map_err(Refusal::NotHeld));
        self.account(Kind::Request, caller, scheme, 0, signed.as_ref().map(|(_, permit)| permit.epoch));
        signed.map(|(headers, _)| headers)
    }

    /// Whether a message may be signed now; counts as one.
    fn permitted(&self, caller: Caller) -> Result<(), Refusal> {
        // The lease first: who is told that another process holds it knows what to do.
        self.lease.permit().map_err(Refusal::NotHeld)?;
        self.clear()?;
        // Last of what can refuse, so that what is refused for another reason costs nothing.
        self.take(caller, Operation::Message)
    }

    fn sign(&self, caller: Caller, bytes: Vec<u8>) -> Result<Signed, Refusal> {
        self.permitted(caller)?;
        let (signature, permit) = self.lease.under(|| self.pair.sign(&bytes)).map_err(Refusal::NotHeld)?;
        Ok(Signed { hotkey: self.pair.hotkey(), signature, bytes, epoch: permit.epoch })
    }

    fn take(&self, caller: Caller, operation: Operation) -> Result<(), Refusal> {
        let taken = self.buckets.lock().take(caller.uid, operation, self.lease.now());
        taken.map_err(|wait| Refusal::Rate { operation: operation.name(), wait })
    }

    /// Nobody else was seen to sign.
    fn clear(&self) -> Result<(), Refusal> {
        match self.foreign.lock().verdict() {
            Verdict::Clear => Ok(()),
            Verdict::Foreign(finding) => Err(Refusal::Foreign(finding)),
            Verdict::Watching { blocks } => Err(Refusal::NotLooked(format!(
                "nothing is known of what this hotkey signed before: {blocks} more blocks are watched for another signer"
            ))),
            Verdict::NotLooked => {
                let problem = self.chain.view().problem.as_ref().map(ToString::to_string).unwrap_or_default();
                Err(Refusal::NotLooked(format!(
                    "the chain was not looked at for another signer yet: {problem}; nothing is signed before"
                )))
            }
        }
    }

    /// One line and one count for each signature asked for. What was to be signed is not in it.
    fn account(&self, kind: Kind, caller: Caller, purpose: &str, bytes: usize, outcome: Result<u64, &Refusal>) {
        let (kind_name, uid, pid) = (kind.name(), caller.uid, caller.pid);
        match outcome {
            Ok(epoch) => {
                self.metrics.signature(kind, "signed");
                info!(target: "sidecar::audit", kind = kind_name, purpose, bytes, epoch, uid, pid, "signed");
            }
            Err(refusal) => {
                self.metrics.signature(kind, refusal.result());
                let reason = refusal.reason();
                info!(target: "sidecar::audit", kind = kind_name, bytes, reason, uid, pid, "not signed");
            }
        }
    }

    /// A person says that what others signed before a block is in order.
    ///
    /// # Errors
    /// What is not covered by that.
    pub(crate) fn acknowledge(&self, before: u64) -> Result<(), Refusal> {
        let (outcome, memory) = {
            let mut foreign = self.foreign.lock();
            (foreign.acknowledge(before), foreign.memory().clone())
        };
        self.keep(&memory)?;
        warn!(before, accepted = outcome.is_ok(), "foreign signatures acknowledged");
        outcome.map_err(Refusal::Foreign)
    }

    /// The signer for status and conditions.
    pub(crate) fn status(&self) -> SignerStatus {
        let tenure = self.lease.tenure();
        let refusal = self.lease.permit().map_err(Refusal::NotHeld).and_then(|_| self.clear());
        let refusal = refusal.and_then(|()| self.remembers()).err();
        let state = match &refusal {
            None => SignerState::Held,
            Some(Refusal::Foreign(_)) => SignerState::ForeignSigner,
            Some(Refusal::NoSubmitter { .. } | Refusal::Memory { .. }) => SignerState::MessagesOnly,
            Some(Refusal::NotHeld(NotHeld::Unreachable { .. } | NotHeld::Expired)) => SignerState::Unreachable,
            Some(Refusal::NotHeld(NotHeld::Released)) => SignerState::Released,
            Some(Refusal::NotHeld(NotHeld::Starting | NotHeld::Settling { .. }) | Refusal::NotLooked(_)) => {
                SignerState::Starting
            }
            Some(_) => SignerState::Waiting,
        };
        let held_since = tenure.and_then(|(held, _)| Timestamp::now().checked_sub(held).ok());
        SignerStatus {
            state,
            held_since: held_since.map(|since| since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            epoch: tenure.map(|(_, epoch)| epoch),
            reason: refusal.as_ref().map_or("Held", Refusal::reason).to_owned(),
            detail: refusal.map(|refusal| refusal.to_string()),
        }
    }

    /// Whether what is signed for the chain could be remembered.
    fn remembers(&self) -> Result<(), Refusal> {
        self.with_submitter(|_| ())?;
        self.forgetful.lock().clone().map_or(Ok(()), Err)
    }

    fn gauges(&self) -> metrics::Gauges {
        metrics::Gauges {
            held: self.lease.permit().is_ok(),
            lease_left_s: self.lease.time_left().as_secs_f64(),
            epoch: self.lease.tenure().map_or(0, |(_, epoch)| epoch),
            foreign: matches!(self.foreign.lock().verdict(), Verdict::Foreign(_)),
        }
    }

    /// Looks at every new view of the chain, once it is known how this process stands to the lease.
    async fn watch_chain(&self, stop: CancellationToken) {
        let (mut views, mut heard) = (self.chain.watch(), self.lease.listen());
        let (mut kept, mut nonce_at) = (0, None);
        loop {
            heard.borrow_and_update();
            let view = views.borrow_and_update().clone();
            let standing = self.lease.standing();
            if let (Some(look), Some(standing)) = (self.look_of(&view), standing) {
                // Nobody knows when this view was asked for, so it says nothing of what was signed until now.
                let unknown = clock::Moment { boot: Duration::ZERO, wall: Duration::ZERO };
                self.lease.looked(unknown, look.block, look.block);
                if self.lease.look_is_due()
                    && let Err(cause) = self.look_anew().await
                {
                    warn!(%cause, "what the signer before has sent is not known yet");
                }
                let due = nonce_at.is_none_or(|at| look.block >= at + NONCE_BLOCKS || look.block < at);
                let looked = if due { self.with_nonce(look).await } else { Ok(look) };
                match looked {
                    Ok(look) => {
                        nonce_at = if due { Some(look.block) } else { nonce_at };
                        kept = self.look(look, standing, kept);
                    }
                    // Without it the first look is not complete; later ones go on with what the metagraph shows.
                    Err(error) if nonce_at.is_none() => warn!(%error, "the account's nonce is not known yet"),
                    Err(_) => kept = self.look(look, standing, kept),
                }
            }
            let known = standing.is_some();
            tokio::select! {
                () = stop.cancelled() => return,
                changed = views.changed() => if changed.is_err() {
                    return;
                },
                _ = heard.changed(), if !known => {}
            }
        }
    }

    /// Takes in one look, and returns the block at which the memory was kept last.
    fn look(&self, look: Look, standing: Standing, kept: u64) -> u64 {
        let (found, memory) = {
            let mut foreign = self.foreign.lock();
            (foreign.look(look, standing), foreign.memory().clone())
        };
        if let Some(finding) = found {
            error!(block = finding.block, trace = ?finding.trace, %finding, "another process signs with this hotkey: nothing is signed any more");
        }
        if found.is_none() && look.block < kept.saturating_add(KEEP_BLOCKS) && kept != 0 {
            return kept;
        }
        match self.keep(&memory) {
            Ok(()) => look.block,
            Err(cause) => {
                warn!(%cause, "signer memory was not kept");
                // Tried again as if it had been: once a block would be too much in the log.
                look.block
            }
        }
    }

    /// Asks the chain now, for who has to know that the answer is not from before; returns its newest final block.
    async fn look_anew(&self) -> Result<u64, Refusal> {
        let asked = self.lease.now();
        let view = self.chain.refresh().await.map_err(|problem| Refusal::NotLooked(problem.to_string()))?;
        let metagraph = view.metagraph.as_ref();
        let block = metagraph.ok_or_else(|| Refusal::NotLooked("the chain was not read yet".to_owned()))?.block;
        self.lease.looked(asked, block, block);
        Ok(block)
    }

    fn look_of(&self, view: &ChainView) -> Option<Look> {
        let metagraph = view.metagraph.as_ref()?;
        let neuron = metagraph.by_hotkey(&self.pair.hotkey());
        // Both are set to the block of the registration, which is the coldkey's work.
        let weights =
            neuron.filter(|neuron| neuron.last_update != neuron.registered_at).map(|neuron| neuron.last_update);
        let axon = neuron.and_then(|neuron| neuron.axon.as_ref()).map(|axon| axon.block);
        Some(Look { block: metagraph.block, weights, axon, nonce: None })
    }

    fn keep(&self, memory: &Memory) -> Result<(), Refusal> {
        let path = memory_file(&self.folder);
        let kept = write_memory(&path, memory).map_err(|error| Refusal::Memory { path, cause: error.to_string() });
        *self.forgetful.lock() = kept.as_ref().err().cloned();
        kept
    }
}

fn memory_file(folder: &Path) -> PathBuf {
    folder.join("signer.json")
}

/// Whose memory it is.
fn subject(hotkey: Hotkey, network: &NetworkConfig) -> String {
    let genesis = network.genesis_hash.map(|hash| hash.to_string()).unwrap_or_default();
    format!("{hotkey} {} {genesis}", network.netuid)
}

fn read_memory(path: &Path) -> anyhow::Result<Option<Memory>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(anyhow::Error::from(error).context(format!("signer memory `{}`", path.display()))),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        anyhow::anyhow!(
            "signer memory `{}` is damaged ({error}): make sure that no other sidecar has this hotkey, then remove the file",
            path.display()
        )
    })
}

/// Beside and renamed, so that a crash leaves the old one or the new one.
fn write_memory(path: &Path, memory: &Memory) -> std::io::Result<()> {
    use std::io::Write as _;
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let beside = path.with_extension("new");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(&serde_json::to_vec(memory)?)?;
    file.sync_data()?;
    std::fs::rename(&beside, path)
}
