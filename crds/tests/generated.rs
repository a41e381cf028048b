//! What is committed is what the types say.

use std::fs;
use std::path::Path;

use crds::v1alpha1::{Miner, Network, Validator};
use serde::de::DeserializeOwned;

fn workspace(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

#[test]
fn committed_crds_are_current() {
    for (name, text) in crds::files().unwrap() {
        for folder in ["crds/yaml", "charts/mycelium-crds/templates"] {
            let committed = fs::read_to_string(workspace(folder).join(&name)).unwrap_or_default();
            assert!(committed == text, "{folder}/{name} is not what crds/src says: run `make generate`");
        }
    }
}

#[test]
fn crds_pass_through_a_chart_as_they_are() {
    for (name, text) in crds::files().unwrap() {
        assert!(!text.contains("{{"), "{name} would be taken for a template");
    }
}

#[test]
fn examples_are_of_these_types() {
    fn check<T: DeserializeOwned>(name: &str) {
        let text = fs::read_to_string(workspace("crds/examples").join(name)).unwrap();
        serde_saphyr::from_str::<T>(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    check::<Network>("network.yaml");
    check::<Validator>("validator.yaml");
    check::<Miner>("miner.yaml");
}

#[test]
fn no_crd_comes_near_the_size_that_an_object_may_have() {
    // etcd refuses requests above 1.5 MiB, and a Helm release Secret holds 1 MiB of compressed chart.
    let total: usize = crds::v1alpha1::crds().iter().map(|crd| serde_json::to_vec(crd).unwrap().len()).sum();
    assert!(total < 400 * 1024, "{total} bytes");
}
