//! Fresh processes under load: recycled workers, and other builds of the host that take over in place.

use std::{fs, path::Path, sync::atomic::Ordering::Relaxed, time::Instant};

use host_tests::{Ctl, Host, Setup, host_program};

use crate::{clients::Clients, report::Table};

/// Recycles the worker `count` times. Returns whether nothing was lost.
pub(crate) async fn recycles(count: usize) -> bool {
    let (host, ctl) = start().await;
    let clients = clients(&host);
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        assert_eq!(ctl.json(&["recycle"]).await["recycled"], 1);
        times.push(began.elapsed());
    }
    let mut table = Table::new(format!("{count} recycles"));
    let lost = finish(&host, clients, &mut table).await;
    table.times("a recycle, until the old worker has ended", &mut times);
    table.print();
    lost == 0
}

/// Upgrades the host `count` times to another build. After every fifth upgrade, also tries a broken build, which must
/// change nothing. Returns whether nothing was lost.
pub(crate) async fn upgrades(count: usize) -> bool {
    let (host, ctl) = start().await;
    let builds = tempfile::tempdir().expect("there is a folder for temporary files");
    let broken = builds.path().join("broken");
    fs::write(&broken, "no program").expect("the folder is writable");
    let clients = clients(&host);
    let mut times = Vec::new();
    let mut refused = 0;
    for number in 0..count {
        let build = builds.path().join(format!("host-{number}"));
        fs::copy(host_program(), &build).expect("there is space");
        let began = Instant::now();
        upgrade(&ctl, &build).await;
        let recycled = ["Recycled", "the host was upgraded"];
        host.log().nth_with(number, &recycled).await;
        times.push(began.elapsed());
        let program = fs::read_link(format!("/proc/{}/exe", host.pid()));
        assert_eq!(program.expect("the process is there"), build);
        if number % 5 == 4 {
            ctl.refusal(&["upgrade", &broken.to_string_lossy()]).await;
            refused += 1;
        }
    }
    let mut table = Table::new(format!("{count} upgrades of the host in place"));
    let lost = finish(&host, clients, &mut table).await;
    table.times("an upgrade, until the old worker has ended", &mut times);
    table.row("broken builds that changed nothing", refused);
    table.print();
    lost == 0
}

async fn upgrade(ctl: &Ctl, build: &Path) {
    let (code, printed) = ctl.run(&["upgrade", &build.to_string_lossy()]).await;
    assert_eq!(code, 0, "{printed}");
}

/// Starts a host with `chat`, `counter` and `versioned`. Returns the host and its control socket.
async fn start() -> (Host, Ctl) {
    let ctl = Ctl::new();
    let setup = Setup::new().arg(ctl.option()).arg("--threads=2");
    let setup = ["chat", "counter", "versioned"]
        .into_iter()
        .fold(setup, Setup::plugin);
    let host = setup.start().await;
    for path in ["/chat", "/counter/version", "/versioned"] {
        host.answers(path, 200).await;
    }
    (host, ctl)
}

/// Starts clients that count, clients with slow responses, and clients with WebSockets.
fn clients(host: &Host) -> Clients {
    let mut clients = Clients::new(host.address());
    for is_keep_alive in [true, false] {
        clients.ask(4, "/counter", is_keep_alive, |_, text| {
            text.parse::<u64>().is_ok()
        });
    }
    clients.ask_slowly(4, host.folder().path().to_owned());
    clients.talk(4);
    clients
}

/// Ends the clients, and returns the number of lost requests and lost counts.
async fn finish(host: &Host, clients: Clients, table: &mut Table) -> u64 {
    let tally = clients.finish(table).await;
    let counted = host.get("/counter").await.text();
    let counted: u64 = counted.parse().expect("the app counts");
    let updates = (tally.counted.load(Relaxed) + 1).abs_diff(counted);
    table.row("updates lost", updates);
    tally.lost() + updates
}
