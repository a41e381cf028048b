//! Keeps one subnet's metagraph current: one task, one connection.
//!
//! The task follows the best blocks of one endpoint and reads the metagraph after new ones, at most once per
//! [`ChainConfig::min_interval`]. The field's most common failure is a socket that is open and dead, so nothing here waits
//! without a bound: calls have deadlines, and when no new block came for three block times the connection is given up even
//! if nothing reported an error. Endpoints are tried in turn, forever; what is wrong meanwhile stands in
//! [`ChainView::problem`], and the last good metagraph stays.
//!
//! Block numbers are never compared: a development chain that starts again from genesis is followed like any other.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use sidecar_util::{BlockHash, Metagraph, NetUid};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::client::{CALL_DEADLINE, SubxtConnect};
use crate::source::{ChainSource, Connect, Head};
use crate::{ChainError, ChainProblem};

/// Block times without a new block after which a connection is given up.
const STALL_BLOCKS: u32 = 3;

/// A stall is never noticed sooner than this: fast development chains pause for longer than three of their blocks.
const STALL_MIN: Duration = Duration::from_secs(5);

/// How often a chain that declares no block time is asked whether it is still there.
const POLL_INTERVAL: Duration = Duration::from_secs(15);

/// Refreshes that may fail in a row before the connection is given up.
const FAILURES_MAX: u32 = 3;

/// Pause after all endpoints failed: the first, then doubled up to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Callers that may wait for a refresh at the same time. They all get the answer of one query.
const REQUESTS_MAX: usize = 256;

/// What a [`Querier`] follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainConfig {
    /// WebSocket addresses, tried in this order.
    pub endpoints: Vec<String>,
    /// The subnet.
    pub netuid: NetUid,
    /// The chain must have this genesis, if given.
    pub genesis_hash: Option<BlockHash>,
    /// Least time between two refreshes.
    pub min_interval: Duration,
}

impl ChainConfig {
    /// Least time between two refreshes where nothing else is said: blocks of the real chain come every 12 s.
    pub const MIN_INTERVAL: Duration = Duration::from_secs(1);
}

/// What is known of the chain and one of its subnets.
#[derive(Debug, Clone, Default)]
pub struct ChainView {
    /// The endpoint in use, or the one used last.
    pub endpoint: Option<String>,
    /// Genesis hash of the chain there.
    pub genesis_hash: Option<BlockHash>,
    /// Version of the chain's runtime.
    pub spec_version: Option<u32>,
    /// Number of the block of the last refresh.
    pub block: Option<u64>,
    /// The last good metagraph; older than `block` where the subnet vanished since.
    pub metagraph: Option<Arc<Metagraph>>,
    /// When the last refresh was done.
    pub refreshed_at: Option<Instant>,
    /// Why the view is not current, if it is not.
    pub problem: Option<ChainProblem>,
}

impl ChainView {
    /// Whether the last refresh succeeded and is recent.
    pub fn is_synced(&self) -> bool {
        self.problem.is_none() && self.metagraph.is_some()
    }

    /// Time since the last refresh.
    pub fn age(&self) -> Option<Duration> {
        self.refreshed_at.map(|at| at.elapsed())
    }
}

/// Owns the task that follows a chain. Dropping it ends the task.
#[derive(Debug)]
pub struct Querier {
    /// Dropping the sender is the signal to end.
    config: watch::Sender<ChainConfig>,
    handle: QuerierHandle,
    task: JoinHandle<()>,
}

/// Reads what a [`Querier`] knows; cheap to clone.
#[derive(Debug, Clone)]
pub struct QuerierHandle {
    view: watch::Receiver<Arc<ChainView>>,
    requests: mpsc::Sender<Reply>,
}

type Answer = Result<Arc<ChainView>, ChainProblem>;
type Reply = oneshot::Sender<Answer>;

impl Querier {
    /// Starts to follow a chain. Has to be called inside a Tokio runtime.
    pub fn spawn(config: ChainConfig) -> Self {
        Self::spawn_with(config, Arc::new(SubxtConnect))
    }

    /// The same over another way to connect.
    pub fn spawn_with(config: ChainConfig, connect: Arc<dyn Connect>) -> Self {
        let first = ChainView { problem: Some(ChainProblem::Connecting), ..ChainView::default() };
        let (view, view_rx) = watch::channel(Arc::new(first));
        let (requests, requests_rx) = mpsc::channel(REQUESTS_MAX);
        let (config, config_rx) = watch::channel(config);
        let follower = Follower { connect, config: config_rx, requests: requests_rx, view, stalled: None };
        let task = tokio::spawn(follower.run());
        Self { config, handle: QuerierHandle { view: view_rx, requests }, task }
    }

    /// The view and its changes.
    pub fn watch(&self) -> watch::Receiver<Arc<ChainView>> {
        self.handle.watch()
    }

    /// The view now.
    pub fn view(&self) -> Arc<ChainView> {
        self.handle.view()
    }

    /// A handle for readers.
    pub fn handle(&self) -> QuerierHandle {
        self.handle.clone()
    }

    /// Follows another configuration from now on. Another subnet or another genesis forgets the metagraph; other
    /// endpoints do not. The same configuration changes nothing.
    pub fn reconfigure(&self, config: ChainConfig) {
        self.config.send_if_modified(|current| {
            let changed = *current != config;
            *current = config;
            changed
        });
    }

    /// Ends the task and waits for it.
    pub async fn shutdown(self) {
        let Self { config, task, .. } = self;
        drop(config);
        if let Err(error) = task.await {
            warn!(%error, "chain querier ended badly");
        }
    }
}

impl QuerierHandle {
    /// The view and its changes.
    pub fn watch(&self) -> watch::Receiver<Arc<ChainView>> {
        self.view.clone()
    }

    /// The view now.
    pub fn view(&self) -> Arc<ChainView> {
        self.view.borrow().clone()
    }

    /// Reads the metagraph at the newest block and returns the view with it. Callers at the same time share one query.
    ///
    /// # Errors
    /// The problem that keeps the chain from being read, at the latest after the deadline of one call.
    pub async fn refresh(&self) -> Answer {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.requests.send(reply).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(CALL_DEADLINE, asked).await {
            Ok(Some(answer)) => answer,
            _ => Err(self.view().problem.clone().unwrap_or_else(|| ChainProblem::EndpointDown {
                endpoint: self.view().endpoint.clone().unwrap_or_default(),
                error: ChainError::Timeout { operation: "the metagraph", after: CALL_DEADLINE }.to_string(),
            })),
        }
    }
}

/// The task's state.
struct Follower {
    connect: Arc<dyn Connect>,
    config: watch::Receiver<ChainConfig>,
    requests: mpsc::Receiver<Reply>,
    view: watch::Sender<Arc<ChainView>>,
    /// The block at which the chain stood still last. Reading it again does not make the view current.
    stalled: Option<Head>,
}

/// Where the task is in its list of endpoints.
#[derive(Default)]
struct Round {
    /// Index of the endpoint that is next.
    next: usize,
    /// Endpoints that failed since the last success or pause.
    failed: usize,
    /// Pauses since the last success.
    pauses: u32,
    /// The most telling problem of the round.
    worst: Option<ChainProblem>,
}

impl Round {
    fn note(&mut self, problem: ChainProblem) {
        // That an endpoint is down is said only when no endpoint has anything worse to say.
        if problem.is_configuration() || !self.worst.as_ref().is_some_and(ChainProblem::is_configuration) {
            self.worst = Some(problem);
        }
    }

    fn pause(&mut self) -> Duration {
        let (first, last) = BACKOFF;
        let pause = first.saturating_mul(2_u32.saturating_pow(self.pauses)).min(last);
        self.pauses = self.pauses.saturating_add(1);
        self.failed = 0;
        pause
    }
}

impl Follower {
    async fn run(mut self) {
        let mut round = Round::default();
        let mut followed = self.config.borrow_and_update().clone();
        loop {
            let mut configs = self.config.clone();
            let mut refreshed = false;
            let endpoint = followed.endpoints.get(round.next % followed.endpoints.len().max(1)).cloned();
            let outcome = tokio::select! {
                changed = configs.changed() => changed.map(|()| None),
                problem = self.follow(&followed, endpoint.as_deref(), &mut refreshed) => Ok(Some(problem)),
            };
            if refreshed {
                round = Round { next: round.next, ..Round::default() };
            }
            let changed = match outcome {
                Err(_) => return,
                Ok(None) => true,
                Ok(Some(problem)) => {
                    warn!(endpoint, problem = %problem, reason = problem.reason(), "chain connection ended");
                    match self.after(problem, &mut round, refreshed, followed.endpoints.len()).await {
                        Err(_) => return,
                        Ok(changed) => changed,
                    }
                }
            };
            if changed {
                let next = self.config.borrow_and_update().clone();
                self.take(&followed, &next);
                followed = next;
                round = Round::default();
            }
        }
    }

    /// What follows the end of a connection: the next endpoint at once, or a pause when all of them failed. Returns
    /// whether the configuration changed meanwhile.
    async fn after(
        &mut self,
        problem: ChainProblem,
        round: &mut Round,
        refreshed: bool,
        endpoints: usize,
    ) -> Result<bool, watch::error::RecvError> {
        let pause = if refreshed {
            // It worked until now: perhaps one reconnect is all it takes, and nobody needs to know.
            round.pause()
        } else {
            round.next = round.next.wrapping_add(1);
            round.failed += 1;
            round.note(problem);
            if round.failed < endpoints {
                return Ok(false);
            }
            if let Some(worst) = round.worst.take() {
                self.publish_problem(worst);
            }
            round.pause()
        };
        let end = Instant::now() + pause;
        loop {
            tokio::select! {
                changed = self.config.changed() => return changed.map(|()| true),
                Some(reply) = self.requests.recv() => self.refuse([reply]),
                () = sleep_until(end) => return Ok(false),
            }
        }
    }

    /// Takes over a new configuration: another subnet or chain forgets what was known of the old one.
    fn take(&mut self, old: &ChainConfig, new: &ChainConfig) {
        info!(endpoints = ?new.endpoints, netuid = %new.netuid, "chain configuration changed");
        if (old.netuid, old.genesis_hash) != (new.netuid, new.genesis_hash) {
            self.stalled = None;
            let view = ChainView { problem: Some(ChainProblem::Connecting), ..ChainView::default() };
            self.view.send_replace(Arc::new(view));
        }
    }

    /// Connects to one endpoint and follows it until that fails. `refreshed` tells whether it ever worked.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection and answers nobody; callers of `refresh` have their own deadline.
    async fn follow(&mut self, config: &ChainConfig, endpoint: Option<&str>, refreshed: &mut bool) -> ChainProblem {
        let Some(endpoint) = endpoint else {
            self.publish_problem(ChainProblem::NoEndpoint);
            loop {
                // Nothing to do before the configuration changes, which ends this future.
                match self.requests.recv().await {
                    Some(reply) => self.refuse([reply]),
                    None => std::future::pending().await,
                }
            }
        };
        match self.session(config, endpoint, refreshed).await {
            Ok(never) => match never {},
            Err(problem) => problem,
        }
    }

    async fn session(
        &mut self,
        config: &ChainConfig,
        endpoint: &str,
        refreshed: &mut bool,
    ) -> Result<std::convert::Infallible, ChainProblem> {
        let of = |error: ChainError| ChainProblem::of(endpoint, &error);
        let source = self.connect.connect(endpoint).await.map_err(of)?;
        let found = source.genesis_hash();
        if let Some(expected) = config.genesis_hash.filter(|expected| *expected != found) {
            return Err(ChainProblem::GenesisMismatch { endpoint: endpoint.to_owned(), expected, found });
        }
        // Subscribed before the first head is read, so that no block falls between the two.
        let mut heads = source.heads().await.map_err(of)?;
        let mut newest = source.head().await.map_err(of)?;
        let block_time = source.block_time();
        let stall = block_time.map_or(POLL_INTERVAL, |time| (time * STALL_BLOCKS).max(STALL_MIN));
        info!(endpoint, genesis_hash = %found, block = newest.number, ?block_time, "connected to the chain");

        let mut failures = 0;
        let mut waiting: Vec<Reply> = Vec::new();
        let mut newest_at = Instant::now();
        let mut last_refresh: Option<Instant> = None;
        let mut refresh_at = Some(newest_at);
        loop {
            tokio::select! {
                // In this order, so that a caller who asks after a block was announced gets an answer at that block.
                biased;
                head = heads.next() => {
                    let lost = || ChainError::Disconnected { operation: "new heads" };
                    let head = head.unwrap_or_else(|| Err(lost())).map_err(of)?;
                    // A subscription begins with the block that is the best already.
                    if head != newest {
                        (newest, newest_at) = (head, Instant::now());
                        refresh_at.get_or_insert(last_refresh.map_or(newest_at, |last| last + config.min_interval));
                    }
                }
                Some(reply) = self.requests.recv() => {
                    if *refreshed && self.is_at(newest) {
                        self.answer([reply]);
                    } else {
                        waiting.push(reply);
                        refresh_at = Some(Instant::now());
                    }
                }
                () = sleep_until(refresh_at.unwrap_or(newest_at)), if refresh_at.is_some() => {
                    refresh_at = None;
                    last_refresh = Some(Instant::now());
                    match source.metagraph(config.netuid, newest).await {
                        Ok(metagraph) => {
                            (failures, *refreshed) = (0, true);
                            self.publish(config.netuid, endpoint, source.as_ref(), newest, metagraph);
                            self.answer(waiting.drain(..));
                        }
                        Err(error) => {
                            failures += 1;
                            debug!(endpoint, error = error.chain(), failures, "metagraph refresh failed");
                            refuse(waiting.drain(..), &ChainProblem::of(endpoint, &error));
                            if error.is_connection_lost() || failures >= FAILURES_MAX {
                                // A node that fails three times in a row is no better than one that is gone.
                                *refreshed &= error.is_connection_lost();
                                return Err(of(error));
                            }
                            refresh_at = Some(Instant::now() + config.min_interval);
                        }
                    }
                }
                () = sleep_until(newest_at + stall) => {
                    if block_time.is_some() {
                        // Said before the node is asked: a half-open socket would keep the answer for its deadline.
                        self.stalled = Some(newest);
                        self.publish_problem(ChainProblem::Stale { block: newest.number });
                    }
                    let head = source.head().await.map_err(of)?;
                    if head != newest {
                        // The node goes on but stopped to tell us.
                        return Err(of(ChainError::Disconnected { operation: "new heads" }));
                    }
                    if block_time.is_some() {
                        *refreshed = false;
                        return Err(ChainProblem::Stale { block: newest.number });
                    }
                    newest_at = Instant::now();
                }
            }
        }
    }

    fn is_at(&self, head: Head) -> bool {
        let view = self.view.borrow();
        view.problem.is_none() && view.metagraph.as_ref().is_some_and(|metagraph| metagraph.block_hash == head.hash)
    }

    fn publish(
        &mut self,
        netuid: NetUid,
        endpoint: &str,
        source: &dyn ChainSource,
        head: Head,
        metagraph: Option<Metagraph>,
    ) {
        let problem = match (&metagraph, self.stalled) {
            (None, _) => Some(ChainProblem::SubnetMissing { netuid }),
            (_, Some(stalled)) if stalled == head => Some(ChainProblem::Stale { block: head.number }),
            _ => None,
        };
        if problem.is_none() {
            self.stalled = None;
        }
        let old = self.view.borrow().clone();
        log_change(old.problem.as_ref(), problem.as_ref(), endpoint, head);
        self.view.send_replace(Arc::new(ChainView {
            endpoint: Some(endpoint.to_owned()),
            genesis_hash: Some(source.genesis_hash()),
            spec_version: source.spec_version().or(old.spec_version),
            block: Some(head.number),
            metagraph: metagraph.map(Arc::new).or_else(|| old.metagraph.clone()),
            refreshed_at: Some(Instant::now()),
            problem,
        }));
    }

    fn publish_problem(&mut self, problem: ChainProblem) {
        self.view.send_if_modified(|view| {
            let changed = view.problem.as_ref() != Some(&problem);
            if changed {
                warn!(problem = %problem, reason = problem.reason(), "chain out of sync");
                *view = Arc::new(ChainView { problem: Some(problem), ..ChainView::clone(view) });
            }
            changed
        });
    }

    /// Gives the view as it is, which was just refreshed.
    fn answer(&self, replies: impl IntoIterator<Item = Reply>) {
        let view = self.view.borrow().clone();
        let answer = match &view.problem {
            None => Ok(view.clone()),
            Some(problem) => Err(problem.clone()),
        };
        for reply in replies {
            // The caller may have given up.
            let _ = reply.send(answer.clone());
        }
    }

    fn refuse(&self, replies: impl IntoIterator<Item = Reply>) {
        let problem = self.view.borrow().problem.clone().unwrap_or(ChainProblem::Connecting);
        refuse(replies, &problem);
    }
}

fn refuse(replies: impl IntoIterator<Item = Reply>, problem: &ChainProblem) {
    for reply in replies {
        // The caller may have given up.
        let _ = reply.send(Err(problem.clone()));
    }
}

fn log_change(old: Option<&ChainProblem>, new: Option<&ChainProblem>, endpoint: &str, head: Head) {
    match (old, new) {
        (Some(_), None) => info!(endpoint, block = head.number, "chain in sync"),
        (old, Some(problem)) if old != Some(problem) => {
            warn!(endpoint, problem = %problem, reason = problem.reason(), "chain out of sync");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
