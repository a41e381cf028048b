//! Reads of one map for every neuron of a subnet.
//!
//! At each read FRAME hashes the names of pallet and map, and then the key. For an answer that takes six maps of 1,024
//! hotkeys that is more than half of its time. A [`Column`] has the unchanging part of its keys hashed once, and a hotkey
//! is hashed once for all columns. What it reads is what the map's own `get` reads, defaults included.

use codec::{Encode, FullCodec, FullEncode};
use frame_support::storage::generator::{StorageDoubleMap, StorageMap};
use frame_support::storage::unhashed;
use frame_support::{Blake2_128Concat, Identity, StorageHasher};

use super::NetUid;
use super::pallet::{BlockAtRegistration, Config, Keys, Pallet, SubnetworkN};

/// A hotkey as it stands in keys: its hash of 16 bytes and itself.
pub(super) type HotkeyHash = [u8; 48];

/// Two names, a netuid and a hotkey.
const KEY_BYTES_MAX: usize = 32 + 2 + size_of::<HotkeyHash>();

/// The entries of a map whose keys differ in `N` bytes. `V` is what the map stores, `Q` what reading it gives.
pub(super) struct Column<const N: usize, V, Q> {
    /// A key; only its `N` bytes from `at` on change.
    key: [u8; KEY_BYTES_MAX],
    at: usize,
    len: usize,
    query: fn(Option<V>) -> Q,
}

impl<const N: usize, V: FullCodec, Q> Column<N, V, Q> {
    fn new(before: &[&[u8]], after: &[u8], query: fn(Option<V>) -> Q) -> Self {
        let before = before.concat();
        let (at, len) = (before.len(), before.len() + N + after.len());
        let mut key = [0; KEY_BYTES_MAX];
        key[..at].copy_from_slice(&before);
        key[at + N..len].copy_from_slice(after);
        Self { key, at, len, query }
    }

    /// The entry with these bytes in its key.
    pub(super) fn get(&self, part: &[u8; N]) -> Q {
        let mut key = self.key;
        key[self.at..self.at + N].copy_from_slice(part);
        (self.query)(unhashed::get(&key[..self.len]))
    }
}

/// The entries of a map by hotkey.
pub(super) fn by_hotkey<M, K, V>() -> Column<48, V, M::Query>
where
    M: StorageMap<K, V, Hasher = Blake2_128Concat>,
    K: FullEncode,
    V: FullCodec,
{
    Column::new(&[&M::prefix_hash()], &[], M::from_optional_value_to_query)
}

/// The entries of a subnet in a map by netuid and hotkey.
pub(super) fn by_netuid_and_hotkey<M, K, V>(netuid: NetUid) -> Column<48, V, M::Query>
where
    M: StorageDoubleMap<NetUid, K, V, Hasher1 = Identity, Hasher2 = Blake2_128Concat>,
    K: FullEncode,
    V: FullCodec,
{
    Column::new(&[&M::prefix_hash(), &netuid.encode()], &[], M::from_optional_value_to_query)
}

/// The entries of a subnet in a map by hotkey and netuid.
pub(super) fn by_hotkey_and_netuid<M, K, V>(netuid: NetUid) -> Column<48, V, M::Query>
where
    M: StorageDoubleMap<K, NetUid, V, Hasher1 = Blake2_128Concat, Hasher2 = Identity>,
    K: FullEncode,
    V: FullCodec,
{
    Column::new(&[&M::prefix_hash()], &netuid.encode(), M::from_optional_value_to_query)
}

/// The entries of a subnet in a map by netuid and uid.
pub(super) fn by_netuid_and_uid<M, V>(netuid: NetUid) -> Column<2, V, M::Query>
where
    M: StorageDoubleMap<NetUid, u16, V, Hasher1 = Identity, Hasher2 = Identity>,
    V: FullCodec,
{
    Column::new(&[&M::prefix_hash(), &netuid.encode()], &[], M::from_optional_value_to_query)
}

/// How a hotkey stands in the keys of every column.
pub(super) fn hash_hotkey(hotkey: &impl Encode) -> HotkeyHash {
    let hashed = hotkey.using_encoded(Blake2_128Concat::hash);
    hashed.try_into().expect("an account has 32 bytes and its hash 16")
}

impl<T: Config> Pallet<T> {
    /// Hotkeys of a subnet in the order of uids.
    pub(super) fn hotkeys(netuid: NetUid) -> Vec<T::AccountId> {
        Self::of_every_uid(netuid, &by_netuid_and_uid::<Keys<T>, _>(netuid))
    }

    /// Blocks in which the neurons of a subnet were registered, in the order of uids.
    pub(super) fn registration_blocks(netuid: NetUid) -> Vec<u64> {
        Self::of_every_uid(netuid, &by_netuid_and_uid::<BlockAtRegistration<T>, _>(netuid))
    }

    fn of_every_uid<V: FullCodec, Q>(netuid: NetUid, column: &Column<2, V, Q>) -> Vec<Q> {
        (0..SubnetworkN::<T>::get(netuid)).map(|uid: u16| column.get(&uid.to_le_bytes())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::pallet::{Axons, ChildKeys, Owner, TotalHotkeyAlpha};
    use super::super::tests::{NET, id, with_subnet};
    use super::*;
    use crate::runtime::Runtime;

    #[test]
    fn a_column_reads_what_its_map_reads_stored_or_not() {
        with_subnet(|| {
            let served = super::super::AxonInfo { ip: 7, port: 9, ..super::super::AxonInfo::default() };
            Axons::<Runtime>::insert(NET, id("Val"), served);
            ChildKeys::<Runtime>::insert(id("Val"), NET, vec![(3, id("Two"))]);
            let owners = by_hotkey::<Owner<Runtime>, _, _>();
            let axons = by_netuid_and_hotkey::<Axons<Runtime>, _, _>(NET);
            let children = by_hotkey_and_netuid::<ChildKeys<Runtime>, _, _>(NET);
            let alpha = by_hotkey_and_netuid::<TotalHotkeyAlpha<Runtime>, _, _>(NET);
            for name in ["Val", "Two", "Min", "Nobody"] {
                let (hotkey, hash) = (id(name), hash_hotkey(&id(name)));
                assert_eq!(owners.get(&hash), Owner::<Runtime>::get(&hotkey));
                assert_eq!(axons.get(&hash), Axons::<Runtime>::get(NET, &hotkey));
                assert_eq!(children.get(&hash), ChildKeys::<Runtime>::get(&hotkey, NET));
                assert_eq!(alpha.get(&hash), TotalHotkeyAlpha::<Runtime>::get(&hotkey, NET));
            }
            assert!(axons.get(&hash_hotkey(&id("Val"))).is_some() && alpha.get(&hash_hotkey(&id("Val"))) > 0);
            assert_eq!(Pallet::<Runtime>::hotkeys(NET), [id("Val"), id("Two"), id("Min")]);
            let blocks: Vec<_> = (0..3).map(|uid| BlockAtRegistration::<Runtime>::get(NET, uid)).collect();
            assert_eq!(Pallet::<Runtime>::registration_blocks(NET), blocks);
        });
    }
}
