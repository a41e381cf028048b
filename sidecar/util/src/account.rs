//! Accounts of the chain and their SS58 addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sp_core::crypto::{AccountId32, PublicError, Ss58AddressFormat, Ss58Codec};

use crate::ValueError;

/// SS58 address format of Bittensor chains ("generic Substrate").
pub const SS58_PREFIX: u16 = 42;

/// A 32-byte account, shown as its SS58 address with prefix [`SS58_PREFIX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub [u8; 32]);

impl AccountId {
    /// Parses an SS58 address with its prefix and checksum; `field` is named in the error.
    pub fn parse(field: &str, text: &str) -> Result<Self, ValueError> {
        let wrong = |expected: String| ValueError::new(field, text, expected);
        let (account, format) = AccountId32::from_ss58check_with_version(text).map_err(|error| match error {
            PublicError::InvalidChecksum => wrong("has a wrong checksum: copy the SS58 address again".into()),
            PublicError::BadLength => wrong("has the wrong length for the SS58 address of a 32-byte key".into()),
            PublicError::BadBase58 => wrong("has characters that base58 does not have (0, O, I, l)".into()),
            _ => wrong("is not an SS58 address such as 5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY".into()),
        })?;
        if format != Ss58AddressFormat::custom(SS58_PREFIX) {
            let expected =
                format!("has SS58 prefix {}, expected {SS58_PREFIX}: convert the address", u16::from(format));
            return Err(wrong(expected));
        }
        Ok(Self(account.into()))
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = Ss58AddressFormat::custom(SS58_PREFIX);
        f.write_str(&AccountId32::new(self.0).to_ss58check_with_version(format))
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AccountId {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::parse("account", text)
    }
}

impl Serialize for AccountId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for AccountId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            Deserialize::deserialize(deserializer).map(Self)
        }
    }
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub AccountId);

        impl $name {
            /// The raw public key.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0.0
            }
        }

        impl From<[u8; 32]> for $name {
            fn from(bytes: [u8; 32]) -> Self {
                Self(AccountId(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ValueError;

            fn from_str(text: &str) -> Result<Self, ValueError> {
                AccountId::parse($field, text).map(Self)
            }
        }
    };
}

key!(
    /// The key that a neuron is registered under and signs with.
    Hotkey,
    "hotkey"
);
key!(
    /// The key that owns a hotkey and its stake. Only its address is ever seen here.
    Coldkey,
    "coldkey"
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

    #[test]
    fn alice_parses_and_prints_the_same() {
        let alice: Hotkey = ALICE.parse().unwrap();
        assert_eq!(alice.to_string(), ALICE);
        assert_eq!(alice.as_bytes()[..4], [0xd4, 0x35, 0x93, 0xc7]);
    }

    #[test]
    fn errors_say_what_is_wrong_with_the_address() {
        let check = |text: &str, part: &str| {
            let error = text.parse::<Hotkey>().unwrap_err().to_string();
            assert!(error.starts_with("hotkey: `") && error.contains(part), "{error}");
        };
        check(&ALICE.replace("5Grw", "5Grx"), "wrong checksum");
        check("5O", "base58");
        check("", "SS58 address");
        check("15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5", "prefix 0, expected 42");
    }

    proptest! {
        #[test]
        fn every_account_round_trips(bytes: [u8; 32]) {
            let account = AccountId(bytes);
            prop_assert_eq!(account.to_string().parse::<AccountId>().unwrap(), account);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = text.parse::<AccountId>();
        }
    }
}
