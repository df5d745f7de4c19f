//! Tests that the tables in `docs/REFERENCE.md` agree with the definitions of the options.
//!
//! `UPDATE_REFERENCE=1 scripts/test reference` writes the tables into the page.

use std::{env, fs, path::Path};

use clap::Arg;

use super::command_with_variables;

#[test]
fn the_reference_has_every_option_as_the_program_has_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/REFERENCE.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}\n{}{END}{after}", tables());
    if env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&path, expected).unwrap();
        return;
    }
    let differs = page
        .lines()
        .zip(expected.lines())
        .find(|(is, should)| is != should);
    assert!(
        page == expected,
        "docs/REFERENCE.md is old, run: UPDATE_REFERENCE=1 scripts/test reference\n{differs:#?}"
    );
}

/// Returns a table of the server's options for each heading of `--help`, and a table for each subcommand.
fn tables() -> String {
    let mut command = command_with_variables();
    command.build();
    let mut text = String::new();
    let mut headings: Vec<_> = command.get_arguments().map(Arg::get_help_heading).collect();
    headings.dedup();
    headings.sort_unstable();
    headings.dedup();
    for heading in headings {
        let args = command
            .get_arguments()
            .filter(|arg| arg.get_help_heading() == heading)
            .filter(|arg| is_shown(arg));
        text += &format!("\n### {}\n\n", heading.unwrap_or("Server"));
        text += "| option | variable | key | default | meaning |\n|---|---|---|---|---|\n";
        args.for_each(|arg| text += &server_row(arg));
    }
    for subcommand in command.get_subcommands() {
        text += &subcommand_tables("host", subcommand);
    }
    text + "\n"
}

/// Returns the tables of a subcommand and of its own subcommands.
fn subcommand_tables(parent: &str, command: &clap::Command) -> String {
    let name = format!("{parent} {}", command.get_name());
    if command.get_name() == "help" {
        return String::new();
    }
    let about = command.get_about().map(ToString::to_string);
    let mut text = format!("\n### {name}\n\n{}.\n", about.unwrap_or_default());
    // Leave out options that another table contains: the server's options of `host dev`, and the options that
    // all verbs of `host ctl` have in common.
    let server = command_with_variables();
    let is_of_server = |arg: &Arg| {
        let mut options = server.get_arguments();
        arg.get_id() != "config" && options.any(|option| option.get_id() == arg.get_id())
    };
    let is_shared = |arg: &Arg| match (parent, command.get_name()) {
        ("host", "dev") => is_of_server(arg),
        ("host ctl", _) => arg.is_global_set(),
        _ => false,
    };
    let args: Vec<_> = command
        .get_arguments()
        .filter(|arg| is_shown(arg) && !is_shared(arg))
        .collect();
    if !args.is_empty() {
        text += "\n| argument | default | meaning |\n|---|---|---|\n";
    }
    for arg in args {
        let (default, meaning) = meaning(arg);
        text += &format!("| {} | {default} | {meaning} |\n", usage(arg));
    }
    for subcommand in command.get_subcommands() {
        text += &subcommand_tables(&name, subcommand);
    }
    text
}

fn server_row(arg: &Arg) -> String {
    let variable = arg.get_env().map(|name| format!("`{}`", name.display()));
    let is_key = arg.get_action().takes_values() && arg.get_id() != "config";
    let key = is_key.then(|| format!("`{}`", arg.get_long().unwrap_or_default()));
    let (default, meaning) = meaning(arg);
    format!(
        "| {} | {} | {} | {default} | {meaning} |\n",
        usage(arg),
        variable.unwrap_or_default(),
        key.unwrap_or_default()
    )
}

/// Returns an argument as it is written on the command line: the option with the name of its value.
fn usage(arg: &Arg) -> String {
    let value = arg.get_value_names().and_then(|names| names.first());
    let value = value.filter(|_| arg.get_action().takes_values());
    match (arg.get_long(), value) {
        (Some(long), Some(value)) => format!("`--{long} {value}`"),
        (Some(long), None) => format!("`--{long}`"),
        (None, value) => format!("`{}`", value.map_or(arg.get_id().as_str(), |value| value)),
    }
}

/// Returns the default and the meaning of an option. If clap has no default value, the default is the text in
/// brackets at the end of the help.
fn meaning(arg: &Arg) -> (String, String) {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let help = help.replace('\n', " ").replace('|', "\\|");
    let (mut help, words) = match help.split_once(" [default: ") {
        Some((help, words)) => (help.to_owned(), words.trim_end_matches(']').to_owned()),
        None => (help, String::new()),
    };
    let values: Vec<_> = arg.get_default_values().iter().collect();
    let is_switch = !arg.get_action().takes_values();
    let default = match values.as_slice() {
        // The default of `--threads` depends on the machine.
        _ if arg.get_id() == "threads" => "one for each core".to_owned(),
        [value] if !is_switch => format!("`{}`", value.to_string_lossy()),
        _ => words,
    };
    let possible = arg.get_possible_values();
    let named = possible.iter().filter_map(|value| {
        let text = value.get_help()?.to_string();
        Some(format!("`{}`: {text}", value.get_name()))
    });
    let named: Vec<_> = named.collect();
    if !named.is_empty() {
        help += &format!(". {}", named.join("; "));
    }
    (default, help)
}

fn is_shown(arg: &Arg) -> bool {
    !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str())
}

const BEGIN: &str = "<!-- options -->";

const END: &str = "<!-- end of options -->";
