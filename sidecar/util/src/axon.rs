//! Axons, ports and IP addresses as the chain and as people write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ValueError;

/// What an axon speaks, as the chain's `protocol` byte names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", from = "Spelled")]
pub enum AxonProtocol {
    /// Byte 0.
    Tcp,
    /// Byte 1.
    Udp,
    /// Every other byte: kept as it came.
    #[serde(untagged)]
    Other(u8),
}

/// A protocol as it may be written: a byte that has a name is the same by either, and equal.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Spelled {
    Tcp,
    Udp,
    #[serde(untagged)]
    Byte(u8),
}

impl From<Spelled> for AxonProtocol {
    fn from(spelled: Spelled) -> Self {
        match spelled {
            Spelled::Tcp => Self::Tcp,
            Spelled::Udp => Self::Udp,
            Spelled::Byte(byte) => byte.into(),
        }
    }
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
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Axon {
    /// Address that peers connect to.
    #[schema(value_type = String)]
    pub ip: IpAddr,
    /// Port, never 0.
    #[schema(minimum = 1, maximum = 65535)]
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

/// The chain's integer form of an address as decimal text, as Fiber's `Node.ip` carries it: `1.2.3.1` is `16909057`. Which
/// kind of address it is stands beside it as `ip_type`.
pub fn ip_to_chain_text(ip: IpAddr) -> String {
    ip_to_chain(ip).0.to_string()
}

/// Reads the chain's integer form of an address from decimal text. `None` stands for "not served", which is 0.
///
/// # Errors
/// The text is no whole number, the number is no address of this kind, or the kind is neither 4 nor 6.
pub fn ip_from_chain_text(field: &str, text: &str, ip_type: u8) -> Result<Option<IpAddr>, ValueError> {
    let wrong = |expected: &str| ValueError::new(field, text, expected);
    // `parse` alone takes a plus sign, which no chain ever wrote.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong("is not an IP address as a whole number: 1.2.3.1 is written 16909057"));
    }
    let number: u128 = text.parse().map_err(|_| wrong("is larger than any IP address"))?;
    match ip_type {
        _ if number == 0 => Ok(None),
        4 => match ip_from_chain(number, 4) {
            Some(ip) => Ok(Some(ip)),
            None => Err(wrong("is larger than any IPv4 address: is its ip_type 6?")),
        },
        6 => Ok(ip_from_chain(number, 6)),
        other => Err(ValueError::new(field, other, "is no ip_type: give 4 or 6")),
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

/// Ports from the first to the last, both included. Written `8000-8010`, or `8000` for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Checks both ends: none is 0, and the first is not above the last.
    ///
    /// # Errors
    /// Which rule was broken.
    pub fn new(field: &str, first: u16, last: u16) -> Result<Self, ValueError> {
        let shown = format!("{first}-{last}");
        if first == 0 {
            return Err(ValueError::new(field, shown, "holds port 0: start at 1 or above"));
        }
        if first > last {
            return Err(ValueError::new(field, shown, "ends before it begins: put the smaller port first"));
        }
        Ok(Self { first, last })
    }

    /// Reads `8000-8010` or `8000`; `field` is named in the error.
    ///
    /// # Errors
    /// The text is no range of ports.
    pub fn parse(field: &str, text: &str) -> Result<Self, ValueError> {
        let port = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (port(first), port(last)) {
            (Some(first), Some(last)) => Self::new(field, first, last),
            _ => Err(ValueError::new(field, text, "is not a range of ports from 1 to 65535 such as 8000-8010")),
        }
    }

    /// The first port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// How many ports there are, never none.
    pub fn count(self) -> u32 {
        u32::from(self.last - self.first) + 1
    }

    /// Whether a port is one of them.
    pub fn contains(self, port: u16) -> bool {
        self.iter().contains(&port)
    }

    /// Every port in order.
    pub fn iter(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl IntoIterator for PortRange {
    type Item = u16;
    type IntoIter = RangeInclusive<u16>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl FromStr for PortRange {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::parse("ports", text)
    }
}

impl Serialize for PortRange {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
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

    #[test]
    fn ranges_of_ports_read_and_print_and_say_what_is_wrong() {
        let range: PortRange = "8000-8010".parse().unwrap();
        assert_eq!(
            (range.first(), range.last(), range.count(), range.to_string().as_str()),
            (8000, 8010, 11, "8000-8010")
        );
        assert!(range.contains(8010) && !range.contains(8011) && range.into_iter().eq(8000..=8010));
        assert_eq!("80".parse::<PortRange>().unwrap().to_string(), "80");
        let check = |text: &str, part: &str| {
            let error = PortRange::parse("axon.ports", text).unwrap_err().to_string();
            assert!(error.starts_with("axon.ports: `") && error.contains(part), "{error}");
        };
        check("8010-8000", "ends before it begins");
        check("0-10", "holds port 0");
        for text in ["", "-", "80-", "-80", "1-65536", "+1-2", "1-2-3", "1 - 2", "a-b", "٣"] {
            check(text, "is not a range of ports");
        }
    }

    #[test]
    fn chain_text_of_an_address_is_read_by_its_type() {
        let read = |text: &str, ip_type| ip_from_chain_text("ip", text, ip_type);
        assert_eq!(read("16909057", 4).unwrap(), Some([1, 2, 3, 1].into()));
        assert_eq!(read("1", 6).unwrap(), Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!((read("0", 4).unwrap(), read("0", 9).unwrap()), (None, None));
        for (text, ip_type, part) in [
            ("4294967296", 4, "larger than any IPv4"),
            ("340282366920938463463374607431768211456", 6, "larger than any IP"),
            ("1.2.3.1", 4, "16909057"),
            ("+1", 4, "whole number"),
            ("", 4, "whole number"),
            ("1", 5, "give 4 or 6"),
        ] {
            let error = read(text, ip_type).unwrap_err().to_string();
            assert!(error.starts_with("ip: `") && error.contains(part), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_range_of_ports_round_trips(a in 1_u16.., b in 1_u16..) {
            let range = PortRange::new("ports", a.min(b), a.max(b)).unwrap();
            prop_assert_eq!(range.to_string().parse::<PortRange>().unwrap(), range);
            let json = serde_json::to_string(&range).unwrap();
            prop_assert_eq!(serde_json::from_str::<PortRange>(&json).unwrap(), range);
        }

        #[test]
        fn chain_text_round_trips(ip: IpAddr) {
            prop_assume!(!ip.is_unspecified());
            let ip_type = ip_to_chain(ip).1;
            prop_assert_eq!(ip_from_chain_text("ip", &ip_to_chain_text(ip), ip_type).unwrap(), Some(ip));
        }

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
