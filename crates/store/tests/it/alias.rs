//! Aliases: where they may point, what they hold fast, and how moves are kept and taken back.

use std::path::PathBuf;
use store::{AliasKey, AliasMove, Digest, PointedAdapter, StoreError};
use test_support::store::{
    alias, backbone_digest, by, files_of, files_on_disk, import, new_adapter, open, reference,
};

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
    let back = |moved: AliasMove| moved.to.map(|to| to.label);
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
            let label = |end: &Option<PointedAdapter>| {
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
