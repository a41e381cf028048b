//! Whether somebody else signs with this hotkey: what the chain shows, against what this process knows of itself. Pure.
//!
//! A lease binds those who ask for it; a copy of the key in another cluster does not. The chain shows it all the same: the
//! block at which the hotkey's weights or axon changed last, and how many extrinsics its account has sent. Nothing is
//! signed before that was looked at, and nothing any more once something was seen that this process did not do, until a
//! person says that it is in order: two signers that both go on do more harm than one that stands still.
//!
//! Whoever held the lease in between is no stranger: what shows while another process holds it, or may still have something
//! under way, is that one's. Epochs tell, because a process that starts again finds its own last one in its memory.
//!
//! What is known is kept on disk. Where nothing is, a few blocks are watched first: whoever signs elsewhere at this moment
//! shows soon, and what was done before this sidecar ever ran is taken as it is.

use serde::{Deserialize, Serialize};

/// Blocks without a change before the first signature of a sidecar that knows nothing of its past.
pub(crate) const WATCH_BLOCKS: u64 = 3;

/// Windows remembered. Each ends after some 100 blocks, and rates allow a few a minute.
const WINDOWS_MAX: usize = 256;

/// What changes on the chain when a hotkey signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Trace {
    /// `LastUpdate`: weights were set or committed to.
    Weights,
    /// The axon's block.
    Axon,
    /// The account's nonce: an extrinsic of any kind.
    Nonce,
}

/// The chain's values at a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Look {
    /// The block.
    pub(crate) block: u64,
    /// Block of the last weights; `None` where there are none, or none since the registration.
    pub(crate) weights: Option<u64>,
    /// Block of the axon.
    pub(crate) axon: Option<u64>,
    /// Extrinsics sent by the account; `None` where that was not asked.
    pub(crate) nonce: Option<u64>,
}

/// How this process stands to the lease at a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It holds it.
    Holding {
        /// Since this epoch.
        epoch: u64,
        /// Whether something of the holder before may still enter the chain.
        pending: bool,
    },
    /// It does not.
    Waiting {
        /// The newest epoch seen; 0 where there was none.
        epoch: u64,
    },
}

/// The last values that are accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    weights: u64,
    axon: u64,
    nonce: Option<u64>,
}

/// Something signed by this process: where it may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    trace: Trace,
    /// The newest block when it was signed.
    after: u64,
    /// The block from which on it cannot enter the chain.
    death: u64,
}

/// Something that this process did not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error(
    "another process signs with this hotkey: {} at block {block} is not this sidecar's work ({}); find and stop it, then \
     acknowledge by POST /v1/signer/acknowledge or --accept-foreign-signer-before {}",
    name(*trace), evidence(*trace, *found, *known), block + 1
)]
pub(crate) struct Finding {
    /// Where it shows.
    pub(crate) trace: Trace,
    /// The block: of the change, or at which a nonce was first seen.
    pub(crate) block: u64,
    /// The chain's value.
    pub(crate) found: u64,
    /// The largest value that is accounted for.
    pub(crate) known: u64,
}

fn name(trace: Trace) -> &'static str {
    match trace {
        Trace::Weights => "a change of weights",
        Trace::Axon => "an axon served",
        Trace::Nonce => "an extrinsic",
    }
}

fn evidence(trace: Trace, found: u64, known: u64) -> String {
    match trace {
        Trace::Weights => format!("LastUpdate is {found}, the last one known is {known}"),
        Trace::Axon => format!("AxonInfo.block is {found}, the last one known is {known}"),
        Trace::Nonce => format!("the account's nonce is {found}, this sidecar accounts for {known}"),
    }
}

/// What was found until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing was looked at yet.
    NotLooked,
    /// So many blocks are to be watched still.
    Watching {
        /// How many.
        blocks: u64,
    },
    /// Nobody else.
    Clear,
    /// Somebody else.
    Foreign(Finding),
}

/// What is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Memory {
    /// For whom: another hotkey or chain makes all of it meaningless.
    subject: String,
    known: Known,
    windows: Vec<Window>,
    finding: Option<Finding>,
    /// The last epoch in which the lease was held.
    epoch: Option<u64>,
}

/// Compares looks at the chain with what was signed. See the head of this file.
#[derive(Debug)]
pub(crate) struct ForeignWatch {
    memory: Memory,
    /// The first look of a process without memory, until enough blocks have passed.
    watching_since: Option<u64>,
    last: Option<Look>,
    /// The first look since the lease was taken over from another process, until its holder is out of the way.
    taken_over: Option<u64>,
    /// Whether nothing was on disk and nothing was looked at since.
    fresh: bool,
    accept_before: u64,
}

impl ForeignWatch {
    /// Starts from what is on disk, if that is about the same subject. Findings before a block are in order.
    pub(crate) fn new(subject: String, memory: Option<Memory>, accept_before: Option<u64>) -> Self {
        let memory = memory.filter(|memory| memory.subject == subject);
        let fresh = memory.is_none();
        let known = Known::default();
        let mut memory = memory.unwrap_or(Memory { subject, known, windows: Vec::new(), finding: None, epoch: None });
        let accept_before = accept_before.unwrap_or_default();
        if memory.finding.is_some_and(|finding| finding.block < accept_before) {
            // What it was about is taken from the next look.
            memory.finding = None;
        }
        Self { memory, watching_since: None, last: None, taken_over: None, fresh, accept_before }
    }

    /// What has to survive this process.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Nothing is signed before this says so.
    pub(crate) fn verdict(&self) -> Verdict {
        match (self.memory.finding, self.last, self.watching_since) {
            (Some(finding), ..) => Verdict::Foreign(finding),
            (None, None, _) => Verdict::NotLooked,
            (None, Some(last), Some(since)) if last.block < since + WATCH_BLOCKS => {
                Verdict::Watching { blocks: since + WATCH_BLOCKS - last.block }
            }
            (None, Some(_), _) => Verdict::Clear,
        }
    }

    /// Something is about to be signed that may show in a trace after one block and before another.
    pub(crate) fn signing(&mut self, trace: Trace, after: u64, death: u64) {
        let windows = &mut self.memory.windows;
        // Signed again: the same look at the lease and the chain, and no other effect.
        if let Some(window) = windows.iter_mut().find(|window| window.trace == trace && window.death >= after) {
            window.death = window.death.max(death);
            window.after = window.after.min(after);
            return;
        }
        if windows.len() >= WINDOWS_MAX {
            windows.remove(0);
        }
        windows.push(Window { trace, after, death });
    }

    /// Whether what shows may be the work of another process that held the lease.
    fn is_a_holders(&mut self, block: u64, standing: Standing) -> bool {
        let own = self.memory.epoch.unwrap_or_default();
        match standing {
            Standing::Waiting { epoch } => epoch > own,
            Standing::Holding { epoch, .. } if epoch == own || epoch == own + 1 => {
                self.memory.epoch = Some(epoch);
                false
            }
            Standing::Holding { epoch, pending } => {
                let since = *self.taken_over.get_or_insert(block);
                let under_way = pending || block < since + WATCH_BLOCKS;
                if !under_way {
                    self.memory.epoch = Some(epoch);
                    self.taken_over = None;
                }
                under_way
            }
        }
    }

    /// Takes in a look; returns what is new about it.
    pub(crate) fn look(&mut self, look: Look, standing: Standing) -> Option<Finding> {
        // Endpoints differ in how far they are: an older look says nothing new.
        if self.last.is_some_and(|last| look.block < last.block) {
            return None;
        }
        self.last = Some(look);
        if self.memory.finding.is_some() {
            return None;
        }
        if self.fresh {
            self.take_as_known(look);
            self.watching_since = Some(look.block);
            self.fresh = false;
            return None;
        }
        if self.is_a_holders(look.block, standing) {
            self.take_as_known(look);
            // Who knows nothing of the past watches after that, too.
            self.watching_since = self.watching_since.map(|_| look.block);
            return None;
        }
        let found = self.compare(look);
        if found.is_some_and(|finding| finding.block < self.accept_before) {
            self.take_as_known(look);
            return None;
        }
        self.memory.finding = found;
        self.memory.windows.retain(|window| window.death > look.block);
        found
    }

    fn compare(&mut self, look: Look) -> Option<Finding> {
        let blocks = [(Trace::Weights, look.weights), (Trace::Axon, look.axon)];
        for (trace, value) in blocks {
            let Some(found) = value else { continue };
            let known = self.known(trace);
            if found <= known {
                continue;
            }
            let own = |window: &Window| window.trace == trace && window.after < found && found < window.death;
            if !self.memory.windows.iter().any(own) {
                return Some(Finding { trace, block: found, found, known });
            }
            match trace {
                Trace::Weights => self.memory.known.weights = found,
                _ => self.memory.known.axon = found,
            }
        }
        let (Some(found), known) = (look.nonce, &mut self.memory.known.nonce) else { return None };
        let accounted = *known.get_or_insert(found);
        if found > accounted {
            return Some(Finding { trace: Trace::Nonce, block: look.block, found, known: accounted });
        }
        None
    }

    fn known(&self, trace: Trace) -> u64 {
        match trace {
            Trace::Weights => self.memory.known.weights,
            Trace::Axon => self.memory.known.axon,
            Trace::Nonce => self.memory.known.nonce.unwrap_or_default(),
        }
    }

    /// This process has used nonces up to here.
    pub(crate) fn used_nonce(&mut self, nonce: u64) {
        let known = self.memory.known.nonce.get_or_insert_default();
        *known = (*known).max(nonce + 1);
    }

    fn take_as_known(&mut self, look: Look) {
        let known = &mut self.memory.known;
        known.weights = known.weights.max(look.weights.unwrap_or_default());
        known.axon = known.axon.max(look.axon.unwrap_or_default());
        known.nonce = known.nonce.max(look.nonce);
    }

    /// A person says that what was found before a block is in order.
    ///
    /// # Errors
    /// What was found at that block or later, and so is not covered.
    pub(crate) fn acknowledge(&mut self, before: u64) -> Result<(), Finding> {
        let Some(finding) = self.memory.finding else { return Ok(()) };
        if finding.block >= before {
            return Err(finding);
        }
        self.memory.finding = None;
        if let Some(last) = self.last {
            // What came after the block that was named is looked at like everything else.
            let covered = |block: Option<u64>| block.filter(|block| *block < before);
            self.take_as_known(Look { weights: covered(last.weights), axon: covered(last.axon), ..last });
            self.memory.finding = self.compare(last);
        }
        self.memory.finding.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(block: u64, weights: u64, axon: u64, nonce: u64) -> Look {
        Look { block, weights: Some(weights), axon: Some(axon), nonce: Some(nonce) }
    }

    /// As the holder of the first lease there was.
    fn see(watch: &mut ForeignWatch, look: Look) -> Option<Finding> {
        watch.look(look, Standing::Holding { epoch: 1, pending: false })
    }

    /// Without a memory, at block 100.
    fn fresh() -> ForeignWatch {
        let mut watch = ForeignWatch::new("a".into(), None, None);
        assert_eq!((watch.verdict(), see(&mut watch, look(100, 90, 80, 7))), (Verdict::NotLooked, None));
        watch
    }

    fn clear() -> ForeignWatch {
        let mut watch = fresh();
        see(&mut watch, look(103, 90, 80, 7));
        assert_eq!(watch.verdict(), Verdict::Clear);
        watch
    }

    fn again(watch: &ForeignWatch, accept_before: Option<u64>) -> ForeignWatch {
        let memory = serde_json::from_str(&serde_json::to_string(watch.memory()).unwrap()).unwrap();
        ForeignWatch::new("a".into(), Some(memory), accept_before)
    }

    #[test]
    fn without_memory_some_blocks_are_watched_first() {
        let mut watch = fresh();
        assert_eq!(watch.verdict(), Verdict::Watching { blocks: 3 });
        see(&mut watch, look(102, 90, 80, 7));
        assert_eq!(watch.verdict(), Verdict::Watching { blocks: 1 });
        let finding = see(&mut watch, look(103, 102, 80, 8)).unwrap();
        assert_eq!(finding, Finding { trace: Trace::Weights, block: 102, found: 102, known: 90 });
        assert_eq!(watch.verdict(), Verdict::Foreign(finding));
    }

    #[test]
    fn each_trace_of_somebody_else_is_found_and_named_with_the_remedy() {
        for (seen, part) in [
            (
                look(110, 105, 80, 7),
                "a change of weights at block 105 is not this sidecar's work (LastUpdate is 105, the last one known is 90)",
            ),
            (look(110, 90, 106, 7), "an axon served at block 106"),
            (
                look(110, 90, 80, 8),
                "an extrinsic at block 110 is not this sidecar's work (the account's nonce is 8, this sidecar accounts for 7)",
            ),
        ] {
            let mut watch = clear();
            let text = see(&mut watch, seen).unwrap().to_string();
            assert!(text.contains(part) && text.contains("/v1/signer/acknowledge"), "{text}");
            assert!(matches!(watch.verdict(), Verdict::Foreign(_)));
        }
    }

    #[test]
    fn what_this_process_signed_is_its_own() {
        let mut watch = clear();
        watch.signing(Trace::Weights, 103, 170);
        watch.used_nonce(7);
        assert_eq!(see(&mut watch, look(120, 119, 80, 8)), None);
        watch.signing(Trace::Axon, 120, 190);
        watch.used_nonce(8);
        assert_eq!(see(&mut watch, look(130, 119, 125, 9)), None);
        // The window is over, the trace is not of this kind, the nonce is one too many.
        assert!(see(&mut again(&watch, None), look(200, 195, 125, 9)).is_some());
        assert!(see(&mut again(&watch, None), look(140, 119, 125, 10)).is_some());
        assert_eq!(see(&mut again(&watch, None), look(140, 119, 125, 9)), None);
    }

    #[test]
    fn what_was_signed_before_a_restart_is_remembered_and_what_was_not_is_found_at_once() {
        let mut watch = clear();
        watch.signing(Trace::Weights, 103, 170);
        let mut same = again(&watch, None);
        assert_eq!(see(&mut same, look(150, 140, 80, 7)), None);
        assert_eq!(same.verdict(), Verdict::Clear, "with a memory nothing is waited for");
        let mut other = again(&watch, None);
        assert_eq!(see(&mut other, look(150, 90, 140, 7)).unwrap().trace, Trace::Axon);
        // And the finding survives the next restart.
        assert!(matches!(again(&other, None).verdict(), Verdict::Foreign(_)));
    }

    #[test]
    fn another_subject_forgets_everything() {
        let memory = clear().memory().clone();
        let mut watch = ForeignWatch::new("b".into(), Some(memory), None);
        assert_eq!(see(&mut watch, look(500, 490, 480, 70)), None);
        assert_eq!(watch.verdict(), Verdict::Watching { blocks: 3 });
    }

    #[test]
    fn a_finding_stays_until_it_is_acknowledged_up_to_its_block() {
        let mut watch = clear();
        let finding = see(&mut watch, look(110, 105, 80, 8)).unwrap();
        assert_eq!(see(&mut watch, look(120, 105, 80, 8)), None);
        assert_eq!(watch.acknowledge(105), Err(finding));
        assert_eq!(watch.acknowledge(106), Ok(()));
        assert_eq!(watch.verdict(), Verdict::Clear);
        assert!(see(&mut watch, look(130, 129, 80, 9)).is_some());
        // Something later is not covered by what was said of something earlier.
        let mut watch = clear();
        see(&mut watch, look(110, 105, 80, 8)).unwrap();
        see(&mut watch, look(120, 119, 80, 9));
        assert_eq!(watch.acknowledge(106).unwrap_err().block, 119);
    }

    #[test]
    fn the_flag_acknowledges_at_the_start() {
        let mut watch = clear();
        see(&mut watch, look(110, 105, 80, 8)).unwrap();
        let mut told = again(&watch, Some(106));
        assert_eq!(see(&mut told, look(105, 105, 80, 8)), None);
        assert_eq!(told.verdict(), Verdict::Clear);
        let mut early = again(&watch, Some(105));
        see(&mut early, look(111, 105, 80, 8));
        assert!(matches!(early.verdict(), Verdict::Foreign(_)));
    }

    #[test]
    fn an_endpoint_that_is_behind_shows_nothing_new() {
        let mut watch = clear();
        watch.signing(Trace::Weights, 103, 170);
        see(&mut watch, look(120, 119, 80, 7));
        assert_eq!(see(&mut watch, look(118, 90, 80, 7)), None);
        assert_eq!(watch.verdict(), Verdict::Clear);
    }

    #[test]
    fn who_waits_takes_what_shows_for_the_holders_work_and_who_takes_over_does_so_for_a_while() {
        let mut watch = clear();
        let waiting = Standing::Waiting { epoch: 2 };
        assert_eq!(watch.look(look(150, 140, 80, 9), waiting), None);
        let taken = |pending| Standing::Holding { epoch: 3, pending };
        // What the holder before sent last is still to be expected.
        assert_eq!(watch.look(look(160, 155, 80, 10), taken(true)), None);
        assert_eq!(watch.look(look(161, 155, 80, 10), taken(false)), None);
        assert_eq!(watch.look(look(170, 155, 80, 10), taken(false)), None);
        assert_eq!(watch.verdict(), Verdict::Clear);
        assert!(watch.look(look(171, 171, 80, 11), taken(false)).is_some());
    }

    #[test]
    fn a_process_that_starts_again_knows_its_own_last_lease_from_another_holders() {
        let waits = |epoch| Standing::Waiting { epoch };
        // The lease is still its own: what it did not do, nobody did under it.
        assert!(again(&clear(), None).look(look(150, 140, 80, 8), waits(1)).is_some());
        assert!(
            again(&clear(), None).look(look(150, 140, 80, 8), Standing::Holding { epoch: 2, pending: false }).is_some()
        );
        // Another process held it in between.
        assert_eq!(again(&clear(), None).look(look(150, 140, 80, 8), waits(2)), None);
        assert_eq!(
            again(&clear(), None).look(look(150, 140, 80, 8), Standing::Holding { epoch: 3, pending: false }),
            None
        );
    }

    #[test]
    fn without_memory_the_watch_begins_when_the_holder_before_is_out_of_the_way() {
        let mut watch = ForeignWatch::new("a".into(), None, None);
        let taken = Standing::Holding { epoch: 5, pending: false };
        for block in 100..104 {
            assert_eq!(watch.look(look(block, block, 80, 7), taken), None);
        }
        assert!(matches!(watch.verdict(), Verdict::Watching { .. }));
        watch.look(look(107, 103, 80, 7), taken);
        assert_eq!(watch.verdict(), Verdict::Clear);
    }
}
