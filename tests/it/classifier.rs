//! Classification in its parts: a classifier that was fitted, stored and read back answers as `classify` does in one go.

use crate::test_app::{png, tiny_backbone};
use engine::session::SessionOptions;
use lora_recycle::app::{
    Answer, App, AppError, ClassifyOptions, CopiesWanted, NamedImage, SupportClass,
};
use lora_recycle::inference::{EncodeError, Encoder, EncoderService, NativeEncoder, ServiceLimits};
use model::image_input::ImageLimits;
use recycle::classifier::{Classifier, ClassifierError};
use recycle::head::HeadChoice;
use std::sync::Arc;

/// The tiny backbone on the engine.
fn app() -> App {
    let backbone = tiny_backbone();
    let for_encoder = Arc::clone(&backbone);
    let open = move || -> Result<Box<dyn Encoder>, EncodeError> {
        Ok(Box::new(NativeEncoder::open(
            &for_encoder,
            SessionOptions::on_threads(1),
        )?))
    };
    let encoder = EncoderService::start(open, ServiceLimits::default()).unwrap();
    App::with_encoder("tiny".into(), backbone, ImageLimits::default(), encoder)
}

fn image(name: &str, bytes: Vec<u8>) -> NamedImage {
    NamedImage {
        name: name.into(),
        bytes,
    }
}

fn classes() -> Vec<SupportClass> {
    let class = |label: &str, images: Vec<NamedImage>| SupportClass {
        label: label.into(),
        images,
    };
    vec![
        class(
            "red",
            vec![image("a", png(250, 0, 0)), image("b", png(200, 30, 10))],
        ),
        class(
            "blue",
            vec![
                image("c", png(0, 0, 250)),
                image("broken", b"no picture".to_vec()),
            ],
        ),
        class("green", vec![image("d", png(10, 240, 0))]),
    ]
}

fn queries() -> Vec<NamedImage> {
    vec![
        image("reddish", png(230, 10, 20)),
        image("unreadable", vec![0; 9]),
        image("bluish", png(20, 40, 220)),
    ]
}

const OPTIONS: ClassifyOptions = ClassifyOptions {
    attention: true,
    nearest: 4,
    head: HeadChoice::Auto,
    copies: CopiesWanted::Always,
    transductive: false,
    reject: None,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_classifier_that_was_stored_answers_as_one_request_does() {
    let app = app();
    let at_once = app
        .classify(classes(), queries(), OPTIONS, None)
        .await
        .unwrap();
    let fitted = app.fit(classes(), OPTIONS, None).await.unwrap();
    assert_eq!(fitted.refused, at_once.refused);
    assert_eq!(fitted.refused[0].image, "broken");
    let stored = fitted.classifier.to_json().unwrap();
    let classifier = Classifier::from_json(&stored).unwrap();
    let answers = app
        .answer(&classifier, queries(), OPTIONS, None)
        .await
        .unwrap();
    // JSON writes every f32 so that it is read back as the same bits.
    let [answers, expected] =
        [answers, at_once.answers].map(|answers| serde_json::to_string(&answers).unwrap());
    assert_eq!(answers, expected);
    assert!(expected.contains("\"unreadable\"") && expected.contains("\"attention\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classifier_of_another_backbone_is_refused_and_a_class_without_images_is_named() {
    let app = app();
    // What other heads know does not fit other features either, which reading them says.
    let options = ClassifyOptions {
        head: "nearest-mean".parse().unwrap(),
        ..OPTIONS
    };
    let fitted = app.fit(classes(), options, None).await.unwrap();
    let mut json: serde_json::Value =
        serde_json::from_slice(&fitted.classifier.to_json().unwrap()).unwrap();
    for support in json["supports"].as_array_mut().unwrap() {
        support["feature"] = serde_json::json!([1.0, 0.0]);
    }
    let other = Classifier::from_json(&serde_json::to_vec(&json).unwrap()).unwrap();
    let refused = app.answer(&other, queries(), OPTIONS, None).await;
    assert!(matches!(
        refused,
        Err(AppError::Classifier(ClassifierError::Width {
            expected: 2,
            ..
        }))
    ));
    // Where no query can be read there is nothing to compare.
    let unreadable = vec![image("unreadable", vec![0; 9])];
    let answers = app.answer(&other, unreadable, OPTIONS, None).await.unwrap();
    assert!(matches!(answers[..], [Answer::Failed { .. }]));

    let mut classes = classes();
    classes[2].images = vec![image("broken", b"no picture".to_vec())];
    let empty = app.fit(classes, OPTIONS, None).await;
    assert!(
        matches!(empty, Err(AppError::EmptyClass { label, refused }) if label == "green" && refused.len() == 2)
    );
}
