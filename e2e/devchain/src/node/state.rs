//! State of one block: a snapshot that shares structure with its parent's, and the trie that gives its root.
//!
//! Reads go to a [`StateMap`] and never touch the trie, which makes them several times faster and a snapshot per
//! block cheap. Only the tip has a trie, because only blocks on the tip need a root.

use std::ops::Bound;

use sp_core::storage::{ChildInfo, StateVersion};
use sp_runtime::traits::{BlakeTwo256, Hash as _};
use sp_state_machine::backend::AsTrieBackend;
use sp_state_machine::{
    Backend, BackendTransaction, DefaultError, InMemoryBackend, IterArgs, StorageIterator, StorageKey, StorageValue,
    TrieBackendBuilder, UsageInfo,
};
use sp_trie::{MerkleValue, PrefixedMemoryDB};

use super::state_map::StateMap;
use crate::runtime::Hash;

/// How the runtime encodes values in the trie; `system_version` 1 of the runtime version.
pub(super) const STATE_VERSION: StateVersion = StateVersion::V1;

/// Blocks after which nodes that no trie uses any longer are dropped from memory.
const PURGE_EVERY: u32 = 64;

/// What [`drain_storage_changes`](sp_state_machine::OverlayedChanges::drain_storage_changes) gives.
pub(super) type Changes = sp_state_machine::StorageChanges<BlakeTwo256>;

/// The trie of the newest state.
pub(super) struct TipTrie {
    backend: InMemoryBackend<BlakeTwo256>,
    changes_since_purge: u32,
}

impl TipTrie {
    /// Builds the trie of a state.
    pub(super) fn of(state: &StateMap) -> Self {
        let mut backend = InMemoryBackend::<BlakeTwo256>::default();
        let pairs = state.iter().map(|(key, value)| (key.to_vec(), Some(value.to_vec()))).collect();
        backend.insert(vec![(None, pairs)], STATE_VERSION);
        Self { backend, changes_since_purge: 0 }
    }

    pub(super) fn root(&self) -> Hash {
        *self.backend.as_trie_backend().root()
    }

    /// Moves to the state after a block.
    pub(super) fn apply(&mut self, root: Hash, transaction: PrefixedMemoryDB<BlakeTwo256>) {
        let mut nodes = std::mem::take(&mut self.backend).into_storage();
        nodes.consolidate(transaction);
        self.changes_since_purge += 1;
        if self.changes_since_purge >= PURGE_EVERY {
            self.changes_since_purge = 0;
            nodes.purge();
        }
        self.backend = TrieBackendBuilder::new(nodes, root).build();
    }
}

/// A state as the runtime's externalities read it.
pub(super) struct StateBackend<'a> {
    map: &'a StateMap,
    /// Absent for old states, whose root nobody needs.
    trie: Option<&'a TipTrie>,
}

impl<'a> StateBackend<'a> {
    pub(super) fn tip(map: &'a StateMap, trie: &'a TipTrie) -> Self {
        Self { map, trie: Some(trie) }
    }

    pub(super) fn read_only(map: &'a StateMap) -> Self {
        Self { map, trie: None }
    }

    fn first_from(&self, start: &[u8], exclusive: bool) -> Option<&[u8]> {
        let start = if exclusive { Bound::Excluded(start) } else { Bound::Included(start) };
        self.map.keys_from(start).next().map(AsRef::as_ref)
    }
}

impl std::fmt::Debug for StateBackend<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateBackend").field("keys", &self.map.len()).finish()
    }
}

/// Walks the keys with a prefix.
pub(super) struct StateIter<'a> {
    prefix: Vec<u8>,
    next_from: Vec<u8>,
    exclusive: bool,
    done: bool,
    backend: std::marker::PhantomData<StateBackend<'a>>,
}

impl<'a> StorageIterator<BlakeTwo256> for StateIter<'a> {
    type Backend = StateBackend<'a>;
    type Error = DefaultError;

    fn next_key(&mut self, backend: &Self::Backend) -> Option<Result<StorageKey, Self::Error>> {
        if self.done {
            return None;
        }
        let found = backend.first_from(&self.next_from, self.exclusive);
        let Some(key) = found.filter(|key| key.starts_with(&self.prefix)) else {
            self.done = true;
            return None;
        };
        self.next_from = key.to_vec();
        self.exclusive = true;
        Some(Ok(key.to_vec()))
    }

    fn next_pair(&mut self, backend: &Self::Backend) -> Option<Result<(StorageKey, StorageValue), Self::Error>> {
        let key = self.next_key(backend)?;
        Some(key.map(|key| {
            let value = backend.map.get(&key).map_or_else(Vec::new, |value| value.to_vec());
            (key, value)
        }))
    }

    fn was_complete(&self) -> bool {
        self.done
    }
}

impl<'a> Backend<BlakeTwo256> for StateBackend<'a> {
    type Error = DefaultError;
    type TrieBackendStorage = PrefixedMemoryDB<BlakeTwo256>;
    type RawIter = StateIter<'a>;

    fn storage(&self, key: &[u8]) -> Result<Option<StorageValue>, Self::Error> {
        Ok(self.map.get(key).map(|value| value.to_vec()))
    }

    fn storage_hash(&self, key: &[u8]) -> Result<Option<Hash>, Self::Error> {
        Ok(self.map.get(key).map(|value| BlakeTwo256::hash(value)))
    }

    fn exists_storage(&self, key: &[u8]) -> Result<bool, Self::Error> {
        Ok(self.map.contains_key(key))
    }

    fn closest_merkle_value(&self, key: &[u8]) -> Result<Option<MerkleValue<Hash>>, Self::Error> {
        self.trie.map_or(Ok(None), |trie| trie.backend.closest_merkle_value(key))
    }

    fn child_closest_merkle_value(
        &self,
        _child_info: &ChildInfo,
        _key: &[u8],
    ) -> Result<Option<MerkleValue<Hash>>, Self::Error> {
        Ok(None)
    }

    // The runtime has no child tries: none of its pallets uses them.
    fn child_storage(&self, _child_info: &ChildInfo, _key: &[u8]) -> Result<Option<StorageValue>, Self::Error> {
        Ok(None)
    }

    fn child_storage_hash(&self, _child_info: &ChildInfo, _key: &[u8]) -> Result<Option<Hash>, Self::Error> {
        Ok(None)
    }

    fn next_storage_key(&self, key: &[u8]) -> Result<Option<StorageKey>, Self::Error> {
        Ok(self.first_from(key, true).map(<[u8]>::to_vec))
    }

    fn next_child_storage_key(&self, _child_info: &ChildInfo, _key: &[u8]) -> Result<Option<StorageKey>, Self::Error> {
        Ok(None)
    }

    fn storage_root<'b>(
        &self,
        delta: impl Iterator<Item = (&'b [u8], Option<&'b [u8]>)>,
        state_version: StateVersion,
    ) -> (Hash, BackendTransaction<BlakeTwo256>) {
        match self.trie {
            Some(trie) => trie.backend.storage_root(delta, state_version),
            None => (Hash::zero(), BackendTransaction::with_hasher(sp_trie::RandomState::default())),
        }
    }

    fn child_storage_root<'b>(
        &self,
        _child_info: &ChildInfo,
        _delta: impl Iterator<Item = (&'b [u8], Option<&'b [u8]>)>,
        _state_version: StateVersion,
    ) -> (Hash, bool, BackendTransaction<BlakeTwo256>) {
        (Hash::zero(), true, BackendTransaction::with_hasher(sp_trie::RandomState::default()))
    }

    fn raw_iter(&self, args: IterArgs<'_>) -> Result<Self::RawIter, Self::Error> {
        let prefix = args.prefix.unwrap_or_default().to_vec();
        let start = args.start_at.unwrap_or_default();
        let from_start = start > prefix.as_slice();
        Ok(StateIter {
            next_from: if from_start { start.to_vec() } else { prefix.clone() },
            exclusive: from_start && args.start_at_exclusive,
            prefix,
            done: args.child_info.is_some(),
            backend: std::marker::PhantomData,
        })
    }

    fn register_overlay_stats(&self, _stats: &sp_state_machine::StateMachineStats) {}

    fn usage_info(&self) -> UsageInfo {
        UsageInfo::empty()
    }
}

/// The state after changes.
pub(super) fn apply_changes(
    state: &StateMap,
    changes: impl IntoIterator<Item = (StorageKey, Option<StorageValue>)>,
) -> StateMap {
    let mut next = state.clone();
    for (key, value) in changes {
        match value {
            Some(value) => next.insert(key.into(), value.into()),
            None => next.remove(&key),
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn state(pairs: &[(&[u8], &[u8])]) -> StateMap {
        pairs.iter().map(|(key, value)| (Arc::<[u8]>::from(*key), Arc::<[u8]>::from(*value))).collect()
    }

    #[test]
    fn the_root_after_changes_equals_that_of_the_state_built_anew() {
        let before = state(&[(b"a", b"1"), (b"ab", &[7; 100]), (b"b", b"2")]);
        let mut trie = TipTrie::of(&before);
        let changes: Vec<(Vec<u8>, Option<Vec<u8>>)> =
            vec![(b"a".to_vec(), None), (b"c".to_vec(), Some(vec![1; 40])), (b"b".to_vec(), Some(b"3".to_vec()))];
        let delta = changes.iter().map(|(key, value)| (key.as_slice(), value.as_deref()));
        let (root, transaction) = StateBackend::tip(&before, &trie).storage_root(delta, STATE_VERSION);
        trie.apply(root, transaction);
        let after = apply_changes(&before, changes);
        assert_eq!(trie.root(), TipTrie::of(&after).root());
        assert_eq!(after, state(&[(b"ab", &[7; 100]), (b"b", b"3"), (b"c", &[1; 40])]));
    }

    #[test]
    fn iteration_stays_within_the_prefix_and_resumes_after_a_key() {
        let map = state(&[(b"a", b"0"), (b"p1", b"1"), (b"p2", b"2"), (b"q", b"3")]);
        let backend = StateBackend::read_only(&map);
        let keys = |args: IterArgs<'_>| backend.keys(args).unwrap().map(Result::unwrap).collect::<Vec<_>>();
        let mut args = IterArgs::default();
        args.prefix = Some(b"p");
        assert_eq!(keys(args), [b"p1", b"p2"]);
        let mut after = IterArgs::default();
        after.prefix = Some(b"p");
        after.start_at = Some(b"p1");
        after.start_at_exclusive = true;
        assert_eq!(keys(after), [b"p2"]);
        assert_eq!(backend.next_storage_key(b"p2").unwrap().unwrap(), b"q");
    }
}
