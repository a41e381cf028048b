//! Base layers from the packages of the Debian that this machine runs.
//!
//! The same Debian and not a fixed one: our programs are linked against this machine's C library, and an older one in the image would not
//! run them. Packages are fetched by apt with the machine's own settings and unpacked, not installed: no script of a package runs, nothing needs
//! a second root, and what only installing needs is left out.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::layer::{Files, Layer, MERGED, USER};
use crate::{
    command,
    layout::{Layout, keep_only},
    packages,
    progress::Step,
    sha256_hex,
};

/// A change of the code below that changes the layers' content changes this number.
const RECIPE: u32 = 2;

/// Everything a program of ours needs: the C library, the compiler's runtime, the authorities of TLS.
const BASE: [&str; 4] = ["base-files", "ca-certificates", "libc6", "libgcc-s1"];

/// Python without pip and documentation.
const PYTHON: [&str; 2] = ["libpython3-stdlib", "python3-minimal"];

/// Packages that the ones above need for being installed, not for running.
const INSTALLERS: [&str; 13] = [
    "debconf",
    "dpkg",
    "gcc-12-base",
    "gcc-14-base",
    "libacl1",
    "libmd0",
    "libpcre2-8-0",
    "libselinux1",
    "libzstd1",
    "mawk",
    "openssl",
    "readline-common",
    "tar",
];

/// The two lowest layers of all images: the base, and Python on top of it.
pub(super) struct Bases {
    /// The base.
    pub base: Layer,
    /// What Python adds.
    pub python: Layer,
    /// The version of Python, `major.minor`.
    pub python_version: String,
}

/// The base layers, from the cache or made from packages.
///
/// # Errors
/// When packages cannot be fetched or read.
pub(super) fn ensure(step: &Step, layout: &Layout) -> Result<(Bases, bool)> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let key = key(&release)?;
    let folder = layout.image_cache().join(format!("base-{key}"));
    let version_file = folder.join("python-version");
    let made = !version_file.exists();
    if made {
        make(step, &folder)?;
        keep_only(&layout.image_cache(), "base-", &folder)?;
    }
    let python_version = fs::read_to_string(&version_file).context("cannot read the version of Python")?;
    let base = Layer::read(&folder.join("base.tar"))?;
    let python = Layer::read(&folder.join("python.tar"))?;
    Ok((Bases { base, python, python_version }, made))
}

fn key(release: &str) -> Result<String> {
    let field = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let id = field("ID").unwrap_or_default();
    if packages::find("apt-get").is_none() {
        bail!("images are made from Debian packages and this is `{id}` without apt-get: use CLUSTER=kind with Docker");
    }
    let version = field("VERSION_ID").unwrap_or_default();
    Ok(sha256_hex(format!("{RECIPE} {id} {version} {} {BASE:?} {PYTHON:?} {INSTALLERS:?}", std::env::consts::ARCH))
        [..12]
        .to_owned())
}

fn make(step: &Step, folder: &Path) -> Result<()> {
    let fetched = folder.with_extension(format!("packages-{}", std::process::id()));
    let result = fetch(step, &fetched).and_then(|()| unpack(step, &fetched, folder));
    let _ = fs::remove_dir_all(&fetched);
    result
}

/// Lets apt find and fetch the packages and what they depend on, as for a machine that has none yet.
fn fetch(step: &Step, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("partial")).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let download = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-o", "Dir::State::status=/dev/null", "-o", "Dir::State::extended_states=/dev/null"])
            .args(["-o", "APT::Install-Recommends=false", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"])
            .args(["-o", "DPkg::Pre-Install-Pkgs::=true", "-o"])
            .arg(format!("Dir::Cache::archives={}", folder.display()))
            .args(["--yes", "--download-only", "install"])
            .args(BASE)
            .args(PYTHON);
        command::stream(&mut apt, |line| step.say(line))
    };
    if download().is_ok() {
        return Ok(());
    }
    command::stream(Command::new("apt-get").arg("update"), |line| step.say(line))
        .and_then(|()| download())
        .context("cannot fetch the packages of the base images")
}

fn unpack(step: &Step, packages: &Path, folder: &Path) -> Result<()> {
    let mut names: Vec<String> = fs::read_dir(packages)
        .context("cannot read the fetched packages")?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            Path::new(name).extension().is_some_and(|kind| kind == "deb") && !INSTALLERS.contains(&package_of(name))
        })
        .collect();
    names.sort();
    let mut base = skeleton();
    let mut python = Files::default();
    for name in &names {
        step.say(format!("unpacking {name}"));
        let archive = packages.join(name);
        let content = fs_tarfile(&archive)?;
        if BASE.contains(&package_of(name)) {
            base.add_package(&content)?;
        } else {
            python.add_package(&content)?;
        }
    }
    bundle_authorities(&mut base)?;
    let python_version = python
        .below("usr/bin")
        .iter()
        .find_map(|path| path.strip_prefix("usr/bin/python").filter(|rest| rest.contains('.')).map(str::to_owned))
        .context("the packages hold no Python")?;
    python.add_link("usr/bin/python", "python3");
    let python = python.without(&base);
    base.into_layer()?.write(&folder.join("base.tar"))?;
    python.into_layer()?.write(&folder.join("python.tar"))?;
    // Last: its presence says that the others are whole.
    crate::layout::write_file(&folder.join("python-version"), python_version.as_bytes(), 0o644)?;
    Ok(())
}

/// What a fresh system has before any package: the merged folders, users, and room for temporary files.
fn skeleton() -> Files {
    let mut files = Files::default();
    for name in MERGED {
        files.add_folder(&format!("usr/{name}"), 0o755, 0);
        files.add_link(name, &format!("usr/{name}"));
    }
    files.add(
        "etc/passwd",
        0o644,
        format!(
            "root:x:0:0:root:/root:/sbin/nologin\nmycelium:x:{USER}:{USER}:mycelium:/home/mycelium:/sbin/nologin\n"
        )
        .into(),
    );
    files.add("etc/group", 0o644, format!("root:x:0:\nmycelium:x:{USER}:\n").into());
    files.add("etc/nsswitch.conf", 0o644, b"passwd: files\ngroup: files\nhosts: files dns\n".to_vec());
    files.add_folder("tmp", 0o1777, 0);
    files.add_folder("home/mycelium", 0o755, USER);
    files
}

/// Does what the script of ca-certificates would: all authorities in one file.
fn bundle_authorities(base: &mut Files) -> Result<()> {
    let mut bundle = Vec::new();
    for path in base.below("usr/share/ca-certificates") {
        if Path::new(&path).extension().is_some_and(|kind| kind == "crt") {
            bundle.extend(base.take(&path).unwrap_or_default());
        }
    }
    if bundle.is_empty() {
        bail!("the package ca-certificates holds no certificates");
    }
    base.add("etc/ssl/certs/ca-certificates.crt", 0o644, bundle);
    Ok(())
}

/// The tar archive inside a Debian package.
fn fs_tarfile(package: &Path) -> Result<Vec<u8>> {
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--fsys-tarfile").arg(package);
    let output = unpack.output().context("cannot start dpkg-deb")?;
    if !output.status.success() {
        bail!("cannot unpack `{}`: {}", package.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

fn package_of(file: &str) -> &str {
    file.split('_').next().unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authorities_of_tls_end_up_in_one_file() {
        let mut files = Files::default();
        files.add("usr/share/ca-certificates/mozilla/B.crt", 0o644, b"b\n".to_vec());
        files.add("usr/share/ca-certificates/mozilla/A.crt", 0o644, b"a\n".to_vec());
        bundle_authorities(&mut files).unwrap();
        assert_eq!(files.take("etc/ssl/certs/ca-certificates.crt").unwrap(), b"a\nb\n");
        assert!(bundle_authorities(&mut files).is_err());
    }

    #[test]
    fn another_debian_has_another_base() {
        let bookworm = key("ID=debian\nVERSION_ID=\"12\"\n").unwrap();
        assert_ne!(bookworm, key("ID=debian\nVERSION_ID=\"13\"\n").unwrap());
        assert_eq!(package_of("zlib1g_1%3a1.2.13.dfsg-1_amd64.deb"), "zlib1g");
    }
}
