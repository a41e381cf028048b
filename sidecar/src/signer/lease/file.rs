//! A lease for use without Kubernetes: a lock on a file, which the kernel takes back when its holder ends.
//!
//! A holder that is paused keeps the lock, so nobody takes over behind its back; that the guard counts time all the same
//! costs nothing. The one thing the kernel does not see is a file that is replaced: a new one is a new lock. So a holder
//! looks whether the path still leads to its file whenever it renews, and who made a new file waits until it must have.
//! The content is for people, and for what outlives a process: the epoch and the fence.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{LeaseRecord, LeaseStore, StoreError};
use crate::signer::guard::{Fence, RELEASED};

/// Who may read the file. Its content is no secret, but who can open it can lock it.
const MODE: u32 = 0o600;

/// The content is padded to this, so that one write replaces all of it.
const BYTES: usize = 512;

/// A lease in a file.
pub(crate) struct FileStore {
    path: PathBuf,
    /// The file while this process has the lock.
    locked: Arc<Mutex<Option<File>>>,
}

/// The content of the file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    holder: Option<String>,
    epoch: u64,
    #[serde(default)]
    fence: Fence,
    version: u64,
}

impl FileStore {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, locked: Arc::default() }
    }

    /// Locks and files block, if briefly; on a network's file system perhaps not so briefly.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path, &mut Option<File>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (path, locked) = (self.path.clone(), self.locked.clone());
        let done = tokio::task::spawn_blocking(move || work(&path, &mut locked.lock())).await;
        done.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())))
    }
}

#[async_trait]
impl LeaseStore for FileStore {
    async fn read(&self) -> Result<Option<LeaseRecord>, StoreError> {
        self.blocking(read).await
    }

    async fn write(&self, record: &LeaseRecord, over: Option<&str>) -> Result<LeaseRecord, StoreError> {
        let (record, over) = (record.clone(), over.map(str::to_owned));
        self.blocking(move |path, locked| write(path, locked, record, over.as_deref())).await
    }
}

fn failed(path: &Path, what: &str, error: &io::Error) -> StoreError {
    let path = path.display();
    StoreError::Failed(format!(
        "lease file `{path}` {what} ({error}): check its folder, or name another by --lease-file"
    ))
}

fn read(path: &Path, locked: &mut Option<File>) -> Result<Option<LeaseRecord>, StoreError> {
    if let Some(file) = locked {
        if is_at(file, path) {
            let content = content(path, file)?;
            return Ok(Some(record(content, false)));
        }
        // Somebody replaced the file: our lock is worth nothing any more.
        *locked = None;
    }
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, "cannot be opened", &error)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            // Read without the lock, so what is there may be half of something; that it is locked is certain.
            let content = content(path, &file).unwrap_or_default();
            let holder = Some(content.holder.clone().unwrap_or_else(|| "another process".to_owned()));
            return Ok(Some(LeaseRecord { alive: true, ..record(Content { holder, ..content }, false) }));
        }
        Err(TryLockError::Error(error)) => return Err(failed(path, "cannot be locked", &error)),
    }
    let content = content(path, &file)?;
    *locked = Some(file);
    // Whoever is named there had the lock and has it no more: the kernel says that it has ended.
    Ok(Some(record(content, true)))
}

fn write(
    path: &Path,
    locked: &mut Option<File>,
    record: LeaseRecord,
    over: Option<&str>,
) -> Result<LeaseRecord, StoreError> {
    let version = match over {
        None => {
            *locked = Some(create(path)?);
            1
        }
        Some(over) => {
            let file = locked.as_ref().filter(|file| is_at(file, path)).ok_or(StoreError::Conflict)?;
            let found = content(path, file)?;
            if found.version.to_string() != over {
                return Err(StoreError::Conflict);
            }
            // The lock is what holds it. A renewal that says nothing new need not wait for the disk.
            if (&found.holder, found.epoch, found.fence) == (&record.holder, record.epoch, record.fence) {
                return Ok(LeaseRecord { version: over.to_owned(), ..record });
            }
            found.version + 1
        }
    };
    let content = Content { holder: record.holder.clone(), epoch: record.epoch, fence: record.fence, version };
    let mut bytes = serde_json::to_vec(&content).map_err(|error| StoreError::Failed(error.to_string()))?;
    bytes.resize(BYTES.max(bytes.len()), b' ');
    let file = locked.as_ref().ok_or(StoreError::Conflict)?;
    let done = file.write_all_at(&bytes, 0).and_then(|()| file.sync_data());
    done.map_err(|error| failed(path, "cannot be written", &error))?;
    if record.holder.is_none() {
        // Given back: the lock goes with the file.
        *locked = None;
    }
    Ok(LeaseRecord { version: version.to_string(), ..record })
}

fn create(path: &Path) -> Result<File, StoreError> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(|error| failed(path, "has no folder", &error))?;
    }
    let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(path);
    let file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => StoreError::Conflict,
        _ => failed(path, "cannot be made", &error),
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Conflict),
        Err(TryLockError::Error(error)) => Err(failed(path, "cannot be locked", &error)),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(found)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    (held.dev(), held.ino()) == (found.dev(), found.ino())
}

fn content(path: &Path, file: &File) -> Result<Content, StoreError> {
    let mut bytes = vec![0; BYTES * 2];
    let length = file.read_at(&mut bytes, 0).map_err(|error| failed(path, "cannot be read", &error))?;
    let text = bytes[..length].trim_ascii();
    // Made by a process that ended before it wrote.
    if text.is_empty() {
        return Ok(Content::default());
    }
    serde_json::from_slice(text).map_err(|error| {
        let path = path.display();
        StoreError::Failed(format!(
            "lease file `{path}` is damaged ({error}): make sure that no other sidecar has this hotkey, then remove it"
        ))
    })
}

fn record(content: Content, ended: bool) -> LeaseRecord {
    let Content { holder, epoch, fence, version } = content;
    let holder = holder.filter(|_| !ended);
    let duration = if holder.is_none() { RELEASED } else { Duration::ZERO };
    LeaseRecord { holder, duration, epoch, fence, version: version.to_string(), alive: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mine(holder: &str) -> LeaseRecord {
        let (holder, version) = (Some(holder.to_owned()), String::new());
        LeaseRecord {
            holder,
            duration: Duration::from_secs(5),
            epoch: 1,
            fence: Fence::Until(7),
            version,
            alive: false,
        }
    }

    #[tokio::test]
    async fn who_has_the_lock_is_alive_for_the_others_and_its_end_frees_the_lease() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/signer.lease");
        let (first, second) = (FileStore::new(path.clone()), FileStore::new(path.clone()));
        assert_eq!(first.read().await, Ok(None));
        let written = first.write(&mine("first"), None).await.unwrap();
        assert_eq!(second.write(&mine("second"), None).await, Err(StoreError::Conflict));
        let seen = second.read().await.unwrap().unwrap();
        assert_eq!((seen.holder.as_deref(), seen.alive, seen.fence), (Some("first"), true, Fence::Until(7)));
        assert_eq!(second.write(&mine("second"), Some(&seen.version)).await, Err(StoreError::Conflict));

        let modified = || std::fs::metadata(&path).unwrap().modified().unwrap();
        let before = modified();
        let renewed = first.write(&mine("first"), Some(&written.version)).await.unwrap();
        assert_eq!((renewed.version.as_str(), modified()), (written.version.as_str(), before), "nothing new to write");
        let higher = LeaseRecord { fence: Fence::Until(8), ..mine("first") };
        let fenced = first.write(&higher, Some(&renewed.version)).await.unwrap();
        assert_ne!(fenced.version, renewed.version);
        assert_eq!(first.write(&mine("first"), Some(&renewed.version)).await, Err(StoreError::Conflict));

        // As a killed process ends: nothing is written any more.
        drop(first);
        let seen = second.read().await.unwrap().unwrap();
        assert_eq!((seen.holder, seen.alive, seen.duration, seen.fence), (None, false, RELEASED, Fence::Until(8)));
        second.write(&mine("second"), Some(&seen.version)).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_takes_the_lease_from_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signer.lease");
        let (first, second) = (FileStore::new(path.clone()), FileStore::new(path.clone()));
        let written = first.write(&mine("first"), None).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        second.write(&mine("second"), None).await.unwrap();
        assert_eq!(first.write(&mine("first"), Some(&written.version)).await, Err(StoreError::Conflict));
        assert!(first.read().await.unwrap().unwrap().alive);
    }

    #[tokio::test]
    async fn what_cannot_be_used_says_why_and_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signer.lease");
        std::fs::write(&path, "{not json").unwrap();
        let StoreError::Failed(error) = FileStore::new(path.clone()).read().await.unwrap_err() else { panic!() };
        assert!(error.contains(&path.display().to_string()) && error.contains("then remove it"), "{error}");
        let StoreError::Failed(error) =
            FileStore::new("/proc/x/signer.lease".into()).write(&mine("a"), None).await.unwrap_err()
        else {
            panic!()
        };
        assert!(error.contains("--lease-file"), "{error}");
    }
}
