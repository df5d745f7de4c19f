//! The program `host`: reads what it is told, and serves.

use std::{env, process::ExitCode};

use host::{check, cli, ctl, server};

fn main() -> ExitCode {
    match cli::parse(env::args_os()) {
        Ok(cli::Command::Serve(config, settings)) => server::run(&config, settings),
        Ok(cli::Command::Check(file)) => check::run(&file),
        Ok(cli::Command::Ctl(args)) => ctl::run(&args),
        Ok(cli::Command::PrintConfig(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => error.report(),
    }
}
