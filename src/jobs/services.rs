//! What jobs may use of the program besides their own recipe.

use super::Devices;
use crate::app::registry::{Registry, RegistryError};
use crate::app::{App, AppError};
use crate::inference::{EncoderService, NativeEncoder, ServiceLimits};
use engine::session::SessionOptions;
use model::backbone::{Backbone, EMBEDDED_NAME};
use model::image_input::ImageLimits;
use std::sync::Arc;
use store::{Digest, Name, Store};

/// Clones share everything.
#[derive(Clone)]
pub struct Services {
    registry: Registry,
    /// The backbone that the program serves, if it has one open: its weights need not be in memory twice.
    open_backbone: Option<Arc<Backbone>>,
    devices: Devices,
    /// What answers the requests of the program, if it is a server.
    answering: Option<Arc<App>>,
}

impl Services {
    /// What jobs may use beside `registry`: the backbone that the program serves, if it has one open.
    pub fn new(registry: Registry, open_backbone: Option<Arc<Backbone>>) -> Self {
        Self {
            registry,
            open_backbone,
            devices: Devices::default(),
            answering: None,
        }
    }

    /// Jobs that answer as requests are answered do so through `app`.
    pub fn answering(self, app: Arc<App>) -> Self {
        Self {
            answering: Some(app),
            ..self
        }
    }

    /// Jobs compute on `devices` in place of what there is.
    pub fn on(self, devices: Devices) -> Self {
        Self { devices, ..self }
    }

    /// What jobs compute on.
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The registry of adapters.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The data folder.
    pub fn store(&self) -> &Store {
        self.registry.store()
    }

    /// The registered backbone called `name`; without a name the one that the program serves, else the embedded one.
    ///
    /// # Errors
    /// [`RegistryError`] where it is unknown or cannot be read.
    pub async fn backbone_named(&self, name: Option<&str>) -> Result<Arc<Backbone>, RegistryError> {
        match (name, &self.open_backbone) {
            (None, Some(open)) => Ok(Arc::clone(open)),
            (name, _) => {
                let name: Name = name.unwrap_or(EMBEDDED_NAME).parse()?;
                let record = self.store().backbone(&name).await?;
                self.backbone(&record.digest).await
            }
        }
    }

    /// The backbone with this digest and all its weights.
    ///
    /// # Errors
    /// [`RegistryError`] where it is unknown or cannot be read.
    pub async fn backbone(&self, digest: &Digest) -> Result<Arc<Backbone>, RegistryError> {
        match &self.open_backbone {
            Some(open) if open.digest == digest.as_str() => Ok(Arc::clone(open)),
            _ => self.registry.backbone(digest).await.map(Arc::new),
        }
    }

    /// What answers requests, where that is on the backbone with this digest.
    pub fn answers_on(&self, digest: &Digest) -> Option<Arc<App>> {
        let app = self.answering.as_ref()?;
        (app.backbone.digest == digest.as_str()).then(|| Arc::clone(app))
    }

    /// A separate [`App`] for computing in the background: its engine's threads inherit the priority of the calling one,
    /// and no request waits for it.
    ///
    /// # Errors
    /// [`AppError`] where the backbone is unknown or the engine cannot start.
    pub async fn app(&self, digest: &Digest, options: SessionOptions) -> Result<App, AppError> {
        let backbone = self.backbone(digest).await?;
        let name = self.registry.candidate_of_backbone(digest).await?.name;
        let for_encoder = Arc::clone(&backbone);
        let encoder = EncoderService::start(
            move || Ok(Box::new(NativeEncoder::open(&for_encoder, options)?)),
            ServiceLimits::default(),
        )?;
        let app = App::with_encoder(name.to_string(), backbone, ImageLimits::default(), encoder);
        Ok(app.with_registry(self.registry.clone()))
    }
}
