//! Where things lie: one folder for all that is made, split into what `down` keeps and what it removes.

use std::{
    env, fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// Linux allows 107 bytes for the path of a socket; the longest one here needs this many after the home folder.
const SOCKET_TAIL_BYTES: usize = "/cluster/run/mycelium-99/containerd.sock.ttrpc".len();

/// All paths of one installation; every other module asks here and builds none of its own above these.
#[derive(Clone, Debug)]
pub struct Layout {
    home: PathBuf,
}

impl Layout {
    /// The layout below `home`, or below the cache folder of the user when none is given.
    ///
    /// # Errors
    /// When the path is so long that the sockets below it could not be opened, or is not absolute.
    pub fn new(home: Option<PathBuf>) -> Result<Self> {
        let home = match home {
            Some(home) => home,
            None => default_home()?,
        };
        if !home.is_absolute() {
            bail!("MYCELIUM_HOME `{}` is not an absolute path", home.display());
        }
        let length = home.as_os_str().len() + SOCKET_TAIL_BYTES;
        if length > 107 {
            bail!(
                "MYCELIUM_HOME `{}` is too long by {} bytes for the sockets below it: choose a shorter one",
                home.display(),
                length - 107
            );
        }
        Ok(Self { home })
    }

    /// The folder of everything.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Built programs, one folder for each set; `down` keeps them.
    pub fn programs(&self) -> PathBuf {
        self.home.join("programs")
    }

    /// Stable names of the programs that people call, kubectl and helm.
    pub fn bin(&self) -> PathBuf {
        self.home.join("bin")
    }

    /// Layers of base images and installed wheels; `down` keeps them.
    pub fn image_cache(&self) -> PathBuf {
        self.home.join("images")
    }

    /// Whoever changes anything holds a lock on this file.
    pub fn lock_file(&self) -> PathBuf {
        self.home.join("lock")
    }

    /// Everything of the running cluster; `down` removes it.
    pub fn cluster(&self) -> PathBuf {
        self.home.join("cluster")
    }

    /// What the cluster is made of, and what was there before it.
    pub fn state_file(&self) -> PathBuf {
        self.cluster().join("state.json")
    }

    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.cluster().join("pki")
    }

    /// Configuration files of the processes.
    pub fn config(&self) -> PathBuf {
        self.cluster().join("config")
    }

    /// Process files and sockets.
    pub fn run(&self) -> PathBuf {
        self.cluster().join("run")
    }

    /// One log file for each process.
    pub fn logs(&self) -> PathBuf {
        self.cluster().join("logs")
    }

    /// The administrator's kubeconfig of the cluster made of processes.
    pub fn kubeconfig(&self) -> PathBuf {
        self.cluster().join("kubeconfig")
    }

    /// The administrator's kubeconfig of the cluster made by kind.
    pub fn kind_kubeconfig(&self) -> PathBuf {
        self.home.join("kind.kubeconfig")
    }

    /// What a node keeps: images, containers, pods.
    pub fn node(&self, name: &str) -> PathBuf {
        self.cluster().join("nodes").join(name)
    }

    /// The socket of a node's containerd.
    pub fn containerd_socket(&self, node: &str) -> PathBuf {
        self.run().join(node).join("containerd.sock")
    }

    /// The data of dynamic volumes.
    pub fn volumes(&self) -> PathBuf {
        self.cluster().join("volumes")
    }
}

fn default_home() -> Result<PathBuf> {
    let user = env::var_os("HOME").filter(|home| !home.is_empty()).context(
        "neither MYCELIUM_HOME nor HOME is set: set MYCELIUM_HOME to the folder that may hold the cluster, about 3 GB",
    )?;
    Ok(PathBuf::from(user).join(".cache/mycelium"))
}

/// Writes `content` under `path` in one step, readable by others or by the owner alone; returns whether anything changed.
///
/// A file that already says so is left alone, so that its time stamp tells when it changed.
///
/// # Errors
/// When the folder or the file cannot be written.
pub fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<bool> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(false);
    }
    let folder = path.parent().with_context(|| format!("`{}` has no folder", path.display()))?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(".draft");
    let draft = PathBuf::from(draft);
    // A draft that a killed run left behind may have wider permissions than this one asks for.
    let _ = fs::remove_file(&draft);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&draft, path));
    written.with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(true)
}

/// Keeps one of the files and folders whose names begin alike; older versions of it in a cache are never asked for again.
///
/// # Errors
/// When one of the others cannot be removed.
pub(crate) fn keep_only(folder: &Path, prefix: &str, keep: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) && entry.path() != keep {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| format!("cannot remove `{}`", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_home_whose_sockets_could_not_be_opened_is_refused() {
        assert!(Layout::new(Some(PathBuf::from("/home/me/.cache/mycelium"))).is_ok());
        let long = PathBuf::from("/").join("x".repeat(70));
        let error = Layout::new(Some(long)).unwrap_err().to_string();
        assert!(error.contains("too long by"), "{error}");
        let error = Layout::new(Some(PathBuf::from("here"))).unwrap_err().to_string();
        assert!(error.contains("absolute"), "{error}");
    }

    #[test]
    fn a_written_file_has_its_mode_and_is_left_alone_when_it_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        assert!(write_file(&path, b"one", 0o600).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!write_file(&path, b"one", 0o600).unwrap());
        assert!(write_file(&path, b"two", 0o600).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }

    #[test]
    fn of_what_is_cached_under_one_prefix_the_newest_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["wheel-a.tar", "wheel-b.tar", "base-1"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::create_dir(folder.path().join("wheel-c")).unwrap();
        keep_only(folder.path(), "wheel-", &folder.path().join("wheel-b.tar")).unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["base-1", "wheel-b.tar"]);
    }
}
