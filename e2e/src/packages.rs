//! Programs of the machine's distribution: which are needed, which are missing, and how they come.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{command, progress::Step};

/// A program that is needed, the Debian package that brings it, and the lowest version that will do, with how to ask for it.
struct Need {
    program: &'static str,
    package: &'static str,
    version: Option<(&'static str, (u32, u32))>,
}

const NEEDS: [Need; 10] = [
    Need { program: "containerd", package: "containerd", version: Some(("--version", (1, 6))) },
    Need { program: "ctr", package: "containerd", version: None },
    Need { program: "containerd-shim-runc-v2", package: "containerd", version: None },
    Need { program: "runc", package: "runc", version: Some(("--version", (1, 1))) },
    Need { program: "/usr/lib/cni/bridge", package: "containernetworking-plugins", version: None },
    Need { program: "/usr/lib/cni/portmap", package: "containernetworking-plugins", version: None },
    Need { program: "iptables", package: "iptables", version: Some(("--version", (1, 8))) },
    Need { program: "catatonit", package: "catatonit", version: None },
    Need { program: "ip", package: "iproute2", version: None },
    Need { program: "diff", package: "diffutils", version: None },
];

/// The Debian packages whose programs are not on this machine.
pub fn missing() -> Vec<&'static str> {
    let mut packages: Vec<_> =
        NEEDS.iter().filter(|need| find(need.program).is_none()).map(|need| need.package).collect();
    packages.dedup();
    packages
}

/// Installs what is missing and checks the versions of what is there.
///
/// # Errors
/// When a package cannot be installed or a program is too old.
pub fn ensure(step: &Step) -> Result<()> {
    let packages = missing();
    if packages.is_empty() {
        step.unchanged("installed");
    } else {
        install(step, &packages)?;
        step.changed(format!("installed {}", packages.join(", ")));
    }
    for need in &NEEDS {
        check_version(need)?;
    }
    Ok(())
}

/// The path of a program, looked up as a shell does, and in the administrator's folders even when PATH lacks them.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Some(PathBuf::from(program)).filter(|path| path.exists());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from));
    find_in(program, folders)
}

fn find_in(program: &str, folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let runs = |path: &Path| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    folders.map(|folder| folder.join(program)).find(|path| runs(path))
}

fn install(step: &Step, packages: &[&str]) -> Result<()> {
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.args(["install", "--yes", "--no-install-recommends"]).args(packages);
        // Started by hand, not by their packages: a second containerd would be nobody's.
        apt.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        command::stream(&mut apt, |line| step.say(line))
    };
    if install().is_ok() {
        return Ok(());
    }
    // The list of packages may be missing or older than the archive.
    command::stream(Command::new("apt-get").arg("update"), |line| step.say(line))
        .and_then(|()| install())
        .with_context(|| format!("cannot install {}: install them by hand, then try again", packages.join(", ")))
}

fn check_version(need: &Need) -> Result<()> {
    let Some((flag, least)) = need.version else { return Ok(()) };
    let text = command::run(Command::new(need.program).arg(flag))?;
    match first_version(&text) {
        Some(version) if version < least => bail!(
            "{} is version {}.{} and at least {}.{} is needed: install the package `{}` of a newer Debian",
            need.program,
            version.0,
            version.1,
            least.0,
            least.1,
            need.package
        ),
        _ => Ok(()),
    }
}

/// The first `major.minor` in a text.
fn first_version(text: &str) -> Option<(u32, u32)> {
    text.split(|sign: char| !(sign.is_ascii_digit() || sign == '.')).find_map(|word| {
        let mut numbers = word.split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say_of_themselves() {
        assert_eq!(
            first_version("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1"),
            Some((1, 6))
        );
        assert_eq!(first_version("runc version 1.1.5+ds1\ncommit: x"), Some((1, 1)));
        assert_eq!(first_version("iptables v1.8.9 (nf_tables)"), Some((1, 8)));
        assert_eq!(first_version("no number"), None);
    }

    #[test]
    fn a_file_that_cannot_be_run_is_no_program() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tool"), "").unwrap();
        assert_eq!(find_in("tool", [folder.path().to_owned()].into_iter()), None);
        assert!(find("sh").is_some());
    }
}
