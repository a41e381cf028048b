//! Images, and the archive in which they travel to a container runtime.
//!
//! The archive is an OCI image layout with Docker's own index beside it: `ctr images import`, `docker load` and `kind load` all read it. Several
//! images in one archive share their layers.

use std::{collections::BTreeMap, io::Write, sync::Arc};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::layer::Layer;
use crate::sha256_hex;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What an image runs, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The command.
    pub entrypoint: Vec<String>,
    /// Arguments that a pod may replace.
    pub arguments: Vec<String>,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// `uid:gid`.
    pub user: String,
    /// The folder that the command starts in.
    pub folder: String,
}

/// An image.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name without registry and tag, like `mycelium/operator`.
    pub name: String,
    /// Tags beside the one made from its content.
    pub aliases: Vec<String>,
    layers: Vec<Layer>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Image {
    /// Puts an image together.
    ///
    /// # Errors
    /// Never in practice: the descriptions are made of text and numbers.
    pub fn new(name: &str, layers: Vec<Layer>, config: &Config) -> Result<Self> {
        let env: Vec<String> = config.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let digests: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", layer.digest)).collect();
        let config = serde_json::to_vec(&json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": config.entrypoint,
                "Cmd": config.arguments,
                "Env": env,
                "User": config.user,
                "WorkingDir": config.folder,
            },
            "rootfs": { "type": "layers", "diff_ids": digests },
            "history": layers.iter().map(|_| json!({ "created": "1970-01-01T00:00:00Z" })).collect::<Vec<_>>(),
        }))?;
        let descriptors = layers
            .iter()
            .zip(&digests)
            .map(|(layer, digest)| json!({ "mediaType": LAYER, "digest": digest, "size": layer.archive.len() }));
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": format!("sha256:{}", sha256_hex(&config)), "size": config.len() },
            "layers": descriptors.collect::<Vec<_>>(),
        }))?;
        Ok(Self { name: name.to_owned(), aliases: Vec::new(), layers, config, manifest })
    }

    /// Adds a tag that does not depend on the content.
    #[must_use]
    pub fn with_alias(mut self, tag: &str) -> Self {
        self.aliases.push(tag.to_owned());
        self
    }

    /// The tag made from the content.
    pub fn tag(&self) -> String {
        self.digest()[..12].to_owned()
    }

    /// Name and tag, as a pod names the image.
    pub fn reference(&self) -> String {
        format!("{}:{}", self.name, self.tag())
    }

    /// SHA-256 of the manifest, which is what names the image in a registry and in a runtime.
    pub fn digest(&self) -> String {
        sha256_hex(&self.manifest)
    }

    /// All full names, as a container runtime spells them.
    pub fn full_names(&self) -> Vec<String> {
        let tags = std::iter::once(self.tag()).chain(self.aliases.iter().cloned());
        tags.map(|tag| format!("docker.io/{}:{tag}", self.name)).collect()
    }

    /// Bytes of all layers.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.archive.len() as u64).sum()
    }

    /// Digests and sizes of the layers, the lowest first.
    pub fn layers(&self) -> impl Iterator<Item = (&str, u64)> {
        self.layers.iter().map(|layer| (layer.digest.as_str(), layer.archive.len() as u64))
    }
}

/// Writes an archive with these images.
///
/// # Errors
/// When the writer fails.
pub fn write(images: &[Image], out: impl Write) -> Result<()> {
    let mut builder = Builder::new(out);
    let mut blobs: BTreeMap<String, Arc<Vec<u8>>> = BTreeMap::new();
    let mut index: Vec<Value> = Vec::new();
    let mut docker: Vec<Value> = Vec::new();
    for image in images {
        let config = sha256_hex(&image.config);
        blobs.insert(image.digest(), Arc::new(image.manifest.clone()));
        blobs.insert(config.clone(), Arc::new(image.config.clone()));
        for layer in &image.layers {
            blobs.insert(layer.digest.clone(), Arc::clone(&layer.archive));
        }
        for name in image.full_names() {
            let tag = name.rsplit(':').next().unwrap_or_default();
            index.push(json!({
                "mediaType": MANIFEST,
                "digest": format!("sha256:{}", image.digest()),
                "size": image.manifest.len(),
                "annotations": { "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag },
            }));
        }
        docker.push(json!({
            "Config": format!("blobs/sha256/{config}"),
            "RepoTags": image.full_names().iter().map(|name| name.trim_start_matches("docker.io/")).collect::<Vec<_>>(),
            "Layers": image.layers.iter().map(|layer| format!("blobs/sha256/{}", layer.digest)).collect::<Vec<_>>(),
        }));
    }
    let index =
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": index });
    add(&mut builder, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut builder, "index.json", &serde_json::to_vec(&index)?)?;
    add(&mut builder, "manifest.json", &serde_json::to_vec(&docker)?)?;
    for (digest, content) in &blobs {
        add(&mut builder, &format!("blobs/sha256/{digest}"), content)?;
    }
    builder.into_inner().and_then(|mut out| out.flush()).context("cannot finish the image archive")
}

/// Bytes of the archive that [`write()`] makes, apart from its small parts.
pub fn expected_bytes(images: &[Image]) -> u64 {
    let layers: BTreeMap<&str, u64> = images.iter().flat_map(Image::layers).collect();
    layers.values().sum()
}

fn add(builder: &mut Builder<impl Write>, path: &str, content: &[u8]) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    builder
        .append_data(&mut header, path, content)
        .with_context(|| format!("cannot write `{path}` of the image archive"))
}

/// The processor as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _};

    use super::*;
    use crate::image::layer::Files;

    fn layer(content: &str) -> Layer {
        let mut files = Files::default();
        files.add("data", 0o644, content.as_bytes().to_vec());
        files.into_layer().unwrap()
    }

    fn image(name: &str, own: &str) -> Image {
        let config =
            Config { entrypoint: vec!["/run".to_owned()], user: "65532:65532".to_owned(), ..Config::default() };
        Image::new(name, vec![layer("base"), layer(own)], &config).unwrap()
    }

    fn members(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        let read = |mut entry: tar::Entry<'_, _>| {
            let mut content = Vec::new();
            let name = entry.path().unwrap().display().to_string();
            entry.read_to_end(&mut content).unwrap();
            (name, content)
        };
        entries.map(read).collect()
    }

    #[test]
    fn the_tag_follows_the_content() {
        assert_eq!(image("a", "one").reference(), image("a", "one").reference());
        assert_ne!(image("a", "one").tag(), image("a", "two").tag());
    }

    #[test]
    fn every_blob_has_the_digest_it_is_called_by_and_shared_layers_are_written_once() {
        let images = [image("mycelium/a", "one").with_alias("dev"), image("mycelium/b", "two")];
        let mut archive = Vec::new();
        write(&images, &mut archive).unwrap();
        let mut again = Vec::new();
        write(&images, &mut again).unwrap();
        assert_eq!(archive, again);
        let members = members(&archive);
        let blobs: Vec<_> = members.iter().filter(|(name, _)| name.starts_with("blobs/")).collect();
        assert_eq!(blobs.len(), 3 + 2 + 2, "layers, configurations, manifests");
        for (name, content) in blobs {
            assert_eq!(*name, format!("blobs/sha256/{}", sha256_hex(content)));
        }
    }

    #[test]
    fn the_index_leads_to_configuration_and_layers_under_every_name() {
        let image = image("mycelium/a", "one").with_alias("dev");
        let mut archive = Vec::new();
        write(std::slice::from_ref(&image), &mut archive).unwrap();
        let members = members(&archive);
        let parse = |name: &str| -> Value { serde_json::from_slice(&members[name]).unwrap() };
        let index = parse("index.json");
        let names: Vec<_> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["annotations"]["io.containerd.image.name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, [format!("docker.io/mycelium/a:{}", image.tag()), "docker.io/mycelium/a:dev".to_owned()]);
        let blob = |digest: &Value| format!("blobs/sha256/{}", digest.as_str().unwrap().trim_start_matches("sha256:"));
        let manifest = parse(&blob(&index["manifests"][0]["digest"]));
        let config = parse(&blob(&manifest["config"]["digest"]));
        assert_eq!(config["config"]["User"], "65532:65532");
        for (layer, diff) in
            manifest["layers"].as_array().unwrap().iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap())
        {
            assert_eq!(layer["digest"], *diff);
            assert_eq!(members[&blob(diff)].len() as u64, layer["size"].as_u64().unwrap());
        }
        assert_eq!(parse("manifest.json")[0]["RepoTags"][1], "mycelium/a:dev");
    }
}
