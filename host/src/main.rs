//! The program `host`: parses its arguments and runs the command that they name.

use std::{env, process::ExitCode};

use host::{
    check, cli, completions, ctl, dev,
    error_chain::chain,
    exit, man, new, server,
    signal::EarlySignals,
    supervisor::{process, upgrade},
    terminal,
    worker::{program, trial},
};

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    match args.next() {
        Some(first) if first == process::WORKER => program::run(),
        Some(first) if first == trial::OPEN => trial::run(args.next()),
        Some(first) if first == upgrade::PROVE => return server::prove(args),
        _ => {}
    }
    let adopted = match upgrade::adopt() {
        Ok(adopted) => adopted,
        Err(error) => {
            // The workers of the earlier build end, because their channels are closed with this process. The
            // service manager has to start the server again.
            terminal::complain(format_args!("the upgrade is lost: {}", chain(&error)));
            return ExitCode::FAILURE;
        }
    };
    let early = EarlySignals::catch();
    dev::end_with_session();
    let command = cli::parse(env::args_os());
    if !matches!(command, Ok(cli::Invocation::Serve(_))) {
        early.release();
    }
    match command {
        Ok(cli::Invocation::Serve(settings)) => exit::leave(
            server::run(&settings.config, settings.by_key, early, adopted),
            || {},
        ),
        Ok(cli::Invocation::Check(files, limit)) => check::run(&files, limit),
        Ok(cli::Invocation::Completions(args)) => completions::run(&args),
        Ok(cli::Invocation::Ctl(args)) => ctl::run(&args),
        Ok(cli::Invocation::PrintConfig(text)) => {
            terminal::print(text.trim_end(), ExitCode::SUCCESS)
        }
        Ok(cli::Invocation::Man(args)) => man::run(&args),
        Ok(cli::Invocation::New(args)) => new::run(&args),
        Ok(cli::Invocation::Dev(args, given)) => dev::run(&args, &given),
        Err(error) => error.report(),
    }
}
