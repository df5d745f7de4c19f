//! `scripts/bench dev`: measures the time from saving a file to the response of the new version: with `host dev`, and
//! with `cargo run` of the same axum app with `axum::serve`, which is started again for each edit.
//!
//! While `host dev` is measured, a client sends requests without pause, and no request may fail.

use std::{
    error::Error,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What to measure.
#[derive(Debug, Parser)]
struct Options {
    /// The program `host`
    host: PathBuf,
    /// The repository
    repository: PathBuf,
    /// Edits by `host dev`
    #[arg(long, default_value_t = 100)]
    edits: u32,
    /// Edits by `cargo run`
    #[arg(long, default_value_t = 10)]
    restarts: u32,
    /// Give the app what larger ones depend on: sqlx, reqwest and tower-http
    #[arg(long)]
    big: bool,
    /// Where Cargo builds
    #[arg(long)]
    target: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let folder = tempfile::tempdir()?;
    let plugin = folder.path().join("plugin");
    let program = folder.path().join("program");
    write_crate(&options, &plugin, true)?;
    write_crate(&options, &program, false)?;
    measure_host_dev(&options, &plugin)?;
    measure_cargo_run(&options, &program)
}

// === the app ===

/// Writes the crate of the app: a plugin, or a program with `axum::serve`.
fn write_crate(options: &Options, folder: &Path, is_plugin: bool) -> Result<()> {
    fs::create_dir_all(folder.join("src"))?;
    fs::copy(
        options.repository.join("Cargo.lock"),
        folder.join("Cargo.lock"),
    )?;
    let api = options.repository.join("plugin-api");
    let (kind, server) = if is_plugin {
        (
            "[lib]\ncrate-type = [\"cdylib\"]\n".to_owned(),
            format!("host-plugin-api = {{ path = {api:?} }}\n"),
        )
    } else {
        (
            String::new(),
            "tokio = { version = \"1\", features = [\"full\"] }\n".to_owned(),
        )
    };
    let big = if options.big { LARGE_DEPENDENCIES } else { "" };
    fs::write(
        folder.join("Cargo.toml"),
        format!(
            "[package]\nname = \"bench-dev\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n{kind}\n[dependencies]\naxum = \"0.8\"\n{server}tracing = \"0.1\"\n{big}\n[workspace]\n"
        ),
    )?;
    write_source(options, folder, is_plugin, 0)
}

/// Writes the source of the app, whose response contains the version.
fn write_source(options: &Options, folder: &Path, is_plugin: bool, version: u32) -> Result<()> {
    let (file, start) = if is_plugin {
        (
            "src/lib.rs",
            "plugin_api::export_app!(app, mount = \"/\");\n".to_owned(),
        )
    } else {
        (
            "src/main.rs",
            "#[tokio::main]\nasync fn main() {\n    let port = std::env::var(\"PORT\").unwrap();\n    let listener = tokio::net::TcpListener::bind(format!(\"127.0.0.1:{port}\")).await.unwrap();\n    axum::serve(listener, app()).await.unwrap();\n}\n".to_owned(),
        )
    };
    let big = if options.big {
        LARGE_SOURCE
    } else {
        "fn big(app: Router) -> Router {\n    app\n}\n"
    };
    let text = format!(
        "use axum::{{Router, routing::get}};\n\n{start}\nfn app() -> Router {{\n    big(Router::new().route(\"/\", get(hello)))\n}}\n\nasync fn hello() -> &'static str {{\n    tracing::info!(\"somebody came in\");\n    \"version {version};\"\n}}\n\n{big}"
    );
    // A rename, so that no build sees a half-written file.
    let temporary = folder.join("src/.new");
    fs::write(&temporary, text)?;
    fs::rename(temporary, folder.join(file))?;
    Ok(())
}

/// The additional dependencies with `--big`.
const LARGE_DEPENDENCIES: &str = "reqwest = { version = \"0.12\", features = [\"json\"] }\nsqlx = { version = \"0.8\", features = [\"postgres\", \"runtime-tokio\"] }\ntower-http = { version = \"0.6\", features = [\"full\"] }\n";

/// The additional source with `--big`, which uses the additional dependencies.
const LARGE_SOURCE: &str = "fn big(app: Router) -> Router {
    async fn pages(
        axum::extract::State((client, pool)): axum::extract::State<(reqwest::Client, sqlx::PgPool)>,
    ) -> String {
        let answer = client.get(\"http://localhost:1/\").send().await;
        let row = sqlx::query_scalar::<_, i64>(\"select 1\").fetch_one(&pool).await;
        format!(\"{answer:?} {row:?}\")
    }
    let pool = sqlx::PgPool::connect_lazy(\"postgres://localhost/shop\").expect(\"it is an address\");
    app.route(\"/pages\", get(pages).with_state((reqwest::Client::new(), pool)))
        .layer(tower_http::trace::TraceLayer::new_for_http())
        .layer(tower_http::compression::CompressionLayer::new())
}
";

// === host dev ===

/// Measures the first response and `--edits` edits with `host dev`, and prints the times.
fn measure_host_dev(options: &Options, folder: &Path) -> Result<()> {
    let began = Instant::now();
    let mut session = Command::new(&options.host)
        .args(["dev", "--bind=127.0.0.1:0", "--log-level=off"])
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", options.target.join("plugin"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = session.stdout.take().ok_or("no stdout")?;
    let _session = ProcessGuard(session);
    let mut lines = BufReader::new(stdout).lines();
    let first = lines.next().ok_or("the session ended")??;
    let address: SocketAddr = first.trim_start_matches("Listening on http://").parse()?;
    let printed = Arc::new(Mutex::new(Vec::new()));
    let reader_lines = Arc::clone(&printed);
    thread::spawn(move || {
        for line in lines.map_while(std::result::Result::ok) {
            if let Ok(mut printed) = reader_lines.lock() {
                printed.push(line);
            }
        }
    });
    wait_for_version(address, 0)?;
    println!(
        "host dev: first answer after {:.1} s",
        began.elapsed().as_secs_f64()
    );

    let stop = Arc::new(AtomicBool::new(false));
    let (requests, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let client = {
        let (stop, requests, failed) = (
            Arc::clone(&stop),
            Arc::clone(&requests),
            Arc::clone(&failed),
        );
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                requests.fetch_add(1, Ordering::Relaxed);
                let is_good = get(address).is_ok_and(|text| {
                    text.starts_with("HTTP/1.1 200") && text.contains("version ")
                });
                failed.fetch_add(u64::from(!is_good), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        })
    };
    let mut edit_times = Vec::new();
    for version in 1..=options.edits {
        let began = Instant::now();
        write_source(options, folder, true, version)?;
        wait_for_version(address, version)?;
        edit_times.push(began.elapsed());
        // The session prints its line after it has noticed the new version, which is later than the first response.
        thread::sleep(Duration::from_millis(100));
    }
    stop.store(true, Ordering::Relaxed);
    client.join().map_err(|_| "the client panicked")?;
    let printed = printed.lock().map_err(|_| "the reader panicked")?;
    let cargo_times = printed.iter().filter_map(|line| {
        let (_, rest) = line.split_once("lib.rs: built in ")?;
        Some(Duration::from_secs_f64(
            rest.split_once(" s")?.0.parse().ok()?,
        ))
    });
    let cargo_times: Vec<_> = cargo_times.collect();
    let rest_times: Vec<_> = edit_times
        .iter()
        .zip(&cargo_times)
        .map(|(total, cargo)| total.saturating_sub(*cargo))
        .collect();
    print_times("host dev: edit to new answer", edit_times);
    print_times("  of which cargo", cargo_times);
    print_times("  of which the rest", rest_times);
    let (requests, failed) = (
        requests.load(Ordering::Relaxed),
        failed.load(Ordering::Relaxed),
    );
    println!("  requests of a client without a pause: {requests}, failed: {failed}");
    if failed > 0 {
        return Err(format!("{failed} of {requests} requests failed").into());
    }
    Ok(())
}

// === cargo run ===

/// Measures the first response and `--restarts` edits with `cargo run`, and prints the times.
fn measure_cargo_run(options: &Options, folder: &Path) -> Result<()> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let run = || -> Result<ProcessGuard> {
        let cargo = Command::new("cargo")
            .args(["run", "--quiet"])
            .current_dir(folder)
            .env("CARGO_TARGET_DIR", options.target.join("program"))
            .env("PORT", address.port().to_string())
            .spawn()?;
        Ok(ProcessGuard(cargo))
    };
    let began = Instant::now();
    let mut program = run()?;
    wait_for_version(address, 0)?;
    println!(
        "cargo run: first answer after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    let mut edit_times = Vec::new();
    for version in 1..=options.restarts {
        let began = Instant::now();
        write_source(options, folder, false, version)?;
        drop(program);
        program = run()?;
        wait_for_version(address, version)?;
        edit_times.push(began.elapsed());
    }
    print_times("cargo run: edit to new answer", edit_times);
    Ok(())
}

/// Ends a process when it is dropped. For `cargo run` this is the app itself, because Cargo replaces its own process by
/// the program that it runs.
struct ProcessGuard(Child);

impl Drop for ProcessGuard {
    fn drop(&mut self) {
        // SIGTERM and not `Child::kill`, because the session of `host dev` must end its server.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

// === the client ===

/// Sends requests until this version answers. Returns an error after 20 minutes.
fn wait_for_version(address: SocketAddr, version: u32) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(1200);
    let expected = format!("version {version};");
    while Instant::now() < end {
        if get(address).is_ok_and(|text| text.contains(&expected)) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(2));
    }
    Err(format!("{expected} never answered").into())
}

fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Prints the median and the largest of the times. Prints nothing if there are no times.
fn print_times(title: &str, mut times: Vec<Duration>) {
    times.sort();
    let Some(&slowest) = times.last() else {
        return;
    };
    let median = times[times.len() / 2];
    println!(
        "{title}: median {:.3} s, slowest {:.3} s, of {}",
        median.as_secs_f64(),
        slowest.as_secs_f64(),
        times.len()
    );
}
