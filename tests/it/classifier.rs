//! Classification in its parts: fitted, stored, read back, it answers as `classify` does in one go.

use crate::test_app::{TestApp, png};
use lora_recycle::app::{AppError, ClassifyOptions, NamedImage, SupportClass};
use recycle::classifier::Classifier;

