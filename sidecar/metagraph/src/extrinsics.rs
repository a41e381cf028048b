//! Extrinsics: what this process asks the chain to do, once each.
//!
//! The danger here is not that a submission fails but that it happens twice: a node that answers nothing may have taken
//! the extrinsic all the same, and a process that is killed forgets that it sent one. So every intent is written to disk
//! before anything is signed (`journal`), and what happens next is decided from what the chain says, never from what
//! was last heard ([`decide`]). Three facts of the chain carry this:
//!
//! - Of all extrinsics with one nonce at most one is ever included. While an earlier extrinsic of an intent may still be
//!   included, a new one takes the same nonce.
//! - An extrinsic names the blocks in which it may be included. After the last of them is final it is dead.
//! - Sending the same bytes again is no second extrinsic.
//!
//! One task owns the nonce and one connection ([`Submitter`]). Calls are encoded, and errors named, by the metadata of the
//! runtime at hand, because indices change with every upgrade.

mod call;
mod decide;
mod facts;
mod failure;
mod journal;
mod link;
mod nonces;
mod reveal;
mod serving;
mod submitter;
mod timelock;
mod weights;

pub use call::{Call, CommitmentField, SignedBy, mechanism_index};
pub use failure::{FailureClass, SubmitError};
pub use journal::{ChainEvent, ExtrinsicHash, JournalError, Receipt};
pub use nonces::Nonces;
pub use reveal::{RevealError, RevealMaterial, RevealState, Reveals, commit_hash};
pub use serving::{AxonWish, Served};
pub use submitter::{
    Gate, GateError, Intent, OpenGate, Probe, Step, SubmitConfig, Submitted, Submitter, SubmitterHandle, Wait,
};
pub use timelock::{TimelockError, drand_round_at, encrypt_for_round, timelocked_commit};
pub use weights::{WeightValues, WeightsMethod, WeightsOutcome, WeightsSetter, WeightsWish, normalize_weights};
