//! The volume of what a node must not forget: the journal of what its hotkey sent to the chain, what its signer has seen, and
//! the log and state of a validator.
//!
//! A volume for miners, too, and no emptyDir: that one ends with the pod, a pod ends with every change of its spec, and who has
//! lost the journal may send to the chain a second time what was sent.

use std::collections::BTreeMap;

use crds::v1alpha1::StorageRetention;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::owned_meta;
use crate::node::NodeObject;

/// The claim belongs to the node only where it is to go with it: a volume that is to stay has no owner.
pub(crate) fn claim(node: &NodeObject) -> PersistentVolumeClaim {
    let storage = &node.spec.storage;
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
