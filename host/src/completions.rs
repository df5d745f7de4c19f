//! `host completions`: the script by which a shell completes the command line of `host`.

use std::{env, path::Path, process::ExitCode};

use clap_complete::Shell;

use crate::{cli, terminal};

/// For which shell.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell, which reads the output: in ~/.bashrc, source <(host completions bash)
    shell: Shell,
}

/// Prints the script. The result is for `main`: 0, or 1 when stdout cannot be written.
#[must_use]
pub fn run(args: &CompletionsArgs) -> ExitCode {
    // A package may have installed the program under another name, because some systems have a `host` already.
    let program = env::args_os().next().unwrap_or_default();
    let name = Path::new(&program)
        .file_name()
        .and_then(|name| name.to_str());
    let script = script(args.shell, name.unwrap_or("host"));
    terminal::print(script, ExitCode::SUCCESS)
}

/// The script for the program of this name.
fn script(shell: Shell, name: &str) -> String {
    // In memory first, because clap_complete panics when its writer fails, as a pipe may.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::documented(), name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_completes_options_and_commands() {
        for shell in Shell::value_variants() {
            let script = script(*shell, "app-server");
            for word in [
                "app-server",
                "graceful-timeout",
                "completions",
                "log-level",
                "rollback",
            ] {
                assert!(script.contains(word), "{shell} does not know {word}");
            }
        }
    }
}
