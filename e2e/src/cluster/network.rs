//! The network namespace of a cluster: a bridge for pods and nodes, a link to the machine, and no way out.
//!
//! The namespace has no default route and the machine does not translate addresses for it, so that nothing in the cluster can send a
//! packet off the machine, whatever it is told to connect to. The machine's own packet filter, routes and ports are not touched.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::mount::UnmountFlags;
use serde::Deserialize;

use crate::{addresses::Addresses, command, daemon};

/// The machine's end of the link.
const LINK: &str = "mycelium";
/// The bridge of pods and nodes, inside the namespace.
pub(super) const BRIDGE: &str = "pods0";
/// The namespace's end of the link.
const UPLINK: &str = "machine0";

/// How long the kernel may take to clear away a namespace after its last process.
const CLEARING: Duration = Duration::from_secs(10);

/// The network of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Network {
    addresses: Addresses,
    /// The namespace is kept alive by a mount on this file, not by a name in the list that the whole machine shares.
    namespace: PathBuf,
}

/// What `ensure` had to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ensured {
    /// Everything was there.
    Unchanged,
    /// Parts were missing and are there again.
    Repaired,
    /// There was no namespace: whatever ran in an earlier one is cut off from this one.
    Created,
}

#[derive(Debug, Deserialize)]
struct Link {
    #[serde(rename = "ifname")]
    name: String,
    master: Option<String>,
    #[serde(default)]
    flags: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Route {
    dst: String,
    dev: Option<String>,
}

impl Network {
    /// The network with these addresses, whose namespace is kept by a mount on `namespace`.
    pub(super) fn new(addresses: Addresses, namespace: PathBuf) -> Self {
        Self { addresses, namespace }
    }

    /// The file that stands for the namespace.
    pub(super) fn namespace(&self) -> &Path {
        &self.namespace
    }

    /// A command that runs inside the namespace.
    pub(super) fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace.display())).arg("--").arg(program);
        command
    }

    /// Makes what is missing. `nodes` is how many node addresses the bridge carries.
    ///
    /// # Errors
    /// When the addresses belong to someone else, or the kernel refuses.
    pub(super) fn ensure(&self, nodes: u8) -> Result<Ensured> {
        let mut ensured = Ensured::Unchanged;
        if !self.is_present() {
            self.refuse_taken_addresses()?;
            self.create()?;
            self.inside_ip(&["link", "set", "lo", "up"])?;
            ensured = Ensured::Created;
        }
        let mut repaired = self.ensure_settings()?;
        repaired |= self.ensure_bridge(nodes)?;
        repaired |= self.ensure_link()?;
        if repaired && ensured == Ensured::Unchanged {
            ensured = Ensured::Repaired;
        }
        Ok(ensured)
    }

    /// Removes the namespace and with it bridges, links, routes and rules. The caller has ended the processes in it.
    ///
    /// # Errors
    /// When the mount cannot be undone.
    pub(super) fn remove(&self) -> Result<bool> {
        if !self.namespace.exists() {
            return Ok(false);
        }
        if self.is_present() {
            // Without this the link would stay until the last process, of whomever, has left the namespace.
            let _ = self.inside_ip(&["link", "delete", UPLINK]);
        }
        let _ = rustix::mount::unmount(&self.namespace, UnmountFlags::DETACH);
        daemon::remove_if_present(&self.namespace)?;
        Ok(true)
    }

    /// Whether there is a namespace behind the file: after a reboot or an unmount the file alone may be there.
    pub(super) fn is_present(&self) -> bool {
        self.namespace.exists() && command::succeeds(&mut self.inside("true")).unwrap_or(false)
    }

    fn create(&self) -> Result<()> {
        self.remove()?;
        let folder = self.namespace.parent().context("the namespace's file has no folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
        fs::write(&self.namespace, "").with_context(|| format!("cannot write `{}`", self.namespace.display()))?;
        command::run(Command::new("unshare").arg(format!("--net={}", self.namespace.display())).arg("true"))?;
        Ok(())
    }

    fn refuse_taken_addresses(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            match self.taken_addresses()? {
                // The link of a namespace that was just left goes away by itself, a moment later.
                Some(_) if begun.elapsed() < CLEARING => thread::sleep(Duration::from_millis(200)),
                Some(route) => bail!(
                    "the network {} of the cluster is in use: route `{}` by `{}`. Choose another private /15, for example \
                     MYCELIUM_NETWORK=10.200.0.0/15{}",
                    self.addresses,
                    route.dst,
                    route.dev.as_deref().unwrap_or("-"),
                    if route.dev.as_deref() == Some(LINK) {
                        "; or remove the cluster of another MYCELIUM_HOME first"
                    } else {
                        ""
                    }
                ),
                None => return Ok(()),
            }
        }
    }

    fn taken_addresses(&self) -> Result<Option<Route>> {
        let routes = command::run(Command::new("ip").args(["-4", "-json", "route", "show", "table", "all"]))?;
        let routes: Vec<Route> = serde_json::from_str(&routes).context("cannot read the routes")?;
        let taken =
            |route: &Route| route.dst != "default" && route.dst != "0.0.0.0/0" && self.addresses.overlaps(&route.dst);
        Ok(routes.into_iter().find(taken))
    }

    /// Forwarding, and the packet filter's view of bridged packets: a pod's answer to another pod that called it by a Service
    /// address must pass the translation a second time. All of these are the namespace's own and touch nothing of the machine.
    fn ensure_settings(&self) -> Result<bool> {
        // The file exists once the module is loaded; where it is built in, modprobe has nothing to do.
        let filter = "net/bridge/bridge-nf-call-iptables";
        if !Path::new("/proc/sys").join(filter).exists() {
            let _ = command::run(Command::new("modprobe").arg("br_netfilter"));
        }
        let mut changed = false;
        let settings = [
            ("net/ipv4/ip_forward", "1"),
            (filter, "1"),
            ("net/ipv6/conf/all/disable_ipv6", "1"),
            // Packets between pods pass the gateway on purpose, and a pod must not be told to avoid it.
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/default/send_redirects", "0"),
            // Whoever calls an address off the machine is told at once that there is no way, each time.
            ("net/ipv4/icmp_ratelimit", "0"),
        ];
        for (key, value) in settings {
            let path = format!("/proc/sys/{key}");
            let present = command::run(self.inside("cat").arg(&path)).with_context(|| {
                format!(
                    "the kernel setting `{key}` is missing: load the module br_netfilter, or use a kernel that has it"
                )
            })?;
            if present.trim() != value {
                command::run(self.inside("sh").args(["-c", &format!("echo {value} > {path}")]))?;
                changed = true;
            }
        }
        Ok(changed)
    }

    fn ensure_bridge(&self, nodes: u8) -> Result<bool> {
        let mut changed = false;
        let links = links(&mut self.inside("ip"))?;
        if !is_up(&links, BRIDGE) {
            let _ = self.inside_ip(&["link", "add", BRIDGE, "type", "bridge"]);
            self.inside_ip(&["link", "set", BRIDGE, "up"])?;
            changed = true;
        }
        // Pods whose bridge was deleted keep their ends of the wires; plugging them in again is all they need.
        for wire in links.iter().filter(|link| link.name.starts_with("veth") && link.master.is_none()) {
            self.inside_ip(&["link", "set", &wire.name, "master", BRIDGE])?;
            self.inside_ip(&["link", "set", &wire.name, "type", "bridge_slave", "hairpin", "on"])?;
            changed = true;
        }
        let own: Vec<String> = std::iter::once(format!("{}/16", self.addresses.gateway()))
            .chain((1..=nodes).map(|number| format!("{}/32", self.addresses.node(number))))
            .collect();
        changed |= self.ensure_addresses(BRIDGE, &own)?;
        // Translation of Service addresses happens after routing, so a route must exist, and it must not lead outside.
        changed |= ensure_route(|| self.inside("ip"), &self.addresses.service_range(), &["dev", BRIDGE])?;
        Ok(changed)
    }

    fn ensure_link(&self) -> Result<bool> {
        let mut changed = false;
        let outside = links(&mut Command::new("ip"))?;
        let inside = links(&mut self.inside("ip"))?;
        if !is_up(&outside, LINK) || !is_up(&inside, UPLINK) {
            let _ = self.inside_ip(&["link", "delete", UPLINK]);
            command::run(
                Command::new("ip")
                    .args(["link", "add", LINK, "type", "veth", "peer", "name", UPLINK, "netns"])
                    .arg(&self.namespace),
            )?;
            command::run(Command::new("ip").args(["link", "set", LINK, "up"]))?;
            self.inside_ip(&["link", "set", UPLINK, "up"])?;
            changed = true;
        }
        changed |= self.ensure_addresses(UPLINK, &[format!("{}/30", self.addresses.link_inside())])?;
        let outside = format!("{}/30", self.addresses.link_outside());
        if !addresses_of(&mut Command::new("ip"), LINK).contains(&outside) {
            command::run(Command::new("ip").args(["address", "add", &outside, "dev", LINK]))?;
            changed = true;
        }
        let via = self.addresses.link_inside().to_string();
        for range in [self.addresses.pod_range(), self.addresses.service_range()] {
            changed |= ensure_route(|| Command::new("ip"), &range, &["via", &via, "dev", LINK])?;
        }
        Ok(changed)
    }

    fn ensure_addresses(&self, device: &str, wanted: &[String]) -> Result<bool> {
        let present = addresses_of(&mut self.inside("ip"), device);
        let missing: Vec<&String> = wanted.iter().filter(|address| !present.contains(address)).collect();
        for address in &missing {
            self.inside_ip(&["address", "add", address, "dev", device])?;
        }
        Ok(!missing.is_empty())
    }

    fn inside_ip(&self, args: &[&str]) -> Result<String> {
        command::run(self.inside("ip").args(args))
    }
}

fn links(ip: &mut Command) -> Result<Vec<Link>> {
    let text = command::run(ip.args(["-json", "link", "show"]))?;
    serde_json::from_str(&text).context("cannot read the list of links")
}

fn is_up(links: &[Link], name: &str) -> bool {
    links.iter().any(|link| link.name == name && link.flags.iter().any(|flag| flag == "UP"))
}

/// Makes a route if there is none to this range; `ip` makes the command that shows and sets routes on one of the two sides.
fn ensure_route(ip: impl Fn() -> Command, range: &str, way: &[&str]) -> Result<bool> {
    let routes = command::run(ip().args(["-4", "-json", "route", "show", range]))?;
    let routes: Vec<Route> = serde_json::from_str(routes.trim()).unwrap_or_default();
    if !routes.is_empty() {
        return Ok(false);
    }
    command::run(ip().args(["-4", "route", "replace", range]).args(way))?;
    Ok(true)
}

/// Addresses of a device as `a.b.c.d/n`; none if there is no such device.
fn addresses_of(ip: &mut Command, device: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Device {
        #[serde(default)]
        addr_info: Vec<Info>,
    }
    #[derive(Deserialize)]
    struct Info {
        local: String,
        prefixlen: u8,
    }
    let text = command::run(ip.args(["-4", "-json", "address", "show", "dev", device])).unwrap_or_default();
    // Some versions print an empty object for a device without addresses, which is no `Device`.
    let devices: Vec<Device> = serde_json::from_str(&text).unwrap_or_default();
    let infos = devices.into_iter().flat_map(|device| device.addr_info);
    infos.map(|info| format!("{}/{}", info.local, info.prefixlen)).collect()
}
