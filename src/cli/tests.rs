//! What the command line says of itself.

use clap::Command;
use clap_complete::Shell;

use super::*;
use crate::config::KEYS;

/// Every command with its subcommands, by full name.
fn commands() -> Vec<(String, Command)> {
    fn add(prefix: &str, command: &Command, all: &mut Vec<(String, Command)>) {
        let name = format!("{prefix}{}", command.get_name());
        for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
            add(&format!("{name} "), subcommand, all);
        }
        all.push((name, command.clone()));
    }
    let mut root = command();
    root.build();
    let mut all = Vec::new();
    add("", &root, &mut all);
    all
}

#[test]
fn the_command_line_contradicts_itself_nowhere() {
    command().debug_assert();
}

#[test]
fn every_command_of_the_contract_is_there() {
    let names: Vec<String> = commands().into_iter().map(|(name, _)| name).collect();
    for name in [
        "serve",
        "send",
        "ask",
        "ask-status",
        "load",
        "tail",
        "journal verify",
        "journal stats",
        "journal dump",
        "sink list",
        "sink pause",
        "sink resume",
        "sink seek",
        "sink remove",
        "dead list",
        "dead show",
        "dead retry",
        "dead discard",
        "check-config",
        "completions",
        "man",
    ] {
        assert!(names.contains(&format!("duragram {name}")), "{name} is missing in {names:?}");
    }
}

#[test]
fn every_command_and_every_argument_explains_itself() {
    for (name, mut command) in commands() {
        assert!(command.get_about().is_some(), "{name} says nothing about itself");
        for argument in command.get_arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.len() >= 8, "{name}: {} has no help", argument.get_id());
        }
        let help = command.render_long_help().to_string();
        assert!(help.contains("Usage: "), "{name}: {help}");
    }
}

#[test]
fn commands_that_can_fail_in_several_ways_list_their_exit_codes() {
    for (name, mut command) in commands() {
        let documented = ["serve", "send", "ask", "ask-status", "tail", "journal", "sink", "dead", "check-config"]
            .map(|name| format!("duragram {name}"));
        if documented.contains(&name) {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Exit codes:\n  0  "), "{name}: {help}");
        }
    }
}

#[test]
fn every_key_of_the_configuration_is_a_flag_whose_help_gives_default_and_variable() {
    let commands = commands();
    for name in ["duragram serve", "duragram check-config"] {
        let (_, command) = commands.iter().find(|(found, _)| found == name).unwrap();
        for key in KEYS {
            let flag = command.get_arguments().find(|argument| argument.get_long() == Some(&key.flag()));
            let help = flag
                .and_then(|flag| flag.get_help())
                .unwrap_or_else(|| panic!("{name} lacks {}", key.flag()))
                .to_string();
            assert!(help.contains("[default: ") && help.contains(&format!("[env: {}]", key.variable())), "{help}");
        }
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command(), "duragram", &mut script);
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("check-config") && script.contains("retry-first-delay"), "{shell}: {script}");
    }
}

#[test]
fn a_manual_page_is_written_for_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    docs::man(&docs::ManArgs { dir: Some(pages.clone()) }).unwrap();
    for (name, _) in commands() {
        let page = pages.join(format!("{}.1", name.replace(' ', "-")));
        let text = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(text.contains(".SH SYNOPSIS"), "{text}");
    }
}
