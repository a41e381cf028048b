//! The addresses of a cluster, all cut from one /15 so that there is one thing to choose and one thing that can collide.
//!
//! The lower /16 belongs to pods, nodes and the gateway; the upper one to Services and, at its far end, to the link between
//! the cluster's network namespace and the machine.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use anyhow::{Context as _, Result, bail};

/// The network of a cluster when nobody chose another: rarely used by routers, clouds or other local clusters.
pub const DEFAULT_NETWORK: &str = "10.44.0.0/15";

/// A /15 of IPv4 addresses, and who has which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    base: u32,
}

impl Addresses {
    /// The address that the bridge of the pods has inside the namespace: their gateway, and where the API server listens.
    pub fn gateway(self) -> Ipv4Addr {
        self.at(1)
    }

    /// The address of the node with this number, counted from 1.
    pub fn node(self, number: u8) -> Ipv4Addr {
        self.at(10 + u32::from(number))
    }

    /// The range of pods, nodes and gateway, as `a.b.0.0/16`.
    pub fn pod_range(self) -> String {
        format!("{}/16", self.at(0))
    }

    /// First and last address that a pod may be given.
    pub fn pod_addresses(self) -> (Ipv4Addr, Ipv4Addr) {
        (self.at(0x0101), self.at(0xfefe))
    }

    /// The range from which Services get their addresses.
    pub fn service_range(self) -> String {
        format!("{}/20", self.at(0x1_0000))
    }

    /// The address of the Service `kubernetes`: Kubernetes gives it the first of the range.
    pub fn kubernetes_service(self) -> Ipv4Addr {
        self.at(0x1_0001)
    }

    /// The address of the Service `kube-dns`.
    pub fn dns_service(self) -> Ipv4Addr {
        self.at(0x1_000a)
    }

    /// The machine's end of the link into the namespace; a pod that calls it reaches the machine.
    pub fn link_outside(self) -> Ipv4Addr {
        self.at(0x1_fffd)
    }

    /// The namespace's end of the link.
    pub fn link_inside(self) -> Ipv4Addr {
        self.at(0x1_fffe)
    }

    /// Whether `range`, in the form `a.b.c.d` or `a.b.c.d/n`, shares an address with this network.
    pub fn overlaps(self, range: &str) -> bool {
        let Some((first, prefix)) = parse_range(range) else { return false };
        let shorter = prefix.min(15);
        let mask = if shorter == 0 { 0 } else { u32::MAX << (32 - shorter) };
        (first ^ self.base) & mask == 0
    }

    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + offset)
    }
}

fn parse_range(range: &str) -> Option<(u32, u32)> {
    let (address, prefix) = range.split_once('/').unwrap_or((range, "32"));
    let address: Ipv4Addr = address.parse().ok()?;
    let prefix: u32 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    Some((u32::from(address), prefix))
}

impl FromStr for Addresses {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (base, prefix) = parse_range(text)
            .with_context(|| format!("network `{text}` is not an IPv4 range: write it as {DEFAULT_NETWORK}"))?;
        if prefix != 15 || base & 0x1_ffff != 0 {
            bail!(
                "network `{text}` is not a /15 at its first address: write it as {DEFAULT_NETWORK}, with an even second part"
            );
        }
        if !Ipv4Addr::from(base).is_private() {
            bail!("network `{text}` is not private: choose one inside 10.0.0.0/8 or 172.16.0.0/12");
        }
        Ok(Self { base })
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/15", self.at(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        DEFAULT_NETWORK.parse().unwrap()
    }

    #[test]
    fn each_party_gets_its_own_part_of_the_network() {
        let addresses = addresses();
        assert_eq!(addresses.gateway().to_string(), "10.44.0.1");
        assert_eq!(addresses.node(3).to_string(), "10.44.0.13");
        assert_eq!(addresses.pod_range(), "10.44.0.0/16");
        assert_eq!(addresses.service_range(), "10.45.0.0/20");
        assert_eq!(addresses.dns_service().to_string(), "10.45.0.10");
        assert_eq!(addresses.link_outside().to_string(), "10.45.255.253");
        assert_eq!(addresses.to_string(), DEFAULT_NETWORK);
    }

    #[test]
    fn a_network_that_is_no_private_slash_15_is_refused_with_the_remedy() {
        for (text, remedy) in [
            ("10.44.0.0/16", "not a /15"),
            ("10.45.0.0/15", "even second part"),
            ("8.8.0.0/15", "not private"),
            ("x", "IPv4"),
        ] {
            let error = text.parse::<Addresses>().unwrap_err().to_string();
            assert!(error.contains(remedy), "{text}: {error}");
        }
    }

    #[test]
    fn overlaps_are_seen_from_both_sides() {
        let addresses = addresses();
        for range in ["10.0.0.0/8", "10.45.3.0/24", "10.44.0.1", "0.0.0.0/0"] {
            assert!(addresses.overlaps(range), "{range}");
        }
        for range in ["10.46.0.0/16", "192.168.0.0/16", "10.43.255.255", "default"] {
            assert!(!addresses.overlaps(range), "{range}");
        }
    }
}
