//! One log entry after the other turns a state into the next.

use crate::weights::BANDS;
use crate::{
    Command, KEY_BYTES_MAX, KV_BYTES_MAX, KeyValue, MemberRecord, Refusal, Reply, State, VALUE_BYTES_MAX, WEIGHTS_MAX,
    WeightTable,
};

impl State {
    /// Applies the command at a log index. A refused command leaves the state as it was.
    pub fn apply(&mut self, index: u64, command: &Command) -> Reply {
        let done = match command {
            Command::ReplaceWeights(table) => self.replace_weights(table),
            Command::RecordMember(record) => self.record_member(record),
            Command::Put { key, value } => self.put(index, key, value),
            Command::Delete { key } => self.delete(index, key),
        };
        done.unwrap_or_else(Reply::Refused)
    }

    fn replace_weights(&mut self, table: &WeightTable) -> Result<Reply, Refusal> {
        if table.entries.len() > WEIGHTS_MAX {
            return Err(Refusal::WeightsSize { entries: wide(table.entries.len()), max: wide(WEIGHTS_MAX) });
        }
        if let Some((hotkey, weight)) = table.entries.iter().find(|(_, weight)| weight.band >= BANDS) {
            return Err(Refusal::Band { hotkey: *hotkey, band: weight.band, max: BANDS - 1 });
        }
        self.weights = Some(table.clone());
        Ok(Reply::Done)
    }

    fn record_member(&mut self, record: &MemberRecord) -> Result<Reply, Refusal> {
        self.check_member(&record.hotkey, record.node_id)?;
        self.node_ids.insert(record.node_id, record.hotkey);
        self.members.insert(record.hotkey, record.clone());
        Ok(Reply::Done)
    }

    fn put(&mut self, index: u64, key: &[u8], value: &[u8]) -> Result<Reply, Refusal> {
        self.check_order(index)?;
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Refusal::KeySize { bytes: wide(key.len()), max: wide(KEY_BYTES_MAX) });
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(Refusal::ValueSize { bytes: wide(value.len()), max: wide(VALUE_BYTES_MAX) });
        }
        let before = self.kv.get(key);
        let freed = before.map_or(0, |old| size(key, &old.value));
        let bytes = self.kv_bytes - freed + size(key, value);
        if bytes > wide(KV_BYTES_MAX) {
            return Err(Refusal::StoreFull { bytes, max: wide(KV_BYTES_MAX) });
        }
        let entry = KeyValue {
            value: value.to_vec(),
            create_revision: before.map_or(index, |old| old.create_revision),
            mod_revision: index,
            version: before.map_or(1, |old| old.version + 1),
        };
        self.kv_bytes = bytes;
        self.revision = index;
        let existed = self.kv.insert(key.to_vec(), entry).is_some();
        Ok(Reply::Written { revision: index, existed })
    }

    fn delete(&mut self, index: u64, key: &[u8]) -> Result<Reply, Refusal> {
        self.check_order(index)?;
        let removed = self.kv.remove(key);
        if let Some(old) = &removed {
            self.kv_bytes -= size(key, &old.value);
            self.revision = index;
        }
        Ok(Reply::Written { revision: self.revision, existed: removed.is_some() })
    }

    /// The log index is the revision, so an index that does not grow would give two states one revision.
    fn check_order(&self, index: u64) -> Result<(), Refusal> {
        if index > self.revision { Ok(()) } else { Err(Refusal::OutOfOrder { index, revision: self.revision }) }
    }
}

fn size(key: &[u8], value: &[u8]) -> u64 {
    wide(key.len() + value.len())
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).expect("no supported machine has lengths above 64 bits")
}

#[cfg(test)]
mod tests {
    use sidecar_util::Hotkey;

    use super::*;

    fn hotkey(seed: u8) -> Hotkey {
        Hotkey::from([seed; 32])
    }

    fn put(key: &[u8], value: &[u8]) -> Command {
        Command::Put { key: key.to_vec(), value: value.to_vec() }
    }

    fn record(seed: u8, node_id: u64) -> Command {
        Command::RecordMember(MemberRecord { hotkey: hotkey(seed), node_id, address: "a:1".into() })
    }

    #[test]
    fn a_key_keeps_its_create_revision_and_counts_versions() {
        let mut state = State::default();
        assert_eq!(state.apply(5, &put(b"a", b"1")), Reply::Written { revision: 5, existed: false });
        assert_eq!(state.apply(9, &put(b"a", b"22")), Reply::Written { revision: 9, existed: true });
        let expected = KeyValue { value: b"22".to_vec(), create_revision: 5, mod_revision: 9, version: 2 };
        assert_eq!(state.get(b"a"), Some(&expected));
        assert_eq!((state.revision(), state.kv_bytes), (9, 3));
        assert_eq!(
            state.apply(12, &Command::Delete { key: b"a".to_vec() }),
            Reply::Written { revision: 12, existed: true }
        );
        assert_eq!((state.get(b"a"), state.kv_bytes), (None, 0));
    }

    #[test]
    fn deleting_an_absent_key_leaves_the_revision() {
        let mut state = State::default();
        state.apply(3, &put(b"a", b"1"));
        let reply = state.apply(4, &Command::Delete { key: b"b".to_vec() });
        assert_eq!(reply, Reply::Written { revision: 3, existed: false });
    }

    #[test]
    fn an_index_is_written_once() {
        let mut state = State::default();
        state.apply(3, &put(b"a", b"1"));
        let reply = state.apply(3, &put(b"a", b"2"));
        assert_eq!(reply, Reply::Refused(Refusal::OutOfOrder { index: 3, revision: 3 }));
        assert_eq!(state.get(b"a").unwrap().value, b"1");
    }

    #[test]
    fn limits_refuse_writes_and_let_deletes_go_on() {
        let mut state = State::default();
        assert!(matches!(state.apply(1, &put(b"", b"")), Reply::Refused(Refusal::KeySize { bytes: 0, .. })));
        let long = vec![0; KEY_BYTES_MAX + 1];
        assert!(matches!(state.apply(1, &put(&long, b"")), Reply::Refused(Refusal::KeySize { .. })));
        let large = vec![0; VALUE_BYTES_MAX + 1];
        assert!(matches!(state.apply(1, &put(b"a", &large)), Reply::Refused(Refusal::ValueSize { .. })));
        let value = vec![0; VALUE_BYTES_MAX];
        let mut index = 0;
        loop {
            index += 1;
            let reply = state.apply(index, &put(&index.to_be_bytes(), &value));
            if let Reply::Refused(Refusal::StoreFull { bytes, max }) = reply {
                assert!(bytes > max);
                break;
            }
        }
        assert_eq!(index, 16, "sixteen values of 1 MiB and their keys are more than 16 MiB");
        let deleted = state.apply(index, &Command::Delete { key: 1_u64.to_be_bytes().to_vec() });
        assert_eq!(deleted, Reply::Written { revision: index, existed: true });
        assert!(matches!(state.apply(index + 1, &put(b"x", &value)), Reply::Written { .. }));
    }

    #[test]
    fn a_node_id_is_never_used_twice() {
        let mut state = State::default();
        assert_eq!(state.apply(1, &record(1, 11)), Reply::Done);
        assert_eq!(state.apply(2, &record(1, 12)), Reply::Done, "a wiped disk comes back under a new id");
        assert_eq!(state.check_member(&hotkey(1), 11), Err(Refusal::NodeIdRetired { node_id: 11 }));
        assert_eq!(state.check_member(&hotkey(1), 12), Ok(()));
        assert_eq!(state.check_member(&hotkey(2), 13), Ok(()));
        let old = state.apply(3, &record(1, 11));
        assert_eq!(old, Reply::Refused(Refusal::NodeIdRetired { node_id: 11 }));
        for id in [11, 12] {
            let stolen = state.apply(4, &record(2, id));
            assert_eq!(stolen, Reply::Refused(Refusal::NodeIdTaken { node_id: id, owner: hotkey(1) }));
        }
        assert_eq!(state.member(&hotkey(1)).unwrap().node_id, 12);
    }
}
