//! Crashes under load: a handler that writes to a null pointer, again and again, and the app that is put aside.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use host_tests::{Connection, Host, Setup, Wire, eventually};

use crate::{clients::Clients, report::Table};

/// Crashes one of `workers` workers, `crashes` times. Returns whether all lost requests were in the crashing worker,
/// and the log names the app and the place of every crash.
pub(crate) async fn run(workers: usize, crashes: usize) -> bool {
    let host = setup()
        .arg(format!("--workers={workers}"))
        // Without a limit, so that the app is never put aside.
        .arg("--crash-limit=0")
        .start()
        .await;
    let clients = clients(&host).await;
    let tally = clients.tally();
    let mut answer_times = Vec::new();
    let mut restart_times = Vec::new();
    for number in 0..crashes {
        let began = Instant::now();
        crash(&host).await;
        let ended = Instant::now();
        // This client may see the end of its connection before the other clients do, so add some time.
        tally.crashed(began, ended + Duration::from_millis(10));
        let mut next = Connection::http1(host.address()).await;
        assert_eq!(next.get("/").await.status, 200);
        answer_times.push(ended.elapsed());
        host.log().nth_with(number, &["Worker died"]).await;
        host.serves("/dies", "unmarked").await;
        host.log()
            .nth_with(workers + number, &["Worker started"])
            .await;
        restart_times.push(ended.elapsed());
    }
    let mut table = Table::new(format!("{crashes} crashes, --workers={workers}"));
    let lost = finish(clients, &mut table).await;
    table.times("from the crash to the next answer", &mut answer_times);
    table.times("until a fresh worker has started", &mut restart_times);
    let blamed = host
        .log()
        .with(&["Worker died", "plugin=dies", "write_to_null"]);
    table.row(
        "crashes with app and place in the log",
        format!("{} of {crashes}", blamed.len()),
    );
    table.print();
    lost == 0 && blamed.len() == crashes
}

/// Crashes an app until it is put aside. Returns whether the other app answered every request afterwards.
pub(crate) async fn put_aside() -> bool {
    let host = setup().arg("--crash-limit=3").start().await;
    host.serves("/dies", "unmarked").await;
    for number in 0..3 {
        crash(&host).await;
        host.log().nth_with(number, &["Worker died"]).await;
        host.answers("/", 200).await;
        if number < 2 {
            host.serves("/dies", "unmarked").await;
        }
    }
    host.log().eventually(&["Put aside", "plugin=dies"]).await;
    host.answers("/dies", 503).await;
    let clients = clients(&host).await;
    let tally = clients.tally();
    eventually("some thousand answers", async || {
        (tally.answered.load(Relaxed) >= 10_000).then_some(())
    })
    .await;
    let mut table = Table::new("After the third crash: the app is put aside");
    let lost = finish(clients, &mut table).await;
    table.row("status of the app", host.get("/dies").await.status);
    table.print();
    lost == 0
}

/// Returns the setup of a host with the app that crashes and an app that does not.
fn setup() -> Setup {
    Setup::new()
        .plugin("dies")
        .plugin("hello")
        .arg("--threads=2")
}

/// Starts clients of `hello`, the app that does not crash.
async fn clients(host: &Host) -> Clients {
    let hello = host.answers("/", 200).await.text();
    let mut clients = Clients::new(host.address());
    for is_keep_alive in [true, false] {
        let hello = hello.clone();
        clients.ask(8, "/", is_keep_alive, move |_, text| text == hello);
    }
    clients
}

/// Ends the clients, and returns the number of requests that were lost without a reason.
async fn finish(clients: Clients, table: &mut Table) -> u64 {
    clients.finish(table).await.lost()
}

/// Crashes the worker that accepts this connection, and returns when the connection has ended.
async fn crash(host: &Host) {
    let mut wire = Wire::connect(host.address()).await;
    wire.send("GET /dies/null HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert_eq!(wire.rest().await, "");
}
