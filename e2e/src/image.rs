//! The images of the workspace, made without Docker from the compiled programs, and their way into the nodes.

mod archive;
mod base;
mod layer;

use std::{
    fmt::Write as _,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

pub use self::archive::{Config, Image, expected_bytes, write};
use self::{
    base::Bases,
    layer::{Files, Layer, USER},
};
use crate::{
    command,
    layout::{Layout, keep_only},
    packages,
    progress::{Step, megabytes},
    sha256_hex,
};

/// The programs that have an image: the image's name, the program's file.
pub const PROGRAMS: [(&str, &str); 3] = [
    ("mycelium/operator", "mycelium-operator"),
    ("mycelium/sidecar", "mycelium-sidecar"),
    ("mycelium/devchain", "mycelium-devchain"),
];

/// The image of the examples in Python. It also has this tag, for manifests that people write by hand.
pub const EXAMPLE: (&str, &str) = ("mycelium/example", "dev");

/// Where the examples lie in their image.
const EXAMPLES: &str = "/opt/mycelium/examples";

/// The image that holds a pod's namespaces.
const PAUSE: &str = "mycelium/pause";

/// Where the workspace's products lie.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// The checkout.
    pub root: PathBuf,
    /// Cargo's target folder.
    pub target: PathBuf,
}

/// The image of the container that every pod has: it sleeps, and collects what other processes of the pod leave behind.
///
/// # Errors
/// When the program for it is not installed.
pub fn pause() -> Result<Image> {
    let program = packages::find("catatonit").context("`catatonit` is not installed")?;
    let mut files = Files::default();
    files.add("pause", 0o755, fs::read(&program).with_context(|| format!("cannot read `{}`", program.display()))?);
    let entrypoint = vec!["/pause".to_owned(), "-P".to_owned()];
    let config = Config { entrypoint, user: user(), folder: "/".to_owned(), ..Config::default() };
    Image::new(PAUSE, vec![files.into_layer()?], &config)
}

/// All images of the workspace.
///
/// # Errors
/// When a program or the wheel was not built yet, or a base cannot be made.
pub fn workspace(step: &Step, layout: &Layout, workspace: &Workspace) -> Result<Vec<Image>> {
    let (bases, made) = base::ensure(step, layout)?;
    let mut images = Vec::new();
    for (name, program) in PROGRAMS {
        step.say(format!("making {name}"));
        images.push(program_image(name, &workspace.program(program)?, &bases)?);
    }
    step.say(format!("making {}", EXAMPLE.0));
    images.push(example_image(step, layout, workspace, &bases)?);
    let bytes = expected_bytes(&images);
    let text = format!("{} images, {}", images.len(), megabytes(bytes));
    if made {
        step.changed(text);
    } else {
        step.unchanged(text);
    }
    Ok(images)
}

/// Imports into each runtime what it does not have. Returns how many images were imported in all.
///
/// # Errors
/// When a runtime refuses.
pub fn import(step: &Step, sockets: &[PathBuf], images: &[Image]) -> Result<usize> {
    let mut imported = 0;
    for socket in sockets {
        let present = list(socket)?;
        let missing: Vec<Image> = images.iter().filter(|image| !is_present(&present, image)).cloned().collect();
        if missing.is_empty() {
            continue;
        }
        let mut child = ctr(socket)
            .args(["images", "import", "--snapshotter"])
            .arg(snapshotter(socket.parent().context("a socket without a folder")?)?)
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start `ctr images import`")?;
        let pipe = child.stdin.take().context("`ctr` has no standard input")?;
        let total = expected_bytes(&missing);
        let mut done = 0;
        let written = write(
            &missing,
            Counting {
                inner: pipe,
                seen: |bytes| {
                    done += bytes;
                    step.say(format!("imported {} of {}", megabytes(done), megabytes(total)));
                },
            },
        );
        let output = child.wait_with_output().context("cannot wait for `ctr`")?;
        if !output.status.success() {
            bail!(
                "`ctr images import` failed with {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        written?;
        imported += missing.len();
    }
    Ok(imported)
}

/// Removes images of ours that are neither wanted nor of use for a pod that still runs, so that a day of rebuilding does not fill the disk.
///
/// # Errors
/// When a runtime refuses.
pub fn prune(sockets: &[PathBuf], wanted: &[Image]) -> Result<usize> {
    let keep: Vec<String> = wanted.iter().flat_map(Image::full_names).collect();
    let mut removed = 0;
    for socket in sockets {
        let containers = command::run(ctr(socket).args(["containers", "list"]))?;
        for (name, _) in list(socket)? {
            let ours = PROGRAMS
                .iter()
                .map(|(image, _)| *image)
                .chain([EXAMPLE.0])
                .any(|image| name.contains(&format!("/{image}:")));
            if ours && !keep.contains(&name) && !containers.contains(&name) {
                command::run(ctr(socket).args(["images", "remove", &name]))?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// The table of `images`.
pub fn table(images: &[Image]) -> String {
    let mut text = format!("{:<36} {:>9}  LAYERS\n", "IMAGE", "SIZE");
    for image in images {
        let layers: Vec<String> =
            image.layers().map(|(digest, size)| format!("{} {}", &digest[..8], megabytes(size))).collect();
        let _ = writeln!(text, "{:<36} {:>9}  {}", image.reference(), megabytes(image.size()), layers.join(", "));
    }
    let _ = writeln!(text, "{:<36} {:>9}", "together, shared layers once", megabytes(expected_bytes(images)));
    text
}

impl Workspace {
    fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.target.join("release").join(name);
        if !path.is_file() {
            bail!("`{}` is not built: run `make build`, or `make up`, which does so first", path.display());
        }
        Ok(path)
    }

    /// The newest wheel; an older one may lie beside it after a change of version.
    fn wheel(&self) -> Result<PathBuf> {
        let folders = [self.target.join("wheels"), self.root.join("target/wheels")];
        let wheels = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
        let newest = wheels
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("mycelium") && name.ends_with(".whl")
            })
            .max_by_key(|path| path.metadata().and_then(|file| file.modified()).ok());
        newest.with_context(|| {
            format!(
                "no wheel `mycelium*.whl` in `{}`: run `make build`, or `make up`, which does so first",
                folders[0].display()
            )
        })
    }
}

fn program_image(name: &str, program: &Path, bases: &Bases) -> Result<Image> {
    let file = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let content = fs::read(program).with_context(|| format!("cannot read `{}`", program.display()))?;
    let mut files = Files::default();
    files.add(&format!("usr/bin/{file}"), 0o755, content);
    let layers = vec![bases.base.clone(), files.into_layer()?];
    let config = Config {
        entrypoint: vec![format!("/usr/bin/{file}")],
        env: vec![path_variable()],
        user: user(),
        folder: "/home/mycelium".to_owned(),
        ..Config::default()
    };
    Image::new(name, layers, &config)
}

fn example_image(step: &Step, layout: &Layout, workspace: &Workspace, bases: &Bases) -> Result<Image> {
    let wheel = installed_wheel(step, layout, &workspace.wheel()?, &bases.python_version)?;
    let mut examples = Files::default();
    examples.add_tree(&workspace.root.join("python/examples"), EXAMPLES.trim_start_matches('/'))?;
    let layers = vec![bases.base.clone(), bases.python.clone(), wheel, examples.into_layer()?];
    let config = Config {
        entrypoint: vec!["/usr/bin/python3".to_owned()],
        env: vec![
            path_variable(),
            // What a pod prints must be in its log when it happens, and a read-only root takes no caches.
            ("PYTHONUNBUFFERED".to_owned(), "1".to_owned()),
            ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
        ],
        user: user(),
        folder: EXAMPLES.to_owned(),
        ..Config::default()
    };
    Ok(Image::new(EXAMPLE.0, layers, &config)?.with_alias(EXAMPLE.1))
}

/// The layer with the wheel and what it requires, for the Python of the image and not for the one that runs pip.
fn installed_wheel(step: &Step, layout: &Layout, wheel: &Path, python_version: &str) -> Result<Layer> {
    let content = fs::read(wheel).with_context(|| format!("cannot read `{}`", wheel.display()))?;
    let key = &sha256_hex([content.as_slice(), python_version.as_bytes()].concat())[..16];
    let cached = layout.image_cache().join(format!("wheel-{key}.tar"));
    if cached.exists() {
        return Layer::read(&cached);
    }
    let folder = layout.image_cache().join(format!("wheel-{key}.{}", std::process::id()));
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--disable-pip-version-check",
        "--no-input",
        "--target",
    ])
    .arg(&folder)
    .args(["--implementation", "cp", "--only-binary=:all:", "--python-version", python_version])
    .args(platforms().iter().flat_map(|platform| ["--platform", platform]).collect::<Vec<_>>())
    .arg(wheel);
    step.say("installing the wheel");
    let installed = command::run(&mut pip).context("cannot install the wheel for the example image").and_then(|_| {
        let mut files = Files::default();
        files.add_tree(&folder, "usr/lib/python3/dist-packages")?;
        // pip records where it came from and when, which would make the layer new each time.
        for path in files.below("usr/lib/python3/dist-packages") {
            if path.ends_with(".dist-info/RECORD") || path.ends_with(".dist-info/direct_url.json") {
                files.take(&path);
            }
        }
        files.into_layer()
    });
    let _ = fs::remove_dir_all(&folder);
    let layer = installed?;
    layer.write(&cached)?;
    keep_only(&layout.image_cache(), "wheel-", &cached)?;
    Ok(layer)
}

/// The platforms whose wheels run on the image's C library.
fn platforms() -> Vec<String> {
    let arch = std::env::consts::ARCH;
    let glibc = (17..=36).rev().map(|minor| format!("manylinux_2_{minor}_{arch}"));
    glibc.chain([format!("manylinux2014_{arch}"), format!("linux_{arch}")]).collect()
}

fn user() -> String {
    format!("{USER}:{USER}")
}

fn path_variable() -> (String, String) {
    ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())
}

fn ctr(socket: &Path) -> Command {
    let mut ctr = Command::new("ctr");
    ctr.arg("--address").arg(socket).args(["--namespace", "k8s.io"]);
    ctr
}

/// Names and digests of the images that a runtime has.
fn list(socket: &Path) -> Result<Vec<(String, String)>> {
    let text = command::run(ctr(socket).args(["images", "list"]))?;
    Ok(parse_list(&text))
}

fn parse_list(text: &str) -> Vec<(String, String)> {
    let rows = text.lines().skip(1).map(|line| line.split_whitespace());
    rows.filter_map(|mut words| {
        let name = words.next()?.to_owned();
        let digest = words.find(|word| word.starts_with("sha256:"))?.to_owned();
        Some((name, digest))
    })
    .collect()
}

fn is_present(present: &[(String, String)], image: &Image) -> bool {
    let digest = format!("sha256:{}", image.digest());
    image.full_names().into_iter().all(|name| present.contains(&(name, digest.clone())))
}

/// How a node keeps the layers of its containers: overlays cannot be stacked on an overlay, which is what the root of many containers is.
pub(crate) fn snapshotter(folder: &Path) -> Result<&'static str> {
    const OVERLAYFS_MAGIC: i64 = 0x794c_7630;
    let kind = rustix::fs::statfs(folder).with_context(|| format!("cannot examine `{}`", folder.display()))?;
    Ok(if kind.f_type == OVERLAYFS_MAGIC { "native" } else { "overlayfs" })
}

/// A writer that tells how much went through it.
struct Counting<W, F> {
    inner: W,
    seen: F,
}

impl<W: Write, F: FnMut(u64)> Write for Counting<W, F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        (self.seen)(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny(content: &str) -> Image {
        let mut files = Files::default();
        files.add("a", 0o644, content.as_bytes().to_vec());
        Image::new("mycelium/operator", vec![files.into_layer().unwrap()], &Config::default()).unwrap()
    }

    #[test]
    fn an_image_counts_as_present_under_all_its_names_and_with_its_content_only() {
        let image = tiny("one").with_alias("dev");
        let row = |tag: &str, digest: &str| {
            format!("docker.io/mycelium/operator:{tag} application/vnd.oci sha256:{digest} 1 B linux/amd64 -\n")
        };
        let header = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n";
        let full =
            parse_list(&format!("{header}{}{}", row(&image.tag(), &image.digest()), row("dev", &image.digest())));
        assert!(is_present(&full, &image));
        let stale =
            parse_list(&format!("{header}{}{}", row(&image.tag(), &image.digest()), row("dev", &tiny("two").digest())));
        assert!(!is_present(&stale, &image));
        assert!(!is_present(&[], &image));
    }

    #[test]
    fn a_missing_program_and_a_missing_wheel_are_named_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace { root: folder.path().to_owned(), target: folder.path().join("target") };
        for error in [workspace.program("mycelium-operator").unwrap_err(), workspace.wheel().unwrap_err()] {
            assert!(error.to_string().contains("make build"), "{error}");
        }
    }

    #[test]
    fn the_table_counts_shared_layers_once() {
        let text = table(&[tiny("one"), tiny("one")]);
        assert!(text.lines().last().unwrap().contains(&megabytes(tiny("one").size())), "{text}");
    }
}
