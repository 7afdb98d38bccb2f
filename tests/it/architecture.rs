//! The structure that `docs/ARCHITECTURE.md` draws is the one that the manifests have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use test_support::project;
use toml::Table;

type Arrows = BTreeMap<String, BTreeSet<String>>;

fn drawn() -> Arrows {
    let page = fs::read_to_string(project("docs/ARCHITECTURE.md")).unwrap();
    let lines = page.split("```text\n").nth(1).unwrap();
    let lines = lines.split("```").next().unwrap().lines();
    lines
        .map(|line| {
            let (from, to) = line.split_once(" -> ").unwrap();
            let to = to.split(", ").map(str::to_owned).collect();
            (from.to_owned(), to)
        })
        .collect()
}

/// Name of the package in `folder`, and the packages of this workspace that it is built with.
fn package(folder: &Path) -> (String, BTreeSet<String>) {
    let manifest: Table = fs::read_to_string(folder.join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    // A crate of nothing but files has none.
    let dependencies = manifest.get("dependencies").and_then(|own| own.as_table());
    let inside = dependencies
        .into_iter()
        .flatten()
        .filter(|(_, dependency)| dependency.get("path").is_some())
        .map(|(name, _)| name.clone());
    let name = manifest["package"]["name"].as_str().unwrap();
    (name.to_owned(), inside.collect())
}

#[test]
fn the_arrows_between_crates_are_those_of_the_manifests() {
    let crates = fs::read_dir(project("crates")).unwrap();
    let folders = crates.map(|entry| entry.unwrap().path());
    let found: Arrows = folders
        .chain([project(".")])
        .map(|folder| package(&folder))
        // What tests share is part of no program.
        .filter(|(name, inside)| name != "test-support" && !inside.is_empty())
        .collect();
    assert_eq!(found, drawn());
}

#[test]
fn no_crate_of_the_program_is_built_with_what_tests_share() {
    for (name, inside) in fs::read_dir(project("crates"))
        .unwrap()
        .map(|entry| package(&entry.unwrap().path()))
        .chain([package(&project("."))])
    {
        assert!(!inside.contains("test-support"), "{name}");
    }
}
