//! What a commitment holds. Short bytes have their length in the variant's index, which no derive can write.

use codec::{Decode, DecodeWithMemTracking, Encode, EncodeLike, Error, Input, Output};
use frame_support::BoundedVec;
use frame_support::traits::ConstU32;
use scale_info::build::{Fields, FieldsBuilder, UnnamedFields, Variants};
use scale_info::form::MetaForm;
use scale_info::{Path, Type, TypeInfo};

use crate::pallets::subtensor::TaoBalance;

/// Bytes that a variant's index can tell the length of.
type Short = BoundedVec<u8, ConstU32<128>>;
/// Bytes of a large field.
type Long = BoundedVec<u8, ConstU32<512>>;
/// Bytes of an encrypted field.
type Encrypted = BoundedVec<u8, ConstU32<1024>>;

/// One field of a commitment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Nothing.
    None,
    /// At most 128 bytes.
    Raw(Short),
    /// A hash.
    BlakeTwo256([u8; 32]),
    /// A hash.
    Sha256([u8; 32]),
    /// A hash.
    Keccak256([u8; 32]),
    /// A hash.
    ShaThree256([u8; 32]),
    /// Bytes encrypted for a drand round.
    TimelockEncrypted {
        /// The bytes.
        encrypted: Encrypted,
        /// The round.
        reveal_round: u64,
    },
    /// Asks for the hotkey's bonds to be reset.
    ResetBondsFlag,
    /// At most 512 bytes.
    BigRaw(Long),
    /// Encrypted bytes that could not be opened; only the runtime writes it.
    TimelockRevealFailed {
        /// The bytes.
        encrypted: Encrypted,
        /// The round.
        reveal_round: u64,
    },
}

/// Why an encrypted commitment could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub enum RevealFailure {
    /// The beacon's signature makes no sense.
    SignatureDeserialize,
    /// The encrypted bytes make no sense.
    CiphertextDeserialize,
    /// They are not encrypted for this round.
    Decrypt,
    /// Nothing was in them.
    EmptyPlaintext,
    /// The beacon's signature is no longer kept.
    PulseExpired,
    /// The signature is of another round.
    RoundMismatch,
}

impl Data {
    pub(super) fn reveal_round(&self) -> Option<u64> {
        match self {
            Self::TimelockEncrypted { reveal_round, .. } => Some(*reveal_round),
            _ => None,
        }
    }
}

impl Encode for Data {
    fn encode_to<O: Output + ?Sized>(&self, out: &mut O) {
        match self {
            Self::None => out.push_byte(0),
            Self::Raw(bytes) => {
                // At most 128 bytes, so the index is at most 129.
                out.push_byte(u8::try_from(bytes.len() + 1).unwrap_or(129));
                out.write(bytes);
            }
            Self::BlakeTwo256(hash) => (130u8, hash).encode_to(out),
            Self::Sha256(hash) => (131u8, hash).encode_to(out),
            Self::Keccak256(hash) => (132u8, hash).encode_to(out),
            Self::ShaThree256(hash) => (133u8, hash).encode_to(out),
            Self::TimelockEncrypted { encrypted, reveal_round } => (134u8, encrypted, reveal_round).encode_to(out),
            Self::ResetBondsFlag => out.push_byte(135),
            Self::BigRaw(bytes) => (136u8, bytes).encode_to(out),
            Self::TimelockRevealFailed { encrypted, reveal_round } => (137u8, encrypted, reveal_round).encode_to(out),
        }
    }
}

impl EncodeLike for Data {}

impl Decode for Data {
    fn decode<I: Input>(input: &mut I) -> Result<Self, Error> {
        Ok(match input.read_byte()? {
            0 => Self::None,
            length @ 1..=129 => {
                let mut bytes = vec![0; usize::from(length) - 1];
                input.read(&mut bytes)?;
                Self::Raw(bytes.try_into().map_err(|_| "more than 128 bytes")?)
            }
            130 => Self::BlakeTwo256(Decode::decode(input)?),
            131 => Self::Sha256(Decode::decode(input)?),
            132 => Self::Keccak256(Decode::decode(input)?),
            133 => Self::ShaThree256(Decode::decode(input)?),
            134 => Self::TimelockEncrypted { encrypted: Decode::decode(input)?, reveal_round: Decode::decode(input)? },
            135 => Self::ResetBondsFlag,
            136 => Self::BigRaw(Decode::decode(input)?),
            137 => {
                Self::TimelockRevealFailed { encrypted: Decode::decode(input)?, reveal_round: Decode::decode(input)? }
            }
            _ => return Err("no such kind of commitment".into()),
        })
    }
}

impl DecodeWithMemTracking for Data {}

/// The field of a variant that has one.
#[expect(clippy::redundant_closure_for_method_calls, reason = "the path of the method alone is ambiguous")]
fn one<V: TypeInfo + 'static>() -> FieldsBuilder<MetaForm, UnnamedFields> {
    Fields::unnamed().field(|field| field.ty::<V>())
}

/// Adds the variants of short bytes, whose types differ by their length.
macro_rules! raw_variants {
    ($variants:expr; $($length:literal)*) => {
        $variants$(.variant(concat!("Raw", $length), |variant| {
            variant.index($length + 1).fields(one::<[u8; $length]>())
        }))*
    };
}

impl TypeInfo for Data {
    type Identity = Self;

    fn type_info() -> Type {
        let variants = Variants::new().variant("None", |variant| variant.index(0));
        let variants = raw_variants!(variants;
        0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38
        39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74
        75 76 77 78 79 80 81 82 83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99 100 101 102 103 104 105 106 107
        108 109 110 111 112 113 114 115 116 117 118 119 120 121 122 123 124 125 126 127 128
        );
        let hash = |variants: Variants, name, index| {
            variants.variant(name, |variant| variant.index(index).fields(one::<[u8; 32]>()))
        };
        let timelock = |variants: Variants, name, index| {
            variants.variant(name, |variant| {
                variant.index(index).fields(
                    Fields::named()
                        .field(|field| field.name("encrypted").ty::<Encrypted>())
                        .field(|field| field.name("reveal_round").ty::<u64>()),
                )
            })
        };
        let variants = hash(variants, "BlakeTwo256", 130);
        let variants = hash(variants, "Sha256", 131);
        let variants = hash(variants, "Keccak256", 132);
        let variants = hash(variants, "ShaThree256", 133);
        let variants = timelock(variants, "TimelockEncrypted", 134)
            .variant("ResetBondsFlag", |variant| variant.index(135))
            .variant("BigRaw", |variant| variant.index(136).fields(one::<Long>()));
        let variants = timelock(variants, "TimelockRevealFailed", 137);
        Type::builder().path(Path::new("Data", "pallet_commitments::types")).variant(variants)
    }
}

/// A commitment.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct CommitmentInfo {
    /// Its fields.
    pub fields: BoundedVec<Data, ConstU32<3>>,
}

/// A commitment on the chain.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct Registration {
    /// TAO held for it; none.
    pub deposit: TaoBalance,
    /// Block of the commitment.
    pub block: u32,
    /// The commitment.
    pub info: CommitmentInfo,
}

/// Space used in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, DecodeWithMemTracking, TypeInfo)]
pub struct UsageTracker {
    /// The epoch.
    pub last_epoch: u64,
    /// Bytes used in it.
    pub used_space: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_index_tells_the_length_of_short_bytes() {
        let data = Data::Raw(b"hello".to_vec().try_into().unwrap());
        assert_eq!(data.encode(), [6, b'h', b'e', b'l', b'l', b'o']);
        assert_eq!(Data::Raw(Short::default()).encode(), [1]);
        assert_eq!(Data::None.encode(), [0]);
    }

    #[test]
    fn metadata_names_every_variant_with_its_index() {
        let scale_info::TypeDef::Variant(def) = Data::type_info().type_def else { panic!("no enum") };
        let index = |name: &str| def.variants.iter().find(|variant| variant.name == name).map(|variant| variant.index);
        assert_eq!(def.variants.len(), 138);
        assert_eq!((index("Raw0"), index("Raw128"), index("BigRaw")), (Some(1), Some(129), Some(136)));
    }

    proptest! {
        #[test]
        fn whatever_decodes_encodes_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = bytes.as_slice();
            if let Ok(data) = Data::decode(&mut rest) {
                let read = bytes.len() - rest.len();
                prop_assert_eq!(Data::decode(&mut data.encode().as_slice()).unwrap(), data.clone());
                prop_assert!(data.encoded_size() <= read);
            }
        }
    }
}
