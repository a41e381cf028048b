use k8s_openapi::api::core::v1::PodStatus;
use kube::ResourceExt as _;
use serde_json::json;

use super::*;
use crate::fixtures::{GENESIS, hotkey, observed, validator};
use crate::node::Node as _;

const IMAGE: &str = "example/sidecar:1";

fn kinds(steps: &[Step]) -> Vec<&'static str> {
    let kind = |step: &Step| match step {
        Step::Reserve(_) => "reserve",
        Step::ServiceAccount(_) => "service account",
        Step::Service(_) => "service",
        Step::Claim(_) => "claim",
        Step::CreatePod(_) => "create pod",
        Step::PatchPod(_) => "patch pod",
        Step::DeletePod(_) => "delete pod",
        Step::DeleteAxonService => "delete axon service",
    };
    steps.iter().map(kind).collect()
}

fn steps(node: &NodeObject, observed: &Observed) -> Vec<Step> {
    plan(node, observed, IMAGE).unwrap()
}

/// The pod that the operator would make, as if the API server had it.
fn running(node: &NodeObject, observed: &Observed) -> Pod {
    let made = steps(node, observed).into_iter().find_map(|step| match step {
        Step::CreatePod(pod) => Some(*pod),
        _ => None,
    });
    let mut pod = made.expect("there is no pod, so one is made");
    pod.status = Some(PodStatus { phase: Some("Running".into()), ..PodStatus::default() });
    pod
}

fn invalid(node: &NodeObject, observed: &Observed) -> (&'static str, String) {
    match hold(node, observed) {
        Some(Hold::Invalid { reason, message }) => (reason, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_free_hotkey_is_reserved_before_anything_is_made() {
    let observed = Observed { reservation: Reservation::Free, ..observed() };
    let steps = steps(&validator(|_| {}), &observed);
    let [Step::Reserve(reservation)] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(reservation.spec.holder.uid, "validator-uid");
    assert_eq!((reservation.spec.genesis_hash.as_str(), &reservation.spec.hotkey), (GENESIS, &hotkey(1).to_string()));
}

#[test]
fn a_new_validator_gets_an_identity_a_service_a_volume_and_a_pod() {
    let steps = steps(&validator(|_| {}), &observed());
    assert_eq!(kinds(&steps), ["service account", "service", "claim", "create pod"]);
}

#[test]
fn a_pod_as_asked_for_is_left_alone() {
    let node = validator(|_| {});
    let observed = Observed { pod: Some(running(&node, &observed())), ..observed() };
    assert_eq!(kinds(&steps(&node, &observed)), ["service account", "service", "claim"]);
}

#[test]
fn the_sidecar_comes_first_and_alone_has_key_and_state() {
    let node = validator(|value| {
        value["spec"]["template"]["spec"]["initContainers"] = json!([{ "name": "setup", "image": "example/setup:1" }]);
    });
    let pod = running(&node, &observed());
    let spec = pod.spec.unwrap();
    let init = spec.init_containers.unwrap();
    assert_eq!(init.iter().map(|container| container.name.as_str()).collect::<Vec<_>>(), ["sidecar", "setup"]);
    assert_eq!(init[0].restart_policy.as_deref(), Some("Always"));
    let mounts = |container: &Container| -> Vec<String> {
        container.volume_mounts.iter().flatten().map(|mount| mount.name.clone()).collect()
    };
    assert_eq!(mounts(&init[0]), ["mycelium-config", "mycelium-hotkey", "mycelium-socket", "mycelium-state"]);
    assert_eq!(mounts(&init[1]), ["mycelium-socket"]);
    assert_eq!(mounts(&spec.containers[0]), ["mycelium-socket"]);
    assert_eq!(spec.automount_service_account_token, Some(false));
}

#[test]
fn a_changed_spec_deletes_the_pod_and_makes_the_new_one_only_when_it_is_gone() {
    let before = validator(|_| {});
    let node =
        validator(|value| value["spec"]["template"]["spec"]["containers"][0]["image"] = json!("example/validator:2"));
    let mut pod = running(&before, &observed());
    let with = |pod: &Pod| Observed { pod: Some(pod.clone()), ..observed() };
    assert_eq!(kinds(&steps(&node, &with(&pod))).last(), Some(&"delete pod"));
    pod.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
    assert_eq!(kinds(&steps(&node, &with(&pod))).last(), Some(&"claim"), "waits for the old pod to be gone");
}

#[test]
fn a_changed_sidecar_image_patches_the_sidecar_in_place() {
    let node = validator(|_| {});
    let observed = Observed { pod: Some(running(&node, &observed())), ..observed() };
    let steps = plan(&node, &observed, "example/sidecar:2").unwrap();
    let Some(Step::PatchPod(patch)) = steps.last() else { panic!("{steps:?}") };
    assert_eq!(*patch, json!({ "spec": { "initContainers": [{ "name": "sidecar", "image": "example/sidecar:2" }] } }));
}

#[test]
fn what_somebody_changed_in_a_pod_is_put_back() {
    let node = validator(|_| {});
    let mut pod = running(&node, &observed());
    pod.labels_mut().remove(labels::NODE);
    pod.spec.as_mut().unwrap().containers[0].image = Some("example/other:1".into());
    let steps = steps(&node, &Observed { pod: Some(pod), ..observed() });
    let Some(Step::PatchPod(patch)) = steps.last() else { panic!("{steps:?}") };
    assert_eq!(patch["metadata"]["labels"], json!({ labels::NODE: "v1" }));
    assert_eq!(patch["spec"]["containers"], json!([{ "name": "main", "image": "example/validator:1" }]));
}

#[test]
fn a_new_network_file_only_touches_the_pod_and_an_unknown_one_does_not() {
    let node = validator(|_| {});
    let pod = running(&node, &observed());
    let with = |version: Option<&str>| Observed {
        pod: Some(pod.clone()),
        config_version: version.map(Into::into),
        ..observed()
    };
    let Some(Step::PatchPod(patch)) = steps(&node, &with(Some("c2"))).pop() else { panic!("no patch") };
    assert_eq!(patch, json!({ "metadata": { "annotations": { labels::CONFIG_VERSION: "c2" } } }));
    assert_eq!(kinds(&steps(&node, &with(None))).last(), Some(&"claim"));
}

#[test]
fn a_pod_waits_for_the_file_that_it_mounts() {
    let observed = Observed { config_version: None, ..observed() };
    assert_eq!(kinds(&steps(&validator(|_| {}), &observed)), ["service account", "service", "claim"]);
}

#[test]
fn an_evicted_pod_is_replaced() {
    let node = validator(|_| {});
    let mut pod = running(&node, &observed());
    pod.status = Some(PodStatus { phase: Some("Failed".into()), ..PodStatus::default() });
    assert_eq!(kinds(&steps(&node, &Observed { pod: Some(pod), ..observed() })).last(), Some(&"delete pod"));
}

#[test]
fn a_suspended_node_loses_its_pod_and_nothing_else() {
    let node = validator(|value| value["spec"]["suspend"] = json!(true));
    let pod = running(&validator(|_| {}), &observed());
    assert_eq!(kinds(&steps(&node, &Observed { pod: Some(pod), ..observed() })), ["delete pod"]);
    assert!(steps(&node, &observed()).is_empty());
}

#[test]
fn whatever_is_wrong_with_a_spec_the_running_pod_stays() {
    let node = validator(|_| {});
    let pod = Some(running(&node, &observed()));
    let check = |wrong: Observed| {
        let observed = Observed { pod: pod.clone(), ..wrong };
        assert!(steps(&node, &observed).is_empty(), "{:?}", hold(&node, &observed));
    };
    check(Observed { network: None, ..observed() });
    check(Observed { hotkey: Some(Err(SecretProblem::Missing)), ..observed() });
    check(Observed { reservation: Reservation::Unknown, ..observed() });
}

#[test]
fn an_exposed_axon_gets_a_service_and_loses_it_again() {
    let node =
        validator(|value| value["spec"]["axon"] = json!({ "exposure": "NodePort", "port": 8091, "nodePort": 30500 }));
    let all = steps(&node, &observed());
    let Some(Step::Service(axon)) = all.iter().filter(|step| matches!(step, Step::Service(_))).nth(1) else {
        panic!("{all:?}")
    };
    assert_eq!(axon.name_any(), "validator-v1-axon");
    assert_eq!(axon.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].node_port, Some(30500));
    let hidden = steps(&validator(|_| {}), &Observed { axon_service: Some((**axon).clone()), ..observed() });
    assert!(kinds(&hidden).contains(&"delete axon service"));
}

#[test]
fn a_host_port_goes_to_the_container_that_listens_there() {
    let node = validator(|value| {
        value["spec"]["axon"] = json!({ "exposure": "HostPort", "port": 8091 });
        value["spec"]["template"]["spec"]["containers"] = json!([
            { "name": "helper", "image": "a" },
            { "name": "main", "image": "b", "ports": [{ "containerPort": 8091 }] },
        ]);
    });
    let spec = running(&node, &observed()).spec.unwrap();
    assert_eq!(spec.containers[0].ports, None);
    assert_eq!(spec.containers[1].ports.as_ref().unwrap()[0].host_port, Some(8091));
}

#[test]
fn refusals_name_the_field_and_the_remedy() {
    let check = |change: fn(&mut Value), parts: &[&str]| {
        let (_, message) = invalid(&validator(change), &observed());
        for part in parts {
            assert!(message.contains(part), "{message} lacks {part}");
        }
    };
    check(
        |v| v["spec"]["coldkey"] = json!("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQZ"),
        &["coldkey: `5Grwva", "checksum"],
    );
    check(|v| v["spec"]["axon"] = json!({ "exposure": "Static", "address": "0.0.0.0" }), &["axon.address: `0.0.0.0`"]);
    check(
        |v| v["spec"]["axon"] = json!({ "exposure": "Static", "address": "here" }),
        &["axon.address: `here` is not an IP"],
    );
    check(
        |v| v["spec"]["template"]["spec"]["containers"][0]["name"] = json!("sidecar"),
        &["`sidecar` is Mycelium's", "another"],
    );
    check(|v| v["spec"]["template"]["spec"]["volumes"] = json!([{ "name": "mycelium-x" }]), &["rename `mycelium-x`"]);
    check(|v| v["spec"]["template"]["spec"]["containers"] = json!([]), &["containers: is empty"]);
}

#[test]
fn no_container_of_the_user_gets_at_the_hotkey() {
    let uses: [fn(&mut Value); 4] = [
        |spec| spec["volumes"] = json!([{ "name": "x", "secret": { "secretName": "v1-hotkey" } }]),
        |spec| {
            let sources = json!([{ "secret": { "name": "v1-hotkey" } }]);
            spec["volumes"] = json!([{ "name": "x", "projected": { "sources": sources } }]);
        },
        |spec| spec["containers"][0]["envFrom"] = json!([{ "secretRef": { "name": "v1-hotkey" } }]),
        |spec| {
            let from = json!({ "secretKeyRef": { "name": "v1-hotkey", "key": "hotkey" } });
            spec["initContainers"] =
                json!([{ "name": "i", "image": "i", "env": [{ "name": "K", "valueFrom": from }] }]);
        },
    ];
    for change in uses {
        let node = validator(|value| change(&mut value["spec"]["template"]["spec"]));
        let (reason, message) = invalid(&node, &observed());
        assert_eq!(reason, reason::INVALID_FIELD);
        assert!(message.contains("`v1-hotkey` holds the hotkey and is for the sidecar alone"), "{message}");
    }
}

#[test]
fn secrets_that_give_no_hotkey_say_what_to_do() {
    let check = |problem: SecretProblem, reason: &str, part: &str| {
        let observed = Observed { hotkey: Some(Err(problem)), ..observed() };
        let (found, message) = invalid(&validator(|_| {}), &observed);
        assert!(found == reason && message.contains(part), "{found}: {message}");
    };
    check(
        SecretProblem::Missing,
        "SecretMissing",
        "kubectl -n default create secret generic v1-hotkey --from-file=hotkey=",
    );
    check(SecretProblem::KeyMissing(vec!["key".into()]), "SecretMissing", "has no key `hotkey` (it has key)");
    check(SecretProblem::Malformed("is not JSON".into()), "SecretMalformed", "is not JSON");
}

#[test]
fn a_secret_that_changes_its_hotkey_changes_nothing() {
    let mut node = validator(|_| {});
    node.status.hotkey = Some(hotkey(7).to_string());
    let (_, message) = invalid(&node, &observed());
    assert!(message.contains(&hotkey(7).to_string()) && message.contains("put the old hotkey back"), "{message}");
}

#[test]
fn the_second_of_two_with_one_hotkey_gets_nothing() {
    let holder =
        ReservationHolder { kind: "Validator".into(), namespace: "a".into(), name: "b".into(), uid: "c".into() };
    let observed = Observed { reservation: Reservation::Taken(holder.clone()), ..observed() };
    let node = validator(|_| {});
    assert_eq!(hold(&node, &observed), Some(Hold::Taken(holder)));
    assert!(steps(&node, &observed).is_empty());
}

#[test]
fn miners_have_no_volume() {
    let miner: crds::v1alpha1::Miner = serde_json::from_value(json!({
        "apiVersion": "mycelium.network/v1alpha1", "kind": "Miner",
        "metadata": { "name": "m1", "namespace": "default", "uid": "miner-uid" },
        "spec": {
            "hotkeySecretRef": { "name": "m1-hotkey" },
            "template": { "spec": { "containers": [{ "name": "main", "image": "example/miner:1" }] } },
        },
    }))
    .unwrap();
    let steps = steps(&miner.to_object(), &observed());
    assert_eq!(kinds(&steps), ["service account", "service", "service", "create pod"]);
}
