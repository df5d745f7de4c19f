//! Apps whose start takes long, and changes of the plugins folder during a start.

use host_tests::Library;

use crate::moody::{FILE, library, moody};

#[tokio::test]
async fn a_start_that_takes_long_holds_up_nobody() {
    let (host, ctl) = moody(&[]).await;
    host.folder().put(FILE, &library("v2 starts when told"));
    host.log().eventually(&["v2 starts when told"]).await;
    assert_eq!(ctl.app("moody").await["state"], "loading: init");
    host.folder()
        .put("libversioned.so", &Library::version("v1"));
    host.serves("/versioned", "v1").await;
    assert_eq!(host.get("/moody").await.text(), "v1");
    host.folder().create_empty("start");
    host.serves("/moody", "v2 starts when told").await;
}

#[tokio::test]
async fn what_changes_during_a_start_is_loaded_after_it() {
    let (host, ctl) = moody(&[]).await;
    host.folder().put(FILE, &library("v2 starts when told"));
    host.log().eventually(&["v2 starts when told"]).await;
    host.folder().put(FILE, &library("v3"));
    ctl.eventually("the next one waits", "moody", |app| app["next"].is_string())
        .await;
    host.folder().create_empty("start");
    host.serves("/moody", "v3").await;
    host.log()
        .eventually(&["Loaded", "generation=3", "replaces=2"])
        .await;
}

#[tokio::test]
async fn what_goes_and_comes_back_during_a_start_is_started_anew() {
    let (host, ctl) = moody(&[]).await;
    let slow = library("v2 starts when told");
    host.folder().put(FILE, &slow);
    host.log()
        .eventually(&["moody#2", "v2 starts when told"])
        .await;
    host.folder().remove(FILE);
    host.answers("/moody", 404).await;
    host.folder().put(FILE, &slow);
    host.log()
        .eventually(&["moody#3", "v2 starts when told"])
        .await;
    host.folder().create_empty("start");
    host.serves("/moody", "v2 starts when told").await;
    assert_eq!(ctl.app("moody").await["serving"]["generation"], 3);
    host.log()
        .eventually(&["INFO", "Stopped", "generation=2"])
        .await;
}
