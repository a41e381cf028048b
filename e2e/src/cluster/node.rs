//! A node: a containerd and a kubelet with folders, sockets, cgroup, address and certificate of their own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{Health, Member, Site, control_plane};
use crate::{
    image,
    layout::write_file,
    pki::{Pki, Subject},
};

const KUBELET_PORT: u16 = 10250;
const KUBELET_HEALTH_PORT: u16 = 10248;

/// The cgroup below which all nodes have theirs.
pub(super) const CGROUP: &str = "mycelium";
/// Where the kernel's cgroups are mounted.
pub(super) const CGROUP_MOUNT: &str = "/sys/fs/cgroup";

/// The container runtime of a node.
pub(super) fn containerd(site: &Site, node: &str, pause_image: &str) -> Result<Member> {
    let folder = site.layout.node(node);
    let socket = site.layout.containerd_socket(node);
    fs::create_dir_all(site.layout.run().join(node)).context("cannot make the folder of the container runtime")?;
    let config = containerd_config(&Containerd {
        root: &folder.join("containerd"),
        state: &site.layout.run().join(node).join("containerd"),
        socket: &socket,
        cni_config: &cni_folder(site),
        pause_image,
        snapshotter: image::snapshotter(&site.layout.run())?,
    });
    let file = site.layout.config().join(format!("containerd-{node}.toml"));
    write_file(&file, config.as_bytes(), 0o644)?;
    let daemon = site.system_program(&format!("containerd-{node}"), "containerd")?.file("config", file);
    Ok(Member { daemon, health: Health::Containerd(socket) })
}

/// The kubelet of a node. `number` counts from 1.
pub(super) fn kubelet(site: &Site, pki: &Pki, node: &str, number: u8) -> Result<Member> {
    let address = site.addresses.node(number).to_string();
    let folder = site.layout.node(node);
    let authority = pki.authority("ca")?;
    let file = format!("kubelet-{node}");
    let user = format!("system:node:{node}");
    let serves = [address.clone(), node.to_owned()];
    let pair =
        pki.issue(&authority, &Subject { file: &file, user: &user, group: Some("system:nodes"), serves: &serves })?;
    let kubeconfig = control_plane::write_kubeconfig(site, pki, &file, &pair)?;
    // kubelet hands this file to pods that ask for the node's resolver; the machine's own would lead outside.
    let resolver = site.layout.config().join("resolv.conf");
    write_file(&resolver, format!("nameserver {}\n", site.addresses.dns_service()).as_bytes(), 0o644)?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "port": KUBELET_PORT,
        "healthzBindAddress": address,
        "healthzPort": KUBELET_HEALTH_PORT,
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": authority.certificate() },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": pair.certificate,
        "tlsPrivateKeyFile": pair.key,
        "containerRuntimeEndpoint": format!("unix://{}", site.layout.containerd_socket(node).display()),
        "clusterDNS": [site.addresses.dns_service()],
        "clusterDomain": "cluster.local",
        "resolvConf": resolver,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{CGROUP}/{node}"),
        "failCgroupV1": false,
        "failSwapOn": false,
        // Lowering the score needs a capability that not every root has, and without it kubelet gives up.
        "oomScoreAdj": 0,
        "podLogsDir": folder.join("logs"),
        "volumePluginDir": folder.join("volume-plugins"),
        // The images cannot be pulled again, so none is ever collected, and the disk is the machine's to judge.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": { "memory.available": "100Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%" },
        "serializeImagePulls": false,
    });
    let config = site.write_config(&format!("kubelet-{node}.json"), &config)?;
    let mut daemon = site
        .program(&file, "kubelet")
        .file("config", config)
        .file("kubeconfig", kubeconfig)
        .flag("hostname-override", node)
        .flag("node-ip", &address)
        .flag("root-dir", folder.join("kubelet"))
        .flag("cert-dir", folder.join("certificates"));
    daemon.inputs.extend([pair.certificate, pair.key, authority.certificate()]);
    Ok(Member { daemon, health: Health::Http(format!("{address}:{KUBELET_HEALTH_PORT}"), "/healthz") })
}

/// Makes the cgroup of a node in every hierarchy that has one of its own; kubelet asks for it and does not make it.
pub(super) fn ensure_cgroup(node: &str) -> Result<()> {
    for hierarchy in hierarchies(Path::new(CGROUP_MOUNT)) {
        let mut folder = hierarchy.clone();
        for part in [CGROUP, node] {
            let parent = folder.clone();
            folder.push(part);
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("cannot make the cgroup `{}`", folder.display()));
                }
                _ => {}
            }
            // A v1 cpuset starts empty and takes no process until it has processors and memory.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let own = folder.join(file);
                if fs::read_to_string(&own).is_ok_and(|value| value.trim().is_empty()) {
                    let value = fs::read_to_string(parent.join(file)).unwrap_or_default();
                    if !value.trim().is_empty() {
                        fs::write(&own, value.trim()).with_context(|| format!("cannot write `{}`", own.display()))?;
                    }
                }
            }
            // v2: children have the controllers that their parent passes on.
            let controllers = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
            for controller in controllers.split_whitespace() {
                // Not every controller can be passed on everywhere; kubelet names the one that it misses.
                let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
    }
    Ok(())
}

/// The cgroup hierarchies: one on v2, one for each mounted controller on v1.
pub(super) fn hierarchies(mount: &Path) -> Vec<PathBuf> {
    if mount.join("cgroup.controllers").exists() {
        return vec![mount.to_owned()];
    }
    let entries = fs::read_dir(mount).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries
        // cpu may be a link to cpu,cpuacct
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .filter(|folder| folder.join("cgroup.procs").exists())
        .collect();
    folders.sort();
    folders
}

/// Writes how pods are wired; all nodes share it, and the list of given addresses with it.
pub(super) fn write_cni(site: &Site) -> Result<()> {
    let (first, last) = site.addresses.pod_addresses();
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "mycelium",
        "plugins": [
            {
                "type": "bridge",
                "bridge": super::network::BRIDGE,
                "isGateway": true,
                // A pod that calls its own Service gets its own packet back.
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": site.layout.run().join("addresses"),
                    "ranges": [[{
                        "subnet": site.addresses.pod_range(),
                        "rangeStart": first,
                        "rangeEnd": last,
                        "gateway": site.addresses.gateway(),
                    }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
        ],
    });
    write_file(&cni_folder(site).join("10-mycelium.conflist"), &serde_json::to_vec_pretty(&config)?, 0o644)?;
    Ok(())
}

fn cni_folder(site: &Site) -> PathBuf {
    site.layout.config().join("cni")
}

struct Containerd<'a> {
    root: &'a Path,
    state: &'a Path,
    socket: &'a Path,
    cni_config: &'a Path,
    pause_image: &'a str,
    snapshotter: &'a str,
}

fn containerd_config(with: &Containerd<'_>) -> String {
    let Containerd { root, state, socket, cni_config, pause_image, snapshotter } = with;
    let (root, state, socket) = (root.display(), state.display(), socket.display());
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]

[grpc]
address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
path = "{root}/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause_image}"
# Lowering the score needs a capability that not every root has, and without it no container starts.
restrict_oom_score_adj = true
tolerate_missing_hugetlb_controller = true
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni}"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{state}/runc"
"#,
        cni = cni_config.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_keeps_to_its_own_folders() {
        let config = containerd_config(&Containerd {
            root: Path::new("/h/root"),
            state: Path::new("/h/state"),
            socket: Path::new("/h/sock"),
            cni_config: Path::new("/h/cni"),
            pause_image: "mycelium/pause:1",
            snapshotter: "native",
        });
        for line in
            ["root = \"/h/root\"", "address = \"/h/sock\"", "snapshotter = \"native\"", "Root = \"/h/state/runc\""]
        {
            assert!(config.lines().any(|present| present == line), "{line} in\n{config}");
        }
        for place in config.split('"').filter(|text| text.starts_with('/')) {
            assert!(place.starts_with("/h/") || place == "/usr/lib/cni", "{place}");
        }
    }

    #[test]
    fn v1_has_a_hierarchy_for_each_controller_and_v2_has_one() {
        let folder = tempfile::tempdir().unwrap();
        for controller in ["cpu", "memory"] {
            fs::create_dir(folder.path().join(controller)).unwrap();
            fs::write(folder.path().join(controller).join("cgroup.procs"), "").unwrap();
        }
        fs::create_dir(folder.path().join("not-a-hierarchy")).unwrap();
        assert_eq!(hierarchies(folder.path()), [folder.path().join("cpu"), folder.path().join("memory")]);
        fs::write(folder.path().join("cgroup.controllers"), "cpu memory").unwrap();
        assert_eq!(hierarchies(folder.path()), [folder.path()]);
    }
}
