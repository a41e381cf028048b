//! Layers: sets of files as a tar archive whose bytes depend on the files alone.
//!
//! Names are sorted, times are zero, owners are numbers, and `/bin`, `/sbin` and `/lib` are the links that they are on a merged system. So
//! the same files give the same digest on every machine, a layer is found again by it, and an image changes when its content does.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use tar::{Archive, Builder, EntryType, Header};

/// A user and group of their own for everything that runs in our images.
pub(super) const USER: u64 = 65532;

/// Folders of old that are links into `/usr`.
pub(super) const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// The files of a layer that is being put together.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    entries: BTreeMap<PathBuf, File>,
}

#[derive(Clone, Debug)]
struct File {
    kind: Kind,
    mode: u32,
    owner: u64,
}

#[derive(Clone, Debug)]
enum Kind {
    Folder,
    Regular(Vec<u8>),
    Link(PathBuf),
    /// Another name of a file in the same layer.
    HardLink(PathBuf),
}

/// A finished layer.
#[derive(Clone, Debug)]
pub struct Layer {
    /// SHA-256 of the archive, in hexadecimal digits. The archive is not compressed, so it is digest and diff id in one.
    pub digest: String,
    /// The archive.
    pub archive: Arc<Vec<u8>>,
}

impl Files {
    /// Adds a regular file.
    pub(super) fn add(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        self.insert(Path::new(path), File { kind: Kind::Regular(content), mode, owner: 0 });
    }

    /// Adds a folder that belongs to `owner`.
    pub(super) fn add_folder(&mut self, path: &str, mode: u32, owner: u64) {
        self.insert(Path::new(path), File { kind: Kind::Folder, mode, owner });
    }

    /// Adds a symbolic link.
    pub(super) fn add_link(&mut self, path: &str, target: &str) {
        self.insert(Path::new(path), File { kind: Kind::Link(PathBuf::from(target)), mode: 0o777, owner: 0 });
    }

    /// Adds the files of a Debian package, given as the tar archive inside it, without what only people read.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub(super) fn add_package(&mut self, archive: &[u8]) -> Result<()> {
        for entry in Archive::new(archive).entries().context("cannot read a package")? {
            let mut entry = entry.context("cannot read a package")?;
            let path = clean(&entry.path().context("a file name cannot be read")?);
            if path.as_os_str().is_empty() || is_for_people(&path) {
                continue;
            }
            let target =
                entry.link_name().context("the target of a link cannot be read")?.map(std::borrow::Cow::into_owned);
            let kind = match entry.header().entry_type() {
                EntryType::Directory => Kind::Folder,
                EntryType::Regular => {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content).with_context(|| format!("cannot read `{}`", path.display()))?;
                    Kind::Regular(content)
                }
                EntryType::Symlink => Kind::Link(target.context("a link without a target")?),
                EntryType::Link => Kind::HardLink(merged(&clean(&target.context("a link without a target")?))),
                other => bail!("`{}` is of a kind that images here do not have: {other:?}", path.display()),
            };
            let mode = entry.header().mode().context("a file without permissions")? & 0o7777;
            self.insert(&path, File { kind, mode, owner: 0 });
        }
        Ok(())
    }

    /// Adds everything below a folder of this machine, at `prefix`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn add_tree(&mut self, folder: &Path, prefix: &str) -> Result<()> {
        let entries = fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read `{}`", folder.display()))?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let inside = format!("{prefix}/{name}");
            if name == "__pycache__" {
                continue;
            }
            let meta = path.symlink_metadata().with_context(|| format!("cannot examine `{}`", path.display()))?;
            if meta.is_dir() {
                self.add_folder(&inside, 0o755, 0);
                self.add_tree(&path, &inside)?;
            } else if meta.is_file() {
                let mode = if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
                self.add(&inside, mode, fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?);
            }
        }
        Ok(())
    }

    /// Takes a regular file out and returns its content.
    pub(super) fn take(&mut self, path: &str) -> Option<Vec<u8>> {
        match self.entries.remove(&merged(&clean(Path::new(path))))?.kind {
            Kind::Regular(content) => Some(content),
            _ => None,
        }
    }

    /// The paths of all files below a folder, in order.
    pub(super) fn below(&self, folder: &str) -> Vec<String> {
        let folder = merged(&clean(Path::new(folder)));
        let paths = self.entries.keys().filter(|path| path.starts_with(&folder) && **path != folder);
        paths.map(|path| path.display().to_string()).collect()
    }

    /// Leaves out what a lower layer has already.
    pub(super) fn without(mut self, lower: &Self) -> Self {
        self.entries.retain(|path, file| {
            !lower.entries.get(path).is_some_and(|present| match (&present.kind, &file.kind) {
                (Kind::Folder, Kind::Folder) => true,
                (Kind::Regular(ours), Kind::Regular(theirs)) => ours == theirs && present.mode == file.mode,
                (Kind::Link(ours), Kind::Link(theirs)) => ours == theirs,
                _ => false,
            })
        });
        self
    }

    /// The archive.
    ///
    /// # Errors
    /// When a name does not fit a tar archive.
    pub(super) fn into_layer(self) -> Result<Layer> {
        let mut builder = Builder::new(Vec::new());
        for (path, file) in &self.entries {
            let mut header = Header::new_gnu();
            header.set_mtime(0);
            header.set_uid(file.owner);
            header.set_gid(file.owner);
            header.set_mode(file.mode);
            header.set_size(0);
            let written = match &file.kind {
                Kind::Folder => {
                    header.set_entry_type(EntryType::Directory);
                    builder.append_data(&mut header, path, std::io::empty())
                }
                Kind::Regular(content) => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_size(content.len() as u64);
                    builder.append_data(&mut header, path, content.as_slice())
                }
                Kind::Link(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    builder.append_link(&mut header, path, target)
                }
                Kind::HardLink(target) => {
                    header.set_entry_type(EntryType::Link);
                    builder.append_link(&mut header, path, target)
                }
            };
            written.with_context(|| format!("cannot put `{}` into a layer", path.display()))?;
        }
        let archive = builder.into_inner().context("cannot finish a layer")?;
        Ok(Layer::new(archive))
    }

    fn insert(&mut self, path: &Path, file: File) {
        let path = merged(&clean(path));
        if path.as_os_str().is_empty() {
            return;
        }
        if matches!(file.kind, Kind::Folder) {
            // A package may call a folder what is a link here, in this layer or in one below it. The link wins.
            let is_link = MERGED.iter().any(|name| path == Path::new(name));
            if is_link || (self.entries.contains_key(&path) && file.owner == 0) {
                return;
            }
        }
        let mut parent = path.parent();
        while let Some(folder) = parent.filter(|folder| !folder.as_os_str().is_empty()) {
            self.entries.entry(folder.to_owned()).or_insert(File { kind: Kind::Folder, mode: 0o755, owner: 0 });
            parent = folder.parent();
        }
        self.entries.insert(path, file);
    }
}

impl Layer {
    /// A layer from its archive.
    pub fn new(archive: Vec<u8>) -> Self {
        let mut hash = Sha256::new();
        hash.update(&archive);
        Self { digest: hex::encode(hash.finalize()), archive: Arc::new(archive) }
    }

    /// Writes the archive to a file, for a later [`Layer::read`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        crate::layout::write_file(path, &self.archive, 0o644)?;
        Ok(())
    }

    /// Reads a layer.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        Ok(Self::new(fs::read(path).with_context(|| format!("cannot read the layer `{}`", path.display()))?))
    }
}

/// Manuals, translations and the papers of packages; licences stay.
fn is_for_people(path: &Path) -> bool {
    const FOLDERS: [&str; 8] = [
        "usr/share/doc-base",
        "usr/share/info",
        "usr/share/lintian",
        "usr/share/locale",
        "usr/share/man",
        "usr/share/bug",
        "usr/share/bash-completion",
        "usr/share/python3/debpython",
    ];
    FOLDERS.iter().any(|folder| path.starts_with(folder))
        || (path.starts_with("usr/share/doc") && path.file_name().is_some_and(|name| name != "copyright"))
}

/// The path without a leading slash and without dots.
fn clean(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// The path on a system whose `/bin`, `/sbin` and `/lib` are in `/usr`.
fn merged(path: &Path) -> PathBuf {
    let mut parts = path.components();
    match parts.next() {
        Some(Component::Normal(first)) if MERGED.iter().any(|name| first == *name) => {
            if parts.as_path().as_os_str().is_empty() { path.to_owned() } else { Path::new("usr").join(path) }
        }
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(layer: &Layer) -> Vec<String> {
        let mut archive = Archive::new(layer.archive.as_slice());
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    }

    fn package(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_mtime(1_700_000_000);
            if *kind == EntryType::Symlink {
                header.set_size(0);
                builder.append_link(&mut header, path, content).unwrap();
            } else {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, content.as_bytes()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn bytes_depend_on_the_files_and_not_on_their_order_or_times() {
        let mut first = Files::default();
        first.add("usr/bin/a", 0o755, b"a".to_vec());
        first.add("etc/b", 0o644, b"b".to_vec());
        let mut second = Files::default();
        second.add("/etc/b", 0o644, b"b".to_vec());
        second.add("./usr/bin/a", 0o755, b"a".to_vec());
        let first = first.into_layer().unwrap();
        assert_eq!(first.digest, second.clone().into_layer().unwrap().digest);
        assert_eq!(names(&first), ["etc", "etc/b", "usr", "usr/bin", "usr/bin/a"]);
        second.add("etc/b", 0o600, b"b".to_vec());
        assert_ne!(first.digest, second.into_layer().unwrap().digest);
    }

    #[test]
    fn packages_are_merged_into_usr_and_lose_their_manuals() {
        let mut files = Files::default();
        files.add_link("lib", "usr/lib");
        let archive = package(&[
            ("./lib", EntryType::Directory, ""),
            ("./lib/libc.so.6", EntryType::Regular, "code"),
            ("./usr/share/man/man1/a.1", EntryType::Regular, "manual"),
            ("./usr/share/doc/a/changelog", EntryType::Regular, "news"),
            ("./usr/share/doc/a/copyright", EntryType::Regular, "licence"),
            ("./usr/bin/b", EntryType::Symlink, "a"),
        ]);
        files.add_package(&archive).unwrap();
        let layer = files.into_layer().unwrap();
        let names = names(&layer);
        assert!(names.contains(&"usr/lib/libc.so.6".to_owned()), "{names:?}");
        assert!(names.contains(&"usr/share/doc/a/copyright".to_owned()));
        assert!(!names.iter().any(|name| name.contains("man1") || name.contains("changelog")));
        let mut archive = Archive::new(layer.archive.as_slice());
        let lib =
            archive.entries().unwrap().map(Result::unwrap).find(|entry| entry.path().unwrap() == Path::new("lib"));
        assert_eq!(lib.unwrap().header().entry_type(), EntryType::Symlink);
    }

    #[test]
    fn an_upper_layer_does_not_turn_the_links_of_a_lower_one_into_folders() {
        let mut files = Files::default();
        files
            .add_package(&package(&[("./lib", EntryType::Directory, ""), ("./lib/a.so", EntryType::Regular, "a")]))
            .unwrap();
        assert_eq!(names(&files.into_layer().unwrap()), ["usr", "usr/lib", "usr/lib/a.so"]);
    }

    #[test]
    fn a_layer_leaves_out_what_lies_below_it() {
        let mut lower = Files::default();
        lower.add("etc/a", 0o644, b"a".to_vec());
        let mut upper = lower.clone();
        upper.add("etc/b", 0o644, b"b".to_vec());
        assert_eq!(names(&upper.without(&lower).into_layer().unwrap()), ["etc/b"]);
    }
}
