//! What a command says when it fails: a sentence, what to do next, and an exit code.

use crate::app::AppError;
use crate::app::classifiers::ClassifiersError;
use crate::app::evaluation::EvaluationError;
use crate::app::pool_quality::PoolQualityError;
use crate::app::registry::RegistryError;
use crate::inference::EncodeError;
use crate::jobs::RequestError;
use model::adapter::ExportError;
use std::process::ExitCode;
use store::{ClassifierError, StoreError};

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The user can fix it: exit 1.
    User,
    /// The command line was wrong: exit 2.
    Usage,
    /// A defect of the program or the machine: exit 70.
    Internal,
}

/// A failed command.
#[derive(Debug)]
pub struct CliError {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

impl CliError {
    /// Something that the person at the command line can fix; exit status 1.
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(Kind::User, message.into())
    }

    /// Arguments that do not fit together; exit status 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message.into())
    }

    /// A fault of the program or the machine; exit status 70.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message.into())
    }

    fn new(kind: Kind, message: String) -> Self {
        Self {
            kind,
            message,
            hint: None,
        }
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What went wrong, without the hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Prints the error to stderr.
    pub fn report(self) -> ExitCode {
        eprintln!("error: {}", self.message);
        if let Some(hint) = self.hint {
            eprintln!("hint: {hint}");
        }
        ExitCode::from(match self.kind {
            Kind::User => 1,
            Kind::Usage => 2,
            Kind::Internal => 70,
        })
    }
}

impl From<RegistryError> for CliError {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        match error {
            RegistryError::Store(StoreError::UnknownAdapter { .. }) => {
                Self::user(message).hint("`lora-recycle adapter list` shows what there is")
            }
            RegistryError::Store(StoreError::UnknownBackbone { .. }) => Self::user(message)
                .hint("`lora-recycle backbone list` shows what there is, `backbone add DIR --name N` adds one"),
            RegistryError::Store(StoreError::InUse { .. }) => {
                Self::user(message).hint("stop the server, or use its page /admin/adapters")
            }
            RegistryError::Store(StoreError::UnknownJob(_)) => {
                Self::user(message).hint("`lora-recycle jobs list` shows what there is")
            }
            RegistryError::Store(StoreError::JobState { id, .. } | StoreError::JobReplaced(id)) => {
                Self::user(message).hint(format!("`lora-recycle jobs show {id}` shows it"))
            }
            RegistryError::Store(StoreError::JobInputsGone(_)) => {
                Self::user(message).hint("give the command that made the job again")
            }
            RegistryError::Store(StoreError::JobBlocked { by, .. }) => {
                Self::user(message).hint(format!("`lora-recycle jobs retry {by}` comes first"))
            }
            RegistryError::Store(StoreError::AdapterInUse { .. }) => Self::user(message)
                .hint("`lora-recycle adapter alias rm NAME@ALIAS` removes an alias, `adapter alias rm default` the default of a backbone"),
            RegistryError::Store(StoreError::UnknownAlias(_)) => {
                Self::user(message).hint("`lora-recycle adapter alias list` shows what there is")
            }
            RegistryError::BackboneGone { .. } => Self::user(message)
                .hint("put the folder back, or delete its adapters and the backbone (`backbone rm`)"),
            RegistryError::OtherBackbone { .. } => Self::user(message)
                .hint("`lora-recycle adapter list` shows the backbone of each adapter"),
            RegistryError::Refused(_) => {
                Self::user(message).hint("`lora-recycle adapter import PATH --dry-run` shows the whole report")
            }
            RegistryError::Export(ExportError::NotRepresentable(_)) => {
                Self::user(message).hint("use --format peft")
            }
            RegistryError::Name(_) | RegistryError::ReservedName(_) => {
                Self::user(message).hint("an adapter is named name, name:version or name@alias")
            }
            RegistryError::Damaged(_) => {
                Self::user(message).hint("import the adapter again, or put the data folder's files back from a backup")
            }
            RegistryError::Temporary(_) => Self::user(message)
                .hint("free some space, or name a folder for temporary files with the variable TMPDIR"),
            RegistryError::Stopped(_) => Self::internal(message),
            RegistryError::Store(_)
            | RegistryError::Files(_)
            | RegistryError::Backbone(_)
            | RegistryError::Export(_)
            | RegistryError::Bundle(_)
            | RegistryError::Onnx(_)
            | RegistryError::Merge(_)
            | RegistryError::Absent => Self::user(message),
        }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        RegistryError::from(error).into()
    }
}

impl From<RequestError> for CliError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Registry(error) => error.into(),
            RequestError::FailedImages(fault) => {
                let error = Self::user(fault.message);
                match fault.hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                }
            }
            RequestError::UnknownKind { .. } | RequestError::Invalid { .. } => {
                Self::user(error.to_string())
            }
        }
    }
}

impl From<EvaluationError> for CliError {
    fn from(error: EvaluationError) -> Self {
        let message = error.to_string();
        match error {
            EvaluationError::App(error) => error.into(),
            EvaluationError::Episode(_) => Self::user(message)
                .hint("choose a smaller --way, --shot or --queries, or add pictures"),
            EvaluationError::Request(_)
            | EvaluationError::Merge(_)
            | EvaluationError::Tuning(_)
            | EvaluationError::Images(_)
            | EvaluationError::Operation(_)
            | EvaluationError::Head(_) => Self::user(message),
        }
    }
}

impl From<PoolQualityError> for CliError {
    fn from(error: PoolQualityError) -> Self {
        match error {
            PoolQualityError::App(error) => error.into(),
            PoolQualityError::Quality(error) => Self::user(error.to_string()),
        }
    }
}

impl From<ClassifiersError> for CliError {
    fn from(error: ClassifiersError) -> Self {
        let message = error.to_string();
        match error {
            ClassifiersError::App(AppError::BadClasses(_)) => Self::user(message).hint(
                "`lora-recycle classifier add NAME DIR` adds pictures; each sub-folder of DIR is a class",
            ),
            ClassifiersError::App(error) => error.into(),
            ClassifiersError::Store(ClassifierError::Store(error)) => error.into(),
            ClassifiersError::OtherBackbone { its_backbone, .. } => {
                Self::user(message).hint(format!("give --backbone {its_backbone}"))
            }
            ClassifiersError::Store(_)
            | ClassifiersError::AdapterGone { .. }
            | ClassifiersError::PicturesNotKept(_)
            | ClassifiersError::BadShare(_)
            | ClassifiersError::BundleRefused(_) => Self::user(message),
        }
    }
}

impl From<ClassifierError> for CliError {
    fn from(error: ClassifierError) -> Self {
        ClassifiersError::from(error).into()
    }
}

impl From<AppError> for CliError {
    fn from(error: AppError) -> Self {
        let message = error.to_string();
        match error {
            AppError::BadClasses(_) => Self::user(message)
                .hint("each sub-folder of the support folder is a class; make at least two"),
            AppError::EmptyClass { refused, .. } => {
                let reasons: Vec<String> = refused
                    .iter()
                    .map(|refused| format!("{}: {}", refused.image, refused.error.message))
                    .collect();
                Self::user(message).hint(format!("fix or replace {}", reasons.join("; ")))
            }
            AppError::UnknownBackbone(_) => {
                Self::user(message).hint("`lora-recycle backbone list` shows what there is")
            }
            AppError::Backbone(_) => Self::user(message)
                .hint("a backbone folder holds config.json, preprocessor_config.json and model.safetensors"),
            AppError::ImageSize { size, patch, .. } => Self::user(message).hint(format!(
                "try --image-size {}",
                ((size + patch / 2) / patch).max(1) * patch
            )),
            AppError::AdapterNotFinite { .. } => Self::user(message)
                .hint("make the adapter again, or use another one"),
            AppError::Registry(error) => Self::from(error),
            AppError::Classifier(_) => Self::user(message),
            AppError::Encode(EncodeError::BadInput(_)) => Self::user(message),
            AppError::Encode(EncodeError::Engine(_)) => {
                Self::user(message).hint("`lora-recycle doctor` checks this installation")
            }
            AppError::Encode(EncodeError::Overloaded | EncodeError::Stopped) => {
                Self::internal(message)
            }
        }
    }
}
