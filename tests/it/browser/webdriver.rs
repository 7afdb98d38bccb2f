//! As much of the WebDriver protocol (W3C) as these tests speak: JSON over HTTP to a driver such as chromedriver.

use reqwest::Method;
use serde_json::{Value, json};

/// Under which an answer names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Why the driver did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error("the driver does not answer: {0}")]
    Unreachable(#[from] reqwest::Error),
    /// For example `no such element`, with the driver's words.
    #[error("{error}: {message}")]
    Refused { error: String, message: String },
}

/// Keys without a character; a string that holds one presses it.
#[derive(Debug, Clone, Copy)]
pub enum Key {
    /// Lets go of all keys that are held.
    Null,
    Tab,
    Enter,
    Control,
    Escape,
    Home,
    Right,
}

impl From<Key> for char {
    fn from(key: Key) -> Self {
        match key {
            Key::Null => '\u{e000}',
            Key::Tab => '\u{e004}',
            Key::Enter => '\u{e007}',
            Key::Control => '\u{e009}',
            Key::Escape => '\u{e00c}',
            Key::Home => '\u{e011}',
            Key::Right => '\u{e014}',
        }
    }
}

/// A session of a browser.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// Address of the session.
    session: String,
}

impl Client {
    /// Starts a browser with `capabilities` through the driver at `driver`, an address without a slash at its end.
    ///
    /// # Errors
    /// [`DriverError`], for example where the browser does not start.
    pub async fn connect(driver: &str, capabilities: Value) -> Result<Self, DriverError> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let address = format!("{driver}/session");
        let body = json!({"capabilities": {"alwaysMatch": capabilities}});
        let begun = ask(&http, Method::POST, &address, Some(body)).await?;
        let id = begun["sessionId"].as_str().unwrap_or_default();
        Ok(Self {
            http,
            session: format!("{address}/{id}"),
        })
    }

    /// Sends a command of the protocol, or of the driver, to `path` below the session's address.
    ///
    /// # Errors
    /// [`DriverError`]
    pub async fn post(&self, path: &str, body: Value) -> Result<Value, DriverError> {
        let address = format!("{}/{path}", self.session);
        ask(&self.http, Method::POST, &address, Some(body)).await
    }

    /// Opens `address` and waits until it has loaded.
    ///
    /// # Errors
    /// [`DriverError`]
    pub async fn goto(&self, address: &str) -> Result<(), DriverError> {
        self.post("url", json!({ "url": address })).await.map(drop)
    }

    /// The first element that the CSS selector `css` matches.
    ///
    /// # Errors
    /// [`DriverError`] where there is none.
    pub async fn find(&self, css: &str) -> Result<Element, DriverError> {
        let wanted = json!({"using": "css selector", "value": css});
        let found = self.post("element", wanted).await?;
        Ok(self.element(&found))
    }

    fn element(&self, found: &Value) -> Element {
        Element {
            client: self.clone(),
            id: found[ELEMENT].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// Runs `script` as the body of a function with `arguments`; gives what it returns.
    ///
    /// # Errors
    /// [`DriverError`] where the script throws.
    pub async fn execute(&self, script: &str, arguments: Vec<Value>) -> Result<Value, DriverError> {
        let body = json!({"script": script, "args": arguments});
        self.post("execute/sync", body).await
    }

    /// As [`Self::execute`]; gives what the script hands to the function that is its last argument.
    ///
    /// # Errors
    /// [`DriverError`] where the script throws or hands over nothing in time.
    pub async fn execute_async(
        &self,
        script: &str,
        arguments: Vec<Value>,
    ) -> Result<Value, DriverError> {
        let body = json!({"script": script, "args": arguments});
        self.post("execute/async", body).await
    }

    /// Presses and lets go of a key, wherever the focus is.
    ///
    /// # Errors
    /// [`DriverError`]
    pub async fn press(&self, key: impl Into<char>) -> Result<(), DriverError> {
        let value = key.into();
        let strokes = ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": value}));
        let body = json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]});
        self.post("actions", body).await.map(drop)
    }

    /// What is in sight, as a PNG file in base64.
    ///
    /// # Errors
    /// [`DriverError`]
    pub async fn screenshot(&self) -> Result<String, DriverError> {
        let address = format!("{}/screenshot", self.session);
        let taken = ask(&self.http, Method::GET, &address, None).await?;
        Ok(taken.as_str().unwrap_or_default().to_owned())
    }

    /// Ends the browser.
    ///
    /// # Errors
    /// [`DriverError`]
    pub async fn close(self) -> Result<(), DriverError> {
        let ended = ask(&self.http, Method::DELETE, &self.session, None).await;
        ended.map(drop)
    }
}

/// An element of the page that is open.
#[derive(Debug, Clone)]
pub struct Element {
    client: Client,
    id: String,
}

impl Element {
    async fn post(&self, command: &str, body: Value) -> Result<(), DriverError> {
        let path = format!("element/{}/{command}", self.id);
        self.client.post(&path, body).await.map(drop)
    }

    /// The text as people see it.
    ///
    /// # Errors
    /// [`DriverError`]
    pub async fn text(&self) -> Result<String, DriverError> {
        let address = format!("{}/element/{}/text", self.client.session, self.id);
        let text = ask(&self.client.http, Method::GET, &address, None).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// # Errors
    /// [`DriverError`], for example where something lies over it.
    pub async fn click(&self) -> Result<(), DriverError> {
        self.post("click", json!({})).await
    }

    /// Types `text`; in a file input, chooses the files whose paths are its lines.
    ///
    /// # Errors
    /// [`DriverError`]
    pub async fn send_keys(&self, text: &str) -> Result<(), DriverError> {
        self.post("value", json!({ "text": text })).await
    }

    /// Empties a field.
    ///
    /// # Errors
    /// [`DriverError`]
    pub async fn clear(&self) -> Result<(), DriverError> {
        self.post("clear", json!({})).await
    }
}

/// The value of the driver's answer.
async fn ask(
    http: &reqwest::Client,
    method: Method,
    address: &str,
    body: Option<Value>,
) -> Result<Value, DriverError> {
    let request = http.request(method, address);
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    let response = request.send().await?;
    let is_fine = response.status().is_success();
    let mut answer: Value = response.json().await?;
    let value = answer["value"].take();
    if is_fine {
        return Ok(value);
    }
    let word = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    Err(DriverError::Refused {
        error: word("error"),
        message: word("message"),
    })
}
