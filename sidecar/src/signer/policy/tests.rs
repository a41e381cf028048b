use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const GENESIS: BlockHash = BlockHash([0xa5; 32]);

/// A policy with a domain of each form.
fn policy() -> Policy {
    let raw = Domain { name: "scores".into(), form: Form::Raw, prefix: Some("scores:".into()) };
    let mut policy = Policy::default();
    policy.domains.push(raw);
    policy.check().unwrap();
    policy
}

#[expect(clippy::unwrap_in_result, reason = "a test without a folder has failed")]
fn read(text: &str) -> Result<Policy, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.json");
    std::fs::write(&path, text).unwrap();
    let error = |error| format!("{:#}", anyhow::Error::from(error)).replace(&path.display().to_string(), "FILE");
    Policy::read(&path).map_err(error)
}

#[test]
fn what_is_left_out_of_a_file_is_the_default() {
    assert_eq!(read("{}").unwrap(), Policy::default());
    let policy = read(r#"{"calls": ["serve_axon"], "rates": {"weights": {"burst": 1, "every_s": 10}}}"#).unwrap();
    assert_eq!(policy.calls, BTreeSet::from([CallKind::ServeAxon]));
    assert_eq!((policy.rates.weights.burst, policy.rates.axon), (1, Rates::default().axon));
    let written = serde_json::to_string(&Policy::default()).unwrap();
    assert_eq!(read(&written).unwrap(), Policy::default());
}

#[test]
fn a_file_that_cannot_be_used_is_refused_with_field_value_rule_and_remedy() {
    let refused = |text: &str, part: &str| {
        let error = read(text).unwrap_err();
        assert!(error.starts_with("signer policy `FILE`") && error.contains(part), "{error}");
    };
    refused("{", "cannot be understood");
    refused(r#"{"call": []}"#, "unknown field `call`");
    refused(r#"{"calls": ["transfer"]}"#, "unknown variant `transfer`");
    refused(r#"{"calls": ["add_stake"]}"#, "unknown variant");
    refused(r#"{"domains": [{"name": "A b", "form": "bytes"}]}"#, "domains[0].name: `A b` is not 1 to 32");
    refused(r#"{"domains": [{"name": "a", "form": "raw"}]}"#, "domains[0].prefix: `` is needed");
    refused(r#"{"domains": [{"name": "a", "form": "raw", "prefix": "ab"}]}"#, "at least 4 bytes");
    refused(r#"{"domains": [{"name": "a", "form": "raw", "prefix": "myce"}]}"#, "reserved");
    refused(r#"{"domains": [{"name": "a", "form": "raw", "prefix": "mycelium-v1"}]}"#, "reserved");
    refused(r#"{"domains": [{"name": "a", "form": "raw", "prefix": "<Bytes>"}]}"#, "reserved");
    refused(r#"{"domains": [{"name": "a", "form": "bytes", "prefix": "abcd"}]}"#, "for the form `raw` only");
    refused(
        r#"{"domains": [{"name": "a", "form": "bytes"}, {"name": "a", "form": "bytes"}]}"#,
        "domains[1].name: `a` is in the list twice",
    );
    refused(r#"{"message_bytes_max": 0}"#, "message_bytes_max: `0`");
    refused(r#"{"message_bytes_max": 1000000}"#, "is not a length from 1 to 131072");
    refused(r#"{"rates": {"axon": {"burst": 0, "every_s": 1}}}"#, "rates.axon.burst: `0` permits nothing");
    refused(r#"{"rates": {"axon": {"burst": 1, "every_s": 0}}}"#, "rates.axon.every_s: `0`");
    refused(r#"{"weights": {"max_share": 1.5}}"#, "weights.max_share: `1.5`");
    refused(r#"{"weights": {"min_count": 9, "max_count": 8}}"#, "weights.min_count: `9` is more than");
    let error = Policy::read(Path::new("/nowhere/policy.json")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/policy.json") && error.contains("--signer-policy"), "{error}");
}

#[test]
fn each_form_signs_what_it_says() {
    let policy = policy();
    let signed = |domain, message: &str| policy.message(domain, message.as_bytes(), Some(&GENESIS));
    assert_eq!(signed("bytes", "hi").unwrap(), b"<Bytes>hi</Bytes>");
    assert_eq!(signed("app", "hi").unwrap(), b"mycelium:message:v1:app:hi");
    assert_eq!(signed("scores", "scores: 1, 2").unwrap(), b"scores: 1, 2");
    let refused = |domain, message: &str, part: &str| {
        let error = signed(domain, message).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused("other", "hi", "domain: `other` is no domain of the signer's policy (bytes, app, scores)");
    refused("scores", "hi", "message: `hi` does not begin with `scores:`");
    refused("scores", "scores:\u{0}", "control characters");
    refused("scores", &format!("scores:{}", "x".repeat(25)), "as long as a hash");
    refused("bytes", &"x".repeat(17), "as long as a hash");
    refused("bytes", &"x".repeat(70_000), "message: `70000` bytes are too long");
}

#[test]
fn only_known_calls_of_the_own_subnet_are_allowed() {
    let check = |policy: &Policy, name, netuid| policy.call(name, NetUid(netuid), NetUid(1));
    let default = Policy::default();
    for name in ["set_weights", "commit_timelocked_mechanism_weights", "reveal_weights", "serve_axon", "set_commitment"]
    {
        check(&default, name, 1).unwrap();
        let error = check(&default, name, 2).unwrap_err().to_string();
        assert!(error.starts_with("netuid: `2` is not the Network's subnet (1)"), "{error}");
    }
    for name in ["transfer_keep_alive", "add_stake", "remove_stake", "burned_register", "sudo", "proxy", "batch", ""] {
        let error = check(&default, name, 1).unwrap_err().to_string();
        assert!(error.contains("no policy of a sidecar allows that"), "{error}");
    }
    let closed = Policy { calls: BTreeSet::new(), ..Policy::default() };
    assert!(check(&closed, "serve_axon", 1).unwrap_err().to_string().contains("add it to `calls`"));
}

#[test]
fn weights_are_checked_before_anything_is_signed() {
    let limits = WeightLimits { min_count: 2, max_count: 3, max_share: 0.6, version_key: Some(7) };
    let policy = Policy { weights: limits, ..Policy::default() };
    let check = |uids: &[u16], weights: &[f64], key| policy.weights(uids, weights, key, Some(10));
    check(&[0, 1], &[0.5, 0.5], Some(7)).unwrap();
    check(&[0, 1, 2], &[3.0, 3.0, 0.0], None).unwrap();
    let refused = |uids: &[u16], weights: &[f64], key, part: &str| {
        let error = check(uids, weights, key).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(&[0, 1], &[1.0], None, "weights: `1` weights for 2 uids");
    refused(&[1, 1], &[1.0, 1.0], None, "uids[1]: `1` is in the list twice");
    refused(&[0, 10], &[1.0, 1.0], None, "uids[1]: `10` is no uid of the subnet, which has 10");
    refused(&[0, 1], &[1.0, -1.0], None, "weights[1]: `-1`");
    refused(&[0, 1], &[1.0, f64::NAN], None, "weights[1]: `NaN`");
    refused(&[0, 1], &[1.0, f64::INFINITY], None, "weights[1]: `inf`");
    refused(&[0, 1], &[f64::MAX, f64::MAX], None, "weights:");
    refused(&[0], &[1.0], None, "give 2 to 3");
    refused(&[], &[], None, "weights: `0`");
    refused(&[0, 1, 2, 3], &[1.0; 4], None, "weights: `4`");
    refused(&[0, 1], &[3.0, 1.0], None, "weights: `0.75` is a larger share");
    refused(&[0, 1], &[1.0, 1.0], Some(8), "version_key: `8` is not the version key of the signer's policy (7)");
}

/// An extrinsic's signing payload as the chain builds it: call, era, nonce, tip, mode, versions, genesis, birth, metadata.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let numbers = (any::<u16>(), any::<u8>(), 0_u32..0x00ff_ffff, any::<[u8; 32]>());
    (vec(any::<u8>(), 2..200), numbers, any::<bool>()).prop_map(|(call, (era, nonce, spec, birth), immortal)| {
        let mut bytes = call;
        if immortal {
            bytes.push(0);
        } else {
            bytes.extend(era.to_le_bytes());
        }
        bytes.extend([nonce & 0xfc, 0, 0]);
        bytes.extend(spec.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(GENESIS.0);
        bytes.extend(birth);
        bytes.push(0);
        bytes
    })
}

proptest! {
    #[test]
    fn no_extrinsic_is_ever_signed_as_a_message(payload in payload(), domain in 0_usize..3, cut in any::<prop::sample::Index>()) {
        let policy = policy();
        let name = policy.domains[domain].name.clone();
        // As it is, and as a caller would split it around what the form adds.
        let prefix = [&b"<Bytes>"[..], b"mycelium:message:v1:app:", b"scores:"][domain];
        let from = cut.index(payload.len());
        for message in [payload.as_slice(), &payload[from..], &[prefix, &payload].concat()] {
            if let Ok(signed) = policy.message(&name, message, Some(&GENESIS)) {
                prop_assert_ne!(&signed, &payload);
                prop_assert!(!signed.windows(32).any(|window| window == GENESIS.0));
            }
        }
    }

    #[test]
    fn text_is_no_payload_even_where_the_chain_is_not_known(text in "scores:\\PC{0,300}") {
        let signed = policy().message("scores", text.as_bytes(), None);
        if let Ok(signed) = signed {
            // Every payload has the last byte of the runtime's version in it, which is nought, or is a hash.
            prop_assert!(!signed.contains(&0) && signed.len() != 32);
        }
    }

    #[test]
    fn what_is_signed_tells_its_domain_and_message_apart(a in vec(any::<u8>(), 0..60), b in vec(any::<u8>(), 0..60)) {
        let policy = policy();
        let all: Vec<_> = policy.domains.iter().flat_map(|domain| [(&domain.name, &a), (&domain.name, &b)]).collect();
        for (i, one) in all.iter().enumerate() {
            for other in &all[..i] {
                let signed = |(domain, message): (&String, &Vec<u8>)| policy.message(domain, message, None);
                if let (Ok(first), Ok(second)) = (signed(*one), signed(*other)) && one != other {
                    prop_assert_ne!(first, second);
                }
            }
        }
    }

    #[test]
    fn nothing_that_is_sent_makes_the_policy_panic(domain in "\\PC{0,80}", message: Vec<u8>, uids: Vec<u16>, weights: Vec<f64>) {
        let policy = policy();
        let _ = policy.message(&domain, &message, Some(&GENESIS));
        let _ = policy.message("scores", &message, Some(&GENESIS));
        let _ = policy.weights(&uids, &weights, None, None);
    }
}
