//! The program `host`: parses the arguments and runs the command that the arguments name.

use std::{env, process::ExitCode};

use host::{
    check,
    cli::{self, completions, man},
    ctl, dev,
    error_chain::chain,
    exit, new, server,
    signal::EarlySignals,
    supervisor::{process, trial, upgrade},
    terminal,
    worker::program,
};

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    // The host starts its own program with these arguments, so they are not part of the documented command line.
    match args.next() {
        Some(first) if first == process::WORKER_ARGUMENT => program::run(),
        Some(first) if first == trial::TRIAL_ARGUMENT => trial::run(args.next()),
        Some(first) if first == upgrade::PROOF_ARGUMENT => return server::prove(args),
        _ => {}
    }
    let adopted = match upgrade::adopt() {
        Ok(adopted) => adopted,
        Err(error) => {
            // The workers of the earlier build end too, because their channels close when this process ends. The
            // service manager must start the server again.
            terminal::print_error(format_args!("the upgrade is lost: {}", chain(&error)));
            return ExitCode::FAILURE;
        }
    };
    let early_signals = EarlySignals::catch();
    dev::end_with_session();
    let command = cli::parse(env::args_os());
    // Only a server handles these signals. They must end any other command.
    if !matches!(command, Ok(cli::Invocation::Serve(_))) {
        early_signals.release();
    }
    match command {
        Ok(cli::Invocation::Serve(settings)) => exit::end_process(
            server::run(&settings.config, settings.by_key, early_signals, adopted),
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
        Ok(cli::Invocation::Dev(args, server_flags)) => dev::run(&args, &server_flags),
        Err(error) => error.report(),
    }
}
