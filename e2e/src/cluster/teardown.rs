//! Taking a cluster away, whole or after a crash. The cluster is for throwing away, so nothing is asked to say goodbye: the same short
//! path serves a healthy cluster and the ruins of one, and is therefore always the tested one.
//!
//! Order: kubelets first, so that nothing is started again; then whatever runs in pods; then the other processes; then mounts, namespace and
//! cgroups, which cannot go before their users.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    mount::{UnmountFlags, unmount},
    process::Signal,
};

use super::node::{CGROUP, CGROUP_MOUNT};
use crate::{
    daemon::{self, Registry},
    layout::Layout,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Ends every process of the cluster: its daemons, the shims of its containers and the containers.
///
/// # Errors
/// When some process does not end.
pub(super) fn processes(layout: &Layout, registry: &Registry) -> Result<usize> {
    let begun = Instant::now();
    let mut ended = 0;
    stop_kubelets(layout, registry);
    // A shim that loses its container wants to write that down; what must not happen is that a new one starts meanwhile. Hence the rounds.
    loop {
        let mut pids = contained();
        pids.extend(registry.marked());
        pids.sort_unstable();
        pids.dedup();
        if pids.is_empty() {
            return Ok(ended);
        }
        if begun.elapsed() > PATIENCE {
            bail!("processes {pids:?} of the cluster do not end: look at them with `ps`, then run `make down` again");
        }
        for pid in &pids {
            daemon::signal(*pid, Signal::KILL);
        }
        daemon::wait_gone(&pids, Duration::from_secs(2));
        ended += pids.len();
    }
}

/// Undoes every mount below `folder`, the innermost first.
///
/// # Errors
/// When one cannot be undone.
pub(super) fn mounts(folder: &Path) -> Result<usize> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read the table of mounts")?;
    let below = mounts_below(&table, folder);
    for point in &below {
        unmount(point, UnmountFlags::DETACH).with_context(|| format!("cannot unmount `{}`", point.display()))?;
    }
    Ok(below.len())
}

/// Removes the cluster's cgroups.
///
/// # Errors
/// When one still has processes.
pub(super) fn cgroups() -> Result<()> {
    for root in cgroup_roots() {
        let begun = Instant::now();
        // The kernel needs a moment between the end of a process and an empty cgroup.
        while let Err(error) = remove_cgroup(&root) {
            if begun.elapsed() > PATIENCE {
                return Err(error).with_context(|| format!("cannot remove the cgroup `{}`", root.display()));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// Removes what lies outside the cluster's folder because its place is fixed in other programs: sockets of containerd's shims, results of
/// CNI plugins, links to logs, sockets of kubelet. Only what belongs to this cluster, and folders only when they are empty then.
pub(super) fn shared_places(layout: &Layout) {
    for socket in shim_sockets(&layout.run()) {
        let _ = fs::remove_file(socket);
    }
    let logs = Path::new("/var/log/containers");
    for entry in fs::read_dir(logs).into_iter().flatten().flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(layout.cluster())) {
            let _ = fs::remove_file(entry.path());
        }
    }
    let sandboxes = sandboxes(&layout.cluster().join("nodes"));
    for entry in fs::read_dir("/var/lib/cni/results").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if sandboxes.iter().any(|sandbox| name.contains(sandbox)) {
            let _ = fs::remove_file(entry.path());
        }
    }
    let _ = fs::remove_file("/var/lib/kubelet/device-plugins/kubelet.sock");
    let _ = fs::remove_file("/var/lib/kubelet/device-plugins/DEPRECATION");
    // Innermost first; a folder that someone else uses is not empty and stays.
    for folder in [
        "/run/containerd/s",
        "/run/containerd/fifo",
        "/run/containerd",
        "/var/log/containers",
        "/var/lib/cni/results",
        "/var/lib/cni",
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet",
        // What mount(8) and its library keep notes in.
        "/run/mount",
    ] {
        let _ = fs::remove_dir(folder);
    }
}

fn stop_kubelets(layout: &Layout, registry: &Registry) {
    for entry in fs::read_dir(layout.run()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(".pid").filter(|name| name.starts_with("kubelet-"))
            && let Some(pid) = registry.pid(name)
        {
            daemon::signal(pid, Signal::KILL);
            daemon::wait_gone(&[pid], PATIENCE);
        }
    }
}

/// The processes in the cluster's cgroups: everything that runs in a pod.
fn contained() -> Vec<i32> {
    let mut pids = Vec::new();
    for root in cgroup_roots() {
        walk(&root, &mut |folder| {
            let procs = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        });
    }
    pids
}

fn cgroup_roots() -> Vec<PathBuf> {
    super::node::hierarchies(Path::new(CGROUP_MOUNT))
        .into_iter()
        .map(|hierarchy| hierarchy.join(CGROUP))
        .filter(|root| root.exists())
        .collect()
}

fn remove_cgroup(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    visit(folder);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
}

/// A shim's socket lies in a folder of its own kind and is named in the shim's bundle.
fn shim_sockets(run: &Path) -> Vec<PathBuf> {
    let mut sockets = Vec::new();
    walk(run, &mut |folder| {
        let address = fs::read_to_string(folder.join("address")).unwrap_or_default();
        if let Some(path) = address.trim().strip_prefix("unix://")
            && path.starts_with("/run/containerd/s/")
        {
            sockets.push(PathBuf::from(path));
        }
    });
    sockets
}

/// The ids of all pods that the nodes' runtimes know, running or not. The results of CNI plugins are named after them.
fn sandboxes(nodes: &Path) -> Vec<String> {
    let runtimes = fs::read_dir(nodes)
        .into_iter()
        .flatten()
        .flatten()
        .map(|node| node.path().join("containerd/io.containerd.grpc.v1.cri/sandboxes"));
    let entries = runtimes.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|id| id.len() == 64).collect()
}

fn mounts_below(table: &str, folder: &Path) -> Vec<PathBuf> {
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescape(point)));
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(folder)).collect();
    // The table is in the order of mounting, and the last mounted is the first to go.
    below.reverse();
    below
}

/// The table of mounts writes blanks and backslashes as a backslash and three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        if let Some(byte) = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            plain.push(char::from(byte));
            rest = &after[3..];
        } else {
            plain.push('\\');
            rest = after;
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_folder_are_undone_innermost_first() {
        let table = "1 0 8:1 / / rw - ext4 a rw\n\
                     2 1 0:5 / /h/cluster/run rw - tmpfs t rw\n\
                     3 2 0:5 / /h/cluster/run/a\\040b rw - tmpfs t rw\n\
                     4 1 0:5 / /h/cluster-of-another rw - tmpfs t rw\n";
        let below = mounts_below(table, Path::new("/h/cluster"));
        assert_eq!(below, [PathBuf::from("/h/cluster/run/a b"), PathBuf::from("/h/cluster/run")]);
    }

    #[test]
    fn pods_of_all_nodes_are_known_by_their_runtimes_folders() {
        let folder = tempfile::tempdir().unwrap();
        let id = "ab".repeat(32);
        for node in ["n1", "n2"] {
            let sandboxes = folder.path().join(node).join("containerd/io.containerd.grpc.v1.cri/sandboxes");
            fs::create_dir_all(sandboxes.join(&id)).unwrap();
            fs::create_dir_all(sandboxes.join("x")).unwrap();
        }
        assert_eq!(sandboxes(folder.path()), [id.clone(), id], "a short name would match what is not ours");
    }

    #[test]
    fn sockets_of_shims_are_found_by_their_bundles() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("node/containerd/task/abc");
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join("address"), "unix:///run/containerd/s/12ab").unwrap();
        let other = folder.path().join("node/containerd/task/def");
        fs::create_dir_all(&other).unwrap();
        fs::write(other.join("address"), "unix:///etc/passwd").unwrap();
        assert_eq!(shim_sockets(folder.path()), [PathBuf::from("/run/containerd/s/12ab")]);
    }
}
