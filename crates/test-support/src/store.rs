//! What the tests of the store share: an opened folder, small adapters, and a look at the files on disk.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use store::{
    Access, AdapterRecord, AdapterReference, AliasKey, Attribution, Digest, FileRole, Lineage,
    Name, NewAdapter, NewFile, Store, StoreError,
};

/// A name that is known to be one.
pub fn name(text: &str) -> Name {
    text.parse().expect(text)
}

/// A reference that is known to be one.
pub fn reference(text: &str) -> AdapterReference {
    text.parse().expect(text)
}

/// Of the backbone that [`open`] registers.
pub fn backbone_digest() -> Digest {
    Digest::of(b"backbone")
}

/// A test that gives this reason.
pub fn by(reason: &str) -> Attribution {
    Attribution {
        actor: "test".to_owned(),
        reason: reason.to_owned(),
    }
}

/// The alias `adapter@alias`.
pub fn alias(adapter: &str, alias: &str) -> AliasKey {
    AliasKey::Alias {
        adapter: name(adapter),
        alias: name(alias),
    }
}

/// An adapter with these files; the first one holds the weights.
pub fn new_adapter(adapter: &str, files: &[(&str, &[u8])]) -> NewAdapter {
    NewAdapter {
        name: name(adapter),
        backbone_digest: backbone_digest(),
        rank: 4,
        targets: "query, value in 12 layers".to_owned(),
        head: None,
        tags: BTreeSet::new(),
        notes: String::new(),
        report: serde_json::json!({"tensors": []}),
        lineage: Lineage::default(),
        files: files
            .iter()
            .enumerate()
            .map(|(index, (file, bytes))| NewFile {
                role: if index == 0 {
                    FileRole::Weights
                } else {
                    FileRole::Config
                },
                name: (*file).to_owned(),
                bytes: bytes.to_vec(),
            })
            .collect(),
    }
}

/// What `open` opens as soon as nobody has the lock: a task that ends may still hold it, or a program that another test starts, until
/// it is itself.
pub async fn when_free<T, E: Debug>(
    open: impl AsyncFn() -> Result<T, E>,
    is_in_use: impl Fn(&E) -> bool,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match open().await {
            Err(error) if is_in_use(&error) && Instant::now() < deadline => {
                tokio::task::yield_now().await;
            }
            opened => break opened.expect("open"),
        }
    }
}

/// Opens `folder` alone.
pub async fn open_alone(folder: &Path) -> Store {
    let open = async || Store::open(folder, Access::Exclusive).await;
    when_free(open, |error| matches!(error, StoreError::InUse { .. })).await
}

/// Opens `folder` alone, with the backbone that [`new_adapter`] names.
pub async fn open(folder: &Path) -> Store {
    let store = open_alone(folder).await;
    store
        .add_backbone(&name("tiny"), &backbone_digest(), "embedded")
        .await
        .expect("backbone");
    store
}

/// All files below `blobs/`, temporary ones too, in order.
pub fn files_on_disk(folder: &Path) -> Vec<PathBuf> {
    let list = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path)
            .expect("list")
            .map(|entry| entry.expect("entry").path())
            .collect()
    };
    let mut files: Vec<PathBuf> = list(&folder.join("blobs"))
        .iter()
        .flat_map(|shard| list(shard))
        .collect();
    files.sort();
    files
}

/// Where the blobs of these adapters are, in order.
pub fn files_of(folder: &Path, adapters: &[AdapterRecord]) -> Vec<PathBuf> {
    let files: BTreeSet<PathBuf> = adapters
        .iter()
        .flat_map(|adapter| &adapter.files)
        .map(|file| {
            let digest = file.digest.as_str();
            folder.join("blobs").join(&digest[..2]).join(digest)
        })
        .collect();
    files.into_iter().collect()
}

/// An adapter with one file of these bytes.
pub async fn import(store: &Store, adapter: &str, bytes: &[u8]) -> AdapterRecord {
    store
        .import_adapter(new_adapter(adapter, &[("model.safetensors", bytes)]))
        .await
        .expect("import")
}

/// A small separate file system, unmounted on drop.
pub struct SmallDisk(pub PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount.
    pub fn mount(path: PathBuf, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&path)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(path))
    }

    /// From here on nothing on it can be changed.
    pub fn make_read_only(&self) {
        let status = Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(&self.0)
            .status()
            .expect("mount");
        assert!(status.success(), "remount");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazy, as a failed test may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
