//! Classifiers as ONNX models that take pictures of any size, as ONNX Runtime sees them: the scores are those of the program's own preprocessing.

use image::imageops::{self, FilterType};
use image::{ImageFormat, RgbImage};
use lora_recycle::inference::{Device, load_for};
use model::backbone::onnx::{OnnxError, Operators, ReadOut, export, export_classifier};
use model::backbone::{Backbone, Preprocess, Resample, ResizeTarget, load_folder};
use model::image_input::{ImageLimits, load_pixels};
use ort::session::Session;
use ort::value::TensorRef;
use recycle::prototype::softmax;
use std::io::Cursor;
use test_support::project;

const CLASSES: usize = 5;

fn session(model: &[u8]) -> Session {
    Session::builder(&load_for(Device::Cpu).unwrap().library.environment)
        .unwrap()
        .commit_from_memory(model)
        .unwrap()
}

/// A photograph. Patterns of two levels have sums that lie just between two levels, which any rounding shows.
fn picture(width: u32, height: u32) -> RgbImage {
    let photograph = image::open(project("assets/examples/fish/goldfish.jpg")).unwrap();
    imageops::resize(&photograph.to_rgb8(), width, height, FilterType::CatmullRom)
}

fn wave(count: usize, scale: f32) -> Vec<f32> {
    (0..count)
        .map(|place| scale * (place as f32 * 0.71).sin())
        .collect()
}

/// What the program's preprocessing and the exported backbone make of a picture, read by the same head.
fn expected(backbone: &Backbone, weight: &[f32], offset: &[f32], png: &[u8]) -> Vec<f64> {
    let pixels = load_pixels(png, &ImageLimits::default(), &backbone.preprocess).unwrap();
    let size = backbone.image_size();
    let mut plain = session(&export(backbone, size, Operators::Standard).unwrap());
    let input = TensorRef::from_array_view((vec![1, 3, size, size], pixels.data())).unwrap();
    let outputs = plain.run(ort::inputs!["pixels" => input]).unwrap();
    let feature = outputs["feature"].try_extract_tensor::<f32>().unwrap().1;
    let length = feature
        .iter()
        .map(|value| value * value)
        .sum::<f32>()
        .sqrt();
    let rows = weight.chunks_exact(feature.len()).zip(offset);
    let logits = rows.map(|(row, offset)| {
        let products = row.iter().zip(feature).map(|(a, b)| a * b / length);
        products.sum::<f32>() + offset
    });
    softmax(&logits.collect::<Vec<f32>>())
}

#[test]
fn a_picture_of_any_size_is_resized_and_cropped_as_the_program_does_it() {
    let labels: Vec<String> = ["a", "b", "Ä \"c\"", "d", "e"].map(String::from).into();
    let cut = |edge: usize, resample: Resample| Preprocess {
        resize: Some(ResizeTarget::ShortestEdge(edge)),
        resample,
        centre_crop: Some((28, 28)),
        ..load_folder(&project("tests/golden/dinov2-tiny"))
            .unwrap()
            .preprocess
    };
    for (name, preprocess) in [
        ("vit-tiny", None),
        ("clip-tiny", Some(cut(32, Resample::Bicubic))),
        ("dinov2-tiny", Some(cut(37, Resample::Bilinear))),
        // Smaller than its crop.
        ("dinov2-tiny", Some(cut(21, Resample::Bicubic))),
    ] {
        let mut backbone = load_folder(&project("tests/golden").join(name)).unwrap();
        backbone.preprocess = preprocess.unwrap_or(backbone.preprocess);
        // ONNX Runtime computes the kernels of resampling in `f32`, so that some levels differ by one, of bilinear filters more than of bicubic
        // ones. At 28 pixels a side that is much of a picture; what another filter, order or crop would change is far more.
        let weight = wave(CLASSES * backbone.feature_width(), 1.0);
        let offset = wave(CLASSES, 1.0);
        let read_out = ReadOut {
            labels: &labels,
            weight: &weight,
            offset: &offset,
        };
        let model = export_classifier(&backbone, read_out, &[("classifier", "Letters")]).unwrap();
        let mut session = session(&model);
        let metadata = session.metadata().unwrap();
        let stored = metadata.custom("labels").unwrap();
        assert_eq!(
            serde_json::from_str::<Vec<String>>(&stored).unwrap(),
            labels
        );
        assert_eq!(metadata.custom("classifier").as_deref(), Some("Letters"));
        drop(metadata);
        for (width, height) in [
            (28, 28),
            (300, 200),
            (37, 500),
            (640, 33),
            (5, 9),
            (101, 57),
        ] {
            let image = picture(width, height);
            let mut png = Cursor::new(Vec::new());
            image.write_to(&mut png, ImageFormat::Png).unwrap();
            let expected = expected(&backbone, &weight, &offset, png.get_ref());
            let shape = vec![height as usize, width as usize, 3];
            let input = TensorRef::from_array_view((shape, image.as_raw().as_slice())).unwrap();
            let outputs = session.run(ort::inputs!["image" => input]).unwrap();
            let scores = outputs["scores"].try_extract_tensor::<f32>().unwrap().1;
            assert_eq!(scores.len(), CLASSES);
            for (score, expected) in scores.iter().zip(&expected) {
                let off = (f64::from(*score) - expected).abs();
                assert!(
                    off < 1e-3,
                    "{name} {width} x {height}: {scores:?} and {expected:?}"
                );
            }
            let best = (0..CLASSES)
                .max_by(|&a, &b| scores[a].total_cmp(&scores[b]))
                .unwrap();
            let (_, label) = outputs["label"].try_extract_strings().unwrap();
            assert_eq!(label, [labels[best].clone()]);
        }
    }
}

#[test]
fn what_onnx_cannot_say_is_refused_by_its_name() {
    let backbone = load_folder(&project("tests/golden/vit-tiny")).unwrap();
    let labels = ["a".to_owned(), "b".to_owned()];
    let weight = wave(2 * backbone.feature_width(), 1.0);
    let read_out = ReadOut {
        labels: &labels,
        weight: &weight,
        offset: &[0.0, 0.0],
    };
    let with = |change: &dyn Fn(&mut Preprocess)| {
        let mut changed = backbone.clone();
        change(&mut changed.preprocess);
        export_classifier(&changed, read_out, &[]).unwrap_err()
    };
    let filter = with(&|preprocess| preprocess.resample = Resample::Lanczos);
    assert_eq!(filter, OnnxError::Resample(Resample::Lanczos));
    let size = with(&|preprocess| preprocess.resize = None);
    assert_eq!(size, OnnxError::NoImageSize);
    let exact = |side| {
        Some(ResizeTarget::Exact {
            height: side,
            width: side,
        })
    };
    let patch = with(&|preprocess| preprocess.resize = exact(27));
    assert!(matches!(patch, OnnxError::ImageSize { image_size: 27, .. }));
}
