//! The same cluster on kind, for machines with a Docker engine: images by `docker build`, nodes by kind.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command,
    deploy::References,
    kubectl::Kubectl,
    layout::{Layout, write_file},
    packages,
    progress::{Progress, Step},
};

/// The name of the cluster, as kind knows it.
const CLUSTER: &str = "mycelium";
/// How long kind may wait for its nodes.
const WAIT: &str = "--wait=180s";

/// Component and Dockerfile of each image.
const DOCKERFILES: [(&str, &str); 4] = [
    ("operator", "operator/Dockerfile"),
    ("sidecar", "sidecar/Dockerfile"),
    ("devchain", "e2e/devchain/Dockerfile"),
    ("example", "python/Dockerfile"),
];

/// kind and Docker, for one checkout.
pub struct KindCluster {
    root: PathBuf,
    layout: Layout,
}

impl KindCluster {
    /// The cluster for the checkout at `root`.
    pub fn new(root: PathBuf, layout: Layout) -> Self {
        Self { root, layout }
    }

    /// Brings the cluster up if it is not, and its images into it. Returns the images' references.
    ///
    /// # Errors
    /// When kind is not installed, or it or Docker fails.
    pub fn up(&self, progress: &Progress, nodes: u8, kubectl: &Kubectl) -> Result<References> {
        if packages::find("kind").is_none() {
            bail!("`kind` is not installed: `go install sigs.k8s.io/kind@v0.33.0` builds it, or use CLUSTER=local");
        }
        progress.step("kind cluster", |step| self.create(step, nodes, kubectl))?;
        let references = progress.step("docker images", |step| self.build(step))?;
        progress.step("images into kind", |step| Self::load(step, &references))?;
        Ok(references)
    }

    /// Deletes the cluster.
    ///
    /// # Errors
    /// When kind fails.
    pub fn down(&self, progress: &Progress) -> Result<()> {
        progress.step("kind cluster", |step| {
            command::run(Command::new("kind").args(["delete", "cluster", "--name", CLUSTER]))?;
            crate::daemon::remove_if_present(&self.layout.kind_kubeconfig())?;
            step.changed("deleted");
            Ok(())
        })
    }

    fn create(&self, step: &Step, nodes: u8, kubectl: &Kubectl) -> Result<()> {
        let clusters = command::run(Command::new("kind").args(["get", "clusters"]))?;
        let kubeconfig = self.layout.kind_kubeconfig();
        if clusters.lines().any(|name| name == CLUSTER) {
            let text = command::run(Command::new("kind").args(["get", "kubeconfig", "--name", CLUSTER]))?;
            write_file(&kubeconfig, text.as_bytes(), 0o600)?;
            kubectl
                .run(&["get", "--raw", "/readyz"])
                .context("the cluster of kind is there and does not answer: run `make down`, then `make up`")?;
            step.unchanged("running");
            return Ok(());
        }
        let path = self.root.join("kind-config.yaml");
        let config = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let grown = self.layout.home().join("kind-config.yaml");
        write_file(&grown, with_nodes(&config, nodes)?.as_bytes(), 0o644)?;
        let mut kind = Command::new("kind");
        kind.args(["create", "cluster", "--name", CLUSTER, WAIT]);
        kind.arg(format!("--config={}", grown.display())).arg(format!("--kubeconfig={}", kubeconfig.display()));
        command::stream(&mut kind, |line| step.say(line))?;
        step.changed("created");
        Ok(())
    }

    fn build(&self, step: &Step) -> Result<References> {
        let mut references = Vec::new();
        for (component, dockerfile) in DOCKERFILES {
            references.push(build_image(step, &self.root, component, dockerfile)?);
        }
        step.changed(references.join(", "));
        let [operator, sidecar, devchain, example] =
            <[String; 4]>::try_from(references).ok().context("four images were asked for")?;
        Ok(References { operator, sidecar, devchain, example })
    }

    fn load(step: &Step, references: &References) -> Result<()> {
        let mut kind = Command::new("kind");
        kind.args(["load", "docker-image", "--name", CLUSTER]);
        kind.args([&references.operator, &references.sidecar, &references.devchain, &references.example]);
        // kind itself leaves out what a node has.
        command::stream(&mut kind, |line| step.say(line))
    }
}

/// Builds an image and gives it a tag made from its content, so that an unchanged image changes no pod.
fn build_image(step: &Step, root: &Path, component: &str, dockerfile: &str) -> Result<String> {
    let name = format!("mycelium/{component}");
    let latest = format!("{name}:dev");
    let mut build = Command::new("docker");
    build.current_dir(root).args(["build", "--file", dockerfile, "--tag", &latest, "."]);
    command::stream(&mut build, |line| step.say(format!("{component}: {line}")))?;
    let id = command::run(Command::new("docker").args(["image", "inspect", "--format", "{{.Id}}", &latest]))?;
    let id = id.trim().trim_start_matches("sha256:");
    let tag = id.get(..12).with_context(|| format!("docker gave the image {latest} no id: `{id}`"))?;
    let reference = format!("{name}:{tag}");
    command::run(Command::new("docker").args(["tag", &latest, &reference]))?;
    Ok(reference)
}

/// The configuration with as many nodes: those of the file, then workers. `nodes` must be the last part of the file.
fn with_nodes(config: &str, nodes: u8) -> Result<String> {
    let part = config.find("\nnodes:\n").context("kind-config.yaml has no `nodes:`")?;
    let present = config[part..].lines().filter(|line| line.trim_start().starts_with("- role:")).count();
    let mut text = config.trim_end().to_owned();
    text.push('\n');
    for _ in present..usize::from(nodes) {
        text.push_str("  - role: worker\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_nodes_are_workers_beside_those_of_the_committed_file() {
        let config = include_str!("../../kind-config.yaml");
        assert_eq!(with_nodes(config, 1).unwrap(), config);
        let three = with_nodes(config, 3).unwrap();
        assert_eq!(three.matches("- role: control-plane").count(), 1);
        assert_eq!(three.matches("- role: worker").count(), 2);
        assert!(three.ends_with("  - role: worker\n  - role: worker\n"));
    }

    #[test]
    fn every_image_has_its_dockerfile() {
        for (_, dockerfile) in DOCKERFILES {
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(dockerfile).is_file(), "{dockerfile}");
        }
    }
}
