//! A worker process for tests that executes simple orders, and the supervisor's end of its channel.

use std::{env, fs, io::Write, os::fd::AsRawFd, path::PathBuf, process, thread, time::Duration};

use host::{
    channel::{Channel, Hello, Receiver, Sender, listeners, socket_pair},
    supervisor::{
        output_tail::OutputTail,
        process::{Child, ChildExit, Children, Executable},
    },
    worker::lifeline::{end_with_supervisor, take_channel},
};
use rustix::process::{getpgrp, getpid};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::TIME_LIMIT;

/// A message from the supervisor to the worker.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Order {
    /// Print the text, and answer with [`Notice::Said`].
    Say(String),
    /// Accept a connection from the listener that is sent with the order, and send the text on the connection.
    Serve(String),
    Stop,
}

/// A message from the worker to the supervisor.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Notice {
    /// The worker has started.
    Started {
        /// The number of the channel's descriptor.
        channel_fd: i32,
        /// The file that is open as stdin.
        stdin: PathBuf,
        /// Whether the worker leads its own process group.
        group_is_own: bool,
        /// The name of the process.
        name: String,
    },
    Said(String),
    Served,
}

/// The supervisor's end of the channel.
pub(crate) type Orders = Channel<Order, Notice>;

/// Returns the first message of both ends of a channel.
pub(crate) fn hello() -> Hello {
    let build = "test".to_owned();
    Hello { protocol: 1, build }
}

/// Runs as a worker process. Ends with exit code 7 after [`Order::Stop`].
pub(crate) fn run() {
    let channel = take_channel().expect("a channel");
    end_with_supervisor(&channel, Duration::ZERO).expect("a thread");
    if env::args().nth(2).as_deref() == Some("hangs") {
        println!("hangs");
        loop {
            thread::park();
        }
    }
    Runtime::new().expect("a runtime").block_on(async {
        let started = Notice::Started {
            channel_fd: channel.as_raw_fd(),
            stdin: fs::read_link("/proc/self/fd/0").unwrap(),
            group_is_own: getpgrp() == getpid(),
            name: fs::read_to_string("/proc/self/comm").unwrap(),
        };
        let channel = Channel::<Notice, Order>::open(channel, &hello())
            .await
            .expect("a hello");
        let (notices, mut orders) = channel.split();
        notices.send(&started).unwrap();
        while let Some((order, mut sockets)) = orders.recv().await.expect("orders") {
            match order {
                Order::Say(text) => {
                    println!("said {text}");
                    notices.send(&Notice::Said(text)).unwrap();
                }
                Order::Serve(text) => {
                    let listener = listeners::receive(sockets.remove(0)).expect("a listener");
                    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                    let (stream, _) = listener.accept().await.expect("a connection");
                    let mut stream = stream.into_std().unwrap();
                    stream.write_all(text.as_bytes()).unwrap();
                    notices.send(&Notice::Served).unwrap();
                }
                Order::Stop => break,
            }
        }
        eprintln!("last words of a worker");
        notices.flush().await;
    });
    process::exit(7);
}

/// A running worker, in the supervisor.
pub(crate) struct Worker {
    pub(crate) child: Child,
    /// The last lines that the worker has printed.
    pub(crate) output: OutputTail,
    pub(crate) orders: Sender<Order>,
    pub(crate) notices: Receiver<Notice>,
}

impl Worker {
    pub(crate) async fn start(children: &Children, executable: &Executable) -> Self {
        let (ours, theirs) = socket_pair().unwrap();
        let started = children
            .start_worker(executable, theirs, [])
            .expect("a worker");
        let output = OutputTail::follow(started.stdout, started.stderr, |_, _| {});
        let channel = Orders::open(ours, &hello()).await.expect("a hello");
        let (orders, notices) = channel.split();
        Self {
            child: started.child,
            output,
            orders,
            notices,
        }
    }

    /// Waits for the next notice, and returns it.
    pub(crate) async fn notice(&mut self) -> Notice {
        let notice = tokio::time::timeout(TIME_LIMIT, self.notices.recv());
        notice
            .await
            .expect("a notice in time")
            .expect("no error")
            .expect("a notice")
            .0
    }

    /// Sends [`Order::Say`], and waits for the answer.
    pub(crate) async fn say(&mut self, text: &str) {
        self.orders.send(&Order::Say(text.to_owned())).unwrap();
        assert_eq!(self.notice().await, Notice::Said(text.to_owned()));
    }

    /// Sends [`Order::Stop`], and checks that the worker ends and that its last output has arrived.
    pub(crate) async fn stop(mut self) {
        self.orders.send(&Order::Stop).unwrap();
        assert_eq!(
            self.child.wait().await.unwrap(),
            ChildExit::Exited { code: 7 }
        );
        let lines = self.output.finish(TIME_LIMIT).await;
        assert_eq!(
            lines.last().map(String::as_str),
            Some("last words of a worker")
        );
        assert!(self.notices.recv().await.unwrap().is_none());
    }
}
