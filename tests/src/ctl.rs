//! The control socket of a host. Tests use it like an operator: with the command `host ctl`.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::task;

use crate::{artifacts, eventually, within};

/// The control socket of one host, in a folder of its own.
#[derive(Debug)]
pub struct Ctl(TempDir);

impl Ctl {
    /// Returns the path for a new control socket. The path is in the system's folder for temporary files, because the
    /// path of a Unix socket must be short.
    ///
    /// # Panics
    ///
    /// Panics if the folder cannot be created.
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

    /// Runs `host ctl ARGS`. Returns the exit code, and stdout and stderr as one text.
    pub async fn run(&self, args: &[&str]) -> (i32, String) {
        let output = self.output(args).await;
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).trim_end().to_owned();
        (output.status.code().unwrap_or(-1), printed)
    }

    /// Returns the JSON that `host ctl ARGS --json` prints.
    ///
    /// # Panics
    ///
    /// Panics if the command fails.
    pub async fn json(&self, args: &[&str]) -> Value {
        let output = self.output(&[args, &["--json"]].concat()).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    /// Returns the text that `host ctl ARGS` prints on stdout.
    ///
    /// # Panics
    ///
    /// Panics if the command fails.
    pub async fn text(&self, args: &[&str]) -> String {
        let output = self.output(args).await;
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns the error text that `host ctl ARGS` prints on stderr.
    ///
    /// # Panics
    ///
    /// Panics if the command succeeds.
    pub async fn refusal(&self, args: &[&str]) -> String {
        let output = self.output(args).await;
        assert!(!output.status.success(), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Returns the entry of an app in the output of `ctl plugins`. Returns JSON `null` if the app is not listed.
    pub async fn app(&self, name: &str) -> Value {
        let report = self.json(&["plugins"]).await;
        let apps = report["apps"].as_array().cloned().unwrap_or_default();
        apps.into_iter()
            .find(|app| app["name"] == name)
            .unwrap_or_default()
    }

    /// Waits until the [entry](Self::app) of an app satisfies `condition`, and returns the entry. `what` describes the
    /// condition in the panic after the time limit.
    pub async fn eventually(
        &self,
        what: &str,
        name: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(what, async || Some(self.app(name).await).filter(&condition)).await
    }

    async fn output(&self, args: &[&str]) -> Output {
        let mut command = Command::new(artifacts::host());
        // clap accepts options before and after the arguments.
        command.arg("ctl").args(args).arg(self.option());
        let output = task::spawn_blocking(move || command.output());
        let output = within("an answer of host ctl", output).await;
        output
            .expect("the task is not cancelled")
            .expect("cargo built the host")
    }
}

impl Default for Ctl {
    fn default() -> Self {
        Self::new()
    }
}
