//! An image with the extension's files alone, in `lib` and `share/extension`: what `CloudNativePG` mounts as a volume beside
//! a server (18 or later, by `extension_control_path`). It is an OCI archive, which `skopeo copy oci-archive:…` pushes.

use super::{Content, SUMMARY, VERSION, architecture, tree};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::pg::Pg;
use xtask::shell;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Builds the image into `dir`.
pub(super) fn build(pg: Pg, content: &Content, dir: &Path) -> Result<PathBuf> {
    let files = tree()?;
    content.place(files.path(), "lib", "share/extension")?;
    let layout = tree()?;
    let blobs = layout.path().join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let layer = layout.path().join("layer");
    archive(files.path(), &layer)?;
    let layer = kept(&layer, &blobs, LAYER)?;
    let architecture = architecture()?;
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Labels": labels(pg)},
        // The layer isn't compressed, so this is also its digest.
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = put(&config, layout.path(), &blobs, CONFIG)?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer], "annotations": labels(pg),
    });
    let mut manifest = put(&manifest, layout.path(), &blobs, MANIFEST)?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": format!("{VERSION}-pg{}", pg.major())});
    manifest["platform"] = json!({"architecture": architecture, "os": "linux"});
    let index =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]});
    fs::write(layout.path().join("index.json"), index.to_string())?;
    fs::write(layout.path().join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
    let image = dir.join(format!("pg_enough-{VERSION}-pg{}-{architecture}.oci.tar", pg.major()));
    archive(layout.path(), &image)?;
    Ok(image)
}

fn labels(pg: Pg) -> Value {
    json!({
        "org.opencontainers.image.title": "pg_enough",
        "org.opencontainers.image.description": SUMMARY,
        "org.opencontainers.image.version": VERSION,
        "org.opencontainers.image.licenses": "PostgreSQL",
        "org.postgresql.major": pg.major().to_string(),
    })
}

/// Packs what is in `dir`, so that the same files give the same bytes.
fn archive(dir: &Path, to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--file"]);
    tar.arg(to).arg("--directory").arg(dir);
    for entry in sorted(dir)? {
        tar.arg(entry);
    }
    shell::output(&mut tar).map(drop)
}

/// The names in `dir`, but for files that are just being made there.
fn sorted(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Writes `value` among the blobs; its descriptor.
fn put(value: &Value, layout: &Path, blobs: &Path, kind: &str) -> Result<Value> {
    let path = layout.join("blob");
    fs::write(&path, value.to_string())?;
    kept(&path, blobs, kind)
}

/// Moves a file among the blobs, under its digest; its descriptor.
fn kept(path: &Path, blobs: &Path, kind: &str) -> Result<Value> {
    let sum = shell::output(Command::new("sha256sum").arg("--binary").arg(path))?;
    let digest = sum.split_whitespace().next().context("no digest")?;
    let size = fs::metadata(path)?.len();
    fs::rename(path, blobs.join(digest)).with_context(|| format!("can't keep {}", path.display()))?;
    Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": size}))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that a reader of the layout follows: index → manifest → config and layer, each of the size and the digest
    /// that is said.
    #[test]
    fn each_descriptor_fits_its_blob() -> Result<()> {
        let dir = tree()?;
        let (library, control) = (dir.path().join("pg_enough.so"), dir.path().join("pg_enough.control"));
        fs::copy("/proc/self/exe", &library)?;
        fs::write(&control, "default_version = '1'\n")?;
        let content = Content { library: Some(library), extension: vec![control] };
        let image = build(Pg::Pg18, &content, dir.path())?;
        let layout = dir.path().join("layout");
        fs::create_dir(&layout)?;
        shell::run(Command::new("tar").arg("--extract").arg("--file").arg(&image).arg("--directory").arg(&layout))?;
        let read = |path: &Path| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
        let blob = |descriptor: &Value| -> Result<PathBuf> {
            let digest =
                descriptor["digest"].as_str().and_then(|text| text.strip_prefix("sha256:")).context("no digest")?;
            let path = layout.join("blobs/sha256").join(digest);
            let sum = shell::output(Command::new("sha256sum").arg(&path))?;
            assert!(sum.starts_with(digest));
            assert_eq!(descriptor["size"], json!(fs::metadata(&path)?.len()));
            Ok(path)
        };
        let manifest = read(&blob(&read(&layout.join("index.json"))?["manifests"][0])?)?;
        let config = read(&blob(&manifest["config"])?)?;
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let listed = shell::output(Command::new("tar").arg("--list").arg("--file").arg(blob(&manifest["layers"][0])?))?;
        let files: Vec<&str> = listed.lines().filter(|line| !line.ends_with('/')).collect();
        assert_eq!(files, ["lib/pg_enough.so", "share/extension/pg_enough.control"]);
        Ok(())
    }
}
