//! Writes the CRDs, one file each, to every folder named: `cargo run -p crds --bin crdgen -- FOLDER...`.

use std::path::PathBuf;

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    anyhow::ensure!(!folders.is_empty(), "usage: crdgen FOLDER...");
    let files = crds::files()?;
    for folder in folders {
        for (name, text) in &files {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}
