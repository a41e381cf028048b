//! Whether this process may sign now: pure, so that the simulation drives the very code that runs.
//!
//! # Problem
//! Two running copies of one hotkey are the accident that costs operators most, and every lease of the field loses to the
//! same three faults: a process that is paused between looking at its lease and using it, a clock that jumps, and a request
//! that arrives late.
//!
//! # Invariants
//! 1. The lease ends, for its holder, counted from *before* the request that won or renewed it was sent, and [`Rules::margin`]
//!    sooner; for everybody else, counted from *after* they saw the last change of it. So nobody else can have it while its
//!    holder counts on it, however slow the messages. What a read says never prolongs anything.
//! 2. A signature is made between two looks at the lease ([`Guard::permit`] and [`Guard::confirm`]); one that was made while
//!    the process slept is thrown away by the second.
//! 3. What is already on its way to the chain cannot be called back. So before an extrinsic is signed, the block at which
//!    it dies is written into the lease (the *fence*), and who takes the lease over signs no extrinsic before the chain has
//!    finalised that block.
//! 4. A lease that is not there, or that was given back by somebody who does not know these rules, is waited for like one
//!    that is held: its last holder may still count on it. The fence that went with it is taken to be as far as can be.
//!
//! The wall clock's answer is never compared with anybody else's, block numbers are compared with block numbers only, and
//! an identity belongs to one process: a restarted one does not take itself for its predecessor.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::Moment;
use super::foreign::Standing;

/// Durations that everything else follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// How long a lease lasts for everybody but its holder.
    pub(crate) duration: Duration,
    /// How much sooner it ends for its holder: time for a signature and its submission, and for clocks that run unequally.
    pub(crate) margin: Duration,
    /// Age at which the holder renews it.
    pub(crate) renew_after: Duration,
    /// Pause between two looks at a lease of somebody else, or after a failure.
    pub(crate) retry_after: Duration,
    /// Time for one request to the store.
    pub(crate) deadline: Duration,
    /// Blocks in which an extrinsic of anybody who follows these rules can enter the chain, at the most.
    pub(crate) mortality_blocks: u64,
    /// What is taken to be under way where there is no record: a Lease was removed, while a file is not there before the
    /// first start.
    pub(crate) absent: Fence,
}

/// Blocks for which the submitter's signatures are good. Short, because who takes over has to wait for their end, and long
/// enough for a pool that is full; what was not included is signed again.
pub(crate) const ERA_BLOCKS: u64 = 16;

/// See [`Rules::mortality_blocks`]: an era, and as many blocks again by which the newest final block known may be behind the
/// one that the era begins with.
pub(crate) const MORTALITY_BLOCKS: u64 = 2 * ERA_BLOCKS;

impl Rules {
    /// Of a Lease of Kubernetes: the customary 15 s, so that a slow API server does not stop signing.
    pub(crate) const KUBERNETES: Self = Self {
        duration: Duration::from_secs(15),
        margin: Duration::from_secs(3),
        renew_after: Duration::from_secs(5),
        retry_after: Duration::from_secs(2),
        deadline: Duration::from_secs(4),
        mortality_blocks: MORTALITY_BLOCKS,
        absent: Fence::Unknown,
    };

    /// Of a lock on a file: the kernel watches over it, so that only a file that is replaced is waited for.
    pub(crate) const FILE: Self = Self {
        duration: Duration::from_secs(15),
        margin: Duration::from_secs(3),
        renew_after: Duration::from_secs(7),
        retry_after: Duration::from_millis(500),
        deadline: Duration::from_secs(1),
        mortality_blocks: MORTALITY_BLOCKS,
        absent: Fence::Settled,
    };
}

/// Duration in the record of a lease that was given back by these rules: its holder had stopped before it wrote that.
pub(crate) const RELEASED: Duration = Duration::from_secs(1);

/// What was signed and may still be on its way to the chain. The larger one says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fence {
    /// Nothing.
    #[default]
    Settled,
    /// Something that is dead from this block on.
    Until(u64),
    /// Nobody knows: the lease that said so is gone.
    Unknown,
}

/// A lease as its store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaseRecord {
    /// Which process holds it; `None` once it was given back.
    pub(crate) holder: Option<String>,
    /// How long it lasts after its last change.
    pub(crate) duration: Duration,
    /// Counts the holders: a larger one came later.
    pub(crate) epoch: u64,
    /// What was signed under this lease until now.
    pub(crate) fence: Fence,
    /// Tells this state of the record from all others; given by the store.
    pub(crate) version: String,
    /// Whether the store itself knows that the holder lives, as the kernel does of a lock: then it does not lapse.
    pub(crate) alive: bool,
}

/// What to ask of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Read the record.
    Read,
    /// Write it over the version given; over nothing where there is none.
    Write { record: LeaseRecord, over: Option<String> },
}

/// What the store answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The record as it is; `None` where there is none.
    Found(Option<LeaseRecord>),
    /// It was written, and is now this.
    Written(LeaseRecord),
    /// Somebody else wrote in between.
    Conflict,
    /// Nobody knows: no answer, or an error.
    Failed(String),
}

/// A request under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// When it was made up, which is before it was sent.
    sent: Moment,
    pub(crate) request: Request,
}

/// Leave to sign, good for as long as [`Guard::confirm`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permit {
    /// The lease's epoch, which goes into the record of the signature.
    pub(crate) epoch: u64,
}

/// Why nothing is signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotHeld {
    /// Not looked at yet.
    #[error("the lease was not read yet: try again in a few seconds")]
    Starting,
    /// Another process has it.
    #[error(
        "the lease is held by `{holder}` (epoch {epoch}): one hotkey has one signer; stop that process, or wait until its lease ends"
    )]
    Foreign {
        /// Which.
        holder: String,
        /// Its epoch.
        epoch: u64,
    },
    /// There was none, or one given back by other rules.
    #[error("the lease is free, but a holder of before may still count on it: try again in {} s", wait.as_secs() + 1)]
    Settling {
        /// How much longer.
        wait: Duration,
    },
    /// The store does not answer as it should.
    #[error("the lease could not be renewed: {error}; signing goes on when its store answers again")]
    Unreachable {
        /// What it said last.
        error: String,
    },
    /// It ran out, and the store was not asked since: the process was paused.
    #[error("the lease ran out while this process stood still: it is asked for again")]
    Expired,
    /// This process is about to end.
    #[error("the lease was given back: this sidecar stops")]
    Released,
    /// Something signed by the holder before can still enter the chain.
    #[error("extrinsics of the signer before can enter the chain until block {fence}, finalised is {finalized}: try again after {} more blocks", fence.saturating_sub(*finalized))]
    Fenced {
        /// From this block on they are dead.
        fence: u64,
        /// The newest final block known.
        finalized: u64,
    },
    /// How far the extrinsics of the holder before reach is not known yet.
    #[error("the lease was made anew, and the chain was not looked at since: try again in a few blocks")]
    NotLooked,
    /// The fence of this very extrinsic is not in the lease yet.
    #[error("the block at which this extrinsic dies is not written into the lease yet: try again in a few seconds")]
    FenceNotWritten,
}

impl NotHeld {
    /// One word in `CamelCase`, from a closed set.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::Foreign { .. } => "HeldByAnother",
            Self::Settling { .. } => "Settling",
            Self::Unreachable { .. } => "LeaseUnreachable",
            Self::Expired => "LeaseExpired",
            Self::Released => "Released",
            Self::Fenced { .. } => "PredecessorMayStillWrite",
            Self::NotLooked => "ChainNotLookedAt",
            Self::FenceNotWritten => "FenceNotWritten",
        }
    }
}

/// What is known of the record.
#[derive(Debug, Clone)]
enum Belief {
    /// It has to be read.
    Unknown,
    /// There is none.
    Absent,
    /// Somebody else's, or nobody's; this version was seen first then.
    Theirs { record: LeaseRecord, since: Moment },
    /// Ours.
    Ours(Tenure),
}

/// A lease that this process holds.
#[derive(Debug, Clone)]
struct Tenure {
    record: LeaseRecord,
    /// Before the request was sent that made it so, or prolonged it last.
    sent: Moment,
    /// Since when, for people.
    acquired: Moment,
    /// How long after `acquired` nothing is signed.
    settling: Duration,
    /// What has to be final before this tenure's first extrinsic.
    before: Fence,
}

/// The lease of one process. See the head of this file.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own: no two make a state together")]
pub(crate) struct Guard {
    rules: Rules,
    identity: String,
    belief: Belief,
    /// When the last request was made up.
    asked: Option<Moment>,
    under_way: bool,
    /// Whether the record may be another one than believed, so that it is read before it is written.
    doubtful: bool,
    /// Whether the store ever answered.
    heard: bool,
    /// The largest epoch seen: one that is made anew does not start again below.
    epoch_max: u64,
    /// What the store said last, if it was nothing good.
    error: Option<String>,
    /// What this process has signed; never unknown.
    signed: Fence,
    stopping: bool,
}

impl Guard {
    /// A guard that holds nothing yet. No two processes may have the same identity, not even one after the other.
    pub(crate) fn new(rules: Rules, identity: String) -> Self {
        Self {
            rules,
            identity,
            belief: Belief::Unknown,
            asked: None,
            under_way: false,
            doubtful: false,
            heard: false,
            epoch_max: 0,
            error: None,
            signed: Fence::Settled,
            stopping: false,
        }
    }

    /// The durations.
    pub(crate) fn rules(&self) -> Rules {
        self.rules
    }

    /// Leave to sign now.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn permit(&self, now: Moment) -> Result<Permit, NotHeld> {
        if self.stopping {
            return Err(NotHeld::Released);
        }
        let unreachable = |other| match &self.error {
            Some(error) => NotHeld::Unreachable { error: error.clone() },
            None => other,
        };
        match &self.belief {
            Belief::Unknown | Belief::Absent => Err(unreachable(NotHeld::Starting)),
            Belief::Theirs { record, since } => Err(self.not_ours(record, since.age_at_least(now))),
            Belief::Ours(tenure) => {
                if self.left(tenure, now).is_zero() {
                    return Err(unreachable(NotHeld::Expired));
                }
                let settled = tenure.acquired.age_at_least(now);
                if settled < tenure.settling {
                    return Err(NotHeld::Settling { wait: tenure.settling.saturating_sub(settled) });
                }
                Ok(Permit { epoch: tenure.record.epoch })
            }
        }
    }

    fn not_ours(&self, record: &LeaseRecord, seen: Duration) -> NotHeld {
        match &record.holder {
            Some(holder) => NotHeld::Foreign { holder: holder.clone(), epoch: record.epoch },
            None => NotHeld::Settling { wait: self.lapse(record).saturating_sub(seen) },
        }
    }

    /// Whether a permit is still good: asked between the making of a signature and its use.
    ///
    /// # Errors
    /// It is not: throw the signature away.
    pub(crate) fn confirm(&self, permit: Permit, now: Moment) -> Result<(), NotHeld> {
        let current = self.permit(now)?;
        if current == permit { Ok(()) } else { Err(NotHeld::Expired) }
    }

    /// Leave to sign an extrinsic that dies at a block, given the newest final block known.
    ///
    /// # Errors
    /// Why not; after [`NotHeld::FenceNotWritten`] the next requests write it.
    pub(crate) fn permit_extrinsic(&mut self, now: Moment, death: u64, finalized: u64) -> Result<Permit, NotHeld> {
        let permit = self.permit(now)?;
        let Belief::Ours(tenure) = &self.belief else { return Err(NotHeld::Expired) };
        match tenure.before {
            Fence::Until(fence) if finalized < fence => return Err(NotHeld::Fenced { fence, finalized }),
            Fence::Unknown => return Err(NotHeld::NotLooked),
            _ => {}
        }
        self.signed = self.signed.max(Fence::Until(death));
        if tenure.record.fence >= Fence::Until(death) { Ok(permit) } else { Err(NotHeld::FenceNotWritten) }
    }

    /// Everything signed by this process up to this fence is final on the chain or was never sent.
    fn settle(&mut self, fence: u64) {
        if self.signed <= Fence::Until(fence) {
            self.signed = Fence::Settled;
        }
    }

    /// From now on nothing is signed; the next request gives the lease back.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether there is nothing to give back any more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopping && !self.under_way && !matches!(self.belief, Belief::Ours(_))
    }

    /// Time left in which signing is permitted.
    pub(crate) fn time_left(&self, now: Moment) -> Duration {
        match &self.belief {
            Belief::Ours(tenure) if !self.stopping => self.left(tenure, now),
            _ => Duration::ZERO,
        }
    }

    /// Since when the lease is held without a break, and its epoch.
    pub(crate) fn tenure(&self) -> Option<(Moment, u64)> {
        match &self.belief {
            Belief::Ours(tenure) => Some((tenure.acquired, tenure.record.epoch)),
            _ => None,
        }
    }

    /// How this process stands to the lease; `None` before its store answered.
    pub(crate) fn standing(&self) -> Option<Standing> {
        self.heard.then(|| match &self.belief {
            Belief::Ours(Tenure { record, before, .. }) => {
                Standing::Holding { epoch: record.epoch, pending: *before != Fence::Settled }
            }
            _ => Standing::Waiting { epoch: self.epoch_max },
        })
    }

    fn left(&self, tenure: &Tenure, now: Moment) -> Duration {
        let lasts = self.rules.duration.saturating_sub(self.rules.margin);
        lasts.saturating_sub(tenure.sent.age_at_most(now))
    }

    /// How long a record of somebody else has to stay unchanged before it is taken over.
    fn lapse(&self, record: &LeaseRecord) -> Duration {
        match record.holder {
            None if record.duration <= RELEASED => Duration::ZERO,
            _ => record.duration.max(self.rules.duration),
        }
    }

    /// The next request, when it is due. Until [`Self::finish`] there is no other.
    pub(crate) fn begin(&mut self, now: Moment) -> Option<Ticket> {
        if self.under_way || !self.wait(now).is_zero() {
            return None;
        }
        let request = self.request(now);
        self.under_way = true;
        self.asked = Some(now);
        Some(Ticket { sent: now, request })
    }

    /// How long until the next request is due.
    pub(crate) fn wait(&self, now: Moment) -> Duration {
        let asked = self.asked.map_or(Duration::MAX, |asked| asked.age_at_least(now));
        let retry = self.rules.retry_after.saturating_sub(asked);
        let due = match &self.belief {
            Belief::Ours(tenure) if self.stopping || self.doubtful || self.fence_is_due(tenure) => Duration::ZERO,
            // Counted as its end is: a lease that may have ended is renewed at once.
            Belief::Ours(tenure) => self.rules.renew_after.saturating_sub(tenure.sent.age_at_most(now)),
            _ if self.stopping => Duration::MAX,
            Belief::Unknown | Belief::Absent => Duration::ZERO,
            Belief::Theirs { record, .. } if self.doubtful || record.alive => retry,
            Belief::Theirs { record, since } => self.lapse(record).saturating_sub(since.age_at_least(now)).min(retry),
        };
        // After a failure nothing is asked at once, or a store in trouble would be asked without a pause.
        if self.error.is_some() { due.max(retry) } else { due }
    }

    /// A lower fence can wait for the next renewal, a higher one holds somebody up.
    fn fence_is_due(&self, tenure: &Tenure) -> bool {
        self.signed > tenure.record.fence
    }

    fn request(&self, now: Moment) -> Request {
        let write = |holder, duration, epoch, fence, over: Option<&LeaseRecord>| Request::Write {
            record: LeaseRecord { holder, duration, epoch, fence, version: String::new(), alive: false },
            over: over.map(|record| record.version.clone()),
        };
        let (me, lasts) = (Some(self.identity.clone()), self.rules.duration);
        match &self.belief {
            _ if self.doubtful => Request::Read,
            Belief::Unknown => Request::Read,
            Belief::Absent => write(me, lasts, self.epoch_max + 1, self.rules.absent.max(self.signed), None),
            Belief::Theirs { record, since } => {
                let lapsed = !record.alive && since.age_at_least(now) >= self.lapse(record);
                let epoch = record.epoch.max(self.epoch_max) + 1;
                if lapsed { write(me, lasts, epoch, record.fence, Some(record)) } else { Request::Read }
            }
            Belief::Ours(Tenure { record, before, .. }) => {
                // The predecessor's fence stays until it is of no use: who comes next may come before it, too.
                let fence = self.signed.max(*before);
                let (holder, duration) = if self.stopping { (None, RELEASED) } else { (me, lasts) };
                write(holder, duration, record.epoch, fence, Some(record))
            }
        }
    }

    /// What became of a request.
    pub(crate) fn finish(&mut self, ticket: &Ticket, answer: Answer, now: Moment) {
        self.under_way = false;
        self.error = None;
        match answer {
            Answer::Found(record) => {
                self.heard = true;
                self.doubtful = false;
                self.found(record, now);
            }
            Answer::Written(record) => {
                self.doubtful = false;
                self.written(ticket, record, now);
            }
            Answer::Conflict => self.doubtful = true,
            // A write without an answer may have been done, or may be done yet.
            Answer::Failed(error) => {
                self.error = Some(error);
                self.doubtful = true;
            }
        }
    }

    fn found(&mut self, record: Option<LeaseRecord>, now: Moment) {
        let Some(record) = record else {
            self.belief = Belief::Absent;
            return;
        };
        self.epoch_max = self.epoch_max.max(record.epoch);
        let mine = record.holder.as_ref() == Some(&self.identity);
        self.belief = match std::mem::replace(&mut self.belief, Belief::Unknown) {
            Belief::Ours(tenure) if mine && tenure.record.epoch == record.epoch => {
                Belief::Ours(Tenure { record, ..tenure })
            }
            // Our own write, whose answer did not come. It is renewed before it counts for anything.
            before if mine => {
                let ended = Moment { boot: Duration::MAX, wall: Duration::ZERO };
                self.begun(&before, record, ended, now)
            }
            Belief::Theirs { record: seen, since } if seen.version == record.version => {
                Belief::Theirs { record, since }
            }
            _ => Belief::Theirs { record, since: now },
        };
    }

    fn written(&mut self, ticket: &Ticket, record: LeaseRecord, now: Moment) {
        self.epoch_max = self.epoch_max.max(record.epoch);
        let mine = record.holder.as_ref() == Some(&self.identity);
        self.belief = match std::mem::replace(&mut self.belief, Belief::Unknown) {
            _ if !mine => Belief::Theirs { record, since: now },
            Belief::Ours(tenure) => Belief::Ours(Tenure { record, sent: ticket.sent, ..tenure }),
            before => self.begun(&before, record, ticket.sent, now),
        };
    }

    /// A tenure that follows on what was known before.
    fn begun(&self, before: &Belief, record: LeaseRecord, sent: Moment, now: Moment) -> Belief {
        let waited_for = matches!(before, Belief::Theirs { .. });
        // What this process signed in an earlier tenure is a predecessor's, too.
        let fence = record.fence.max(self.signed);
        let before = if waited_for { fence } else { fence.max(self.rules.absent) };
        // A record of somebody else was waited for before it was written over; where there was none, the wait comes now.
        let settled = waited_for && before != Fence::Unknown;
        let settling = if settled { Duration::ZERO } else { self.rules.duration };
        Belief::Ours(Tenure { record, sent, acquired: now, settling, before })
    }

    /// Whether nobody knows yet how far the extrinsics of the holder before reach, and a look at the chain that begins now would
    /// say so. It must not wait for the first extrinsic: until it is known, the next holder cannot tell either.
    pub(crate) fn look_is_due(&self, now: Moment) -> bool {
        let due =
            |tenure: &Tenure| tenure.before == Fence::Unknown && tenure.acquired.age_at_least(now) >= tenure.settling;
        matches!(&self.belief, Belief::Ours(tenure) if due(tenure))
    }

    /// The chain was looked at: its best block and the newest final one, asked for at a time.
    ///
    /// What had to enter the chain before the final block, and did not, never will.
    pub(crate) fn looked(&mut self, asked: Moment, best: u64, finalized: u64) {
        self.settle(finalized);
        let Belief::Ours(tenure) = &mut self.belief else { return };
        match tenure.before {
            Fence::Until(fence) if fence <= finalized => tenure.before = Fence::Settled,
            // An answer from before says nothing about what was signed until then.
            Fence::Unknown if tenure.acquired.age_at_least(asked) >= tenure.settling => {
                tenure.before = self.signed.max(Fence::Until(best + self.rules.mortality_blocks));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
impl Ticket {
    /// The mistake of counting a lease from its answer.
    pub(crate) fn sent_at(self, now: Moment) -> Self {
        Self { sent: now, ..self }
    }
}
