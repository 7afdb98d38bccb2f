//! Clients that are slow, silent or do not read, against the real program, and how it stops.

use crate::server::Server;
use crate::test_app::png;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// For a client that waits in a test; nothing needs as long.
const PATIENCE: Duration = Duration::from_secs(40);

fn start(settings: &[(&str, &str)]) -> (TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lora-recycle"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(folder.path().join("data"));
    command.env("LORA_RECYCLE_SHIPPED_ADAPTER", "present");
    command.envs(settings.iter().copied());
    let server = Server::of(command);
    (folder, server)
}

fn connect(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

fn get(server: &Server, path: &str) -> Vec<u8> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let mut stream = connect(server, request.as_bytes());
    stream.read_to_end(&mut answer).unwrap();
    answer
}

fn is_ok(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200 ")
}

/// How long the server takes to say that it lives.
fn health(server: &Server) -> Duration {
    let begun = Instant::now();
    assert!(is_ok(&get(server, "/healthz")));
    begun.elapsed()
}

/// Whether the other side has closed the connection, perhaps after an answer.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// Lets this process open as many files as it may.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

#[test]
fn two_thousand_half_sent_headers_leave_health_answering_and_are_closed() {
    raise_open_files();
    let (_folder, server) = start(&[("LORA_RECYCLE_HEADER_TIMEOUT_SECONDS", "2")]);
    let half = b"GET /healthz HTTP/1.1\r\nHost: local";
    let mut slow: Vec<TcpStream> = (0..2000).map(|_| connect(&server, half)).collect();
    health(&server);
    assert!(slow.iter_mut().all(is_closed));
    health(&server);
}

#[test]
fn where_there_is_no_room_the_connection_that_was_silent_for_longest_goes() {
    let (_folder, server) = start(&[("LORA_RECYCLE_MAX_CONNECTIONS", "8")]);
    let half = b"GET /healthz HTTP/1.1\r\nHost: local";
    let mut slow: Vec<TcpStream> = (0..20).map(|_| connect(&server, half)).collect();
    health(&server);
    assert!(slow[..8].iter_mut().all(is_closed));
}

#[test]
fn bodies_that_come_byte_by_byte_are_refused_and_others_are_answered_after_them() {
    let (_folder, server) = start(&[("LORA_RECYCLE_BODY_GRACE_SECONDS", "1")]);
    let head = b"POST /api/v1/classifiers HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let mut slow: Vec<TcpStream> = (0..20).map(|_| connect(&server, head)).collect();
    health(&server);
    let body = json!({"name": "Trees"}).to_string();
    let whole = format!(
        "POST /api/v1/classifiers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answer = Vec::new();
    let mut stream = connect(&server, whole.as_bytes());
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let mut first = [0; 12];
    slow[0].read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 408");
}

/// The most memory that the server had, in bytes.
fn peak_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process_id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.unwrap().trim().trim_end_matches(" kB");
    kibibytes.parse::<u64>().unwrap() << 10
}

#[cfg(target_os = "linux")]
#[test]
fn exports_that_nobody_reads_hold_little_memory_and_end() {
    let (_folder, server) = start(&[("LORA_RECYCLE_WRITE_TIMEOUT_SECONDS", "2")]);
    health(&server);
    let path = "/api/v1/adapters/signs-and-shapes/export?format=onnx";
    assert!(is_ok(&get(&server, path)));
    let before = peak_bytes(&server);
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let unread: Vec<TcpStream> = (0..40)
        .map(|_| connect(&server, request.as_bytes()))
        .collect();
    // It is answered once one of them has been given up.
    loop {
        let answer = get(&server, path);
        if is_ok(&answer) {
            break;
        }
        assert!(answer.starts_with(b"HTTP/1.1 429 "));
    }
    let more = peak_bytes(&server) - before;
    assert!(more < 1 << 30, "{} MiB more", more >> 20);
    drop(unread);
}

/// A job that waits in the queue; its address.
async fn queued_job(server: &Server) -> String {
    let mut form = Form::new().percent_encode_noop().text("name", "colours");
    for level in 0..4 {
        for (label, bytes) in [("red", png(255, level, 0)), ("blue", png(0, level, 255))] {
            let picture = Part::bytes(bytes).file_name("picture.png");
            form = form.part(format!("support/{label}"), picture);
        }
    }
    let post = reqwest::Client::new().post(server.url("/api/v1/jobs/tune"));
    let answer: Value = post
        .multipart(form)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let id = answer["jobs"][0]["id"].as_str();
    format!("/api/v1/jobs/{}", id.unwrap_or_else(|| panic!("{answer}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn more_streams_of_events_than_allowed_are_refused_and_health_answers() {
    raise_open_files();
    let (_folder, server) = start(&[("LORA_RECYCLE_NO_JOBS", "true")]);
    let job = queued_job(&server).await;
    let request = format!("GET {job}/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut statuses = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..300 {
        let mut stream = connect(&server, request.as_bytes());
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        statuses.push(String::from_utf8_lossy(&first[9..]).into_owned());
        streams.push(stream);
    }
    assert!(statuses[..256].iter().all(|status| status == "200"));
    assert!(statuses[256..].iter().all(|status| status == "503"));
    health(&server);

    // All of them end when the server is told to stop, and it ends soon.
    server.signal("-TERM");
    assert!(streams.iter_mut().all(is_closed));
    let (status, log) = server.end();
    assert!(status.success(), "{log}");
    assert!(!log.contains("did not"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn once_it_is_told_to_stop_what_runs_is_answered_and_the_rest_is_refused() {
    let (_folder, server) = start(&[("LORA_RECYCLE_SHUTDOWN_TIMEOUT_SECONDS", "30")]);
    let body = json!({"images": []}).to_string();
    let head = format!(
        "POST /api/v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    // Begun, and not complete before the signal.
    let mut running = connect(&server, head.as_bytes());
    let mut idle = connect(&server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut first = [0; 12];
    idle.read_exact(&mut first).unwrap();
    server.signal("-TERM");
    assert!(is_closed(&mut idle));
    let refused = get(&server, "/healthz");
    let refused = String::from_utf8_lossy(&refused).to_ascii_lowercase();
    assert!(refused.starts_with("http/1.1 503 "), "{refused}");
    assert!(
        refused.contains("\r\nretry-after: ") && refused.contains("connection: close"),
        "{refused}"
    );
    running.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    running.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 422 "), "{answer}");
    let (status, log) = server.end();
    assert!(status.success(), "{log}");
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let (_folder, server) = start(&[("LORA_RECYCLE_SHUTDOWN_TIMEOUT_SECONDS", "600")]);
    let head = b"POST /api/v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n";
    let held = connect(&server, head);
    health(&server);
    server.signal("-TERM");
    loop {
        let answer = get(&server, "/healthz");
        if answer.starts_with(b"HTTP/1.1 503 ") {
            break;
        }
    }
    server.signal("-TERM");
    let (status, _) = server.end();
    assert!(!status.success());
    drop(held);
}

#[test]
fn a_request_that_names_no_host_or_two_is_refused() {
    let (_folder, server) = start(&[]);
    for hosts in ["", "Host: localhost\r\nHost: localhost\r\n"] {
        let request = format!("GET /healthz HTTP/1.1\r\n{hosts}\r\n");
        let mut answer = String::new();
        connect(&server, request.as_bytes())
            .read_to_string(&mut answer)
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("\"code\":\"bad_host\""), "{answer}");
    }
}
