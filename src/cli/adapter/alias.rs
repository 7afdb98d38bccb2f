//! `adapter alias`: names that move, and the default adapter of a backbone.

use super::{CliError, Common, attribution, change, read};
use crate::app::registry::{Registry, RegistryError};
use crate::cli::options::{print_json, print_line};
use clap::{Args, Subcommand};
use serde_json::json;
use store::{AliasKey, AliasMove, Name, PointedAdapter};

#[derive(Debug, Subcommand)]
#[command(
    after_help = "`default` in place of NAME@ALIAS is the adapter that a backbone uses where none is named.

Examples:
  lora-recycle adapter alias set pets@best pets:2 --reason \"better on the test pictures\"
  lora-recycle adapter alias rollback pets@best
  lora-recycle adapter alias set default pets@best
  lora-recycle adapter alias rm default --backbone dinov2-s8"
)]
pub enum AliasCommand {
    /// List all aliases and defaults
    List,
    /// Let an alias point at an adapter
    Set(Set),
    /// Remove an alias; its history stays
    Rm(Which),
    /// Show where an alias pointed, newest first
    History(Which),
    /// Take back the last move of an alias
    Rollback(Which),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lora-recycle adapter alias set pets@best pets:2
  lora-recycle adapter alias set default pets:2     the default of the adapter's backbone")]
pub struct Set {
    /// The alias, or default
    #[arg(value_name = "NAME@ALIAS|default")]
    alias: Spelling,
    /// name, name:version, name@alias or id
    #[arg(value_name = "REF")]
    reference: String,
    /// Kept in the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  NAME@ALIAS                    e.g. pets@best
  default                       the default adapter of the backbone dinov2-s8
  default --backbone NAME       the default adapter of another backbone")]
pub struct Which {
    /// The alias, or default
    #[arg(value_name = "NAME@ALIAS|default")]
    alias: Spelling,
    /// Kept in the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// An alias as it is typed.
#[derive(Debug, Clone)]
enum Spelling {
    Alias { adapter: Name, alias: Name },
    Default,
}

impl std::str::FromStr for Spelling {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "default" {
            return Ok(Self::Default);
        }
        let (adapter, alias) = text
            .split_once('@')
            .ok_or("write NAME@ALIAS, for example pets@best, or default")?;
        let name = |part: &str| part.parse::<Name>().map_err(|error| error.to_string());
        Ok(Self::Alias {
            adapter: name(adapter)?,
            alias: name(alias)?,
        })
    }
}

impl Spelling {
    /// The key; a default is the one of the backbone that the common options name.
    async fn key(&self, registry: &Registry, common: &Common) -> Result<AliasKey, CliError> {
        Ok(match self {
            Self::Alias { adapter, alias } => AliasKey::Alias {
                adapter: adapter.clone(),
                alias: alias.clone(),
            },
            Self::Default => {
                let name: Name = common.backbone.parse().map_err(RegistryError::from)?;
                let backbone = registry.store().backbone(&name).await;
                AliasKey::BackboneDefault(backbone.map_err(RegistryError::from)?.digest)
            }
        })
    }
}

impl AliasCommand {
    pub fn run(&self, common: &Common) -> Result<(), CliError> {
        match self {
            Self::List => list(common),
            Self::Set(set) => set.run(common),
            Self::Rm(which) => {
                let moved = change(common, async |registry| {
                    let key = which.alias.key(registry, common).await?;
                    let by = attribution(which.reason.as_deref());
                    let moved = registry.store().remove_alias(&key, &by).await;
                    Ok(moved.map_err(RegistryError::from)?)
                })?;
                print_move(common, Some(&moved))
            }
            Self::Rollback(which) => {
                let moved = change(common, async |registry| {
                    let key = which.alias.key(registry, common).await?;
                    let by = attribution(which.reason.as_deref());
                    let moved = registry.store().roll_back_alias(&key, &by).await;
                    Ok(moved.map_err(RegistryError::from)?)
                })?;
                print_move(common, Some(&moved))
            }
            Self::History(which) => history(common, which),
        }
    }
}

impl Set {
    fn run(&self, common: &Common) -> Result<(), CliError> {
        let moved = change(common, async |registry| {
            let record = registry.resolve(&self.reference).await?;
            let key = match &self.alias {
                Spelling::Alias { adapter, alias } => AliasKey::Alias {
                    adapter: adapter.clone(),
                    alias: alias.clone(),
                },
                Spelling::Default => AliasKey::BackboneDefault(record.backbone_digest.clone()),
            };
            let by = attribution(self.reason.as_deref());
            let moved = registry.store().move_alias(&key, record.id, &by).await;
            Ok(moved.map_err(RegistryError::from)?)
        })?;
        print_move(common, moved.as_ref())
    }
}

fn list(common: &Common) -> Result<(), CliError> {
    let aliases = read(common, async |registry| {
        let store = registry.store();
        let mut rows = Vec::new();
        for (key, adapter) in store.list_aliases().await.map_err(RegistryError::from)? {
            let backbone = match &key {
                AliasKey::Alias { .. } => None,
                AliasKey::BackboneDefault(digest) => {
                    let backbone = store.backbone_by_digest(digest).await;
                    Some(backbone.map_err(RegistryError::from)?)
                }
            };
            rows.push((key, backbone, adapter));
        }
        Ok(rows)
    })?;
    if common.json {
        let rows: Vec<serde_json::Value> = aliases
            .iter()
            .map(|(key, backbone, adapter)| {
                json!({
                    "alias": if backbone.is_some() { "default".to_owned() } else { key.to_string() },
                    "backbone": backbone.as_ref().map(|backbone| json!({"name": backbone.name, "digest": backbone.digest})),
                    "adapter": adapter,
                })
            })
            .collect();
        return print_json(&rows);
    }
    for (key, backbone, adapter) in &aliases {
        let name = match backbone {
            Some(backbone) => format!("default of {}", backbone.name),
            None => key.to_string(),
        };
        print_line(&format!("{name}\t{}", adapter.label))?;
    }
    Ok(())
}

fn history(common: &Common, which: &Which) -> Result<(), CliError> {
    let moves = read(common, async |registry| {
        let key = which.alias.key(registry, common).await?;
        let moves = registry.store().alias_history(&key).await;
        Ok(moves.map_err(RegistryError::from)?)
    })?;
    if common.json {
        return print_json(&moves);
    }
    moves.iter().try_for_each(|one| {
        print_line(&format!(
            "{}\t{} -> {}\t{}\t{}",
            one.number,
            end(one.from.as_ref()),
            end(one.to.as_ref()),
            one.actor,
            one.reason
        ))
    })
}

fn end(pointed: Option<&PointedAdapter>) -> &str {
    pointed.map_or("nothing", |pointed| pointed.label.as_str())
}

fn print_move(common: &Common, moved: Option<&AliasMove>) -> Result<(), CliError> {
    if common.json {
        return print_json(&json!({ "move": moved }));
    }
    match moved {
        Some(moved) => print_line(&format!(
            "{}: {} -> {}",
            moved.key,
            end(moved.from.as_ref()),
            end(moved.to.as_ref())
        )),
        None => {
            eprintln!("it points there already");
            Ok(())
        }
    }
}
