//! Keeps one subnet's metagraph current: one task, one connection.
//!
//! The task follows the final blocks of one endpoint and reads the metagraph after new ones, at most once per
//! [`ChainConfig::min_interval`]; what is published was never taken back by a reorganisation. The best blocks are watched
//! beside that, because they tell a chain that stands still from a finality that does.
//!
//! The field's most common failure is a socket that is open and dead, so nothing here waits without a bound: calls have
//! deadlines, and a node that brings no block in time is asked for its best one. When neither a block nor an answer came for
//! three block times the connection is given up even if nothing reported an error; a node that answers, but has no new
//! block, gets a little longer on a fast chain. Which endpoint is used is decided in [`Endpoints`]; what is wrong meanwhile
//! stands in [`ChainView::problem`], and the last good metagraph stays.
//!
//! Block numbers are never compared: a development chain that starts again from genesis is followed like any other.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use sidecar_util::{BlockHash, Metagraph, MetagraphDiff, NetUid};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::client::{Connection, SubxtConnect};
use crate::endpoints::{EndpointHealth, Endpoints, FailureClass};
use crate::pace::Paces;
use crate::reads::Reads;
use crate::rpc::CALL_DEADLINE;
use crate::source::{ChainSource, Connect, Head, Probe};
use crate::{ChainError, ChainProblem};

/// Block times without a sign of life after which a connection is given up.
const STALL_BLOCKS: u32 = 3;

/// A socket is not called dead sooner than this: an answer may have to wait behind a metagraph of a megabyte, here and in the
/// node, and both may have to wait for a processor. Chains with blocks of a third of a second or more are not concerned.
const SILENT_MIN: Duration = Duration::from_secs(1);

/// A chain whose node answers is not said to stand still sooner than this: fast development chains pause for longer than
/// three of their blocks when they run an epoch of many neurons.
const STALL_MIN: Duration = Duration::from_secs(5);

/// Block times without a new final block, while new ones come, that are a problem. Finality follows two or three blocks
/// behind, and now and then needs a second round of votes.
const FINALITY_BLOCKS: u32 = 10;

/// How often a chain that declares no block time is asked whether it is still there, and how long it has for the answer.
const POLL_INTERVAL: Duration = Duration::from_secs(15);
const POLL_DEADLINE: Duration = Duration::from_secs(5);

/// Refreshes that may fail in a row before the connection is given up.
const FAILURES_MAX: u32 = 3;

/// How often endpoints that are preferred to the one in use are looked at.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);

/// Callers that may wait for a refresh at the same time. They all get the answer of one query.
const REQUESTS_MAX: usize = 256;

/// Updates that a subscriber may be behind before it gets the whole metagraph instead.
const UPDATES_MAX: usize = 16;

/// What a [`Querier`] follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainConfig {
    /// WebSocket addresses, in the order of preference.
    pub endpoints: Vec<String>,
    /// Addresses of nodes that keep the state of all blocks, for reads of old blocks only.
    pub archive_endpoints: Vec<String>,
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
///
/// Whoever watches it is woken by refreshes and problems. The newest blocks and the health of endpoints change more often
/// and wake nobody; they are current whenever the view is looked at.
#[derive(Debug, Clone, Default)]
pub struct ChainView {
    /// The endpoint in use, or the one used last.
    pub endpoint: Option<String>,
    /// Genesis hash of the chain there.
    pub genesis_hash: Option<BlockHash>,
    /// Version of the chain's runtime.
    pub spec_version: Option<u32>,
    /// Number of the block of the last refresh, a final one.
    pub block: Option<u64>,
    /// Number of the best block seen.
    pub best_block: Option<u64>,
    /// Number of the last final block seen.
    pub finalized_block: Option<u64>,
    /// The last good metagraph; older than `block` where the subnet vanished since.
    pub metagraph: Option<Arc<Metagraph>>,
    /// When the last refresh was done.
    pub refreshed_at: Option<Instant>,
    /// How long the last refresh took.
    pub refresh_time: Option<Duration>,
    /// Why the view is not current, if it is not.
    pub problem: Option<ChainProblem>,
    /// What is known of every endpoint, in the order of preference.
    pub endpoints: Vec<EndpointHealth>,
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

/// A new metagraph, and what is new in it.
#[derive(Debug, Clone, PartialEq)]
pub struct MetagraphUpdate {
    /// The whole of it.
    pub metagraph: Arc<Metagraph>,
    /// From the one before to this one; `None` where the reader did not have the one before.
    pub diff: Option<Arc<MetagraphDiff>>,
}

/// The updates of a metagraph, one after the other.
#[derive(Debug)]
pub struct Updates {
    view: watch::Receiver<Arc<ChainView>>,
    received: broadcast::Receiver<Arc<MetagraphUpdate>>,
    /// The block that the reader has, to skip what it has already.
    has: Option<BlockHash>,
    /// Whether the reader missed some.
    whole: bool,
}

impl Updates {
    /// The next update: the whole metagraph at first and after falling behind, a diff otherwise. `None` when the querier
    /// has ended.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub async fn next(&mut self) -> Option<Arc<MetagraphUpdate>> {
        loop {
            if self.whole {
                self.whole = false;
                let metagraph = self.view.borrow().metagraph.clone();
                if let Some(metagraph) = metagraph {
                    self.has = Some(metagraph.block_hash);
                    return Some(Arc::new(MetagraphUpdate { metagraph, diff: None }));
                }
            }
            match self.received.recv().await {
                Ok(update) => match &update.diff {
                    // What the whole one contained already.
                    Some(diff) if Some(diff.from_hash) != self.has && self.has.is_some() => {}
                    Some(_) if self.has.is_none() => {
                        self.has = Some(update.metagraph.block_hash);
                        return Some(Arc::new(MetagraphUpdate { metagraph: update.metagraph.clone(), diff: None }));
                    }
                    _ => {
                        self.has = Some(update.metagraph.block_hash);
                        return Some(update);
                    }
                },
                Err(broadcast::error::RecvError::Lagged(_)) => self.whole = true,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
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
    updates: broadcast::WeakSender<Arc<MetagraphUpdate>>,
    reads: Reads,
    paces: Paces,
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
        let (updates, _) = broadcast::channel(UPDATES_MAX);
        let (connection, connection_rx) = watch::channel(None);
        let (config, config_rx) = watch::channel(config);
        let paces = Paces::default();
        let handle = QuerierHandle {
            view: view_rx.clone(),
            requests,
            updates: updates.downgrade(),
            reads: Reads::new(connection_rx, config_rx.clone(), view_rx, paces.clone()),
            paces: paces.clone(),
        };
        let endpoints = Endpoints::new(&config_rx.borrow().endpoints, paces);
        let follower = Follower {
            connect,
            config: config_rx,
            requests: requests_rx,
            view,
            updates,
            connection,
            endpoints,
            stalled: None,
            finality_stalled: None,
            worst: None,
        };
        let task = tokio::spawn(follower.run());
        Self { config, handle, task }
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

    /// Every metagraph from now on, beginning with the one that is there.
    pub fn updates(&self) -> Updates {
        let updates = match self.updates.upgrade() {
            Some(updates) => updates.subscribe(),
            // The querier has ended, and so have its updates.
            None => broadcast::channel(1).1,
        };
        Updates { view: self.view.clone(), received: updates, has: None, whole: true }
    }

    /// Reads of anything else on the same chain, over the same connection.
    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// How fast its endpoints may be asked, for whoever else asks them.
    pub fn paces(&self) -> Paces {
        self.paces.clone()
    }

    /// What is known of every endpoint, in the order of preference.
    pub fn endpoints(&self) -> Vec<EndpointHealth> {
        self.view.borrow().endpoints.clone()
    }

    /// Reads the metagraph at the newest final block and returns the view with it. Callers at the same time share one query.
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
    updates: broadcast::Sender<Arc<MetagraphUpdate>>,
    /// The connection in use, for reads beside the refreshes.
    connection: watch::Sender<Option<Connection>>,
    endpoints: Endpoints,
    /// The best block at which the chain stood still last. Seeing it again does not make the view current.
    stalled: Option<Head>,
    /// The final block after which none came while others did. The same holds.
    finality_stalled: Option<Head>,
    /// The most telling problem since an endpoint worked last.
    worst: Option<ChainProblem>,
}

/// Why the work with one endpoint ended.
enum End {
    /// It failed.
    Failed { problem: ChainProblem, class: FailureClass },
    /// A preferred one works again.
    Preferred,
}

type Refreshing = BoxFuture<'static, (Head, Instant, Result<Option<Metagraph>, ChainError>)>;
type Asking = BoxFuture<'static, Result<Head, ChainError>>;
type Probing = BoxFuture<'static, (usize, Duration, Result<Probe, ChainError>)>;

/// What is known while one endpoint is followed.
struct Session {
    endpoint: String,
    index: usize,
    source: Arc<dyn ChainSource>,
    best: Option<Head>,
    best_at: Instant,
    /// When the node last said something that only a node that is there can say: a new block, or that there is none.
    alive_at: Instant,
    /// The question for its best block, under way.
    asking: Option<Asking>,
    /// When it is asked, or asked again.
    ask_at: Instant,
    /// It said that it has another block than the last one that it told of.
    untold: bool,
    finalized: Option<Head>,
    finalized_at: Instant,
    /// When the next refresh is due.
    refresh_at: Option<Instant>,
    last_refresh: Option<Instant>,
    refreshing: Option<Refreshing>,
    /// Refreshes that failed in a row.
    failures: u32,
    /// Callers who wait for a refresh at the newest final block.
    waiting: Vec<Reply>,
    probing: Option<Probing>,
    probe_at: Instant,
}

impl Session {
    fn new(endpoint: &str, index: usize, source: Arc<dyn ChainSource>) -> Self {
        let now = Instant::now();
        let mut session = Self {
            endpoint: endpoint.to_owned(),
            index,
            source,
            best: None,
            best_at: now,
            alive_at: now,
            asking: None,
            ask_at: now,
            untold: false,
            finalized: None,
            finalized_at: now,
            refresh_at: None,
            last_refresh: None,
            refreshing: None,
            failures: 0,
            waiting: Vec::new(),
            probing: None,
            probe_at: now + PROBE_INTERVAL,
        };
        session.is_alive(now);
        session
    }

    fn failed(&self, error: &ChainError) -> End {
        End::Failed { problem: ChainProblem::of(&self.endpoint, error), class: class_of(error) }
    }

    /// The node is there.
    fn is_alive(&mut self, now: Instant) {
        (self.alive_at, self.asking, self.untold) = (now, None, false);
        // Half of the time that a silent one has, so that the other half is for its answer.
        self.ask_at = now + self.source.block_time().map_or(POLL_INTERVAL, |time| time * STALL_BLOCKS / 2);
    }

    /// When the connection is given up, if the node says nothing until then.
    fn dead_at(&self) -> Instant {
        let of_blocks = |time: Duration| (time * STALL_BLOCKS).max(SILENT_MIN);
        self.alive_at + self.source.block_time().map_or(POLL_INTERVAL + POLL_DEADLINE, of_blocks)
    }

    /// When a chain without a new block stands still; never where blocks come on demand.
    fn stalls_at(&self) -> Option<Instant> {
        self.source.block_time().map(|time| self.best_at + (time * STALL_BLOCKS).max(STALL_MIN))
    }

    fn ask(&mut self) {
        let source = self.source.clone();
        self.asking = Some(Box::pin(async move { source.head().await }));
    }

    /// When finality counts as standing still; never while there is nothing that could become final.
    fn finality_due(&self) -> Option<Instant> {
        if self.best == self.finalized {
            return None;
        }
        let patience =
            self.source.block_time().map_or(2 * POLL_INTERVAL, |time| (time * FINALITY_BLOCKS).max(STALL_MIN));
        Some(self.finalized_at + patience)
    }

    fn start_refresh(&mut self, netuid: NetUid) {
        let Some(head) = self.finalized else { return };
        let (source, now) = (self.source.clone(), Instant::now());
        (self.refresh_at, self.last_refresh) = (None, Some(now));
        self.refreshing = Some(Box::pin(async move { (head, now, source.metagraph(netuid, head).await) }));
    }
}

impl Follower {
    async fn run(mut self) {
        let mut followed = self.config.borrow_and_update().clone();
        loop {
            let mut configs = self.config.clone();
            let (mut refreshed, mut used) = (false, None);
            let outcome = tokio::select! {
                changed = configs.changed() => changed.map(|()| None),
                end = self.follow(&followed, &mut refreshed, &mut used) => Ok(Some(end)),
            };
            self.connection.send_replace(None);
            match outcome {
                Err(_) => return,
                Ok(None) => {
                    let next = self.config.borrow_and_update().clone();
                    self.take(&followed, &next);
                    followed = next;
                }
                Ok(Some(End::Preferred)) => self.endpoints.leaves(),
                Ok(Some(End::Failed { problem, class })) => {
                    let endpoint = used.map(|index| self.endpoints.endpoint(index));
                    warn!(endpoint, problem = %problem, reason = problem.reason(), "chain connection ended");
                    self.after(used, problem, class, refreshed);
                }
            }
            self.show_endpoints();
        }
    }

    /// What follows a failure: silence, or a problem when nothing is left to try.
    fn after(&mut self, used: Option<usize>, problem: ChainProblem, class: FailureClass, refreshed: bool) {
        let Some(index) = used else { return };
        let now = Instant::now();
        if refreshed {
            // It worked until now: perhaps one reconnect is all it takes, and nobody needs to know.
            self.worst = None;
            return self.endpoints.lost(index, class, now);
        }
        // That an endpoint is down is said only when no endpoint has anything worse to say.
        if problem.is_configuration() || !self.worst.as_ref().is_some_and(ChainProblem::is_configuration) {
            self.worst = Some(problem);
        }
        if self.endpoints.failed(index, class, now)
            && let Some(worst) = self.worst.clone()
        {
            self.publish_problem(worst);
        }
    }

    /// Takes over a new configuration: another subnet or chain forgets what was known of the old one.
    fn take(&mut self, old: &ChainConfig, new: &ChainConfig) {
        info!(endpoints = ?new.endpoints, netuid = %new.netuid, "chain configuration changed");
        self.endpoints.set(&new.endpoints);
        self.worst = None;
        if (old.netuid, old.genesis_hash) != (new.netuid, new.genesis_hash) {
            (self.stalled, self.finality_stalled) = (None, None);
            let view = ChainView { problem: Some(ChainProblem::Connecting), ..ChainView::default() };
            self.view.send_replace(Arc::new(view));
        }
    }

    /// Connects to the best endpoint and follows it until that fails. `refreshed` tells whether it ever worked, `used`
    /// which one it was.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection and answers nobody; callers of `refresh` have their own deadline.
    async fn follow(&mut self, config: &ChainConfig, refreshed: &mut bool, used: &mut Option<usize>) -> End {
        let index = loop {
            match self.endpoints.choose(Instant::now()) {
                Some(Ok(index)) => break index,
                Some(Err(at)) => {
                    tokio::select! {
                        Some(reply) = self.requests.recv() => self.refuse([reply]),
                        () = sleep_until(at) => {}
                    }
                }
                None => {
                    self.publish_problem(ChainProblem::NoEndpoint);
                    // Nothing to do before the configuration changes, which ends this future.
                    match self.requests.recv().await {
                        Some(reply) => self.refuse([reply]),
                        None => std::future::pending().await,
                    }
                }
            }
        };
        *used = Some(index);
        let endpoint = self.endpoints.endpoint(index).to_owned();
        match self.session(config, &endpoint, index, refreshed).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn session(
        &mut self,
        config: &ChainConfig,
        endpoint: &str,
        index: usize,
        refreshed: &mut bool,
    ) -> Result<std::convert::Infallible, End> {
        let of =
            |error: ChainError| End::Failed { problem: ChainProblem::of(endpoint, &error), class: class_of(&error) };
        let began = Instant::now();
        let source = self.connect.connect_paced(endpoint, self.endpoints.pace(index)).await.map_err(of)?;
        let found = source.genesis_hash();
        if let Some(expected) = config.genesis_hash.filter(|expected| *expected != found) {
            let problem = ChainProblem::GenesisMismatch { endpoint: endpoint.to_owned(), expected, found };
            return Err(End::Failed { problem, class: FailureClass::WrongChain });
        }
        let (mut finalized_heads, mut heads) =
            futures::try_join!(source.finalized_heads(), source.heads()).map_err(of)?;
        info!(endpoint, genesis_hash = %found, block_time = ?source.block_time(), "connected to the chain");
        self.endpoints.uses(index);
        self.endpoints.answered(index, began.elapsed());
        self.connection.send_replace(source.connection());

        let mut session = Session::new(endpoint, index, source);
        loop {
            let (finality_due, stalls_at, dead_at) = (session.finality_due(), session.stalls_at(), session.dead_at());
            tokio::select! {
                // In this order, so that a caller who asks after a block was announced gets an answer at that block.
                biased;
                head = heads.next() => {
                    let head = head.unwrap_or_else(lost("new heads")).map_err(of)?;
                    self.saw_best(&mut session, head);
                }
                head = finalized_heads.next() => {
                    let head = head.unwrap_or_else(lost("finalised heads")).map_err(of)?;
                    self.saw_final(&mut session, head, config);
                }
                Some(reply) = self.requests.recv() => {
                    match session.finalized {
                        Some(finalized) if *refreshed && self.is_at(finalized) => self.answer([reply]),
                        _ => {
                            session.waiting.push(reply);
                            session.refresh_at = Some(Instant::now());
                        }
                    }
                }
                (head, began, answer) = pending_or(&mut session.refreshing) => {
                    session.refreshing = None;
                    self.refreshed(&mut session, config, head, began, answer, refreshed)?;
                }
                () = sleep_until(session.refresh_at.unwrap_or(began)),
                    if session.refresh_at.is_some() && session.refreshing.is_none() && session.finalized.is_some() =>
                {
                    session.start_refresh(config.netuid);
                }
                (index, took, probe) = pending_or(&mut session.probing) => {
                    session.probing = None;
                    session.probe_at = Instant::now() + PROBE_INTERVAL;
                    self.probed(config, index, took, probe)?;
                }
                () = sleep_until(session.probe_at), if session.probing.is_none() => self.start_probe(&mut session),
                answer = pending_or(&mut session.asking) => {
                    session.asking = None;
                    asked(&mut session, answer)?;
                }
                () = sleep_until(dead_at) => return Err(self.dead(&session)),
                () = sleep_until(session.ask_at), if session.asking.is_none() && !session.untold => session.ask(),
                () = sleep_until(stalls_at.unwrap_or(began)), if stalls_at.is_some() => {
                    return Err(self.stalled(&session, refreshed));
                }
                () = sleep_until(finality_due.unwrap_or(began)), if finality_due.is_some() => {
                    self.finality_stalled(&mut session, refreshed)?;
                }
            }
        }
    }

    fn saw_best(&mut self, session: &mut Session, head: Head) {
        // A subscription begins with the block that is the best already.
        if session.best != Some(head) {
            if session.best == session.finalized {
                // From now on there is something that may become final.
                session.finalized_at = Instant::now();
            }
            (session.best, session.best_at) = (Some(head), Instant::now());
            session.is_alive(session.best_at);
            self.endpoints.saw(session.index, head.number, session.best_at);
            self.show(|view| view.best_block = Some(head.number));
        }
    }

    fn saw_final(&mut self, session: &mut Session, head: Head, config: &ChainConfig) {
        if session.finalized != Some(head) {
            let now = Instant::now();
            (session.finalized, session.finalized_at) = (Some(head), now);
            let due = session.last_refresh.map_or(now, |last| last + config.min_interval);
            session.refresh_at = Some(session.refresh_at.map_or(due, |at| at.min(due)));
            self.show(|view| view.finalized_block = Some(head.number));
        }
    }

    /// A refresh came to an end.
    fn refreshed(
        &mut self,
        session: &mut Session,
        config: &ChainConfig,
        head: Head,
        began: Instant,
        answer: Result<Option<Metagraph>, ChainError>,
        refreshed: &mut bool,
    ) -> Result<(), End> {
        let took = began.elapsed();
        match answer {
            Ok(metagraph) => {
                (session.failures, *refreshed) = (0, true);
                self.endpoints.answered(session.index, took);
                self.endpoints.works(session.index);
                self.worst = None;
                self.publish(config.netuid, session, head, took, metagraph);
                if session.finalized == Some(head) {
                    self.answer(session.waiting.drain(..));
                } else if !session.waiting.is_empty() {
                    // Whoever asked after the next block was announced is owed that one.
                    session.refresh_at = Some(Instant::now());
                }
                Ok(())
            }
            Err(error) => {
                session.failures += 1;
                let failures = session.failures;
                let endpoint = &session.endpoint;
                debug!(endpoint, error = error.chain(), failures, "metagraph refresh failed");
                refuse(session.waiting.drain(..), &ChainProblem::of(endpoint, &error));
                self.show_endpoints();
                if error.is_rate_limited() && self.endpoints.len() == 1 {
                    // A new connection would only ask more of it.
                    if failures >= FAILURES_MAX {
                        self.publish_problem(ChainProblem::of(endpoint, &error));
                    }
                    let wait = self.endpoints.pace(session.index).wait().max(config.min_interval);
                    session.refresh_at = Some(Instant::now() + wait);
                    return Ok(());
                }
                if error.is_connection_lost() || error.is_rate_limited() || failures >= FAILURES_MAX {
                    // A node that fails three times in a row is no better than one that is gone.
                    *refreshed &= error.is_connection_lost() || error.is_rate_limited();
                    return Err(session.failed(&error));
                }
                session.refresh_at = Some(Instant::now() + config.min_interval);
                Ok(())
            }
        }
    }

    fn start_probe(&mut self, session: &mut Session) {
        session.probe_at = Instant::now() + PROBE_INTERVAL;
        if let Some(index) = self.endpoints.to_probe(Instant::now()) {
            let (connect, endpoint) = (self.connect.clone(), self.endpoints.endpoint(index).to_owned());
            let pace = self.endpoints.pace(index);
            session.probing = Some(Box::pin(async move {
                let began = Instant::now();
                let probe = connect.probe(&endpoint, pace).await;
                (index, began.elapsed(), probe)
            }));
        }
    }

    /// A look at a preferred endpoint came to an end.
    fn probed(
        &mut self,
        config: &ChainConfig,
        index: usize,
        took: Duration,
        probe: Result<Probe, ChainError>,
    ) -> Result<(), End> {
        let now = Instant::now();
        let class = match probe {
            Ok(probe) if config.genesis_hash.is_none_or(|expected| expected == probe.genesis_hash) => {
                let returns = self.endpoints.probed(index, probe.best, took, now);
                self.show_endpoints();
                if returns && self.endpoints.choose(now) == Some(Ok(index)) {
                    info!(endpoint = self.endpoints.endpoint(index), "going back to a preferred endpoint");
                    return Err(End::Preferred);
                }
                return Ok(());
            }
            Ok(_) => FailureClass::WrongChain,
            Err(error) => class_of(&error),
        };
        self.endpoints.probe_failed(index, class, now);
        self.show_endpoints();
        Ok(())
    }

    /// The node said nothing for too long: the socket is half open, or its subscription is.
    fn dead(&mut self, session: &Session) -> End {
        if let Some(best) = session.best
            && session.source.block_time().is_some()
        {
            self.stalled = Some(best);
            self.publish_problem(ChainProblem::Stale { block: best.number });
        }
        session.failed(&if session.untold {
            ChainError::Disconnected { operation: "new heads" }
        } else {
            ChainError::Timeout { operation: "the best block", after: session.dead_at() - session.ask_at }
        })
    }

    /// The node answers, but no block came for too long.
    fn stalled(&mut self, session: &Session, refreshed: &mut bool) -> End {
        let block = session.best.map_or(0, |head| head.number);
        let problem = ChainProblem::Stale { block };
        self.stalled = session.best;
        self.publish_problem(problem.clone());
        *refreshed = false;
        End::Failed { problem, class: FailureClass::Stale }
    }

    /// Blocks come, but none of them became final for too long.
    fn finality_stalled(&mut self, session: &mut Session, refreshed: &mut bool) -> Result<(), End> {
        session.finalized_at = Instant::now();
        let block = session.finalized.map_or(0, |head| head.number);
        let problem = ChainProblem::FinalityStalled { block };
        self.finality_stalled = session.finalized;
        self.publish_problem(problem.clone());
        if self.endpoints.len() == 1 {
            return Ok(());
        }
        // Perhaps only this node does not hear of it.
        *refreshed = false;
        Err(End::Failed { problem, class: FailureClass::FinalityStalled })
    }

    fn is_at(&self, head: Head) -> bool {
        let view = self.view.borrow();
        view.problem.is_none() && view.metagraph.as_ref().is_some_and(|metagraph| metagraph.block_hash == head.hash)
    }

    fn publish(&mut self, netuid: NetUid, session: &Session, head: Head, took: Duration, metagraph: Option<Metagraph>) {
        let problem = if metagraph.is_none() {
            Some(ChainProblem::SubnetMissing { netuid })
        } else if let Some(stalled) = self.stalled.filter(|stalled| session.best == Some(*stalled)) {
            Some(ChainProblem::Stale { block: stalled.number })
        } else if self.finality_stalled == Some(head) {
            Some(ChainProblem::FinalityStalled { block: head.number })
        } else {
            None
        };
        if problem.is_none() {
            (self.stalled, self.finality_stalled) = (None, None);
        }
        let old = self.view.borrow().clone();
        log_change(old.problem.as_ref(), problem.as_ref(), &session.endpoint, head);
        let metagraph = metagraph.map(Arc::new);
        self.view.send_replace(Arc::new(ChainView {
            endpoint: Some(session.endpoint.clone()),
            genesis_hash: Some(session.source.genesis_hash()),
            spec_version: session.source.spec_version().or(old.spec_version),
            block: Some(head.number),
            best_block: session.best.map(|best| best.number),
            finalized_block: session.finalized.map(|finalized| finalized.number),
            metagraph: metagraph.clone().or_else(|| old.metagraph.clone()),
            refreshed_at: Some(Instant::now()),
            refresh_time: Some(took),
            problem,
            endpoints: self.endpoints.health(Instant::now()),
        }));
        if let Some(metagraph) = metagraph
            && self.updates.receiver_count() > 0
        {
            let before = old.metagraph.as_deref().filter(|before| before.netuid == metagraph.netuid);
            let diff = before.map(|before| Arc::new(MetagraphDiff::between(before, &metagraph)));
            // Whoever subscribed may be gone again.
            let _ = self.updates.send(Arc::new(MetagraphUpdate { metagraph, diff }));
        }
    }

    /// Changes the view without waking those who watch it.
    fn show(&self, change: impl FnOnce(&mut ChainView)) {
        self.view.send_if_modified(|view| {
            change(Arc::make_mut(view));
            false
        });
    }

    fn show_endpoints(&self) {
        let health = self.endpoints.health(Instant::now());
        self.show(|view| view.endpoints = health);
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

/// Waits for a future that may not be there.
async fn pending_or<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The node answered what its best block is.
fn asked(session: &mut Session, answer: Result<Head, ChainError>) -> Result<(), End> {
    match answer {
        Ok(head) if session.best == Some(head) => session.is_alive(Instant::now()),
        // It goes on without telling us, or is about to.
        Ok(_) => session.untold = true,
        // Blocks that take so long leave time for another question.
        Err(ChainError::Timeout { .. }) => {}
        Err(error) if error.is_connection_lost() => return Err(session.failed(&error)),
        // A node that refuses is there.
        Err(_) => session.is_alive(Instant::now()),
    }
    Ok(())
}

fn lost<T>(operation: &'static str) -> impl FnOnce() -> Result<T, ChainError> {
    move || Err(ChainError::Disconnected { operation })
}

/// The class of a failed call.
fn class_of(error: &ChainError) -> FailureClass {
    match error {
        ChainError::Timeout { .. } => FailureClass::Timeout,
        ChainError::RateLimited { .. } => FailureClass::RateLimited,
        ChainError::Decode { .. } => FailureClass::Undecodable,
        error if error.is_connection_lost() => FailureClass::Unreachable,
        _ => FailureClass::Refused,
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
