//! From a stored classifier to its bundle.

use super::super::features::Spaces;
use super::super::{Answering, ClassifiersError};
use super::{
    ADAPTER, BundledAdapter, BundledPicture, FEATURES, FORMAT, HEAD, MANIFEST, Manifest, VERSION,
    thumbnail_path,
};
use crate::app::App;
use crate::app::encoding::Example;
use crate::app::registry::{ExportFormat, RegistryError};
use model::adapter::{NameStyle, NamedFile, checksums};
use model::tensor_file::{Stored, write_stored};
use recycle::classifier::LinearClassifier;
use recycle::head::HeadChoice;
use std::collections::BTreeMap;
use store::ClassifierRecord;

impl App {
    /// The files of a bundle of the classifier `record`, for [`Self::import_classifier`] on another installation.
    ///
    /// # Errors
    /// As [`Self::sorter`].
    pub async fn classifier_as_bundle(
        &self,
        record: &ClassifierRecord,
    ) -> Result<Vec<NamedFile>, ClassifiersError> {
        let options = Answering::of(record).whole();
        let (sorter, snapshot, examples) = loop {
            let sorter = self.sorter(record.id, &options).await?;
            let (snapshot, examples) = self.all_examples(record, sorter.adapter()).await?;
            if snapshot.record.revision == sorter.revision {
                break (sorter, snapshot, examples);
            }
        };
        let store = self.classifiers_store()?;
        let linear = sorter.fitted().linear();
        let linear = linear.ok_or_else(|| damaged("the head is not linear".to_owned()))?;
        let (mut pictures, mut usable, mut files) = (Vec::new(), Vec::new(), Vec::new());
        let classes = snapshot.examples.places.iter().map(|(class, _)| *class);
        for ((picture, class), example) in snapshot.pictures.into_iter().zip(classes).zip(examples)
        {
            // One that cannot be used takes no part in any answer.
            let Ok(example) = example else { continue };
            let thumbnail = store.read_thumbnail(&picture.thumbnail).await?;
            files.push(NamedFile::new(thumbnail_path(pictures.len()), thumbnail));
            usable.push(example);
            pictures.push(BundledPicture {
                class,
                name: picture.name,
                digest: picture.digest,
                media_type: picture.media_type,
                size_bytes: picture.size_bytes,
                width: picture.width,
                height: picture.height,
            });
        }
        files.push(NamedFile::new(HEAD, head(&linear).map_err(damaged)?));
        files.push(NamedFile::new(
            FEATURES,
            features(&usable).map_err(damaged)?,
        ));
        let adapter = match sorter.adapter() {
            None => None,
            Some(served) => {
                let bundle = ExportFormat::Bundle;
                let made = self
                    .registry()?
                    .export(&served.record, bundle, NameStyle::V4);
                let bytes = made.await?.pop().map(|file| file.bytes);
                files.push(NamedFile::new(ADAPTER, bytes.unwrap_or_default()));
                Some(BundledAdapter {
                    name: served.record.name.to_string(),
                    label: served.record.label(),
                    digest: served.adapter.digest(),
                })
            }
        };
        let spaces = Spaces::of(
            record.backbone_digest.clone(),
            &self.pictures,
            sorter.adapter(),
        );
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            version: VERSION,
            name: snapshot.record.name.clone(),
            backbone_name: self.backbone_name.clone(),
            backbone_digest: record.backbone_digest.clone(),
            adapter,
            preprocess: self.backbone.preprocess.clone(),
            features: spaces.described(&HeadChoice::default().copy_specs()),
            head: sorter.fitted().head(),
            answering: Answering::of(&snapshot.record),
            calibration: sorter.fitted().calibration(),
            labels: linear.labels,
            pictures,
        };
        let manifest = serde_json::to_vec_pretty(&manifest);
        let manifest = manifest.map_err(|error| damaged(error.to_string()))?;
        files.insert(0, NamedFile::new(MANIFEST, manifest));
        files.push(checksums(&files));
        Ok(files)
    }
}

fn head(linear: &LinearClassifier) -> Result<Vec<u8>, String> {
    let classes = linear.labels.len();
    let width = linear.weight.len() / classes.max(1);
    write_stored(
        &[
            ("offset", &[classes], Stored::F32(&linear.offset)),
            ("weight", &[classes, width], Stored::F32(&linear.weight)),
        ],
        &BTreeMap::new(),
    )
}

fn features(examples: &[Example]) -> Result<Vec<u8>, String> {
    let width = examples.first().map_or(0, |own| own.feature.len());
    let plain: Vec<f32> = examples
        .iter()
        .flat_map(|own| own.feature.clone())
        .collect();
    let per_picture = examples
        .first()
        .and_then(|own| own.copies.as_ref())
        .map_or(0, Vec::len);
    let copies: Option<Vec<f32>> = examples
        .iter()
        .map(|own| {
            own.copies
                .as_ref()
                .filter(|copies| copies.len() == per_picture)
        })
        .map(|copies| copies.map(|copies| copies.concat()))
        .collect::<Option<Vec<_>>>()
        .map(|copies| copies.concat());
    let (of_copies, of_plain) = (
        [examples.len(), per_picture, width],
        [examples.len(), width],
    );
    let mut tensors = vec![("features", &of_plain[..], Stored::F32(&plain))];
    if let Some(copies) = &copies {
        tensors.insert(0, ("copies", &of_copies[..], Stored::F32(copies)));
    }
    write_stored(&tensors, &BTreeMap::new())
}

fn damaged(detail: String) -> RegistryError {
    RegistryError::Damaged(detail)
}
