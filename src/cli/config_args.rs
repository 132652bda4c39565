//! The flags of `serve` and `check-config`: `--config` and one flag for each key of the configuration.
//!
//! They are made from [`KEYS`], so that a key cannot lack its flag, its variable or its line of help.

use std::env;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use super::{Failure, complain};
use crate::config::{Config, KEYS, Key, Loaded, Sources};

/// From this key on the flags are for tuning; the short help (`-h`) leaves them out.
const FIRST_TUNING_KEY: &str = "lanes";

/// Where the configuration comes from, by the command line.
#[derive(Clone, Debug, Default)]
pub(super) struct ConfigArgs {
    file: Option<PathBuf>,
    flags: Vec<(&'static str, Vec<String>)>,
}

impl ConfigArgs {
    /// Puts the layers together. With them comes a warning of variables that are no settings, if there are any; where the
    /// configuration is wrong it was reported already, since it may name the reason.
    pub(super) fn load(&self) -> Result<(Loaded, Option<String>), Failure> {
        let sources =
            Sources { file: self.file.clone(), environment: env::vars_os().collect(), flags: self.flags.clone() };
        let strangers = sources.strangers();
        match sources.load() {
            Ok(loaded) => Ok((loaded, strangers)),
            Err(error) => {
                if let Some(strangers) = strangers {
                    complain(&strangers);
                }
                Err(Failure::usage(error))
            }
        }
    }
}

impl FromArgMatches for ConfigArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("config").cloned();
        let given = KEYS.iter().filter_map(|key| {
            let values = matches.get_many::<String>(key.name)?;
            Some((key.name, values.cloned().collect()))
        });
        self.flags = given.collect();
        Ok(())
    }
}

impl Args for ConfigArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .env("DURAGRAM_CONFIG")
            .value_parser(value_parser!(PathBuf))
            .help("TOML file with any of the keys below (without the dashes, with underscores)");
        let defaults = Config::default();
        let mut tuning = false;
        KEYS.iter().zip(FLAGS.iter()).fold(command.arg(config), |command, (key, flag)| {
            tuning |= key.name == FIRST_TUNING_KEY;
            let arg = argument(key, flag, &defaults);
            command.arg(if tuning { arg.help_heading("Tuning").hide_short_help(true) } else { arg })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The flags' names, in the order of the keys. clap wants them to live as long as the program.
static FLAGS: LazyLock<Vec<String>> = LazyLock::new(|| KEYS.iter().map(Key::flag).collect());

fn argument(key: &'static Key, flag: &'static str, defaults: &Config) -> Arg {
    let default = match key.show_plain(defaults) {
        none if none.is_empty() => "all".to_owned(),
        default => default,
    };
    let arg = Arg::new(key.name).long(flag).value_name(key.value).help(format!(
        "{} [default: {default}] [env: {}]",
        key.help,
        key.variable()
    ));
    match key {
        Key { value: "BOOL", .. } => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Key { list: true, .. } => arg.action(ArgAction::Append),
        _ => arg,
    }
}
