//! The entry point of a worker process. `host` calls [`run`] when a supervisor has started the process as a worker.
//!
//! The stdin of the process is a channel to the supervisor. Stdout and stderr are pipes to the supervisor, for the
//! output of plugins and libraries. The first order is [`Order::Setup`], with which the supervisor sends the listening
//! sockets and the server's own stdout and stderr.

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
    lifeline,
    link::{Notices, Orders},
    setup::{self, Logs},
};
use crate::{
    channel::{Channel, ChannelError, Hello, Receiver, Sender, listeners},
    config::Config,
    error_chain::chain,
    exit,
    log::{self, Log, losses::LossMonitor},
    orders::{Notice, Order, PROTOCOL, Setup},
    runtime,
    scoreboard::Scoreboard,
    settings::{self, SettingsError},
    terminal,
};

/// Runs the worker until the supervisor orders a stop or has ended. Exits the process afterwards.
pub fn run() -> ! {
    let code = match run_worker() {
        Ok(()) => 0,
        Err(error) => {
            // The supervisor logs the output of a worker.
            terminal::print_error(format_args!("the worker cannot start: {}", chain(&error)));
            1
        }
    };
    exit::end_process(code, || {})
}

/// Takes over the channel, and runs the worker in a runtime.
fn run_worker() -> Result<(), WorkerError> {
    let channel = lifeline::take_channel().map_err(WorkerError::Channel)?;
    ignore_signals()?;
    let main_runtime = runtime::managing(crash::stack::install).map_err(WorkerError::Runtime)?;
    let result = main_runtime.block_on(connect(channel));
    // Does not wait for blocking threads, because code of a plugin may block them for ever.
    main_runtime.shutdown_background();
    result
}

/// Makes the signals that the supervisor handles have no effect here, because a service manager may send them to every
/// process of the service. The handlers only set flags that nothing reads. `SIG_IGN` is not used, because child
/// processes of plugins would inherit that disposition.
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
        let unread_flag = Arc::new(AtomicBool::new(false));
        flag::register(signal, unread_flag).map_err(WorkerError::Signals)?;
    }
    Ok(())
}

/// Opens the channel, receives the setup, and runs the worker.
async fn connect(channel: OwnedFd) -> Result<(), WorkerError> {
    // A duplicate, because opening the channel consumes the descriptor.
    let channel_fd = channel.try_clone().map_err(WorkerError::Channel)?;
    let hello = Hello {
        protocol: PROTOCOL,
        build: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let channel: Channel<Notice, Order> = Channel::open(channel, &hello).await?;
    let (sender, mut receiver) = channel.split();
    let (setup, descriptors) = match receiver.recv().await? {
        Some((Order::Setup(setup), descriptors)) => (setup, descriptors),
        Some(_) => return Err(WorkerError::NoSetup),
        // The supervisor ended before it sent the setup.
        None => return Ok(()),
    };
    let config = settings::parse_by_key(&setup.settings)?;
    lifeline::end_with_supervisor(&channel_fd, config.graceful_timeout + EXIT_GRACE)
        .map_err(WorkerError::Channel)?;
    drop(channel_fd);
    run_with_setup(&config, &setup, descriptors, sender, receiver).await
}

/// Builds the worker, and runs its main loop until the worker has stopped. `descriptors` are those of [`Order::Setup`].
async fn run_with_setup(
    config: &Config,
    setup: &Setup,
    descriptors: Vec<OwnedFd>,
    sender: Sender<Notice>,
    receiver: Receiver<Order>,
) -> Result<(), WorkerError> {
    let mut descriptors = descriptors.into_iter();
    let streams = Streams {
        stdout: descriptors.next().ok_or(WorkerError::NoSetup)?,
        stderr: descriptors.next().ok_or(WorkerError::NoSetup)?,
    };
    let board = descriptors.next().ok_or(WorkerError::NoSetup)?;
    // The handlers of fatal signals must be installed before other threads exist.
    let board = Scoreboard::attach(&board).map_err(WorkerError::Board)?;
    crash::install(board.activate()).map_err(WorkerError::Board)?;
    log::worker::set(setup.worker, setup.has_number_in_text_log);
    let (logs, losses) = streams.open_logs(config, setup)?;
    // This thread must react to orders even if nothing reads the log.
    log::output::never_block();
    let listeners = descriptors
        .map(listeners::receive)
        .collect::<Result<Vec<_>, _>>()
        .map_err(WorkerError::Listener)?;
    let serving =
        runtime::serving(config.threads, crash::stack::install).map_err(WorkerError::Runtime)?;
    let runtime: &Handle = serving.handle();
    let parts = setup::worker_parts(config, listeners, logs, runtime);

    let (notice_sender, notice_receiver) = mpsc::unbounded_channel();
    let (order_sender, order_receiver) = mpsc::unbounded_channel();
    tokio::spawn(relay_orders(receiver, order_sender));
    let notice_relay = tokio::spawn(relay_notices(notice_receiver, sender));
    Worker::new(parts, Notices::new(notice_sender))
        .run(Orders::new(order_receiver))
        .await;
    losses.finish(true);
    // The task ends after the last notices are written. A supervisor that does not read must not delay the exit, so the
    // wait has a limit.
    let _ = tokio::time::timeout(EXIT_GRACE, notice_relay).await;
    // Does not wait for the threads, because code of an app may block them.
    serving.shutdown_background();
    Ok(())
}

/// Passes orders from the channel to the main loop. Returns when the supervisor is disconnected. The sender `orders` is
/// then dropped, and the main loop notices the disconnect.
async fn relay_orders(mut receiver: Receiver<Order>, orders: mpsc::UnboundedSender<Order>) {
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

/// Passes notices from the main loop to the channel. Returns after the main loop has ended and all notices are written.
async fn relay_notices(mut notices: mpsc::UnboundedReceiver<Notice>, sender: Sender<Notice>) {
    while let Some(notice) = notices.recv().await {
        if sender.send(&notice).is_err() {
            return;
        }
    }
    sender.flush().await;
}

/// A stdout and a stderr: those of the server, or those of the worker process, which are pipes to the supervisor.
struct Streams {
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Streams {
    /// Opens the log and the access log. A log that is written to stdout or stderr duplicates the descriptor when it is
    /// opened. Therefore the server's streams (`self`) become the stdout and stderr of this process first, and the
    /// worker's own streams are restored afterwards.
    fn open_logs(self, config: &Config, setup: &Setup) -> Result<(Logs, LossMonitor), WorkerError> {
        let own = Streams {
            stdout: rustix::io::fcntl_dupfd_cloexec(stdout(), 3).map_err(WorkerError::stream)?,
            stderr: rustix::io::fcntl_dupfd_cloexec(stderr(), 3).map_err(WorkerError::stream)?,
        };
        dup2_stdout(&self.stdout).map_err(WorkerError::stream)?;
        dup2_stderr(&self.stderr).map_err(WorkerError::stream)?;
        // The level in force may differ from the configured level, because an operator may have changed it.
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
        // Checked after the streams are restored, so that an error is printed to the worker's own stderr.
        let (log, access) = opened?;
        let Log {
            filter,
            output,
            losses,
        } = log;
        // The outputs must know that other processes of the server write to the same files.
        for output in access.iter().chain([&output]) {
            output.mark_shared();
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

/// The reason why a worker process could not start.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error("the scoreboard cannot be used")]
    Board(#[source] io::Error),
    #[error("there is no channel to a supervisor")]
    Channel(#[source] io::Error),
    #[error("the supervisor's settings cannot be read")]
    Settings(#[from] SettingsError),
    #[error("the handshake with the supervisor failed")]
    Hello(#[from] ChannelError),
    #[error("a listening socket of the supervisor cannot be used")]
    Listener(#[source] io::Error),
    #[error(transparent)]
    Log(#[from] log::OutputError),
    #[error("the first order of the supervisor is not a setup")]
    NoSetup,
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error("signals cannot be handled")]
    Signals(#[source] io::Error),
    #[error("the streams of the server cannot be used")]
    Stream(#[source] io::Error),
}

impl WorkerError {
    /// Returns the error for a stream that could not be duplicated.
    fn stream(error: rustix::io::Errno) -> Self {
        Self::Stream(error.into())
    }
}

/// How long a worker may take to exit after the time limit of its requests.
const EXIT_GRACE: Duration = Duration::from_secs(2);
