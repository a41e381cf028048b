//! What several requests are answered from alike: the encoded metagraph of a block, and the nodes as they were at a moment.
//!
//! Both are made once, by the first who asks, and shared by everybody who asks the same. A list of several pages is read
//! from the moment its first page was made of, however many blocks come meanwhile; the few moments kept for that bound the
//! memory, and a cursor whose moment is gone says so.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use sidecar_peer::{Entry, Reachability, Snapshot};
use sidecar_util::http::{EntryState, NodeBody, NodeKind};
use sidecar_util::{BlockHash, Hotkey, Metagraph, Neuron};
use tokio::sync::OnceCell;

use super::gzip;
use crate::app::App;

/// Moments that are kept for the next pages of their lists: at 12 s blocks that is more than three minutes, at 1024 neurons
/// not 20 MB even when each is of another block.
const MOMENTS_KEPT: usize = 16;

/// What is shared between requests.
#[derive(Default)]
pub(crate) struct Recent {
    encoded: Mutex<Option<(BlockHash, Arc<Encoded>)>>,
    moments: Mutex<VecDeque<Arc<Moment>>>,
}

/// A metagraph in the form in which it is sent.
#[derive(Default)]
pub(crate) struct Encoded {
    plain: OnceCell<Bytes>,
    gzipped: OnceCell<Bytes>,
}

/// The nodes of a metagraph and where each stood in the registry when somebody asked.
pub(crate) struct Moment {
    /// Number of the last change of the registry that is contained.
    pub(crate) sequence: u64,
    /// The subnet.
    pub(crate) metagraph: Arc<Metagraph>,
    /// Where the neuron of the same index stands.
    standings: Vec<Standing>,
}

/// Where a neuron stands in the registry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// Validator or miner.
    pub(crate) kind: NodeKind,
    /// State.
    pub(crate) state: EntryState,
    /// Why.
    reason: &'static str,
    /// Whether something answers at its axon, where that was tried.
    pub(crate) reachability: Option<Reachability>,
    /// Block of the last change of the state.
    since: u64,
}

impl Recent {
    /// The body of the metagraph.
    pub(crate) async fn metagraph(&self, metagraph: &Arc<Metagraph>, gzipped: bool) -> Result<Bytes, String> {
        let encoded = {
            let mut held = self.encoded.lock();
            match &*held {
                Some((hash, encoded)) if *hash == metagraph.block_hash => encoded.clone(),
                _ => held.insert((metagraph.block_hash, Arc::default())).1.clone(),
            }
        };
        let plain = encoded.plain.get_or_try_init(|| {
            let metagraph = metagraph.clone();
            aside(move || serde_json::to_vec(&*metagraph).map(Bytes::from).map_err(|error| error.to_string()))
        });
        let plain = plain.await?;
        if !gzipped {
            return Ok(plain.clone());
        }
        let gzipped = encoded.gzipped.get_or_try_init(|| {
            let plain = plain.clone();
            aside(move || Ok(gzip::compress(&plain)))
        });
        gzipped.await.cloned()
    }

    /// The nodes now.
    pub(crate) fn now(&self, app: &App, metagraph: &Arc<Metagraph>) -> Arc<Moment> {
        let sequence = app.registry.seq();
        let mut moments = self.moments.lock();
        let known =
            |moment: &&Arc<Moment>| moment.sequence == sequence && moment.metagraph.block_hash == metagraph.block_hash;
        if let Some(moment) = moments.iter().rev().find(known) {
            return moment.clone();
        }
        // What has changed meanwhile is in it, and in its number.
        let Snapshot { seq, entries, .. } = app.registry.snapshot();
        let entry = |hotkey: &Hotkey| entries.binary_search_by_key(hotkey, |entry| entry.hotkey).ok();
        let standing = |neuron: &Neuron| Standing::of(neuron, entry(&neuron.hotkey).map(|index| &entries[index]));
        let standings = metagraph.neurons.iter().map(standing).collect();
        let moment = Arc::new(Moment { sequence: seq, metagraph: metagraph.clone(), standings });
        if moments.len() == MOMENTS_KEPT {
            moments.pop_front();
        }
        moments.push_back(moment.clone());
        moment
    }

    /// The moment that a cursor belongs to, while it is kept.
    pub(crate) fn find(&self, block_hash: BlockHash, sequence: u64) -> Option<Arc<Moment>> {
        let moments = self.moments.lock();
        let same = |moment: &&Arc<Moment>| moment.sequence == sequence && moment.metagraph.block_hash == block_hash;
        moments.iter().find(same).cloned()
    }
}

/// Work that takes milliseconds must not hold up whoever shares the thread.
async fn aside(work: impl FnOnce() -> Result<Bytes, String> + Send + 'static) -> Result<Bytes, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

impl Standing {
    fn of(neuron: &Neuron, entry: Option<&Entry>) -> Self {
        match entry {
            Some(entry) => Self {
                kind: entry.kind,
                state: entry.state,
                reason: entry.reason,
                reachability: entry.reachability,
                since: entry.block,
            },
            // Read from the chain a moment ago; the registry takes it in now.
            None => Self {
                kind: if neuron.validator_permit { NodeKind::Validator } else { NodeKind::Miner },
                state: EntryState::Discovered,
                reason: "discovered",
                reachability: None,
                since: 0,
            },
        }
    }
}

impl Moment {
    /// Every neuron with its standing, in the order of uids.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&Neuron, &Standing)> {
        self.metagraph.neurons.iter().zip(&self.standings)
    }

    /// One of them as it is sent.
    pub(crate) fn body((neuron, standing): (&Neuron, &Standing)) -> NodeBody {
        NodeBody {
            neuron: neuron.clone(),
            kind: standing.kind,
            state: standing.state,
            reason: standing.reason.to_owned(),
            reachable: standing.reachability.map(|found| found.answers),
            reachable_since: standing.reachability.and_then(|found| {
                let since = Timestamp::from_second(found.since.secs().try_into().ok()?).ok()?;
                Some(since.to_string())
            }),
            state_since: standing.since,
        }
    }

    /// What names the state of the list to caches.
    pub(crate) fn etag(&self) -> String {
        format!("W/\"{}-{:x}\"", self.metagraph.block_hash, self.sequence)
    }
}
