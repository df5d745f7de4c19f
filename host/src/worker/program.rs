//! The entry point of a worker process: `host` runs it when its supervisor starts it as a worker.
//!
//! The stdin of the process is a channel to the supervisor. Its stdout and stderr are pipes to the supervisor, for
//! output of plugins and libraries. The first order is [`Order::Setup`], which brings the listening sockets and
//! the server's own stdout and stderr.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use rustix::stdio::{dup2_stderr, dup2_stdout, stderr, stdout};
use signal_hook::{consts, flag};
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    crash,
    life::Worker,
    link::{Notices, Orders},
    setup::{self, Logs},
};
use crate::{
    channel::{Channel, ChannelError, Hello, Receiver, Sender},
    config::Config,
    error_chain::chain,
    exit,
    log::{self, Log, losses::LossMonitor},
    orders::{Notice, Order, PROTOCOL, Setup},
    scoreboard::Scoreboard,
    server::runtime,
    settings::{self, SettingsError},
    supervisor::{listeners, process},
    terminal,
};

/// Runs the worker until it is told to stop or its supervisor is gone. Then exits.
pub fn run() -> ! {
    let code = match serve() {
        Ok(()) => 0,
        Err(error) => {
            // The supervisor logs the output of a worker.
            terminal::complain(format_args!("the worker cannot start: {}", chain(&error)));
            1
        }
    };
    exit::leave(code, || {})
}

fn serve() -> Result<(), WorkerError> {
    let channel = process::take_channel().map_err(WorkerError::Channel)?;
    ignore_signals()?;
    let managing = runtime::managing().map_err(WorkerError::Runtime)?;
    let served = managing.block_on(begin(channel));
    managing.shutdown_background();
    served
}

/// Ignores the signals on which the supervisor acts, because a service manager may send them to every process of
/// the service. Installs an empty handler instead of `SIG_IGN`, which child processes of plugins would inherit.
fn ignore_signals() -> Result<(), WorkerError> {
    for signal in [
        consts::SIGHUP,
        consts::SIGINT,
        consts::SIGQUIT,
        consts::SIGTERM,
        consts::SIGTTIN,
        consts::SIGTTOU,
        consts::SIGUSR1,
        consts::SIGUSR2,
    ] {
        let nobody = Arc::new(AtomicBool::new(false));
        flag::register(signal, nobody).map_err(WorkerError::Signals)?;
    }
    Ok(())
}

async fn begin(channel: OwnedFd) -> Result<(), WorkerError> {
    let watched = channel.try_clone().map_err(WorkerError::Channel)?;
    let hello = Hello {
        protocol: PROTOCOL,
        build: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let channel: Channel<Notice, Order> = Channel::open(channel, &hello).await?;
    let (sender, mut receiver) = channel.split();
    let (setup, descriptors) = match receiver.recv().await? {
        Some((Order::Setup(setup), descriptors)) => (setup, descriptors),
        Some(_) => return Err(WorkerError::NoSetup),
        // The supervisor is already gone.
        None => return Ok(()),
    };
    let config = settings::of_keys(&setup.settings)?;
    process::end_with_supervisor(&watched, config.graceful_timeout + EXIT_GRACE)
        .map_err(WorkerError::Channel)?;
    drop(watched);
    work(&config, &setup, descriptors, sender, receiver).await
}

async fn work(
    config: &Config,
    setup: &Setup,
    descriptors: Vec<OwnedFd>,
    sender: Sender<Notice>,
    receiver: Receiver<Order>,
) -> Result<(), WorkerError> {
    let mut descriptors = descriptors.into_iter();
    let streams = ServerStreams {
        stdout: descriptors.next().ok_or(WorkerError::NoSetup)?,
        stderr: descriptors.next().ok_or(WorkerError::NoSetup)?,
    };
    let board = descriptors.next().ok_or(WorkerError::NoSetup)?;
    // Handlers must be installed before other threads exist.
    let board = Scoreboard::attach(&board).map_err(WorkerError::Board)?;
    crash::install(board.serve()).map_err(WorkerError::Board)?;
    log::worker::set(setup.worker, setup.many);
    let (logs, losses) = streams.open_logs(config, setup)?;
    log::output::never_block();
    let listeners = descriptors
        .map(listeners::receive)
        .collect::<Result<Vec<_>, _>>()
        .map_err(WorkerError::Listener)?;
    let serving = runtime::serving(config.threads).map_err(WorkerError::Runtime)?;
    let threads: &Handle = serving.handle();
    let parts = setup::parts(config, listeners, logs, threads);

    let (notices, noticed) = mpsc::unbounded_channel();
    let (orders, ordered) = mpsc::unbounded_channel();
    tokio::spawn(take_orders(receiver, orders));
    let sending = tokio::spawn(send_notices(noticed, sender));
    Worker::new(parts, Notices::new(notices))
        .run(Orders::new(ordered))
        .await;
    losses.finish(true);
    // The last notices are written when this task ends.
    let _ = tokio::time::timeout(EXIT_GRACE, sending).await;
    serving.shutdown_background();
    Ok(())
}

/// Relays orders to the worker. Ends when the channel ends, which tells the worker that the supervisor is gone.
async fn take_orders(mut receiver: Receiver<Order>, orders: mpsc::UnboundedSender<Order>) {
    loop {
        match receiver.recv().await {
            Ok(Some((order, _))) => {
                if orders.send(order).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "The channel to the supervisor failed");
                return;
            }
        }
    }
}

async fn send_notices(mut noticed: mpsc::UnboundedReceiver<Notice>, sender: Sender<Notice>) {
    while let Some(notice) = noticed.recv().await {
        if sender.send(&notice).is_err() {
            return;
        }
    }
    sender.flush().await;
}

/// The server's own stdout and stderr. Those of the worker are pipes to the supervisor.
struct ServerStreams {
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl ServerStreams {
    /// Opens the log and the access log. A log that goes to stdout or stderr duplicates the descriptor at this moment.
    /// So the server's streams are installed first, and the worker's own are restored afterwards.
    fn open_logs(self, config: &Config, setup: &Setup) -> Result<(Logs, LossMonitor), WorkerError> {
        let own = ServerStreams {
            stdout: rustix::io::fcntl_dupfd_cloexec(stdout(), 3).map_err(WorkerError::stream)?,
            stderr: rustix::io::fcntl_dupfd_cloexec(stderr(), 3).map_err(WorkerError::stream)?,
        };
        dup2_stdout(&self.stdout).map_err(WorkerError::stream)?;
        dup2_stderr(&self.stderr).map_err(WorkerError::stream)?;
        let directives = setup.level.parse().unwrap_or(config.log_level.clone());
        let opened = log::init(config.log.options(), directives).and_then(|log| {
            let access = config
                .log
                .access_log
                .as_ref()
                .map(|sink| log::open_access(sink.path()));
            Ok((log, access.transpose()?))
        });
        dup2_stdout(&own.stdout).map_err(WorkerError::stream)?;
        dup2_stderr(&own.stderr).map_err(WorkerError::stream)?;
        let (log, access) = opened?;
        let Log {
            filter,
            output,
            losses,
        } = log;
        // Other processes of the server write to the same files.
        for output in access.iter().chain([&output]) {
            output.share();
        }
        if let Some(access) = &access {
            losses.watch_access(access.clone());
        }
        tokio::spawn(losses.clone().run());
        let logs = Logs {
            filter,
            output,
            access,
        };
        Ok((logs, losses))
    }
}

/// Why a worker process could not start.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error("the scoreboard cannot be used")]
    Board(#[source] io::Error),
    #[error("there is no channel to a supervisor")]
    Channel(#[source] io::Error),
    #[error("the supervisor's settings cannot be read")]
    Settings(#[from] SettingsError),
    #[error("the supervisor cannot be understood")]
    Hello(#[from] ChannelError),
    #[error("a socket of the supervisor's cannot be used")]
    Listener(#[source] io::Error),
    #[error(transparent)]
    Log(#[from] log::OutputError),
    #[error("the supervisor did not say what the worker is made of")]
    NoSetup,
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error("signals cannot be handled")]
    Signals(#[source] io::Error),
    #[error("the streams of the server cannot be used")]
    Stream(#[source] io::Error),
}

impl WorkerError {
    fn stream(error: rustix::io::Errno) -> Self {
        Self::Stream(error.into())
    }
}

/// How long a worker may take to exit after the time for its requests is over.
const EXIT_GRACE: Duration = Duration::from_secs(2);
