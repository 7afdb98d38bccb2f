//! From a bundle that may be hostile to a classifier in the store. It keeps features and no pictures, and answers as it did where it was made.

use super::super::ClassifiersError;
use super::super::features::Spaces;
use super::{
    ADAPTER, BUNDLE_LIMITS, BundledAdapter, FEATURES, FORMAT, HEAD, MANIFEST, Manifest, VERSION,
    thumbnail_path,
};
use crate::app::App;
use crate::app::encoding::Example;
use crate::app::registry::{ImportOptions, ServedAdapter};
use model::adapter::{NamedFile, Package, check_checksums, read_zip};
use model::tensor_file::TensorFile;
use recycle::classifier::LinearClassifier;
use recycle::head::HeadChoice;
use recycle::head::copies::CopySpec;
use std::collections::HashMap;
use store::{
    AdapterChoice, AdapterFilter, AdapterRecord, ClassifierRecord, KnownPicture, Name, NewClass,
    NewClassifier, NewPicture, Privacy,
};
use uuid::Uuid;

/// How far the head that is made here may be from that of the bundle, as a share of its largest value.
const TOLERANCE: f32 = 1e-5;
/// Of a thumbnail that is taken.
const LARGEST_THUMBNAIL_BYTES: usize = 256 << 10;

/// A classifier from a bundle.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedClassifier {
    /// As it is stored here.
    pub record: ClassifierRecord,
    /// Whether its head has the bits that it had where it was made; else they agree to five digits.
    pub is_exact: bool,
}

/// What a bundle holds, checked as far as the files alone allow it.
struct Unpacked {
    manifest: Manifest,
    thumbnails: Vec<Vec<u8>>,
    examples: Vec<Example>,
    head: LinearClassifier,
    adapter: Option<Vec<u8>>,
}

impl App {
    /// Stores the classifier in the bundle `zip` as `name`, or as it was called where it was made. The adapter that it sees through is
    /// imported where it is not here yet.
    ///
    /// # Errors
    /// [`ClassifiersError::BundleRefused`], [`ClassifiersError::OtherBackbone`]; of the adapter; of the store. Nothing of the classifier is
    /// left then.
    pub async fn import_classifier(
        &self,
        zip: Vec<u8>,
        name: Option<String>,
        id: Option<Uuid>,
        by: &str,
    ) -> Result<ImportedClassifier, ClassifiersError> {
        let specs = HeadChoice::default().copy_specs();
        let copies = specs.len();
        let unpacked = tokio::task::spawn_blocking(move || unpack(&zip, copies)).await;
        let unpacked = unpacked.map_err(|error| refused(error.to_string()))?;
        let mut unpacked = unpacked.map_err(refused)?;
        let digest = self.backbone_digest()?;
        if unpacked.manifest.backbone_digest != digest {
            return Err(ClassifiersError::OtherBackbone {
                classifier: unpacked.manifest.name,
                its_backbone: unpacked.manifest.backbone_name,
                its_digest: unpacked.manifest.backbone_digest.to_string(),
                backbone: self.backbone_name.clone(),
                digest: self.backbone.digest.clone(),
            });
        }
        let packed = unpacked.adapter.take();
        let served = match &unpacked.manifest.adapter {
            None => None,
            Some(adapter) => {
                let record = self.bundled_adapter(adapter, packed).await?;
                self.adapter(Some(&record.id.to_string())).await?
            }
        };
        let spaces = Spaces::of(digest.clone(), &self.pictures, served.as_ref());
        if spaces.described(&specs) != unpacked.manifest.features {
            return Err(refused(
                "its features were made for pictures of another size, or by another version of the program; serve with the --image-size that it was made with".to_owned(),
            ));
        }
        let adapter = match &served {
            None => AdapterChoice::None,
            Some(ServedAdapter { record, .. }) => AdapterChoice::Pinned {
                id: record.id,
                label: record.label(),
                digest: record.digest.clone(),
            },
        };
        let new = NewClassifier {
            id,
            name: name.unwrap_or_else(|| unpacked.manifest.name.clone()),
            backbone_digest: digest,
            adapter,
            head: serde_json::json!(unpacked.manifest.answering),
            privacy: Privacy::Features,
        };
        let store = self.classifiers_store()?;
        let made = store.create_classifier(&new, by).await?;
        if made.pictures > 0 {
            // The same request, sent again after its answer was lost.
            return Ok(ImportedClassifier {
                record: made,
                is_exact: true,
            });
        }
        let filled = self.fill(made.id, unpacked, (&spaces, &specs), by).await;
        match filled {
            Ok(is_exact) => Ok(ImportedClassifier {
                record: store.classifier(made.id).await?,
                is_exact,
            }),
            Err(error) => {
                if let Err(left) = store.delete_classifier(made.id, None).await {
                    tracing::warn!(error = %left, "a classifier that could not be imported whole is left");
                }
                Err(error)
            }
        }
    }

    /// The adapter of a bundle: the one of its name with the same matrices that is here, or else imported.
    async fn bundled_adapter(
        &self,
        adapter: &BundledAdapter,
        packed: Option<Vec<u8>>,
    ) -> Result<AdapterRecord, ClassifiersError> {
        let registry = self.registry()?;
        let name: Name = adapter
            .name
            .parse()
            .map_err(|error| refused(format!("its adapter: {error}")))?;
        let filter = AdapterFilter {
            backbone_digest: Some(self.backbone_digest()?),
            name: Some(name.clone()),
            ..AdapterFilter::default()
        };
        for here in registry.store().list_adapters(&filter).await? {
            if registry.load(&here).await?.digest() == adapter.digest {
                return Ok(here);
            }
        }
        let Some(packed) = packed else {
            return Err(refused(format!("its adapter {} is missing", adapter.label)));
        };
        let package = Package::of(vec![NamedFile::new(ADAPTER, packed)]);
        let imported = registry.import(package, name, ImportOptions::default());
        let record = imported.await?.record;
        if registry.load(&record).await?.digest() != adapter.digest {
            return Err(refused(format!(
                "its adapter {} is another one",
                adapter.label
            )));
        }
        Ok(record)
    }

    /// Gives the new classifier `id` its classes and pictures, and says whether its head has the same bits.
    async fn fill(
        &self,
        id: Uuid,
        unpacked: Unpacked,
        (spaces, specs): (&Spaces, &[CopySpec]),
        by: &str,
    ) -> Result<bool, ClassifiersError> {
        let store = self.classifiers_store()?;
        let answering = unpacked.manifest.answering;
        let Unpacked {
            manifest,
            thumbnails,
            examples,
            head,
            ..
        } = unpacked;
        let classes = manifest.labels.iter().map(|label| NewClass {
            id: None,
            name: label.clone(),
        });
        let classes: Vec<NewClass> = classes.collect();
        let classes = store.add_classes(id, None, &classes, by).await?.classes;
        let mut pictures = Vec::with_capacity(examples.len());
        let all = manifest.pictures.into_iter().zip(thumbnails).zip(examples);
        for ((picture, thumbnail), example) in all {
            let class = classes.get(picture.class);
            let class = class.ok_or_else(|| refused("a picture is of no class".to_owned()))?;
            pictures.push(KnownPicture {
                digest: picture.digest,
                size_bytes: picture.size_bytes,
                picture: NewPicture {
                    class: class.id,
                    name: picture.name,
                    media_type: picture.media_type,
                    width: picture.width,
                    height: picture.height,
                    original: Vec::new(),
                    thumbnail,
                    features: spaces.keyed(&example, specs),
                },
            });
        }
        store.add_known_pictures(id, pictures, by).await?;
        let options = answering.whole();
        let made = self.sorter(id, &options).await?.fitted().linear();
        let made = made.ok_or_else(|| refused("its head is not linear".to_owned()))?;
        if made == head {
            return Ok(true);
        }
        match is_close(&made, &head) {
            true => Ok(false),
            false => Err(refused(
                "its pictures make another head here; it was made by another version of the program"
                    .to_owned(),
            )),
        }
    }
}

fn refused(detail: String) -> ClassifiersError {
    ClassifiersError::BundleRefused(detail)
}

fn is_close(one: &LinearClassifier, other: &LinearClassifier) -> bool {
    let values = |own: &LinearClassifier| -> Vec<f32> {
        own.weight.iter().chain(&own.offset).copied().collect()
    };
    let (one, other) = (values(one), values(other));
    let largest = other
        .iter()
        .fold(0.0_f32, |largest, value| largest.max(value.abs()));
    one.len() == other.len()
        && one
            .iter()
            .zip(&other)
            .all(|(a, b)| (a - b).abs() <= TOLERANCE * largest)
}

/// Reads a bundle whose classifier's features have `copies` copies.
fn unpack(zip: &[u8], copies: usize) -> Result<Unpacked, String> {
    let files = read_zip(zip, &BUNDLE_LIMITS).map_err(|error| error.to_string())?;
    let not_one = "this is no bundle of a classifier";
    let by_path: HashMap<&str, &[u8]> = files
        .iter()
        .map(|file| (file.path.as_str(), file.bytes.as_slice()))
        .collect();
    let named = |path: &str| {
        let file = by_path.get(path).copied();
        file.ok_or_else(|| format!("{not_one}: {path} is missing"))
    };
    let manifest = named(MANIFEST)?;
    #[derive(serde::Deserialize)]
    struct Header {
        format: String,
        version: u32,
    }
    let header: Header =
        serde_json::from_slice(manifest).map_err(|error| format!("{not_one}: {error}"))?;
    if header.format != FORMAT {
        return Err(format!("{not_one}: its format is \"{}\"", header.format));
    }
    if header.version != VERSION {
        return Err(format!(
            "the bundle has version {}; this program reads version {VERSION}",
            header.version
        ));
    }
    check_checksums(&files).map_err(|error| error.to_string())?;
    let manifest: Manifest =
        serde_json::from_slice(manifest).map_err(|error| format!("{MANIFEST}: {error}"))?;
    let (count, classes) = (manifest.pictures.len(), manifest.labels.len());
    if count > store::MOST_PICTURES || classes > store::MOST_CLASSES {
        return Err(format!(
            "it has {classes} classes and {count} pictures, which is too much"
        ));
    }
    let open =
        |path: &str| TensorFile::parse(named(path)?).map_err(|error| format!("{path}: {error}"));
    let (head, features) = (open(HEAD)?, open(FEATURES)?);
    let width = features
        .shape("features")
        .and_then(|shape| shape.get(1).copied());
    let width = width.ok_or_else(|| format!("{FEATURES}: there are no features"))?;
    let read = |file: &TensorFile<'_>, path: &str, name: &str, shape: &[usize]| {
        let tensor = file.read_shaped(name, shape);
        let tensor = tensor.map_err(|error| format!("{path}: {error}"))?;
        Ok::<_, String>(tensor.data().to_vec())
    };
    let head = LinearClassifier {
        labels: manifest.labels.clone(),
        weight: read(&head, HEAD, "weight", &[classes, width])?,
        offset: read(&head, HEAD, "offset", &[classes])?,
    };
    let plain = read(&features, FEATURES, "features", &[count, width])?;
    let of_copies = match features.shape("copies") {
        None => None,
        Some(_) => Some(read(
            &features,
            FEATURES,
            "copies",
            &[count, copies, width],
        )?),
    };
    let width = width.max(1);
    let mut examples: Vec<Example> = plain
        .chunks_exact(width)
        .map(|feature| Example {
            feature: feature.to_vec(),
            copies: None,
        })
        .collect();
    if let Some(of_copies) = of_copies {
        let of_pictures = of_copies.chunks_exact((copies * width).max(1));
        for (example, copies) in examples.iter_mut().zip(of_pictures) {
            example.copies = Some(copies.chunks_exact(width).map(<[f32]>::to_vec).collect());
        }
    }
    let mut thumbnails = Vec::with_capacity(count);
    for place in 0..count {
        let path = thumbnail_path(place);
        let thumbnail = named(&path)?;
        if !thumbnail.starts_with(b"\xff\xd8\xff") || thumbnail.len() > LARGEST_THUMBNAIL_BYTES {
            return Err(format!("{path} is no thumbnail"));
        }
        thumbnails.push(thumbnail.to_vec());
    }
    Ok(Unpacked {
        adapter: by_path.get(ADAPTER).map(|bytes| bytes.to_vec()),
        manifest,
        thumbnails,
        examples,
        head,
    })
}
