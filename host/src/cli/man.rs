//! `host man`: prints a page of the manual in the format of man(7).

use std::{io, process::ExitCode};

use clap_mangen::Man;

use crate::{cli, terminal};

/// The command line of `host man`.
#[derive(Clone, Debug, clap::Args)]
pub struct ManArgs {
    /// The command that the page is about, as in host man ctl deploy [default: host itself]
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

/// Prints the page. Returns the exit code of the process: 0, 2 when the command does not exist, or 1 when
/// stdout cannot be written.
#[must_use]
pub fn run(args: &ManArgs) -> ExitCode {
    match page(&args.command) {
        Ok(Some(page)) => terminal::print(page.trim_end(), ExitCode::SUCCESS),
        Ok(None) => {
            let name = args.command.join(" ");
            terminal::print_error(format_args!("there is no command `host {name}`"));
            ExitCode::from(2)
        }
        Err(error) => {
            terminal::print_error(error);
            ExitCode::FAILURE
        }
    }
}

/// Returns the page of the command that `words` name, or `None` if no command has this name.
fn page(words: &[String]) -> io::Result<Option<String>> {
    let mut host = cli::command_with_variables();
    host.build();
    let command = words.iter().try_fold(&host, |command, word| {
        command
            .get_subcommands()
            .find(|command| command.get_name() == word)
    });
    let Some(command) = command.cloned() else {
        return Ok(None);
    };
    let title = [&["host".to_owned()], words].concat().join("-");
    let command = command.name(title.clone());
    let mut page = Vec::new();
    Man::new(command)
        .title(title.to_uppercase())
        .render(&mut page)?;
    Ok(Some(String::from_utf8_lossy(&page).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str) -> Option<String> {
        let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
        page(&words).unwrap()
    }

    #[test]
    fn a_page_has_the_options_of_its_command_and_their_variables() {
        let page = of("").unwrap();
        assert!(page.contains(".TH HOST 1"), "{page}");
        for part in [
            "graceful\\-timeout",
            "HOST_GRACEFUL_TIMEOUT",
            "host\\-ctl(1)",
        ] {
            assert!(page.contains(part), "no {part} in:\n{page}");
        }
        let page = of("ctl deploy").unwrap();
        assert!(page.contains(".TH HOST-CTL-DEPLOY 1"), "{page}");
        assert!(page.contains("plugins folder"), "{page}");
        assert_eq!(of("ctl deplay"), None);
    }
}
