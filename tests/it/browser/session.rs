//! A running server and a browser that has its page open. Both end with the test.

use super::webdriver::{Client, Key};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use test_support::project;

const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];
/// Generous: test machines are busy. A condition that holds is seen at once.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const WAIT: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A child process that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `lora-recycle serve` on a separate port.
pub struct Server {
    _process: Process,
    pub origin: String,
}

impl Server {
    /// Starts on `listen`; port 0 takes a free one.
    pub fn start(data_folder: &Path, listen: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lora-recycle"));
        command
            .args(["serve", "--listen", listen, "--data-dir"])
            .arg(data_folder)
            .env("LORA_RECYCLE_SHIPPED_ADAPTER", "none");
        let (process, address) = start_until(command, |line| {
            let rest = &line[line.find("http://127.0.0.1:")?..];
            let port = rest["http://127.0.0.1:".len()..]
                .chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>();
            (!port.is_empty()).then(|| format!("http://127.0.0.1:{port}"))
        });
        Self {
            _process: process,
            origin: address,
        }
    }
}

/// A browser with the page open.
pub struct Session {
    pub client: Client,
    pub server: Option<Server>,
    pub origin: String,
    pub folder: TempDir,
    _driver_process: Process,
}

impl Session {
    /// `None`, with a word why, where there is no browser; with `CI=true` that is a failure.
    pub async fn start() -> Option<Self> {
        Self::start_with(tempfile::tempdir().unwrap()).await
    }

    /// As [`Self::start`], on a folder whose sub-folder `data` may hold something already.
    pub async fn start_with(folder: TempDir) -> Option<Self> {
        let Some(browser) = BROWSERS.iter().find_map(|name| on_path(name)) else {
            return skip("no Chromium or Chrome");
        };
        let Some(chromedriver) = on_path("chromedriver") else {
            return skip("no chromedriver");
        };
        let server = Server::start(&folder.path().join("data"), "127.0.0.1:0");
        let mut command = Command::new(chromedriver);
        command.arg("--port=0");
        let (driver_process, driver) = start_until(command, |line| {
            let port = line.split("started successfully on port ").nth(1)?;
            Some(format!("http://127.0.0.1:{}", port.trim_end_matches('.')))
        });
        let profile = folder.path().join("profile");
        let capabilities = json!({
            "goog:chromeOptions": {"binary": browser, "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--window-size=1280,900", format!("--user-data-dir={}", profile.display())
            ]},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        });
        let client = Client::connect(&driver, capabilities).await.unwrap();
        let session = Self {
            client,
            origin: server.origin.clone(),
            server: Some(server),
            folder,
            _driver_process: driver_process,
        };
        session.open("/").await;
        session
            .wait_for("document.documentElement.dataset.ready === 'true'")
            .await;
        Some(session)
    }

    pub async fn open(&self, path: &str) {
        self.client
            .goto(&format!("{}{path}", self.origin))
            .await
            .unwrap();
    }

    /// Waits until the JavaScript expression `condition` holds. It is asked for again and again from outside: a script that waits
    /// inside the page is lost, with its answer, when the page goes elsewhere.
    pub async fn wait_for(&self, condition: &str) {
        let script = format!("return Boolean({condition});");
        let deadline = Instant::now() + WAIT;
        loop {
            let held = self.client.execute(&script, vec![]).await;
            if matches!(held, Ok(Value::Bool(true))) {
                return;
            }
            if Instant::now() > deadline {
                let page = self.value("document.body.innerText").await;
                panic!(
                    "never held: {condition} (last answer: {held:?})\nthe page says:\n{}",
                    page.as_str().unwrap_or_default()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The value of a JavaScript expression.
    pub async fn value(&self, expression: &str) -> Value {
        self.client
            .execute(&format!("return {expression};"), vec![])
            .await
            .unwrap()
    }

    pub async fn text(&self, selector: &str) -> String {
        let element = self.client.find(selector).await.unwrap();
        element.text().await.unwrap()
    }

    pub async fn click(&self, selector: &str) {
        let element = self.client.find(selector).await.unwrap();
        element.click().await.unwrap();
    }

    /// Clicks the first element of `selector` whose text begins with `text`.
    pub async fn click_text(&self, selector: &str, text: &str) {
        self.client
            .execute(
                "[...document.querySelectorAll(arguments[0])].find((element) => element.textContent.trim().startsWith(arguments[1])).click()",
                vec![json!(selector), json!(text)],
            )
            .await
            .unwrap();
    }

    /// Drops a file with these bytes on the element `target`.
    pub async fn drop_file(&self, target: &str, name: &str, kind: &str, bytes: &[u8]) {
        self.client
            .execute(
                "const [target, name, type, bytes] = arguments;
                 const transfer = new DataTransfer();
                 transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
                 for (const event of ['dragenter', 'dragover', 'drop']) {
                     document.querySelector(target).dispatchEvent(
                         new DragEvent(event, { dataTransfer: transfer, bubbles: true, cancelable: true }));
                 }",
                vec![json!(target), json!(name), json!(kind), json!(bytes)],
            )
            .await
            .unwrap();
    }

    /// Picks `files` in a file input, as the file dialog would.
    pub async fn pick(&self, selector: &str, files: &[PathBuf]) {
        let element = self.client.find(selector).await.unwrap();
        let paths = files
            .iter()
            .map(|path| path.to_str().unwrap())
            .collect::<Vec<_>>();
        element.send_keys(&paths.join("\n")).await.unwrap();
    }

    /// Presses a key, wherever the focus is.
    pub async fn press(&self, key: Key) {
        self.client.press(key).await.unwrap();
    }

    /// A command of the DevTools protocol.
    pub async fn devtools(&self, command: &str, parameters: Value) {
        self.post(
            "goog/cdp/execute",
            json!({"cmd": command, "params": parameters}),
        )
        .await;
    }

    /// What the console said at level warning or above: script errors, missing files, policy violations.
    pub async fn console_complaints(&self) -> Vec<String> {
        let entries = self.post("se/log", json!({"type": "browser"})).await;
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING")
            .map(|entry| entry["message"].to_string())
            .collect()
    }

    /// Addresses of all requests since the last call.
    pub async fn requested(&self) -> Vec<String> {
        let entries = self.post("se/log", json!({"type": "performance"})).await;
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .filter_map(|entry| serde_json::from_str::<Value>(entry["message"].as_str()?).ok())
            .filter(|event| event["message"]["method"] == "Network.requestWillBeSent")
            .filter_map(|event| {
                let address = &event["message"]["params"]["request"]["url"];
                address.as_str().map(str::to_owned)
            })
            .collect()
    }

    /// Ends the browser and the server.
    pub async fn close(self) {
        self.client.close().await.unwrap();
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.client.post(path, body).await.unwrap()
    }
}

/// A picture that ships with the program.
pub fn example(path: &str) -> PathBuf {
    project("assets/examples").join(path)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

fn skip<T>(reason: &str) -> Option<T> {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{reason} on PATH, but continuous integration must run the browser tests"
    );
    eprintln!("skipped: {reason} on PATH (on Debian: apt install chromium chromium-driver)");
    None
}

/// Starts `command` and reads its output until `recognise` finds what it waits for; the rest is read and dropped.
fn start_until(
    mut command: Command,
    recognise: impl Fn(&str) -> Option<String> + Clone + Send + 'static,
) -> (Process, String) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, receiver) = mpsc::channel();
    let outputs: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().unwrap()),
        Box::new(child.stderr.take().unwrap()),
    ];
    for output in outputs {
        let sender = sender.clone();
        let recognise = recognise.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let found = recognise(&line);
                // Nobody listens once the process is known to run.
                let _ = sender.send((line, found));
            }
        });
    }
    drop(sender);
    let process = Process(child);
    let mut said = Vec::new();
    loop {
        match receiver.recv_timeout(START_TIMEOUT) {
            Ok((_, Some(found))) => return (process, found),
            Ok((line, None)) => said.push(line),
            Err(_) => panic!("{command:?} did not start; it said:\n{}", said.join("\n")),
        }
    }
}
