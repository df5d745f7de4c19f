//! The control socket of a host, used by `host ctl` as an operator does.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::task;

use crate::{artifacts, eventually, within};

/// The control socket of one host.
#[derive(Debug)]
pub struct Ctl(TempDir);

impl Ctl {
    /// Returns a new socket in the system's folder for temporary files, because the path of a
    /// socket must be short.
    ///
    /// # Panics
    ///
    /// When the folder cannot be made.
    #[must_use]
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("there is a folder for temporary files"))
    }

    /// Returns the option `--control` for the host and for `host ctl`.
    #[must_use]
    pub fn option(&self) -> String {
        format!("--control=unix:{}", self.path().display())
    }

    /// Returns the path of the socket.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.path().join("ctl")
    }

    /// Runs `host ctl ARGS`. Returns the exit code, stdout and stderr.
    pub async fn ask(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args).await;
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).trim_end().to_owned();
        (output.status.code().unwrap_or(-1), printed)
    }

    /// Returns the answer to `host ctl ARGS --json`.
    ///
    /// # Panics
    ///
    /// When the host does not do what is asked.
    pub async fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat()).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// Returns the output of `host ctl ARGS`.
    ///
    /// # Panics
    ///
    /// When the host does not do what is asked.
    pub async fn text(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns the error that `host ctl ARGS` prints.
    ///
    /// # Panics
    ///
    /// When the host does what is asked.
    pub async fn refusal(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        assert!(!output.status.success(), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Returns the report of an app in `ctl plugins`.
    pub async fn app(&self, name: &str) -> Value {
        let report = self.json(&["plugins"]).await;
        let apps = report["apps"].as_array().cloned().unwrap_or_default();
        apps.into_iter()
            .find(|app| app["name"] == name)
            .unwrap_or_default()
    }

    /// Waits until the report of an app in `ctl plugins` fulfils a condition, and returns the
    /// report.
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
        // clap accepts the options at any place, so they can follow the arguments.
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
