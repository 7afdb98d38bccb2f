//! Defaults from a TOML file: top-level keys are the common options, a table named after a command holds that command's.
//! A flag beats an environment variable, which beats the file.

use super::CliError;
use super::options::home_folder;
use clap::{Arg, Command};
use std::path::PathBuf;
use toml::{Table, Value};

/// Gives the options of `command` the defaults of the configuration file, if there is one.
///
/// # Errors
/// A file that was asked for and is not there, is not TOML, or has a key that no option has.
pub fn apply(command: Command) -> Result<Command, CliError> {
    let Some(path) = path()? else {
        return Ok(command);
    };
    let fail = |problem: String| {
        CliError::user(format!("{}: {problem}", path.display()))
            .hint("keys are the long options with _ for -, commands are tables, e.g. data_dir = \"/srv/lora\" and [serve] listen = \"127.0.0.1:8080\"")
    };
    let text = std::fs::read_to_string(&path).map_err(|error| fail(error.to_string()))?;
    let table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| fail(error.message().to_owned()))?;
    apply_table(command, &table).map_err(fail)
}

/// The file named by `--config` or `LORA_RECYCLE_CONFIG`, else the usual one where it exists.
fn path() -> Result<Option<PathBuf>, CliError> {
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return Ok(arguments.next().map(PathBuf::from));
        }
        if let Some(path) = argument
            .to_str()
            .and_then(|text| text.strip_prefix("--config="))
        {
            return Ok(Some(path.into()));
        }
    }
    if let Some(path) = std::env::var_os("LORA_RECYCLE_CONFIG").filter(|path| !path.is_empty()) {
        return Ok(Some(path.into()));
    }
    Ok(home_folder("XDG_CONFIG_HOME", ".config")
        .map(|folder| folder.join("config.toml"))
        .filter(|path| path.exists()))
}

fn apply_table(mut command: Command, table: &Table) -> Result<Command, String> {
    for (key, value) in table {
        if let Value::Table(inner) = value {
            let Some(sub) = command.find_subcommand(key) else {
                return Err(format!("there is no command \"{key}\""));
            };
            let changed = apply_table(sub.clone(), inner)?;
            command = command.mut_subcommand(key, |_| changed);
            continue;
        }
        let option = command.get_arguments().find(|argument| {
            is_called(argument, key) && !argument.is_positional() && key != "config"
        });
        let Some(id) = option.map(|option| option.get_id().clone()) else {
            return Err(format!("there is no option \"{key}\" here"));
        };
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Boolean(flag) => flag.to_string(),
            _ => return Err(format!("\"{key}\" is not a text, a number, true or false")),
        };
        command = command.mut_arg(id, |argument| argument.default_value(text).required(false));
    }
    Ok(command)
}

/// Whether an option has this key, by its name of today or of an earlier version.
fn is_called(argument: &Arg, key: &str) -> bool {
    let mut old = argument.get_all_aliases().unwrap_or_default().into_iter();
    argument.get_id() == key || old.any(|name| name.replace('-', "_") == key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ArgAction;

    fn command() -> Command {
        Command::new("test")
            .arg(Arg::new("threads").long("threads").global(true))
            .subcommand(
                Command::new("serve")
                    .arg(Arg::new("listen").long("listen").default_value("a"))
                    .arg(Arg::new("json").long("json").action(ArgAction::SetTrue)),
            )
    }

    #[test]
    fn the_file_gives_defaults_that_a_flag_beats() {
        let table: Table = "threads = 3\n[serve]\nlisten = \"b\"\njson = true"
            .parse()
            .unwrap();
        let command = apply_table(command(), &table).unwrap();
        let matches = command.clone().get_matches_from(["test", "serve"]);
        let serve = matches.subcommand_matches("serve").unwrap();
        assert_eq!(serve.get_one::<String>("listen").unwrap(), "b");
        assert_eq!(serve.get_one::<String>("threads").unwrap(), "3");
        assert!(serve.get_flag("json"));
        let matches = command.get_matches_from(["test", "serve", "--listen", "c"]);
        let serve = matches.subcommand_matches("serve").unwrap();
        assert_eq!(serve.get_one::<String>("listen").unwrap(), "c");
    }

    #[test]
    fn a_key_may_be_the_name_that_an_option_had_in_an_earlier_version() {
        let scale = Arg::new("choose_scales")
            .long("choose-scales")
            .alias("choose-factors")
            .action(ArgAction::SetTrue);
        let table: Table = "choose_factors = true".parse().unwrap();
        let command = apply_table(Command::new("test").arg(scale), &table).unwrap();
        assert!(command.get_matches_from(["test"]).get_flag("choose_scales"));
    }

    #[test]
    fn unknown_keys_and_commands_are_named() {
        let unknown: Table = "thraeds = 3".parse().unwrap();
        assert!(
            apply_table(command(), &unknown)
                .unwrap_err()
                .contains("thraeds")
        );
        let unknown: Table = "[server]\nlisten = \"b\"".parse().unwrap();
        assert!(
            apply_table(command(), &unknown)
                .unwrap_err()
                .contains("server")
        );
    }
}
