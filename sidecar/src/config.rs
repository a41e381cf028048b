//! From words to checked values: the defaults, the flags, and the Network's description.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sidecar_metagraph::check_endpoint;
use sidecar_util::ValueError;
use sidecar_util::config::{GroupConfig, NetworkConfig};
use sidecar_util::http::NodeKind;

use crate::args::RunArgs;
use crate::axon::{AxonConfig, check_upstream};
use crate::signer::LeasePlace;

/// Defaults of the flags.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// `--config`
    pub config: &'static str,
    /// `--hotkey-file`
    pub hotkey_file: &'static str,
    /// `--data-dir`
    pub data_dir: &'static str,
    /// `--listen`
    pub listen: &'static str,
    /// `--peer-listen`
    pub peer_listen: &'static str,
    /// `--socket`
    pub socket: &'static str,
    /// `--probe-interval-s`
    pub probe_interval_s: u64,
    /// `--log`
    pub log: &'static str,
}

/// The one table of defaults, which `--help` shows.
pub const DEFAULTS: Defaults = Defaults {
    config: "/etc/mycelium/network.json",
    hotkey_file: "/var/run/secrets/mycelium/hotkey",
    data_dir: "/var/lib/mycelium",
    listen: "0.0.0.0:9100",
    peer_listen: "0.0.0.0:9101",
    socket: "/run/mycelium/sidecar.sock",
    probe_interval_s: 60,
    // What the libraries below say at `info` is about themselves, and openraft warns of every lost heartbeat.
    log: "info,openraft=error,fjall=warn,lsm_tree=warn",
};

/// Sizes of a group that Raft makes sense of: an even number of voters survives no more losses than one less.
const VOTERS: [u8; 3] = [3, 5, 7];

/// What a sidecar needs to run, beside the Network's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What it stands beside.
    pub kind: NodeKind,
    /// File with the Network's description.
    pub network_file: PathBuf,
    /// File with the hotkey.
    pub hotkey_file: PathBuf,
    /// File with the hotkey file's password.
    pub hotkey_password_file: Option<PathBuf>,
    /// Folder of the signer's journal and of the group's log.
    pub data_dir: PathBuf,
    /// Address of the HTTP API.
    pub listen: SocketAddr,
    /// Address of the peer service.
    pub peer_listen: SocketAddr,
    /// Unix socket of the HTTP API.
    pub socket: PathBuf,
    /// The axon gate, if there is to be one.
    pub axon: Option<AxonConfig>,
    /// Time between two probes of one axon, if there are to be any.
    pub probe_interval: Option<Duration>,
    /// Where the signing lease is.
    pub(crate) lease: LeasePlace,
    /// File with the signer's policy.
    pub signer_policy: Option<PathBuf>,
    /// Signatures of others before this block are in order.
    pub accept_foreign_signer_before: Option<u64>,
}

impl TryFrom<&RunArgs> for Config {
    type Error = ValueError;

    fn try_from(args: &RunArgs) -> Result<Self, ValueError> {
        let listen = socket_address("--listen", &args.listen)?;
        let peer_listen = socket_address("--peer-listen", &args.peer_listen)?;
        if listen == peer_listen && listen.port() != 0 {
            let expected = "is the address of the HTTP API, too: give it another port than --listen";
            return Err(ValueError::new("--peer-listen", peer_listen, expected));
        }
        let axon = axon(args)?;
        let taken = [listen, peer_listen]
            .into_iter()
            .find(|address| axon.as_ref().is_some_and(|axon| axon.listen == *address) && address.port() != 0);
        if let Some(address) = taken {
            let expected = "is taken by --listen or --peer-listen: give the axon gate a port of its own";
            return Err(ValueError::new("--axon-listen", address, expected));
        }
        Ok(Self {
            kind: args.kind.into(),
            network_file: args.config.clone(),
            hotkey_file: args.hotkey_file.clone(),
            hotkey_password_file: args.hotkey_password_file.clone(),
            data_dir: args.data_dir.clone(),
            listen,
            peer_listen,
            socket: args.socket.clone(),
            axon,
            probe_interval: (args.probe_interval_s > 0).then(|| Duration::from_secs(args.probe_interval_s)),
            lease: lease_place(args)?,
            signer_policy: args.signer_policy.clone(),
            accept_foreign_signer_before: args.accept_foreign_signer_before,
        })
    }
}

fn axon(args: &RunArgs) -> Result<Option<AxonConfig>, ValueError> {
    if let Some(upstream) = &args.axon_upstream {
        check_upstream(upstream)?;
    }
    match (&args.axon_listen, &args.axon_upstream) {
        (None, None) => Ok(None),
        (None, Some(upstream)) => {
            let expected = "is reached by the axon gate only: give --axon-listen too";
            Err(ValueError::new("--axon-upstream", upstream, expected))
        }
        (Some(listen), upstream) => {
            Ok(Some(AxonConfig { listen: socket_address("--axon-listen", listen)?, upstream: upstream.clone() }))
        }
    }
}

fn socket_address(field: &str, text: &str) -> Result<SocketAddr, ValueError> {
    text.parse().map_err(|_| ValueError::new(field, text, "is not an address and a port such as 0.0.0.0:9100"))
}

fn lease_place(args: &RunArgs) -> Result<LeasePlace, ValueError> {
    let Some(lease) = &args.lease else {
        return Ok(LeasePlace::File(args.lease_file.clone().unwrap_or_else(|| args.data_dir.join("signer.lease"))));
    };
    let plain = |name: &str| {
        let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        alphanumeric(name.chars().next()) && alphanumeric(name.chars().next_back()) && name.chars().all(inner)
    };
    match lease.split_once('/') {
        Some((namespace, name)) if plain(namespace) && plain(name) => {
            Ok(LeasePlace::Kubernetes { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err(ValueError::new(
            "--lease",
            lease,
            "is not a Lease as NAMESPACE/NAME, such as default/validator-a-signer",
        )),
    }
}

/// Why a Network's description cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkConfigError {
    /// The file is not there, or not readable.
    #[error("network file `{}` cannot be read ({cause}): check --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// Not the JSON it should be.
    #[error("network file `{}` cannot be understood: {cause}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        cause: String,
    },
    /// A field is wrong.
    #[error("network file `{}`: {cause}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// Which field, its value, and what is expected.
        cause: ValueError,
    },
}

/// Reads and checks a Network's description.
///
/// # Errors
/// The file, the field and the remedy.
pub fn parse_network(path: &Path, bytes: &[u8]) -> Result<NetworkConfig, NetworkConfigError> {
    let network: NetworkConfig = serde_json::from_slice(bytes)
        .map_err(|error| NetworkConfigError::Parse { path: path.to_owned(), cause: error.to_string() })?;
    check(&network).map_err(|cause| NetworkConfigError::Field { path: path.to_owned(), cause })?;
    Ok(network)
}

fn check(network: &NetworkConfig) -> Result<(), ValueError> {
    if network.endpoints.is_empty() {
        return Err(ValueError::new("endpoints", "[]", "names no chain endpoint: give at least one"));
    }
    for (field, endpoints) in [("endpoints", &network.endpoints), ("archive_endpoints", &network.archive_endpoints)] {
        for endpoint in endpoints {
            check_endpoint(endpoint)
                .map_err(|_| ValueError::new(field, endpoint, "is not a WebSocket address such as ws://host:9944"))?;
        }
    }
    if network.verification_ttl_s == 0 {
        let expected = "would ask the chain for every verification: give at least 1 second";
        return Err(ValueError::new("verification_ttl_s", 0, expected));
    }
    network.group.as_ref().map_or(Ok(()), check_group)
}

fn check_group(group: &GroupConfig) -> Result<(), ValueError> {
    if group.cluster_id.is_empty() {
        return Err(ValueError::new("group.cluster_id", "", "is empty: give the group an identity"));
    }
    if !VOTERS.contains(&group.voters) {
        return Err(ValueError::new("group.voters", group.voters, "is not 3, 5 or 7"));
    }
    for (i, member) in group.members.iter().enumerate() {
        let port = member.address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
        if port.and_then(|port| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
            let expected = "is not a host and a port such as validator-a.default.svc:9101";
            return Err(ValueError::new(&format!("group.members[{i}].address"), &member.address, expected));
        }
        if group.members[..i].iter().any(|other| other.hotkey == member.hotkey) {
            let expected = "is in the list twice: a hotkey has one sidecar";
            return Err(ValueError::new(&format!("group.members[{i}].hotkey"), member.hotkey, expected));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    fn args(flags: &[&str]) -> RunArgs {
        let cli = Cli::try_parse_from(["mycelium-sidecar", "--kind=validator"].iter().chain(flags));
        cli.unwrap().run.unwrap()
    }

    #[test]
    fn the_defaults_are_valid() {
        let config = Config::try_from(&args(&[])).unwrap();
        assert_eq!((config.listen.port(), config.peer_listen.port()), (9100, 9101));
    }

    #[test]
    fn bad_addresses_name_their_flag() {
        let check = |flags: &[&str], start: &str| {
            let error = Config::try_from(&args(flags)).unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
        };
        check(&["--listen=nowhere"], "--listen: `nowhere` is not an address");
        check(&["--peer-listen=1.2.3.4"], "--peer-listen: `1.2.3.4` is not an address");
        check(&["--axon-listen=x"], "--axon-listen: `x` is not an address");
        check(&["--axon-listen=0.0.0.0:9101"], "--axon-listen: `0.0.0.0:9101` is taken");
        check(
            &["--axon-upstream=http://127.0.0.1:8000"],
            "--axon-upstream: `http://127.0.0.1:8000` is reached by the axon",
        );
        check(&["--axon-listen=0.0.0.0:1", "--axon-upstream=x"], "--axon-upstream: `x` is not an address such as");
        check(&["--peer-listen=0.0.0.0:9100"], "--peer-listen: `0.0.0.0:9100` is the address of the HTTP API");
        for lease in ["a", "a/", "/b", "a/b/c", "A/b", "a/-b"] {
            check(&["--lease", lease], &format!("--lease: `{lease}` is not a Lease as NAMESPACE/NAME"));
        }
    }

    #[test]
    fn the_lease_is_in_the_cluster_or_in_a_file() {
        let place = |flags: &[&str]| Config::try_from(&args(flags)).unwrap().lease;
        let kubernetes = LeasePlace::Kubernetes { namespace: "a".into(), name: "b-c".into() };
        assert_eq!(place(&["--lease=a/b-c"]), kubernetes);
        assert_eq!(place(&["--data-dir=/x"]), LeasePlace::File("/x/signer.lease".into()));
        assert_eq!(place(&["--data-dir=/x", "--lease-file=/y"]), LeasePlace::File("/y".into()));
        assert!(Cli::try_parse_from(["mycelium-sidecar", "--kind=miner", "--lease=a/b", "--lease-file=/y"]).is_err());
    }

    #[test]
    fn the_network_file_is_refused_with_file_field_and_remedy() {
        let alice = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
        let good = format!(
            r#"{{"network": "default", "endpoints": ["ws://chain:9944"], "netuid": 1, "genesis_hash": null,
                "minimum_stake": "1000", "verification_ttl_s": 60,
                "group": {{"cluster_id": "a", "founder": "{alice}", "founded": false, "voters": 3,
                    "members": [{{"hotkey": "{alice}", "address": "a:7000"}}]}}}}"#
        );
        let path = Path::new("/etc/mycelium/network.json");
        parse_network(path, good.as_bytes()).unwrap();
        let refused = |from: &str, to: &str, part: &str| {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            let error = parse_network(path, bad.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("network file `/etc/mycelium/network.json`") && error.contains(part), "{error}");
        };
        refused("ws://chain:9944", "http://chain:9944", "endpoints: `http://chain:9944` is not a WebSocket address");
        refused("[\"ws://chain:9944\"]", "[]", "endpoints: `[]` names no chain endpoint");
        refused("\"netuid\"", "\"netuidd\"", "netuidd");
        refused(
            "\"netuid\"",
            "\"archive_endpoints\": [\"http://old:1\"], \"netuid\"",
            "archive_endpoints: `http://old:1` is not a WebSocket address",
        );
        refused("\"1000\"", "1000", "line 2");
        refused("\"verification_ttl_s\": 60", "\"verification_ttl_s\": 0", "at least 1 second");
        refused("\"voters\": 3", "\"voters\": 4", "group.voters: `4` is not 3, 5 or 7");
        refused("a:7000", "a:0", "group.members[0].address: `a:0`");
        refused("a:7000", "a", "group.members[0].address: `a`");
        refused("\"cluster_id\": \"a\"", "\"cluster_id\": \"\"", "group.cluster_id");
        refused(
            &format!("{{\"hotkey\": \"{alice}\", \"address\": \"a:7000\"}}"),
            &format!(
                "{{\"hotkey\": \"{alice}\", \"address\": \"a:7000\"}}, {{\"hotkey\": \"{alice}\", \"address\": \"b:7000\"}}"
            ),
            "in the list twice",
        );
        refused(alice, "5Grw", "5Grw");
    }
}
