//! LoRA Recycle: a registry of LoRA adapters for vision transformers, their recycling into one meta-LoRA, and
//! tuning-free few-shot image classification. `docs/ARCHITECTURE.md` shows the rooms and which way they depend.

pub mod app;
pub mod base64_bytes;
pub mod cli;
pub mod inference;
pub mod jobs;
pub mod verify;
pub mod web;
