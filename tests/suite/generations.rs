//! Generations, as `host ctl` and the log show them: their resources, and how they end.

use std::{fs, time::Instant};

use host_tests::{Ctl, Library, Setup};
use serde_json::Value;

use crate::moody::{FILE, library, moody};

#[tokio::test]
async fn reload_answers_with_proof() {
    let (host, ctl) = moody(&[]).await;
    let path = format!("/versioned/wait?{}", host.folder().join("go").display());
    host.folder()
        .put("libversioned.so", &Library::version("v1"));
    host.serves("/versioned", "v1").await;
    let mut connection = host.http1().await;
    let waiting = tokio::spawn(async move { connection.get(&path).await.text() });
    host.log().eventually(&["v1 waits"]).await;

    let reload = tokio::spawn(async move {
        let proof = ctl.json(&["reload", "versioned"]).await;
        (ctl, proof)
    });
    host.log()
        .eventually(&["Loaded", "versioned", "generation=2"])
        .await;
    assert!(!reload.is_finished(), "the old generation has a request");
    host.folder().create_empty("go");
    assert_eq!(waiting.await.unwrap(), "v1");
    let (ctl, proof) = reload.await.unwrap();
    for (key, value) in [
        ("name", "versioned".into()),
        ("old_generation", 1.into()),
        ("new_generation", 2.into()),
        ("in_flight_at_swap", 1.into()),
        ("failed", Value::from(0)),
    ] {
        assert_eq!(proof[key], value, "{key} in {proof}");
    }
    assert_eq!(proof["hash"].as_str().unwrap().len(), 64);
    assert!(proof["drained_ms"].as_f64() > Some(0.0), "{proof}");
    for step in ["read", "stage", "open", "init"] {
        assert!(proof["ms"][step].as_f64() > Some(0.0), "{step} in {proof}");
    }

    let text = ctl.text(&["reload", "versioned"]).await;
    assert!(
        text.contains("generation 2 → 3") && text.contains("0 failed"),
        "{text}"
    );
    let refusal = ctl.refusal(&["reload", "shop"]).await;
    assert!(
        refusal.contains("no app \"shop\"") && refusal.contains("moody, versioned"),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_file_that_was_put_right_has_no_error_any_more() {
    let (host, ctl) = moody(&[]).await;
    host.folder().put(FILE, &Library::new("no library"));
    let has_error = |app: &Value| app["last_error"].is_object();
    ctl.eventually("an error", "moody", has_error).await;
    host.folder().put(FILE, &library("v1"));
    ctl.eventually("no error", "moody", |app| !has_error(app))
        .await;
}

#[tokio::test]
async fn plugins_shows_what_serves_what_failed_and_what_it_costs() {
    let (host, ctl) = moody(&[]).await;
    host.get("/moody").await;
    let bad = Library::plugin("init_fails")
        .with_fact("name", "moody")
        .with_fact("mount", "/moody");
    host.folder().put(FILE, &bad);
    host.log().eventually(&["ERROR", FILE, "db.example"]).await;
    host.folder().put("text.so", &Library::new("no library"));
    host.log().eventually(&["ERROR", "text.so"]).await;

    let report = ctl.json(&["plugins"]).await;
    let app = &report["apps"][0];
    assert_eq!(
        (&app["name"], &app["plugin"], &app["state"]),
        (&"moody".into(), &"moody".into(), &"serving".into())
    );
    assert_eq!(app["mounts"], serde_json::json!(["/moody"]));
    let serving = &app["serving"];
    assert_eq!(
        (&serving["generation"], &serving["version"]),
        (&1.into(), &"0.1.0".into())
    );
    assert!(
        serving["requests"].as_u64() >= Some(2) && serving["in_flight"] == 0,
        "{serving}"
    );
    assert!(
        serving["footprint"]["anonymous_bytes"].as_u64() > Some(4096),
        "{serving}"
    );
    assert_eq!(app["last_error"]["step"], "init");
    assert!(
        app["last_error"]["error"]
            .as_str()
            .unwrap()
            .contains("db.example"),
        "{app}"
    );
    assert!(
        report["refused"][0]["file"]
            .as_str()
            .unwrap()
            .ends_with("text.so"),
        "{report}"
    );
    assert_eq!(report["loads"], 2);
    assert!(report["loads_left"].as_u64() > Some(300), "{report}");

    let text = ctl.text(&["plugins"]).await;
    for part in [
        "moody at /moody: serving",
        "generation 1",
        "db.example",
        "text.so",
        "2 loads",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[tokio::test]
async fn a_removed_app_is_shown_until_its_generation_has_ended() {
    let (host, ctl) = moody(&[]).await;
    host.folder()
        .put("libversioned.so", &Library::version("v1"));
    host.serves("/versioned", "v1").await;
    let mut connection = host.http1().await;
    let path = format!("/versioned/wait?{}", host.folder().join("go").display());
    let waiting = tokio::spawn(async move { connection.get(&path).await.text() });
    host.log().eventually(&["v1 waits"]).await;
    host.folder().remove("libversioned.so");
    host.answers("/versioned", 404).await;

    let app = ctl.app("versioned").await;
    assert_eq!(
        (&app["state"], &app["mounts"], &app["serving"]),
        (&"removed".into(), &serde_json::json!([]), &Value::Null)
    );
    let draining = &app["others"][0];
    assert_eq!(
        (
            &draining["state"],
            &draining["generation"],
            &draining["in_flight"]
        ),
        (&"draining".into(), &1.into(), &1.into())
    );
    assert!(draining["replaced_ms"].as_f64() > Some(0.0), "{app}");
    let text = ctl.text(&["plugins"]).await;
    for part in [
        "versioned: removed",
        "draining generation 1",
        "1 in flight",
        " s ago",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let refusal = ctl.refusal(&["reload", "versioned"]).await;
    assert!(refusal.contains("no app"), "{refusal}");

    host.folder().create_empty("go");
    assert_eq!(waiting.await.unwrap(), "v1");
    ctl.eventually("nothing of it is at work", "versioned", Value::is_null)
        .await;
    // Libraries are never unloaded, so an ended generation still uses memory.
    let ended = &ctl.json(&["plugins"]).await["retired"];
    assert_eq!(ended["generations"], 1);
    assert!(
        ended["footprint"]["anonymous_bytes"].as_u64() > Some(4096),
        "{ended}"
    );
}

#[tokio::test]
async fn a_shutdown_hook_that_hangs_is_left_after_its_time() {
    let (host, _ctl) = moody(&[]).await;
    host.folder().put(FILE, &library("v2 hangs at the end"));
    host.serves("/moody", "v2 hangs at the end").await;
    let began = Instant::now();
    host.folder().put(FILE, &library("v3"));
    host.serves("/moody", "v3").await;
    host.log()
        .eventually(&["WARN", "shutdown hook", "generation=2"])
        .await;
    host.log()
        .eventually(&["INFO", "Stopped", "generation=2"])
        .await;
    assert!(began.elapsed().as_secs() >= 5, "it has 5 s");
}

#[tokio::test]
async fn a_thread_that_stays_is_named_in_a_warning_and_tasks_are_counted() {
    let (host, _ctl) = moody(&[]).await;
    host.folder().put(FILE, &library("v2 leaks a thread"));
    host.serves("/moody", "v2 leaks a thread").await;
    host.folder().put(FILE, &library("v3 leaves tasks"));
    host.serves("/moody", "v3 leaves tasks").await;
    let line = host
        .log()
        .eventually(&["WARN", "still there", "generation=2"])
        .await;
    assert!(
        line.contains("threads=1") && line.contains("moody.g2"),
        "{line}"
    );

    host.folder().put(FILE, &library("v4"));
    host.serves("/moody", "v4").await;
    host.log()
        .eventually(&["INFO", "Stopped", "generation=3", "cancelled_tasks=3"])
        .await;
    assert_eq!(host.log().with(&["still there"]).len(), 1);
}

#[tokio::test]
async fn after_many_reloads_threads_and_files_are_as_before_and_memory_nearly() {
    let (host, ctl) = moody(&[]).await;
    for _ in 0..3 {
        ctl.json(&["reload", "moody"]).await;
    }
    let before = ctl.json(&["plugins"]).await;
    for _ in 0..30 {
        let proof = ctl.json(&["reload", "moody"]).await;
        assert_eq!(proof["failed"], 0);
        assert_eq!(host.get("/moody").await.text(), "v1");
    }
    let after = ctl.json(&["plugins"]).await;
    let growth = |key: &str| {
        let [before, after] = [&before, &after].map(|report| report["process"][key].as_u64());
        after.unwrap().saturating_sub(before.unwrap())
    };
    // tokio keeps threads for blocking work for a while after the work is done.
    assert!(
        growth("threads") <= 5 && growth("files") <= 2,
        "{before} {after}"
    );
    let retired = |report: &Value| {
        let retired = &report["apps"][0]["retired"];
        let bytes = retired["footprint"]["anonymous_bytes"].as_u64();
        (retired["generations"].as_u64().unwrap(), bytes.unwrap())
    };
    let ((3, bytes_before), (33, bytes_after)) = (retired(&before), retired(&after)) else {
        panic!("{before} {after}");
    };
    // Both values are bytes for each of the 30 generations: the pages of the libraries, and the rest, which is the
    // heap.
    let libraries = (bytes_after - bytes_before) / 30;
    assert!(
        (4096..400 << 10).contains(&libraries),
        "{libraries} bytes a generation"
    );
    let heap = (growth("anonymous_bytes") / 30).saturating_sub(libraries);
    assert!(heap < 100 << 10, "{heap} bytes a generation");
}

#[tokio::test]
async fn before_keys_run_out_loads_are_refused_and_what_serves_serves_on() {
    let (host, ctl) = moody(&[]).await;
    host.folder()
        .put("libtakes_keys.so", &Library::plugin("takes_keys"));
    host.serves("/takes_keys", "greedy").await;
    assert_eq!(ctl.json(&["plugins"]).await["loads_left"], 0);
    host.folder().put(FILE, &library("v2"));
    let line = host.log().eventually(&["ERROR", FILE, "step=budget"]).await;
    assert!(
        line.contains("loaded 2 libraries") && line.contains("restart the host"),
        "{line}"
    );
    assert_eq!(host.get("/moody").await.text(), "v1");
    assert_eq!(ctl.app("moody").await["last_error"]["step"], "budget");
}

#[tokio::test]
async fn one_plugin_can_be_two_apps_with_their_own_configuration() {
    let ctl = Ctl::new();
    let setup = Setup::new().library(FILE, &library("v1")).arg(ctl.option());
    let file = setup.folder().join("host.toml");
    let tables = "[app.one]\nplugin = 'moody'\nmount = ['/1', '/eins']\nconfig = { title = 'One', n = 1 }\n\
                  [app.two]\nplugin = 'moody'\n";
    fs::write(&file, tables).unwrap();
    let host = setup.arg("--config").arg(&file).start().await;
    for (path, name, mount, config) in [
        (
            "/1/facts",
            "one",
            "/1",
            serde_json::json!({ "title": "One", "n": 1 }),
        ),
        (
            "/eins/facts",
            "one",
            "/1",
            serde_json::json!({ "title": "One", "n": 1 }),
        ),
        ("/two/facts", "two", "/two", serde_json::json!({})),
    ] {
        host.answers(path, 200).await;
        let facts = host.get(path).await.json();
        assert_eq!(
            facts,
            serde_json::json!({ "name": name, "mount": mount, "config": config })
        );
    }
    assert_eq!(host.get("/moody").await.status, 404);

    // The generations of each app are counted separately.
    ctl.json(&["reload", "two"]).await;
    assert_eq!(ctl.app("one").await["serving"]["generation"], 1);
    assert_eq!(ctl.app("two").await["serving"]["generation"], 2);
    host.folder().put(FILE, &library("v2"));
    host.serves("/1", "v2").await;
    host.serves("/two", "v2").await;
    host.folder().remove(FILE);
    host.answers("/1", 404).await;
    host.answers("/two", 404).await;
}
