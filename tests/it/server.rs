//! The real program over HTTP.

use crate::test_app::png;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::join_all;
use reqwest::multipart::{Form, Part};
use reqwest::{Client, StatusCode, header};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

/// The program, killed where a test ends early.
pub struct Server {
    process: Child,
    /// What it says after its address.
    log: Option<JoinHandle<String>>,
    address: String,
}

impl Server {
    fn start(data_folder: &Path, listen: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lora-recycle"));
        command.args(["serve", "--listen", listen, "--data-dir"]);
        command.arg(data_folder);
        Self::of(command)
    }

    /// The program as `command` starts it.
    pub fn of(mut command: Command) -> Self {
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut seen = String::new();
        let address = loop {
            let start = seen.len();
            let count = log.read_line(&mut seen).unwrap();
            assert!(count > 0, "the server ended early: {seen}");
            if let Some((_, address)) = seen[start..].split_once("http://") {
                break address.trim().to_owned();
            }
        };
        // A pipe that nobody reads is full after some hundred requests, and the server waits.
        let rest = thread::spawn(move || {
            let mut rest = String::new();
            // What cannot be read is no part of what a test looks for.
            let _ = log.read_to_string(&mut rest);
            rest
        });
        Self {
            process,
            log: Some(rest),
            address,
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn signal(&self, name: &str) {
        let process = self.process.id().to_string();
        let status = Command::new("kill").args([name, &process]).status();
        assert!(status.unwrap().success());
    }

    pub fn end(mut self) -> (ExitStatus, String) {
        let log = self.log.take().unwrap();
        let log = log.join().unwrap();
        (self.process.wait().unwrap(), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn file(name: &str, bytes: Vec<u8>) -> Part {
    Part::bytes(bytes).file_name(name.to_owned())
}

fn form() -> Form {
    // As browsers do: names are plain UTF-8.
    Form::new()
        .percent_encode_noop()
        .part("support/red", file("red.png", png(255, 0, 0)))
        .part("support/blue", file("blue.png", png(0, 0, 255)))
        .part("query", file("new one.png", png(255, 0, 0)))
}

async fn classify(client: &Client, server: &Server) -> Value {
    let request = client
        .post(server.url("/api/v1/classify"))
        .multipart(form());
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

async fn problem(request: reqwest::RequestBuilder) -> (StatusCode, String) {
    let response = request.send().await.unwrap();
    let status = response.status();
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "application/problem+json"
    );
    let body: Value = response.json().await.unwrap();
    (status, body["code"].as_str().unwrap().to_owned())
}

/// Sends bytes as they are and returns what comes back before the server closes the connection.
fn send_raw(server: &Server, bytes: &[u8]) -> String {
    let mut connection = TcpStream::connect(&server.address).unwrap();
    connection.write_all(bytes).unwrap();
    connection.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    // A reset is as good an end as a close.
    let _ = connection.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

const GARBAGE: [&[u8]; 5] = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET\r\n\r\n",
    b"POST /api/v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /api/v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    b"POST /api/v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_program_serves_survives_abuse_and_starts_again_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), "127.0.0.1:0");
    let client = Client::new();

    let answer = classify(&client, &server).await;
    assert_eq!(answer["backbone"]["name"], "dinov2-s8");
    // A new data folder begins with it.
    assert_eq!(answer["adapter"]["label"], "signs-and-shapes:1");
    assert_eq!(answer["results"][0]["label"], "red");
    assert_eq!(answer["results"][0]["image"], "new one.png");
    let ready = client.get(server.url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 200);

    for garbage in GARBAGE {
        let answer = send_raw(&server, garbage);
        assert!(
            !answer.contains("HTTP/1.1 200") && !answer.contains("HTTP/1.1 5"),
            "{answer}"
        );
    }
    let embed = || client.post(server.url("/api/v1/embed"));
    let embed_json = || embed().header(header::CONTENT_TYPE, "application/json");
    assert_eq!(
        problem(embed_json().body("]")).await,
        (StatusCode::BAD_REQUEST, "malformed_body".into())
    );
    assert_eq!(
        problem(embed().header("sec-fetch-site", "cross-site").body("{}")).await,
        (StatusCode::FORBIDDEN, "cross_origin".into())
    );
    let rebound = client
        .get(server.url("/readyz"))
        .header(header::HOST, "evil.example");
    assert_eq!(
        problem(rebound).await,
        (StatusCode::FORBIDDEN, "host_not_allowed".into())
    );

    // The client writes all of it before it reads: the reason must still arrive.
    let huge = vec![b' '; (128 << 20) + 1];
    assert_eq!(
        problem(embed_json().body(huge)).await,
        (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large".into())
    );

    // More at once than are admitted and may wait: each is answered or told when to come back.
    let images = json!({"images": vec![BASE64_STANDARD.encode(png(1, 2, 3)); 8]});
    let responses = join_all((0..160).map(|_| embed().json(&images).send())).await;
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for response in responses {
        let response = response.unwrap();
        *counts.entry(response.status().as_u16()).or_default() += 1;
        if response.status() == 429 {
            let seconds = response.headers()[header::RETRY_AFTER].to_str().unwrap();
            assert!(seconds.parse::<u32>().unwrap() > 0);
        }
    }
    let count = |status| counts.get(&status).copied().unwrap_or(0);
    assert!(count(200) >= 16, "{counts:?}");
    assert_eq!(count(200) + count(429), 160, "{counts:?}");

    let before = classify(&client, &server).await;
    let address = server.address.clone();
    server.signal("-KILL");
    let (status, _) = server.end();
    assert!(!status.success());
    let server = Server::start(folder.path(), &address);
    assert_eq!(server.address, address);
    assert_eq!(classify(&client, &server).await, before);

    server.signal("-TERM");
    let (status, log) = server.end();
    assert!(status.success(), "{log}");
    assert!(log.contains("stopping"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    assert!(
        !log.contains("new one.png"),
        "no file name belongs there: {log}"
    );
}

#[tokio::test]
async fn an_address_that_is_taken_is_a_users_error_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lora-recycle"))
        .args(["serve", "--listen"])
        .arg(taken.local_addr().unwrap().to_string())
        .arg("--data-dir")
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("cannot be listened on") && text.contains("hint:"),
        "{text}"
    );
}
