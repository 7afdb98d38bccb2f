//! Pools as files: the way there and back, and files that nobody should trust.

use model::adapter::NamedFile;
use model::image_input::{ImageLimits, decode};
use recycle::inversion::InversionRecipe;
use recycle::pool::{Pool, Provenance};
use test_support::pools::{pool, recipe};

fn refuse(files: &[NamedFile]) -> String {
    Pool::from_files(files).unwrap_err().to_string()
}

/// `files` with one of them changed.
fn with(files: &[NamedFile], path: &str, change: impl Fn(&mut Vec<u8>)) -> Vec<NamedFile> {
    let mut files = files.to_vec();
    let file = files.iter_mut().find(|file| file.path == path).unwrap();
    change(&mut file.bytes);
    files
}

fn with_text(files: &[NamedFile], from: &str, to: &str) -> Vec<NamedFile> {
    with(files, "manifest.json", |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        *bytes = text.replacen(from, to, 1).into_bytes();
    })
}

#[test]
fn a_pool_reads_back_equal_and_the_same_pool_gives_the_same_bytes() {
    let pool = pool();
    let files = pool.to_files().unwrap();
    assert_eq!(pool.to_files().unwrap(), files);
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(
        paths[..5],
        [
            "manifest.json",
            "images.safetensors",
            "kept_tokens.safetensors",
            "teacher_logits.safetensors",
            "preview-0000.png",
        ]
    );
    assert_eq!(files.len(), 4 + 10);
    let back = Pool::from_files(&files).unwrap();
    assert_eq!(back, pool);
    let manifest = back.manifest();
    assert_eq!(
        (manifest.images, manifest.image_size, manifest.grid),
        (10, 28, 4)
    );
    assert_eq!(manifest.kept_tokens_per_image, 9);
    assert_eq!(
        back.classes().collect::<Vec<_>>(),
        ["ant", "bee", "cat", "dog", "eel"]
    );
    let recipe = InversionRecipe::from_json(&manifest.recipe).unwrap();
    assert_eq!(recipe, self::recipe());
    // Without previews it is the same pool.
    assert_eq!(Pool::from_files(&files[..4]).unwrap(), pool);
}

#[test]
fn a_preview_shows_the_stored_levels() {
    let pool = pool();
    let png = pool.preview(3).unwrap();
    let image = decode(&png, &ImageLimits::default()).unwrap();
    let levels = &pool.images()[3 * 2352..4 * 2352];
    for (index, pixel) in image.as_raw().chunks(3).enumerate() {
        assert_eq!(
            pixel,
            [0, 1, 2].map(|channel| levels[channel * 784 + index])
        );
    }
    assert_eq!(
        pool.preview(10).unwrap_err().to_string(),
        "there is no image 10 in the pool; it has 10"
    );
    assert!(pool.preview(usize::MAX).is_err());
}

#[test]
fn a_pool_that_is_cut_short_or_has_a_file_missing_is_refused() {
    let files = pool().to_files().unwrap();
    for index in 0..4 {
        let mut fewer = files.clone();
        let gone = fewer.remove(index);
        assert_eq!(refuse(&fewer), format!("the pool has no {}", gone.path));
        for keep in [0, 5, gone.bytes.len() / 2, gone.bytes.len() - 2] {
            let cut = with(&files, &gone.path, |bytes| bytes.truncate(keep));
            let name = gone.path.as_str();
            assert!(refuse(&cut).starts_with(name), "{name} cut to {keep}");
        }
    }
}

#[test]
fn a_pool_that_contradicts_itself_is_refused() {
    let files = pool().to_files().unwrap();
    for (from, to, expected) in [
        (
            "\"images\": 10",
            "\"images\": 9",
            "images.safetensors of the pool: images: shape",
        ),
        (
            "\"images\": 10",
            "\"images\": 99999999999999",
            "images.safetensors of the pool: images: shape",
        ),
        (
            "\"image_size\": 28",
            "\"image_size\": 14",
            "images.safetensors of the pool: images: shape",
        ),
        (
            "\"grid\": 4",
            "\"grid\": 2",
            "the kept tokens of an image must ascend from 0",
        ),
        (
            "\"grid\": 4",
            "\"grid\": 18446744073709551615",
            "the kept tokens of an image must ascend from 0",
        ),
        (
            "\"kept_tokens_per_image\": 9",
            "\"kept_tokens_per_image\": 10",
            "kept_tokens.safetensors",
        ),
        (
            "\"images\": 2",
            "\"images\": 3",
            "class \"ant\" should have 3 images and has 2",
        ),
        (
            "\"label\": \"ant\"",
            "\"label\": \"bee\"",
            "two classes are called \"bee\"",
        ),
        (
            "\"label\": \"ant\"",
            "\"label\": \" \"",
            "class 0 is called",
        ),
        (
            "\"version\": 1",
            "\"version\": 2",
            "version 2; this program reads version 1",
        ),
        (
            "lora-recycle-pool",
            "another",
            "its format is not lora-recycle-pool",
        ),
        (
            "\"adapter_digest\": \"",
            "\"adapter_digest\": \"../",
            "is not a SHA-256 digest",
        ),
        (
            // Two spaces: not the one of the recipe inside.
            "\n  \"images_per_class\": 2,",
            "",
            "missing field `images_per_class`",
        ),
    ] {
        let error = refuse(&with_text(&files, from, to));
        assert!(error.contains(expected), "{from} to {to}: {error}");
    }
    // The last label of ten, out of five classes: labels come after the images.
    let wild = with(&files, "images.safetensors", |bytes| {
        let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize + 8;
        let entries: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
        let offset = entries["labels"]["data_offsets"][0].as_u64().unwrap() as usize;
        bytes[header + offset] = 77;
    });
    assert!(
        refuse(&wild).contains("has label 77, but there are 5 classes"),
        "{}",
        refuse(&wild)
    );
}

#[test]
fn the_key_depends_on_adapter_backbone_and_recipe_alone() {
    let recipe = recipe();
    let key = |adapter: &str, backbone: &str, patch_size: usize, recipe: &InversionRecipe| {
        let from = Provenance {
            adapter_digest: adapter,
            backbone_digest: backbone,
            patch_size,
            recipe,
        };
        from.key().unwrap()
    };
    let own = key("a", "b", 7, &recipe);
    assert_eq!(own.len(), 64);
    assert_eq!(own, key("a", "b", 14, &recipe.clone()));
    let read = InversionRecipe::from_json(&serde_json::to_value(&recipe).unwrap()).unwrap();
    assert_eq!(own, key("a", "b", 7, &read));
    let other = InversionRecipe {
        seed: 1,
        ..recipe.clone()
    };
    let defect = InversionRecipe {
        published_residual: true,
        ..recipe.clone()
    };
    for different in [
        key("b", "a", 7, &recipe),
        key("a", "c", 7, &recipe),
        key("a", "b", 7, &other),
        key("a", "b", 7, &defect),
    ] {
        assert_ne!(own, different);
    }
}
