//! Axons, ports and IP addresses as the chain and as people write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::ValueError;

/// What an axon speaks, as the chain's `protocol` byte names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AxonProtocol {
    /// Byte 0.
    Tcp,
    /// Byte 1.
    Udp,
    /// Every other byte: kept as it came.
    #[serde(untagged)]
    Other(u8),
}

impl From<u8> for AxonProtocol {
    fn from(byte: u8) -> Self {
        match byte {
            0 => Self::Tcp,
            1 => Self::Udp,
            other => Self::Other(other),
        }
    }
}

/// Where a neuron says on chain that it can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Axon {
    /// Address that peers connect to.
    pub ip: IpAddr,
    /// Port, never 0.
    pub port: u16,
    /// Transport.
    pub protocol: AxonProtocol,
    /// Version of the neuron's software, as it chose to number it.
    pub version: u32,
    /// Block at which the axon was served.
    pub block: u64,
}

/// Reads the chain's integer form of an address: `ip_type` is 4 or 6. `None` stands for "not served".
pub fn ip_from_chain(ip: u128, ip_type: u8) -> Option<IpAddr> {
    match ip_type {
        _ if ip == 0 => None,
        4 => u32::try_from(ip).ok().map(|ip| Ipv4Addr::from(ip).into()),
        6 => Some(Ipv6Addr::from(ip).into()),
        _ => None,
    }
}

/// The chain's integer form of an address and its `ip_type`.
pub fn ip_to_chain(ip: IpAddr) -> (u128, u8) {
    match ip {
        IpAddr::V4(ip) => (u32::from(ip).into(), 4),
        IpAddr::V6(ip) => (ip.into(), 6),
    }
}

/// Whether hosts of other people can reach this address: not private, shared, loopback, link-local,
/// documentation, benchmark, multicast or reserved.
pub fn is_public_ip(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(mapped) => is_public_v4(mapped),
            None => is_public_v6(ip),
        },
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocol_assignments = a == 192 && b == 0 && c == 0;
    let benchmark = a == 198 && (18..20).contains(&b);
    let reserved = a >= 240;
    !(a == 0
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || ip.is_multicast()
        || shared
        || protocol_assignments
        || benchmark
        || reserved)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.segments();
    let documentation = first == 0x2001 && second == 0xdb8;
    // Global unicast is 2000::/3; everything public that is assigned today lies in it.
    first & 0xe000 == 0x2000 && !documentation
}

/// Refuses an address that peers elsewhere cannot reach. On a `local` network every address that
/// names one host is taken.
pub fn check_public_ip(field: &str, ip: IpAddr, local: bool) -> Result<IpAddr, ValueError> {
    let unusable = ip.is_unspecified() || ip.is_multicast();
    if unusable || !(local || is_public_ip(ip)) {
        let expected =
            "is not an address that other hosts can reach: give a public address, or mark the Network `local`";
        return Err(ValueError::new(field, ip, expected));
    }
    Ok(ip)
}

/// Refuses port 0 and numbers that are no port.
pub fn check_port(field: &str, port: i64) -> Result<u16, ValueError> {
    u16::try_from(port)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| ValueError::new(field, port, "is not a port from 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_addresses_that_strangers_can_reach_are_public() {
        for ip in ["1.1.1.1", "100.128.0.1", "198.20.0.1", "2606:4700::1111"] {
            assert!(is_public_ip(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "10.0.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "192.168.0.1",
            "172.16.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "198.18.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "fe80::1",
            "fc00::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "ff02::1",
            "::",
        ] {
            assert!(!is_public_ip(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn local_networks_take_private_addresses_but_never_unspecified_ones() {
        assert!(check_public_ip("axon.address", "10.0.0.1".parse().unwrap(), true).is_ok());
        assert!(check_public_ip("axon.address", "0.0.0.0".parse().unwrap(), true).is_err());
        let error = check_public_ip("axon.address", "10.0.0.1".parse().unwrap(), false).unwrap_err();
        assert!(error.to_string().starts_with("axon.address: `10.0.0.1` is not an address"), "{error}");
    }

    #[test]
    fn ports_start_at_one() {
        assert_eq!(check_port("axon.port", 8091).unwrap(), 8091);
        assert!(check_port("axon.port", 0).is_err() && check_port("axon.port", 65536).is_err());
    }

    proptest! {
        #[test]
        fn chain_form_round_trips(ip: IpAddr) {
            prop_assume!(!ip.is_unspecified());
            let (number, ip_type) = ip_to_chain(ip);
            prop_assert_eq!(ip_from_chain(number, ip_type), Some(ip));
        }

        #[test]
        fn every_chain_form_is_read_without_panic(ip: u128, ip_type: u8) {
            let _ = ip_from_chain(ip, ip_type);
        }
    }
}
