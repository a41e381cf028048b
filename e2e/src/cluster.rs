//! A Kubernetes cluster made of plain processes: started in order, found again, repaired part by part, and taken away.
//!
//! Every run computes what should be there and compares it with what is; there is no memory of what an earlier run did beside the
//! files it left. So a first start, a second start and a repair are one and the same code.

mod control_plane;
mod network;
mod node;
mod objects;
mod state;
mod teardown;

use std::{
    fmt::Write as _,
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use self::network::{Ensured, Network};
pub use self::state::{NODES_MAX, State, Wanted};
use crate::{
    addresses::Addresses,
    command,
    daemon::{self, Daemon, Registry},
    image,
    kubectl::Kubectl,
    layout::{Layout, write_file},
    pki::Pki,
    programs::Programs,
    progress::{Progress, Step, megabytes},
    wait::wait_until,
};

/// How long a process may take to become healthy. On an idle machine it takes seconds; beside a compiler it takes many more.
const START_DEADLINE: Duration = Duration::from_mins(3);
/// How long a process that runs may fail its health check before it is taken for broken.
const HEALTH_GRACE: Duration = Duration::from_secs(15);
/// How long a process has to end when it is asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How long a health check over HTTP may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What all parts of a cluster are built from.
struct Site {
    layout: Layout,
    addresses: Addresses,
    network: Network,
    programs: Programs,
    /// Names of the nodes; their position is their number.
    nodes: Vec<String>,
}

/// A process of the cluster and the question that tells whether it works.
struct Member {
    daemon: Daemon,
    health: Health,
}

/// How the health of a process is asked for.
enum Health {
    /// A GET over HTTP, `host:port` and path, answered by 200.
    Http(String, &'static str),
    /// A GET over HTTPS with the administrator's certificate: base URL and path.
    Api(String, &'static str),
    /// A container runtime that answers on its socket.
    Containerd(PathBuf),
    /// It is enough that it runs.
    Alive,
}

/// A cluster, running or not.
pub struct Cluster {
    site: Site,
    registry: Registry,
    state: State,
}

/// A line of `status`.
pub struct MemberStatus {
    /// Name of the process.
    pub name: String,
    /// Its id, if it runs.
    pub pid: Option<i32>,
    /// The memory that it has in RAM.
    pub resident_bytes: Option<u64>,
}

impl Cluster {
    /// The cluster as it should be: what is on disk, and what was asked for.
    ///
    /// # Errors
    /// When what is there cannot become what was asked for.
    pub fn open(layout: &Layout, programs: Programs, wanted: &Wanted) -> Result<Self> {
        let state = State::settle(State::load(layout)?, wanted)?;
        let addresses = state.addresses()?;
        let network = Network::new(addresses, namespace_file(layout));
        let site = Site { layout: layout.clone(), addresses, network, programs, nodes: state.node_names() };
        Ok(Self { registry: Registry::new(layout), site, state })
    }

    /// kubectl with the administrator's rights.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.site.programs.path("kubectl"), self.site.layout.kubeconfig())
    }

    /// Names of the nodes.
    pub fn nodes(&self) -> &[String] {
        &self.site.nodes
    }

    /// Starts what does not run, restarts what is broken or outdated, and leaves everything else alone.
    ///
    /// # Errors
    /// When something cannot be started or does not become healthy, with the end of its log.
    pub fn start(&mut self, progress: &Progress) -> Result<()> {
        progress.step("ruins", |step| self.clear_ruins(step))?;
        self.state.boot_id = daemon::boot_id();
        self.state.save(&self.site.layout)?;
        progress.step("network", |step| self.start_network(step))?;
        let pki = Pki::new(self.site.layout.pki());
        control_plane::administrator(&self.site, &pki)?;
        let site = &self.site;
        let pause = image::pause()?;
        let mut runtimes = vec![control_plane::etcd(site, &pki)?];
        node::write_cni(site)?;
        for name in &site.nodes {
            node::ensure_cgroup(name)?;
            runtimes.push(node::containerd(site, name, &pause.reference())?);
        }
        progress.step("etcd, containerd", |step| self.ensure(step, &runtimes))?;
        progress.step("kube-apiserver", |step| self.ensure(step, &[control_plane::api_server(site, &pki)?]))?;
        progress.step("base objects", |step| self.apply_base_objects(step))?;
        progress.step("controllers, nodes, DNS", |step| {
            let mut rest = vec![
                control_plane::controller_manager(site, &pki)?,
                control_plane::scheduler(site, &pki)?,
                control_plane::proxy(site, &pki)?,
                control_plane::dns(site, &pki)?,
                control_plane::volumes(site, &pki)?,
            ];
            for (name, number) in site.nodes.iter().zip(1..) {
                rest.push(node::kubelet(site, &pki, name, number)?);
            }
            self.ensure(step, &rest)
        })?;
        progress.step("pause image", |step| {
            let imported = image::import(step, &self.runtimes(), &[pause])?;
            if imported == 0 {
                step.unchanged("imported");
            } else {
                step.changed("imported");
            }
            Ok(())
        })?;
        progress.step("nodes ready", |step| self.wait_for_nodes(step))
    }

    /// The sockets of the nodes' container runtimes.
    pub fn runtimes(&self) -> Vec<PathBuf> {
        self.site.nodes.iter().map(|node| self.site.layout.containerd_socket(node)).collect()
    }

    /// What runs and how much memory it takes.
    ///
    /// # Errors
    /// When the folder of process files cannot be read for another reason than that it is not there.
    pub fn status(layout: &Layout) -> Result<Vec<MemberStatus>> {
        let entries = match fs::read_dir(layout.run()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context("cannot read the folder of process files")?,
        };
        let registry = Registry::new(layout);
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter_map(|name| name.strip_suffix(".pid").map(str::to_owned)).collect();
        names.sort();
        let member = |name: String| {
            let pid = registry.pid(&name);
            MemberStatus { name, pid, resident_bytes: pid.and_then(daemon::resident_bytes) }
        };
        Ok(names.into_iter().map(member).collect())
    }

    /// Removes the cluster and everything that it left anywhere on the machine. Built programs and images stay.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove(layout: &Layout, progress: &Progress) -> Result<()> {
        let state = State::load(layout).unwrap_or_default();
        let registry = Registry::new(layout);
        let addresses = state.as_ref().map_or(crate::addresses::DEFAULT_NETWORK, |state| &state.network).parse()?;
        let network = Network::new(addresses, namespace_file(layout));
        progress.step("processes", |step| {
            match teardown::processes(layout, &registry)? {
                0 => step.unchanged("none"),
                ended => step.changed(format!("{ended} ended")),
            }
            Ok(())
        })?;
        progress.step("mounts, network, cgroups", |step| {
            let removed = network.remove()?;
            let mounts = teardown::mounts(&layout.cluster())?;
            teardown::cgroups()?;
            teardown::shared_places(layout);
            if removed || mounts > 0 {
                step.changed("removed");
            } else {
                step.unchanged("none");
            }
            Ok(())
        })?;
        progress.step("files", |step| {
            if let Some(state) = &state {
                state.restore_kernel_settings();
            }
            match fs::remove_dir_all(layout.cluster()) {
                Err(error) if error.kind() == ErrorKind::NotFound => step.unchanged("none"),
                result => {
                    result.with_context(|| format!("cannot remove `{}`", layout.cluster().display()))?;
                    step.changed(format!("removed {}", layout.cluster().display()));
                }
            }
            Ok(())
        })
    }

    /// What an earlier boot or a lost namespace left is in the way of a new start.
    fn clear_ruins(&self, step: &Step) -> Result<()> {
        let layout = &self.site.layout;
        let rebooted = self.state.boot_id != daemon::boot_id();
        if !rebooted && self.site.network.is_present() {
            step.unchanged("none");
            return Ok(());
        }
        step.say("ending what is left of the last run");
        let ended = teardown::processes(layout, &self.registry)?;
        self.site.network.remove()?;
        let mounts = teardown::mounts(&layout.cluster())?;
        teardown::shared_places(layout);
        // Sockets, process files and given addresses belong to what ran; data and images are kept.
        match fs::remove_dir_all(layout.run()) {
            Err(error) if error.kind() == ErrorKind::NotFound => step.unchanged("none"),
            result => {
                result.with_context(|| format!("cannot remove `{}`", layout.run().display()))?;
                step.changed(format!("cleared: {ended} processes, {mounts} mounts"));
            }
        }
        Ok(())
    }

    fn start_network(&self, step: &Step) -> Result<()> {
        match self.site.network.ensure(self.state.nodes)? {
            Ensured::Unchanged => step.unchanged(self.site.addresses.to_string()),
            Ensured::Repaired => step.changed("repaired"),
            Ensured::Created => step.changed(format!("created {}", self.site.addresses)),
        }
        Ok(())
    }

    /// Sees to it that all these run, healthy and as they should be. They start together and are waited for in order.
    fn ensure(&self, step: &Step, members: &[Member]) -> Result<()> {
        let mut started = Vec::new();
        for member in members {
            let name = &member.daemon.name;
            step.say(format!("looking at {name}"));
            match self.registry.state(&member.daemon)? {
                daemon::State::Running(_) if self.is_healthy(member) => continue,
                daemon::State::Running(_) | daemon::State::Outdated(_) => {
                    step.say(format!("restarting {name}"));
                    self.registry.stop(name, STOP_PATIENCE);
                }
                daemon::State::Stopped => {}
            }
            self.registry.start(&member.daemon)?;
            started.push(name.as_str());
        }
        for member in members.iter().filter(|member| started.contains(&member.daemon.name.as_str())) {
            step.say(format!("waiting for {}", member.daemon.name));
            self.registry.wait_healthy(&member.daemon.name, START_DEADLINE, || self.probe(&member.health))?;
        }
        if started.is_empty() {
            step.unchanged("running");
        } else if started.len() == members.len() {
            step.changed("started");
        } else {
            step.changed(format!("started {}", started.join(", ")));
        }
        Ok(())
    }

    /// Whether a running process answers; a busy machine gets some time before it is called broken.
    fn is_healthy(&self, member: &Member) -> bool {
        let begun = Instant::now();
        while self.probe(&member.health).is_err() {
            if begun.elapsed() > HEALTH_GRACE {
                return false;
            }
            thread::sleep(Duration::from_millis(300));
        }
        true
    }

    fn probe(&self, health: &Health) -> Result<(), String> {
        match health {
            Health::Alive => Ok(()),
            Health::Http(address, path) => http_get(address, path),
            Health::Api(server, path) => {
                let server = format!("--server={server}");
                let answer = self.kubectl().run(&[&server, "--request-timeout=5s", "get", "--raw", path]);
                answer.map(drop).map_err(|error| error.to_string())
            }
            Health::Containerd(socket) => {
                let mut ctr = Command::new("ctr");
                ctr.arg("--address").arg(socket).args(["--connect-timeout", "2s", "version"]);
                command::run(&mut ctr).map(drop).map_err(|error| error.to_string())
            }
        }
    }

    fn apply_base_objects(&self, step: &Step) -> Result<()> {
        let manifest = serde_json::to_vec(&objects::base(self.site.addresses))?;
        if self.kubectl().apply_changes(&manifest)? {
            step.changed("applied");
        } else {
            step.unchanged("present");
        }
        Ok(())
    }

    fn wait_for_nodes(&self, step: &Step) -> Result<()> {
        let kubectl = self.kubectl();
        let mut waited = false;
        wait_until(START_DEADLINE, "every node to be Ready", || {
            let list = kubectl.json(&["get", "nodes"])?;
            let missing = self.nodes().iter().filter(|name| !is_ready(&list, name));
            let missing: Vec<&str> = missing.map(String::as_str).collect();
            if missing.is_empty() {
                return Ok(());
            }
            waited = true;
            step.say(format!("waiting for {}", missing.join(", ")));
            bail!("not Ready: {}", missing.join(", "))
        })?;
        let text = format!("{} of {}", self.nodes().len(), self.nodes().len());
        if waited {
            step.changed(text);
        } else {
            step.unchanged(text);
        }
        Ok(())
    }
}

impl Site {
    /// A process of one of the built programs.
    fn program(&self, name: &str, program: &str) -> Daemon {
        Daemon::new(name, self.programs.path(program), self.network.namespace())
    }

    /// A process of a program of the machine.
    fn system_program(&self, name: &str, program: &str) -> Result<Daemon> {
        let path = crate::packages::find(program).with_context(|| format!("`{program}` is not installed"))?;
        Ok(Daemon::new(name, path, self.network.namespace()))
    }

    /// A copy of this program that stays what it is while the original is compiled anew.
    fn own_program(&self) -> Result<PathBuf> {
        let path = self.layout.run().join("mycelium-cluster");
        let own = std::env::current_exe().context("cannot find this program's own file")?;
        let content = fs::read(&own).with_context(|| format!("cannot read `{}`", own.display()))?;
        // The name carries the content, so that a new version counts as a change of the process.
        let path = path.with_extension(&crate::sha256_hex(&content)[..12]);
        if write_file(&path, &content, 0o755)? {
            for entry in fs::read_dir(self.layout.run()).context("cannot read the folder of process files")?.flatten() {
                let older =
                    entry.file_name().to_string_lossy().starts_with("mycelium-cluster.") && entry.path() != path;
                if older {
                    daemon::remove_if_present(&entry.path())?;
                }
            }
        }
        Ok(path)
    }

    fn write_config(&self, name: &str, config: &Value) -> Result<PathBuf> {
        let path = self.layout.config().join(name);
        write_file(&path, &serde_json::to_vec_pretty(config)?, 0o644)?;
        Ok(path)
    }
}

/// The table of `status`.
pub fn status_table(members: &[MemberStatus]) -> String {
    let mut text = format!("{:<28} {:>9} {:>10}\n", "PROCESS", "PID", "MEMORY");
    let mut total = 0;
    for member in members {
        let pid = member.pid.map_or_else(|| "stopped".to_owned(), |pid| pid.to_string());
        let memory = member.resident_bytes.map_or_else(|| "-".to_owned(), megabytes);
        total += member.resident_bytes.unwrap_or(0);
        let _ = writeln!(text, "{:<28} {pid:>9} {memory:>10}", member.name);
    }
    let _ = writeln!(text, "{:<28} {:>9} {:>10}", "in all (shared pages twice)", "", megabytes(total));
    text
}

fn namespace_file(layout: &Layout) -> PathBuf {
    layout.cluster().join("network")
}

fn is_ready(nodes: &Value, name: &str) -> bool {
    let items = nodes["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter(|node| node["metadata"]["name"] == name).any(|node| {
        let conditions = node["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    })
}

/// One GET without a library: the answers are the few words of a health check on this machine.
fn http_get(address: &str, path: &str) -> Result<(), String> {
    let socket: SocketAddr = address.parse().map_err(|error| format!("`{address}`: {error}"))?;
    let get = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&socket, PROBE_TIMEOUT)?;
        stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.take(16 << 10).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = get().map_err(|error| format!("http://{address}{path}: {error}"))?;
    let status = answer.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(format!("http://{address}{path}: {status}")) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use serde_json::json;

    use super::*;

    fn answering(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn only_a_200_counts_as_healthy() {
        assert_eq!(http_get(&answering("HTTP/1.0 200 OK\r\n\r\nok"), "/healthz"), Ok(()));
        let error = http_get(&answering("HTTP/1.1 503 Service Unavailable\r\n\r\n"), "/healthz").unwrap_err();
        assert!(error.contains("503"), "{error}");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert!(http_get(&closed, "/").is_err());
    }

    #[test]
    fn a_node_is_ready_when_its_own_condition_says_so() {
        let node = |name: &str, status: &str| {
            json!({
                "metadata": { "name": name },
                "status": { "conditions": [{ "type": "MemoryPressure", "status": "True" }, { "type": "Ready", "status": status }] },
            })
        };
        let list = json!({ "items": [node("a", "True"), node("b", "False")] });
        assert!(is_ready(&list, "a"));
        assert!(!is_ready(&list, "b"));
        assert!(!is_ready(&list, "c"));
    }
}
