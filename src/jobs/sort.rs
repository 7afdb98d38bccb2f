//! Sorting a batch as a job: many pictures by a classifier as it was when the job began, through what answers requests.
//! Rows are kept as they are answered, so that after an interruption nothing is encoded again. A run without a server computes with the
//! engine, whose features may differ in their last digits from those of ONNX Runtime.

use super::{Job, JobContext, JobError, JobRequest, Planned, RequestError, Services};
use crate::app::classifiers::{ClassifiersError, Sorter};
use crate::app::{App, AppError, ClassifyOptions, CopiesWanted, NamedImage};
use crate::inference::EncodeError;
use model::image_input::thumbnail;
use rayon::prelude::*;
use recycle::head::HeadChoice;
use recycle::steps::StepReport;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use store::{ClassifierError, Digest, JobInput, LogLevel, NewBatch, NewBatchRow, Verdict};
use utoipa::ToSchema;
use uuid::Uuid;

/// Different pictures that are answered together. Few, so that requests need not wait long.
const AT_ONCE: usize = 16;
/// Bytes of files that are read together, but for a single larger one.
const MOST_BYTES_AT_ONCE: u64 = 32 << 20;
/// How long a full queue of requests is left alone.
const BUSY_DELAY: Duration = Duration::from_millis(100);

/// Sorts the pictures of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = SortJob)]
pub struct Sort {
    /// Id of the batch; the job makes it.
    pub batch: Uuid,
    /// The classifier that sorts.
    pub classifier: Uuid,
    /// Of the batch.
    pub name: String,
    /// Pictures of the batch.
    pub pictures: u32,
    /// Whether the pictures are kept as they were sent.
    pub keeps_pictures: bool,
    /// What reads the features.
    pub head: HeadChoice,
    /// The share of pictures of known classes that may be refused; null refuses nothing.
    pub reject: Option<f32>,
    /// Who asked for it.
    pub made_by: String,
}

/// Nothing: batches come with their pictures to the address of their classifier.
#[derive(Debug, Serialize, Deserialize)]
pub struct SortRequest {}

impl JobRequest for SortRequest {}

/// What sorting gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SortResult {
    /// Null where it was deleted before it was sorted.
    pub batch: Option<Uuid>,
    /// The revision of the classifier that answered; null where it was deleted.
    pub revision: Option<u64>,
    /// Pictures that have an answer or a fault.
    pub pictures: u32,
}

/// The batch or its classifier was deleted: there is nothing more to do.
struct Gone;

impl Job for Sort {
    type Request = SortRequest;
    type Outcome = SortResult;

    const KIND: &'static str = "sort";
    /// Somebody waits for it, and it seldom takes longer than minutes.
    const PRIORITY: i32 = 10;
    const RUNS_BESIDE: bool = true;

    fn title(&self) -> String {
        format!("Sort {}, {} pictures", self.name, self.pictures)
    }

    async fn plan(_: SortRequest, _: &Services) -> Result<Vec<Planned<Self>>, RequestError> {
        Err(RequestError::invalid(
            "kind",
            "a batch comes with its pictures to POST /api/v1/classifiers/{id}/batches",
        ))
    }

    fn run(&self, context: &JobContext) -> Result<SortResult, JobError> {
        match self.sorted(context)? {
            Ok(revision) => Ok(SortResult {
                batch: Some(self.batch),
                revision: Some(revision),
                pictures: self.pictures,
            }),
            Err(Gone) => {
                let message = "the batch or its classifier was deleted; there is nothing to sort";
                context.log(LogLevel::Info, message)?;
                Ok(SortResult {
                    batch: None,
                    revision: None,
                    pictures: 0,
                })
            }
        }
    }
}

impl Sort {
    fn options(&self) -> ClassifyOptions {
        ClassifyOptions {
            nearest: 0,
            head: self.head,
            reject: self.reject,
            copies: CopiesWanted::Always,
            ..ClassifyOptions::default()
        }
    }

    /// Sorts what is not sorted yet, and gives the revision that answered.
    fn sorted(&self, context: &JobContext) -> Result<Result<u64, Gone>, JobError> {
        let batch = NewBatch {
            id: Some(self.batch),
            classifier: self.classifier,
            job: context.id(),
            name: self.name.clone(),
            pictures: self.pictures,
        };
        let made = context.block_on(context.store().create_batch(&batch, &self.made_by));
        if unless_gone(made)?.is_err() {
            return Ok(Err(Gone));
        }
        let record = context.block_on(context.store().classifier(self.classifier));
        let Ok(record) = unless_gone(record)? else {
            return Ok(Err(Gone));
        };
        let app = match context.services().answers_on(&record.backbone_digest) {
            Some(app) => app,
            None => {
                let options = context.session_options(None)?;
                let app = context.services().app(&record.backbone_digest, options);
                Arc::new(context.block_on(app)?)
            }
        };
        let Ok(sorter) = self.sorter(context, &app)? else {
            return Ok(Err(Gone));
        };
        let done = context.block_on(context.store().batch_positions(self.batch));
        let Ok(done) = unless_gone(done)? else {
            return Ok(Err(Gone));
        };
        let mut sorted = done.len() as u64;
        if sorted > 0 {
            let message = format!("{sorted} of {} pictures are sorted already", self.pictures);
            context.log(LogLevel::Info, &message)?;
        }
        let inputs = context.inputs()?;
        for chunk in chunks(&different(&inputs, &done)) {
            context.interrupted()?;
            let rows = self.rows(context, &app, &sorter, chunk)?;
            sorted += rows.len() as u64;
            let added = context.block_on(context.store().add_batch_rows(self.batch, rows));
            if unless_gone(added)?.is_err() {
                return Ok(Err(Gone));
            }
            context.report(&StepReport {
                phase: "sorting",
                step: sorted,
                total: u64::from(self.pictures),
                figures: Vec::new(),
            })?;
        }
        context.report_pending()?;
        Ok(Ok(sorter.revision))
    }

    /// The classifier of the first run: as it was when that began.
    fn sorter(&self, context: &JobContext, app: &App) -> Result<Result<Sorter, Gone>, JobError> {
        if let Some(kept) = context.load_checkpoint()? {
            let sorter = context.block_on(app.read_sorter(&kept));
            return Ok(Ok(sorter.map_err(fault_of)?));
        }
        let options = self.options();
        let sorter = patiently(context, || app.sorter(self.classifier, &options));
        let sorter = match sorter? {
            Err(ClassifiersError::Store(error)) => match unless_gone(Err(error))? {
                Ok(sorter) => sorter,
                Err(Gone) => return Ok(Err(Gone)),
            },
            sorter => sorter.map_err(fault_of)?,
        };
        context.save_checkpoint(&sorter.to_bytes().map_err(fault_of)?)?;
        Ok(Ok(sorter))
    }

    /// The rows of different pictures, one for each time that a picture was sent.
    fn rows(
        &self,
        context: &JobContext,
        app: &App,
        sorter: &Sorter,
        pictures: &[Picture<'_>],
    ) -> Result<Vec<NewBatchRow>, JobError> {
        let mut images = Vec::with_capacity(pictures.len());
        for picture in pictures {
            images.push(NamedImage {
                name: picture.input.name.clone(),
                bytes: context.read_input(picture.input)?,
            });
        }
        let limits = *app.limits();
        let small = |image: &NamedImage| thumbnail(&image.bytes, &limits).ok();
        let thumbnails: Vec<_> = images.par_iter().map(small).collect();
        let options = self.options();
        let verdicts = patiently(context, || app.sort(sorter, images.clone(), options));
        let verdicts = verdicts?.map_err(fault_of)?;
        let mut rows = Vec::new();
        let answered = pictures.iter().zip(images).zip(thumbnails).zip(verdicts);
        for (((picture, image), small), verdict) in answered {
            let is_picture = matches!(verdict, Verdict::Sorted { .. });
            // What is not a picture is of no use to anybody.
            let kept = self.keeps_pictures && is_picture;
            for (position, name) in &picture.places {
                rows.push(NewBatchRow {
                    position: *position,
                    name: (*name).to_owned(),
                    original: kept.then(|| image.bytes.clone()),
                    thumbnail: small.as_ref().map(|own| own.jpeg.clone()),
                    verdict: verdict.clone(),
                });
            }
        }
        Ok(rows)
    }
}

/// A picture, and where it is in the batch: as often as it was sent.
struct Picture<'a> {
    input: &'a JobInput,
    places: Vec<(u32, &'a str)>,
}

/// The different pictures that are not sorted yet, by their first places.
fn different<'a>(inputs: &'a [JobInput], done: &[u32]) -> Vec<Picture<'a>> {
    let done: HashSet<u32> = done.iter().copied().collect();
    let mut known: HashMap<&Digest, usize> = HashMap::new();
    let mut pictures: Vec<Picture<'a>> = Vec::new();
    for (position, input) in (0..).zip(inputs) {
        if done.contains(&position) {
            continue;
        }
        let place = *known.entry(&input.digest).or_insert(pictures.len());
        let own = (position, input.name.as_str());
        match pictures.get_mut(place) {
            Some(picture) => picture.places.push(own),
            None => pictures.push(Picture {
                input,
                places: vec![own],
            }),
        }
    }
    pictures
}

/// `pictures` in parts that are answered together.
fn chunks<'a, 'b>(mut pictures: &'b [Picture<'a>]) -> impl Iterator<Item = &'b [Picture<'a>]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |picture: &&Picture<'_>| {
            bytes += picture.input.size_bytes;
            bytes <= MOST_BYTES_AT_ONCE
        };
        let count = pictures.iter().take(AT_ONCE).take_while(fits).count();
        let (chunk, rest) = pictures.split_at(count.max(1).min(pictures.len()));
        pictures = rest;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// `Err` in the inner place where batch or classifier was deleted.
fn unless_gone<T>(result: Result<T, ClassifierError>) -> Result<Result<T, Gone>, JobError> {
    match result {
        Ok(done) => Ok(Ok(done)),
        Err(ClassifierError::UnknownBatch(_) | ClassifierError::UnknownClassifier(_)) => {
            Ok(Err(Gone))
        }
        Err(error) => Err(fault_of(error.into())),
    }
}

/// Does `work`, again and again as long as the queue of requests is full.
fn patiently<T, F>(
    context: &JobContext,
    work: impl Fn() -> F,
) -> Result<Result<T, ClassifiersError>, JobError>
where
    F: Future<Output = Result<T, ClassifiersError>>,
{
    loop {
        match context.block_on(work()) {
            Err(ClassifiersError::App(AppError::Encode(EncodeError::Overloaded))) => {
                context.interrupted()?;
                context.block_on(tokio::time::sleep(BUSY_DELAY));
            }
            done => return Ok(done),
        }
    }
}

fn fault_of(error: ClassifiersError) -> JobError {
    match error {
        ClassifiersError::App(error @ (AppError::Registry(_) | AppError::Encode(_))) => {
            error.into()
        }
        ClassifiersError::Store(ClassifierError::Store(error)) => error.into(),
        error => JobError::abort("classifier", error.to_string())
            .hint("see the classifier; send the pictures again once it can answer"),
    }
}
