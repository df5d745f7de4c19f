//! The configuration of apps, changed while the server runs (SIGHUP).

use std::{fs, path::PathBuf};

use host_tests::{Ctl, Host, Setup, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::moody::{FILE, of};

#[tokio::test]
async fn an_app_gets_its_new_configuration_and_others_are_left_alone() {
    let said = "[app.one]\nplugin = 'moody'\nconfig = { n = 1 }\n[app.two]\nplugin = 'moody'";
    let configured = Configured::start(said).await;
    assert_eq!(configured.facts("/one").await["config"], json!({ "n": 1 }));

    configured.say(&said.replace("n = 1", "n = 2"));
    configured.eventually("/one", json!({ "n": 2 })).await;
    assert_eq!(configured.generation("one").await, 2);
    assert_eq!(configured.generation("two").await, 1);

    // The same configuration once more changes nothing, and a later change is still found.
    configured.say(&said.replace("n = 1", "n = 2"));
    configured.say(&said.replace("n = 1", "n = 3"));
    configured.eventually("/one", json!({ "n": 3 })).await;
    assert_eq!(configured.generation("one").await, 3);
    assert_eq!(configured.generation("two").await, 1);
}

#[tokio::test]
async fn apps_come_move_and_go() {
    let configured = Configured::start("").await;
    let host = &configured.host;
    host.answers("/moody", 200).await;

    configured.say("[app.one]\nplugin = 'moody'\n[app.two]\nplugin = 'moody'");
    host.answers("/one", 200).await;
    host.answers("/two", 200).await;
    host.answers("/moody", 404).await;

    // Each app takes the mount of the next one. The first by name takes a mount that is still in
    // use.
    configured.say(
        "[app.one]\nplugin = 'moody'\nmount = '/two'\n[app.two]\nplugin = 'moody'\nmount = '/three'",
    );
    host.answers("/three", 200).await;
    host.answers("/one", 404).await;
    eventually("one takes the place of two", async || {
        (configured.facts("/two").await["name"] == "one").then_some(())
    })
    .await;

    configured.say("");
    host.answers("/moody", 200).await;
    host.answers("/two", 404).await;
    host.answers("/three", 404).await;
}

#[tokio::test]
async fn a_wrong_configuration_changes_nothing() {
    let said =
        "[app.one]\nplugin = 'moody'\nmount = '/a'\n[app.two]\nplugin = 'moody'\nmount = '/b'";
    let configured = Configured::start(said).await;
    let host = &configured.host;
    host.answers("/a", 200).await;
    host.answers("/b", 200).await;
    configured.say(&said.replace("/b", "/a"));
    host.log()
        .eventually(&["ERROR", "not read again", "mounted twice"])
        .await;
    assert_eq!(host.get("/b").await.status, 200);
    assert_eq!(configured.generation("one").await, 1);
}

/// A host that serves one plugin, with a configuration file.
struct Configured {
    host: Host,
    ctl: Ctl,
    file: PathBuf,
}

impl Configured {
    async fn start(said: &str) -> Self {
        let ctl = Ctl::new();
        let setup = Setup::new().library(FILE, &of("v1")).arg(ctl.option());
        let file = setup.folder().join("host.toml");
        fs::write(&file, said).unwrap();
        let host = setup.arg("--config").arg(&file).start().await;
        Self { host, ctl, file }
    }

    /// Replaces the text of the file, and sends SIGHUP.
    fn say(&self, said: &str) {
        // Replace the file by a rename, because the host may be reading it after the previous
        // signal.
        let next = self.file.with_extension("next");
        fs::write(&next, said).unwrap();
        fs::rename(next, &self.file).unwrap();
        self.host.signal(Signal::HUP);
    }

    /// Returns the configuration that an app reports, or an empty text if no app answers.
    async fn facts(&self, mount: &str) -> Value {
        let reply = self.host.get(&format!("{mount}/facts")).await;
        serde_json::from_slice(&reply.body).unwrap_or_default()
    }

    async fn eventually(&self, mount: &str, config: Value) {
        eventually("the new configuration", async || {
            (self.facts(mount).await["config"] == config).then_some(())
        })
        .await;
    }

    async fn generation(&self, name: &str) -> Value {
        self.ctl.app(name).await["serving"]["generation"].clone()
    }
}
