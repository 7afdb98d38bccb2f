//! `jobs` through the real program, alone and beside a running server. The jobs are of a kind that the program does not do, as if
//! another version had made them: what matters here is who may change them, and how.

use crate::support::program;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use store::{Access, Digest, JobState, NewInput, NewJob, Store};
use tempfile::TempDir;
use uuid::Uuid;

/// A data folder and the program that works on it.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// Runs `work` on the data folder while no program has it.
    fn with_store<T>(&self, work: impl AsyncFnOnce(&Store) -> T) -> T {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let store = Store::open(&self.data(), Access::Exclusive).await.unwrap();
            let done = work(&store).await;
            store.close().await;
            done
        })
    }

    /// A queued job of a kind that the program does not know.
    fn queue(&self, title: &str) -> Uuid {
        self.with_store(async |store| {
            let new = NewJob {
                kind: "knit".into(),
                title: title.into(),
                recipe: json!({"rows": 3}),
                deduplication_key: Digest::of(title.as_bytes()),
                priority: 0,
                most_attempts: 3,
                waits_for: Vec::new(),
                inputs: vec![NewInput {
                    role: "picture".into(),
                    name: "a".into(),
                    bytes: title.as_bytes().to_vec(),
                }],
            };
            store.submit_job(new).await.unwrap().job.id
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        program(self.0.path(), arguments)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        serde_json::from_str(&self.succeeds(&arguments)).unwrap()
    }

    /// Stderr of a run that must fail by the user's doing.
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains("hint: "), "{arguments:?}: {stderr}");
        stderr
    }

    fn serve(&self, arguments: &[&str]) -> Server {
        let mut all = vec!["serve", "--listen", "127.0.0.1:0"];
        all.extend(arguments);
        let mut process = self.command(&all).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let log: Vec<String> = lines
            .by_ref()
            .map(Result::unwrap)
            .take_while(|line| !line.contains("listening on"))
            .collect();
        assert!(process.try_wait().unwrap().is_none(), "{log:?}");
        // Read on, so that the server never waits for the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Server(process)
    }

    fn state(&self, id: Uuid) -> JobState {
        let job = self.json(&["jobs", "show", &id.to_string()]);
        job["state"].as_str().unwrap().parse().unwrap()
    }
}

/// A running server, killed where a test ends early.
struct Server(Child);

impl Server {
    fn signal(&self, name: &str) {
        let process = self.0.id().to_string();
        let status = Command::new("kill").args([name, &process]).status();
        assert!(status.unwrap().success());
    }

    fn end(mut self, signal: &str) {
        self.signal(signal);
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn server_file(data: &Path) -> PathBuf {
    data.join("server.json")
}

#[test]
fn listing_makes_no_data_folder_and_unknown_jobs_are_named() {
    let home = Home::new();
    assert_eq!(home.json(&["jobs", "list"]), json!([]));
    let output = home.run(&["jobs", "show", "0192"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("no LoRA Recycle data"), "{stderr}");
    assert!(!home.data().exists());
    let id = home.queue("socks");
    for command in ["show", "watch", "cancel", "retry", "run"] {
        for id in ["ffff", &Uuid::nil().to_string()] {
            let stderr = home.fails(&["jobs", command, id]);
            assert!(
                stderr.contains("there is no job") && stderr.contains("jobs list"),
                "{stderr}"
            );
        }
    }
    assert_eq!(home.state(id), JobState::Queued);
}

#[test]
fn alone_jobs_are_listed_shown_cancelled_run_and_tried_again() {
    let home = Home::new();
    let (socks, scarf) = (home.queue("socks"), home.queue("scarf"));
    let list = home.succeeds(&["jobs", "list"]);
    let expected = format!("{scarf}\tqueued\tknit\tscarf\t\n{socks}\tqueued\tknit\tsocks\t\n");
    assert_eq!(list, expected);
    let list = home.json(&["jobs", "list", "--state", "queued", "--limit", "1"]);
    assert_eq!(list[0]["id"], scarf.to_string());
    let shown = home.succeeds(&["jobs", "show", &scarf.to_string()]);
    assert!(
        shown.contains("title\tscarf\n") && shown.contains("recipe\t{\"rows\":3}\n"),
        "{shown}"
    );

    let stderr = home.fails(&["jobs", "watch", &socks.to_string()]);
    assert!(
        stderr.contains("no program runs jobs") && stderr.contains("jobs run"),
        "{stderr}"
    );
    let cancelled = home.json(&["jobs", "cancel", &scarf.to_string()]);
    assert_eq!(cancelled["state"], "cancelled");
    let stderr = home.fails(&["jobs", "cancel", &scarf.to_string()]);
    assert!(stderr.contains("it is cancelled"), "{stderr}");
    let stderr = home.fails(&["jobs", "retry", &scarf.to_string()]);
    assert!(stderr.contains("have been deleted"), "{stderr}");

    // The run itself must fail, since the program does not knit.
    let output = home.run(&["jobs", "run"]);
    let (stdout, stderr) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stdout.starts_with(&format!("{socks}\tfailed\tsocks\t")),
        "{stdout}"
    );
    assert!(
        stderr.contains("socks: failed") && stderr.contains("\"knit\""),
        "{stderr}"
    );
    let retried = home.json(&["jobs", "retry", &socks.to_string()]);
    assert_eq!(
        (&retried["state"], &retried["error"]),
        (&json!("queued"), &Value::Null)
    );
    // A process that is not a server is not reported as one.
    assert!(!server_file(&home.data()).exists());
}

#[test]
fn beside_a_server_jobs_are_read_from_the_folder_and_changed_through_it() {
    let home = Home::new();
    let (socks, scarf) = (home.queue("socks"), home.queue("scarf"));
    let server = home.serve(&["--no-jobs"]);
    let list = home.json(&["jobs", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 2);

    let mut watch = home
        .command(&["jobs", "watch", &socks.to_string(), "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(
        (&first["event"], &first["data"]["state"]),
        (&json!("state"), &json!("queued"))
    );
    let cancelled = home.json(&["jobs", "cancel", &socks.to_string()]);
    assert_eq!(cancelled["state"], "cancelled");
    let last: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(last["data"]["state"], "cancelled");
    assert!(lines.next().is_none());
    assert_eq!(
        watch.wait().unwrap().code(),
        Some(1),
        "the job has not succeeded"
    );
    let stderr = home.fails(&["jobs", "retry", &socks.to_string()]);
    assert!(stderr.contains("have been deleted"), "{stderr}");
    assert!(home.fails(&["jobs", "run"]).contains("in use"));

    server.end("-TERM");
    assert!(!server_file(&home.data()).exists());
    assert_eq!(home.state(scarf), JobState::Queued);
    // What a killed server left behind misleads nobody.
    let server = home.serve(&["--no-jobs"]);
    server.end("-KILL");
    assert!(server_file(&home.data()).exists());
    let cancelled = home.json(&["jobs", "cancel", &scarf.to_string()]);
    assert_eq!(cancelled["state"], "cancelled");
}

#[test]
fn a_server_runs_what_is_queued_and_a_watcher_sees_it_end() {
    let home = Home::new();
    let socks = home.queue("socks");
    let server = home.serve(&["--job-threads", "1"]);
    let stderr = home.fails(&["jobs", "watch", &socks.to_string()]);
    assert!(stderr.contains("no jobs of the kind \"knit\""), "{stderr}");
    let retried = home.json(&["jobs", "retry", &socks.to_string()]);
    assert_eq!(retried["id"], socks.to_string());
    home.fails(&["jobs", "watch", &socks.to_string()]);
    server.end("-TERM");
    assert_eq!(home.state(socks), JobState::Failed);
}

#[test]
fn a_command_that_holds_the_folder_is_no_server() {
    let home = Home::new();
    let id = home.queue("socks");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime
        .block_on(Store::open(&home.data(), Access::Exclusive))
        .unwrap();
    let stderr = home.fails(&["jobs", "cancel", &id.to_string()]);
    assert!(
        stderr.contains("in use") && stderr.contains("not a server"),
        "{stderr}"
    );
    assert_eq!(home.state(id), JobState::Queued);
    drop(store);
}
