//! LoRA Recycle: a registry of LoRA adapters for vision transformers, their recycling into one meta-LoRA, and
//! tuning-free few-shot image classification. `docs/ARCHITECTURE.md` shows the rooms and which way they depend.

pub mod adapter;
pub mod app;
pub mod backbone;
pub mod cli;
pub mod engine;
pub mod image_input;
pub mod inference;
pub mod process_memory;
pub mod recycle;
pub mod store;
pub mod tensor;
pub mod tensor_file;
pub mod verify;
pub mod web;
