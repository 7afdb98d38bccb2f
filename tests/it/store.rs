//! The registry from outside: adapters, aliases, backbones, and what its errors say; with helpers for the other tests of the store.

use lora_recycle::store::{
    Access, AdapterFilter, AdapterRecord, AdapterReference, AliasKey, Attribution, DATABASE_FILE,
    Digest, FileRole, HeadSummary, Lineage, Name, NewAdapter, NewFile, Store, StoreError,
};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub fn name(text: &str) -> Name {
    text.parse().expect(text)
}

pub fn reference(text: &str) -> AdapterReference {
    text.parse().expect(text)
}

pub fn backbone_digest() -> Digest {
    Digest::of(b"backbone")
}

pub fn by(reason: &str) -> Attribution {
    Attribution {
        actor: "test".to_owned(),
        reason: reason.to_owned(),
    }
}

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

/// Opens `folder` alone, with the backbone that [`new_adapter`] names.
pub async fn open(folder: &Path) -> Store {
    let store = Store::open(folder, Access::Exclusive).await.expect("open");
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

/// Where the blobs of these adapters lie, in order.
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

#[tokio::test]
async fn an_imported_adapter_reads_back_whole_after_a_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let parent = import(&store, "parent", b"parent").await;
    let mut new = new_adapter(
        "meta",
        &[("model.safetensors", b"weights"), ("config.json", b"{}")],
    );
    new.head = Some(HeadSummary {
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
async fn an_adapter_in_use_stays_and_a_deleted_one_is_gone_with_its_files() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let shared: &[u8] = b"shared";
    let first = store
        .import_adapter(new_adapter(
            "meta",
            &[("weights", b"first"), ("config", shared)],
        ))
        .await
        .expect("import");
    let second = store
        .import_adapter(new_adapter(
            "meta",
            &[("weights", b"second"), ("config", shared)],
        ))
        .await
        .expect("import");
    let (champion, default) = (
        alias("meta", "champion"),
        AliasKey::BackboneDefault(backbone_digest()),
    );
    store
        .move_alias(&champion, first.id, &by(""))
        .await
        .expect("alias");
    store
        .move_alias(&default, first.id, &by(""))
        .await
        .expect("default");
    assert_eq!(
        store
            .default_adapter(&backbone_digest())
            .await
            .expect("default")
            .map(|found| found.id),
        Some(first.id)
    );

    let error = store.delete_adapter(first.id).await.expect_err("in use");
    assert!(
        matches!(&error, StoreError::AdapterInUse { aliases, .. } if *aliases == [champion.clone(), default.clone()])
    );
    let sentence = error.to_string();
    assert!(
        sentence.starts_with(
            "the adapter meta:1 is still used: meta@champion, the default of backbone"
        ),
        "{sentence}"
    );
    assert_eq!(
        store
            .read_file(&first, "weights")
            .await
            .expect("still there"),
        b"first"
    );

    store
        .remove_alias(&champion, &by(""))
        .await
        .expect("remove");
    store.remove_alias(&default, &by("")).await.expect("remove");
    let freed = store.delete_adapter(first.id).await.expect("delete");
    assert_eq!((freed.blobs, freed.bytes), (1, 5), "the shared file stays");
    assert_eq!(
        files_on_disk(folder.path()),
        files_of(folder.path(), std::slice::from_ref(&second))
    );
    assert_eq!(
        store.read_file(&second, "config").await.expect("shared"),
        shared
    );
    assert!(matches!(
        store.delete_adapter(first.id).await,
        Err(StoreError::UnknownAdapter { .. })
    ));
    store.delete_adapter(second.id).await.expect("delete");
    assert_eq!(files_on_disk(folder.path()), Vec::<PathBuf>::new());
    // The name is free again, its version numbers are not.
    assert_eq!(import(&store, "meta", b"third").await.version, 3);
}

#[tokio::test]
async fn roll_backs_walk_to_the_beginning_and_every_move_is_kept() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let mut ids = Vec::new();
    for bytes in [b"1", b"2", b"3"] {
        ids.push(import(&store, "meta", bytes).await.id);
    }
    let key = alias("meta", "champion");
    for &id in &ids {
        store
            .move_alias(&key, id, &by("better"))
            .await
            .expect("move");
    }
    assert_eq!(
        store
            .move_alias(&key, ids[2], &by("again"))
            .await
            .expect("same"),
        None,
        "no move"
    );
    let back = |moved: lora_recycle::store::AliasMove| moved.to.map(|to| to.label);
    assert_eq!(
        back(
            store
                .roll_back_alias(&key, &by("worse"))
                .await
                .expect("3 to 2")
        )
        .as_deref(),
        Some("meta:2")
    );
    assert_eq!(
        back(
            store
                .roll_back_alias(&key, &by("worse"))
                .await
                .expect("2 to 1")
        )
        .as_deref(),
        Some("meta:1")
    );
    // A new move after roll-backs is the next one to be taken back.
    store
        .move_alias(&key, ids[2], &by("once more"))
        .await
        .expect("move");
    assert_eq!(
        back(
            store
                .roll_back_alias(&key, &by("no"))
                .await
                .expect("3 to 1")
        )
        .as_deref(),
        Some("meta:1")
    );
    assert_eq!(
        back(
            store
                .roll_back_alias(&key, &by("none"))
                .await
                .expect("1 to none")
        ),
        None
    );
    assert!(matches!(
        store.roll_back_alias(&key, &by("")).await,
        Err(StoreError::NothingToRollBack(_))
    ));
    assert!(matches!(
        store.remove_alias(&key, &by("")).await,
        Err(StoreError::UnknownAlias(_))
    ));

    let history = store.alias_history(&key).await.expect("history");
    let lines: Vec<String> = history
        .iter()
        .rev()
        .map(|step| {
            let label = |end: &Option<lora_recycle::store::Pointed>| {
                end.as_ref().map_or("-".to_owned(), |end| end.label.clone())
            };
            format!(
                "{} {}>{} {} {:?}",
                step.number,
                label(&step.from),
                label(&step.to),
                step.reason,
                step.undoes
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "1 ->meta:1 better None",
            "2 meta:1>meta:2 better None",
            "3 meta:2>meta:3 better None",
            "4 meta:3>meta:2 worse Some(3)",
            "5 meta:2>meta:1 worse Some(2)",
            "6 meta:1>meta:3 once more None",
            "7 meta:3>meta:1 no Some(6)",
            "8 meta:1>- none Some(1)",
        ]
    );
    assert!(
        history
            .iter()
            .all(|step| step.actor == "test" && step.moved_ms > 0)
    );
}

#[tokio::test]
async fn a_roll_back_to_a_deleted_adapter_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let (first, second) = (
        import(&store, "meta", b"1").await,
        import(&store, "meta", b"2").await,
    );
    let key = alias("meta", "champion");
    store
        .move_alias(&key, first.id, &by(""))
        .await
        .expect("move");
    store
        .move_alias(&key, second.id, &by(""))
        .await
        .expect("move");
    store.delete_adapter(first.id).await.expect("delete");
    let error = store
        .roll_back_alias(&key, &by(""))
        .await
        .expect_err("gone");
    assert_eq!(
        error.to_string(),
        "meta@champion cannot go back to meta:1: that adapter was deleted; move it to another one"
    );
    assert_eq!(
        store
            .resolve(&reference("meta@champion"))
            .await
            .expect("unchanged")
            .id,
        second.id
    );
    assert_eq!(store.alias_history(&key).await.expect("history").len(), 2);
}

#[tokio::test]
async fn aliases_point_only_where_they_belong() {
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path()).await;
    let adapter = import(&store, "meta", b"1").await;
    let other = Digest::of(b"other");
    for key in [
        alias("flowers", "champion"),
        AliasKey::BackboneDefault(other),
    ] {
        let error = store
            .move_alias(&key, adapter.id, &by(""))
            .await
            .expect_err("mismatch");
        assert!(matches!(error, StoreError::AliasMismatch { .. }), "{error}");
        assert_eq!(store.alias_history(&key).await.expect("history"), []);
    }
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
