//! An amount of TAO as people write it in YAML: `1000`, `"1000"` or `"0.5"`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sidecar_util::{RAO_PER_TAO, Tao};

/// An amount of TAO: a whole number, or a decimal string with at most nine digits behind the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct TaoAmount(pub Tao);

impl TaoAmount {
    /// So many whole TAO.
    pub const fn whole(tao: u64) -> Self {
        Self(Tao::from_rao(tao * RAO_PER_TAO))
    }
}

impl Serialize for TaoAmount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TaoAmount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = TaoAmount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of TAO such as 1000 or \"0.5\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<TaoAmount, E> {
                text.parse().map(TaoAmount).map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, whole: u64) -> Result<TaoAmount, E> {
                self.visit_str(&whole.to_string())
            }

            fn visit_i64<E: serde::de::Error>(self, whole: i64) -> Result<TaoAmount, E> {
                self.visit_str(&whole.to_string())
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for TaoAmount {
    fn schema_name() -> Cow<'static, str> {
        "TaoAmount".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            // Of an integer only this is checked, of a string only the pattern.
            "minimum": 0,
            "nullable": false,
            "pattern": r"^[0-9]{1,10}(\.[0-9]{1,9})?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_strings_mean_the_same() {
        let read = |text: &str| serde_json::from_str::<TaoAmount>(text).unwrap();
        assert_eq!(read("1000"), TaoAmount::whole(1000));
        assert_eq!(read("\"1000\""), TaoAmount::whole(1000));
        assert_eq!(read("\"0.5\"").0.rao, 500_000_000);
        assert!(serde_json::from_str::<TaoAmount>("-1").is_err());
    }
}
