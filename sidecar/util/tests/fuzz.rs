//! Addresses as strangers write them: the committed corpus and what can be made of it by a few changes. Nothing panics, and
//! whatever is taken is written back the same.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of tests for production code")]

use proptest::prelude::*;
use sidecar_util::{Hotkey, SS58_PREFIX, ip_from_chain_text, ip_to_chain, ip_to_chain_text, is_public_ip};

const SS58: &str = include_str!("corpus/ss58.txt");
const AXON_IP: &str = include_str!("corpus/axon_ip.txt");

fn read_ss58(text: &str) -> Option<Hotkey> {
    match text.parse::<Hotkey>() {
        Ok(hotkey) => {
            assert_eq!(hotkey.to_string(), text, "one account has one address with prefix {SS58_PREFIX}");
            Some(hotkey)
        }
        Err(error) => {
            assert!(error.field == "hotkey" && !error.expected.is_empty(), "{error:?}");
            None
        }
    }
}

fn read_ip(text: &str, ip_type: u8) -> bool {
    match ip_from_chain_text("ip", text, ip_type) {
        Ok(Some(ip)) => {
            let _ = is_public_ip(ip);
            assert_eq!(ip_to_chain(ip).1, ip_type);
            assert_eq!(ip_to_chain_text(ip), text.trim_start_matches('0'));
            true
        }
        Ok(None) => true,
        Err(error) => {
            assert!(error.field == "ip" && !error.expected.is_empty(), "{error:?}");
            false
        }
    }
}

fn ip_lines() -> impl Iterator<Item = (&'static str, u8)> {
    AXON_IP.lines().map(|line| line.rsplit_once(' ').unwrap()).map(|(text, kind)| (text, kind.parse().unwrap()))
}

#[test]
fn the_corpus_is_taken_and_refused_as_it_should() {
    let taken: Vec<&str> = SS58.lines().filter(|line| read_ss58(line).is_some()).collect();
    assert_eq!(taken, SS58.lines().take(3).collect::<Vec<_>>(), "the first three are addresses of this chain");
    let taken = ip_lines().filter(|(text, ip_type)| read_ip(text, *ip_type)).count();
    assert_eq!(taken, 11);
}

/// What one change does to a text: a character replaced, put in, taken away or repeated, or the rest cut off.
fn changed(text: &str, kind: u8, at: usize, with: char) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    let at = at % (characters.len() + 1);
    match kind % 4 {
        0 if at < characters.len() => characters[at] = with,
        1 => characters.insert(at, with),
        2 if at < characters.len() => drop(characters.remove(at)),
        _ => characters.truncate(at),
    }
    characters.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn no_change_of_an_address_makes_a_parser_panic(
        line in 0..SS58.lines().count(),
        changes in prop::collection::vec((any::<u8>(), any::<usize>(), any::<char>()), 1..4),
    ) {
        let mut text = SS58.lines().nth(line).unwrap().to_owned();
        for (kind, at, with) in changes {
            text = changed(&text, kind, at, with);
        }
        read_ss58(&text);
    }

    #[test]
    fn no_change_of_a_number_makes_a_parser_panic(
        line in 0..AXON_IP.lines().count(),
        ip_type: u8,
        changes in prop::collection::vec((any::<u8>(), any::<usize>(), prop_oneof!["[0-9]", any::<char>().prop_map(String::from)]), 1..4),
    ) {
        let mut text = ip_lines().nth(line).unwrap().0.to_owned();
        for (kind, at, with) in changes {
            text = changed(&text, kind, at, with.chars().next().unwrap());
        }
        for ip_type in [4, 6, ip_type] {
            read_ip(&text, ip_type);
        }
    }
}
