//! The data folder from outside: who may open it, and what damaged, foreign, full and read-only folders give.

use std::fs;
use std::path::Path;
use store::{Access, AdapterFilter, DATABASE_FILE, Store, StoreError};
use test_support::store::{
    SmallDisk, files_of, files_on_disk, import, name, new_adapter, open, open_alone, reference,
};

#[tokio::test]
async fn a_second_process_is_refused_and_a_reader_is_not() {
    let folder = tempfile::tempdir().expect("folder");
    let error = Store::open(folder.path(), Access::Shared)
        .await
        .expect_err("nothing there");
    assert!(matches!(error, StoreError::NoDatabase { .. }), "{error}");
    let store = open(folder.path()).await;
    let error = Store::open(folder.path(), Access::Exclusive)
        .await
        .expect_err("second");
    let sentence = error.to_string();
    assert!(
        matches!(error, StoreError::InUse { holder: Some(id), .. } if id == std::process::id()),
        "{sentence}"
    );
    assert!(
        sentence.contains(&folder.path().display().to_string()) && sentence.contains("--data-dir"),
        "{sentence}"
    );

    let adapter = import(&store, "meta", b"1").await;
    let reader = Store::open(folder.path(), Access::Shared)
        .await
        .expect("reader");
    assert_eq!(
        reader.resolve(&reference("meta")).await.expect("read").id,
        adapter.id
    );
    assert_eq!(
        reader
            .read_file(&adapter, "model.safetensors")
            .await
            .expect("file"),
        b"1"
    );
    let denied = [
        reader
            .import_adapter(new_adapter("meta", &[("weights", b"x")]))
            .await
            .map(|_| ()),
        reader.delete_adapter(adapter.id).await.map(|_| ()),
        reader.gc().await.map(|_| ()),
        reader.mark_used(&[(adapter.id, 1)]).await,
        reader.set_adapter_notes(adapter.id, "x").await,
        reader.delete_backbone(&name("tiny")).await,
    ];
    for result in denied {
        assert!(
            matches!(result, Err(StoreError::SharedAccess)),
            "{result:?}"
        );
    }
    reader.close().await;
    store.close().await;
    open(folder.path()).await;
}

#[tokio::test]
async fn a_damaged_blob_is_found_when_it_is_read() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let adapter = import(&store, "meta", b"weights").await;
    let path = &files_of(folder.path(), std::slice::from_ref(&adapter))[0];
    fs::write(path, b"weighty").expect("damage");
    let error = store
        .read_file(&adapter, "model.safetensors")
        .await
        .expect_err("damaged");
    assert!(
        error.to_string().contains(&path.display().to_string()),
        "{error}"
    );
    assert!(
        matches!(error, StoreError::BlobDamaged { digest, .. } if digest == adapter.files[0].digest)
    );
    import(&store, "copy", b"weights").await;
    assert_eq!(
        store
            .read_file(&adapter, "model.safetensors")
            .await
            .expect("repaired"),
        b"weights"
    );
}

/// Overwrites `bytes` at `offset` of the closed database.
fn overwrite(folder: &Path, offset: usize, bytes: &[u8]) {
    let path = folder.join(DATABASE_FILE);
    let mut content = fs::read(&path).expect("database");
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
    fs::write(path, content).expect("database");
}

#[tokio::test]
async fn a_damaged_database_is_refused_and_its_blobs_stay() {
    for (offset, length) in [(0, 100), (4096, 2000)] {
        let folder = tempfile::tempdir().expect("folder");
        let store = open(folder.path()).await;
        import(&store, "meta", b"1").await;
        store.close().await;
        overwrite(folder.path(), offset, &vec![0xa5; length]);
        let error = Store::open(folder.path(), Access::Exclusive)
            .await
            .expect_err("damaged");
        assert!(
            matches!(error, StoreError::CorruptDatabase { .. }),
            "at {offset}: {error}"
        );
        assert_eq!(files_on_disk(folder.path()).len(), 1);
    }
}

#[tokio::test]
async fn a_lost_database_does_not_cost_the_blobs() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    import(&store, "meta", b"1").await;
    store.close().await;
    fs::remove_file(folder.path().join(DATABASE_FILE)).expect("remove");
    let error = Store::open(folder.path(), Access::Exclusive)
        .await
        .expect_err("lost");
    assert!(
        matches!(error, StoreError::LostDatabase { blobs: 1, .. }),
        "{error}"
    );
    assert_eq!(files_on_disk(folder.path()).len(), 1);
}

#[tokio::test]
async fn what_is_not_a_data_folder_is_refused_by_its_kind() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |text: &str| folder.path().join(text);
    fs::write(at("file"), b"x").expect("file");
    fs::create_dir_all(at("blobs-file")).expect("folder");
    fs::write(at("blobs-file/blobs"), b"x").expect("file");
    fs::create_dir_all(at("database-folder").join(DATABASE_FILE)).expect("folder");
    fs::create_dir_all(at("text")).expect("folder");
    fs::write(
        at("text").join(DATABASE_FILE),
        "no database at all, only text".repeat(100),
    )
    .expect("file");
    let open = async |path: &str| {
        let error = Store::open(&at(path), Access::Exclusive)
            .await
            .expect_err(path);
        (error.to_string(), error)
    };
    for path in ["file", "file/below", "blobs-file"] {
        let (sentence, error) = open(path).await;
        assert!(
            matches!(error, StoreError::NotAFolder { .. }),
            "{path}: {sentence}"
        );
    }
    let (sentence, error) = open("database-folder").await;
    assert!(matches!(error, StoreError::NotAFile { .. }), "{sentence}");
    let (sentence, error) = open("text").await;
    assert!(
        matches!(error, StoreError::CorruptDatabase { .. }),
        "{sentence}"
    );
    assert!(sentence.contains("is damaged"), "{sentence}");
}

#[tokio::test]
async fn a_full_disk_is_named_and_costs_nothing_that_was_stored() {
    let folder = tempfile::tempdir().expect("folder");
    let Some(disk) = SmallDisk::mount(folder.path().to_path_buf(), "3m") else {
        eprintln!(
            "SKIPPED: this test mounts a small tmpfs, for which this user lacks the right (run as root)"
        );
        return;
    };
    let store = open(&disk.0).await;
    let mut stored = Vec::new();
    let error = loop {
        let count = u8::try_from(stored.len()).expect("3 MB are full before 256 imports");
        let (weights, config) = ([count; 150_000], [count; 10]);
        match store
            .import_adapter(new_adapter(
                "meta",
                &[("config", &config), ("weights", &weights)],
            ))
            .await
        {
            Ok(adapter) => stored.push(adapter),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(stored.len() >= 5, "{} adapters fitted", stored.len());
    assert_eq!(files_on_disk(&disk.0), files_of(&disk.0, &stored));
    // Not a byte is left, and still the folder opens and an adapter can be deleted; then it goes on.
    store.close().await;
    let filler = disk.0.join("filler");
    let filled = fs::write(&filler, vec![0; 4 << 20]);
    assert!(filled.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull));
    for count in 1..=2 {
        let store = open_alone(&disk.0).await;
        let deleted = stored.remove(0);
        store
            .delete_adapter(deleted.id)
            .await
            .expect("delete on a full disk");
        assert_eq!(
            files_on_disk(&disk.0),
            files_of(&disk.0, &stored),
            "deletion {count}"
        );
        store.close().await;
    }
    let store = open_alone(&disk.0).await;
    stored.push(import(&store, "small", b"small").await);
    store.close().await;
    fs::remove_file(filler).expect("filler");

    let store = open(&disk.0).await;
    let mut listed = store
        .list_adapters(&AdapterFilter::default())
        .await
        .expect("list");
    listed.reverse();
    assert_eq!(listed, stored);
    for adapter in &listed {
        store
            .read_file(adapter, &adapter.files[0].name)
            .await
            .expect("whole");
    }
    store.close().await;

    disk.make_read_only();
    let error = Store::open(&disk.0, Access::Exclusive)
        .await
        .expect_err("read-only");
    assert!(
        matches!(error, StoreError::ReadOnlyFileSystem { .. }),
        "{error}"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_without_permission_is_named_with_what_to_do() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("folder");
    let locked = folder.path().join("locked");
    fs::create_dir(&locked).expect("folder");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).expect("chmod");
    if fs::write(locked.join("probe"), b"").is_ok() {
        eprintln!("SKIPPED: permissions do not hold for this user (root); run as another user");
        return;
    }
    for path in [locked.clone(), locked.join("below")] {
        let error = Store::open(&path, Access::Exclusive)
            .await
            .expect_err("locked");
        assert!(
            matches!(error, StoreError::PermissionDenied { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("chmod"), "{error}");
    }
}
