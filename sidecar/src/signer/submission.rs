//! Extrinsics: what the user's container wants on the chain, and the guard in front of every signature of the submitter.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use sidecar_metagraph::extrinsics::{
    AxonWish, Call, CommitmentField, FailureClass, Gate, GateError, Intent, Reveals, Served, SubmitConfig, SubmitError,
    Submitted, Submitter, SubmitterHandle, Wait, WeightValues, WeightsOutcome, WeightsSetter, WeightsWish,
};
use sidecar_util::config::NetworkConfig;
use sidecar_util::{AxonProtocol, BlockHash};
use tokio::task::JoinHandle;

use super::foreign::{Look, Trace};
use super::guard::{ERA_BLOCKS, MORTALITY_BLOCKS};
use super::policy::CallKind;
use super::{Caller, Kind, NotHeld, Operation, Refusal, Signer};

/// Time to ask for the account's nonce: a connection may have to be made first.
const NONCE_DEADLINE: Duration = Duration::from_secs(30);

/// Weights as a container gives them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weights {
    pub(crate) uids: Vec<u16>,
    pub(crate) values: Vec<f64>,
    pub(crate) mechanism: Option<u8>,
    pub(crate) version_key: Option<u64>,
}

/// An axon as a container gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AxonAddress {
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
    pub(crate) protocol: AxonProtocol,
    pub(crate) version: u32,
}

/// The running submitter and what belongs to it.
pub(super) struct Running {
    submitter: Submitter,
    pub(super) setter: WeightsSetter,
    revealing: JoinHandle<()>,
    /// What it was started for.
    started_for: Started,
}

/// What a submitter cannot change while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Started {
    endpoints: Vec<String>,
    genesis_hash: Option<BlockHash>,
}

impl Started {
    fn of(network: &NetworkConfig) -> Self {
        Self { endpoints: network.endpoints.clone(), genesis_hash: network.genesis_hash }
    }
}

impl Running {
    /// Starts a submitter on the journal in a folder.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub(super) fn start(signer: &Signer, gate: LeaseGate, folder: &Path) -> Result<Self, String> {
        let network = signer.network.borrow().clone();
        let started_for = Started::of(&network);
        let mut config = SubmitConfig::new(network.endpoints.clone(), folder.join("extrinsics"));
        config.genesis_hash = network.genesis_hash;
        config.era_blocks = ERA_BLOCKS;
        config.paces = signer.chain.paces();
        let reveals = Reveals::open(&folder.join("reveals")).map_err(|error| error.to_string())?;
        let submitter = Submitter::spawn(config, signer.pair.clone(), Arc::new(gate))
            .map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
        let setter = WeightsSetter::new(submitter.handle(), reveals.clone());
        let revealing = tokio::spawn(reveals.run(submitter.handle()));
        Ok(Self { submitter, setter, revealing, started_for })
    }

    pub(super) fn handle(&self) -> SubmitterHandle {
        self.submitter.handle()
    }

    /// Whether a Network's description needs another one.
    pub(super) fn is_outdated(&self, network: &NetworkConfig) -> bool {
        self.started_for != Started::of(network)
    }

    pub(super) async fn shutdown(self) {
        self.submitter.shutdown().await;
        // It ends with the submitter; only a panic would be news.
        if let Err(error) = self.revealing.await {
            tracing::warn!(%error, "the task that reveals weights ended badly");
        }
    }
}

/// Asks the signer before every signature and every submission.
pub(super) struct LeaseGate(pub(super) Weak<Signer>);

#[async_trait]
impl Gate for LeaseGate {
    async fn permit(&self, call: &Call) -> Result<(), GateError> {
        let closed = || GateError { reason: "the signer has ended".to_owned(), class: FailureClass::Stop };
        let signer = self.0.upgrade().ok_or_else(closed)?;
        signer.permit_call(call).await.map_err(|refusal| {
            let class = match &refusal {
                Refusal::Policy(_) => FailureClass::Configuration,
                Refusal::Foreign(_) | Refusal::NotHeld(NotHeld::Released) => FailureClass::Stop,
                Refusal::NotHeld(NotHeld::Fenced { fence, finalized }) => {
                    FailureClass::WaitBlocks(fence.saturating_sub(*finalized).max(1))
                }
                _ => FailureClass::WaitBlocks(1),
            };
            GateError { reason: refusal.to_string(), class }
        })
    }
}

impl Signer {
    /// Whether an extrinsic may be signed or sent now. What permits it stands in the lease and on disk before it does.
    async fn permit_call(&self, call: &Call) -> Result<(), Refusal> {
        let outcome = self.look_before(call).await;
        match &outcome {
            Ok(epoch) => {
                // Asked twice for each: before it is signed, and before it is sent.
                self.metrics.signature(Kind::Extrinsic, "permitted");
                tracing::info!(target: "sidecar::audit", kind = Kind::Extrinsic.name(), purpose = call.name(), epoch, "permitted");
            }
            Err(refusal) => {
                self.metrics.signature(Kind::Extrinsic, refusal.result());
                let reason = refusal.reason();
                tracing::info!(target: "sidecar::audit", kind = Kind::Extrinsic.name(), purpose = call.name(), reason, "not permitted");
            }
        }
        outcome.map(drop)
    }

    async fn look_before(&self, call: &Call) -> Result<u64, Refusal> {
        let own = self.network.borrow().netuid;
        let kind = self.policy.call(call.name(), call.netuid(), own).map_err(Refusal::Policy)?;
        self.clear()?;
        self.lease.permit().map_err(Refusal::NotHeld)?;
        let block = self.current_block()?;
        let permit = match self.lease.permit_extrinsic(block + MORTALITY_BLOCKS, block).await {
            Err(NotHeld::NotLooked) => {
                let fresh = self.look_anew().await?;
                self.lease.permit_extrinsic(fresh + MORTALITY_BLOCKS, fresh).await
            }
            outcome => outcome,
        };
        let permit = permit.map_err(Refusal::NotHeld)?;
        let memory = {
            let mut foreign = self.foreign.lock();
            if let Some(trace) = trace_of(kind) {
                foreign.signing(trace, block, block + MORTALITY_BLOCKS);
            }
            foreign.memory().clone()
        };
        self.keep(&memory)?;
        // The lease may have run out while the disk was busy.
        self.lease.permit().map_err(Refusal::NotHeld)?;
        Ok(permit.epoch)
    }

    /// The newest block known, if that is what the chain is at.
    fn current_block(&self) -> Result<u64, Refusal> {
        let view = self.chain.view();
        match &view.metagraph {
            Some(metagraph) if view.is_synced() => Ok(metagraph.block),
            _ => {
                let problem = view.problem.as_ref().map(ToString::to_string).unwrap_or_default();
                Err(Refusal::NotLooked(format!("the view of the chain is not current: {problem}")))
            }
        }
    }

    /// What can refuse a request before the chain is asked anything.
    fn admit(&self, caller: Caller, operation: Operation, kinds: &[CallKind]) -> Result<(), Refusal> {
        if !kinds.iter().any(|kind| self.policy.calls.contains(kind)) {
            let own = self.network.borrow().netuid;
            let name = kinds.first().map_or("", |kind| kind.name());
            self.policy.call(name, own, own).map_err(Refusal::Policy)?;
        }
        self.clear()?;
        self.lease.permit().map_err(Refusal::NotHeld)?;
        self.take(caller, operation)
    }

    /// Sets weights as the subnet wants them, once per key, and waits for them, or for the commit to them.
    ///
    /// # Errors
    /// The signer or the chain says no.
    pub(crate) async fn set_weights(
        &self,
        caller: Caller,
        key: &str,
        weights: Weights,
        wait: Wait,
    ) -> Result<WeightsOutcome, Refusal> {
        let Weights { uids, values, mechanism, version_key } = weights;
        let neurons = self.chain.view().metagraph.as_ref().map(|metagraph| metagraph.neurons.len());
        let checked = self.policy.weights(&uids, &values, version_key, neurons).map_err(Refusal::Policy);
        let admitted = checked
            .and_then(|()| self.admit(caller, Operation::Weights, &[CallKind::SetWeights, CallKind::CommitWeights]));
        self.refused(caller, admitted)?;
        let setter = self.with_submitter(|running| running.setter.clone())?;
        let netuid = self.network.borrow().netuid;
        let version_key = version_key.or(self.policy.weights.version_key).unwrap_or_default();
        let key = intent_key(caller, "weights", key);
        let values = WeightValues::Scores(values);
        let wish = WeightsWish { key, netuid, mecid: mechanism, uids, values, version_key, wait };
        self.settle(caller, Operation::Weights, setter.set(wish).await)
    }

    /// Serves an axon unless the chain shows it already.
    ///
    /// # Errors
    /// The signer or the chain says no.
    pub(crate) async fn serve_axon(
        &self,
        caller: Caller,
        key: &str,
        axon: AxonAddress,
        wait: Wait,
    ) -> Result<Served, Refusal> {
        self.refused(caller, self.admit(caller, Operation::Axon, &[CallKind::ServeAxon]))?;
        let handle = self.with_submitter(Running::handle)?;
        let (netuid, local) = {
            let network = self.network.borrow();
            (network.netuid, network.local)
        };
        let AxonAddress { ip, port, protocol, version } = axon;
        let wish = AxonWish { netuid, ip, port, protocol, version, local };
        let served = handle.serve_axon(&intent_key(caller, "axon", key), &wish, wait).await;
        self.settle(caller, Operation::Axon, served)
    }

    /// Publishes a commitment of this hotkey.
    ///
    /// # Errors
    /// The signer or the chain says no.
    pub(crate) async fn set_commitment(
        &self,
        caller: Caller,
        key: &str,
        data: Vec<u8>,
        wait: Wait,
    ) -> Result<Submitted, Refusal> {
        self.refused(caller, self.admit(caller, Operation::Commitment, &[CallKind::SetCommitment]))?;
        let handle = self.with_submitter(Running::handle)?;
        let netuid = self.network.borrow().netuid;
        let call = Call::SetCommitment { netuid, fields: vec![CommitmentField::Raw(data)] };
        let intent = Intent { key: intent_key(caller, "commitment", key), call, wait };
        self.settle(caller, Operation::Commitment, handle.submit(intent).await)
    }

    /// What was not permitted was not sent, and is not counted: who asks again until a predecessor's extrinsics are dead
    /// asks not too often.
    fn settle<T>(&self, caller: Caller, operation: Operation, outcome: Result<T, SubmitError>) -> Result<T, Refusal> {
        outcome.map_err(|error| {
            if matches!(error, SubmitError::Gate { .. }) {
                self.buckets.lock().give_back(caller.uid, operation);
            }
            Refusal::Submission(Box::new(error))
        })
    }

    /// Counts what is refused before the submitter hears of it.
    fn refused(&self, caller: Caller, outcome: Result<(), Refusal>) -> Result<(), Refusal> {
        if let Err(refusal) = &outcome {
            self.metrics.signature(Kind::Extrinsic, refusal.result());
            let (reason, uid, pid) = (refusal.reason(), caller.uid, caller.pid);
            tracing::info!(target: "sidecar::audit", kind = Kind::Extrinsic.name(), reason, uid, pid, "not signed");
        }
        outcome
    }

    /// The account's nonce against the journal, for [`super::foreign`]. `None` where there is no submitter to ask.
    pub(super) async fn with_nonce(&self, look: Look) -> Result<Look, SubmitError> {
        let Ok(handle) = self.with_submitter(Running::handle) else { return Ok(look) };
        let nonces = tokio::time::timeout(NONCE_DEADLINE, handle.nonces()).await.unwrap_or_else(|_| {
            Err(SubmitError::Unreachable { why: format!("no answer within {} s", NONCE_DEADLINE.as_secs()) })
        })?;
        if let Some(used) = nonces.used {
            self.foreign.lock().used_nonce(used);
        }
        Ok(Look { nonce: Some(nonces.sent), ..look })
    }
}

/// Keys of one container are no other's, and those of one operation no other's.
fn intent_key(caller: Caller, operation: &str, key: &str) -> String {
    format!("{operation}:{}:{key}", caller.uid)
}

/// Where a call shows; commitments show in the nonce only.
fn trace_of(kind: CallKind) -> Option<Trace> {
    match kind {
        CallKind::SetWeights | CallKind::CommitWeights | CallKind::RevealWeights => Some(Trace::Weights),
        CallKind::ServeAxon => Some(Trace::Axon),
        CallKind::SetCommitment => None,
    }
}
