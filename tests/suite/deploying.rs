//! `host ctl deploy`: afterwards the library serves and is in the plugins folder, or neither.

use std::{fs, path::PathBuf};

use host_tests::{Connection, Ctl, Folder, Host, Library, Setup, eventually};

#[tokio::test]
async fn a_new_plugin_is_put_into_the_folder_and_serves() {
    let (host, ctl) = versioned(&[]).await;
    let (_elsewhere, file) = write_elsewhere("libhello.so", &Library::plugin("hello"));
    let deployed = ctl.json(&["deploy", &file]).await;
    assert_eq!(deployed["plugin"], "hello");
    assert_eq!(deployed["apps"][0]["new_generation"], 1, "{deployed}");
    assert_eq!(host.get("/").await.status, 200);
    assert_eq!(
        fs::read(host.folder().join("libhello.so")).unwrap(),
        fs::read(file).unwrap()
    );
}

#[tokio::test]
async fn a_new_version_takes_the_place_of_the_old_file_and_is_loaded_once() {
    let (host, ctl) = versioned(&["--log-level=debug"]).await;
    let v2 = Library::version("v2");
    // The library has the name that Cargo gives it, and the file in the folder has another one.
    let (_elsewhere, file) = write_elsewhere("libsomething.so", &v2);
    let text = ctl.text(&["deploy", &file]).await;
    assert!(
        text.contains("versioned deployed as ") && text.contains("generation 1 → 2"),
        "{text}"
    );
    assert_eq!(host.get("/versioned").await.text(), "v2");
    assert_eq!(fs::read(host.folder().join(FILE)).unwrap(), v2.bytes());
    assert!(!host.folder().join("libsomething.so").exists());
    // The watcher finds the new file too, but its content serves already.
    host.log().eventually(&["Unchanged", "versioned"]).await;
    assert_eq!(host.log().with(&["Loaded", "versioned"]).len(), 2);

    let again = ctl.json(&["deploy", &file]).await;
    assert_eq!(again["apps"][0]["unchanged_generation"], 2, "{again}");
    let text = ctl.text(&["deploy", &file]).await;
    assert!(text.contains("unchanged, generation 2 serves"), "{text}");
    assert_eq!(host.log().with(&["Loaded", "versioned"]).len(), 2);
    assert_eq!(partial_files(&host), [""; 0]);
}

#[tokio::test]
async fn a_version_that_does_not_start_changes_nothing() {
    let (host, ctl) = versioned(&["--log-level=debug"]).await;
    let bad = Library::plugin("init_fails")
        .with_fact("name", "versioned")
        .with_fact("mount", "/versioned");
    let (_elsewhere, file) = write_elsewhere(FILE, &bad);
    let (code, text) = ctl.run(&["deploy", &file]).await;
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("db.example") && text.contains("the plugins folder is as it was"),
        "{text}"
    );
    assert_eq!(host.get("/versioned").await.text(), "v1");
    let v1 = Library::version("v1");
    assert_eq!(fs::read(host.folder().join(FILE)).unwrap(), v1.bytes());
    assert_eq!(partial_files(&host), [""; 0]);
    assert_eq!(host.log().with(&["Not loaded"]).len(), 1);
    // The watcher still loads files that are put into the folder later.
    host.folder().put(FILE, &Library::version("v2"));
    host.serves("/versioned", "v2").await;
}

#[tokio::test]
async fn a_new_plugin_that_does_not_start_is_not_there() {
    let (host, ctl) = versioned(&[]).await;
    let (_elsewhere, file) = write_elsewhere("libinit_fails.so", &Library::plugin("init_fails"));
    let refusal = ctl.refusal(&["deploy", &file]).await;
    assert!(refusal.contains("db.example"), "{refusal}");
    assert!(!host.folder().join("libinit_fails.so").exists());
    eventually("no app", async || {
        ctl.app("init_fails").await.is_null().then_some(())
    })
    .await;
    assert_eq!(host.get("/init_fails").await.status, 404);
}

#[tokio::test]
async fn nothing_is_deployed_when_a_library_does_not_pass_the_check() {
    let (host, ctl) = versioned(&[]).await;
    let (_good, good) = write_elsewhere(FILE, &Library::version("v2"));
    let (_bad, bad) = write_elsewhere("bad.so", &Library::foreign());
    let (code, text) = ctl.run(&["deploy", &good, &bad]).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("bad.so is not deployed: refused"), "{text}");
    assert_eq!(host.get("/versioned").await.text(), "v1");
    assert_eq!(host.log().with(&["Loaded", "versioned"]).len(), 1);
}

#[tokio::test]
async fn a_file_that_is_another_plugin_is_not_replaced() {
    let (host, ctl) = versioned(&[]).await;
    let (_elsewhere, file) = write_elsewhere(FILE, &Library::plugin("hello"));
    let refusal = ctl.refusal(&["deploy", &file]).await;
    assert!(
        refusal.contains("is the plugin versioned") && refusal.contains("another name"),
        "{refusal}"
    );
    assert_eq!(host.get("/versioned").await.text(), "v1");
}

#[tokio::test]
async fn no_worker_answers_with_the_old_version_once_it_is_deployed_or_reloaded() {
    let (host, ctl) = versioned(&["--workers=4", "--quiet-time=1h"]).await;
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(host.http1().await);
    }
    for round in 2..6 {
        let version = format!("v{round}");
        let library = Library::version(&version);
        if round % 2 == 0 {
            let (_elsewhere, file) = write_elsewhere(FILE, &library);
            ctl.text(&["deploy", &file]).await;
        } else {
            host.folder().put(FILE, &library);
            ctl.text(&["reload", "versioned"]).await;
        }
        for connection in &mut connections {
            assert_eq!(connection.get("/versioned").await.text(), version);
        }
        for _ in 0..16 {
            let mut connection = Connection::http1(host.address()).await;
            assert_eq!(connection.get("/versioned").await.text(), version);
        }
    }
}

#[tokio::test]
async fn a_version_whose_start_fails_in_the_third_worker_serves_nowhere() {
    let ctl = Ctl::new();
    let setup = Setup::new()
        .library(COUNTER, &counter("v1"))
        .args(&["--workers=4"]);
    let file = setup.folder().join("starts");
    let setup = setup.env("START_COUNTER", &file);
    let host = setup.arg(ctl.option()).start().await;
    host.serves("/start_counter", "v1").await;
    eventually("four workers", async || {
        let roster = ctl.json(&["workers"]).await;
        let workers = roster["workers"].as_array()?;
        let serves = workers.iter().filter(|worker| worker["apps"] == 1);
        (serves.count() == 4).then_some(())
    })
    .await;
    let (_elsewhere, library) = write_elsewhere(COUNTER, &counter("third fails"));
    let refusal = ctl.refusal(&["deploy", &library]).await;
    assert!(refusal.contains("the third start fails"), "{refusal}");
    assert!(fs::metadata(&file).unwrap().len() >= 3);
    for _ in 0..32 {
        assert_eq!(host.get("/start_counter").await.text(), "v1");
    }
    let app = ctl.app("start_counter").await;
    assert_eq!(app["serving"]["generation"], 1, "{app}");
}

const FILE: &str = "libversioned.so";
const COUNTER: &str = "libstart_counter.so";

/// Returns the fixture `start_counter` with a mark, which decides whether its third start fails.
fn counter(mark: &str) -> Library {
    Library::plugin("start_counter").marked(mark)
}

/// Starts a host that serves version `v1` of the fixture `versioned`. Returns the host and its control socket.
async fn versioned(args: &[&str]) -> (Host, Ctl) {
    let ctl = Ctl::new();
    let setup = Setup::new()
        .library(FILE, &Library::version("v1"))
        .args(args);
    let host = setup.arg(ctl.option()).start().await;
    host.serves("/versioned", "v1").await;
    (host, ctl)
}

/// Writes a library into a new folder, and returns the folder and the path of the file. Dropping the folder removes it.
fn write_elsewhere(file: &str, library: &Library) -> (Folder, String) {
    let folder = Folder::new();
    folder.put(file, library);
    let path: PathBuf = folder.join(file);
    let path = path.display().to_string();
    (folder, path)
}

/// Returns the names of the temporary files of deployments in the plugins folder. Such a file exists only during a
/// deployment.
fn partial_files(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.folder().path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".part")).collect()
}
