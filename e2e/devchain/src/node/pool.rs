//! The transaction pool: what was submitted and is not in a block yet.
//!
//! As in Substrate, an extrinsic provides tags and may require others (the nonce before its own); those whose
//! requirements are met are ready and go by priority, the others wait.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sp_runtime::transaction_validity::{InvalidTransaction, TransactionTag, UnknownTransaction, ValidTransaction};
use tokio::sync::mpsc;

use super::executor::{Offered, Offers};
use crate::runtime::{Hash, UncheckedExtrinsic};

/// Extrinsics in the pool, as many as Substrate's default.
const MAX_TRANSACTIONS: usize = 8192;

/// Bytes of all extrinsics in the pool.
const MAX_BYTES: usize = 20 * 1024 * 1024;

/// Blocks for which an extrinsic that failed in a block is refused.
const BAN_BLOCKS: u32 = 20;

/// Why the pool refuses an extrinsic. The texts and codes are Substrate's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The bytes are no extrinsic.
    #[error("Extrinsic has invalid format: {0}")]
    BadFormat(String),
    /// The runtime refuses it.
    #[error("Invalid Transaction")]
    Invalid(InvalidTransaction),
    /// The runtime cannot judge it.
    #[error("Unknown Transaction Validity")]
    Unknown(UnknownTransaction),
    /// It failed in a block not long ago.
    #[error("Transaction is temporarily banned")]
    TemporarilyBanned,
    /// It is in the pool already.
    #[error("Transaction Already Imported")]
    AlreadyImported(Hash),
    /// Another one with the same nonce has at least its priority.
    #[error("Priority is too low: ({old} vs {new})")]
    TooLowPriority {
        /// Priority of the one in the pool.
        old: u64,
        /// Priority of this one.
        new: u64,
    },
    /// The pool is full.
    #[error("Immediately Dropped")]
    ImmediatelyDropped,
}

/// What happens to an extrinsic that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxStatus {
    /// It waits for another one.
    Future,
    /// It may be in the next block.
    Ready,
    /// It is in a block.
    InBlock(Hash),
    /// Its block is no longer part of the chain.
    Retracted(Hash),
    /// Its block is final.
    Finalized(Hash),
    /// Another one took its nonce.
    Usurped(Hash),
    /// It can never be included.
    Invalid,
    /// The pool had no room for it.
    Dropped,
}

/// Who watches an extrinsic. The receiver may be gone; nobody minds.
pub(super) type Watcher = mpsc::UnboundedSender<TxStatus>;

/// An extrinsic that left the pool with those who watch it.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) extrinsic: Hash,
    pub(super) watchers: Vec<Watcher>,
}

struct Pooled {
    extrinsic: UncheckedExtrinsic,
    bytes: Vec<u8>,
    validity: ValidTransaction,
    /// Last block at which it may be included.
    valid_till: u64,
    arrival: u64,
    watchers: Vec<Watcher>,
}

/// An extrinsic that was validated and may enter the pool.
pub(super) struct Candidate {
    pub(super) hash: Hash,
    pub(super) extrinsic: UncheckedExtrinsic,
    pub(super) bytes: Vec<u8>,
    pub(super) validity: ValidTransaction,
    pub(super) watchers: Vec<Watcher>,
}

/// The pool.
#[derive(Default)]
pub(super) struct Pool {
    all: BTreeMap<Hash, Pooled>,
    providers: HashMap<TransactionTag, Hash>,
    banned_till: BTreeMap<Hash, u32>,
    arrivals: u64,
    bytes: usize,
}

impl Pool {
    /// Cheap checks before an extrinsic is validated.
    pub(super) fn check(&self, hash: Hash) -> Result<(), PoolError> {
        if self.banned_till.contains_key(&hash) {
            return Err(PoolError::TemporarilyBanned);
        }
        if self.all.contains_key(&hash) {
            return Err(PoolError::AlreadyImported(hash));
        }
        Ok(())
    }

    /// Takes in a validated extrinsic; one with the same nonce and less priority makes way for it.
    pub(super) fn insert(&mut self, candidate: Candidate, block: u64) -> Result<(), PoolError> {
        self.check(candidate.hash)?;
        let rivals: BTreeSet<Hash> =
            candidate.validity.provides.iter().filter_map(|tag| self.providers.get(tag).copied()).collect();
        let new = candidate.validity.priority;
        let strongest = rivals.iter().filter_map(|rival| self.all.get(rival)).map(|tx| tx.validity.priority).max();
        if let Some(old) = strongest.filter(|old| *old >= new) {
            return Err(PoolError::TooLowPriority { old, new });
        }
        for rival in rivals {
            self.remove(rival, Some(TxStatus::Usurped(candidate.hash)));
        }
        if self.all.len() >= MAX_TRANSACTIONS || self.bytes + candidate.bytes.len() > MAX_BYTES {
            return Err(PoolError::ImmediatelyDropped);
        }
        let status = if self.is_ready(&candidate.validity) { TxStatus::Ready } else { TxStatus::Future };
        notify(&candidate.watchers, status);
        for tag in &candidate.validity.provides {
            self.providers.insert(tag.clone(), candidate.hash);
        }
        self.bytes += candidate.bytes.len();
        self.arrivals += 1;
        let pooled = Pooled {
            extrinsic: candidate.extrinsic,
            bytes: candidate.bytes,
            valid_till: block.saturating_add(candidate.validity.longevity),
            validity: candidate.validity,
            arrival: self.arrivals,
            watchers: candidate.watchers,
        };
        self.all.insert(candidate.hash, pooled);
        Ok(())
    }

    /// Whether what an extrinsic requires is provided by others of the pool, all the way down.
    fn is_ready(&self, validity: &ValidTransaction) -> bool {
        let mut wanted: Vec<&TransactionTag> = validity.requires.iter().collect();
        let mut seen = HashSet::new();
        while let Some(tag) = wanted.pop() {
            let Some(tx) = self.providers.get(tag).and_then(|hash| self.all.get(hash)) else { return false };
            if seen.insert(tag) {
                wanted.extend(&tx.validity.requires);
            }
        }
        true
    }

    fn remove(&mut self, hash: Hash, status: Option<TxStatus>) -> Option<Pooled> {
        let tx = self.all.remove(&hash)?;
        self.bytes -= tx.bytes.len();
        for tag in &tx.validity.provides {
            if self.providers.get(tag) == Some(&hash) {
                self.providers.remove(tag);
            }
        }
        if let Some(status) = status {
            notify(&tx.watchers, status);
        }
        Some(tx)
    }

    /// Encoded extrinsics, in the order of arrival.
    pub(super) fn pending(&self) -> Vec<Vec<u8>> {
        let mut all: Vec<&Pooled> = self.all.values().collect();
        all.sort_by_key(|tx| tx.arrival);
        all.into_iter().map(|tx| tx.bytes.clone()).collect()
    }

    /// How many extrinsics there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Takes everything out, in the order of arrival: encoded extrinsics and who watches them.
    pub(super) fn drain(&mut self) -> Vec<(Vec<u8>, Vec<Watcher>)> {
        let mut all: Vec<Pooled> = std::mem::take(&mut self.all).into_values().collect();
        all.sort_by_key(|tx| tx.arrival);
        self.providers.clear();
        self.bytes = 0;
        all.into_iter().map(|tx| (tx.bytes, tx.watchers)).collect()
    }

    /// Forgets who was banned.
    pub(super) fn pardon(&mut self) {
        self.banned_till.clear();
    }

    /// Whether the pool provides a tag.
    pub(super) fn provides(&self, tag: &TransactionTag) -> bool {
        self.providers.contains_key(tag)
    }

    /// Whether anything could go into a block.
    pub(super) fn has_ready(&self) -> bool {
        self.all.values().any(|tx| tx.validity.requires.is_empty())
    }

    /// The order in which extrinsics are offered to a block.
    pub(super) fn queue(&self) -> Queue {
        let mut queue = Queue::default();
        for (hash, tx) in &self.all {
            let missing: BTreeSet<TransactionTag> = tx.validity.requires.iter().cloned().collect();
            let rank = (std::cmp::Reverse(tx.validity.priority), tx.arrival, *hash);
            if missing.is_empty() {
                queue.ready.insert(rank);
            } else {
                queue.waiting.push((missing, rank));
            }
            queue.extrinsics.insert(*hash, (tx.extrinsic.clone(), tx.validity.provides.clone()));
        }
        queue.waiting.sort_by_key(|(_, rank)| *rank);
        queue
    }

    /// Throws an extrinsic out for good.
    pub(super) fn ban(&mut self, hash: Hash, number: u32) {
        self.remove(hash, Some(TxStatus::Invalid));
        self.banned_till.insert(hash, number + BAN_BLOCKS);
    }

    /// After a block: forgets what it holds and what can no longer be included, and returns who watches what it holds.
    pub(super) fn after_block(&mut self, number: u32, queue: Queue) -> Vec<Watched> {
        self.banned_till.retain(|_, till| *till > number);
        let mut watchers = Vec::new();
        let mut provided = HashSet::new();
        for hash in queue.included {
            if let Some(tx) = self.remove(hash, None) {
                provided.extend(tx.validity.provides);
                if !tx.watchers.is_empty() {
                    watchers.push(Watched { extrinsic: hash, watchers: tx.watchers });
                }
            }
        }
        for hash in queue.invalid {
            self.ban(hash, number);
        }
        for tx in self.all.values_mut() {
            tx.validity.requires.retain(|tag| !provided.contains(tag));
        }
        let expired: Vec<Hash> =
            self.all.iter().filter(|(_, tx)| tx.valid_till <= u64::from(number)).map(|(hash, _)| *hash).collect();
        for hash in expired {
            self.remove(hash, Some(TxStatus::Invalid));
        }
        watchers
    }
}

pub(super) fn notify_all(watched: &[Watched], status: TxStatus) {
    for watched in watched {
        notify(&watched.watchers, status);
    }
}

pub(super) fn notify(watchers: &[Watcher], status: TxStatus) {
    for watcher in watchers {
        // A client that went away is no reason to stop.
        let _ = watcher.send(status);
    }
}

type Rank = (std::cmp::Reverse<u64>, u64, Hash);

/// Extrinsics on their way into one block.
#[derive(Default)]
pub(super) struct Queue {
    ready: BTreeSet<Rank>,
    waiting: Vec<(BTreeSet<TransactionTag>, Rank)>,
    extrinsics: HashMap<Hash, (UncheckedExtrinsic, Vec<TransactionTag>)>,
    offered: Option<Hash>,
    included: Vec<Hash>,
    invalid: Vec<Hash>,
}

impl Queue {
    /// The extrinsic on which the runtime gave up, if it was on one.
    pub(super) fn culprit(&self) -> Option<Hash> {
        self.offered
    }

    /// How many extrinsics went into the block.
    pub(super) fn included(&self) -> usize {
        self.included.len()
    }
}

impl Offers for Queue {
    fn next(&mut self) -> Option<UncheckedExtrinsic> {
        let (_, _, hash) = self.ready.pop_first()?;
        self.offered = Some(hash);
        self.extrinsics.get(&hash).map(|(extrinsic, _)| extrinsic.clone())
    }

    fn outcome(&mut self, outcome: Offered) {
        let Some(hash) = self.offered.take() else { return };
        match outcome {
            Offered::Included => {
                self.included.push(hash);
                let Some((_, provides)) = self.extrinsics.get(&hash) else { return };
                for (missing, rank) in &mut self.waiting {
                    missing.retain(|tag| !provides.contains(tag));
                    if missing.is_empty() {
                        self.ready.insert(*rank);
                    }
                }
                self.waiting.retain(|(missing, _)| !missing.is_empty());
            }
            Offered::Invalid => self.invalid.push(hash),
            Offered::Later | Offered::Full => {}
        }
    }
}
