//! The calls that can be made, each checked before it is signed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sidecar_util::{Alpha, AxonProtocol, BlockHash, Hotkey, NetUid, Tao, ValueError, ip_to_chain};
use subxt::dynamic::Value;
use subxt::ext::scale_value::Composite;
use subxt::tx::DynamicPayload;

/// Subnets that a chain can have: mechanisms of one subnet are this far apart in the chain's maps.
const MECHANISM_STRIDE: u16 = 4096;

/// Mechanisms that fit into the chain's index.
const MECHANISMS: u8 = 16;

/// Bytes of a timelocked commit, the chain's bound.
const COMMIT_BYTES_MAX: usize = 5000;

/// Fields of a commitment, and bytes of a raw one: the chain's bounds.
const COMMITMENT_FIELDS_MAX: usize = 3;
const RAW_BYTES_MAX: usize = 128;

/// Numbers of a salt. The chain takes any; more than this only makes extrinsics longer.
const SALT_MAX: usize = 64;

/// Index of a mechanism of a subnet in the chain's maps of weights, commits and updates.
pub fn mechanism_index(netuid: NetUid, mecid: u8) -> u16 {
    netuid.0.saturating_add(u16::from(mecid).saturating_mul(MECHANISM_STRIDE))
}

/// One field of a commitment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommitmentField {
    /// Up to 128 bytes.
    Raw(Vec<u8>),
    /// A BLAKE2-256 hash.
    BlakeTwo256([u8; 32]),
    /// A SHA-256 hash.
    Sha256([u8; 32]),
    /// A Keccak-256 hash.
    Keccak256([u8; 32]),
    /// A SHA3-256 hash.
    ShaThree256([u8; 32]),
}

/// Whose signature a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedBy {
    /// The hotkey's.
    Hotkey,
    /// The coldkey's. No coldkey is ever asked for: who has the pair starts a submitter with it.
    Coldkey,
}

/// A call to the chain. With `mecid: None` the plain call is made, which is the one for mechanism 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Call {
    /// `set_weights`, `set_mechanism_weights`.
    SetWeights {
        /// Subnet.
        netuid: NetUid,
        /// Mechanism of the subnet.
        mecid: Option<u8>,
        /// Targets.
        uids: Vec<u16>,
        /// Their weights.
        values: Vec<u16>,
        /// Version of the validator's software, as the subnet numbers it.
        version_key: u64,
    },
    /// `commit_weights`, `commit_mechanism_weights`.
    CommitWeights {
        /// Subnet.
        netuid: NetUid,
        /// Mechanism of the subnet.
        mecid: Option<u8>,
        /// See [`commit_hash`](super::commit_hash).
        hash: BlockHash,
    },
    /// `reveal_weights`, `reveal_mechanism_weights`.
    RevealWeights {
        /// Subnet.
        netuid: NetUid,
        /// Mechanism of the subnet.
        mecid: Option<u8>,
        /// Targets.
        uids: Vec<u16>,
        /// Their weights.
        values: Vec<u16>,
        /// What kept the hash from being guessed.
        salt: Vec<u16>,
        /// Version of the validator's software, as the subnet numbers it.
        version_key: u64,
    },
    /// `commit_timelocked_weights`, `commit_timelocked_mechanism_weights`.
    CommitTimelocked {
        /// Subnet.
        netuid: NetUid,
        /// Mechanism of the subnet.
        mecid: Option<u8>,
        /// The encrypted weights.
        commit: Vec<u8>,
        /// Round of the drand beacon at which the chain can decrypt them.
        reveal_round: u64,
        /// The chain's `CommitRevealWeightsVersion`.
        version: u16,
    },
    /// `serve_axon`.
    ServeAxon {
        /// Subnet.
        netuid: NetUid,
        /// Address that peers connect to.
        ip: IpAddr,
        /// Port.
        port: u16,
        /// Transport.
        protocol: AxonProtocol,
        /// Version of the neuron's software.
        version: u32,
    },
    /// `Commitments.set_commitment`.
    SetCommitment {
        /// Subnet.
        netuid: NetUid,
        /// What is committed to.
        fields: Vec<CommitmentField>,
    },
    /// `burned_register`, signed by the coldkey.
    BurnedRegister {
        /// Subnet.
        netuid: NetUid,
        /// Who is registered.
        hotkey: Hotkey,
    },
    /// `register_limit`, signed by the coldkey: nothing happens above the price.
    RegisterLimit {
        /// Subnet.
        netuid: NetUid,
        /// Who is registered.
        hotkey: Hotkey,
        /// The most that is paid.
        limit_price: Tao,
    },
    /// `add_stake`, signed by the coldkey.
    AddStake {
        /// Who gets the stake.
        hotkey: Hotkey,
        /// Subnet.
        netuid: NetUid,
        /// How much.
        amount: Tao,
    },
    /// `remove_stake`, signed by the coldkey.
    RemoveStake {
        /// Whose stake.
        hotkey: Hotkey,
        /// Subnet.
        netuid: NetUid,
        /// How much.
        amount: Alpha,
    },
}

impl Call {
    /// The chain's name of the call: a policy's word, a metric's label.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SetWeights { mecid: None, .. } => "set_weights",
            Self::SetWeights { .. } => "set_mechanism_weights",
            Self::CommitWeights { mecid: None, .. } => "commit_weights",
            Self::CommitWeights { .. } => "commit_mechanism_weights",
            Self::RevealWeights { mecid: None, .. } => "reveal_weights",
            Self::RevealWeights { .. } => "reveal_mechanism_weights",
            Self::CommitTimelocked { mecid: None, .. } => "commit_timelocked_weights",
            Self::CommitTimelocked { .. } => "commit_timelocked_mechanism_weights",
            Self::ServeAxon { .. } => "serve_axon",
            Self::SetCommitment { .. } => "set_commitment",
            Self::BurnedRegister { .. } => "burned_register",
            Self::RegisterLimit { .. } => "register_limit",
            Self::AddStake { .. } => "add_stake",
            Self::RemoveStake { .. } => "remove_stake",
        }
    }

    /// The pallet of the call.
    pub fn pallet(&self) -> &'static str {
        match self {
            Self::SetCommitment { .. } => "Commitments",
            _ => "SubtensorModule",
        }
    }

    /// The subnet that the call is about.
    pub fn netuid(&self) -> NetUid {
        match self {
            Self::SetWeights { netuid, .. }
            | Self::CommitWeights { netuid, .. }
            | Self::RevealWeights { netuid, .. }
            | Self::CommitTimelocked { netuid, .. }
            | Self::ServeAxon { netuid, .. }
            | Self::SetCommitment { netuid, .. }
            | Self::BurnedRegister { netuid, .. }
            | Self::RegisterLimit { netuid, .. }
            | Self::AddStake { netuid, .. }
            | Self::RemoveStake { netuid, .. } => *netuid,
        }
    }

    /// The mechanism that the call is about; 0 for all that know none.
    pub fn mecid(&self) -> u8 {
        match self {
            Self::SetWeights { mecid, .. }
            | Self::CommitWeights { mecid, .. }
            | Self::RevealWeights { mecid, .. }
            | Self::CommitTimelocked { mecid, .. } => mecid.unwrap_or(0),
            _ => 0,
        }
    }

    /// Whose signature the call needs.
    pub fn signed_by(&self) -> SignedBy {
        match self {
            Self::BurnedRegister { .. }
            | Self::RegisterLimit { .. }
            | Self::AddStake { .. }
            | Self::RemoveStake { .. } => SignedBy::Coldkey,
            _ => SignedBy::Hotkey,
        }
    }

    /// Refuses arguments that no chain would take.
    ///
    /// # Errors
    /// The first wrong field, its value, and what is expected.
    pub fn check(&self) -> Result<(), ValueError> {
        let mecid = self.mecid();
        if mecid >= MECHANISMS {
            return Err(ValueError::new("mecid", mecid, "is not a mechanism from 0 to 15"));
        }
        if self.netuid().0 >= MECHANISM_STRIDE {
            return Err(ValueError::new("netuid", self.netuid(), "is not a subnet from 0 to 4095"));
        }
        match self {
            Self::SetWeights { netuid, uids, values, .. } => check_weights(*netuid, uids, values),
            Self::RevealWeights { netuid, uids, values, salt, .. } => {
                check_weights(*netuid, uids, values)?;
                if salt.is_empty() || salt.len() > SALT_MAX {
                    let expected = format!("numbers are no salt: give 1 to {SALT_MAX}");
                    return Err(ValueError::new("salt", salt.len(), expected));
                }
                Ok(())
            }
            Self::CommitTimelocked { commit, reveal_round, .. } => {
                if commit.is_empty() || commit.len() > COMMIT_BYTES_MAX {
                    let expected = format!("bytes are no commit: the chain takes 1 to {COMMIT_BYTES_MAX}");
                    return Err(ValueError::new("commit", commit.len(), expected));
                }
                if *reveal_round == 0 {
                    return Err(ValueError::new("reveal_round", 0, "is no round of the beacon: the first is 1"));
                }
                Ok(())
            }
            Self::ServeAxon { ip, port, .. } => check_served(*ip, *port),
            Self::SetCommitment { fields, .. } => check_commitment(fields),
            Self::RegisterLimit { limit_price, .. } => positive("limit_price", limit_price.rao),
            Self::AddStake { amount, .. } => positive("amount", amount.rao),
            Self::RemoveStake { amount, .. } => positive("amount", amount.rao),
            Self::CommitWeights { .. } | Self::BurnedRegister { .. } => Ok(()),
        }
    }

    /// The call as subxt encodes it: fields by name, so that their order and wrapping are the runtime's.
    pub(crate) fn payload(&self) -> DynamicPayload<Composite<()>> {
        subxt::tx::dynamic(self.pallet(), self.name(), Composite::named(self.arguments()))
    }

    fn arguments(&self) -> Vec<(&'static str, Value)> {
        let mut arguments = vec![("netuid", number(self.netuid().0))];
        match self {
            Self::SetWeights { mecid, uids, values, version_key, .. } => {
                arguments.extend(mecid.map(|mecid| ("mecid", number(mecid))));
                arguments.extend([
                    ("dests", numbers(uids)),
                    ("weights", numbers(values)),
                    ("version_key", number(*version_key)),
                ]);
            }
            Self::CommitWeights { mecid, hash, .. } => {
                arguments.extend(mecid.map(|mecid| ("mecid", number(mecid))));
                arguments.push(("commit_hash", Value::from_bytes(hash.0)));
            }
            Self::RevealWeights { mecid, uids, values, salt, version_key, .. } => {
                arguments.extend(mecid.map(|mecid| ("mecid", number(mecid))));
                arguments.extend([
                    ("uids", numbers(uids)),
                    ("values", numbers(values)),
                    ("salt", numbers(salt)),
                    ("version_key", number(*version_key)),
                ]);
            }
            Self::CommitTimelocked { mecid, commit, reveal_round, version, .. } => {
                arguments.extend(mecid.map(|mecid| ("mecid", number(mecid))));
                arguments.extend([
                    ("commit", Value::from_bytes(commit)),
                    ("reveal_round", number(*reveal_round)),
                    ("commit_reveal_version", number(*version)),
                ]);
            }
            Self::ServeAxon { ip, port, protocol, version, .. } => {
                let (ip, ip_type) = ip_to_chain(*ip);
                arguments.extend([
                    ("version", number(*version)),
                    ("ip", Value::u128(ip)),
                    ("port", number(*port)),
                    ("ip_type", number(ip_type)),
                    ("protocol", number(protocol_byte(*protocol))),
                    ("placeholder1", number(0_u8)),
                    ("placeholder2", number(0_u8)),
                ]);
            }
            Self::SetCommitment { fields, .. } => {
                let fields = Value::unnamed_composite(fields.iter().map(commitment_field));
                arguments.push(("info", Value::named_composite([("fields", fields)])));
            }
            Self::BurnedRegister { hotkey, .. } => arguments.push(("hotkey", account(hotkey))),
            Self::RegisterLimit { hotkey, limit_price, .. } => {
                arguments.extend([("hotkey", account(hotkey)), ("limit_price", number(limit_price.rao))]);
            }
            Self::AddStake { hotkey, amount, .. } => {
                arguments.extend([("hotkey", account(hotkey)), ("amount_staked", number(amount.rao))]);
            }
            Self::RemoveStake { hotkey, amount, .. } => {
                arguments.extend([("hotkey", account(hotkey)), ("amount_unstaked", number(amount.rao))]);
            }
        }
        arguments
    }
}

/// The chain's byte for a transport.
pub(crate) fn protocol_byte(protocol: AxonProtocol) -> u8 {
    match protocol {
        AxonProtocol::Tcp => 0,
        AxonProtocol::Udp => 1,
        AxonProtocol::Other(byte) => byte,
    }
}

fn number(value: impl Into<u128>) -> Value {
    Value::u128(value.into())
}

fn numbers(values: &[u16]) -> Value {
    Value::unnamed_composite(values.iter().copied().map(number))
}

fn account(hotkey: &Hotkey) -> Value {
    Value::from_bytes(hotkey.as_bytes())
}

fn commitment_field(field: &CommitmentField) -> Value {
    let (name, bytes): (String, &[u8]) = match field {
        // The chain says the length in the name of the variant.
        CommitmentField::Raw(bytes) => (format!("Raw{}", bytes.len()), bytes),
        CommitmentField::BlakeTwo256(hash) => ("BlakeTwo256".into(), hash),
        CommitmentField::Sha256(hash) => ("Sha256".into(), hash),
        CommitmentField::Keccak256(hash) => ("Keccak256".into(), hash),
        CommitmentField::ShaThree256(hash) => ("ShaThree256".into(), hash),
    };
    Value::unnamed_variant(name, [Value::from_bytes(bytes)])
}

fn check_weights(netuid: NetUid, uids: &[u16], values: &[u16]) -> Result<(), ValueError> {
    if netuid.0 == 0 {
        return Err(ValueError::new("netuid", netuid, "is the root network, whose weights nobody sets any more"));
    }
    if uids.is_empty() {
        return Err(ValueError::new("uids", "[]", "names no target: give at least one"));
    }
    if uids.len() != values.len() {
        let expected = format!("numbers do not fit {} uids: give one weight for each", uids.len());
        return Err(ValueError::new("values", values.len(), expected));
    }
    if values.iter().all(|value| *value == 0) {
        return Err(ValueError::new("values", "0 everywhere", "is no preference: give at least one weight above 0"));
    }
    let mut seen = BTreeSet::new();
    match uids.iter().find(|uid| !seen.insert(**uid)) {
        Some(twice) => Err(ValueError::new("uids", twice, "stands in the list twice: give each target one weight")),
        None => Ok(()),
    }
}

fn check_served(ip: IpAddr, port: u16) -> Result<(), ValueError> {
    // What the chain itself refuses. Whether strangers can reach the address is the caller's rule: a local network has
    // others than the public one.
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if ip.is_loopback() || ip.is_unspecified() || broadcast {
        return Err(ValueError::new(
            "ip",
            ip,
            "names no host that others could reach: give the address peers connect to",
        ));
    }
    if port == 0 {
        return Err(ValueError::new("port", port, "is not a port from 1 to 65535"));
    }
    Ok(())
}

fn check_commitment(fields: &[CommitmentField]) -> Result<(), ValueError> {
    if fields.is_empty() || fields.len() > COMMITMENT_FIELDS_MAX {
        let expected = format!("fields are no commitment: give 1 to {COMMITMENT_FIELDS_MAX}");
        return Err(ValueError::new("fields", fields.len(), expected));
    }
    for (i, field) in fields.iter().enumerate() {
        if let CommitmentField::Raw(bytes) = field
            && bytes.len() > RAW_BYTES_MAX
        {
            let expected = format!("bytes do not fit: a raw field takes {RAW_BYTES_MAX}, commit to a hash instead");
            return Err(ValueError::new(&format!("fields[{i}]"), bytes.len(), expected));
        }
    }
    Ok(())
}

fn positive(field: &str, rao: u64) -> Result<(), ValueError> {
    if rao == 0 { Err(ValueError::new(field, 0, "is no amount: give more than 0")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(uids: &[u16], values: &[u16]) -> Call {
        let (uids, values) = (uids.to_vec(), values.to_vec());
        Call::SetWeights { netuid: NetUid(1), mecid: None, uids, values, version_key: 0 }
    }

    fn refused(call: &Call) -> String {
        call.check().unwrap_err().to_string()
    }

    #[test]
    fn arguments_that_no_chain_takes_are_refused_with_field_and_remedy() {
        let check = |call: &Call, part: &str| {
            let error = refused(call);
            assert!(error.contains(part), "{error}");
        };
        check(&weights(&[], &[]), "uids: `[]` names no target");
        check(&weights(&[1], &[1, 2]), "values: `2` numbers do not fit 1 uids");
        check(&weights(&[1, 1], &[1, 2]), "uids: `1` stands in the list twice");
        check(&weights(&[1, 2], &[0, 0]), "at least one weight above 0");
        let root = Call::SetWeights { netuid: NetUid(0), mecid: None, uids: vec![1], values: vec![1], version_key: 0 };
        check(&root, "root network");
        let far = Call::CommitWeights { netuid: NetUid(1), mecid: Some(16), hash: BlockHash::default() };
        check(&far, "mecid: `16`");
        let far = Call::CommitWeights { netuid: NetUid(4096), mecid: None, hash: BlockHash::default() };
        check(&far, "netuid: `4096`");
        let axon = |ip: &str, port| Call::ServeAxon {
            netuid: NetUid(1),
            ip: ip.parse().unwrap(),
            port,
            protocol: AxonProtocol::Tcp,
            version: 1,
        };
        check(&axon("127.0.0.1", 8091), "ip: `127.0.0.1`");
        check(&axon("::1", 8091), "ip: `::1`");
        check(&axon("10.0.0.1", 0), "port: `0`");
        axon("10.0.0.1", 8091).check().unwrap();
        let commitment = |fields| Call::SetCommitment { netuid: NetUid(1), fields };
        check(&commitment(vec![]), "fields: `0`");
        check(&commitment(vec![CommitmentField::Raw(vec![0; 129])]), "fields[0]: `129` bytes do not fit");
        commitment(vec![CommitmentField::Raw(vec![0; 128])]).check().unwrap();
        let commit = |commit: usize, reveal_round| Call::CommitTimelocked {
            netuid: NetUid(1),
            mecid: None,
            commit: vec![0; commit],
            reveal_round,
            version: 4,
        };
        check(&commit(5001, 1), "commit: `5001`");
        check(&commit(1, 0), "reveal_round: `0`");
        let alice = Hotkey::from([1; 32]);
        check(&Call::AddStake { hotkey: alice, netuid: NetUid(1), amount: Tao::from_rao(0) }, "amount: `0`");
    }

    #[test]
    fn mechanisms_are_4096_apart() {
        assert_eq!(mechanism_index(NetUid(3), 0), 3);
        assert_eq!(mechanism_index(NetUid(3), 1), 4099);
    }

    #[test]
    fn a_call_survives_the_journal() {
        let call = weights(&[1, 2], &[3, 4]);
        let text = serde_json::to_string(&call).unwrap();
        assert!(text.contains("\"call\":\"set_weights\""), "{text}");
        assert_eq!(serde_json::from_str::<Call>(&text).unwrap(), call);
    }

    #[test]
    fn only_money_needs_the_coldkey() {
        assert_eq!(weights(&[1], &[1]).signed_by(), SignedBy::Hotkey);
        let register = Call::BurnedRegister { netuid: NetUid(1), hotkey: Hotkey::from([1; 32]) };
        assert_eq!(register.signed_by(), SignedBy::Coldkey);
    }
}
