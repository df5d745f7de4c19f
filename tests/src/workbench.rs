//! A folder for crates that a test makes and builds, as an author does.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::artifacts;

/// A folder of a test's own in the target folder, empty at first. What Cargo builds there is kept
/// from run to run, and shared by all: each crate needs a name that no other test uses.
#[derive(Debug)]
pub struct Workbench {
    path: PathBuf,
}

impl Workbench {
    /// The folder of this name.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let path = root().join("crates").join(name);
        if path.exists() {
            fs::remove_dir_all(&path).expect("the folder is the test's own");
        }
        fs::create_dir_all(&path).expect("the target folder is writable");
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        // The versions that this workspace has are on the machine, and there is no registry to ask.
        fs::copy(lock, path.join("Cargo.lock")).expect("the workspace has a lock file");
        Self { path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where Cargo builds.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        root().join("target")
    }

    /// Runs Cargo there.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn cargo(&self, args: &[&str]) {
        let mut cargo = author_command("cargo");
        let output = cargo.args(args).current_dir(&self.path).output();
        let output = output.expect("cargo can be run");
        assert!(
            output.status.success(),
            "cargo {args:?} failed:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
    }
}

/// The host, as an author calls it who has never used it before, but for what is built already.
#[must_use]
pub fn host_command() -> Command {
    author_command(artifacts::host())
}

fn author_command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if ["HOST_", "RUST_", "CARGO_PKG_", "CARGO_MANIFEST_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            command.env_remove(&*name);
        }
    }
    command
        .env("CARGO_NET_OFFLINE", "true")
        // Less to build.
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only")
        .env("CARGO_TARGET_DIR", root().join("target"))
        .env("XDG_CACHE_HOME", root().join("cache"));
    command
}

/// The folder in the target folder that is kept from run to run.
fn root() -> PathBuf {
    artifacts::temporary().with_file_name("host-tests-crates")
}
