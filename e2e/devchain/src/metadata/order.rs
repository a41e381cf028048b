//! One numbering of types for every metadata version.
//!
//! Some clients take the id of a type from version 14 and look it up in the registry of version 15, and some know that
//! `AccountId32` is type 0. Both hold on the public chain. The library that makes our metadata numbers the extrinsic's
//! types first from version 15 on, so those versions are renumbered in the order of version 14: pallet by pallet, the
//! types of each depth first, then everything else.

use frame_metadata::v14::StorageEntryType;
use frame_metadata::v15::RuntimeMetadataV15;
use frame_metadata::v16::RuntimeMetadataV16;
use scale_info::form::{Form, PortableForm};
use scale_info::{PortableRegistry, PortableType, Type, TypeDef};

/// A reference to a type.
type Id = <PortableForm as Form>::Type;

/// Calls a function with every reference to a type.
type Visit<'a> = &'a mut dyn FnMut(&mut Id);

/// What the pallets of two versions have under the same names, in the order of version 14.
macro_rules! visit_pallets {
    ($metadata:expr, $visit:expr) => {
        for pallet in &mut $metadata.pallets {
            for entry in pallet.storage.iter_mut().flat_map(|storage| &mut storage.entries) {
                match &mut entry.ty {
                    StorageEntryType::Plain(ty) => $visit(ty),
                    StorageEntryType::Map { key, value, .. } => {
                        $visit(key);
                        $visit(value);
                    }
                }
            }
            pallet.calls.iter_mut().for_each(|calls| $visit(&mut calls.ty));
            pallet.event.iter_mut().for_each(|event| $visit(&mut event.ty));
            pallet.constants.iter_mut().for_each(|constant| $visit(&mut constant.ty));
            pallet.error.iter_mut().for_each(|error| $visit(&mut error.ty));
        }
    };
}

/// What comes after the pallets in both versions.
macro_rules! visit_rest {
    ($metadata:expr, $visit:expr) => {
        for method in $metadata.apis.iter_mut().flat_map(|api| &mut api.methods) {
            method.inputs.iter_mut().for_each(|input| $visit(&mut input.ty));
            $visit(&mut method.output);
        }
        $visit(&mut $metadata.outer_enums.call_enum_ty);
        $visit(&mut $metadata.outer_enums.event_enum_ty);
        $visit(&mut $metadata.outer_enums.error_enum_ty);
        $metadata.custom.map.values_mut().for_each(|value| $visit(&mut value.ty));
    };
}

/// Metadata whose types can be numbered anew.
pub(super) trait Numbered {
    /// Calls a function with every reference to a type outside the registry, in the order that is wanted.
    fn references(&mut self, visit: Visit<'_>);
    /// The registry.
    fn registry(&mut self) -> &mut PortableRegistry;
}

impl Numbered for RuntimeMetadataV15 {
    fn references(&mut self, visit: Visit<'_>) {
        visit_pallets!(self, visit);
        let extrinsic = &mut self.extrinsic;
        visit(&mut extrinsic.address_ty);
        visit(&mut extrinsic.call_ty);
        visit(&mut extrinsic.signature_ty);
        visit(&mut extrinsic.extra_ty);
        for extension in &mut extrinsic.signed_extensions {
            visit(&mut extension.ty);
            visit(&mut extension.additional_signed);
        }
        visit(&mut self.ty);
        visit_rest!(self, visit);
    }

    fn registry(&mut self) -> &mut PortableRegistry {
        &mut self.types
    }
}

impl Numbered for RuntimeMetadataV16 {
    fn references(&mut self, visit: Visit<'_>) {
        visit_pallets!(self, visit);
        let extrinsic = &mut self.extrinsic;
        visit(&mut extrinsic.address_ty);
        visit(&mut extrinsic.call_ty);
        visit(&mut extrinsic.signature_ty);
        for extension in &mut extrinsic.transaction_extensions {
            visit(&mut extension.ty);
            visit(&mut extension.implicit);
        }
        visit_rest!(self, visit);
        for pallet in &mut self.pallets {
            pallet.associated_types.iter_mut().for_each(|associated| visit(&mut associated.ty));
            for function in &mut pallet.view_functions {
                function.inputs.iter_mut().for_each(|input| visit(&mut input.ty));
                visit(&mut function.output);
            }
        }
    }

    fn registry(&mut self) -> &mut PortableRegistry {
        &mut self.types
    }
}

/// Numbers the types in the order in which they are met.
pub(super) fn renumber(metadata: &mut impl Numbered) {
    let mut roots = Vec::new();
    metadata.references(&mut |ty| roots.push(ty.id));
    let types = std::mem::take(&mut metadata.registry().types);
    let mut numbering = Numbering { new_ids: vec![None; types.len()], order: Vec::new(), types };
    for id in roots {
        numbering.meet(id);
    }
    let Numbering { new_ids, order, mut types } = numbering;

    // Every type is met, because the registry holds those that were referred to and what these are made of.
    let new_id = |id: &mut Id| *id = Id::from(new_ids[index(id.id)].unwrap_or_default());
    let renumbered = order.iter().zip(0..).map(|(old, id)| {
        let mut ty = types[index(*old)].ty.clone();
        references_of(&mut ty, &mut |id| new_id(id));
        PortableType { id, ty }
    });
    let renumbered = renumbered.collect();
    types.clear();
    metadata.registry().types = renumbered;
    metadata.references(&mut |id| new_id(id));
}

fn index(id: u32) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

struct Numbering {
    types: Vec<PortableType>,
    /// By old id.
    new_ids: Vec<Option<u32>>,
    /// Old ids in the new order.
    order: Vec<u32>,
}

impl Numbering {
    /// Gives a type its number, and then, depth first, those it is made of: as the registry does when it is filled.
    fn meet(&mut self, id: u32) {
        if self.new_ids[index(id)].is_some() {
            return;
        }
        self.new_ids[index(id)] = u32::try_from(self.order.len()).ok();
        self.order.push(id);
        let mut inner = Vec::new();
        references_of(&mut self.types[index(id)].ty, &mut |ty| inner.push(ty.id));
        for id in inner {
            self.meet(id);
        }
    }
}

/// Calls a function with every reference in a type, in the order in which the registry meets them.
fn references_of(ty: &mut Type<PortableForm>, visit: Visit<'_>) {
    ty.type_params.iter_mut().filter_map(|param| param.ty.as_mut()).for_each(&mut *visit);
    match &mut ty.type_def {
        TypeDef::Composite(def) => def.fields.iter_mut().for_each(|field| visit(&mut field.ty)),
        TypeDef::Variant(def) => {
            let fields = def.variants.iter_mut().flat_map(|variant| &mut variant.fields);
            fields.for_each(|field| visit(&mut field.ty));
        }
        TypeDef::Sequence(def) => visit(&mut def.type_param),
        TypeDef::Array(def) => visit(&mut def.type_param),
        TypeDef::Tuple(def) => def.fields.iter_mut().for_each(visit),
        TypeDef::Compact(def) => visit(&mut def.type_param),
        TypeDef::BitSequence(def) => {
            visit(&mut def.bit_store_type);
            visit(&mut def.bit_order_type);
        }
        TypeDef::Primitive(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use codec::Decode;
    use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
    use sp_state_machine::BasicExternalities;

    use crate::metadata::with_public_paths;
    use crate::runtime::Runtime;

    fn metadata(version: u32) -> RuntimeMetadata {
        BasicExternalities::default().execute_with(|| {
            let published = with_public_paths(Runtime::metadata_at_version(version).unwrap().to_vec());
            RuntimeMetadataPrefixed::decode(&mut published.as_slice()).unwrap().1
        })
    }

    /// Name and type of everything in the pallets.
    macro_rules! pallet_types {
        ($metadata:expr) => {{
            let mut all: Vec<(String, u32, String)> = Vec::new();
            let path = |id: u32| format!("{:?}", $metadata.types.resolve(id).unwrap().path.segments);
            for pallet in &$metadata.pallets {
                let mut add = |name: &str, id: u32| all.push((format!("{}.{name}", pallet.name), id, path(id)));
                for entry in pallet.storage.iter().flat_map(|storage| &storage.entries) {
                    match &entry.ty {
                        frame_metadata::v14::StorageEntryType::Plain(ty) => add(&entry.name, ty.id),
                        frame_metadata::v14::StorageEntryType::Map { key, value, .. } => {
                            add(&entry.name, key.id);
                            add(&entry.name, value.id);
                        }
                    }
                }
                pallet.calls.iter().for_each(|calls| add("calls", calls.ty.id));
                pallet.event.iter().for_each(|event| add("events", event.ty.id));
                pallet.constants.iter().for_each(|constant| add(&constant.name, constant.ty.id));
                pallet.error.iter().for_each(|error| add("errors", error.ty.id));
            }
            all
        }};
    }

    #[test]
    fn a_type_has_the_same_id_in_every_version_and_accounts_are_type_0() {
        let RuntimeMetadata::V14(v14) = metadata(14) else { panic!("not version 14") };
        let RuntimeMetadata::V15(v15) = metadata(15) else { panic!("not version 15") };
        let RuntimeMetadata::V16(v16) = metadata(16) else { panic!("not version 16") };
        let expected = pallet_types!(v14);
        assert!(expected.len() > 300, "{}", expected.len());
        assert_eq!(expected, pallet_types!(v15));
        assert_eq!(expected, pallet_types!(v16));
        for types in [&v14.types, &v15.types, &v16.types] {
            assert_eq!(types.resolve(0).unwrap().path.segments.join("::"), "sp_core::crypto::AccountId32");
            // Ids are positions, and whatever a type refers to exists.
            for (position, ty) in (0u32..).zip(&types.types) {
                assert_eq!(ty.id, position);
                let mut inner = ty.ty.clone();
                super::references_of(&mut inner, &mut |id| assert!(types.resolve(id.id).is_some()));
            }
        }
        // Not one type of version 15 got lost on the way.
        let runtime = BasicExternalities::default().execute_with(|| Runtime::metadata_at_version(15).unwrap());
        let RuntimeMetadataPrefixed(_, RuntimeMetadata::V15(made)) =
            RuntimeMetadataPrefixed::decode(&mut runtime.as_slice()).unwrap()
        else {
            panic!("not version 15")
        };
        assert_eq!(made.types.types.len(), v15.types.types.len());
    }
}
