//! Mycelium's Kubernetes resources.
//!
//! The types here are the source of the CRDs in `crds/yaml` (`make generate`); doc comments of fields
//! are what `kubectl explain` prints, so they speak to the person who writes the resource.

#![expect(unreachable_pub, reason = "the schema derive of kube emits private twins of our public structs")]
#![expect(clippy::duplicated_attributes, reason = "printer columns repeat their type")]

pub mod v1alpha1;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::Value;

/// The CRDs as YAML files, by file name: what `crdgen` writes and what is committed.
pub fn files() -> anyhow::Result<Vec<(String, String)>> {
    v1alpha1::crds().into_iter().map(|crd| Ok((format!("{}.yaml", crd.name_any()), yaml(crd)?))).collect()
}

fn yaml(mut crd: CustomResourceDefinition) -> anyhow::Result<String> {
    // A chart that is removed must not take every Validator of the cluster with it.
    crd.annotations_mut().insert("helm.sh/resource-policy".into(), "keep".into());
    // Whether JSON objects keep an order of their own depends on what else is compiled, as does the form of numbers.
    let mut crd = serde_json::to_value(crd)?;
    crd.sort_all_objects();
    let text = serde_saphyr::to_string(&Plain(&crd))?;
    Ok(format!("# Generated from crds/src by `make generate`. Do not edit.\n{text}"))
}

/// A JSON value whose numbers are written as numbers, whichever features `serde_json` is compiled with.
struct Plain<'a>(&'a Value);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => serializer.serialize_i64(integer),
                (None, Some(float)) => serializer.serialize_f64(float),
                (None, None) => Err(S::Error::custom(format!("{number} is no number of YAML"))),
            },
            Value::Array(items) => serializer.collect_seq(items.iter().map(Plain)),
            Value::Object(fields) => serializer.collect_map(fields.iter().map(|(name, value)| (name, Plain(value)))),
            plain => plain.serialize(serializer),
        }
    }
}
