//! The program `host`: reads what it is told, and serves.

use std::{env, process::ExitCode};

use host::{
    check, cli, ctl, exit, new, server, signal::EarlySignals, supervisor::process, terminal,
    worker::program,
};

fn main() -> ExitCode {
    if env::args_os()
        .nth(1)
        .is_some_and(|first| first == process::WORKER)
    {
        program::run();
    }
    let early = EarlySignals::catch();
    let command = cli::parse(env::args_os());
    if !matches!(command, Ok(cli::Command::Serve(..))) {
        early.release();
    }
    match command {
        Ok(cli::Command::Serve(config, settings)) => {
            exit::leave(server::run(&config, settings, early), || {})
        }
        Ok(cli::Command::Check(file)) => check::run(&file),
        Ok(cli::Command::Ctl(args)) => ctl::run(&args),
        Ok(cli::Command::PrintConfig(text)) => terminal::print(text.trim_end(), ExitCode::SUCCESS),
        Ok(cli::Command::New(args)) => new::run(&args),
        Err(error) => error.report(),
    }
}
