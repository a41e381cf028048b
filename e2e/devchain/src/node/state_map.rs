//! Keys and values of one state, found by key at once and walked in order.

use std::ops::Bound;
use std::sync::Arc;

use foldhash::fast::RandomState;
use imbl::shared_ptr::DefaultSharedPtr;
use imbl::{GenericHashMap, OrdSet};

/// A persistent map: a clone is one pointer for each half, and shares with the first what neither changes.
///
/// The runtime reads a state key by key, thousands of times for one metagraph, and walks it seldom. A search in the
/// ordered half compares some fourteen keys of 80 bytes, each somewhere else in memory; the other half compares one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateMap {
    values: GenericHashMap<Arc<[u8]>, Arc<[u8]>, RandomState, DefaultSharedPtr>,
    /// The same keys, in order. Only a key that comes or goes changes this half.
    keys: OrdSet<Arc<[u8]>>,
}

impl StateMap {
    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&Arc<[u8]>> {
        self.values.get(key)
    }

    /// Whether there is a value.
    pub fn contains_key(&self, key: &[u8]) -> bool {
        self.values.contains_key(key)
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Sets a value, in place of the one before.
    pub fn insert(&mut self, key: Arc<[u8]>, value: Arc<[u8]>) {
        if self.values.insert(key.clone(), value).is_none() {
            self.keys.insert(key);
        }
    }

    /// Takes a key out, if it is there.
    pub fn remove(&mut self, key: &[u8]) {
        if self.values.remove(key).is_some() {
            self.keys.remove(key);
        }
    }

    /// All keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<[u8]>, &Arc<[u8]>)> {
        self.keys.iter().map(|key| (key, &self.values[key]))
    }

    /// The keys from a bound on, in order.
    pub fn keys_from(&self, start: Bound<&[u8]>) -> impl Iterator<Item = &Arc<[u8]>> {
        self.keys.range::<_, [u8]>((start, Bound::Unbounded))
    }
}

impl FromIterator<(Arc<[u8]>, Arc<[u8]>)> for StateMap {
    fn from_iter<I: IntoIterator<Item = (Arc<[u8]>, Arc<[u8]>)>>(pairs: I) -> Self {
        let mut map = Self::default();
        pairs.into_iter().for_each(|(key, value)| map.insert(key, value));
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0_u8..4, 0..5)
    }

    proptest! {
        #[test]
        fn it_is_an_ordered_map_whose_clones_do_not_change(
            steps in prop::collection::vec((any_key(), any::<Option<u8>>()), 0..100),
            start in any_key(),
        ) {
            let (mut map, mut model) = (StateMap::default(), BTreeMap::new());
            let mut before = Vec::new();
            for (key, value) in steps {
                before.push((map.clone(), model.clone()));
                if let Some(value) = value {
                    map.insert(key.as_slice().into(), [value].into());
                    model.insert(key, vec![value]);
                } else {
                    map.remove(&key);
                    model.remove(&key);
                }
            }
            before.push((map, model));
            for (map, model) in before {
                let pairs: Vec<_> = map.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
                prop_assert_eq!(&pairs, &model.clone().into_iter().collect::<Vec<_>>());
                prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
                let keys = map.keys_from(Bound::Excluded(&start)).map(|key| key.to_vec());
                prop_assert!(keys.eq(model.keys().filter(|key| **key > start).cloned()));
                prop_assert_eq!(map.get(&start).map(|value| value.to_vec()), model.get(&start).cloned());
                prop_assert_eq!(map.contains_key(&start), model.contains_key(&start));
            }
        }
    }
}
