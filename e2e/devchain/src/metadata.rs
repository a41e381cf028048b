//! Metadata as the public chain would write it: the paths of types are part of what clients go by.
//!
//! Libraries find the types of events and calls by paths such as `node_subtensor_runtime::RuntimeEvent`, at that depth.
//! The derive macros write the paths of this crate's modules, so they are renamed on the way out, and types get the
//! numbers that they have on the public chain. After an injected upgrade, indices are shifted as well.

mod order;

use codec::{Decode, Encode};
use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use scale_info::PortableRegistry;

/// Module paths of this crate and what the public chain calls them, the longest first.
const RENAMED: [(&[&str], &[&str]); 18] = [
    (&["pallets", "subtensor", "info", "delegate"], &["pallet_subtensor", "rpc_info", "delegate_info"]),
    (&["pallets", "subtensor", "info", "neuron"], &["pallet_subtensor", "rpc_info", "neuron_info"]),
    (&["pallets", "subtensor", "info", "metagraph"], &["pallet_subtensor", "rpc_info", "metagraph"]),
    (&["pallets", "subtensor", "info", "stake"], &["pallet_subtensor", "rpc_info", "stake_info"]),
    (&["pallets", "subtensor", "info", "subnet"], &["pallet_subtensor", "rpc_info", "subnet_info"]),
    (&["pallets", "subtensor", "guards"], &["pallet_subtensor", "extensions", "subtensor"]),
    (&["pallets", "subtensor", "types"], &["pallet_subtensor"]),
    (&["pallets", "subtensor"], &["pallet_subtensor"]),
    (&["pallets", "commitments", "data"], &["pallet_commitments", "types"]),
    (&["pallets", "commitments"], &["pallet_commitments"]),
    (&["pallets", "crowdloan"], &["pallet_crowdloan"]),
    (&["pallets", "drand"], &["pallet_drand", "types"]),
    (&["pallets", "mev_shield"], &["pallet_shield"]),
    (&["pallets", "swap"], &["pallet_subtensor_swap", "pallet"]),
    (&["pallets", "admin_utils"], &["pallet_admin_utils"]),
    (&["pallets", "proxies"], &["subtensor_runtime_common", "proxy"]),
    (&["extensions"], &["node_subtensor_runtime"]),
    (&["runtime"], &["node_subtensor_runtime"]),
];

/// Paths that are other ones on the public chain, with the beginning first that is to be replaced: types of its own
/// versions of FRAME's pallets, and types that stand in modules of their own there.
const MOVED: [(&[&str], &[&str]); 18] = [
    (&["pallet_subtensor", "AxonInfo"], &["pallet_subtensor", "pallet", "AxonInfo"]),
    (&["pallet_subtensor", "ChainIdentityV2"], &["pallet_subtensor", "pallet", "ChainIdentityV2"]),
    (&["pallet_subtensor", "NeuronCertificate"], &["pallet_subtensor", "pallet", "NeuronCertificate"]),
    (&["pallet_subtensor", "PrometheusInfo"], &["pallet_subtensor", "pallet", "PrometheusInfo"]),
    (&["pallet_subtensor", "RecycleOrBurnEnum"], &["pallet_subtensor", "pallet", "RecycleOrBurnEnum"]),
    (&["pallet_subtensor", "SubnetIdentityV3"], &["pallet_subtensor", "pallet", "SubnetIdentityV3"]),
    (&["pallet_subtensor", "SafeFloat"], &["share_pool", "SafeFloat"]),
    (&["pallet_subtensor", "runtime_api", "SimSwapResult"], &["pallet_subtensor_swap_runtime_api", "SimSwapResult"]),
    (&["pallet_subtensor", "runtime_api", "SubnetPrice"], &["pallet_subtensor_swap_runtime_api", "SubnetPrice"]),
    (
        &["pallet_subtensor", "rpc_info", "subnet_info", "DynamicInfo"],
        &["pallet_subtensor", "rpc_info", "dynamic_info", "DynamicInfo"],
    ),
    (
        &["pallet_subtensor", "rpc_info", "neuron_info", "SubnetState"],
        &["pallet_subtensor", "rpc_info", "show_subnet", "SubnetState"],
    ),
    (&["pallet_subtensor", "ConsensusMode"], &["pallet_subtensor", "pallet", "ConsensusMode"]),
    (&["pallet_subtensor", "MinerCollateralState"], &["pallet_subtensor", "pallet", "MinerCollateralState"]),
    (&["pallet_subtensor", "LockState"], &["pallet_subtensor", "staking", "lock", "LockState"]),
    (&["pallet_subtensor", "SubnetLease"], &["pallet_subtensor", "subnets", "leasing", "SubnetLease"]),
    (
        &["pallet_subtensor", "limits", "Hyperparameter"],
        &["pallet_subtensor", "utils", "rate_limiting", "Hyperparameter"],
    ),
    (&["pallet_proxy"], &["pallet_subtensor_proxy"]),
    (&["pallet_utility"], &["pallet_subtensor_utility"]),
];

/// Name of this crate in paths.
const THIS_CRATE: &str = "e2e_devchain";

/// Renames the paths in encoded metadata and shifts the indices that an upgrade in the state at hand has shifted; so it
/// needs externalities. Bytes that are no metadata stay as they are.
pub fn with_public_paths(bytes: Vec<u8>) -> Vec<u8> {
    let Ok(mut prefixed) = RuntimeMetadataPrefixed::decode(&mut bytes.as_slice()) else { return bytes };
    match &mut prefixed.1 {
        RuntimeMetadata::V14(metadata) => publish(&mut metadata.types),
        RuntimeMetadata::V15(metadata) => {
            order::renumber(metadata);
            publish(&mut metadata.types);
        }
        RuntimeMetadata::V16(metadata) => {
            order::renumber(metadata);
            publish(&mut metadata.types);
        }
        _ => return bytes,
    }
    prefixed.encode()
}

fn publish(types: &mut PortableRegistry) {
    for ty in &mut types.types {
        let segments = &mut ty.ty.path.segments;
        if segments.first().is_some_and(|first| first == THIS_CRATE)
            && let Some(public) = replace_start(&segments[1..], &RENAMED)
        {
            *segments = public;
        }
        if let Some(public) = replace_start(segments, &MOVED) {
            *segments = public;
        }
    }
    crate::upgrade::shift_types(types);
}

/// A path with its beginning replaced by the first rule that fits.
fn replace_start(path: &[String], rules: &[(&[&str], &[&str])]) -> Option<Vec<String>> {
    let begins = |start: &[&str]| start.len() <= path.len() && start.iter().zip(path).all(|(a, b)| a == b);
    let (from, to) = rules.iter().find(|(from, _)| begins(from))?;
    Some(to.iter().map(ToString::to_string).chain(path[from.len()..].iter().cloned()).collect())
}

#[cfg(test)]
mod tests {
    use sp_state_machine::BasicExternalities;

    use super::*;
    use crate::runtime::Runtime;

    #[test]
    fn no_path_of_this_crate_is_left_and_those_that_clients_look_for_are_there() {
        for version in Runtime::metadata_versions() {
            let mut externalities = BasicExternalities::default();
            let opaque = externalities.execute_with(|| Runtime::metadata_at_version(version)).unwrap();
            let renamed = externalities.execute_with(|| with_public_paths(opaque.to_vec()));
            let prefixed = RuntimeMetadataPrefixed::decode(&mut renamed.as_slice()).unwrap();
            let types = match prefixed.1 {
                RuntimeMetadata::V14(metadata) => metadata.types,
                RuntimeMetadata::V15(metadata) => metadata.types,
                RuntimeMetadata::V16(metadata) => metadata.types,
                other => panic!("metadata {}", other.version()),
            };
            let paths: Vec<String> = types.types.iter().map(|ty| ty.ty.path.segments.join("::")).collect();
            let left: Vec<&String> = paths.iter().filter(|path| path.contains(THIS_CRATE)).collect();
            assert!(left.is_empty(), "{left:?}");
            for wanted in [
                "node_subtensor_runtime::RuntimeEvent",
                "node_subtensor_runtime::RuntimeCall",
                "pallet_subtensor::pallet::Event",
                "pallet_subtensor::rpc_info::neuron_info::NeuronInfoLite",
                "pallet_subtensor::rpc_info::dynamic_info::DynamicInfo",
                "pallet_subtensor::pallet::AxonInfo",
                "pallet_subtensor_proxy::ProxyDefinition",
                "pallet_subtensor_utility::pallet::Call",
            ] {
                let there = paths.iter().any(|path| path == wanted);
                assert!(there || (version == 14 && wanted.contains("rpc_info")), "{wanted} in {version}");
            }
        }
    }
}
