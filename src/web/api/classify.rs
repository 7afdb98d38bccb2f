//! Classification from a few examples, in one call; nothing is stored.

use super::images::{Base64Image, BodyKind, named_images, receive_form, receive_json};
use super::labelled_parts::{LabelledParts, LabelledPlace};
use super::parameters::Parameters;
use super::problems::AnswerProblems;
use super::schemas::labelled_form;
use super::{AdapterIdentity, BackboneIdentity, wanted_adapter};
use crate::app::{Answer, App, ClassifyOptions, NamedImage, RefusedSupport, SupportClass};
use crate::inference::EncoderInfo;
use crate::jobs::{ClassPictures, LONGEST_LABEL};
use crate::web::ApiError;
use crate::web::limits::{Admission, AnswerSize};
use crate::web::problem::Problem;
use axum::Json;
use axum::extract::{Request, State};
use recycle::head::HeadChoice;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

/// Classes and queries, as JSON.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassifyRequest {
    /// 2 to 1000 classes, each with at least one image.
    #[schema(value_type = Vec<ClassPictures>)]
    classes: Vec<ClassExamples>,
    /// Images to classify.
    queries: Vec<Base64Image>,
    /// Adapter that the images go through: `name`, `name:version` or `name@alias`; `none` is the bare backbone. Without one
    /// the backbone's default adapter answers, where it has one.
    #[serde(default)]
    adapter: Option<String>,
}

/// A class and its labelled images.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassExamples {
    pub label: String,
    pub images: Vec<Base64Image>,
}

/// Classes and queries, as a form.
struct ClassifyForm;

impl PartialSchema for ClassifyForm {
    fn schema() -> RefOr<Schema> {
        labelled_form("Labelled image files.")
            .files(
                "query",
                "Image files to classify; the part may be given any number of times.",
            )
            .required(["support", "label", "query"])
    }
}

impl ToSchema for ClassifyForm {}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ClassifyParameters {
    /// Adds to each answer where the backbone looked.
    #[serde(default)]
    attention: bool,
    /// How many nearest labelled images each answer names.
    #[serde(default = "default_nearest")]
    #[param(default = 3)]
    nearest: usize,
    /// Adapter that the images go through: `name`, `name:version` or `name@alias`; `none` is the bare backbone. Without one
    /// the backbone's default adapter answers, where it has one.
    adapter: Option<String>,
    /// What reads the features: `auto`, `nearest-mean`, `lda` or `lda-augmented`.
    #[serde(default)]
    #[param(value_type = String, default = "auto")]
    head: HeadChoice,
    /// Classifies all queries of the request together: class means move towards the queries that are near. It helps many queries with few
    /// labelled images; an answer then depends on the other queries. The heads `lda` and `lda-augmented` can do it.
    #[serde(default)]
    transductive: bool,
    /// The share of images of known classes that may be refused, above 0 and below 1, so that images unlike all labelled ones get the
    /// label null and `rejected`. Left out, nothing is refused.
    #[param(exclusive_minimum = 0.0, exclusive_maximum = 1.0)]
    reject: Option<f32>,
}

/// Most nearest images that an answer names.
const MOST_NEAREST: usize = 100;

fn default_nearest() -> usize {
    ClassifyOptions::default().nearest
}

/// Answers, in the order of the queries. An image is called by its file name, or by its index where it has none.
#[derive(Serialize, ToSchema)]
pub struct ClassifyResponse {
    pub backbone: BackboneIdentity,
    /// The adapter that gave the answer; null for the bare backbone.
    pub adapter: Option<AdapterIdentity>,
    pub encoder: EncoderInfo,
    /// True where examples are still computed in the background: the same question has a better answer a little later.
    pub provisional: bool,
    pub results: Vec<Answer>,
    /// Labelled images that could not be used.
    pub refused: Vec<RefusedSupport>,
}

/// Classifies images from a few labelled examples
///
/// Nothing is stored. A query that cannot be used has an `error` in its place, a labelled image that cannot be used is listed
/// in `refused`; the others are still answered.
#[utoipa::path(
    post,
    path = "/api/v1/classify",
    tag = "classification",
    params(ClassifyParameters),
    request_body(content((ClassifyRequest = "application/json"), (ClassifyForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "One result per query, in order", body = ClassifyResponse),
        (status = 404, description = "There is no such adapter; the detail names near ones",
            body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The adapter was made for another backbone; the detail names both",
            body = Problem, content_type = "application/problem+json"),
        AnswerProblems,
    )
)]
pub(in crate::web) async fn classify_images(
    State(app): State<Arc<App>>,
    Parameters(parameters): Parameters<ClassifyParameters>,
    admission: Admission,
    request: Request,
) -> Result<Json<ClassifyResponse>, ApiError> {
    let mut in_body = None;
    let (classes, queries) = match BodyKind::of(request.headers())? {
        BodyKind::Json => {
            let mut body: ClassifyRequest = receive_json(&admission, request).await?;
            in_body = body.adapter.take();
            from_json(body)?
        }
        BodyKind::Form => from_form(&admission, request).await?,
    };
    check(&admission, &classes, &queries)?;
    let options = checked(ClassifyOptions {
        attention: parameters.attention,
        nearest: parameters.nearest,
        head: parameters.head,
        transductive: parameters.transductive,
        reject: parameters.reject,
        ..ClassifyOptions::default()
    })?;
    let names = classes
        .iter()
        .flat_map(|class| &class.images)
        .map(|image| image.name.len());
    admission.check_answer(AnswerSize {
        queries: queries.len(),
        classes: classes.len(),
        nearest: options.nearest,
        longest_label: classes
            .iter()
            .map(|class| class.label.len())
            .max()
            .unwrap_or(0),
        longest_name: names.max().unwrap_or(0),
    })?;
    let served = wanted_adapter(&app, parameters.adapter, in_body).await?;
    let answer = admission
        .answer(app.classify(classes, queries, options, served.as_ref()))
        .await?;
    Ok(Json(ClassifyResponse {
        backbone: BackboneIdentity::of(&app),
        adapter: served.as_ref().map(AdapterIdentity::of),
        encoder: app.encoder_info().clone(),
        provisional: answer.is_provisional,
        results: answer.answers,
        refused: answer.refused,
    }))
}

/// The options of a request, unless they are impossible.
///
/// # Errors
/// [`ApiError::InvalidParameter`]
pub fn checked(options: ClassifyOptions) -> Result<ClassifyOptions, ApiError> {
    if let Some(share) = options.reject
        && !(share > 0.0 && share < 1.0)
    {
        return Err(ApiError::InvalidParameter {
            parameter: "reject".into(),
            detail: format!("{share} is not a share; it must be above 0 and below 1"),
        });
    }
    if options.nearest > MOST_NEAREST {
        return Err(ApiError::TooMany {
            parameter: "nearest",
            what: "nearest images",
            found: options.nearest,
            limit: MOST_NEAREST,
        });
    }
    if let Some(problem) = options.problem() {
        return Err(ApiError::InvalidParameter {
            parameter: "transductive".into(),
            detail: problem.into(),
        });
    }
    Ok(options)
}

fn from_json(body: ClassifyRequest) -> Result<(Vec<SupportClass>, Vec<NamedImage>), ApiError> {
    let classes = body
        .classes
        .into_iter()
        .enumerate()
        .map(|(index, class)| {
            Ok(SupportClass {
                label: class.label,
                images: named_images(class.images, &format!("classes[{index}].images"))?,
            })
        })
        .collect::<Result<_, ApiError>>()?;
    Ok((classes, named_images(body.queries, "queries")?))
}

/// Where a part of the form belongs.
enum Place {
    Labelled(LabelledPlace),
    Query,
}

async fn from_form(
    admission: &Admission,
    request: Request,
) -> Result<(Vec<SupportClass>, Vec<NamedImage>), ApiError> {
    let parts = receive_form(admission, request, place).await?;
    let mut labelled = LabelledParts::default();
    let mut queries = Vec::new();
    for part in parts {
        match part.without_place() {
            (part, Place::Labelled(place)) => labelled.take(place, part)?,
            (part, Place::Query) => queries.push(part.named(queries.len())),
        }
    }
    let mut classes: Vec<SupportClass> = Vec::new();
    let mut class_of: HashMap<String, usize> = HashMap::new();
    for labelled in labelled.into_labelled()? {
        let label = labelled.label;
        let index = *class_of.entry(label.clone()).or_insert_with(|| {
            classes.push(SupportClass {
                label,
                images: Vec::new(),
            });
            classes.len() - 1
        });
        let images = &mut classes[index].images;
        images.push(labelled.picture.named(images.len()));
    }
    Ok((classes, queries))
}

fn place(name: String) -> Result<Place, ApiError> {
    match LabelledPlace::of(&name) {
        Some(place) => Ok(Place::Labelled(place)),
        None if name == "query" => Ok(Place::Query),
        None => Err(ApiError::InvalidParameter {
            detail: format!(
                "a part is named \"{name}\"; the names are support for labelled images, label for their labels and query for images to classify"
            ),
            parameter: name,
        }),
    }
}

fn check(
    admission: &Admission,
    classes: &[SupportClass],
    queries: &[NamedImage],
) -> Result<(), ApiError> {
    for (index, class) in classes.iter().enumerate() {
        if class.label.len() > LONGEST_LABEL {
            return Err(ApiError::InvalidParameter {
                parameter: format!("classes[{index}].label"),
                detail: format!(
                    "the label has {} bytes, at most {LONGEST_LABEL} are allowed",
                    class.label.len()
                ),
            });
        }
    }
    if queries.is_empty() {
        return Err(ApiError::InvalidParameter {
            parameter: "queries".into(),
            detail: "there is no image to classify".into(),
        });
    }
    let support: usize = classes.iter().map(|class| class.images.len()).sum();
    admission.check_images("classes", support + queries.len())?;
    admission.check_scores(queries.len(), classes.len())
}
