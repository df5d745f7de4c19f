//! How the host notices changes of the plugins folder: with events, without events, and when the folder itself is
//! replaced.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::symlink,
    time::SystemTime,
};

use host_tests::{Library, Setup};
use rustix::process::Signal;

#[tokio::test]
async fn when_so_much_happens_that_events_are_lost_the_folder_is_looked_at() {
    let setup = Setup::new().library(FILE, &Library::version("v1"));
    fs::write(setup.folder().join("notes.txt"), "").unwrap();
    let host = setup
        .arg("--rescan=1h")
        .arg("--log-level=debug")
        .start()
        .await;
    host.serves("/versioned", "v1").await;

    // The kernel queues only `max_queued_events` events. The frozen host does not read them, so later events are lost.
    // Opening a file causes an event, which the host must ignore. The loop alternates between two files, because the
    // kernel merges equal events.
    host.freeze();
    let max_events = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let files = ["notes.txt", FILE].map(|name| host.folder().join(name));
    let max_events = max_events.trim().parse().unwrap();
    for file in files.iter().cycle().take(max_events) {
        File::open(file).unwrap();
    }
    host.folder().put(FILE, &Library::version("v2"));
    host.signal(Signal::CONT);
    host.serves("/versioned", "v2").await;
    host.log().eventually(&["DEBUG", "Events were lost"]).await;
}

#[tokio::test]
async fn a_data_folder_is_swapped_as_kubernetes_does() {
    let setup = Setup::new();
    for version in ["v1", "v2"] {
        fs::create_dir(setup.folder().join(&format!("..{version}"))).unwrap();
        let file = setup.folder().join(&format!("..{version}/{FILE}"));
        fs::write(file, Library::version(version).bytes()).unwrap();
    }
    symlink("..v1", setup.folder().join("..data")).unwrap();
    symlink(format!("..data/{FILE}"), setup.folder().join(FILE)).unwrap();
    let host = setup.arg("--rescan=1h").start().await;
    host.serves("/versioned", "v1").await;
    symlink("..v2", host.folder().join("..data_tmp")).unwrap();
    fs::rename(
        host.folder().join("..data_tmp"),
        host.folder().join("..data"),
    )
    .unwrap();
    host.serves("/versioned", "v2").await;
}

#[tokio::test]
async fn a_folder_that_is_removed_and_made_anew_is_followed() {
    let setup = Setup::new();
    let folder = setup.folder().join("plugins");
    fs::create_dir(&folder).unwrap();
    // The host's private copies of libraries are in a subfolder, so they are removed too.
    let setup = setup.env("HOST_PLUGINS", &folder);
    let host = setup.arg("--rescan=100ms").start().await;
    let put = |version: &str| {
        host.folder()
            .put("plugins/libversioned.so", &Library::version(version))
    };
    for version in ["v1", "v2", "v3"] {
        put(version);
        host.serves("/versioned", version).await;
        fs::remove_dir_all(&folder).unwrap();
        host.answers("/versioned", 404).await;
        fs::create_dir(&folder).unwrap();
    }
}

#[tokio::test]
async fn without_events_the_folder_is_looked_at() {
    let setup = Setup::new().library(FILE, &Library::version("v1"));
    let host = setup
        .arg("--watch=poll")
        .arg("--rescan=1h")
        .arg("--log-level=debug")
        .start()
        .await;
    host.serves("/versioned", "v1").await;
    host.folder().put(FILE, &Library::version("v2"));
    host.serves("/versioned", "v2").await;
    assert_eq!(host.log().with(&["Watching the plugins folder"]), [""; 0]);
}

#[tokio::test]
async fn a_touch_loads_nothing() {
    let setup = Setup::new().library(FILE, &Library::version("v1"));
    let host = setup.start().await;
    host.serves("/versioned", "v1").await;
    let file = OpenOptions::new()
        .append(true)
        .open(host.folder().join(FILE))
        .unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    host.log()
        .eventually(&["INFO", "Unchanged, not loaded again", FILE])
        .await;
    assert_eq!(host.log().with(&["Loaded"]).len(), 1);
}

const FILE: &str = "libversioned.so";
