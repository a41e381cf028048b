use k8s_openapi::api::core::v1::PodStatus;
use kube::ResourceExt as _;
use serde_json::json;

use super::*;
use crate::fixtures::{GENESIS, hotkey, observed, validator};
use crate::node::Node as _;

const IMAGE: &str = "example/sidecar:1";

/// What a validator has besides its pod.
const LASTING: [&str; 6] = ["service account", "role", "role binding", "lease", "service", "claim"];

fn kinds(steps: &[Step]) -> Vec<&'static str> {
    let kind = |step: &Step| match step {
        Step::Reserve(_) => "reserve",
        Step::ServiceAccount(_) => "service account",
        Step::Role(_) => "role",
        Step::RoleBinding(_) => "role binding",
        Step::Lease(_) => "lease",
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
fn a_new_validator_gets_an_identity_a_lease_a_service_a_volume_and_a_pod() {
    let steps = steps(&validator(|_| {}), &observed());
    assert_eq!(kinds(&steps), [&LASTING[..], &["create pod"]].concat());
}

#[test]
fn the_one_right_of_a_pod_is_the_lease_of_its_hotkey() {
    let check = |node: NodeObject, account: &str| {
        let steps = steps(&node, &observed());
        let (mut role, mut binding, mut lease, mut pod) = (None, None, None, None);
        for step in steps {
            match step {
                Step::Role(made) => role = Some(made),
                Step::RoleBinding(made) => binding = Some(made),
                Step::Lease(made) => lease = Some(made),
                Step::CreatePod(made) => pod = Some(made),
                _ => {}
            }
        }
        let (role, binding, lease, pod) = (role.unwrap(), binding.unwrap(), lease.unwrap(), pod.unwrap());
        let name = lease.name_any();
        assert_eq!(lease.labels()[labels::HOTKEY], hotkey(1).to_string());
        assert_eq!(lease.spec, None, "its content is the sidecar's");
        assert_eq!(
            serde_json::to_value(role.rules).unwrap(),
            json!([{
                "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [name],
                "verbs": ["get", "update"],
            }])
        );
        assert_eq!((&*binding.role_ref.kind, &binding.role_ref.name), ("Role", role.metadata.name.as_ref().unwrap()));
        let subjects = serde_json::to_value(binding.subjects).unwrap();
        assert_eq!(subjects, json!([{ "kind": "ServiceAccount", "name": account, "namespace": "default" }]));
        let spec = pod.spec.unwrap();
        assert_eq!(spec.service_account_name.as_deref(), Some(account));
        let args = spec.init_containers.unwrap().remove(0).args.unwrap();
        assert!(args.contains(&format!("--lease=default/{name}")), "{args:?}");
    };
    check(validator(|_| {}), "validator-v1");
    check(validator(|value| value["spec"]["template"]["spec"]["serviceAccountName"] = json!("mine")), "mine");
    check(miner(), "miner-m1");
}

#[test]
fn each_hotkey_of_each_chain_has_a_lease_of_its_own() {
    let of = |genesis: &str, number: u8| lease::name(genesis, &hotkey(number));
    assert_eq!(of(GENESIS, 1), of(GENESIS, 1));
    assert_ne!(of(GENESIS, 1), of(GENESIS, 2));
    assert_ne!(of(GENESIS, 1), of("0x02", 1));
}

#[test]
fn a_pod_as_asked_for_is_left_alone() {
    let node = validator(|_| {});
    let observed = Observed { pod: Some(running(&node, &observed())), ..observed() };
    assert_eq!(kinds(&steps(&node, &observed)), LASTING);
}

#[test]
fn the_sidecar_comes_first_and_alone_has_key_state_and_token() {
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
    let all = ["mycelium-config", "mycelium-hotkey", "mycelium-socket", "mycelium-state", "mycelium-api"];
    assert_eq!(mounts(&init[0]), all);
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
    assert_eq!(kinds(&steps(&validator(|_| {}), &observed)), LASTING);
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

/// Something done to a template.
type Change = fn(&mut Value);

#[test]
fn no_container_of_the_user_gets_at_the_hotkey() {
    let uses: [Change; 4] = [
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
    let ways: [(Change, &str); 4] = [
        (
            |spec| spec["containers"][0]["volumeMounts"] = json!([{ "name": "mycelium-hotkey", "mountPath": "/k" }]),
            "the volume `mycelium-hotkey` is for the sidecar alone",
        ),
        (
            |spec| {
                let mounts = json!([{ "name": "mycelium-state", "mountPath": "/s" }]);
                spec["initContainers"] = json!([{ "name": "i", "image": "i", "volumeMounts": mounts }]);
            },
            "the volume `mycelium-state` is for the sidecar alone",
        ),
        (|spec| spec["shareProcessNamespace"] = json!(true), "template.spec.shareProcessNamespace: must be false"),
        (|spec| spec["hostPID"] = json!(true), "template.spec.hostPID: must be false"),
    ];
    for (change, part) in ways {
        let (reason, message) =
            invalid(&validator(|value| change(&mut value["spec"]["template"]["spec"])), &observed());
        assert_eq!(reason, reason::INVALID_FIELD);
        assert!(message.contains(part), "{message}");
    }
    let harmless = validator(|value| value["spec"]["template"]["spec"]["shareProcessNamespace"] = json!(false));
    assert_eq!(hold(&harmless, &observed()), None);
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
fn a_miner_has_a_volume_for_what_it_signed_as_a_validator_has() {
    let all = steps(&miner(), &observed());
    let kinds = kinds(&all);
    assert_eq!(
        kinds,
        ["service account", "role", "role binding", "lease", "service", "service", "claim", "create pod"]
    );
    let (Some(Step::Claim(claim)), Some(Step::CreatePod(pod))) = (all.get(6), all.get(7)) else { panic!("{all:?}") };
    assert_eq!(claim.metadata.name.as_deref(), Some("state-miner-m1"));
    assert_eq!(claim.metadata.owner_references, None, "it stays, as a validator's does");
    let spec = pod.spec.as_ref().unwrap();
    let state = spec.volumes.iter().flatten().find(|volume| volume.name == "mycelium-state").unwrap();
    assert_eq!(state.persistent_volume_claim.as_ref().unwrap().claim_name, "state-miner-m1");
    let sidecar = &spec.init_containers.as_ref().unwrap()[0];
    assert!(sidecar.args.as_ref().unwrap().contains(&"--data-dir=/var/lib/mycelium".to_owned()));
    let mount = sidecar.volume_mounts.iter().flatten().find(|mount| mount.name == "mycelium-state").unwrap();
    assert_eq!((mount.mount_path.as_str(), mount.read_only), ("/var/lib/mycelium", None));
}

fn miner() -> NodeObject {
    let miner: crds::v1alpha1::Miner = serde_json::from_value(json!({
        "apiVersion": "mycelium.network/v1alpha1", "kind": "Miner",
        "metadata": { "name": "m1", "namespace": "default", "uid": "miner-uid" },
        "spec": {
            "hotkeySecretRef": { "name": "m1-hotkey" },
            "template": { "spec": { "containers": [{ "name": "main", "image": "example/miner:1" }] } },
        },
    }))
    .unwrap();
    miner.to_object()
}
