//! A worker for tests that carries out simple orders, and its connection in the supervisor.

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

use crate::PATIENCE;

#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Order {
    Say(String),
    /// Accept a connection from the socket that comes along, and send it the text.
    Serve(String),
    Stop,
}

#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Notice {
    Started {
        channel_fd: i32,
        stdin: PathBuf,
        group_is_own: bool,
        name: String,
    },
    Said(String),
    Served,
}

pub(crate) type Orders = Channel<Order, Notice>;

pub(crate) fn hello() -> Hello {
    let build = "test".to_owned();
    Hello { protocol: 1, build }
}

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

pub(crate) struct Worker {
    pub(crate) child: Child,
    pub(crate) words: OutputTail,
    pub(crate) orders: Sender<Order>,
    pub(crate) notices: Receiver<Notice>,
}

impl Worker {
    pub(crate) async fn start(children: &Children, executable: &Executable) -> Self {
        let (ours, theirs) = socket_pair().unwrap();
        let started = children
            .start_worker(executable, theirs, [])
            .expect("a worker");
        let words = OutputTail::follow(started.stdout, started.stderr, |_, _| {});
        let channel = Orders::open(ours, &hello()).await.expect("a hello");
        let (orders, notices) = channel.split();
        Self {
            child: started.child,
            words,
            orders,
            notices,
        }
    }

    pub(crate) async fn notice(&mut self) -> Notice {
        let limited = tokio::time::timeout(PATIENCE, self.notices.recv());
        limited
            .await
            .expect("a notice in time")
            .expect("no error")
            .expect("a notice")
            .0
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.orders.send(&Order::Say(text.to_owned())).unwrap();
        assert_eq!(self.notice().await, Notice::Said(text.to_owned()));
    }

    pub(crate) async fn stop(mut self) {
        self.orders.send(&Order::Stop).unwrap();
        assert_eq!(
            self.child.wait().await.unwrap(),
            ChildExit::Exited { code: 7 }
        );
        let words = self.words.finish(PATIENCE).await;
        assert_eq!(
            words.last().map(String::as_str),
            Some("last words of a worker")
        );
        assert!(self.notices.recv().await.unwrap().is_none());
    }
}
