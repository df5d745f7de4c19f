//! A folder for crates that a test makes and builds, as an author does.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use crate::artifacts;

/// A workspace of a test's own, empty at first. What Cargo builds for it is kept from run to run, and
/// shared by all: each crate needs a name that no other test uses.
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
        let path = root().join(name);
        if path.exists() {
            fs::remove_dir_all(&path).expect("the folder is the test's own");
        }
        fs::create_dir_all(&path).expect("the folder for temporary files is writable");
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        fs::write(path.join("Cargo.toml"), WORKSPACE).expect("the folder is writable");
        // The versions that this repository has are on the machine, and there is no registry to ask.
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
        target()
    }

    /// Makes a crate by `host new`, and gives its folder.
    ///
    /// # Panics
    ///
    /// When there is none then.
    pub fn new_crate(&self, name: &str, template: &str) -> PathBuf {
        let mut host = host_command();
        host.args(["new", name, "--template", template]);
        let output = host.current_dir(&self.path).output();
        let output = output.expect("cargo built the host");
        assert!(output.status.success(), "{output:?}");
        self.path.join(name)
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
        .env("CARGO_TARGET_DIR", target())
        .env("XDG_CACHE_HOME", root().join("cache"));
    command
}

/// Where crates are kept from run to run: not in this repository, whose workspace they are no part of.
fn root() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    artifacts::temporary().hash(&mut hasher);
    env::temp_dir().join(format!("host-tests-{:x}", hasher.finish()))
}

/// Where Cargo builds them: in the target folder of this repository, from which libraries can be loaded.
fn target() -> PathBuf {
    artifacts::temporary().with_file_name("host-tests-crates")
}

const WORKSPACE: &str = "[workspace]\nresolver = \"3\"\nmembers = []\n";
