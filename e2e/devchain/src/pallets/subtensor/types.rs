//! Types of `SubtensorModule` that stand in storage, calls and events. Field order is the encoding.

use std::cell::Cell;

use codec::{CompactAs, Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::traits::ConstU32;
use frame_support::{BoundedVec, PalletId};
use scale_info::{Type, TypeInfo};
use serde::{Deserialize, Serialize};
use sp_runtime::traits::AccountIdConversion;
use sp_runtime::{AccountId32, Percent};
use substrate_fixed::types::U64F64;

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

/// How metadata shows [`NetUid`]; its encoding is the same either way.
///
/// The public chain made it a type of its own about spec 429, in July 2026. Clients older than that read only the plain
/// form, newer ones read both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetuidType {
    /// As a plain `u16`, which every generation of clients reads.
    #[default]
    U16,
    /// As a type of its own, as the public chain does today.
    Newtype,
}

thread_local! {
    /// How the metadata that this thread is making shows [`NetUid`].
    static SHOWN_AS: Cell<NetuidType> = const { Cell::new(NetuidType::U16) };
}

/// Makes metadata in which [`NetUid`] is shown in one way or the other.
pub fn showing_netuid_as<R>(shown_as: NetuidType, make: impl FnOnce() -> R) -> R {
    let before = SHOWN_AS.replace(shown_as);
    let metadata = make();
    SHOWN_AS.set(before);
    metadata
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

/// Account that stands for a subnet: derived from the pallet's id and the netuid, as FRAME derives accounts of pallets.
pub fn subnet_account(netuid: NetUid) -> AccountId32 {
    PalletId(*b"subtensr").into_sub_account_truncating(netuid.0)
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
        if SHOWN_AS.get() == NetuidType::U16 {
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

/// Stake that is bound for a while; this chain has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct LockState {
    /// Alpha bound.
    pub locked_mass: AlphaBalance,
    /// Alpha times time.
    pub conviction: U64F64,
    /// Block.
    pub last_update: u64,
}

/// What a miner has deposited; this chain takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct MinerCollateralState {
    /// Alpha bound.
    pub locked: AlphaBalance,
    /// Alpha released per alpha earned.
    pub drain_ratio: U64F64,
    /// Least alpha bound.
    pub min_locked: AlphaBalance,
    /// Alpha earned.
    pub earned: AlphaBalance,
}

/// A subnet that a crowd has leased; this chain has none.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct SubnetLease<AccountId, BlockNumber, Balance> {
    /// Who runs it.
    pub beneficiary: AccountId,
    /// Its owner.
    pub coldkey: AccountId,
    /// Its owner's hotkey.
    pub hotkey: AccountId,
    /// The crowd's part.
    pub emissions_share: Percent,
    /// Last block.
    pub end_block: Option<BlockNumber>,
    /// Subnet.
    pub netuid: NetUid,
    /// Its price.
    pub cost: Balance,
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
