//! The volume that holds a validator's log and state.

use std::collections::BTreeMap;

use crds::v1alpha1::{StorageRetention, StorageSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::owned_meta;
use crate::node::NodeObject;

/// The claim belongs to the node only where it is to go with it: a volume that is to stay has no owner.
pub(crate) fn claim(node: &NodeObject, storage: &StorageSpec) -> PersistentVolumeClaim {
    let meta = owned_meta(node, node.key.claim_name());
    let metadata = match storage.retention {
        StorageRetention::Delete => meta,
        StorageRetention::Retain => ObjectMeta { owner_references: None, ..meta },
    };
    PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".into(), storage.size.clone())])),
                ..VolumeResourceRequirements::default()
            }),
            storage_class_name: storage.storage_class_name.clone(),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}
