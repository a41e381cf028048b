//! Names from the runtime's metadata: of errors, and of setters with the types of their arguments.

use anyhow::{Context, bail};
use codec::{Decode, Encode};
use frame_metadata::v14::RuntimeMetadataV14;
use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use scale_info::{TypeDef, TypeDefPrimitive, Variant, form::PortableForm};
use sp_runtime::{DispatchError, ModuleError};
use sp_state_machine::BasicExternalities;

use crate::runtime::{Runtime, RuntimeCall};

fn metadata() -> anyhow::Result<RuntimeMetadataV14> {
    // Constants of the metadata are read from state; an empty one gives their defaults, which do not matter here.
    let prefixed: RuntimeMetadataPrefixed = BasicExternalities::default().execute_with(Runtime::metadata);
    match prefixed.1 {
        RuntimeMetadata::V14(metadata) => Ok(metadata),
        other => bail!("the runtime gave metadata {} instead of 14", other.version()),
    }
}

fn variants(metadata: &RuntimeMetadataV14, type_id: u32) -> Vec<Variant<PortableForm>> {
    match metadata.types.resolve(type_id).map(|ty| &ty.type_def) {
        Some(TypeDef::Variant(def)) => def.variants.clone(),
        _ => Vec::new(),
    }
}

/// A dispatch error by its name, with its documentation.
pub(super) fn error_text(error: &DispatchError) -> String {
    let DispatchError::Module(ModuleError { index, error: code, .. }) = error else {
        return format!("{error:?}");
    };
    let named = metadata().ok().and_then(|metadata| {
        let pallet = metadata.pallets.iter().find(|pallet| pallet.index == *index)?;
        let errors = variants(&metadata, pallet.error.as_ref()?.ty.id);
        let variant = errors.into_iter().find(|variant| variant.index == code[0])?;
        Some(format!("{}.{}: {}", pallet.name, variant.name, variant.docs.join(" ").trim()))
    });
    named.unwrap_or_else(|| format!("{error:?}"))
}

/// Builds `AdminUtils.sudo_set_<name>` from words.
///
/// # Errors
/// When there is no such setter, or a word does not fit its argument.
pub(super) fn setter(name: &str, netuid: Option<u16>, value: &str) -> anyhow::Result<RuntimeCall> {
    let metadata = metadata()?;
    let pallet = metadata.pallets.iter().find(|pallet| pallet.name == "AdminUtils").context("no AdminUtils")?;
    let calls = variants(&metadata, pallet.calls.as_ref().context("AdminUtils has no calls")?.ty.id);
    let wanted = format!("sudo_set_{}", name.replace('-', "_"));
    let Some(call) = calls.iter().find(|call| call.name == wanted) else {
        let mut known: Vec<&str> = calls.iter().filter_map(|call| call.name.strip_prefix("sudo_set_")).collect();
        known.sort_unstable();
        bail!("there is no setter `{name}`: known are {}", known.join(", "));
    };
    let mut bytes = vec![pallet.index, call.index];
    for field in &call.fields {
        let field_name = field.name.as_deref().unwrap_or_default();
        let word = if field_name == "netuid" {
            netuid.with_context(|| format!("`{name}` is a value of a subnet: add --netuid"))?.to_string()
        } else {
            value.to_owned()
        };
        encode_word(&metadata, field.ty.id, &word, &mut bytes).with_context(|| format!("argument {field_name}"))?;
    }
    RuntimeCall::decode(&mut bytes.as_slice()).with_context(|| format!("cannot build {wanted}"))
}

fn encode_word(metadata: &RuntimeMetadataV14, ty: u32, word: &str, bytes: &mut Vec<u8>) -> anyhow::Result<()> {
    let wrong = |expected: &str| format!("`{word}` is not {expected}");
    let def = metadata.types.resolve(ty).map(|ty| &ty.type_def).context("unknown type")?;
    match def {
        TypeDef::Primitive(TypeDefPrimitive::Bool) => {
            word.parse::<bool>().with_context(|| wrong("true or false"))?.encode_to(bytes);
        }
        TypeDef::Primitive(TypeDefPrimitive::U8) => {
            word.parse::<u8>().with_context(|| wrong("from 0 to 255"))?.encode_to(bytes);
        }
        TypeDef::Primitive(TypeDefPrimitive::U16) => {
            word.parse::<u16>().with_context(|| wrong("from 0 to 65535"))?.encode_to(bytes);
        }
        TypeDef::Primitive(TypeDefPrimitive::U32) => {
            word.parse::<u32>().with_context(|| wrong("a whole number"))?.encode_to(bytes);
        }
        TypeDef::Primitive(TypeDefPrimitive::U64) => {
            word.parse::<u64>().with_context(|| wrong("a whole number"))?.encode_to(bytes);
        }
        TypeDef::Primitive(TypeDefPrimitive::I16) => {
            word.parse::<i16>().with_context(|| wrong("from -32768 to 32767"))?.encode_to(bytes);
        }
        TypeDef::Composite(def) if def.fields.len() == 1 => {
            encode_word(metadata, def.fields[0].ty.id, word, bytes)?;
        }
        _ => bail!("values of this type cannot be written on the command line"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pallets::admin_utils;
    use crate::pallets::subtensor::{Error, NetUid};

    #[test]
    fn errors_are_told_by_name() {
        let error: DispatchError = Error::<Runtime>::SettingWeightsTooFast.into();
        let text = error_text(&error);
        assert!(text.starts_with("SubtensorModule.SettingWeightsTooFast: "), "{text}");
    }

    #[test]
    fn setters_are_built_from_words() {
        let built = setter("tempo", Some(1), "10").unwrap();
        let expected = admin_utils::Call::sudo_set_tempo { netuid: NetUid(1), tempo: 10 };
        assert_eq!(built, RuntimeCall::AdminUtils(expected));
        let built = setter("commit-reveal-weights-enabled", Some(2), "false").unwrap();
        let expected = admin_utils::Call::sudo_set_commit_reveal_weights_enabled { netuid: NetUid(2), enabled: false };
        assert_eq!(built, RuntimeCall::AdminUtils(expected));
    }

    #[test]
    fn unknown_setters_and_wrong_words_are_told_with_the_remedy() {
        let check = |name: &str, netuid, value: &str, part: &str| {
            let error = format!("{:#}", setter(name, netuid, value).unwrap_err());
            assert!(error.contains(part), "{error}");
        };
        check("temp", Some(1), "10", "known are");
        check("tempo", None, "10", "--netuid");
        check("tempo", Some(1), "70000", "from 0 to 65535");
    }
}
