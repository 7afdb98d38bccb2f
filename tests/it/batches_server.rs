//! A batch on a real server that is killed in the middle.

use crate::server::Server;
use crate::support::{make_colours, program};
use crate::test_app::png;
use reqwest::multipart::{Form, Part};
use serde_json::Value;

/// Enough that a kill comes in the middle.
const PICTURES: u32 = 1500;

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_server_is_killed_goes_on_with_the_next_one_and_has_every_row_once() {
    let home = tempfile::tempdir().unwrap();
    make_colours(home.path());
    let serve = || {
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--backbone", "tiny"];
        Server::of(program(home.path(), &arguments))
    };
    let client = reqwest::Client::new();
    let get = async |server: &Server, path: &str| -> Value {
        let answer = client.get(server.url(path)).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}");
        answer.json().await.unwrap()
    };
    let server = serve();
    let list = get(&server, "/api/v1/classifiers").await;
    let id = list["classifiers"][0]["id"].as_str().unwrap();
    let batches = format!("/api/v1/classifiers/{id}/batches");
    let mut form = Form::new();
    for number in 0..PICTURES {
        let [_, _, high, low] = number.to_be_bytes();
        let part = Part::bytes(png(low, high, 90)).file_name(format!("all/{number}.png"));
        form = form.part("images", part);
    }
    let sent = client
        .post(server.url(&batches))
        .multipart(form)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 202);
    let batch: Value = sent.json().await.unwrap();
    let address = format!("{batches}/{}", batch["id"].as_str().unwrap());
    let before = loop {
        let page = get(&server, &format!("{address}?limit=200")).await;
        if page["done_count"].as_u64().unwrap() > 0 {
            break page;
        }
    };
    // The server is killed where it is dropped.
    drop(server);
    let done = before["done_count"].as_u64().unwrap();
    assert!(
        done < u64::from(PICTURES),
        "all is done: send more pictures"
    );

    let server = serve();
    let job = batch["job"]["id"].as_str().unwrap();
    let watched = program(home.path(), &["jobs", "watch", job])
        .output()
        .unwrap();
    assert!(
        watched.status.success(),
        "{}",
        String::from_utf8_lossy(&watched.stderr)
    );
    let events = server.url(&format!("/api/v1/jobs/{job}/events"));
    let told = client
        .get(events)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let rest = get(&server, &format!("{address}.json")).await;
    let rows = rest.as_array().unwrap();
    let positions: Vec<u64> = rows
        .iter()
        .map(|row| row["position"].as_u64().unwrap())
        .collect();
    assert_eq!(positions, (0..u64::from(PICTURES)).collect::<Vec<_>>());
    let known = before["pictures"].as_array().unwrap();
    assert_eq!(rows[..known.len()], known[..]);
    assert!(told.contains("are sorted already"), "{told}");
    let page = get(&server, &address).await;
    assert_eq!(page["job"]["state"], "succeeded");
}
