//! How the values of this crate look in the `OpenAPI` description, where serde alone does not say it: what is written as text
//! or as a number has its rule there as well.

use std::borrow::Cow;

use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use crate::{Alpha, AxonProtocol, BlockHash, Coldkey, Hotkey, NetUid, Score, Tao, Uid};

/// Base58 without the characters that are easily mistaken, as long as the address of a 32-byte key can be.
const SS58_PATTERN: &str = "^[1-9A-HJ-NP-Za-km-z]{47,48}$";
const AMOUNT_PATTERN: &str = r"^[0-9]+(\.[0-9]{1,9})?$";
const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

fn text(pattern: &str, description: &str, example: &str) -> RefOr<Schema> {
    let object = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).pattern(Some(pattern));
    object.description(Some(description)).examples([example]).into()
}

fn number_of_u16(description: &str) -> RefOr<Schema> {
    let object = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer));
    let format = SchemaFormat::KnownFormat(KnownFormat::Int32);
    object.format(Some(format)).minimum(Some(0)).maximum(Some(u16::MAX)).description(Some(description)).into()
}

macro_rules! schema {
    ($name:ident, $schema:expr) => {
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $schema
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    };
}

schema!(Hotkey, text(SS58_PATTERN, "SS58 address of the key that a neuron is registered under", ALICE));
schema!(Coldkey, text(SS58_PATTERN, "SS58 address of the key that owns a hotkey and its stake", ALICE));
schema!(Tao, text(AMOUNT_PATTERN, "Amount of TAO, or of stake measured in it, in whole units", "1000.5"));
schema!(Alpha, text(AMOUNT_PATTERN, "Amount of the subnet's alpha, in whole units", "1000.5"));
schema!(BlockHash, text("^0x[0-9a-f]{64}$", "Hash of a block", &BlockHash::default().to_string()));
schema!(NetUid, number_of_u16("A subnet of the chain"));
schema!(Uid, number_of_u16("A neuron's slot in its subnet"));
schema!(Score, {
    let object = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Number)).minimum(Some(0)).maximum(Some(1));
    object.description(Some("A share of one, exact to a 65535th")).into()
});
schema!(AxonProtocol, {
    let named = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).enum_values(Some(["tcp", "udp"]));
    let other = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer)).minimum(Some(0)).maximum(Some(255));
    let description =
        "What an axon speaks: by name, or by the chain's number, which an answer has only where there is no name";
    OneOfBuilder::new().item(named).item(other).description(Some(description)).into()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_in_the_schemas() {
        let schema = serde_json::to_value(Hotkey::schema()).unwrap();
        assert_eq!((&schema["type"], &schema["pattern"]), (&"string".into(), &SS58_PATTERN.into()));
        let schema = serde_json::to_value(Score::schema()).unwrap();
        assert_eq!((schema["minimum"].as_f64(), schema["maximum"].as_f64()), (Some(0.0), Some(1.0)));
        assert_eq!(Uid::name(), "Uid");
    }
}
