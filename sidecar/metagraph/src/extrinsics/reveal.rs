//! Weights that were committed to by hash, kept on disk until they are revealed.
//!
//! A validator that loses them before the reveal has set no weights. So they are written before the commit is sent, and
//! leave the disk only some time after the chain has them or takes them no more. A task reveals each in its epoch.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sidecar_util::{BlockHash, Hotkey, NetUid};
use subxt::config::Hasher;
use subxt::config::substrate::BlakeTwo256;
use subxt::ext::codec::Encode;
use tokio::sync::watch;
use tracing::{info, warn};

use super::call::{Call, mechanism_index};
use super::failure::{FailureClass, SubmitError};
use super::journal::{now_s, write_durably};
use super::link::{Link, Tips};
use super::submitter::{Intent, Submitted, SubmitterHandle, Wait};
use crate::ChainError;

/// Numbers of a salt: 128 bits.
const SALT_LENGTH: usize = 8;

/// How long the end of a reveal is told before its file goes.
const KEEP: Duration = Duration::from_hours(24);

/// How long a commit may be missing on the chain before its weights are given up.
const UNSEEN: Duration = Duration::from_hours(6);

/// Reveals that are tried for one commit. Each needs a new intent, because the last one failed in its block.
const TRIES_MAX: u32 = 5;

/// Pauses between two looks at the chain: a block, within these bounds.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(12);

/// Hash that `commit_weights` names, over SCALE of hotkey, index, uids, values, salt and version key.
pub fn commit_hash(hotkey: &Hotkey, netuid: NetUid, mecid: u8, weights: &RevealMaterial) -> BlockHash {
    hash_of(hotkey, mechanism_index(netuid, mecid), &weights.uids, &weights.values, &weights.salt, weights.version_key)
}

fn hash_of(hotkey: &Hotkey, index: u16, uids: &[u16], values: &[u16], salt: &[u16], version_key: u64) -> BlockHash {
    let parts = (hotkey.as_bytes(), index, uids, values, salt, version_key);
    BlockHash(BlakeTwo256.hash(&parts.encode()).0)
}

/// Where a commit stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RevealState {
    /// The commit may be on its way.
    Committing,
    /// The chain has the commit.
    Committed {
        /// Since this block.
        block: u64,
    },
    /// The chain has the weights.
    Revealed {
        /// Since this block.
        block: u64,
    },
    /// The chain has weights that were committed to later, and with them forgot this commit.
    Superseded {
        /// Since this block.
        block: u64,
    },
    /// The epoch of the reveal passed without one: these weights are lost.
    Expired {
        /// What stood in the way last.
        why: String,
    },
    /// The chain refuses the reveal for good.
    Failed {
        /// Why.
        why: String,
    },
}

impl RevealState {
    /// Whether there is still something to do.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Committing | Self::Committed { .. })
    }
}

/// Weights that were committed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevealMaterial {
    /// Intent key of the commit.
    pub key: String,
    /// Who committed.
    pub hotkey: Hotkey,
    /// Subnet.
    pub netuid: NetUid,
    /// Mechanism of the subnet.
    pub mecid: Option<u8>,
    /// Targets.
    pub uids: Vec<u16>,
    /// Their weights.
    pub values: Vec<u16>,
    /// What keeps the hash from being guessed.
    pub salt: Vec<u16>,
    /// Version of the validator's software.
    pub version_key: u64,
    /// What the commit names.
    pub hash: BlockHash,
    /// When this was made, in seconds since 1970.
    pub made_at_s: u64,
    /// Reveals that failed in a block.
    pub tries: u32,
    /// Where it stands.
    #[serde(flatten)]
    pub state: RevealState,
}

/// Where in time something of a subnet's mechanism happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    index: u16,
    block: u64,
}

impl Place {
    fn is_before(&self, other: &Self) -> bool {
        self.index == other.index && self.block < other.block
    }
}

impl RevealMaterial {
    /// The chain's number of the subnet's mechanism.
    fn index(&self) -> u16 {
        mechanism_index(self.netuid, self.mecid.unwrap_or(0))
    }

    fn place(&self, block: u64) -> Place {
        Place { index: self.index(), block }
    }
}

/// Why weights cannot be kept, and so are not committed to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevealError {
    /// The folder or a file in it cannot be read or written.
    #[error("folder of weights to reveal, `{}`, cannot be used ({source}): check the folder, its owner and the space on its disk", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is damaged.
    #[error("file of weights to reveal, `{}`, cannot be understood ({why}): its weights are lost, move it away", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        why: String,
    },
}

/// The weights that wait for their reveal. Clones are the same.
#[derive(Debug, Clone)]
pub struct Reveals {
    folder: Arc<Path>,
    all: Arc<Mutex<BTreeMap<String, RevealMaterial>>>,
    changed: watch::Sender<()>,
}

impl Reveals {
    /// Opens the folder, and reads what waits there.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(folder: &Path) -> Result<Self, RevealError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| RevealError::Io { path, source }
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io(folder))?;
        let mut all = BTreeMap::new();
        for file in std::fs::read_dir(folder).map_err(io(folder))? {
            let path = file.map_err(io(folder))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let bytes = std::fs::read(&path).map_err(io(&path))?;
                let material: RevealMaterial = serde_json::from_slice(&bytes)
                    .map_err(|error| RevealError::Damaged { path: path.clone(), why: error.to_string() })?;
                all.insert(material.key.clone(), material);
            }
        }
        Ok(Self { folder: folder.into(), all: Arc::new(Mutex::new(all)), changed: watch::Sender::new(()) })
    }

    /// Everything that waits, and what ended lately.
    pub fn list(&self) -> Vec<RevealMaterial> {
        self.all.lock().values().cloned().collect()
    }

    /// Tells of every change.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Keeps weights for a commit that is about to be made, and gives the hash to commit to. The same key gets the same
    /// hash as before.
    #[expect(clippy::too_many_arguments, reason = "the parts of one commit, each of another meaning")]
    pub(crate) fn prepare(
        &self,
        key: &str,
        hotkey: Hotkey,
        netuid: NetUid,
        mecid: Option<u8>,
        uids: Vec<u16>,
        values: Vec<u16>,
        version_key: u64,
    ) -> Result<BlockHash, RevealError> {
        let known = self.all.lock().get(key).cloned();
        if let Some(known) = known.filter(|known| known.uids == uids && known.values == values && known.state.is_open())
        {
            return Ok(known.hash);
        }
        let mut rng = rand::rng();
        let salt: Vec<u16> = (0..SALT_LENGTH).map(|_| rng.random()).collect();
        let hash = hash_of(&hotkey, mechanism_index(netuid, mecid.unwrap_or(0)), &uids, &values, &salt, version_key);
        let state = RevealState::Committing;
        let (key, made_at_s, tries) = (key.to_owned(), now_s(), 0);
        let material = RevealMaterial {
            key,
            hotkey,
            netuid,
            mecid,
            uids,
            values,
            salt,
            version_key,
            hash,
            made_at_s,
            tries,
            state,
        };
        self.put(material)?;
        Ok(hash)
    }

    pub(crate) fn committed(&self, key: &str, block: u64) {
        self.change(key, |material| {
            if material.state == RevealState::Committing {
                material.state = RevealState::Committed { block };
            }
        });
    }

    /// Forgets weights whose commit was refused.
    pub(crate) fn withdraw(&self, key: &str) {
        let mut all = self.all.lock();
        if all.get(key).is_some_and(|material| material.state == RevealState::Committing) {
            all.remove(key);
            self.delete(key);
        }
    }

    fn put(&self, material: RevealMaterial) -> Result<(), RevealError> {
        let path = self.path(&material.key);
        let text = serde_json::to_vec_pretty(&material)
            .map_err(|error| RevealError::Damaged { path: path.clone(), why: error.to_string() })?;
        write_durably(&path, &text).map_err(|source| RevealError::Io { path, source })?;
        self.all.lock().insert(material.key.clone(), material);
        self.changed.send_replace(());
        Ok(())
    }

    fn change(&self, key: &str, change: impl FnOnce(&mut RevealMaterial)) {
        let Some(mut material) = self.all.lock().get(key).cloned() else { return };
        change(&mut material);
        if let Err(error) = self.put(material) {
            // The weights themselves are on disk since before the commit; only where they stand is not.
            warn!(%error, key, "the state of a reveal could not be written");
        }
    }

    fn delete(&self, key: &str) {
        if let Err(error) = std::fs::remove_file(self.path(key)) {
            warn!(%error, key, "weights that are done with could not be removed");
        }
        self.changed.send_replace(());
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{}.json", hex::encode(&Sha256::digest(key.as_bytes())[..16])))
    }

    /// Reveals what waits, each in its epoch, until the submitter ends. Run it as a task of its own.
    pub async fn run(self, submitter: SubmitterHandle) {
        let mut changed = self.changed.subscribe();
        // Each waits for its final block. The others do not wait with it: their epoch would end meanwhile.
        let mut revealing = FuturesUnordered::new();
        let mut under_way: BTreeMap<String, Place> = BTreeMap::new();
        loop {
            self.tidy();
            let mut open = self.list();
            open.retain(|material| material.state.is_open());
            if open.is_empty() {
                // Nothing to ask the chain for.
                tokio::select! {
                    _ = changed.changed() => continue,
                    () = submitter.closed() => return,
                }
            }
            let mut pause = PAUSE_MAX;
            match submitter.link().await {
                Ok(link) => {
                    pause = link.block_time.unwrap_or(PAUSE_MAX).clamp(PAUSE_MIN, PAUSE_MAX);
                    let looked = self.look(&link, open, &mut under_way).await;
                    revealing.extend(looked.into_iter().map(|material| self.reveal(&submitter, material)));
                }
                Err(SubmitError::Closed) => return,
                Err(error) => warn!(%error, "no connection for reveals"),
            }
            let next_look = tokio::time::sleep(pause);
            tokio::pin!(next_look);
            loop {
                tokio::select! {
                    () = &mut next_look => break,
                    Some(key) = revealing.next() => drop(under_way.remove(&key)),
                    () = submitter.closed() => return,
                }
            }
        }
    }

    /// What of these is to be revealed now; it is under way from now on. Notes what the chain says of all.
    async fn look(
        &self,
        link: &Link,
        open: Vec<RevealMaterial>,
        under_way: &mut BTreeMap<String, Place>,
    ) -> Vec<RevealMaterial> {
        let mut due = Vec::new();
        for material in open {
            if under_way.contains_key(&material.key) {
                continue;
            }
            match self.is_due(link, &material).await {
                Ok(None) => {}
                Ok(Some(block)) => due.push((material.place(block), material)),
                Err(error) => {
                    let (error, key) = (error.chain(), material.key);
                    warn!(error, key, "the chain could not be asked about a reveal");
                    break;
                }
            }
        }
        // With a reveal the chain drops every earlier commit, and has one set of weights in the end: the last one's.
        let places: Vec<Place> = due.iter().map(|(place, _)| *place).chain(under_way.values().copied()).collect();
        due.retain(|(place, _)| !places.iter().any(|other| place.is_before(other)));
        under_way.extend(due.iter().map(|(place, material)| (material.key.clone(), *place)));
        due.into_iter().map(|(_, material)| material).collect()
    }

    /// The block of its commit, if weights are to be revealed now. Notes what the chain says of the commit.
    async fn is_due(&self, link: &Link, material: &RevealMaterial) -> Result<Option<u64>, ChainError> {
        let tips = link.tips().await?;
        let key = material.key.as_str();
        let why = |trouble: &str| trouble.to_owned();
        let Some(commit) = find_commit(link, tips, material).await? else {
            match material.state {
                RevealState::Committed { block } => {
                    if let Some(later) = self.revealed_after(material.place(block)) {
                        self.end(key, RevealState::Superseded { block: later });
                        return Ok(None);
                    }
                    // A reveal that was included and not noted is found in the submitter's journal.
                    return Ok(Some(block));
                }
                _ if now_s().saturating_sub(material.made_at_s) > UNSEEN.as_secs() => {
                    self.end(key, RevealState::Failed { why: why("the commit never got onto the chain") });
                }
                _ => {}
            }
            return Ok(None);
        };
        self.committed(key, commit.block);
        if commit.epochs_left < 0 {
            self.end(key, RevealState::Expired { why: why("its epoch passed before it was revealed") });
        }
        Ok((commit.epochs_left == 0).then_some(commit.block))
    }

    /// The block in which weights were revealed after this commit, if any were.
    fn revealed_after(&self, place: Place) -> Option<u64> {
        let all = self.all.lock();
        let blocks = all.values().filter_map(|other| match other.state {
            RevealState::Revealed { block } if place.is_before(&other.place(block)) => Some(block),
            _ => None,
        });
        blocks.max()
    }

    /// Reveals weights, once; gives their key back.
    async fn reveal(&self, submitter: &SubmitterHandle, material: RevealMaterial) -> String {
        let call = Call::RevealWeights {
            netuid: material.netuid,
            mecid: material.mecid,
            uids: material.uids.clone(),
            values: material.values.clone(),
            salt: material.salt.clone(),
            version_key: material.version_key,
        };
        let key = format!("reveal/{}/{}", material.hash, material.tries);
        match submitter.submit(Intent { key, call, wait: Wait::Finalized }).await {
            Ok(Submitted::Included(receipt)) => {
                info!(key = material.key, block = receipt.block, "weights revealed");
                self.end(&material.key, RevealState::Revealed { block: receipt.block });
            }
            // Not revealed yet: the next look asks again.
            Ok(Submitted::Sent { .. }) => {}
            Err(error) => {
                let failed_in_block = matches!(error, SubmitError::Dispatch { .. });
                let for_good = matches!(error.class(), FailureClass::Stop | FailureClass::Configuration)
                    && matches!(error, SubmitError::Dispatch { .. } | SubmitError::Refused { .. });
                warn!(key = material.key, %error, "weights were not revealed");
                let committed = match self.all.lock().get(&material.key).map(|now| now.state.clone()) {
                    Some(RevealState::Committed { block }) => Some(material.place(block)),
                    _ => None,
                };
                if let Some(later) = committed.and_then(|place| self.revealed_after(place)) {
                    self.end(&material.key, RevealState::Superseded { block: later });
                } else if for_good || material.tries >= TRIES_MAX {
                    self.end(&material.key, RevealState::Failed { why: error.to_string() });
                } else if failed_in_block {
                    self.change(&material.key, |material| material.tries += 1);
                }
            }
        }
        material.key
    }

    fn end(&self, key: &str, state: RevealState) {
        if !matches!(state, RevealState::Revealed { .. } | RevealState::Superseded { .. }) {
            tracing::error!(key, ?state, "weights that were committed to are lost: set new ones");
        }
        self.change(key, |material| material.state = state);
    }

    /// Forgets what ended long ago.
    fn tidy(&self) {
        let over = now_s().saturating_sub(KEEP.as_secs());
        let old: Vec<String> = self
            .all
            .lock()
            .values()
            .filter(|material| !material.state.is_open() && material.made_at_s < over)
            .map(|material| material.key.clone())
            .collect();
        for key in old {
            self.all.lock().remove(&key);
            self.delete(&key);
        }
    }
}

/// Hash, epoch and block of a commit in the chain's queue, and a number without a meaning.
type QueuedCommit = ([u8; 32], u64, u64, u64);

/// What a commit's place in the queue means now.
struct Commit {
    block: u64,
    /// Epochs until it may be revealed: 0 now, below 0 no more.
    epochs_left: i64,
}

async fn find_commit(link: &Link, tips: Tips, material: &RevealMaterial) -> Result<Option<Commit>, ChainError> {
    let at = link.at(tips.best).await?;
    let index = material.index();
    let entry = ("SubtensorModule", "WeightCommits");
    let queue: Option<Vec<QueuedCommit>> = link.value(&at, entry, (index, *material.hotkey.as_bytes())).await?;
    let Some((_, epoch, block, _)) = queue.into_iter().flatten().find(|(hash, ..)| *hash == material.hash.0) else {
        return Ok(None);
    };
    let netuid = material.netuid;
    let entry = ("SubtensorModule", "RevealPeriodEpochs");
    let (now, next, period) = futures::try_join!(
        link.epoch_index(&at, netuid),
        link.next_epoch(&at, netuid),
        link.value(&at, entry, (netuid.0,))
    )?;
    // The reveal is judged in the next block, which may be the first of an epoch.
    let now = now + u64::from(next.is_some_and(|next| next <= tips.best.number + 1));
    let target = epoch.saturating_add(period.unwrap_or(1_u64));
    let signed = |epoch: u64| i64::try_from(epoch).unwrap_or(i64::MAX);
    Ok(Some(Commit { block, epochs_left: signed(target).saturating_sub(signed(now)) }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn prepare(reveals: &Reveals, key: &str) -> BlockHash {
        let hotkey = Hotkey::from([1; 32]);
        reveals.prepare(key, hotkey, NetUid(1), None, vec![1, 2], vec![3, 4], 5).unwrap()
    }

    #[test]
    fn weights_survive_a_restart_and_only_this_user_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let reveals = Reveals::open(folder.path()).unwrap();
        let hash = prepare(&reveals, "a");
        reveals.committed("a", 7);
        let again = Reveals::open(folder.path()).unwrap();
        assert_eq!(again.list(), reveals.list());
        let [material] = again.list().try_into().unwrap();
        assert_eq!((material.hash, material.state.clone()), (hash, RevealState::Committed { block: 7 }));
        assert_eq!(commit_hash(&material.hotkey, material.netuid, 0, &material), hash);
        assert_eq!(material.salt.len(), SALT_LENGTH);
        let mode = std::fs::metadata(reveals.path("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_same_key_commits_to_the_same_hash() {
        let folder = tempfile::tempdir().unwrap();
        let reveals = Reveals::open(folder.path()).unwrap();
        assert_eq!(prepare(&reveals, "a"), prepare(&reveals, "a"));
        assert_ne!(prepare(&reveals, "a"), prepare(&reveals, "b"), "every salt is new");
    }

    #[test]
    fn a_refused_commit_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let reveals = Reveals::open(folder.path()).unwrap();
        prepare(&reveals, "a");
        reveals.withdraw("a");
        assert_eq!(Reveals::open(folder.path()).unwrap().list(), []);
        // What the chain has is kept.
        prepare(&reveals, "b");
        reveals.committed("b", 7);
        reveals.withdraw("b");
        assert_eq!(reveals.list().len(), 1);
    }

    /// BLAKE2-256 over the SCALE encoding, computed by Python's hashlib.
    #[test]
    fn the_hash_is_the_chains() {
        let hash = hash_of(&Hotkey::from([1; 32]), 4097, &[1, 2], &[3, 4], &[5], 6);
        let mut bytes = vec![1; 32];
        bytes.extend([1, 16]);
        bytes.extend([8, 1, 0, 2, 0, 8, 3, 0, 4, 0, 4, 5, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(hash.0, BlakeTwo256.hash(&bytes).0);
        assert_eq!(hash.to_string(), HASH);
    }

    const HASH: &str = "0xb44f5b6a2791a7a4699bbf893fb91f3a5bcd68975d198b2e25d314644e25d433";
}
