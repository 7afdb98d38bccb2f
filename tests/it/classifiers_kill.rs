//! SIGKILL while a classifier is changed through the real server: after the next start every acknowledged change is there, and the one
//! that was on its way is there whole or not at all.

use crate::server::Server;
use crate::support::program;
use crate::test_app::png;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reqwest::multipart::{Form, Part};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use test_support::project;

const KILLS_VARIABLE: &str = "LORA_RECYCLE_TEST_KILLS";
const SEED_VARIABLE: &str = "LORA_RECYCLE_TEST_SEED";
/// Without the variable.
const KILLS: usize = 12;
/// Most changes that are answered in one life of the server.
const MOST_CHANGES: usize = 8;
/// A change takes less.
const LONGEST_DELAY_US: u64 = 60_000;
/// A server that does not answer is a failure to be seen.
const NO_ANSWER: Duration = Duration::from_secs(20);
/// Fewer than the server keeps.
const MOST_UNDONE: usize = 40;

/// What is to be seen of the classifier: its name, and the numbers of the pictures in each class.
#[derive(Debug, Clone, PartialEq, Default)]
struct State {
    name: String,
    classes: BTreeMap<String, BTreeSet<u32>>,
}

/// What the classifier should be, with what undo and redo lead to.
#[derive(Debug, Clone, Default)]
struct Model {
    state: State,
    done: Vec<State>,
    undone: Vec<State>,
    /// Classes and pictures that there ever were; each is called by its number.
    made: u32,
}

#[derive(Debug, Clone)]
enum Change {
    Rename(String),
    AddClass(String),
    RenameClass(String, String),
    RemoveClass(String),
    Merge(String, String),
    Add(String, Vec<u32>),
    Move(BTreeSet<u32>, String),
    Remove(BTreeSet<u32>),
    Undo,
    Redo,
}

impl Model {
    fn number(&mut self) -> u32 {
        self.made += 1;
        self.made
    }

    /// A change that is possible and changes something.
    fn draw(&mut self, random: &mut ChaCha8Rng) -> Change {
        let names: Vec<String> = self.state.classes.keys().cloned().collect();
        if names.len() < 2 {
            return Change::AddClass(format!("class {}", self.number()));
        }
        let mut two = names.sample(random, 2).cloned();
        let (first, second) = (two.next().unwrap(), two.next().unwrap());
        let pictures: Vec<u32> = self.state.classes[&first].iter().copied().collect();
        let some: BTreeSet<u32> = pictures
            .sample(random, pictures.len().min(3))
            .copied()
            .collect();
        match random.random_range(0..20) {
            0 => Change::Rename(format!("name {}", self.number())),
            1 | 2 => Change::AddClass(format!("class {}", self.number())),
            3 => Change::RenameClass(first, format!("class {}", self.number())),
            4 => Change::RemoveClass(first),
            5 => Change::Merge(first, second),
            6..=8 if !some.is_empty() => Change::Move(some, second),
            9 | 10 if !some.is_empty() => Change::Remove(some),
            11..=13 if !self.done.is_empty() => Change::Undo,
            14 | 15 if !self.undone.is_empty() => Change::Redo,
            _ => {
                let count = random.random_range(1..=4);
                Change::Add(first, (0..count).map(|_| self.number()).collect())
            }
        }
    }

    fn apply(&mut self, change: &Change) {
        let before = self.state.clone();
        let classes = &mut self.state.classes;
        let mut take = |pictures: &BTreeSet<u32>| {
            for own in classes.values_mut() {
                own.retain(|picture| !pictures.contains(picture));
            }
        };
        match change {
            Change::Undo => {
                self.undone.push(before);
                self.state = self.done.pop().unwrap();
                return;
            }
            Change::Redo => {
                self.done.push(before);
                self.state = self.undone.pop().unwrap();
                return;
            }
            Change::Rename(name) => self.state.name = name.clone(),
            Change::AddClass(name) => {
                classes.insert(name.clone(), BTreeSet::new());
            }
            Change::RenameClass(from, to) => {
                let pictures = classes.remove(from).unwrap();
                classes.insert(to.clone(), pictures);
            }
            Change::RemoveClass(name) => {
                classes.remove(name);
            }
            Change::Merge(from, into) => {
                let pictures = classes.remove(from).unwrap();
                classes.get_mut(into).unwrap().extend(pictures);
            }
            Change::Add(class, pictures) => classes.get_mut(class).unwrap().extend(pictures),
            Change::Move(pictures, to) => {
                take(pictures);
                classes.get_mut(to).unwrap().extend(pictures);
            }
            Change::Remove(pictures) => take(pictures),
        }
        self.done.push(before);
        if self.done.len() > MOST_UNDONE {
            self.done.remove(0);
        }
        self.undone.clear();
    }
}

/// A picture that no other is like.
fn picture(number: u32) -> Vec<u8> {
    let [_, red, green, blue] = number.wrapping_mul(7919).to_be_bytes();
    png(red, green, blue)
}

fn start(home: &Path) -> Server {
    let mut command = program(home, &["serve", "--listen", "127.0.0.1:0"]);
    command
        .arg("--backbone")
        .arg(project("tests/golden/vit-tiny"));
    Server::of(command)
}

/// The classifier through one life of the server.
struct Session<'a> {
    server: &'a Server,
    client: Client,
    id: &'a str,
}

impl Session<'_> {
    fn request(&self, method: Method, path: &str, body: Option<Value>) -> RequestBuilder {
        let path = format!("/api/v1/classifiers/{}{path}", self.id);
        let request = self.client.request(method, self.server.url(&path));
        match body {
            Some(body) => request.json(&body),
            None => request,
        }
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.request(Method::GET, path, None).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    /// Ids of classes by their names, and of pictures by their numbers with those of their classes.
    async fn ids(
        &self,
    ) -> (
        Value,
        BTreeMap<String, String>,
        BTreeMap<u32, (String, String)>,
    ) {
        let shown = self.get("").await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let classes = shown["classes"].as_array().unwrap().iter();
        let classes = classes.map(|class| (text(&class["name"]), text(&class["id"])));
        let classes = classes.collect();
        let mut pictures = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/images?limit=200{cursor}")).await;
            for image in page["images"].as_array().unwrap() {
                let number = text(&image["name"]).trim_end_matches(".png").parse();
                let found = (text(&image["id"]), text(&image["class"]));
                let before = pictures.insert(number.unwrap(), found);
                assert_eq!(before, None, "a picture is there twice");
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return (shown, classes, pictures),
            }
        }
    }

    /// What is there; files and counts must be whole.
    async fn state(&self) -> State {
        let (shown, classes, pictures) = self.ids().await;
        let mut state = State {
            name: shown["name"].as_str().unwrap().to_owned(),
            ..State::default()
        };
        for (name, id) in &classes {
            let own = pictures.iter().filter(|(_, (_, class))| class == id);
            state
                .classes
                .insert(name.clone(), own.map(|(&number, _)| number).collect());
        }
        for class in shown["classes"].as_array().unwrap() {
            let name = class["name"].as_str().unwrap();
            assert_eq!(class["pictures"], state.classes[name].len(), "{name}");
        }
        let counted: usize = state.classes.values().map(BTreeSet::len).sum();
        assert_eq!(shown["picture_count"], counted);
        assert_eq!(pictures.len(), counted, "a picture is in no class");
        for (number, (id, _)) in &pictures {
            let path = format!("/images/{id}");
            let response = self.request(Method::GET, &path, None).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "picture {number}");
            assert_eq!(response.bytes().await.unwrap(), picture(*number));
            let path = format!("{path}/thumbnail");
            let response = self.request(Method::GET, &path, None).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "thumbnail {number}");
        }
        state
    }

    async fn change(&self, change: &Change) -> RequestBuilder {
        let (_, classes, pictures) = self.ids().await;
        let of = |name: &str| format!("/classes/{}", classes[name]);
        let id = |own: &u32| pictures[own].0.clone();
        let images = |own: &BTreeSet<u32>| own.iter().map(id).collect::<Vec<String>>();
        match change {
            Change::Rename(name) => self.request(Method::PATCH, "", Some(json!({"name": name}))),
            Change::AddClass(name) => {
                self.request(Method::POST, "/classes", Some(json!({"name": name})))
            }
            Change::RenameClass(from, to) => {
                self.request(Method::PATCH, &of(from), Some(json!({"name": to})))
            }
            Change::RemoveClass(name) => self.request(Method::DELETE, &of(name), None),
            Change::Merge(from, into) => {
                let into = json!({"into": classes[into]});
                self.request(Method::POST, &format!("{}/merge", of(from)), Some(into))
            }
            Change::Add(class, added) => {
                let mut form = Form::new();
                for &number in added {
                    let file = Part::bytes(picture(number)).file_name(format!("{number}.png"));
                    form = form.part("support", file).text("label", class.clone());
                }
                // Sent again after a kill it acts once.
                self.request(Method::POST, "/images", None)
                    .header("idempotency-key", format!("pictures from {} on", added[0]))
                    .multipart(form)
            }
            Change::Move(own, to) => {
                let body = json!({"images": images(own), "class": classes[to]});
                self.request(Method::PATCH, "/images", Some(body))
            }
            Change::Remove(own) => {
                let body = json!({"images": images(own)});
                self.request(Method::DELETE, "/images", Some(body))
            }
            Change::Undo => self.request(Method::POST, "/undo", None),
            Change::Redo => self.request(Method::POST, "/redo", None),
        }
    }
}

async fn create(home: &Path) -> String {
    let mut add = program(home, &["backbone", "add", "--name", "tiny"]);
    let added = add.arg(project("tests/golden/vit-tiny")).output().unwrap();
    assert!(added.status.success(), "{added:?}");
    let server = start(home);
    let request = Client::new().post(server.url("/api/v1/classifiers"));
    let made = request.json(&json!({"name": "name 0"})).send().await;
    let made = made.unwrap();
    assert_eq!(made.status(), StatusCode::CREATED);
    let made: Value = made.json().await.unwrap();
    made["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn sigkill_at_any_moment_keeps_every_acknowledged_change_of_a_classifier_and_none_half() {
    let number = |variable: &str, otherwise: u64| {
        let text = std::env::var(variable);
        text.map_or(otherwise, |text| text.parse().expect("a whole number"))
    };
    let seed = number(SEED_VARIABLE, 1);
    let kills = number(KILLS_VARIABLE, KILLS as u64);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let id = create(folder.path()).await;
    let mut model = Model::default();
    model.state.name = "name 0".into();
    let mut pending: Option<Change> = None;
    let (mut interrupted, mut kept) = (0, 0);
    for kill in 0..=kills {
        let server = start(folder.path());
        let session = Session {
            server: &server,
            client: Client::builder().timeout(NO_ANSWER).build().unwrap(),
            id: &id,
        };
        let about = format!("seed {seed}, kill {kill}, {pending:?}");
        let found = session.state().await;
        if let Some(change) = pending.take() {
            let mut after = model.clone();
            after.apply(&change);
            interrupted += 1;
            kept += usize::from(found == after.state);
            if let Change::Add(..) = change {
                let whole = found == model.state || found == after.state;
                assert!(whole, "{about}: {found:?}, {:?}", model.state);
                let again = session.change(&change).await.send().await.unwrap();
                assert_eq!(again.status(), StatusCode::OK, "{about}");
                assert_eq!(session.state().await, after.state, "{about}");
                model = after;
            } else if found == after.state {
                model = after;
            }
        }
        if found != model.state {
            assert_eq!(session.state().await, model.state, "{about}");
        }
        if kill == kills {
            break;
        }
        for _ in 0..random.random_range(0..=MOST_CHANGES) {
            let change = model.draw(&mut random);
            let answer = session.change(&change).await.send().await.unwrap();
            let (status, body) = (answer.status(), answer.text().await.unwrap());
            assert!(status.is_success(), "{about}: {change:?}: {body}");
            model.apply(&change);
        }
        let change = model.draw(&mut random);
        let delay = Duration::from_micros(random.random_range(0..LONGEST_DELAY_US));
        let request = tokio::spawn(session.change(&change).await.send());
        // The moment of the kill, anywhere in the change.
        tokio::time::sleep(delay).await;
        drop(server);
        match request.await.unwrap() {
            Ok(answer) => {
                assert!(answer.status().is_success(), "{about}: {change:?}");
                model.apply(&change);
            }
            Err(_) => pending = Some(change),
        }
    }
    println!(
        "{kills} kills, {interrupted} of them before an answer; {kept} of those changes were made"
    );
}
