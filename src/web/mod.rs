//! HTTP: the page for people.

pub mod pages;
