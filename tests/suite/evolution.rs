//! Plugins and hosts with different minor versions of the ABI work together.

use host_tests::{Host, Library, Setup};

#[tokio::test]
async fn a_plugin_of_the_recorded_abi_serves_in_this_host() {
    assert_serves(&Library::plugin("abi_1_0"), "1.0", "recorded").await;
}

#[tokio::test]
async fn a_plugin_of_a_later_minor_serves_in_this_host() {
    let library = Library::plugin("abi_1_0").marked("later");
    assert_serves(&library, "1.9", "later").await;
}

/// Asserts that the library serves, logs, is replaced and stops in this host. `abi` is the ABI version that its
/// manifest states, and `version` the text that its responses and log lines contain.
async fn assert_serves(library: &Library, abi: &str, version: &str) {
    let first = library.with_fact("abi", abi);
    let setup = Setup::new().library("libabi.so", &first);
    let host: Host = setup.arg("--mount=/old=abi_1_0").start().await;
    let reply = host.get("/old/a?b=c").await;
    assert_eq!(reply.status, 203);
    assert_eq!(reply.headers["x-abi"], version);
    let expected = format!("{version} GET /a?b=c /old {}", host.address());
    assert_eq!(
        reply.text(),
        expected,
        "the headers are there before it asks"
    );
    // The rest of a plugin's life: a swap, log lines at the set level, and the stop.
    let second = library.with_fact("version", "2.0.0");
    host.folder()
        .put("libabi.so", &second.with_fact("abi", abi));
    host.log()
        .eventually(&["INFO", "libabi.so", "version=2.0.0", "replaces=1"])
        .await;
    assert_eq!(host.get("/old").await.status, 203);
    let exit = host.stop().await;
    assert_eq!(exit.code, Some(0), "{exit}");
    let lines = exit.log_of("abi_1_0");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines.iter().all(|line| line.text.contains(version)),
        "{lines:?}"
    );
}
