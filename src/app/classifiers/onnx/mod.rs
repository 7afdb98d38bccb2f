//! A classifier for other programs: one ONNX file that needs nothing else, and two examples that use it.

use super::{Answering, ClassifiersError};
use crate::app::App;
use crate::app::registry::RegistryError;
use model::adapter::{ExportError, NamedFile};
use model::backbone::Backbone;
use model::backbone::onnx::{ReadOut, export_classifier};
use store::ClassifierRecord;

const IN_PYTHON: &str = include_str!("classify.py");
const IN_JAVASCRIPT: &str = include_str!("classify.mjs");

impl App {
    /// The files of the classifier `record` for other programs: `model.onnx`, whose scores are those of [`Self::classify_with`] up to the
    /// rounding of `f32`, `labels.json`, and an example in Python and one in JavaScript.
    ///
    /// # Errors
    /// As [`Self::sorter`]; [`RegistryError::Onnx`] where the backbone's preprocessing has no form in ONNX.
    pub async fn classifier_as_onnx(
        &self,
        record: &ClassifierRecord,
    ) -> Result<Vec<NamedFile>, ClassifiersError> {
        let options = Answering::of(record).whole();
        let sorter = self.sorter(record.id, &options).await?;
        let (backbone, name) = (self.backbone.clone(), record.name.clone());
        let write = move || -> Result<Vec<NamedFile>, RegistryError> {
            let linear = sorter.fitted().linear().ok_or_else(|| {
                RegistryError::Damaged("the head of the classifier is not linear".to_owned())
            })?;
            let merged = match sorter.adapter() {
                None => None,
                Some(served) => {
                    let weights = served
                        .adapter
                        .merged_into(&backbone.weights, &backbone.config);
                    let weights = weights.map_err(ExportError::from)?;
                    let (config, preprocess) =
                        (backbone.config.clone(), backbone.preprocess.clone());
                    Some(Backbone::new(config, preprocess, weights))
                }
            };
            let read_out = ReadOut {
                labels: &linear.labels,
                weight: &linear.weight,
                offset: &linear.offset,
            };
            let revision = sorter.revision.to_string();
            let adapter = sorter.adapter().map(|served| served.record.label());
            let metadata = [
                ("classifier", name.as_str()),
                ("revision", &revision),
                ("adapter", adapter.as_deref().unwrap_or("none")),
            ];
            let model =
                export_classifier(merged.as_ref().unwrap_or(&backbone), read_out, &metadata)?;
            let labels = serde_json::json!(linear.labels).to_string();
            Ok(vec![
                NamedFile::new("model.onnx", model),
                NamedFile::new("labels.json", labels),
                NamedFile::new("classify.py", IN_PYTHON),
                NamedFile::new("classify.mjs", IN_JAVASCRIPT),
            ])
        };
        let written = tokio::task::spawn_blocking(write).await;
        Ok(written.map_err(RegistryError::from)??)
    }
}
