//! Adapters and backbones in the registry: what reads back, what is found, what is refused, and what disk use says.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use store::{AdapterFilter, AdapterHead, AdapterRecord, Digest, Lineage, StoreError};
use test_support::store::{
    alias, backbone_digest, by, files_on_disk, import, name, new_adapter, open, reference,
};

#[tokio::test]
async fn an_imported_adapter_reads_back_whole_after_a_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let parent = import(&store, "parent", b"parent").await;
    let mut new = new_adapter(
        "meta",
        &[("model.safetensors", b"weights"), ("config.json", b"{}")],
    );
    new.head = Some(AdapterHead {
        classes: 2,
        labels: vec!["cat".to_owned(), "dög".to_owned()],
    });
    new.tags = BTreeSet::from([name("b"), name("a")]);
    new.notes = "two 'lines'\nof \"notes\"".to_owned();
    new.report = serde_json::json!({"ignored": ["text_model"]});
    new.lineage = Lineage {
        parents: vec![parent.as_parent()],
        recipe: Some(serde_json::json!({"method": "svd"})),
    };
    let made = store.import_adapter(new.clone()).await.expect("import");
    store
        .mark_used(&[(made.id, 7), (made.id, 5)])
        .await
        .expect("mark");
    store.close().await;

    let store = open(folder.path()).await;
    let read = store.resolve(&reference("meta")).await.expect("resolve");
    assert_eq!(read.last_used_ms, Some(7));
    assert_eq!(
        AdapterRecord {
            last_used_ms: None,
            ..read.clone()
        },
        made
    );
    assert_eq!(
        (read.label(), read.rank, &read.backbone),
        ("meta:1".to_owned(), 4, &name("tiny"))
    );
    assert_eq!(
        (&read.head, &read.tags, &read.notes, &read.lineage),
        (&new.head, &new.tags, &new.notes, &new.lineage)
    );
    assert_eq!(
        store.adapter_report(read.id).await.expect("report"),
        new.report
    );
    assert_eq!(read.size_bytes(), 9);
    assert_eq!(
        store
            .read_file(&read, "model.safetensors")
            .await
            .expect("file"),
        b"weights"
    );
    let error = store
        .read_file(&read, "model.safetensor")
        .await
        .expect_err("unknown file");
    assert_eq!(
        error.to_string(),
        "the adapter meta:1 has no file \"model.safetensor\"; did you mean \"model.safetensors\"?"
    );
    // Lineage outlives the parent.
    store.delete_adapter(parent.id).await.expect("delete");
    assert_eq!(
        store.adapter(read.id).await.expect("child").lineage,
        new.lineage
    );
}

#[tokio::test]
async fn unknown_references_name_what_is_near() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    for _ in 0..2 {
        import(&store, "meta", b"weights").await;
    }
    let newest = store.resolve(&reference("meta")).await.expect("newest");
    assert_eq!(newest.version, 2);
    store
        .move_alias(&alias("meta", "champion"), newest.id, &by("best"))
        .await
        .expect("alias");
    assert_eq!(
        store
            .resolve(&reference("meta@champion"))
            .await
            .expect("alias")
            .id,
        newest.id
    );
    for (wrong, sentence) in [
        (
            "mata",
            "there is no adapter \"mata\"; did you mean \"meta\"?",
        ),
        (
            "meta:3",
            "there is no adapter \"meta:3\"; did you mean \"meta:1\" or \"meta:2\"?",
        ),
        (
            "meta@champ",
            "there is no adapter \"meta@champ\"; did you mean \"meta@champion\"?",
        ),
        ("flowers", "there is no adapter \"flowers\""),
    ] {
        let error = store.resolve(&reference(wrong)).await.expect_err(wrong);
        assert_eq!(error.to_string(), sentence);
    }
    let error = store.backbone(&name("tinny")).await.expect_err("backbone");
    assert_eq!(
        error.to_string(),
        "there is no backbone \"tinny\"; did you mean \"tiny\"?"
    );
}

#[tokio::test]
async fn a_refused_import_leaves_no_row_no_file_and_no_version_number() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let mut stranger = new_adapter("meta", &[("weights", b"x")]);
    stranger.backbone_digest = Digest::of(b"unknown");
    let refusals = [
        (stranger, "there is no backbone"),
        (new_adapter("meta", &[]), "at least one file"),
        (
            new_adapter("meta", &[("../weights", b"x")]),
            "\"../weights\" cannot be the name",
        ),
        (
            new_adapter("meta", &[("weights", b"x"), ("weights", b"y")]),
            "the file \"weights\" is there twice",
        ),
    ];
    for (new, words) in refusals {
        let error = store
            .import_adapter(new)
            .await
            .expect_err(words)
            .to_string();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!(files_on_disk(folder.path()), Vec::<PathBuf>::new());
    assert_eq!(import(&store, "meta", b"x").await.version, 1);
}

#[tokio::test]
async fn imports_at_the_same_time_get_different_versions_and_survive_a_gc_beside_them() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let tasks: Vec<_> = (0..8_u8)
        .map(|index| {
            let store = store.clone();
            tokio::spawn(async move {
                let adapter = import(&store, "meta", &[index; 1000]).await;
                store.gc().await.expect("gc");
                adapter.version
            })
        })
        .collect();
    let mut versions = Vec::new();
    for task in tasks {
        versions.push(task.await.expect("task"));
    }
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4, 5, 6, 7, 8]);
    for adapter in store
        .list_adapters(&AdapterFilter::default())
        .await
        .expect("list")
    {
        store
            .read_file(&adapter, "model.safetensors")
            .await
            .expect("whole");
    }
}

#[tokio::test]
async fn lists_filter_and_page() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let flowers = import(&store, "flowers", b"1").await;
    let birds = import(&store, "birds", b"2").await;
    let meta = import(&store, "meta", b"3").await;
    store
        .set_adapter_tags(birds.id, &BTreeSet::from([name("Animals")]))
        .await
        .expect("tags");
    store
        .set_adapter_notes(meta.id, "Made of flowers")
        .await
        .expect("notes");
    let list = async |filter: AdapterFilter| -> Vec<String> {
        let found = store.list_adapters(&filter).await.expect("list");
        found
            .into_iter()
            .map(|adapter| adapter.name.to_string())
            .collect()
    };
    let all = AdapterFilter::default;
    assert_eq!(list(all()).await, ["meta", "birds", "flowers"]);
    assert_eq!(
        list(AdapterFilter {
            search: Some("FLOWER".to_owned()),
            ..all()
        })
        .await,
        ["meta", "flowers"]
    );
    assert_eq!(
        list(AdapterFilter {
            search: Some("animal".to_owned()),
            ..all()
        })
        .await,
        ["birds"]
    );
    assert_eq!(
        list(AdapterFilter {
            search: Some("%".to_owned()),
            ..all()
        })
        .await,
        Vec::<String>::new()
    );
    assert_eq!(
        list(AdapterFilter {
            tag: Some(name("Animals")),
            ..all()
        })
        .await,
        ["birds"]
    );
    assert_eq!(
        list(AdapterFilter {
            name: Some(name("meta")),
            ..all()
        })
        .await,
        ["meta"]
    );
    assert_eq!(
        list(AdapterFilter {
            backbone_digest: Some(Digest::of(b"")),
            ..all()
        })
        .await,
        Vec::<String>::new()
    );
    assert_eq!(
        list(AdapterFilter {
            limit: Some(2),
            ..all()
        })
        .await,
        ["meta", "birds"]
    );
    assert_eq!(
        list(AdapterFilter {
            before: Some(birds.id),
            limit: Some(2),
            ..all()
        })
        .await,
        ["flowers"]
    );
    let nobody = uuid::Uuid::now_v7();
    for tags in [BTreeSet::new(), BTreeSet::from([name("x")])] {
        assert!(matches!(
            store.set_adapter_tags(nobody, &tags).await,
            Err(StoreError::UnknownAdapter { .. })
        ));
    }
    assert!(matches!(
        store.set_adapter_notes(nobody, "").await,
        Err(StoreError::UnknownAdapter { .. })
    ));
    assert_eq!(flowers.tags, BTreeSet::new());
}

#[tokio::test]
async fn backbones_are_known_by_digest_and_cannot_go_while_used() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let (tiny, other) = (name("tiny"), name("other"));
    let again = store
        .add_backbone(&tiny, &backbone_digest(), "elsewhere")
        .await
        .expect("again");
    assert_eq!(again.source, "embedded", "nothing changed");
    let error = store
        .add_backbone(&other, &backbone_digest(), "")
        .await
        .expect_err("same digest");
    assert!(matches!(error, StoreError::BackboneExists { name, .. } if name == tiny));
    let error = store
        .add_backbone(&tiny, &Digest::of(b"x"), "")
        .await
        .expect_err("same name");
    assert!(
        matches!(error, StoreError::BackboneNameTaken { digest, .. } if digest == backbone_digest())
    );
    let adapter = import(&store, "meta", b"1").await;
    let error = store.delete_backbone(&tiny).await.expect_err("in use");
    assert!(
        matches!(error, StoreError::BackboneInUse { adapters: 1, .. }),
        "{error}"
    );
    store.delete_adapter(adapter.id).await.expect("delete");
    store.delete_backbone(&tiny).await.expect("delete");
    assert!(matches!(
        store.delete_backbone(&tiny).await,
        Err(StoreError::UnknownBackbone { .. })
    ));
}

#[tokio::test]
async fn disk_use_is_what_lies_there_and_gc_frees_the_unreferenced_part() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    import(&store, "meta", &[1; 1000]).await;
    import(&store, "copy", &[1; 1000]).await;
    let orphan = Digest::of(b"orphan");
    let shard = folder.path().join("blobs").join(&orphan.as_str()[..2]);
    fs::create_dir_all(&shard).expect("shard");
    fs::write(shard.join(orphan.as_str()), b"orphan").expect("orphan");
    fs::create_dir_all(store.cache_folder().join("onnx")).expect("cache");
    fs::write(store.cache_folder().join("onnx/x"), [0; 50]).expect("cache");
    let used = store.disk_use().await.expect("disk use");
    assert_eq!(
        (used.blobs, used.blob_bytes, used.unreferenced_bytes),
        (2, 1006, 6)
    );
    assert_eq!((used.cache_bytes, used.backup_bytes), (50, 0));
    assert!(used.database_bytes > 0);
    assert_eq!(store.gc().await.expect("gc").bytes, 6);
    assert_eq!(
        store.disk_use().await.expect("disk use").unreferenced_bytes,
        0
    );
}
