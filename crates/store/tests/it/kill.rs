//! SIGKILL while importing: a child process imports in a loop and is killed at random moments. After the next start every
//! acknowledged adapter is there whole, none is there half, and no file is left that nothing refers to.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use store::{AdapterFilter, AdapterRecord, Freed, Store};
use test_support::store::{files_of, files_on_disk, name, new_adapter, open};

const FOLDER_VARIABLE: &str = "LORA_RECYCLE_TEST_KILL_FOLDER";
const SEED_VARIABLE: &str = "LORA_RECYCLE_TEST_SEED";
/// Acknowledged imports over all lives of the child.
const IMPORTS: usize = 200;
const FILES: [(&str, usize); 3] = [
    ("model.safetensors", 100_000),
    ("config.json", 500),
    ("README.md", 3000),
];

/// Content that only this file of this version has, so that every import writes every file.
fn content(file: &str, bytes: usize, version: u32) -> Vec<u8> {
    format!("{file} {version} ")
        .into_bytes()
        .into_iter()
        .cycle()
        .take(bytes)
        .collect()
}

async fn import(store: &Store, version: u32) -> AdapterRecord {
    let contents: Vec<(&str, Vec<u8>)> = FILES
        .iter()
        .map(|&(file, bytes)| (file, content(file, bytes, version)))
        .collect();
    let files: Vec<(&str, &[u8])> = contents
        .iter()
        .map(|(file, bytes)| (*file, &bytes[..]))
        .collect();
    store
        .import_adapter(new_adapter("meta", &files))
        .await
        .expect("import")
}

#[tokio::test]
#[ignore = "the child of the test below, which starts and kills it"]
async fn importer_to_be_killed() {
    let Ok(folder) = std::env::var(FOLDER_VARIABLE) else {
        return;
    };
    let store = open(Path::new(&folder)).await;
    let adapters = store
        .list_adapters(&AdapterFilter {
            limit: Some(1),
            ..AdapterFilter::default()
        })
        .await;
    let mut next = adapters
        .expect("list")
        .first()
        .map_or(1, |adapter| adapter.version + 1);
    loop {
        let adapter = import(&store, next).await;
        next += 1;
        // On a line of its own whatever the test runner prints before.
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nstored {}", adapter.version)
            .and_then(|()| out.flush())
            .expect("the parent listens");
    }
}

/// Starts the child, kills it `delay` after its `count`-th acknowledged import, and returns what it acknowledged.
fn run_and_kill(folder: &Path, count: usize, delay: Duration) -> Vec<u32> {
    let mut child = Command::new(std::env::current_exe().expect("test binary"))
        .args([
            "kill::importer_to_be_killed",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER_VARIABLE, folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("child");
    let mut stored = Vec::new();
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let mut read = |stored: &mut Vec<u32>| -> bool {
        let Some(line) = lines.next() else {
            return false;
        };
        if let Some(version) = line.expect("line").strip_prefix("stored ") {
            stored.push(version.parse().expect("version"));
        }
        true
    };
    while stored.len() < count {
        assert!(
            read(&mut stored),
            "the child ended by itself after {stored:?}"
        );
    }
    // Spinning hits a moment inside an import better than the timer of the system does.
    let start = Instant::now();
    while start.elapsed() < delay {
        std::hint::spin_loop();
    }
    child.kill().expect("kill");
    child.wait().expect("wait");
    while read(&mut stored) {}
    stored
}

#[tokio::test]
async fn sigkill_at_any_moment_leaves_no_half_adapter_and_no_orphan() {
    let seed: u64 = std::env::var(SEED_VARIABLE)
        .map_or(1, |text| text.parse().expect("a seed is a whole number"));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir().expect("folder");
    let (mut acknowledged, mut checked) = (HashSet::new(), HashSet::new());
    let (mut kills, mut left) = (0, Freed::default());
    while acknowledged.len() < IMPORTS {
        let count = random.random_range(1..=9);
        let delay = Duration::from_micros(random.random_range(0..15_000));
        acknowledged.extend(run_and_kill(folder.path(), count, delay));
        kills += 1;

        let about = format!("seed {seed}, kill {kills}");
        let store = open(folder.path()).await;
        left.blobs += store.freed_at_start().blobs;
        left.temporary_files += store.freed_at_start().temporary_files;
        let adapters = store
            .list_adapters(&AdapterFilter::default())
            .await
            .expect("list");
        assert_eq!(
            files_on_disk(folder.path()),
            files_of(folder.path(), &adapters),
            "{about}"
        );
        let versions: HashSet<u32> = adapters.iter().map(|adapter| adapter.version).collect();
        assert!(
            versions.is_superset(&acknowledged),
            "{about}: acknowledged imports are gone"
        );
        // A commit may be done and not yet acknowledged: one for each kill at most.
        assert!(versions.len() <= acknowledged.len() + kills, "{about}");
        for adapter in adapters.iter().filter(|adapter| checked.insert(adapter.id)) {
            assert_eq!(adapter.name, name("meta"), "{about}");
            assert_eq!(
                adapter.files.len(),
                FILES.len(),
                "{about}: {} is half",
                adapter.label()
            );
            for (file, bytes) in FILES {
                let read = store.read_file(adapter, file).await.expect(&about);
                assert!(
                    read == content(file, bytes, adapter.version),
                    "{about}: {file} of {}",
                    adapter.label()
                );
            }
        }
        store.close().await;
    }
    eprintln!(
        "{} imports, {kills} kills, left behind and removed: {left:?}",
        acknowledged.len()
    );
    assert!(
        left.blobs + left.temporary_files > 0,
        "seed {seed}: no kill fell into an import"
    );
}
