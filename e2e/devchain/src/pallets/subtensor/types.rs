//! Types of `SubtensorModule` that stand in storage, calls and events. Field order is the encoding.

use std::sync::atomic::{AtomicBool, Ordering};

use codec::{CompactAs, Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::BoundedVec;
use frame_support::traits::ConstU32;
use scale_info::{Type, TypeInfo};
use serde::{Deserialize, Serialize};

use super::limits::Hyperparameter;

/// An amount of TAO in rao.
pub type TaoBalance = u64;

/// An amount of a subnet's alpha in rao.
pub type AlphaBalance = u64;

/// A mechanism of a subnet.
pub type MechId = u8;

/// Key of the tables that are kept per mechanism: `mecid * 4096 + netuid`.
pub type NetUidStorageIndex = u16;

/// The most netuids there can be; the stride of [`NetUidStorageIndex`].
pub const GLOBAL_MAX_SUBNET_COUNT: u16 = 4096;

/// Whether metadata shows [`NetUid`] as a type of its own (runtimes since about spec 429) or as a plain `u16`.
///
/// The encoding is the same. Clients older than July 2026 read only the plain form, newer ones read both.
static NETUID_IS_A_TYPE: AtomicBool = AtomicBool::new(false);

/// Chooses how metadata shows [`NetUid`], for the whole process and before the chain starts.
pub fn show_netuid_as_type(own_type: bool) {
    NETUID_IS_A_TYPE.store(own_type, Ordering::Relaxed);
}

/// A subnet.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Encode,
    Decode,
    DecodeWithMemTracking,
    MaxEncodedLen,
    CompactAs,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct NetUid(pub u16);

impl NetUid {
    /// The root network, on which TAO is staked.
    pub const ROOT: Self = Self(0);

    /// Whether this is the root network.
    pub fn is_root(self) -> bool {
        self == Self::ROOT
    }

    /// Key of a mechanism's tables. A mechanism that no subnet can have gets a key that no table has.
    pub fn index(self, mecid: MechId) -> NetUidStorageIndex {
        u16::from(mecid).saturating_mul(GLOBAL_MAX_SUBNET_COUNT).saturating_add(self.0)
    }
}

impl From<u16> for NetUid {
    fn from(netuid: u16) -> Self {
        Self(netuid)
    }
}

impl std::fmt::Display for NetUid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl TypeInfo for NetUid {
    type Identity = Self;

    fn type_info() -> Type {
        if !NETUID_IS_A_TYPE.load(Ordering::Relaxed) {
            return u16::type_info();
        }
        Type::builder()
            .path(scale_info::Path::new("NetUid", "subtensor_runtime_common"))
            .composite(scale_info::build::Fields::unnamed().field(|field| field.ty::<u16>().type_name("u16")))
    }
}

/// Where a neuron can be reached.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen,
)]
pub struct AxonInfo {
    /// Block at which it was served.
    pub block: u64,
    /// Version of the neuron's software.
    pub version: u32,
    /// IPv4 or IPv6 address as a number.
    pub ip: u128,
    /// Port.
    pub port: u16,
    /// 4 or 6.
    pub ip_type: u8,
    /// 0 TCP, 1 UDP, others reserved.
    pub protocol: u8,
    /// Unused.
    pub placeholder1: u8,
    /// Unused.
    pub placeholder2: u8,
}

/// Where a neuron's metrics can be read.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen,
)]
pub struct PrometheusInfo {
    /// Block at which it was served.
    pub block: u64,
    /// Version of the neuron's software.
    pub version: u32,
    /// IPv4 or IPv6 address as a number.
    pub ip: u128,
    /// Port.
    pub port: u16,
    /// 4 or 6.
    pub ip_type: u8,
}

/// TLS key of an axon.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub struct NeuronCertificate {
    /// The public key.
    pub public_key: BoundedVec<u8, ConstU32<64>>,
    /// Algorithm of the key.
    pub algorithm: u8,
}

impl NeuronCertificate {
    /// Reads the form in which calls carry it: one byte of algorithm, then up to 64 of key.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (algorithm, public_key) = bytes.split_first()?;
        Some(Self { public_key: public_key.to_vec().try_into().ok()?, algorithm: *algorithm })
    }
}

/// What the owner of a coldkey says of themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct ChainIdentityV2 {
    /// Name.
    pub name: Vec<u8>,
    /// Web site.
    pub url: Vec<u8>,
    /// Repository.
    pub github_repo: Vec<u8>,
    /// Picture.
    pub image: Vec<u8>,
    /// Contact.
    pub discord: Vec<u8>,
    /// Text.
    pub description: Vec<u8>,
    /// Anything else.
    pub additional: Vec<u8>,
}

/// What the owner of a subnet says of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct SubnetIdentityV3 {
    /// Name.
    pub subnet_name: Vec<u8>,
    /// Repository.
    pub github_repo: Vec<u8>,
    /// Contact.
    pub subnet_contact: Vec<u8>,
    /// Web site.
    pub subnet_url: Vec<u8>,
    /// Contact.
    pub discord: Vec<u8>,
    /// Text.
    pub description: Vec<u8>,
    /// Picture.
    pub logo_url: Vec<u8>,
    /// Anything else.
    pub additional: Vec<u8>,
}

/// A share of a hotkey's stake pool: `mantissa * 10^exponent`.
///
/// This chain keeps whole shares, so its exponents are 0: a share starts at one rao of alpha and only gains worth,
/// which leaves 64 bits of headroom.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen,
)]
pub struct SafeFloat {
    /// Digits.
    pub mantissa: u128,
    /// Power of ten.
    pub exponent: i64,
}

impl SafeFloat {
    /// A whole number of shares.
    pub fn whole(mantissa: u128) -> Self {
        Self { mantissa, exponent: 0 }
    }
}

/// What happens to the alpha that a miner's slot of the owner would have earned.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen,
)]
pub enum RecycleOrBurnEnum {
    /// It leaves the supply for good.
    #[default]
    Burn,
    /// It returns to what may still be emitted.
    Recycle,
}

/// How a subnet's epochs are computed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen,
)]
pub enum EpochConsensus {
    /// By Yuma consensus.
    #[default]
    Yuma,
    /// Not at all; this chain knows it by name only.
    Null,
}

/// Which consensus liquid alpha compares weights with.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen,
)]
pub enum ConsensusMode {
    /// That of the epoch itself.
    Current,
    /// That of the epoch before.
    Previous,
    /// That of the epoch before where bonds are fully penalised, else that of the epoch itself.
    #[default]
    Auto,
}

/// What [`super::pallet::LastRateLimitedBlock`] counts.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo, MaxEncodedLen)]
pub enum RateLimitKey<AccountId> {
    /// Last change of a subnet's owner hotkey.
    #[codec(index = 0)]
    SetSNOwnerHotkey(NetUid),
    /// Last change of a hyperparameter by the owner.
    #[codec(index = 1)]
    OwnerHyperparamUpdate(NetUid, Hyperparameter),
    /// Last registration of a network.
    #[codec(index = 2)]
    NetworkLastRegistered,
    /// Last transaction of an account.
    #[codec(index = 3)]
    LastTxBlock(AccountId),
    /// Last raise of a child hotkey's take.
    #[codec(index = 4)]
    LastTxBlockChildKeyTake(AccountId),
    /// Last change of a take.
    #[codec(index = 5)]
    LastTxBlockDelegateTake(AccountId),
    /// Last alpha bought and burned.
    #[codec(index = 6)]
    AddStakeBurn(NetUid),
}
