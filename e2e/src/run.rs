//! The subcommands of `mycelium-cluster`, put together from the parts.

use std::{fs, io::Write as _, path::PathBuf, process::Command as Process};

use anyhow::{Context as _, Result, bail};

use crate::{
    args::{Args, ClusterArgs, Command},
    choice::{Facts, Kind, choose, docker_answers},
    cluster::{Cluster, Wanted, status_table},
    deploy::{Deployment, References, how_to_use},
    image::{self, Image, Workspace},
    kind::KindCluster,
    kubectl::Kubectl,
    layout::Layout,
    packages,
    programs::{self, Programs},
    progress::Progress,
    provisioner,
};

/// Carries out the command line.
///
/// # Errors
/// Whatever went wrong, with the remedy where there is one.
pub fn run(args: Args) -> Result<()> {
    if let Command::Provisioner(args) = args.command {
        tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
        let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
        return runtime.block_on(provisioner::run(args.volumes));
    }
    let session = Session::new(&args)?;
    match args.command {
        Command::Up(args) => session.up(&args),
        Command::Down => session.down(),
        Command::Start(args) => session.start(&args),
        Command::Deploy => session.deploy(),
        Command::Images => session.images(),
        Command::Status => print(&status_table(&Cluster::status(&session.layout)?)),
        Command::Kubeconfig => print(&format!("{}\n", session.kubeconfig()?.display())),
        Command::Kubectl(args) => session.tool("kubectl", &args.words),
        Command::Helm(args) => session.tool("helm", &args.words),
        Command::Provisioner(_) => unreachable!("handled above"),
    }
}

struct Session {
    layout: Layout,
    workspace: Workspace,
    progress: Progress,
}

impl Session {
    fn new(args: &Args) -> Result<Self> {
        let layout = Layout::new(args.home.clone())?;
        let root =
            fs::canonicalize(&args.root).with_context(|| format!("there is no folder `{}`", args.root.display()))?;
        let target = args.target_dir.clone().unwrap_or_else(|| root.join("target"));
        Ok(Self { layout, workspace: Workspace { root, target }, progress: Progress::new() })
    }

    fn up(&self, args: &ClusterArgs) -> Result<()> {
        let _lock = self.lock()?;
        match self.choose(args.cluster)? {
            Kind::Local => {
                let cluster = self.start_local(&args.wanted())?;
                let images = self.local_images(&cluster)?;
                let deployment = self.local_deployment(&cluster, &images)?;
                deployment.run(&self.progress)?;
                self.progress.step("old images", |step| {
                    match image::prune(&cluster.runtimes(), &images)? {
                        0 => step.unchanged("none"),
                        removed => step.changed(format!("{removed} removed")),
                    }
                    Ok(())
                })?;
                self.finish(&deployment)
            }
            Kind::Kind => {
                let kubectl = self.tools_for_kind()?;
                let kind = KindCluster::new(self.workspace.root.clone(), self.layout.clone());
                let images = kind.up(&self.progress, args.nodes.unwrap_or(1), &kubectl)?;
                let deployment = self.deployment(kubectl, self.layout.kind_kubeconfig(), images);
                deployment.run(&self.progress)?;
                self.finish(&deployment)
            }
        }
    }

    fn start(&self, args: &ClusterArgs) -> Result<()> {
        let _lock = self.lock()?;
        if self.choose(args.cluster)? == Kind::Kind {
            bail!("`start` is for a cluster of processes: CLUSTER=local, or `up` for kind");
        }
        self.start_local(&args.wanted())?;
        self.report_changes();
        print(&self.progress.summary())
    }

    fn deploy(&self) -> Result<()> {
        let _lock = self.lock()?;
        let cluster = self.running()?;
        let images = self.local_images(&cluster)?;
        let deployment = self.local_deployment(&cluster, &images)?;
        deployment.run(&self.progress)?;
        self.finish(&deployment)
    }

    fn images(&self) -> Result<()> {
        let _lock = self.lock()?;
        let images = if self.layout.state_file().exists() {
            self.local_images(&self.running()?)?
        } else {
            self.progress.step("images", |step| image::workspace(step, &self.layout, &self.workspace))?
        };
        print(&image::table(&images))
    }

    fn down(&self) -> Result<()> {
        let _lock = self.lock()?;
        if self.layout.kind_kubeconfig().exists() {
            KindCluster::new(self.workspace.root.clone(), self.layout.clone()).down(&self.progress)?;
        }
        if self.layout.cluster().exists() {
            require_root(&self.layout)?;
            Cluster::remove(&self.layout, &self.progress)?;
        }
        if self.progress.changes().is_empty() {
            self.progress.note("There was no cluster.");
        } else {
            self.progress
                .note(&format!("Removed. Built programs and images stay in {}.", self.layout.home().display()));
        }
        Ok(())
    }

    fn tool(&self, name: &str, words: &[String]) -> Result<()> {
        use std::os::unix::process::CommandExt as _;
        let path = self.layout.bin().join(name);
        let error = Process::new(&path).args(words).env("KUBECONFIG", self.kubeconfig()?).exec();
        Err(error).with_context(|| format!("cannot run `{}`: run `make up` first", path.display()))
    }

    fn start_local(&self, wanted: &Wanted) -> Result<Cluster> {
        require_root(&self.layout)?;
        self.progress.step("packages", packages::ensure)?;
        let programs = self.programs()?;
        let mut cluster = Cluster::open(&self.layout, programs, wanted)?;
        cluster.start(&self.progress)?;
        Ok(cluster)
    }

    /// The cluster that an earlier run started.
    fn running(&self) -> Result<Cluster> {
        if !self.layout.state_file().exists() {
            bail!("there is no cluster below `{}`: run `make up` first", self.layout.home().display());
        }
        Cluster::open(&self.layout, Programs::chosen(&self.layout)?, &Wanted::default())
    }

    fn programs(&self) -> Result<Programs> {
        let sources = self.workspace.root.join("e2e/programs");
        self.progress.step("programs", |step| programs::ensure(step, &self.layout, &sources))
    }

    fn local_images(&self, cluster: &Cluster) -> Result<Vec<Image>> {
        let images = self.progress.step("images", |step| image::workspace(step, &self.layout, &self.workspace))?;
        self.progress.step("images into nodes", |step| {
            match image::import(step, &cluster.runtimes(), &images)? {
                0 => step.unchanged("imported"),
                imported => step.changed(format!("imported {imported}")),
            }
            Ok(())
        })?;
        Ok(images)
    }

    fn local_deployment(&self, cluster: &Cluster, images: &[Image]) -> Result<Deployment> {
        let reference = |name: &str| {
            let image = images.iter().find(|image| image.name == name);
            image.map(Image::reference).with_context(|| format!("there is no image {name}"))
        };
        let images = References {
            operator: reference("mycelium/operator")?,
            sidecar: reference("mycelium/sidecar")?,
            devchain: reference("mycelium/devchain")?,
            example: reference(image::EXAMPLE.0)?,
        };
        Ok(self.deployment(cluster.kubectl(), self.layout.kubeconfig(), images))
    }

    fn deployment(&self, kubectl: Kubectl, kubeconfig: PathBuf, images: References) -> Deployment {
        Deployment {
            kubectl,
            helm: self.layout.bin().join("helm"),
            kubeconfig,
            root: self.workspace.root.clone(),
            images,
        }
    }

    /// With kind, kubectl and helm of the machine serve as well as ours, and save their compilation.
    fn tools_for_kind(&self) -> Result<Kubectl> {
        match (packages::find("kubectl"), packages::find("helm")) {
            (Some(kubectl), Some(helm)) => {
                programs::point(&self.layout.bin().join("kubectl"), &kubectl)?;
                programs::point(&self.layout.bin().join("helm"), &helm)?;
            }
            _ => drop(self.programs()?),
        }
        Ok(Kubectl::new(self.layout.bin().join("kubectl"), self.layout.kind_kubeconfig()))
    }

    fn choose(&self, wanted: Option<Kind>) -> Result<Kind> {
        choose(Facts {
            wanted,
            local_exists: self.layout.state_file().exists(),
            kind_exists: self.layout.kind_kubeconfig().exists(),
            docker_answers: wanted != Some(Kind::Local) && docker_answers(),
        })
    }

    fn kubeconfig(&self) -> Result<PathBuf> {
        let paths = [self.layout.kubeconfig(), self.layout.kind_kubeconfig()];
        let path = paths.into_iter().find(|path| path.exists());
        path.with_context(|| {
            format!("there is no cluster below `{}`: run `make up` first", self.layout.home().display())
        })
    }

    /// One at a time: two runs would start everything twice.
    fn lock(&self) -> Result<fs::File> {
        let path = self.layout.lock_file();
        fs::create_dir_all(self.layout.home()).with_context(|| {
            format!("cannot make `{}`: set MYCELIUM_HOME to a folder that can be written", self.layout.home().display())
        })?;
        let file = fs::File::create(&path).with_context(|| format!("cannot open `{}`", path.display()))?;
        if file.try_lock().is_err() {
            self.progress.note("Another run of this program is at work; waiting for it to end.");
            file.lock().with_context(|| format!("cannot lock `{}`", path.display()))?;
        }
        Ok(file)
    }

    fn report_changes(&self) {
        if self.progress.changes().is_empty() {
            self.progress.note("Everything was as it should be: nothing was changed.");
        }
    }

    fn finish(&self, deployment: &Deployment) -> Result<()> {
        self.report_changes();
        let table = deployment.table()?;
        let use_it = how_to_use(&deployment.kubeconfig, &self.layout.bin());
        print(&format!("{}\n{table}\n{use_it}", self.progress.summary()))
    }
}

fn require_root(layout: &Layout) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "a cluster of processes needs root for containers and networks: run `sudo -E env MYCELIUM_HOME={} make up`, or use CLUSTER=kind \
         with a Docker engine that you may use",
        layout.home().display()
    )
}

fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads the first lines only has what they want.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot print"),
    }
}
