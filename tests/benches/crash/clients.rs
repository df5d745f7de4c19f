//! Clients that send requests without pause, and count the results.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use host_tests::{RequestBody, WebSocket, empty};
use http_body_util::BodyExt;
use hyper::{
    Request,
    client::conn::http1::{self, SendRequest},
    header::HOST,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time};

use crate::report::Table;

/// The results of the requests, counted by all clients of a run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answered: AtomicU64,
    /// Responses of `/counter`. Each has added one to the app's count.
    pub(crate) counted: AtomicU64,
    /// Complete responses to the clients of [`Clients::ask_slowly`].
    pub(crate) slow_answered: AtomicU64,
    /// Messages that came back on the WebSockets of [`Clients::talk`].
    pub(crate) messages: AtomicU64,
    /// WebSockets that the app closed with a request to connect again.
    pub(crate) asked_to_return: AtomicU64,
    /// Connections that were refused or reset before a request was sent.
    pub(crate) refused: AtomicU64,
    /// Requests that broke off, and were in flight while a worker crashed.
    pub(crate) broken_by_crash: AtomicU64,
    /// Requests that broke off at any other time, and WebSockets that broke off.
    pub(crate) broken: AtomicU64,
    /// Responses with a wrong text.
    pub(crate) wrong: AtomicU64,
    /// The newest version that a reload has reported.
    pub(crate) reported: AtomicU64,
    slowest_us: AtomicU64,
    crashes: Mutex<Vec<(Instant, Instant)>>,
    is_done: AtomicBool,
}

impl Tally {
    /// Records that a worker crashed between these instants.
    pub(crate) fn crashed(&self, began: Instant, ended: Instant) {
        let mut crashes = self.crashes.lock().unwrap_or_else(PoisonError::into_inner);
        crashes.push((began, ended));
    }

    /// Returns the number of requests that were lost without a crash as the reason.
    pub(crate) fn lost(&self) -> u64 {
        self.refused.load(Relaxed) + self.broken.load(Relaxed) + self.wrong.load(Relaxed)
    }

    fn answered(&self, began: Instant) {
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.slowest_us.fetch_max(took, Relaxed);
        self.answered.fetch_add(1, Relaxed);
    }
}

/// The clients of a run. They send requests until [`Clients::finish`].
#[derive(Debug)]
pub(crate) struct Clients {
    address: SocketAddr,
    tally: Arc<Tally>,
    tasks: JoinSet<()>,
    /// Requests that broke off, each with its beginning and its end.
    broken: Arc<Mutex<Vec<(Instant, Instant)>>>,
    began: Instant,
}

impl Clients {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            tally: Arc::default(),
            tasks: JoinSet::new(),
            broken: Arc::default(),
            began: Instant::now(),
        }
    }

    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Adds `count` clients that send one request after the other, with pauses of one millisecond, on a keep-alive
    /// connection or on a new connection for each request. `is_right` checks the text of a response. Its first argument
    /// is the version that was [reported](Tally::reported) when the request began.
    pub(crate) fn ask(
        &mut self,
        count: usize,
        path: &'static str,
        is_keep_alive: bool,
        is_right: impl Fn(u64, &str) -> bool + Clone + Send + 'static,
    ) {
        for _ in 0..count {
            let (address, tally) = (self.address, Arc::clone(&self.tally));
            let (broken, is_right) = (Arc::clone(&self.broken), is_right.clone());
            self.tasks.spawn(async move {
                let mut idle_connection = None;
                while !tally.is_done.load(Relaxed) {
                    time::sleep(Duration::from_millis(1)).await;
                    let sender = match idle_connection.take() {
                        Some(sender) => sender,
                        None => match connect(address).await {
                            Some(sender) => sender,
                            None => {
                                tally.refused.fetch_add(1, Relaxed);
                                continue;
                            }
                        },
                    };
                    let (began, reported) = (Instant::now(), tally.reported.load(SeqCst));
                    match exchange(sender, path, address).await {
                        Exchange::Answered(sender, text) => {
                            tally.answered(began);
                            if path == "/counter" {
                                tally.counted.fetch_add(1, Relaxed);
                            }
                            if !is_right(reported, &text) {
                                tally.wrong.fetch_add(1, Relaxed);
                            }
                            idle_connection = sender.filter(|_| is_keep_alive);
                        }
                        // The server has closed the idle connection, which RFC 9112, section 9.5, allows.
                        Exchange::NotSent => {}
                        Exchange::Broken => {
                            let mut broken = broken.lock().unwrap_or_else(PoisonError::into_inner);
                            broken.push((began, Instant::now()));
                        }
                    }
                }
            });
        }
    }

    /// Adds clients whose responses begin at once and end 300 ms later. Each half of a response contains the version.
    pub(crate) fn ask_slowly(&mut self, count: usize, folder: PathBuf) {
        for number in 0..count {
            let (address, tally) = (self.address, Arc::clone(&self.tally));
            let file = folder.join(format!("go{number}"));
            let path = format!("/versioned/stream?{}", file.display());
            let broken = Arc::clone(&self.broken);
            self.tasks.spawn(async move {
                while !tally.is_done.load(Relaxed) {
                    let Some(sender) = connect(address).await else {
                        tally.refused.fetch_add(1, Relaxed);
                        continue;
                    };
                    let (began, path) = (Instant::now(), path.clone());
                    let exchange =
                        tokio::spawn(async move { exchange(sender, &path, address).await });
                    time::sleep(Duration::from_millis(300)).await;
                    std::fs::write(&file, "").expect("the folder is writable");
                    match exchange.await.expect("the exchange does not panic") {
                        Exchange::Answered(_, text) => {
                            let halves = text.split_once('+');
                            if halves.is_some_and(|(first, second)| first == second) {
                                tally.slow_answered.fetch_add(1, Relaxed);
                            } else {
                                tally.wrong.fetch_add(1, Relaxed);
                            }
                        }
                        Exchange::NotSent | Exchange::Broken => {
                            let mut broken = broken.lock().unwrap_or_else(PoisonError::into_inner);
                            broken.push((began, Instant::now()));
                        }
                    }
                    std::fs::remove_file(&file).expect("the file was written above");
                }
            });
        }
    }

    /// Adds clients with a WebSocket of the app `chat`, which sends each message back. A client connects again when the
    /// app closes the WebSocket.
    pub(crate) fn talk(&mut self, count: usize) {
        for number in 0..count {
            let (address, tally) = (self.address, Arc::clone(&self.tally));
            self.tasks.spawn(async move {
                'connections: while !tally.is_done.load(Relaxed) {
                    let mut socket = WebSocket::http1(address, "/chat/socket").await;
                    for message in 0_u64.. {
                        if tally.is_done.load(Relaxed) {
                            break;
                        }
                        let text = format!("{number}: {message}");
                        socket.send(text.as_str()).await;
                        let mut is_returned = false;
                        // The app also sends the messages of the other clients.
                        while let Ok(Some(reply)) = socket.next().await {
                            if reply.is_close() {
                                tally.asked_to_return.fetch_add(1, Relaxed);
                                while let Ok(Some(_)) = socket.next().await {}
                                continue 'connections;
                            }
                            if reply.to_text().is_ok_and(|reply| reply == text) {
                                is_returned = true;
                                break;
                            }
                        }
                        if !is_returned {
                            tally.broken.fetch_add(1, Relaxed);
                            continue 'connections;
                        }
                        tally.messages.fetch_add(1, Relaxed);
                        time::sleep(Duration::from_millis(5)).await;
                    }
                }
            });
        }
    }

    /// Ends the clients, adds their counts to the table, and returns the counts.
    pub(crate) async fn finish(mut self, table: &mut Table) -> Arc<Tally> {
        let took = self.began.elapsed();
        self.tally.is_done.store(true, Relaxed);
        while let Some(client) = self.tasks.join_next().await {
            client.expect("a client does not panic");
        }
        let tally = self.tally;
        let crashes = tally.crashes.lock().unwrap_or_else(PoisonError::into_inner);
        for (began, ended) in self
            .broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            let is_explained = crashes
                .iter()
                .any(|(crash, over)| began <= over && crash <= ended);
            let count = if is_explained {
                &tally.broken_by_crash
            } else {
                &tally.broken
            };
            count.fetch_add(1, Relaxed);
        }
        drop(crashes);
        let count = |count: &AtomicU64| count.load(Relaxed);
        let answered = count(&tally.answered);
        table.row(
            "requests answered",
            format!(
                "{answered}, {:.0} a second",
                answered as f64 / took.as_secs_f64()
            ),
        );
        table.row("slowest answer", {
            format!("{:.0} ms", count(&tally.slowest_us) as f64 / 1e3)
        });
        for (name, number) in [
            ("slow responses whole", &tally.slow_answered),
            ("WebSocket messages returned", &tally.messages),
            (
                "WebSockets closed with \"come back\"",
                &tally.asked_to_return,
            ),
            (
                "requests broken off in a crashing worker",
                &tally.broken_by_crash,
            ),
        ] {
            if count(number) > 0 {
                table.row(name, count(number));
            }
        }
        table.row("connections refused", count(&tally.refused));
        table.row("broken off for no reason", count(&tally.broken));
        table.row("wrong answers", count(&tally.wrong));
        tally
    }
}

/// Opens a connection. Returns `None` if the connection is refused or closed at once.
async fn connect(address: SocketAddr) -> Option<SendRequest<RequestBody>> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}

/// The result of one request.
enum Exchange {
    /// A complete response: the connection if it can be used again, and the text. If the status is not 200, the text is
    /// the status.
    Answered(Option<SendRequest<RequestBody>>, String),
    /// The connection was closed before the request was sent.
    NotSent,
    /// The connection broke before the response was complete.
    Broken,
}

/// Sends a `GET` request, and reads the whole response.
async fn exchange(
    mut sender: SendRequest<RequestBody>,
    path: &str,
    address: SocketAddr,
) -> Exchange {
    if sender.ready().await.is_err() {
        return Exchange::NotSent;
    }
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .body(empty())
        .expect("the path is one");
    let response = match sender.send_request(request).await {
        Ok(response) => response,
        Err(error) if error.is_canceled() => return Exchange::NotSent,
        Err(_) => return Exchange::Broken,
    };
    let status = response.status();
    match response.into_body().collect().await {
        Ok(body) => {
            let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            let text = if status == 200 {
                text
            } else {
                status.to_string()
            };
            let is_open = sender.ready().await.is_ok();
            Exchange::Answered(is_open.then_some(sender), text)
        }
        Err(_) => Exchange::Broken,
    }
}
