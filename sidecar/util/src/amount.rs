//! Amounts of TAO and of a subnet's alpha, held in rao.
//!
//! In JSON and on the command line an amount is a decimal string in whole units (`"1000.5"`):
//! the total supply in rao is larger than the integers a JSON number holds exactly.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ValueError;

/// Rao in one TAO, and in one alpha.
pub const RAO_PER_TAO: u64 = 1_000_000_000;

/// Digits behind the point of an amount.
const DECIMALS: usize = 9;

fn parse_rao(field: &str, text: &str) -> Result<u64, ValueError> {
    let wrong = |expected: &str| ValueError::new(field, text, expected);
    let shape = "is not an amount such as 1000 or 0.5 (at most nine digits behind the point)";
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let has_digits = !whole.is_empty() && (!text.contains('.') || !fraction.is_empty());
    if !has_digits || !digits(whole) || !digits(fraction) || fraction.len() > DECIMALS {
        return Err(wrong(shape));
    }
    let too_large = || wrong("is larger than the chain can hold");
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let fraction: u64 = format!("{fraction:0<DECIMALS$}").parse().map_err(|_| wrong(shape))?;
    whole.checked_mul(RAO_PER_TAO).and_then(|rao| rao.checked_add(fraction)).ok_or_else(too_large)
}

fn show_rao(rao: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (whole, fraction) = (rao / RAO_PER_TAO, rao % RAO_PER_TAO);
    let text = if fraction == 0 {
        whole.to_string()
    } else {
        let fraction = format!("{fraction:0DECIMALS$}");
        format!("{whole}.{}", fraction.trim_end_matches('0'))
    };
    f.pad(&text)
}

macro_rules! amount {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name {
            /// The amount in rao, 10⁻⁹ of a whole unit.
            pub rao: u64,
        }

        impl $name {
            /// Nothing.
            pub const ZERO: Self = Self { rao: 0 };

            /// An amount of so many rao.
            pub const fn from_rao(rao: u64) -> Self {
                Self { rao }
            }

            /// Whole units as a float, for scores and charts, never for accounts.
            #[expect(clippy::cast_precision_loss, reason = "the doc comment says what it is for")]
            pub fn as_f64(self) -> f64 {
                self.rao as f64 * 1e-9
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                show_rao(self.rao, f)
            }
        }

        impl FromStr for $name {
            type Err = ValueError;

            fn from_str(text: &str) -> Result<Self, ValueError> {
                parse_rao($field, text).map(Self::from_rao)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_u64(self.rao)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                } else {
                    u64::deserialize(deserializer).map(Self::from_rao)
                }
            }
        }
    };
}

amount!(
    /// An amount of TAO, or of stake measured in TAO.
    Tao,
    "TAO amount"
);
amount!(
    /// An amount of a subnet's alpha.
    Alpha,
    "alpha amount"
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_read_and_print_in_whole_units() {
        let check = |text: &str, rao: u64, shown: &str| {
            let amount: Tao = text.parse().unwrap();
            assert_eq!((amount.rao, amount.to_string().as_str()), (rao, shown));
        };
        check("1000", 1_000_000_000_000, "1000");
        check("0.5", 500_000_000, "0.5");
        check("1.000000001", 1_000_000_001, "1.000000001");
        check("0.10", 100_000_000, "0.1");
    }

    #[test]
    fn bad_amounts_are_refused_with_their_field() {
        for text in ["", ".5", "1.", "-1", "1e3", "1.0000000001", "18446744074", "1 000", "+1"] {
            let error = text.parse::<Tao>().unwrap_err().to_string();
            assert!(error.starts_with("TAO amount: `"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_amount_round_trips(rao: u64) {
            let amount = Alpha::from_rao(rao);
            prop_assert_eq!(amount.to_string().parse::<Alpha>().unwrap(), amount);
            let json = serde_json::to_string(&amount).unwrap();
            prop_assert_eq!(serde_json::from_str::<Alpha>(&json).unwrap(), amount);
        }
    }
}
