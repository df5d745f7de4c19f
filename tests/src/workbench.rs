//! A workspace in which a test makes and builds crates, as an author does.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use crate::artifacts;

/// The workspace of one test, empty at first. All tests share a target folder, which stays from run
/// to run, so each crate needs a name that no other test uses.
#[derive(Debug)]
pub struct Workbench {
    path: PathBuf,
}

impl Workbench {
    /// Makes the folder of this name, or empties it.
    ///
    /// # Panics
    ///
    /// When the folder cannot be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let path = root().join(name);
        if path.exists() {
            fs::remove_dir_all(&path).expect("the folder is the test's own");
        }
        fs::create_dir_all(&path).expect("the folder for temporary files is writable");
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        fs::write(path.join("Cargo.toml"), WORKSPACE).expect("the folder is writable");
        // Use this repository's lock file: the crates of these versions have been downloaded, and
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

    /// Makes a crate with `host new`, and returns its folder.
    ///
    /// # Panics
    ///
    /// When `host new` fails.
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
    /// When Cargo fails.
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

/// Returns a command that runs the host like an author on a fresh machine. Only the dependencies
/// are built already.
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
        // Debug information would make the builds slower.
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only")
        .env("CARGO_TARGET_DIR", target())
        .env("XDG_CACHE_HOME", root().join("cache"));
    command
}

/// Returns the folder of all workspaces. It lies outside of the repository, because Cargo would
/// take the crates for members of the repository's workspace.
fn root() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    artifacts::temporary().hash(&mut hasher);
    env::temp_dir().join(format!("host-tests-{:x}", hasher.finish()))
}

/// Returns the target folder for all workspaces. It lies in the target folder of the repository,
/// because libraries can be loaded from there.
fn target() -> PathBuf {
    artifacts::temporary().with_file_name("host-tests-crates")
}

const WORKSPACE: &str = "[workspace]\nresolver = \"3\"\nmembers = []\n";
