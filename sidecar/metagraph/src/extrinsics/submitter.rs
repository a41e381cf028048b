//! The task that owns the nonce: one key, one connection, one journal.
//!
//! # Guarantees
//! - One intent key is carried out at most once, whatever happens to the connection, the node or this process. Its outcome
//!   is the same whenever it is asked for, until it is forgotten days later.
//! - The gate is asked before every signature and again before every submission; where it says no, or nothing, nothing is
//!   signed or sent.
//! - A caller waits no longer than its patience. What it no longer waits for is followed to its end, but never signed anew:
//!   nobody wants the weights of an hour ago.
//!
//! # Cancel safety
//! [`SubmitterHandle::submit`] may be dropped at any time; the intent goes on as described.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use sidecar_util::{BlockHash, Hotkey};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{Instrument, debug, info, warn};

use super::call::{Call, SignedBy};
use super::decide::{Next, Seen, next};
use super::failure::{FailureClass, Refusal, SubmitError, Verdict, verdict};
use super::journal::{
    Attempt, CallResult, Entry, ExtrinsicHash, Fate, Journal, JournalError, Receipt, State, check_key,
};
use super::link::{Found, Link, SignError, Signed, Tips};
use crate::ChainError;
use crate::keys::HotkeyPair;
use crate::pace::Paces;

/// Intents that may be open at a time. A hotkey makes a handful of calls an hour.
const OPEN_MAX: usize = 64;

/// Signatures for one intent. Each but the first answers a refusal or an era that passed.
const SIGNATURES_MAX: usize = 8;

/// Time for the guard before a signature. It asks an API server or a group of peers at most.
const GATE_DEADLINE: Duration = Duration::from_secs(15);

/// How often a pool may prefer another extrinsic of this key before the caller is told.
const OUTBID_MAX: u32 = 3;

/// Blocks to wait after the pool preferred another extrinsic: one for its inclusion, one to see it.
const OUTBID_PAUSE: u64 = 2;

/// Blocks without inclusion after which the same bytes are sent once more: pools forget.
const REMIND_BLOCKS: u64 = 8;

/// Steps for one intent without waiting for a block: sign and send, twice, and one to see that nothing is left to do.
const STEPS_MAX: usize = 5;

/// Pauses between attempts to connect.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// How long a connection without work is kept.
const IDLE: Duration = Duration::from_mins(1);

/// How long no news is taken for normal where the chain does not say how long its blocks take.
const QUIET: Duration = Duration::from_secs(10);

/// Blocks of an era, and its bounds: powers of two, and what the chain's shielded transactions and its history allow.
const ERA_BLOCKS: u64 = 64;
const ERA_BLOCKS_RANGE: std::ops::RangeInclusive<u64> = 4..=128;

/// How long a caller waits, where it does not say: an era of 12-second blocks and some.
const PATIENCE: Duration = Duration::from_mins(15);

/// What a submitter needs.
#[derive(Clone)]
pub struct SubmitConfig {
    /// Chain endpoints, tried in this order and again from the first.
    pub endpoints: Vec<String>,
    /// Genesis hash that the chain must have.
    pub genesis_hash: Option<BlockHash>,
    /// Folder of the journal, for this key alone.
    pub journal_dir: PathBuf,
    /// For how many blocks a signature is good: a power of two from 4 to 128.
    pub era_blocks: u64,
    /// How long a caller waits for an outcome before it is told that there is none yet.
    pub patience: Duration,
    /// How fast the endpoints may be asked: those of the querier, where there is one.
    pub paces: Paces,
    /// Watches the steps; for tests.
    pub probe: Option<Arc<dyn Probe>>,
}

impl SubmitConfig {
    /// The defaults for some endpoints and a journal.
    pub fn new(endpoints: Vec<String>, journal_dir: PathBuf) -> Self {
        Self {
            endpoints,
            genesis_hash: None,
            journal_dir,
            era_blocks: ERA_BLOCKS,
            patience: PATIENCE,
            paces: Paces::default(),
            probe: None,
        }
    }
}

/// A step of an intent, right after it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The intent was accepted; nothing is on disk.
    Accepted,
    /// A signature is in the journal and has not left this process.
    Signed,
    /// The journal says "sent", the node has nothing yet.
    Sending,
    /// The node has it, its answer is not noted.
    Sent,
    /// It was seen in a block, which is not noted.
    Seen,
    /// Its inclusion is in the journal.
    Included,
    /// Its final inclusion is in the journal.
    Finalized,
}

/// Watches a submitter. Where it says so, the submitter ends on the spot, as if it had been killed.
pub trait Probe: Send + Sync {
    /// Whether to end right after this step.
    fn kill_after(&self, step: Step) -> bool;
}

/// Why nothing may be signed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct GateError {
    /// The reason with its remedy.
    pub reason: String,
    /// What the caller can do.
    pub class: FailureClass,
}

/// The guard before every signature and every submission. It fails closed: an error, however it comes, means no.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Whether this process may carry out this call now.
    async fn permit(&self, call: &Call) -> Result<(), GateError>;
}

/// Permits everything: for keys that only this process has.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenGate;

#[async_trait]
impl Gate for OpenGate {
    async fn permit(&self, _call: &Call) -> Result<(), GateError> {
        Ok(())
    }
}

/// What a caller waits for. Each comes after the one before.
///
/// Who waits no longer is one who does not want it signed anew: where what was sent can get into no block any more, it
/// ends there. Whoever asks again with the same key waits for it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// It is in the journal, and a node has taken it.
    Sent,
    /// A block has it. A reorganisation may still move it.
    Included,
    /// A final block has it.
    Finalized,
}

/// One thing that is to happen once.
#[derive(Debug, Clone)]
pub struct Intent {
    /// Idempotency key: the same key is the same intent, however often it is given.
    pub key: String,
    /// The call.
    pub call: Call,
    /// When to answer.
    pub wait: Wait,
}

/// How far an intent came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// A node has taken it; no block is known to have it.
    Sent {
        /// The extrinsic. It gets another hash where it has to be signed again.
        extrinsic_hash: ExtrinsicHash,
    },
    /// A block has it.
    Included(Receipt),
}

impl Submitted {
    /// Where it is, if a block has it.
    pub fn receipt(self) -> Option<Receipt> {
        match self {
            Self::Sent { .. } => None,
            Self::Included(receipt) => Some(receipt),
        }
    }
}

pub(crate) type Answer = Result<Submitted, SubmitError>;
pub(crate) type LinkReply = oneshot::Sender<Result<Arc<Link>, SubmitError>>;

pub(crate) enum Command {
    Submit { intent: Intent, reply: oneshot::Sender<Answer> },
    Link { reply: LinkReply },
    Recall { key: String, reply: oneshot::Sender<Option<Call>> },
    Used { reply: oneshot::Sender<Option<u64>> },
}

/// The running task. Shut it down, or drop it: what is open then goes on from the journal at the next start.
pub struct Submitter {
    handle: SubmitterHandle,
    task: tokio::task::JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

/// Gives intents to a submitter. Clones are the same submitter.
#[derive(Clone)]
pub struct SubmitterHandle {
    commands: mpsc::Sender<Command>,
    hotkey: Hotkey,
    signs: SignedBy,
}

impl std::fmt::Debug for SubmitterHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubmitterHandle").field("hotkey", &self.hotkey).finish_non_exhaustive()
    }
}

impl Submitter {
    /// Starts a submitter for a hotkey, which goes on with what an earlier one left in the journal.
    ///
    /// # Errors
    /// The journal cannot be used, or the configuration makes no sense.
    pub fn spawn(config: SubmitConfig, pair: HotkeyPair, gate: Arc<dyn Gate>) -> Result<Self, JournalError> {
        Self::spawn_for(config, pair, gate, SignedBy::Hotkey)
    }

    /// Starts a submitter for a coldkey that the caller holds: it registers and moves stake, and nothing else.
    ///
    /// # Errors
    /// The journal cannot be used.
    pub fn spawn_for_coldkey(
        config: SubmitConfig,
        pair: HotkeyPair,
        gate: Arc<dyn Gate>,
    ) -> Result<Self, JournalError> {
        Self::spawn_for(config, pair, gate, SignedBy::Coldkey)
    }

    fn spawn_for(
        mut config: SubmitConfig,
        pair: HotkeyPair,
        gate: Arc<dyn Gate>,
        signs: SignedBy,
    ) -> Result<Self, JournalError> {
        let mut journal = Journal::open(&config.journal_dir, pair.hotkey())?;
        journal.prune()?;
        // The chain rounds eras up to powers of two; the death that is noted has to be the chain's.
        let era = config.era_blocks.clamp(*ERA_BLOCKS_RANGE.start(), *ERA_BLOCKS_RANGE.end());
        config.era_blocks = era.next_power_of_two();
        let active: Vec<Active> = journal.open_entries().into_iter().map(Active::new).collect();
        if !active.is_empty() {
            info!(open = active.len(), "intents of an earlier run are followed");
        }
        let (commands, receiver) = mpsc::channel(OPEN_MAX);
        let hotkey = pair.hotkey();
        let worker = Worker {
            config,
            pair,
            gate,
            journal,
            commands: receiver,
            active,
            links: Vec::new(),
            endpoint: 0,
            generation: 0,
            trouble: None,
        };
        let (stop, stopped) = oneshot::channel();
        let span = tracing::info_span!("submitter", %hotkey);
        let task = tokio::spawn(worker.run(stopped).instrument(span));
        Ok(Self { handle: SubmitterHandle { commands, hotkey, signs }, task, stop })
    }

    /// Gives intents to it.
    pub fn handle(&self) -> SubmitterHandle {
        self.handle.clone()
    }

    /// Ends the task between two steps and waits for its end. Open intents stay in the journal.
    pub async fn shutdown(self) {
        drop(self.stop);
        if self.task.await.is_err() {
            warn!("the submitter had panicked");
        }
    }
}

impl SubmitterHandle {
    /// Whose extrinsics these are.
    pub fn hotkey(&self) -> Hotkey {
        self.hotkey
    }

    /// Carries out an intent, once, and waits for as much of its outcome as it says.
    ///
    /// # Errors
    /// See [`SubmitError`]; its class says what to do. After [`SubmitError::Refused`] nothing is on the chain and the key is
    /// free again; after [`SubmitError::Dispatch`] the intent is done and failed, and its key will say so again.
    pub async fn submit(&self, intent: Intent) -> Answer {
        let call = intent.call.name();
        let wrong = |source| SubmitError::Argument { call, source };
        check_key(&intent.key).map_err(wrong)?;
        intent.call.check().map_err(wrong)?;
        if intent.call.signed_by() != self.signs {
            let needed = if self.signs == SignedBy::Hotkey { "coldkey" } else { "hotkey" };
            return Err(SubmitError::WrongKey { call, needed });
        }
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Submit { intent, reply }).await.map_err(|_| SubmitError::Closed)?;
        answer.await.unwrap_or(Err(SubmitError::Closed))
    }

    /// The call that was given with this key, as long as it is remembered.
    ///
    /// # Errors
    /// The submitter has ended.
    pub async fn recall(&self, key: &str) -> Result<Option<Call>, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Recall { key: key.to_owned(), reply };
        self.commands.send(command).await.map_err(|_| SubmitError::Closed)?;
        answer.await.map_err(|_| SubmitError::Closed)
    }

    pub(crate) async fn command(&self, command: Command) -> Result<(), SubmitError> {
        self.commands.send(command).await.map_err(|_| SubmitError::Closed)
    }

    /// Returns when the submitter has ended.
    pub async fn closed(&self) {
        self.commands.closed().await;
    }

    /// The connection, for questions that come before an intent.
    pub(crate) async fn link(&self) -> Result<Arc<Link>, SubmitError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Link { reply }).await.map_err(|_| SubmitError::Closed)?;
        answer.await.unwrap_or(Err(SubmitError::Closed))
    }
}

/// Who waits for an intent.
struct Waiter {
    wait: Wait,
    until: Instant,
    patience: Duration,
    reply: oneshot::Sender<Answer>,
}

/// An intent that is not at its end.
struct Active {
    entry: Entry,
    waiters: Vec<Waiter>,
    /// Connection and block at which the last attempt was sent.
    sent: Option<(u64, u64)>,
    /// Nothing is signed before this block.
    not_before: u64,
    /// How often the pool preferred another extrinsic.
    outbid: u32,
    /// The pool says that the last attempt can no longer get in, though its era is not over.
    spoilt: bool,
    /// What stood in the way last.
    trouble: Option<String>,
}

impl Active {
    fn new(entry: Entry) -> Self {
        let (sent, not_before, outbid) = (None, 0, 0);
        Self { entry, waiters: Vec::new(), sent, not_before, outbid, spoilt: false, trouble: None }
    }

    fn call(&self) -> &'static str {
        self.entry.call.name()
    }

    fn fail(&mut self, error: &SubmitError) {
        self.tell(Wait::Finalized, &Err(error.clone()));
    }

    /// Answers those who wait for no more than this.
    fn tell(&mut self, reached: Wait, answer: &Answer) {
        let (told, waiting): (Vec<_>, Vec<_>) = self.waiters.drain(..).partition(|waiter| waiter.wait <= reached);
        self.waiters = waiting;
        for waiter in told {
            // Who no longer listens does not need to know.
            let _ = waiter.reply.send(answer.clone());
        }
    }

    /// What the node at the other end of a connection has taken of this, as far as it said.
    fn taken_over(&self, generation: u64) -> Option<ExtrinsicHash> {
        let last = self.entry.attempts.last().filter(|attempt| attempt.fate == Fate::Sent)?;
        self.sent.is_some_and(|(over, _)| over == generation).then_some(last.hash)
    }

    /// The highest nonce that something of this intent may still use.
    fn nonce_out(&self) -> Option<u64> {
        if self.entry.is_final() {
            return None;
        }
        self.entry.attempts.iter().filter(|attempt| attempt.fate == Fate::Sent).map(|attempt| attempt.nonce).max()
    }
}

/// Why work over a connection ended.
enum End {
    /// The process wants to stop, or a probe said so.
    Stop,
    /// Nothing to do for a while.
    Idle,
    Lost(ChainError),
}

impl From<ChainError> for End {
    fn from(error: ChainError) -> Self {
        Self::Lost(error)
    }
}

/// What one look at an intent led to.
enum Turn {
    /// Look again at once.
    Again,
    /// Wait for a block.
    Wait,
    /// It is at its end, and forgotten here.
    Done,
}

struct Worker {
    config: SubmitConfig,
    pair: HotkeyPair,
    gate: Arc<dyn Gate>,
    journal: Journal,
    commands: mpsc::Receiver<Command>,
    active: Vec<Active>,
    /// Who waits for a connection, and until when.
    links: Vec<(LinkReply, Instant)>,
    /// The endpoint that is used, or tried next.
    endpoint: usize,
    /// Counts connections.
    generation: u64,
    trouble: Option<String>,
}

impl Worker {
    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        tokio::select! {
            _ = &mut stop => {}
            () = self.serve() => {}
        }
        for active in &mut self.active {
            active.fail(&SubmitError::Closed);
        }
    }

    async fn serve(&mut self) {
        loop {
            if self.active.is_empty() && self.links.is_empty() {
                match self.commands.recv().await {
                    Some(command) => {
                        if self.accept(command, None).is_err() {
                            return;
                        }
                        continue;
                    }
                    None => return,
                }
            }
            let Some(link) = self.connect().await else { return };
            let link = Arc::new(link);
            for (reply, _) in self.links.drain(..) {
                let _ = reply.send(Ok(link.clone()));
            }
            match self.work(&link).await {
                End::Stop => return,
                End::Idle => debug!("connection without work closed"),
                End::Lost(error) => {
                    warn!(error = error.chain(), endpoint = link.endpoint, "connection of the submitter lost");
                    self.trouble = Some(error.chain());
                    self.endpoint += 1;
                }
            }
        }
    }

    /// Connects, for as long as anybody waits. `None` where the process ends.
    async fn connect(&mut self) -> Option<Link> {
        let mut backoff = BACKOFF_MIN;
        loop {
            let count = self.config.endpoints.len();
            if count == 0 {
                self.give_up("no chain endpoint is configured: give at least one ws:// or wss:// address");
            } else {
                let endpoint = self.config.endpoints[self.endpoint % count].clone();
                let error = match Link::connect(&endpoint, self.config.paces.of(&endpoint)).await {
                    Ok(link) => match self.config.genesis_hash {
                        Some(expected) if expected != link.genesis_hash => {
                            let error = SubmitError::Genesis { expected, found: link.genesis_hash };
                            let text = error.to_string();
                            self.fail_unsent(&error);
                            text
                        }
                        _ => {
                            self.generation += 1;
                            return Some(link);
                        }
                    },
                    Err(error) => error.chain(),
                };
                debug!(endpoint, error, "the submitter could not connect");
                self.trouble = Some(error);
                self.endpoint = self.endpoint.wrapping_add(1);
                // A whole round without success is worth a longer pause.
                if self.endpoint.is_multiple_of(count) {
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
            self.expire();
            if self.active.is_empty() && self.links.is_empty() {
                // Nobody waits any more: the next command starts anew.
                let command = self.commands.recv().await?;
                self.accept(command, None).ok()?;
                continue;
            }
            let wake = self.next_expiry().unwrap_or_else(|| Instant::now() + BACKOFF_MAX);
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = sleep_until(wake) => {}
                command = self.commands.recv() => self.accept(command?, None).ok()?,
            }
        }
    }

    /// Answers all who wait for something that cannot happen.
    fn give_up(&mut self, why: &str) {
        self.fail_unsent(&SubmitError::Unreachable { why: why.to_owned() });
        for (reply, _) in self.links.drain(..) {
            let _ = reply.send(Err(SubmitError::Unreachable { why: why.to_owned() }));
        }
    }

    /// Fails the intents of which nothing left this process.
    fn fail_unsent(&mut self, error: &SubmitError) {
        for (reply, _) in self.links.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
        for active in &mut self.active {
            if !active.entry.may_be_out() {
                active.fail(error);
            }
        }
        let journal = &mut self.journal;
        self.active.retain(|active| {
            let keep = active.entry.may_be_out();
            if !keep && let Err(error) = journal.remove(&active.entry.key) {
                warn!(%error, "an intent could not be forgotten");
            }
            keep
        });
    }

    async fn work(&mut self, link: &Arc<Link>) -> End {
        let mut wakeups = match link.wakeups().await {
            Ok(wakeups) => wakeups,
            Err(error) => return End::Lost(error),
        };
        let quiet =
            link.block_time.map_or(QUIET, |time| (3 * time).clamp(Duration::from_secs(1), Duration::from_mins(1)));
        let mut last_work = Instant::now();
        loop {
            if let Err(end) = self.tick(link).await {
                return end;
            }
            self.expire();
            if !self.active.is_empty() {
                last_work = Instant::now();
            } else if last_work.elapsed() >= IDLE {
                return End::Idle;
            }
            let wake = self.next_expiry().unwrap_or_else(|| Instant::now() + quiet).min(Instant::now() + quiet);
            tokio::select! {
                command = self.commands.recv() => {
                    let Some(command) = command else { return End::Stop };
                    if self.accept(command, Some(link)).is_err() {
                        return End::Stop;
                    }
                }
                head = wakeups.next() => match head {
                    // Several heads are one wake-up.
                    Some(Ok(())) => while let Some(Some(Ok(()))) = wakeups.next().now_or_never() {},
                    Some(Err(error)) => return End::Lost(error),
                    None => return End::Lost(ChainError::Disconnected { operation: "new heads" }),
                },
                // No block for a while. Without this question nobody would notice that an idle connection is dead.
                () = sleep_until(wake) => match link.tips().await {
                    Err(error) if error.is_connection_lost() => return End::Lost(error),
                    _ => {}
                },
            }
        }
    }

    /// Takes a command; the error says that a probe wants the end.
    fn accept(&mut self, command: Command, link: Option<&Arc<Link>>) -> Result<(), End> {
        match command {
            Command::Link { reply } => match link {
                Some(link) => {
                    let _ = reply.send(Ok(link.clone()));
                }
                None => self.links.push((reply, Instant::now() + self.config.patience)),
            },
            Command::Recall { key, reply } => {
                let active = self.active.iter().map(|active| &active.entry).find(|entry| entry.key == key);
                let _ = reply.send(active.or_else(|| self.journal.get(&key)).map(|entry| entry.call.clone()));
            }
            Command::Used { reply } => {
                let _ = reply.send(self.journal.nonce_max());
            }
            Command::Submit { intent, reply } => self.accept_intent(intent, reply)?,
        }
        Ok(())
    }

    fn accept_intent(&mut self, intent: Intent, reply: oneshot::Sender<Answer>) -> Result<(), End> {
        let Intent { key, call, wait } = intent;
        let patience = self.config.patience;
        let waiter = Waiter { wait, until: Instant::now() + patience, patience, reply };
        let known = self.active.iter().position(|active| active.entry.key == key);
        let entry = match known {
            Some(i) => Some(self.active[i].entry.clone()),
            None => self.journal.get(&key).cloned(),
        };
        if entry.as_ref().is_some_and(|entry| entry.call != call) {
            let _ = waiter.reply.send(Err(SubmitError::KeyReused { key }));
            return Ok(());
        }
        if let Some(Entry { state: State::Included { receipt, result }, .. }) = &entry
            && wait <= reached(receipt)
        {
            // How long to wait was said when it failed; who asks again is told the class without the clock.
            let _ = waiter.reply.send(answer(call.name(), receipt, result, None));
            return Ok(());
        }
        if let Some(i) = known {
            self.active[i].waiters.push(waiter);
            return Ok(());
        }
        if self.active.len() >= OPEN_MAX {
            let _ = waiter.reply.send(Err(SubmitError::Busy { open: self.active.len() }));
            return Ok(());
        }
        let entry = entry.unwrap_or_else(|| Entry::new(&key, self.pair.hotkey(), call));
        let mut active = Active::new(entry);
        active.waiters.push(waiter);
        self.active.push(active);
        self.probe(Step::Accepted)
    }

    fn probe(&self, step: Step) -> Result<(), End> {
        match &self.config.probe {
            Some(probe) if probe.kill_after(step) => Err(End::Stop),
            _ => Ok(()),
        }
    }

    /// Answers those whose patience is at its end.
    fn expire(&mut self) {
        let now = Instant::now();
        for active in &mut self.active {
            let call = active.call();
            let trouble = active.trouble.clone().or_else(|| self.trouble.clone());
            let (over, waiting): (Vec<_>, Vec<_>) = active.waiters.drain(..).partition(|waiter| waiter.until <= now);
            active.waiters = waiting;
            for waiter in over {
                let _ = waiter.reply.send(Err(SubmitError::Pending {
                    call,
                    after: waiter.patience,
                    trouble: trouble.clone(),
                }));
            }
        }
        let why = self.trouble.clone().unwrap_or_else(|| "no endpoint answered".to_owned());
        let (over, waiting): (Vec<_>, Vec<_>) = self.links.drain(..).partition(|(_, until)| *until <= now);
        self.links = waiting;
        for (reply, _) in over {
            let _ = reply.send(Err(SubmitError::Unreachable { why: why.clone() }));
        }
        // Of these nothing is on disk, and nobody waits.
        self.active.retain(|active| !(active.waiters.is_empty() && active.entry.attempts.is_empty()));
    }

    fn next_expiry(&self) -> Option<Instant> {
        let waiters = self.active.iter().flat_map(|active| active.waiters.iter().map(|waiter| waiter.until));
        waiters.chain(self.links.iter().map(|(_, until)| *until)).min()
    }

    /// One look at the chain, and what follows from it for every intent.
    async fn tick(&mut self, link: &Link) -> Result<(), End> {
        let mut i = 0;
        while i < self.active.len() {
            match self.advance(i, link).await {
                Ok(Turn::Done) => {
                    self.active.remove(i);
                }
                Ok(_) => i += 1,
                Err(End::Lost(error)) if !error.is_connection_lost() => {
                    // The node answers, but not to this question. The next block may change that.
                    debug!(error = error.chain(), key = self.active[i].entry.key, "an intent waits");
                    self.active[i].trouble = Some(error.chain());
                    i += 1;
                }
                Err(end) => return Err(end),
            }
        }
        Ok(())
    }

    async fn advance(&mut self, i: usize, link: &Link) -> Result<Turn, End> {
        for _ in 0..STEPS_MAX {
            match self.step(i, link).await? {
                Turn::Again => {}
                Turn::Wait => break,
                Turn::Done => return Ok(Turn::Done),
            }
        }
        let active = &mut self.active[i];
        if let Some(extrinsic_hash) = active.taken_over(self.generation) {
            active.tell(Wait::Sent, &Ok(Submitted::Sent { extrinsic_hash }));
        }
        Ok(Turn::Wait)
    }

    async fn step(&mut self, i: usize, link: &Link) -> Result<Turn, End> {
        let tips = link.tips().await?;
        let entry = &self.active[i].entry;
        if entry.genesis_hash.is_some_and(|genesis_hash| genesis_hash != link.genesis_hash) {
            self.active[i].trouble =
                Some("the endpoint serves another chain than the intent was signed for".to_owned());
            return Ok(Turn::Wait);
        }
        let found = match self.find(i, link, tips).await {
            Ok(found) => found,
            Err(error) if error.is_connection_lost() => return Err(error.into()),
            Err(error) => return self.lost_track(i, tips, error),
        };
        if let Some(found) = found {
            return self.included(i, link, tips, found).await;
        }
        if matches!(self.active[i].entry.state, State::Included { .. }) {
            info!(key = self.active[i].entry.key, "a reorganisation took the extrinsic out of its block");
            self.active[i].entry.state = State::Open;
            self.active[i].sent = None;
            self.put(i)?;
        }
        let seen = self.see(i, link, tips).await?;
        let mut what = next(&self.active[i].entry.attempts, seen);
        if what == Next::Wait
            && std::mem::take(&mut self.active[i].spoilt)
            && let Some(nonce) = self.active[i].nonce_out().filter(|nonce| *nonce >= seen.nonce_best)
        {
            what = Next::SignAgain { nonce };
        }
        match what {
            Next::Wait => Ok(Turn::Wait),
            Next::Send => self.send(i, link, tips).await,
            Next::SignAgain { nonce } => self.sign(i, link, tips, nonce, false).await,
            Next::SignFresh => {
                let others = self.active.iter().enumerate().filter(|(other, _)| *other != i);
                let free = others.filter_map(|(_, active)| active.nonce_out()).max().map_or(0, |nonce| nonce + 1);
                self.sign(i, link, tips, free.max(seen.nonce_best), true).await
            }
        }
    }

    async fn find(&self, i: usize, link: &Link, tips: Tips) -> Result<Option<Found>, ChainError> {
        let attempts = &self.active[i].entry.attempts;
        let (Some(first), Some(last)) = (
            attempts.iter().map(|attempt| attempt.birth + 1).min(),
            attempts.iter().map(|attempt| attempt.death.saturating_sub(1)).max(),
        ) else {
            return Ok(None);
        };
        let wanted: BTreeSet<_> = attempts.iter().map(|attempt| attempt.hash).collect();
        link.find(&wanted, tips, first, last).await
    }

    async fn see(&self, i: usize, link: &Link, tips: Tips) -> Result<Seen, ChainError> {
        let active = &self.active[i];
        let account = self.pair.hotkey();
        let nonce_best = link.nonce(&account, tips.best).await?;
        // Only what may be in a pool makes finality matter.
        let nonce_final = match active.nonce_out() {
            Some(_) => link.nonce(&account, tips.finalized).await?,
            None => nonce_best,
        };
        let best = tips.best.number;
        let sent_here = active.sent.is_some_and(|(generation, block)| {
            generation == self.generation && best < block.saturating_add(REMIND_BLOCKS)
        });
        Ok(Seen { best, finalized: tips.finalized.number, nonce_best, nonce_final, sent_here })
    }

    /// The blocks that would have it are gone. As long as it may still get in, the next look may show it.
    fn lost_track(&mut self, i: usize, tips: Tips, error: ChainError) -> Result<Turn, End> {
        let active = &mut self.active[i];
        let last = active.entry.attempts.iter().map(|attempt| attempt.death).max().unwrap_or(0);
        if tips.finalized.number < last {
            return Err(End::Lost(error));
        }
        let extrinsic = active.entry.attempts.last().map(|attempt| attempt.hash);
        if let Some(extrinsic) = extrinsic {
            let why = format!("the node no longer has the blocks that would show it ({})", error.chain());
            warn!(key = active.entry.key, why, "an intent's outcome cannot be found out");
            active.fail(&SubmitError::Unknown { call: active.call(), extrinsic, why });
        }
        // The journal keeps it: who asks again makes it be looked for again, perhaps at another node.
        Ok(Turn::Done)
    }

    async fn included(&mut self, i: usize, link: &Link, tips: Tips, found: Found) -> Result<Turn, End> {
        let finalized = found.block.number <= tips.finalized.number;
        let known = match &self.active[i].entry.state {
            State::Included { receipt, result } if receipt.block_hash == found.block.hash => {
                Some((receipt.clone(), result.clone()))
            }
            _ => None,
        };
        let news = known.as_ref().is_none_or(|(receipt, _)| receipt.finalized != finalized);
        let (mut receipt, result) = if let Some(known) = known {
            known
        } else {
            self.probe(Step::Seen)?;
            let (events, result) = link.outcome(found).await?;
            let (block, block_hash) = (found.block.number, found.block.hash);
            (Receipt { block, block_hash, extrinsic_hash: found.hash, finalized, events }, result)
        };
        receipt.finalized = finalized;
        if news {
            let key = &self.active[i].entry.key;
            info!(
                key,
                block = receipt.block,
                finalized,
                ?result,
                call = self.active[i].call(),
                "extrinsic is in a block"
            );
            self.active[i].entry.state = State::Included { receipt: receipt.clone(), result: result.clone() };
            self.put(i)?;
            self.probe(Step::Included)?;
            if finalized {
                self.probe(Step::Finalized)?;
            }
        }
        let answer = self.outcome(i, link, tips, &receipt, &result).await;
        self.active[i].tell(reached(&receipt), &answer);
        if finalized {
            self.journal.prune().map_err(|error| self.unwritable(&error))?;
            return Ok(Turn::Done);
        }
        Ok(Turn::Wait)
    }

    async fn outcome(&self, i: usize, link: &Link, tips: Tips, receipt: &Receipt, result: &CallResult) -> Answer {
        let call = &self.active[i].entry.call;
        let blocks = match result {
            CallResult::Failed { name, .. } => self.pause(link, tips, call, verdict(name)).await,
            _ => None,
        };
        answer(call.name(), receipt, result, blocks)
    }

    async fn pause(&self, link: &Link, tips: Tips, call: &Call, verdict: Verdict) -> Option<u64> {
        let Verdict::Wait(pause) = verdict else { return None };
        link.pause(tips, call, &self.pair.hotkey(), pause).await.ok()
    }

    async fn sign(&mut self, i: usize, link: &Link, tips: Tips, nonce: u64, fresh: bool) -> Result<Turn, End> {
        let active = &mut self.active[i];
        let call = active.entry.call.clone();
        if active.waiters.is_empty() {
            // Nobody waits. What is out is followed; where nothing is, the intent ends here.
            return if fresh { self.forget(i) } else { Ok(Turn::Wait) };
        }
        if tips.best.number < active.not_before {
            return Ok(Turn::Wait);
        }
        let signatures = active.entry.attempts.len();
        if signatures >= SIGNATURES_MAX {
            let trouble = active.trouble.clone().unwrap_or_else(|| "no block took it".to_owned());
            active.fail(&SubmitError::GivenUp { call: call.name(), signatures, trouble });
            return if fresh { self.forget(i) } else { Ok(Turn::Wait) };
        }
        if let Err(turn) = self.permitted(i).await {
            return if fresh { self.forget(i) } else { Ok(turn) };
        }
        let signed = match link.sign(tips, &call, &self.pair, nonce, self.config.era_blocks).await {
            Ok(signed) => signed,
            Err(SignError::Chain(error)) => return Err(error.into()),
            Err(SignError::NotOffered(why)) => {
                self.active[i].fail(&SubmitError::NotOffered { call: call.name(), why });
                return if fresh { self.forget(i) } else { Ok(Turn::Wait) };
            }
        };
        let Signed { bytes, hash, birth, death } = signed;
        debug!(call = call.name(), nonce, birth, death, extrinsic = %hash, "extrinsic signed");
        let attempt = Attempt { nonce, birth, death, hash, bytes: hex::encode(bytes), fate: Fate::Signed };
        self.active[i].entry.attempts.push(attempt);
        self.active[i].entry.genesis_hash = Some(link.genesis_hash);
        self.put(i)?;
        self.probe(Step::Signed)?;
        Ok(Turn::Again)
    }

    async fn send(&mut self, i: usize, link: &Link, tips: Tips) -> Result<Turn, End> {
        let Some(last) = self.active[i].entry.attempts.last() else { return Ok(Turn::Again) };
        let first_time = last.fate == Fate::Signed;
        if first_time && self.active[i].waiters.is_empty() {
            return self.forget_unless_out(i);
        }
        let bytes = hex::decode(&last.bytes).map_err(|_| self.damaged())?;
        if let Err(turn) = self.permitted(i).await {
            return if first_time { self.forget_unless_out(i) } else { Ok(turn) };
        }
        if first_time {
            self.set_fate(i, Fate::Sent)?;
        }
        self.probe(Step::Sending)?;
        let answer = link.submit(&bytes).await?;
        self.probe(Step::Sent)?;
        self.active[i].sent = Some((self.generation, tips.best.number));
        match answer {
            Ok(()) => Ok(Turn::Wait),
            Err(refusal) => self.refused(i, link, tips, refusal, first_time).await,
        }
    }

    async fn refused(
        &mut self,
        i: usize,
        link: &Link,
        tips: Tips,
        refusal: Refusal,
        first_time: bool,
    ) -> Result<Turn, End> {
        let Some(name) = refusal.name() else {
            // The endpoint, not the pool, had no time for it. The same bytes are sent again.
            self.active[i].trouble = Some(refusal.text);
            self.active[i].sent = None;
            return Ok(Turn::Wait);
        };
        if name == "AlreadyImported" {
            return Ok(Turn::Wait);
        }
        let active = &mut self.active[i];
        active.trouble = Some(format!("{name} ({})", refusal.text));
        info!(key = active.entry.key, name, text = refusal.text, first_time, "the pool did not take the extrinsic");
        if !first_time {
            // It was taken once, so it may be in a block or another pool, whatever this one says now.
            active.spoilt = matches!(name.as_str(), "BadProof" | "AncientBirthBlock");
            return Ok(if active.spoilt { Turn::Again } else { Turn::Wait });
        }
        self.set_fate(i, Fate::Refused)?;
        let verdict = verdict(&name);
        let active = &mut self.active[i];
        let refusals = active.entry.attempts.iter().filter(|attempt| attempt.fate == Fate::Refused).count();
        let about_call = name == "InvalidRevealRound" || name == "InvalidShieldedTxPubKeyHash";
        if verdict == Verdict::RetryNow && !about_call {
            // Once at once, then block by block.
            active.not_before = if refusals < 2 { 0 } else { tips.best.number + 1 };
            return Ok(Turn::Again);
        }
        if name == "PriorityTooLow" {
            active.outbid += 1;
            if active.outbid <= OUTBID_MAX {
                active.not_before = tips.best.number + OUTBID_PAUSE;
                return Ok(Turn::Wait);
            }
        }
        let call = active.entry.call.clone();
        let class = verdict.class(self.pause(link, tips, &call, verdict).await);
        let active = &mut self.active[i];
        active.fail(&SubmitError::Refused { call: call.name(), name, text: refusal.text, class });
        self.forget_unless_out(i)
    }

    /// Asks the gate. Where it says no, those who wait are told.
    async fn permitted(&mut self, i: usize) -> Result<(), Turn> {
        let call = self.active[i].entry.call.clone();
        // A gate that hangs is a gate that says no.
        let answer = timeout(GATE_DEADLINE, self.gate.permit(&call)).await;
        let source = match answer {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => GateError {
                reason: "the guard before signatures gave no answer".to_owned(),
                class: FailureClass::WaitBlocks(1),
            },
        };
        warn!(call = call.name(), reason = source.reason, "the guard said no");
        self.active[i].fail(&SubmitError::Gate { call: call.name(), source });
        Err(Turn::Wait)
    }

    fn set_fate(&mut self, i: usize, fate: Fate) -> Result<(), End> {
        if let Some(last) = self.active[i].entry.attempts.last_mut() {
            last.fate = fate;
        }
        self.put(i)
    }

    fn put(&mut self, i: usize) -> Result<(), End> {
        self.journal.put(&self.active[i].entry).map_err(|error| self.unwritable(&error))
    }

    /// Without a journal nothing goes on: the task ends, and everybody is told.
    fn unwritable(&mut self, error: &JournalError) -> End {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        let why = format!("{error}{source}");
        tracing::error!(why, "the journal of intents cannot be written: nothing more is signed");
        for active in &mut self.active {
            active.fail(&SubmitError::Journal { why: why.clone() });
        }
        End::Stop
    }

    fn damaged(&mut self) -> End {
        let path = self.config.journal_dir.clone();
        self.unwritable(&JournalError::Damaged { path, why: "an attempt's bytes are no hex".to_owned() })
    }

    fn forget_unless_out(&mut self, i: usize) -> Result<Turn, End> {
        if self.active[i].nonce_out().is_some() { Ok(Turn::Wait) } else { self.forget(i) }
    }

    /// Nothing of it is on the chain or can get there: its key is free again.
    fn forget(&mut self, i: usize) -> Result<Turn, End> {
        let key = self.active[i].entry.key.clone();
        self.journal.remove(&key).map_err(|error| self.unwritable(&error))?;
        Ok(Turn::Done)
    }
}

/// For whom this is enough.
fn reached(receipt: &Receipt) -> Wait {
    if receipt.finalized { Wait::Finalized } else { Wait::Included }
}

fn answer(call: &'static str, receipt: &Receipt, result: &CallResult, blocks: Option<u64>) -> Answer {
    match result {
        CallResult::Success => Ok(Submitted::Included(receipt.clone())),
        CallResult::Failed { pallet, name, docs } => Err(SubmitError::Dispatch {
            call,
            pallet: pallet.clone(),
            name: name.clone(),
            docs: docs.clone(),
            receipt: Box::new(receipt.clone()),
            class: verdict(name).class(blocks),
        }),
        CallResult::Unreadable { why } => Err(SubmitError::Unknown {
            call,
            extrinsic: receipt.extrinsic_hash,
            why: format!("it is in block {}, but what became of it there is unreadable: {why}", receipt.block),
        }),
    }
}
