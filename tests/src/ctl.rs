//! The control socket of a host, asked as an operator does: by `host ctl`.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::task;

use crate::{artifacts, eventually, within};

/// The way to the control socket of one host.
#[derive(Debug)]
pub struct Ctl(TempDir);

impl Ctl {
    /// A socket of its own, in the system's folder for temporary files: its path must be short.
    ///
    /// # Panics
    ///
    /// When there is no such folder.
    #[must_use]
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("there is a folder for temporary files"))
    }

    /// The option by which the host has it, and `host ctl` finds it.
    #[must_use]
    pub fn option(&self) -> String {
        format!("--control=unix:{}", self.path().display())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.path().join("ctl")
    }

    /// What `host ctl ARGS` prints, and its exit code.
    pub async fn ask(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args).await;
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).trim_end().to_owned();
        (output.status.code().unwrap_or(-1), printed)
    }

    /// The answer to `host ctl ARGS --json`.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub async fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat()).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// What `host ctl ARGS` prints.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub async fn text(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Why `host ctl ARGS` is refused.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub async fn refusal(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert!(!output.status.success(), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// What `ctl plugins` says of an app.
    pub async fn app(&self, name: &str) -> Value {
        let report = self.json(&["plugins"]).await;
        let apps = report["apps"].as_array().cloned().unwrap_or_default();
        apps.into_iter()
            .find(|app| app["name"] == name)
            .unwrap_or_default()
    }

    /// What `ctl plugins` says of an app, once it is so.
    pub async fn eventually(
        &self,
        what: &str,
        name: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(what, async || Some(self.app(name).await).filter(&is_so)).await
    }

    async fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(artifacts::host());
        // Options may stand anywhere.
        command.arg("ctl").args(args).arg(self.option());
        let output = task::spawn_blocking(move || command.output());
        let output = within("an answer of host ctl", output).await;
        output
            .expect("it is not cancelled")
            .expect("cargo built the host")
    }
}

impl Default for Ctl {
    fn default() -> Self {
        Self::new()
    }
}
