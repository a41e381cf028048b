//! Probes: who is alive and who can be reached, asked over the addresses that the chain names.
//!
//! Every so often each neuron's axon is asked for its peer record with a fresh challenge, in a request signed by us. What
//! comes back says one of three things: a record that the neuron's hotkey signed for this challenge (it is alive, and its
//! axon leads to it), anything else (something answers there), or nothing.
//!
//! Addresses come from strangers, so a probe is a request that a stranger chooses the target of. It goes to public addresses
//! only, unless the Network is `local`; it follows no redirect; it reads little and waits shortly; it says nothing that the
//! target could not know; and no target is asked more often than once a minute.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use rand::{Rng, RngCore};
use reqwest::{Client, StatusCode, redirect};
use sidecar_peer::Entry;
use sidecar_peer::handshake::record::{self, PeerRecord, RECORD_BYTES_MAX};
use sidecar_peer::handshake::strict::RequestLine;
use sidecar_peer::handshake::{Scheme, UnixTime};
use sidecar_util::http::{EntryState, NodeKind};
use sidecar_util::{Hotkey, check_public_ip};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::requests::Requests;
use crate::app::App;
use crate::ingest::announce;

/// No axon is asked more often, except on a `local` Network.
pub(crate) const INTERVAL_MIN: Duration = Duration::from_mins(1);

/// Time for one probe.
const DEADLINE: Duration = Duration::from_secs(3);

/// Time for its connection. Shorter than the whole: who drops packets in silence, as firewalls do, has not answered, and is
/// not to be taken for one that took the connection and then said nothing.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// Probes at the same time: a full subnet in a minute, when each of them takes the whole deadline.
const CONCURRENT: usize = 64;

/// Probes without an answer after which a neuron that was heard is called silent.
const MISSES: u32 = 3;

/// Shortest time between two looks for due probes: those that come close together go off together.
const TICK: Duration = Duration::from_millis(500);

/// Longest time: who came to the registry meanwhile was not looked at yet.
const NEWCOMERS: Duration = Duration::from_secs(5);

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// The neuron itself.
    Alive,
    /// Something else.
    Answer,
    /// Nothing.
    Nothing,
    /// An address that is not asked.
    Skipped,
}

impl Found {
    fn name(&self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Answer => "other_answer",
            Self::Nothing => "no_answer",
            Self::Skipped => "address_refused",
        }
    }
}

/// Probes until `stop`, each axon once in `interval`.
pub(crate) async fn run(app: Arc<App>, requests: Arc<Requests>, interval: Duration, stop: CancellationToken) {
    let client = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_DEADLINE)
        .timeout(DEADLINE)
        // The next probe comes when the connection would be long gone.
        .pool_max_idle_per_host(0)
        .build();
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "axons cannot be probed");
            return;
        }
    };
    let prober = Arc::new(Prober { app, requests, client });
    let mut due = HashMap::new();
    let (shortest, longest) = (TICK.min(interval / 4), NEWCOMERS.min(interval / 4));
    let mut wait = Duration::ZERO;
    while stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
        let local = prober.app.file.network.borrow().local;
        let interval = if local { interval } else { interval.max(INTERVAL_MIN) };
        let targets = plan(&mut due, prober.targets(), interval);
        let each = targets.into_iter().map(|entry| {
            let prober = prober.clone();
            async move { prober.probe(entry, local).await }.boxed()
        });
        let all = futures::stream::iter(each.collect::<Vec<_>>()).buffer_unordered(CONCURRENT).collect::<()>();
        if stop.run_until_cancelled(all).await.is_none() {
            return;
        }
        // One probe may begin a whole interval and its jitter after the last, and takes its time.
        prober.requests.sweep(&prober.app, interval * MISSES + interval / 4 + DEADLINE);
        let next = due.values().min().map(|at: &Instant| at.saturating_duration_since(Instant::now()));
        wait = next.unwrap_or(longest).clamp(shortest, longest);
    }
}

/// Who is due now; forgets who is no target any more.
fn plan(due: &mut HashMap<Hotkey, Instant>, targets: Vec<Entry>, interval: Duration) -> Vec<Entry> {
    let now = Instant::now();
    let mut before = std::mem::take(due);
    let mut chosen = Vec::new();
    for entry in targets {
        // A neuron that moves often must not have its next address asked sooner.
        let at = before.remove(&entry.hotkey).unwrap_or_else(|| now + jitter(interval / 8));
        if at > now {
            due.insert(entry.hotkey, at);
            continue;
        }
        due.insert(entry.hotkey, now + interval + jitter(interval / 8));
        chosen.push(entry);
    }
    chosen
}

/// Up to so much: sidecars that start together must not ask everybody in the same second for good.
fn jitter(most: Duration) -> Duration {
    most.mul_f64(rand::rng().random_range(0.0..1.0))
}

struct Prober {
    app: Arc<App>,
    requests: Arc<Requests>,
    client: Client,
}

impl Prober {
    /// A validator asks everybody. A miner asks validators only, or a subnet of `n` miners would cost `n²` requests.
    fn targets(&self) -> Vec<Entry> {
        let kinds: &[NodeKind] = match self.app.kind {
            NodeKind::Validator => &[NodeKind::Validator, NodeKind::Miner],
            NodeKind::Miner => &[NodeKind::Validator],
        };
        let entries = kinds.iter().flat_map(|kind| self.app.registry.list(*kind).1);
        entries.filter(|entry| entry.axon.is_some() && entry.hotkey != self.app.hotkey).collect()
    }

    async fn probe(&self, entry: Entry, local: bool) {
        let found = self.ask(&entry, local).await;
        self.app.metrics.probe(found.name());
        let answers = match found {
            Found::Skipped => return,
            Found::Alive | Found::Answer => true,
            Found::Nothing => false,
        };
        let Some(asked) = entry.address() else { return };
        if let Some(change) = self.app.registry.reached(&entry.hotkey, asked, answers, UnixTime::now()) {
            debug!(hotkey = %entry.hotkey, %asked, answers, "axon probed");
            announce(&self.app, &change);
        }
        if found == Found::Alive {
            self.requests.heard_from(&self.app, entry.hotkey);
        }
    }

    async fn ask(&self, entry: &Entry, local: bool) -> Found {
        let Some(axon) = &entry.axon else { return Found::Skipped };
        if check_public_ip("axon.ip", axon.ip, local).is_err() || entry.state == EntryState::Inactive && axon.port == 0
        {
            return Found::Skipped;
        }
        let mut challenge = [0; 16];
        rand::rng().fill_bytes(&mut challenge);
        let challenge = hex::encode(challenge);
        let query = format!("challenge={challenge}");
        let line = RequestLine { method: "GET", path: record::PATH, query: &query };
        let headers = self.requests.sign(Scheme::Strict, &entry.hotkey, line, None, "");
        let url = format!("http://{}{}?{query}", SocketAddr::new(axon.ip, axon.port), record::PATH);
        let mut request = self.client.get(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        match request.send().await {
            // Whoever took the connection and then said nothing that HTTP knows is there all the same.
            Err(error) if error.is_connect() => Found::Nothing,
            Err(_) => Found::Answer,
            Ok(response) => match self.read(response, entry, &challenge).await {
                Some(_) => Found::Alive,
                None => Found::Answer,
            },
        }
    }

    async fn read(&self, mut response: reqwest::Response, entry: &Entry, challenge: &str) -> Option<PeerRecord> {
        if response.status() != StatusCode::OK {
            return None;
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.ok()? {
            body.extend_from_slice(&chunk);
            if body.len() > RECORD_BYTES_MAX {
                return None;
            }
        }
        let record = PeerRecord::read(&body, &entry.hotkey, challenge, UnixTime::now());
        let (netuid, genesis) = (self.app.file.network.borrow().netuid, self.app.chain.view().genesis_hash);
        match record {
            Ok(record) if record.netuid == netuid && record.genesis_hash == genesis => Some(record),
            Ok(_) => {
                debug!(hotkey = %entry.hotkey, "its peer record is of another subnet or chain");
                None
            }
            Err(error) => {
                debug!(hotkey = %entry.hotkey, %error, "its answer is no peer record");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sidecar_util::{Axon, AxonProtocol, Tao, Uid};

    use super::*;

    fn entry(id: u8, port: u16) -> Entry {
        Entry {
            hotkey: [id; 32].into(),
            kind: NodeKind::Miner,
            uid: Uid(id.into()),
            coldkey: [0; 32].into(),
            state: EntryState::Discovered,
            reason: "registered",
            stake: Tao::ZERO,
            validator_permit: false,
            axon: Some(Axon { ip: [1, 1, 1, 1].into(), port, protocol: AxonProtocol::Tcp, version: 1, block: 0 }),
            block: 1,
            liveness: sidecar_peer::Liveness::Unknown,
            reachability: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_more_often_than_once_in_an_interval_wherever_it_moves() {
        let (mut due, mut asked) = (HashMap::new(), HashMap::<Hotkey, Vec<Instant>>::new());
        let start = Instant::now();
        for tick in 0..1200_u32 {
            let port = 8000 + u16::try_from(tick).unwrap();
            for entry in plan(&mut due, (0..20).map(|id| entry(id, port)).collect(), INTERVAL_MIN) {
                asked.entry(entry.hotkey).or_default().push(Instant::now());
            }
            tokio::time::advance(TICK).await;
        }
        assert_eq!(asked.len(), 20);
        for times in asked.into_values() {
            assert!(times[0] - start <= INTERVAL_MIN / 4, "the first is not long in coming");
            assert!(times.len() >= 8);
            assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= INTERVAL_MIN));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_left_is_forgotten() {
        let mut due = HashMap::new();
        plan(&mut due, vec![entry(1, 1), entry(2, 1)], INTERVAL_MIN);
        assert_eq!(due.len(), 2);
        plan(&mut due, vec![entry(2, 1)], INTERVAL_MIN);
        assert_eq!(due.len(), 1);
    }
}
