//! The configuration of apps, changed while the server runs (SIGHUP).

use std::{fs, path::PathBuf};

use host_tests::{Ctl, Host, Setup, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::moody::{FILE, library};

#[tokio::test]
async fn an_app_gets_its_new_configuration_and_others_are_left_alone() {
    let tables = "[app.one]\nplugin = 'moody'\nconfig = { n = 1 }\n[app.two]\nplugin = 'moody'";
    let configured = ConfiguredHost::start(tables).await;
    assert_eq!(configured.facts("/one").await["config"], json!({ "n": 1 }));

    configured.configure(&tables.replace("n = 1", "n = 2"));
    configured.eventually("/one", json!({ "n": 2 })).await;
    assert_eq!(configured.generation("one").await, 2);
    assert_eq!(configured.generation("two").await, 1);

    // The same configuration once more changes nothing, and a later change is still found.
    configured.configure(&tables.replace("n = 1", "n = 2"));
    configured.configure(&tables.replace("n = 1", "n = 3"));
    configured.eventually("/one", json!({ "n": 3 })).await;
    assert_eq!(configured.generation("one").await, 3);
    assert_eq!(configured.generation("two").await, 1);
}

#[tokio::test]
async fn apps_come_move_and_go() {
    let configured = ConfiguredHost::start("").await;
    let host = &configured.host;
    host.answers("/moody", 200).await;

    configured.configure("[app.one]\nplugin = 'moody'\n[app.two]\nplugin = 'moody'");
    host.answers("/one", 200).await;
    host.answers("/two", 200).await;
    host.answers("/moody", 404).await;

    // `one` gets the mount of `two` and `two` gets another mount, so `one` gets a mount that is still in use.
    configured.configure(
        "[app.one]\nplugin = 'moody'\nmount = '/two'\n[app.two]\nplugin = 'moody'\nmount = '/three'",
    );
    host.answers("/three", 200).await;
    host.answers("/one", 404).await;
    eventually("one takes the place of two", async || {
        (configured.facts("/two").await["name"] == "one").then_some(())
    })
    .await;

    configured.configure("");
    host.answers("/moody", 200).await;
    host.answers("/two", 404).await;
    host.answers("/three", 404).await;
}

#[tokio::test]
async fn a_wrong_configuration_changes_nothing() {
    let tables =
        "[app.one]\nplugin = 'moody'\nmount = '/a'\n[app.two]\nplugin = 'moody'\nmount = '/b'";
    let configured = ConfiguredHost::start(tables).await;
    let host = &configured.host;
    host.answers("/a", 200).await;
    host.answers("/b", 200).await;
    configured.configure(&tables.replace("/b", "/a"));
    host.log()
        .eventually(&["ERROR", "not reloaded", "mounted twice"])
        .await;
    assert_eq!(host.get("/b").await.status, 200);
    assert_eq!(configured.generation("one").await, 1);
}

/// A host with the fixture `moody` and a configuration file.
struct ConfiguredHost {
    host: Host,
    ctl: Ctl,
    /// The path of the configuration file.
    file: PathBuf,
}

impl ConfiguredHost {
    /// Starts the host with these tables of apps in its configuration file.
    async fn start(tables: &str) -> Self {
        let ctl = Ctl::new();
        let setup = Setup::new().library(FILE, &library("v1")).arg(ctl.option());
        let file = setup.folder().join("host.toml");
        fs::write(&file, tables).unwrap();
        let host = setup.arg("--config").arg(&file).start().await;
        Self { host, ctl, file }
    }

    /// Replaces the text of the file, and sends SIGHUP.
    fn configure(&self, tables: &str) {
        // Replace the file by a rename, because the host may be reading it after the previous
        // signal.
        let next = self.file.with_extension("next");
        fs::write(&next, tables).unwrap();
        fs::rename(next, &self.file).unwrap();
        self.host.signal(Signal::HUP);
    }

    /// Returns the facts that the app at the mount reports about itself: name, mount and configuration. Returns
    /// `Value::Null` if no app answers.
    async fn facts(&self, mount: &str) -> Value {
        let reply = self.host.get(&format!("{mount}/facts")).await;
        serde_json::from_slice(&reply.body).unwrap_or_default()
    }

    /// Waits until the app at the mount reports this configuration.
    async fn eventually(&self, mount: &str, config: Value) {
        eventually("the new configuration", async || {
            (self.facts(mount).await["config"] == config).then_some(())
        })
        .await;
    }

    /// Returns the number of the generation of the app that serves.
    async fn generation(&self, name: &str) -> Value {
        self.ctl.app(name).await["serving"]["generation"].clone()
    }
}
