//! The real router around an encoder that tests hold in their hands.

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use lora_recycle::app::App;
use lora_recycle::app::registry::Registry;
use lora_recycle::inference::{
    Device, EncodeError, EncodeRow, Encoded, Encoder, EncoderInfo, EncoderService, OrtEncoder,
    OrtOptions, Outputs, ServiceLimits,
};
use lora_recycle::jobs::{Jobs, RunnerOptions, Services, product_kinds};
use lora_recycle::web::{AllowedHosts, WebLimits, WebState, router};
use model::backbone::{Backbone, EMBEDDED_NAME, embedded, load_folder};
use model::image_input::ImageLimits;
use serde_json::Value;
use std::io::Cursor;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use test_support::project;
use tower::ServiceExt;

/// Where the boundary of a [`form`] is not part of what is tested.
const BOUNDARY: &str = "boundary-7d83";

pub struct TestApp {
    app: Arc<App>,
    router: Router,
    state: WebState,
}

/// An answer, read to its end.
pub struct Answered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What the encoder does with a batch.
pub enum Behaviour {
    /// Features are the mean red and the mean blue of the image.
    Works,
    /// As `Works` through an adapter; without one features are the mean green, beside a constant.
    NeedsAdapter,
    Fails,
    Stopped,
    Panics,
    /// As `Works`, but tells each arrival and waits to be let on.
    Waits {
        arrived: Sender<()>,
        go_on: Receiver<()>,
    },
}

struct ColourEncoder {
    behaviour: Behaviour,
    feature_width: usize,
}

impl Encoder for ColourEncoder {
    fn info(&self) -> EncoderInfo {
        EncoderInfo {
            engine: "colours".into(),
            device: "cpu".into(),
            providers: Vec::new(),
            version: "1".into(),
            threads: 1,
        }
    }

    fn encode(&mut self, rows: &[EncodeRow], _: Outputs) -> Result<Vec<Encoded>, EncodeError> {
        match &self.behaviour {
            Behaviour::Works | Behaviour::NeedsAdapter => {}
            Behaviour::Fails => return Err(EncodeError::Engine("the secret cause".into())),
            Behaviour::Stopped => return Err(EncodeError::Stopped),
            Behaviour::Panics => panic!("the secret cause"),
            Behaviour::Waits { arrived, go_on } => {
                let _ = arrived.send(());
                let _ = go_on.recv();
            }
        }
        let encode = |row: &EncodeRow| {
            let plane = row.pixels.data().len() / 3;
            let mean = |channel: usize| {
                let values = &row.pixels.data()[channel * plane..(channel + 1) * plane];
                values.iter().sum::<f32>() / plane as f32
            };
            let mut feature = vec![0.0; self.feature_width];
            (feature[0], feature[1]) = match (&self.behaviour, &row.adapter) {
                (Behaviour::NeedsAdapter, None) => (mean(1), 1.0),
                _ => (mean(0), mean(2)),
            };
            Encoded {
                feature,
                cls_attention: vec![0.25, 0.5, 0.125, 0.125],
                last_hidden_state: None,
            }
        };
        Ok(rows.iter().map(encode).collect())
    }
}

impl TestApp {
    pub fn new() -> Self {
        Self::with(Behaviour::Works, WebLimits::default())
    }

    pub fn limited(change: impl FnOnce(&mut WebLimits)) -> Self {
        let mut limits = WebLimits::default();
        change(&mut limits);
        Self::with(Behaviour::Works, limits)
    }

    pub fn behaving(behaviour: Behaviour) -> Self {
        Self::with(behaviour, WebLimits::default())
    }

    /// An app whose encoder waits; the first end tells arrivals, the second lets one batch on.
    pub fn waiting(limits: WebLimits) -> (Self, Receiver<()>, Sender<()>) {
        let (arrived, arrivals) = channel();
        let (let_on, go_on) = channel();
        let app = Self::with(Behaviour::Waits { arrived, go_on }, limits);
        (app, arrivals, let_on)
    }

    pub fn with(behaviour: Behaviour, limits: WebLimits) -> Self {
        let backbone = tiny_backbone();
        let feature_width = backbone.feature_width();
        Self::around(backbone, limits, None, move |_| {
            Ok(Box::new(ColourEncoder {
                behaviour,
                feature_width,
            }))
        })
    }

    /// An app with this registry.
    pub fn with_registry(registry: Registry) -> Self {
        Self::behaving_with(registry, Behaviour::Works)
    }

    /// An app with this registry, whose encoder does this.
    pub fn behaving_with(registry: Registry, behaviour: Behaviour) -> Self {
        let backbone = tiny_backbone();
        let feature_width = backbone.feature_width();
        let limits = WebLimits::default();
        Self::around(backbone, limits, Some(registry), move |_| {
            Ok(Box::new(ColourEncoder {
                behaviour,
                feature_width,
            }))
        })
    }

    /// An app with this registry and queue.
    pub fn with_jobs(registry: Registry, jobs: Jobs) -> Self {
        let mut app = Self::with_registry(registry);
        app.router = router(app.state.clone().with_jobs(jobs));
        app
    }

    /// An app whose encoder waits, with this registry and a queue whose jobs answer as the app does. The first end of the encoder tells
    /// how many images came, the second lets one batch on.
    pub fn sorting_slowly(registry: Registry) -> (Self, Jobs, Receiver<()>, Sender<()>) {
        let (arrived, arrivals) = channel();
        let (let_on, go_on) = channel();
        let (app, jobs) = Self::sorting_with(registry, Behaviour::Waits { arrived, go_on });
        (app, jobs, arrivals, let_on)
    }

    /// An app with this registry and a queue whose jobs answer as the app does; nothing runs by itself.
    pub fn sorting(registry: Registry) -> (Self, Jobs) {
        Self::sorting_with(registry, Behaviour::Works)
    }

    fn sorting_with(registry: Registry, behaviour: Behaviour) -> (Self, Jobs) {
        let backbone = tiny_backbone();
        let feature_width = backbone.feature_width();
        let limits = WebLimits::default();
        let services = Services::new(registry.clone(), None);
        let mut own = Self::around(backbone, limits, Some(registry), move |_| {
            Ok(Box::new(ColourEncoder {
                behaviour,
                feature_width,
            }))
        });
        let services = services.answering(Arc::clone(&own.app));
        let jobs = Jobs::new(services, product_kinds(), RunnerOptions::default());
        own.router = router(own.state.clone().with_jobs(jobs.clone()));
        (own, jobs)
    }

    /// The tiny backbone on ONNX Runtime.
    pub fn with_onnx_runtime(registry: Option<Registry>) -> Self {
        let options = OrtOptions {
            threads: 1,
            device: Device::Cpu,
            cache_folder: None,
        };
        Self::around(
            tiny_backbone(),
            WebLimits::default(),
            registry,
            |backbone| Ok(Box::new(OrtEncoder::open(backbone, options)?)),
        )
    }

    /// The embedded backbone on ONNX Runtime.
    pub fn embedded(registry: Registry) -> Self {
        let options = OrtOptions {
            threads: 2,
            device: Device::Cpu,
            cache_folder: None,
        };
        let backbone = Arc::new(embedded().unwrap());
        let open = |backbone| -> Result<Box<dyn Encoder>, EncodeError> {
            Ok(Box::new(OrtEncoder::open(backbone, options)?))
        };
        Self::named(
            EMBEDDED_NAME,
            backbone,
            WebLimits::default(),
            Some(registry),
            open,
        )
    }

    fn around(
        backbone: Arc<Backbone>,
        limits: WebLimits,
        registry: Option<Registry>,
        open: impl FnOnce(Arc<Backbone>) -> Result<Box<dyn Encoder>, EncodeError> + Send + 'static,
    ) -> Self {
        Self::named("tiny", backbone, limits, registry, open)
    }

    fn named(
        name: &str,
        backbone: Arc<Backbone>,
        limits: WebLimits,
        registry: Option<Registry>,
        open: impl FnOnce(Arc<Backbone>) -> Result<Box<dyn Encoder>, EncodeError> + Send + 'static,
    ) -> Self {
        let for_encoder = Arc::clone(&backbone);
        let encoder =
            EncoderService::start(move || open(for_encoder), ServiceLimits::default()).unwrap();
        let mut app = App::with_encoder(name.into(), backbone, ImageLimits::default(), encoder);
        if let Some(registry) = registry {
            app = app.with_registry(registry);
        }
        let hosts = AllowedHosts::loopback_and(&[]);
        let app = Arc::new(app);
        let state = WebState::new(Arc::clone(&app), limits, hosts);
        Self {
            app,
            router: router(state.clone()),
            state,
        }
    }

    /// An answer whose body has not been read.
    pub async fn open(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn send(&self, request: Request<Body>) -> Answered {
        let response = self.open(request).await;
        let (parts, body) = response.into_parts();
        Answered {
            status: parts.status,
            headers: parts.headers,
            body: to_bytes(body, usize::MAX).await.unwrap(),
        }
    }

    pub async fn get(&self, path: &str) -> Answered {
        self.send(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    pub async fn post_json(&self, path: &str, body: &Value) -> Answered {
        self.send(json_request(path, body.to_string())).await
    }

    pub async fn post_form(&self, path: &str, parts: &[(&str, &str, &[u8])]) -> Answered {
        self.send(form_request(path, parts)).await
    }
}

impl Answered {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Status, content type and body, without what differs from run to run.
    pub fn snapshot(&self) -> String {
        let mut body = self.json();
        if let Some(id) = body.get_mut("request_id") {
            assert_eq!(*id, self.header("x-request-id"));
            *id = "[id]".into();
        }
        let retry = match self.header("retry-after") {
            "" => String::new(),
            seconds => format!("retry-after: {seconds}\n"),
        };
        format!(
            "{}\n{}\n{retry}{body:#}",
            self.status,
            self.header("content-type")
        )
    }
}

pub fn json_request(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

/// Parts that are made at run time, as [`form_request`] takes them.
pub fn borrowed(parts: &[(String, String, Vec<u8>)]) -> Vec<(&str, &str, &[u8])> {
    let parts = parts.iter();
    parts
        .map(|(name, file_name, bytes)| (name.as_str(), file_name.as_str(), bytes.as_slice()))
        .collect()
}

/// Parts as (name, file name, bytes); an empty file name is left out.
pub fn form_request(path: &str, parts: &[(&str, &str, &[u8])]) -> Request<Body> {
    let mut body = Vec::new();
    for (name, file_name, bytes) in parts {
        let mut head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"");
        if !file_name.is_empty() {
            head += &format!("; filename=\"{file_name}\"");
        }
        head += "\r\n\r\n";
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    Request::post(path)
        .header(
            header::CONTENT_TYPE,
            format!("multipart/form-data; boundary={BOUNDARY}"),
        )
        .body(Body::from(body))
        .unwrap()
}

/// A PNG of one colour.
pub fn png(red: u8, green: u8, blue: u8) -> Vec<u8> {
    let picture = image::RgbImage::from_pixel(9, 7, image::Rgb([red, green, blue]));
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

pub fn tiny_backbone() -> Arc<Backbone> {
    Arc::new(load_folder(&project("tests/golden/vit-tiny")).unwrap())
}
