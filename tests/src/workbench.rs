//! A Cargo workspace in which a test creates and builds crates, like an author.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use crate::artifacts;

/// The workspace of one test, empty at first. All tests share one target folder, also across runs of the tests, so that
/// dependencies are built only once. The name of each crate must therefore be unique among all tests.
#[derive(Debug)]
pub struct Workbench {
    path: PathBuf,
}

impl Workbench {
    /// Creates an empty workspace in the folder of this name. Files from an earlier run are removed.
    ///
    /// # Panics
    ///
    /// Panics if the folder cannot be created.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let path = root().join(name);
        if path.exists() {
            fs::remove_dir_all(&path).expect("the folder is the test's own");
        }
        fs::create_dir_all(&path).expect("the folder for temporary files is writable");
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        fs::write(path.join("Cargo.toml"), WORKSPACE).expect("the folder is writable");
        // The lock file of this repository, because Cargo has already downloaded the crates in these versions, and
        // tests must not need a registry.
        fs::copy(lock, path.join("Cargo.lock")).expect("the workspace has a lock file");
        Self { path }
    }

    /// Returns the path of the workspace.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the target folder.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        target()
    }

    /// Creates a crate with `host new`, and returns the folder of the crate.
    ///
    /// # Panics
    ///
    /// Panics if `host new` fails.
    pub fn new_crate(&self, name: &str, template: &str) -> PathBuf {
        let mut host = host_command();
        host.args(["new", name, "--template", template]);
        let output = host.current_dir(&self.path).output();
        let output = output.expect("cargo built the host");
        assert!(output.status.success(), "{output:?}");
        self.path.join(name)
    }

    /// Runs Cargo in the workspace.
    ///
    /// # Panics
    ///
    /// Panics if Cargo fails.
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

/// Returns a command that runs the host in the environment of an author: without the variables that Cargo and the tests
/// have set.
#[must_use]
pub fn host_command() -> Command {
    author_command(artifacts::host())
}

/// Returns a command that runs `program` in the environment of an author, with the shared target folder.
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
        // Full debug information would make the builds slower.
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only")
        .env("CARGO_TARGET_DIR", target())
        .env("XDG_CACHE_HOME", root().join("cache"));
    command
}

/// Returns the folder of all workspaces. The folder is outside of the repository, because Cargo would otherwise treat
/// the crates as members of the repository's workspace.
fn root() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    artifacts::temporary_folder().hash(&mut hasher);
    env::temp_dir().join(format!("host-tests-{:x}", hasher.finish()))
}

/// Returns the target folder of all workspaces. The folder is in the target folder of the repository, because libraries
/// can be loaded from there.
fn target() -> PathBuf {
    artifacts::temporary_folder().with_file_name("host-tests-crates")
}

const WORKSPACE: &str = "[workspace]\nresolver = \"3\"\nmembers = []\n";
