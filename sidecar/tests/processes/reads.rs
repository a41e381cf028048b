//! What is read from the chain for each request, against what the chain was told and what it says past the sidecar.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sidecar_util::Coldkey;

use super::chain::Devchain;
use super::pod::{Pod, network};
use super::rpc::{Row, numbers, texts};
use super::{pair, until};

/// Key of the subnet's owner, which holds the coldkey's seed here.
const OWNER: u8 = 9;

/// A coldkey that only ever receives.
const SAVER: u8 = 8;

/// Indices of calls, as on the public chain.
const SET_WEIGHTS: u8 = 0;
const SET_IDENTITY: u8 = 68;
const SET_SUBNET_IDENTITY: u8 = 78;

fn coldkey(id: u8) -> String {
    Coldkey::from(*pair(id).hotkey().as_bytes()).to_string()
}

fn genesis() -> Value {
    let owned = |owner: &str, id: u8, stake: &str, weights: &[(u16, u16)]| {
        let hotkey = pair(id).hotkey().to_string();
        json!({"hotkey": hotkey, "coldkey": owner, "stake": stake, "weights": weights})
    };
    let neuron = |id: u8, stake: &str, weights: &[(u16, u16)]| owned("//Ferdie", id, stake, weights);
    json!({
        "accounts": [
            {"account": coldkey(OWNER), "balance": "100"},
            {"account": coldkey(SAVER), "balance": "12.5"},
        ],
        "subnets": [{
            "netuid": 1,
            "owner": coldkey(OWNER),
            "hyperparameters": {
                "tempo": 10, "immunity_period": 77, "kappa": 30000, "min_allowed_weights": 2, "weights_version": 3,
                "max_validators": 5, "commit_reveal": false, "bonds_moving_avg": 800_000, "min_burn": "0.25",
            },
            "neurons": [
                neuron(1, "5000", &[(2, 65535), (3, 13107)]),
                neuron(2, "3000", &[(2, 100), (3, 65535)]),
                neuron(3, "0", &[]),
                // An identity is for those who have a neuron.
                owned(&coldkey(OWNER), 4, "0", &[]),
            ],
        }],
    })
}

fn start() -> (Devchain, Pod) {
    let mut chain = Devchain::with_genesis(&genesis());
    chain.run();
    let mut pod = Pod::new("miner", 1);
    pod.configure(&network(&chain));
    pod.run_with(&["--probe-interval-s", "0"]);
    // Of block 0 there is nothing to be asked by its number.
    pod.until("past the genesis", |status| status.chain.synced && status.chain.block >= Some(1));
    (chain, pod)
}

fn read(pod: &Pod, path: &str) -> Value {
    let answer = pod.get(path).unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.body
}

/// At this block.
fn at(path: &str, block: u64) -> String {
    format!("{path}?block={block}")
}

/// The rows of an answer.
fn rows(body: &Value) -> BTreeMap<u16, Row> {
    let number = |value: &Value| u16::try_from(value.as_u64().unwrap()).unwrap();
    let values = |row: &Value| {
        row["values"].as_array().unwrap().iter().map(|one| (number(&one["uid"]), number(&one["value"]))).collect()
    };
    body["rows"].as_array().unwrap().iter().map(|row| (number(&row["uid"]), values(row))).collect()
}

/// The same, as the runtime tells them at the block of an answer.
fn told(chain: &Devchain, body: &Value) -> (BTreeMap<u16, Row>, BTreeMap<u16, Row>) {
    let hash = body["block_hash"].as_str().unwrap();
    assert_eq!(chain.rpc().block_hash(body["block"].as_u64().unwrap()), hash);
    let (mut weights, mut bonds) = (BTreeMap::new(), BTreeMap::new());
    for uid in 0..4 {
        let (set, bound) = chain.rpc().weights_and_bonds(uid, hash);
        weights.insert(uid, set);
        bonds.insert(uid, bound);
    }
    weights.retain(|_, row| !row.is_empty());
    bonds.retain(|_, row| !row.is_empty());
    (weights, bonds)
}

#[test]
fn weights_and_bonds_are_what_validators_set_and_what_the_epoch_made_of_it() {
    let (chain, pod) = start();
    let first = read(&pod, &at("/v1/weights", 1));
    let set = BTreeMap::from([(0, vec![(2, 65535), (3, 13107)]), (1, vec![(2, 100), (3, 65535)])]);
    assert_eq!((first["block"].as_u64(), first["netuid"].as_u64(), &rows(&first)), (Some(1), Some(1), &set));
    assert_eq!(told(&chain, &first).0, set);
    assert_eq!(rows(&read(&pod, &at("/v1/bonds", 1))), BTreeMap::new(), "no epoch passed");

    let bonds = until("bonds", || Some(read(&pod, "/v1/bonds")).filter(|body| !rows(body).is_empty()));
    let (old_weights, old_bonds) = told(&chain, &bonds);
    assert_eq!((&rows(&bonds), &old_weights), (&old_bonds, &set));
    assert!(old_bonds.keys().eq([&0, &1]), "validators have them, miners do not: {old_bonds:?}");
    let old = bonds["block"].as_u64().unwrap();

    // Version key 3: the subnet's is that.
    let arguments = [&1_u16.to_le_bytes()[..], &numbers(&[2, 3]), &numbers(&[65535, 32768]), &3_u64.to_le_bytes()];
    chain.rpc().submit(&pair(2), SET_WEIGHTS, &arguments.concat());
    let mut changed = set.clone();
    changed.insert(1, vec![(2, 65535), (3, 32768)]);
    let weights = until("new weights", || Some(read(&pod, "/v1/weights")).filter(|body| rows(body) == changed));
    assert_eq!(told(&chain, &weights).0, changed);
    let bonds =
        until("bonds of the next epoch", || Some(read(&pod, "/v1/bonds")).filter(|body| rows(body) != old_bonds));
    assert_eq!(rows(&bonds), told(&chain, &bonds).1);

    assert_eq!(rows(&read(&pod, &at("/v1/weights", old))), set);
    assert_eq!(rows(&read(&pod, &at("/v1/bonds", old))), old_bonds);
    let one = |matrix: &str| rows(&read(&pod, &format!("/v1/{matrix}?uid=1&block={old}")));
    assert_eq!(one("weights"), BTreeMap::from([(1, set[&1].clone())]));
    assert_eq!(one("bonds"), BTreeMap::from([(1, old_bonds[&1].clone())]));
    let far = pod.get("/v1/bonds?block=4000000").unwrap();
    assert_eq!((far.status, &far.body["type"]), (404, &json!("urn:mycelium:absent")), "{}", far.body);
}

#[test]
fn hyperparameters_are_those_of_the_genesis_until_they_are_changed() {
    let (chain, pod) = start();
    let first = read(&pod, "/v1/hyperparameters");
    let expected = [
        ("tempo", json!(10)),
        ("immunity_period", json!(77)),
        ("kappa", json!(30000)),
        ("min_allowed_weights", json!(2)),
        ("weights_version", json!(3)),
        ("max_validators", json!(5)),
        ("commit_reveal_weights_enabled", json!(false)),
        ("bonds_moving_avg", json!(800_000)),
        ("min_burn", json!("0.25")),
    ];
    for (name, value) in &expected {
        assert_eq!(&first["hyperparameters"][name], value, "{name}: {first}");
    }
    chain.transact(&["sudo-set", "kappa", "40000", "--netuid", "1"]);
    chain.transact(&["sudo-set", "immunity_period", "78", "--netuid", "1"]);
    let mut changed = first["hyperparameters"].clone();
    changed["kappa"] = json!(40000);
    changed["immunity_period"] = json!(78);
    let last = until("changed", || {
        Some(read(&pod, "/v1/hyperparameters")).filter(|body| body["hyperparameters"]["immunity_period"] == 78)
    });
    assert_eq!(last["hyperparameters"], changed, "and nothing else");
    assert_eq!(read(&pod, &at("/v1/hyperparameters", first["block"].as_u64().unwrap())), first);
}

#[test]
fn identities_are_what_owners_say_of_themselves_and_of_the_subnet_since_they_said_it() {
    let (chain, pod) = start();
    let (owner, silent) = (coldkey(OWNER), coldkey(SAVER));
    let path = format!("/v1/identities?coldkey={owner},{silent}");
    let before = read(&pod, &path);
    assert_eq!((&before["subnet"], &before["coldkeys"]), (&Value::Null, &json!({})));

    // Name, url, repository, image, discord, description, additional.
    let own = ["Owner", "https://o.example", "", "", "", "keeps it \u{1f344}", "x"];
    chain.rpc().submit(&pair(OWNER), SET_IDENTITY, &texts(&own));
    until("the first is in a block", || (chain.rpc().nonce(&owner) == 1).then_some(()));
    // Name, repository, contact, url, discord, description, logo, additional.
    let subnet = ["Spores", "https://r.example", "c@example", "", "", "grows", "", ""];
    let arguments = [&1_u16.to_le_bytes()[..], &texts(&subnet)].concat();
    chain.rpc().submit(&pair(OWNER), SET_SUBNET_IDENTITY, &arguments);

    let after = until("known", || Some(read(&pod, &path)).filter(|body| !body["subnet"].is_null()));
    let said = json!({"name": "Owner", "url": "https://o.example", "description": own[5], "additional": "x"});
    assert_eq!(after["coldkeys"], json!({ owner: said }));
    let said = json!({
        "subnet_name": "Spores", "github_repo": "https://r.example", "subnet_contact": "c@example", "description": "grows",
    });
    assert_eq!(after["subnet"], said);
    let old = read(&pod, &format!("{path}&block={}", before["block"]));
    assert_eq!(old, before);
    assert_eq!(read(&pod, "/v1/identities")["coldkeys"], json!({}), "nobody was asked about");
}

#[test]
fn a_balance_is_what_was_given_and_received_and_what_it_was_at_a_block() {
    let (chain, pod) = start();
    let saver = coldkey(SAVER);
    let path = format!("/v1/balances/{saver}");
    let before = read(&pod, &path);
    assert_eq!((&before["free"], &before["reserved"], &before["frozen"]), (&json!("12.5"), &json!("0"), &json!("0")));
    chain.transact(&["transfer", "--from", "//Ferdie", "--to", &saver, "--amount", "7.25"]);
    let after = until("received", || Some(read(&pod, &path)).filter(|body| body["free"] != "12.5"));
    assert_eq!((&after["free"], &after["coldkey"]), (&json!("19.75"), &json!(saver)));
    assert_eq!(read(&pod, &at(&path, before["block"].as_u64().unwrap())), before);

    // Whoever sent has less by a fee that only the chain knows.
    let ferdie = &chain.query(&["balance", "//Ferdie"])[0];
    let address = ferdie["account"].as_str().unwrap();
    let of_sender = read(&pod, &format!("/v1/balances/{address}"));
    assert_eq!(of_sender["free"], ferdie["free"], "{ferdie}");
    assert_ne!(of_sender["free"], read(&pod, &at(&format!("/v1/balances/{address}"), 1))["free"]);
}
