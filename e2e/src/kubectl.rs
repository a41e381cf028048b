//! kubectl as the suites use it: the users' own tool, with the cluster's own configuration, and answers as JSON.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{command, layout::Layout};

/// The field manager of everything that is applied by hand or by a suite.
const FIELD_MANAGER: &str = "--field-manager=mycelium-cluster";

/// A kubectl bound to one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// The program and the configuration that it is to use.
    pub fn new(program: PathBuf, kubeconfig: PathBuf) -> Self {
        Self { program, kubeconfig }
    }

    /// The kubectl of the cluster that `make up` left running, for the suites.
    ///
    /// # Errors
    /// When there is none.
    pub fn of_running_cluster() -> Result<Self> {
        let layout = Layout::new(std::env::var_os("MYCELIUM_HOME").map(PathBuf::from))?;
        let kubeconfig = [layout.kubeconfig(), layout.kind_kubeconfig()].into_iter().find(|path| path.exists());
        let kubeconfig = kubeconfig
            .with_context(|| format!("there is no cluster below `{}`: run `make up` first", layout.home().display()))?;
        Ok(Self::new(layout.bin().join("kubectl"), kubeconfig))
    }

    /// A kubectl command that has not run yet, for what is not covered below.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("KUBECONFIG", &self.kubeconfig).env_remove("KUBECTL_EXTERNAL_DIFF");
        command
    }

    /// Runs kubectl and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with its own words.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        command::run(&mut self.command(args))
    }

    /// Runs kubectl with `--output=json` and returns the answer.
    ///
    /// # Errors
    /// When it fails, or prints something else.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = command::run(self.command(args).arg("--output=json"))?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {} printed no JSON", args.join(" ")))
    }

    /// Applies a manifest server-side and takes over fields that others own.
    ///
    /// # Errors
    /// When the API server refuses, with its reason.
    pub fn apply(&self, manifest: &[u8]) -> Result<String> {
        let args = ["apply", "--server-side", "--force-conflicts", FIELD_MANAGER, "--filename=-"];
        command::run_with_input(&mut self.command(&args), manifest)
    }

    /// Applies a manifest if the cluster differs from it; returns whether it did.
    ///
    /// # Errors
    /// As [`Kubectl::apply`].
    pub fn apply_changes(&self, manifest: &[u8]) -> Result<bool> {
        if self.differs(manifest) {
            self.apply(manifest)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether applying the manifest would change anything. The API server itself is asked, by a dry run.
    ///
    /// What cannot be compared, for instance since its kind is not known yet, differs.
    pub fn differs(&self, manifest: &[u8]) -> bool {
        let args = ["diff", "--server-side", "--force-conflicts", FIELD_MANAGER, "--filename=-"];
        let diff = command::finish(&mut self.command(&args), manifest);
        !diff.is_ok_and(|(status, ..)| status.success())
    }

    /// A namespace for one test. It goes away with the returned value.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn namespace(&self, test: &str) -> Result<TestNamespace> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{test}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        if name.len() > 63 {
            bail!("`{test}` is too long for the name of a namespace: 63 characters with the number of the run");
        }
        self.run(&["create", "namespace", &name])?;
        Ok(TestNamespace { kubectl: self.clone(), name })
    }
}

/// A namespace that lives as long as a test. With `MYCELIUM_KEEP` set it stays, to be looked at.
#[derive(Debug)]
pub struct TestNamespace {
    kubectl: Kubectl,
    name: String,
}

impl TestNamespace {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        if std::env::var_os("MYCELIUM_KEEP").is_none() {
            // Not waited for: the next test has a namespace of its own.
            let _ = self.kubectl.run(&["delete", "namespace", &self.name, "--wait=false"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    /// A kubectl that writes down its arguments and answers as told.
    fn recorded(folder: &tempfile::TempDir, script: &str) -> Kubectl {
        let program = folder.path().join("kubectl");
        fs::write(&program, format!("#!/bin/sh\necho \"$@\" >>{}/calls\n{script}\n", folder.path().display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Kubectl::new(program, folder.path().join("kubeconfig"))
    }

    fn calls(folder: &tempfile::TempDir) -> String {
        fs::read_to_string(folder.path().join("calls")).unwrap()
    }

    #[test]
    fn nothing_is_applied_when_nothing_differs() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!recorded(&folder, "cat >/dev/null; exit 0").apply_changes(b"{}").unwrap());
        assert!(calls(&folder).starts_with("diff") && !calls(&folder).contains("apply"));
    }

    #[test]
    fn a_difference_and_an_object_that_cannot_be_compared_are_applied() {
        for code in [1, 2] {
            let folder = tempfile::tempdir().unwrap();
            let script = format!("cat >/dev/null; [ $1 = apply ] || exit {code}");
            assert!(recorded(&folder, &script).apply_changes(b"{}").unwrap());
            assert!(calls(&folder).contains("apply --server-side"));
        }
    }

    #[test]
    fn a_test_namespace_is_deleted_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let kubectl = recorded(&folder, "");
        let name = kubectl.namespace("scale").unwrap().name().to_owned();
        assert!(calls(&folder).contains(&format!("delete namespace {name} --wait=false")));
        assert!(kubectl.namespace(&"x".repeat(63)).unwrap_err().to_string().contains("too long"));
    }
}
