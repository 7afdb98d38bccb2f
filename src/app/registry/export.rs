//! From a stored adapter to files for other programs and other machines.

use super::{Registry, RegistryError, load_backbone};
use clap::ValueEnum;
use model::adapter::{
    Adapter, BackboneCandidate, ExportOptions, ImportReport, NameStyle, NamedFile, export_bundle,
    export_peft, export_published,
};
use model::backbone::Backbone;
use model::backbone::onnx::{Operators, export};
use serde::Deserialize;
use store::{AdapterRecord, BackboneRecord};
use utoipa::ToSchema;

/// What an adapter is exported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// The folder that PEFT loads
    #[default]
    Peft,
    /// The single file of the published adapters, where it can hold the adapter
    Published,
    /// One zip for another LoRA Recycle, with checksums and the import report
    Bundle,
    /// The backbone with the adapter merged in, as one ONNX file of standard operators
    Onnx,
}

impl Registry {
    /// The files of `record` in `format`; `names` is for PEFT's folder, alone or in a bundle. PEFT has several files, the other
    /// formats have one.
    ///
    /// # Errors
    /// [`RegistryError`]: a file is damaged, the backbone cannot be read, or the format cannot hold the adapter.
    pub async fn export(
        &self,
        record: &AdapterRecord,
        format: ExportFormat,
        names: NameStyle,
    ) -> Result<Vec<NamedFile>, RegistryError> {
        let adapter = self.load(record).await?;
        let backbone = self
            .store()
            .backbone_by_digest(&record.backbone_digest)
            .await?;
        let candidate = self.candidate_of(record).await?;
        let report = self.store().adapter_report(record.id).await?;
        let work = Work {
            title: record.label(),
            file_stem: format!("{}-{}", record.name, record.version),
            name: record.name.to_string(),
            adapter,
            backbone,
            candidate,
            // A report of an older program may lack what this one knows; an export does without it.
            report: serde_json::from_value(report).ok(),
            names,
        };
        tokio::task::spawn_blocking(move || work.export(format)).await?
    }
}

/// Everything that an export reads, off the async workers.
struct Work {
    title: String,
    file_stem: String,
    name: String,
    adapter: Adapter,
    backbone: BackboneRecord,
    candidate: BackboneCandidate,
    report: Option<ImportReport>,
    names: NameStyle,
}

impl Work {
    fn export(&self, format: ExportFormat) -> Result<Vec<NamedFile>, RegistryError> {
        let config = self
            .report
            .as_ref()
            .and_then(|report| report.config.as_ref());
        let options = |title| ExportOptions {
            title,
            backbone: &self.candidate,
            base_model: config.and_then(|config| config.base_model.as_deref()),
            names: self.names,
        };
        let one = |ending: &str, bytes: Vec<u8>| {
            vec![NamedFile::new(format!("{}{ending}", self.file_stem), bytes)]
        };
        Ok(match format {
            ExportFormat::Peft => export_peft(&self.adapter, &options(&self.title))?,
            ExportFormat::Published => {
                let file = export_published(&self.adapter, &self.candidate)?;
                one(".safetensors", file.bytes)
            }
            ExportFormat::Bundle => one(
                ".zip",
                export_bundle(&self.adapter, &options(&self.name), self.report.as_ref())?,
            ),
            ExportFormat::Onnx => one(".onnx", self.onnx()?),
        })
    }

    fn onnx(&self) -> Result<Vec<u8>, RegistryError> {
        let Backbone {
            config,
            preprocess,
            weights,
            ..
        } = load_backbone(&self.backbone)?;
        let merged = self
            .adapter
            .merged_into(&weights, &config)
            .map_err(model::adapter::ExportError::from)?;
        let merged = Backbone::new(config, preprocess, merged);
        Ok(export(&merged, merged.image_size(), Operators::Standard)?)
    }
}
