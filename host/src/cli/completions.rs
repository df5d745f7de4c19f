//! `host completions`: prints the script with which a shell completes command lines of `host`.

use std::{env, path::Path, process::ExitCode};

use clap_complete::Shell;

use crate::{cli, terminal};

/// The command line of `host completions`.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell, which reads the output: in ~/.bashrc, source <(host completions bash)
    shell: Shell,
}

/// Prints the script. Returns the exit code of the process: 0, or 1 when stdout cannot be written.
#[must_use]
pub fn run(args: &CompletionsArgs) -> ExitCode {
    // Complete the name of the running file: a package may install the program under another name, because
    // some systems already have a program `host`.
    let program = env::args_os().next().unwrap_or_default();
    let name = Path::new(&program)
        .file_name()
        .and_then(|name| name.to_str());
    let script = script(args.shell, name.unwrap_or("host"));
    terminal::print(script, ExitCode::SUCCESS)
}

/// Returns the script that completes the program `name`.
fn script(shell: Shell, name: &str) -> String {
    // Write into memory: clap_complete panics when its writer fails, and stdout fails when it is a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command_with_variables(), name, &mut script);
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
