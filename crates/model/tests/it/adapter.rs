//! Adapters: import of the golden folders, refusals, export and import again, bundles, merges.

use model::adapter::{
    Adapter, BackboneCandidate, BundleError, ExportOptions, FileLimits, Head, HeadInput, Imported,
    LowRankPair, MajoritySign, MergeError, MergeInput, MergeMethod, MergeOptions, NameStyle,
    NamedFile, Site, Target, TensorStatus, export_bundle, export_peft, export_published, import,
    import_bundle, merge, read_folder, read_zip,
};
use model::backbone::{Backbone, load_folder};
use model::tensor::Tensor;
use model::tensor_file::{self, TensorFile};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use test_support::broken_adapters::{corpus, golden, zip_of};

const MODELS: [&str; 3] = ["vit-tiny", "dinov2-tiny", "clip-tiny"];

fn backbone(name: &str) -> Backbone {
    load_folder(&test_support::project("tests/golden").join(name)).unwrap()
}

fn candidate(name: &str) -> BackboneCandidate {
    BackboneCandidate::of(name, &backbone(name))
}

fn taken(files: &[NamedFile], candidates: &[BackboneCandidate]) -> Imported {
    import(files, candidates).unwrap_or_else(|report| panic!("{:#?}", report.errors))
}

#[test]
fn both_name_styles_of_every_golden_adapter_give_the_same_adapter() {
    for model in MODELS {
        let candidates = [candidate(model)];
        let v4 = taken(&golden(model, "adapter-peft-v4"), &candidates);
        let v5 = taken(&golden(model, "adapter-peft-v5"), &candidates);
        assert_eq!(v4.adapter, v5.adapter, "{model}");
        assert_eq!(v4.report.adapter_digest, v5.report.adapter_digest);
        assert_eq!(v4.adapter.pairs.len(), 8);
        assert!(
            v4.adapter
                .pairs
                .values()
                .all(|f| f.scale == 2.0 && f.rank() == 4)
        );
        let tensors = v4.report.tensors.len();
        assert_eq!(v4.report.count(TensorStatus::Used), tensors);
        let renamed = if model == "clip-tiny" { 0 } else { 16 };
        assert_eq!(v5.report.count(TensorStatus::Renamed), renamed, "{model}");
    }
}

#[test]
fn the_head_comes_with_what_it_reads() {
    let head = |model| {
        taken(&golden(model, "adapter-peft-v4"), &[candidate(model)])
            .adapter
            .head
    };
    let vit = head("vit-tiny").unwrap();
    assert_eq!(
        (vit.weight.shape(), vit.input),
        (&[5, 32][..], HeadInput::Cls)
    );
    assert!(vit.bias.is_some());
    let dinov2 = head("dinov2-tiny").unwrap();
    assert_eq!(
        (dinov2.weight.shape(), dinov2.input),
        (&[5, 64][..], HeadInput::ClsMean)
    );
    assert!(head("clip-tiny").is_none());
}

#[test]
fn each_golden_adapter_finds_its_backbone_among_all() {
    let candidates: Vec<BackboneCandidate> = MODELS.into_iter().map(candidate).collect();
    for model in MODELS {
        let imported = taken(&golden(model, "adapter-peft-v4"), &candidates);
        assert_eq!(imported.backbone.name, model);
        let fitting = imported
            .report
            .backbones
            .iter()
            .filter(|fit| fit.fits_by_shape);
        assert_eq!(fitting.count(), 1, "{model}");
    }
}

#[test]
fn an_adapter_that_fits_two_backbones_by_shape_asks_which_one() {
    let mut other = candidate("vit-tiny");
    other.name = "vit-other".into();
    other.digest = "ff".into();
    let report = import(
        &golden("vit-tiny", "adapter-peft-v4"),
        &[candidate("vit-tiny"), other],
    )
    .unwrap_err();
    assert!(
        report.errors[0].contains("fits 2 backbones by shape"),
        "{:?}",
        report.errors
    );
}

#[test]
fn the_digest_in_an_export_decides_between_backbones_of_one_shape() {
    let own = candidate("vit-tiny");
    let mut other = own.clone();
    other.name = "vit-other".into();
    other.digest = "ff".into();
    let adapter = taken(
        &golden("vit-tiny", "adapter-peft-v4"),
        std::slice::from_ref(&own),
    )
    .adapter;
    let files = export_peft(&adapter, &options(&other, NameStyle::V4)).unwrap();
    let imported = taken(&files, &[own.clone(), other]);
    assert_eq!(imported.backbone.name, "vit-other");
    let report = import(&files, &[own]).unwrap_err();
    assert!(
        report.errors[0].contains("digest ff"),
        "{:?}",
        report.errors
    );
}

#[test]
fn the_published_file_is_read_in_its_order() {
    let files = golden("clip-tiny", "official");
    let lora: Vec<NamedFile> = files
        .into_iter()
        .filter(|file| file.path == "lora_0.safetensors")
        .collect();
    let imported = taken(&lora, &[candidate("clip-tiny")]);
    let raw = TensorFile::parse(&lora[0].bytes).unwrap();
    for (index, (site, pair)) in imported.adapter.pairs.iter().enumerate() {
        let target = [Target::Query, Target::Value][index % 2];
        assert_eq!(
            *site,
            Site {
                layer: index / 2,
                target
            }
        );
        assert_eq!(pair.a, raw.read(&format!("w_a_{index:03}")).unwrap());
        assert_eq!(pair.b, raw.read(&format!("w_b_{index:03}")).unwrap());
        assert_eq!(pair.scale, 1.0);
    }
    let head = imported.adapter.head.as_ref().unwrap();
    assert_eq!(
        (head.weight.shape(), head.input),
        (&[5, 16][..], HeadInput::Feature)
    );
    let again = export_published(&imported.adapter, &imported.backbone).unwrap();
    assert_eq!(
        taken(&[again], &[candidate("clip-tiny")]).adapter,
        imported.adapter
    );
}

#[test]
fn every_broken_adapter_is_refused_with_its_own_message() {
    let candidates = [candidate("vit-tiny")];
    let corpus = corpus();
    assert!(corpus.len() >= 40);
    let mut names = BTreeSet::new();
    let mut wrong = Vec::new();
    for broken in &corpus {
        assert!(names.insert(broken.name), "{} stands twice", broken.name);
        match broken.refusal(&candidates) {
            None => wrong.push(format!("{}: was taken", broken.name)),
            Some(message) if !message.contains(broken.expected) => {
                wrong.push(format!("{}: {message}", broken.name));
            }
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_zip_with_one_folder_at_the_top_is_fine() {
    let files: Vec<NamedFile> = golden("vit-tiny", "adapter-peft-v5")
        .into_iter()
        .map(|file| NamedFile::new(format!("my-adapter/{}", file.path), file.bytes))
        .collect();
    let files = read_zip(&zip_of(&files), &FileLimits::default()).unwrap();
    taken(&files, &[candidate("vit-tiny")]);
}

#[test]
fn without_any_backbone_the_report_says_so() {
    let report = import(&golden("vit-tiny", "adapter-peft-v4"), &[]).unwrap_err();
    assert!(
        report.errors[0].contains("no backbone"),
        "{:?}",
        report.errors
    );
}

#[test]
fn a_report_survives_json() {
    let report = taken(
        &golden("vit-tiny", "adapter-peft-v5"),
        &[candidate("vit-tiny")],
    )
    .report;
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(
        serde_json::from_str::<model::adapter::ImportReport>(&text).unwrap(),
        report
    );
}

#[test]
fn merging_into_the_weights_adds_the_change_and_nothing_else() {
    let backbone = backbone("vit-tiny");
    let adapter = taken(
        &golden("vit-tiny", "adapter-peft-v4"),
        &[candidate("vit-tiny")],
    )
    .adapter;
    let merged = adapter
        .merged_into(&backbone.weights, &backbone.config)
        .unwrap();
    let site = Site {
        layer: 2,
        target: Target::Value,
    };
    let delta = adapter.delta(site).unwrap();
    let (before, after) = (&backbone.weights.layers[2], &merged.layers[2]);
    for ((old, new), change) in before
        .value
        .weight
        .data()
        .iter()
        .zip(after.value.weight.data())
        .zip(delta.data())
    {
        assert_eq!(*new, old + change);
    }
    assert_eq!(before.key.weight, after.key.weight);
    assert!(delta.data().iter().any(|&change| change != 0.0));
}

fn options(backbone: &BackboneCandidate, names: NameStyle) -> ExportOptions<'_> {
    ExportOptions {
        title: "a test",
        backbone,
        base_model: None,
        names,
    }
}

fn random_tensor(shape: [usize; 2], random: &mut ChaCha8Rng) -> Tensor {
    let values = (0..shape[0] * shape[1])
        .map(|_| random.random_range(-1.0f32..1.0))
        .collect();
    Tensor::new(shape, values).unwrap()
}

/// An adapter on a random choice of maps with random ranks and scales.
fn random_adapter(
    backbone: &BackboneCandidate,
    seed: u64,
    head: Option<(HeadInput, bool, bool)>,
) -> Adapter {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let config = &backbone.config;
    let mut adapter = Adapter::default();
    for layer in 0..config.layers {
        for target in Target::ALL {
            if !random.random_bool(0.4) && (layer, target) != (0, Target::Query) {
                continue;
            }
            let rank = random.random_range(1..9);
            let (outputs, inputs) = target.widths(config);
            let pair = LowRankPair {
                a: random_tensor([rank, inputs], &mut random),
                b: random_tensor([outputs, rank], &mut random),
                scale: if random.random_bool(0.5) {
                    2.0
                } else {
                    random.random_range(0.01f32..4.0)
                },
            };
            adapter.pairs.insert(Site { layer, target }, pair);
        }
    }
    adapter.head = head.map(|(input, bias, labels)| Head {
        weight: random_tensor([3, input.width(config)], &mut random),
        bias: bias.then(|| Tensor::new([3], vec![0.5, -1.0, 0.0]).unwrap()),
        input,
        labels: if labels {
            vec!["a".into(), "b \"c\"".into(), "ä".into()]
        } else {
            Vec::new()
        },
    });
    adapter
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_exported_comes_back_bit_for_bit(
        seed in any::<u64>(),
        model in 0usize..3,
        v5 in any::<bool>(),
        head in proptest::option::of((
            prop_oneof![Just(HeadInput::Feature), Just(HeadInput::Cls), Just(HeadInput::ClsMean)],
            any::<bool>(),
            any::<bool>(),
        )),
    ) {
        let backbone = candidate(MODELS[model]);
        let adapter = random_adapter(&backbone, seed, head);
        let names = if v5 { NameStyle::V5 } else { NameStyle::V4 };
        let files = export_peft(&adapter, &options(&backbone, names)).unwrap();
        let imported = import(&files, std::slice::from_ref(&backbone))
            .map_err(|report| TestCaseError::fail(report.errors.join("\n")))?;
        prop_assert_eq!(&imported.adapter, &adapter);
        prop_assert_eq!(imported.adapter.digest(), adapter.digest());
    }

    #[test]
    fn one_adapter_with_weight_one_comes_back_unchanged_from_every_method(seed in any::<u64>()) {
        let backbone = candidate("vit-tiny");
        let adapter = random_adapter(&backbone, seed, Some((HeadInput::Cls, true, false)));
        for &method in MergeMethod::ALL {
            let merged = merge(&[input("a", &adapter, 1.0)], &all_options(method)).unwrap();
            prop_assert_eq!(&merged.adapter, &adapter);
        }
    }

    #[test]
    fn the_average_by_cat_is_the_mean_of_the_changes(seed in any::<u64>(), count in 2usize..6) {
        let backbone = candidate("vit-tiny");
        let adapters: Vec<Adapter> = (0..count as u64)
            .map(|index| random_adapter(&backbone, seed.wrapping_add(index), None))
            .collect();
        let inputs: Vec<MergeInput> =
            adapters.iter().map(|adapter| input("x", adapter, 1.0 / count as f32)).collect();
        let mean = |site| mean_change(&adapters, site);
        let average = merge(&inputs, &MergeOptions::new(MergeMethod::Average)).unwrap().adapter;
        let mut full = MergeOptions::new(MergeMethod::PeftSvd);
        full.rank = Some(1000);
        let svd = merge(&inputs, &full).unwrap().adapter;
        for &site in average.pairs.keys() {
            let expected = mean(site);
            // Rank 8, scale 4 and 5 adapters: sums of up to 40 products below 4; f32 keeps 1e-6 of that.
            prop_assert!(difference(&average.delta(site).unwrap(), &expected) < 1e-5);
            prop_assert!(difference(&svd.delta(site).unwrap(), &expected) < 1e-5);
        }
    }
}

fn mean_change(adapters: &[Adapter], site: Site) -> Vec<f64> {
    let mut sum: Vec<f64> = Vec::new();
    for delta in adapters.iter().filter_map(|adapter| adapter.delta(site)) {
        sum.resize(delta.data().len(), 0.0);
        for (sum, value) in sum.iter_mut().zip(delta.data()) {
            *sum += f64::from(*value) / adapters.len() as f64;
        }
    }
    sum
}

fn difference(found: &Tensor, expected: &[f64]) -> f64 {
    assert_eq!(found.data().len(), expected.len());
    found
        .data()
        .iter()
        .zip(expected)
        .map(|(a, b)| (f64::from(*a) - b).abs())
        .fold(0.0, f64::max)
}

fn all_options(method: MergeMethod) -> MergeOptions {
    let mut options = MergeOptions::new(method);
    options.density = Some(0.5);
    options
}

fn input<'a>(name: &'a str, adapter: &'a Adapter, weight: f32) -> MergeInput<'a> {
    MergeInput {
        name,
        adapter,
        weight,
    }
}

#[test]
fn every_method_gives_the_change_that_peft_gives() {
    let path = test_support::project("tests/golden/merge/reference.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = TensorFile::parse(&bytes).unwrap();
    let site = Site {
        layer: 0,
        target: Target::Query,
    };
    let adapter = |name: &str| {
        let read = |part: &str| file.read(&format!("{name}.{part}")).unwrap();
        let pair = LowRankPair {
            a: read("lora_A"),
            b: read("lora_B"),
            scale: read("scale").data()[0],
        };
        Adapter {
            pairs: [(site, pair)].into(),
            head: None,
        }
    };
    let (a, b, c) = (adapter("a"), adapter("b"), adapter("c"));
    let two = |first, second| vec![input("a", &a, first), input("b", &b, second)];
    let three = || {
        vec![
            input("a", &a, 0.5),
            input("b", &b, -0.25),
            input("c", &c, 2.0),
        ]
    };
    let set = |method, density, majority_sign, rank| MergeOptions {
        rank,
        density,
        majority_sign,
        ..MergeOptions::new(method)
    };
    let (total, frequency) = (MajoritySign::Total, MajoritySign::Frequency);
    let cases = [
        (
            "linear",
            two(0.7, 0.4),
            set(MergeMethod::PeftLinear, None, total, None),
        ),
        (
            "linear_negative",
            two(1.0, -0.5),
            set(MergeMethod::PeftLinear, None, total, None),
        ),
        (
            "linear_single",
            vec![input("a", &a, 0.3)],
            set(MergeMethod::PeftLinear, None, total, None),
        ),
        ("cat", three(), set(MergeMethod::Average, None, total, None)),
        ("svd", three(), set(MergeMethod::PeftSvd, None, total, None)),
        (
            "svd_rank_1",
            vec![input("a", &a, 1.0), input("c", &c, 1.0)],
            set(MergeMethod::PeftSvd, None, total, Some(1)),
        ),
        (
            "ties",
            two(0.7, 0.4),
            set(MergeMethod::PeftTies, Some(0.5), total, None),
        ),
        (
            "ties_dense",
            two(0.7, 0.4),
            set(MergeMethod::PeftTies, Some(1.0), total, None),
        ),
        (
            "ties_frequency",
            two(0.7, -0.4),
            set(MergeMethod::PeftTies, Some(0.8), frequency, None),
        ),
        (
            "dare_linear",
            two(0.7, 0.4),
            set(MergeMethod::PeftDareLinear, Some(1.0), total, None),
        ),
    ];
    for (case, inputs, options) in cases {
        let merged = merge(&inputs, &options)
            .unwrap()
            .adapter
            .delta(site)
            .unwrap();
        let expected = file.read(&format!("{case}.delta")).unwrap();
        let expected: Vec<f64> = expected.data().iter().map(|&v| f64::from(v)).collect();
        // Changes are below 30 in magnitude; both sides compute in f32.
        let difference = difference(&merged, &expected);
        assert!(difference < 1e-5, "{case}: {difference}");
    }
}

#[test]
fn dare_keeps_the_share_it_is_told_and_repeats_with_its_seed() {
    let backbone = candidate("vit-tiny");
    let site = Site {
        layer: 0,
        target: Target::Query,
    };
    let make = |seed| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let pair = LowRankPair {
            a: random_tensor([32, backbone.config.width], &mut random),
            b: random_tensor([backbone.config.width, 32], &mut random),
            scale: 1.0,
        };
        Adapter {
            pairs: [(site, pair)].into(),
            head: None,
        }
    };
    let (a, b) = (make(1), make(2));
    let run = |seed| {
        let mut options = MergeOptions::new(MergeMethod::PeftDareLinear);
        options.density = Some(0.25);
        options.seed = seed;
        let inputs = [input("a", &a, 1.0), input("b", &b, 0.0)];
        merge(&inputs, &options).unwrap().adapter
    };
    let merged = run(7);
    let original = &a.pairs[&site].a;
    let mut kept = 0;
    for (value, before) in merged.pairs[&site].a.data().iter().zip(original.data()) {
        if *value != 0.0 {
            assert_eq!(*value, before / 0.25);
            kept += 1;
        }
    }
    // 1024 draws of probability 1/4: mean 256, standard deviation 14; five of them either way.
    assert!((186..=326).contains(&kept), "{kept}");
    assert_eq!(run(7), merged);
    assert_ne!(run(8), merged);
}

#[test]
fn unlike_ranks_are_refused_by_methods_on_lora_matrices_and_taken_by_all_others() {
    let backbone = candidate("vit-tiny");
    let (a, b) = (
        random_adapter(&backbone, 1, None),
        random_adapter(&backbone, 2, None),
    );
    let inputs = [input("a", &a, 1.0), input("b", &b, 1.0)];
    for &method in MergeMethod::ALL {
        let result = merge(&inputs, &all_options(method));
        match method {
            MergeMethod::PeftLinear | MergeMethod::PeftTies | MergeMethod::PeftDareLinear => {
                let error = result.unwrap_err();
                assert!(matches!(error, MergeError::UnlikeRanks { .. }), "{error}");
                assert!(error.to_string().contains("use average or peft-svd"));
            }
            _ => assert!(result.is_ok(), "{}", method.name()),
        }
    }
}

#[test]
fn a_merge_says_that_heads_were_left_out() {
    let backbone = candidate("vit-tiny");
    let with_head = random_adapter(&backbone, 1, Some((HeadInput::Cls, true, false)));
    let without = random_adapter(&backbone, 2, None);
    let inputs = [
        input("birds", &with_head, 0.5),
        input("cars", &without, 0.5),
    ];
    let merged = merge(&inputs, &MergeOptions::new(MergeMethod::Average)).unwrap();
    assert!(merged.adapter.head.is_none());
    assert!(
        merged.notes[0].contains("the heads of birds were left out"),
        "{:?}",
        merged.notes
    );
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let backbone = candidate("vit-tiny");
    let a = random_adapter(&backbone, 1, None);
    let inputs = [input("a", &a, 1.0), input("b", &a, 1.0)];
    let refused =
        |inputs: &[MergeInput], options: &MergeOptions| merge(inputs, options).unwrap_err();
    let ties = MergeOptions::new(MergeMethod::PeftTies);
    assert!(matches!(
        refused(&inputs, &ties),
        MergeError::Density { .. }
    ));
    let mut dare = MergeOptions::new(MergeMethod::PeftDareLinear);
    dare.density = Some(f64::NAN);
    assert!(matches!(
        refused(&inputs, &dare),
        MergeError::Density { .. }
    ));
    let mut average = MergeOptions::new(MergeMethod::Average);
    average.rank = Some(3);
    assert!(matches!(
        refused(&inputs, &average),
        MergeError::RankOfMethod { .. }
    ));
    let mut sum = MergeOptions::new(MergeMethod::Sum);
    sum.scale = f32::INFINITY;
    assert!(matches!(refused(&inputs, &sum), MergeError::Scale(_)));
    average.rank = None;
    assert!(matches!(refused(&[], &average), MergeError::Nothing));
    assert!(matches!(
        refused(&[input("a", &a, f32::NAN)], &average),
        MergeError::Weight { .. }
    ));
}

#[test]
fn a_bundle_comes_back_with_the_same_adapter_and_report() {
    let backbone = candidate("vit-tiny");
    let imported = taken(
        &golden("vit-tiny", "adapter-peft-v5"),
        std::slice::from_ref(&backbone),
    );
    let bytes = export_bundle(
        &imported.adapter,
        &options(&backbone, NameStyle::V4),
        Some(&imported.report),
    )
    .unwrap();
    let bundle = import_bundle(
        &bytes,
        &[candidate("clip-tiny"), backbone],
        &FileLimits::default(),
    )
    .unwrap();
    assert_eq!(bundle.name, "a test");
    assert_eq!(bundle.imported.adapter, imported.adapter);
    assert_eq!(bundle.first_report, Some(imported.report));
}

#[test]
fn a_bundle_that_was_changed_or_has_no_backbone_here_is_refused() {
    let backbone = candidate("vit-tiny");
    let imported = taken(
        &golden("vit-tiny", "adapter-peft-v5"),
        std::slice::from_ref(&backbone),
    );
    let bytes = export_bundle(&imported.adapter, &options(&backbone, NameStyle::V4), None).unwrap();
    let limits = FileLimits::default();
    let error = import_bundle(&bytes, &[candidate("clip-tiny")], &limits).unwrap_err();
    assert!(
        matches!(error, BundleError::UnknownBackbone { .. }),
        "{error}"
    );

    let files = read_zip(&bytes, &limits).unwrap();
    let again = |files: &[NamedFile]| {
        import_bundle(&zip_of(files), std::slice::from_ref(&backbone), &limits).unwrap_err()
    };
    let mut changed = files.clone();
    changed
        .iter_mut()
        .find(|file| file.path == "adapter/README.md")
        .unwrap()
        .bytes
        .push(b'x');
    assert!(matches!(again(&changed), BundleError::Checksum { .. }));
    let mut extra = files.clone();
    extra.push(NamedFile::new("adapter/extra.txt", "x"));
    assert!(matches!(again(&extra), BundleError::Unlisted { .. }));
    let fewer: Vec<NamedFile> = files
        .iter()
        .filter(|file| file.path != "adapter/README.md")
        .cloned()
        .collect();
    assert!(matches!(again(&fewer), BundleError::Absent { .. }));
    assert!(matches!(
        again(&golden("vit-tiny", "adapter-peft-v4")),
        BundleError::NotABundle(_)
    ));
}

fn write_both_styles(
    out: &Path,
    model: &str,
    case: &str,
    adapter: &Adapter,
    backbone: &BackboneCandidate,
) {
    for (style, names) in [("v4", NameStyle::V4), ("v5", NameStyle::V5)] {
        let folder = out.join(format!("{model}.{case}.{style}"));
        std::fs::create_dir_all(&folder).unwrap();
        for file in export_peft(adapter, &options(backbone, names)).unwrap() {
            std::fs::write(folder.join(file.path), file.bytes).unwrap();
        }
    }
}

/// Writes folders for `tests/peft_round_trip/run`, which loads them with Python.
#[test]
#[ignore = "run by tests/peft_round_trip/run"]
fn write_folders_for_the_python_check() {
    let out =
        std::env::var_os("PEFT_ROUND_TRIP_DIR").expect("PEFT_ROUND_TRIP_DIR is set by the script");
    let out = Path::new(&out);
    for model in MODELS {
        let backbone = candidate(model);
        let golden = taken(
            &golden(model, "adapter-peft-v5"),
            std::slice::from_ref(&backbone),
        );
        let mixed = random_adapter(&backbone, 5, None);
        write_both_styles(out, model, "golden", &golden.adapter, &backbone);
        write_both_styles(out, model, "mixed", &mixed, &backbone);
        let weights = self::backbone(model).weights;
        let merged = mixed.merged_into(&weights, &backbone.config).unwrap();
        let changed = mixed
            .pairs
            .keys()
            .map(|site| {
                let layer = &merged.layers[site.layer];
                let linear = match site.target {
                    Target::Query => &layer.query,
                    Target::Key => &layer.key,
                    Target::Value => &layer.value,
                    Target::Output => &layer.output,
                    Target::MlpIn => &layer.mlp_in,
                    Target::MlpOut => &layer.mlp_out,
                };
                let name = format!("{}.{}", site.layer, site.target.name());
                (name, linear.weight.clone())
            })
            .collect();
        let bytes = tensor_file::write(&changed, &BTreeMap::new()).unwrap();
        std::fs::write(out.join(format!("{model}.mixed.merged.safetensors")), bytes).unwrap();
    }
    for folder in std::fs::read_dir(out.join("made")).unwrap() {
        let folder = folder.unwrap();
        let name = folder.file_name().into_string().unwrap();
        let (model, case) = name.split_once('.').unwrap();
        let backbone = candidate(model);
        let files = read_folder(&folder.path(), &FileLimits::default()).unwrap();
        let imported = import(&files, std::slice::from_ref(&backbone))
            .unwrap_or_else(|report| panic!("{name}: {:#?}", report.errors));
        write_both_styles(out, model, case, &imported.adapter, &backbone);
    }
}
