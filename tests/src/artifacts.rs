//! What the tests run: the host and the plugins, built by Cargo when they are missing or old.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

/// The host. `HOST_TEST_HOST` may name one that was built otherwise, as `scripts/release` does.
///
/// # Panics
///
/// When it cannot be built.
#[must_use]
pub fn host() -> &'static Path {
    static HOST: LazyLock<PathBuf> = LazyLock::new(|| match env::var_os("HOST_TEST_HOST") {
        // Tests have folders of their own.
        Some(host) => fs::canonicalize(&host).expect("HOST_TEST_HOST names a host"),
        None => take(&build(&["--package=host"]), "host"),
    });
    &HOST
}

/// The library of an example plugin or a fixture. `HOST_TEST_PLUGINS` may name a folder of those that the tests need, and that
/// were built otherwise.
pub(crate) fn plugin(name: &str) -> PathBuf {
    if let Some(folder) = env::var_os("HOST_TEST_PLUGINS") {
        let library = Path::new(&folder).join(format!("lib{name}.so"));
        assert!(
            library.is_file(),
            "HOST_TEST_PLUGINS has no {}",
            library.display()
        );
        return library;
    }
    take(&PLUGINS, name)
}

/// A crate that the plugins are compiled with, such as `axum`: the file that `rustc --extern` takes. What the crate
/// needs itself is in the same folder.
#[must_use]
pub fn crate_of_plugins(name: &str) -> PathBuf {
    take(&PLUGINS, name)
}

/// The example plugins and the fixtures.
static PLUGINS: LazyLock<Built> = LazyLock::new(|| {
    // Apart from the host: what it needs of a shared crate would be turned on for the plugins as well.
    let packages: Vec<_> = ["plugins", "tests/fixtures"]
        .into_iter()
        .flat_map(packages)
        .collect();
    build(&packages.iter().map(String::as_str).collect::<Vec<_>>())
});

/// The library of a fixture that is built with `panic = "abort"`.
pub(crate) fn aborting_plugin() -> PathBuf {
    static ABORTING: LazyLock<Built> = LazyLock::new(|| {
        let profile = ["inherits='dev'", "panic='abort'"]
            .map(|setting| format!("--config=profile.panic-abort.{setting}"));
        build(&[
            "--package=abort",
            "--profile=panic-abort",
            &profile[0],
            &profile[1],
        ])
    });
    take(&ABORTING, "abort")
}

/// The library of a fixture whose `tracing` has the feature `log-always`: built alone, as the others would have the
/// feature as well.
pub(crate) fn plugin_with_log_always() -> PathBuf {
    static BUILT: LazyLock<Built> = LazyLock::new(|| build(&["--package=log_always"]));
    take(&BUILT, "log_always")
}

/// A folder for temporary files, on a file system that programs are run from, as `/tmp` need not be.
pub(crate) fn temporary() -> PathBuf {
    let folder = host().with_file_name("host-tests");
    fs::create_dir_all(&folder).expect("the target folder is writable");
    folder
}

/// The files that Cargo built, by the names of their targets.
type Built = BTreeMap<String, PathBuf>;

fn take(built: &Built, name: &str) -> PathBuf {
    built
        .get(name)
        .unwrap_or_else(|| panic!("there is no {name} among {:?}", built.keys()))
        .clone()
}

/// An option of Cargo for each package in a folder of the workspace.
fn packages(folder: &str) -> Vec<String> {
    let folder = workspace().join(folder);
    let entries = fs::read_dir(&folder).expect("the folder is in the repository");
    let paths = entries.map(|entry| entry.expect("the folder is readable").path());
    paths
        .filter(|path| path.join("Cargo.toml").is_file() && !path.ends_with("log_always"))
        .filter_map(|path| Some(format!("--package={}", path.file_name()?.to_str()?)))
        .collect()
}

/// Runs `cargo build`. Several processes may do so at once: Cargo lets one after the other.
fn build(args: &[&str]) -> Built {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).args([
        "build",
        "--quiet",
        "--message-format=json-render-diagnostics",
    ]);
    if !args.iter().any(|arg| arg.starts_with("--profile")) {
        cargo.arg(format!("--profile={}", profile()));
    }
    let output = cargo
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be run");
    assert!(
        output.status.success(),
        "cargo build {} failed",
        args.join(" ")
    );
    let text = String::from_utf8(output.stdout).expect("cargo prints text");
    text.lines().filter_map(artifact).collect()
}

/// A program or library that a message of Cargo tells of.
fn artifact(message: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let name = message["target"]["name"].as_str()?;
    let files = message["filenames"].as_array()?;
    let file = |end| {
        let mut files = files.iter().filter_map(|file| file.as_str());
        files.find(|file| file.ends_with(end))
    };
    let library = file(".so").or_else(|| file(".rlib"));
    let file = message["executable"].as_str().or(library)?;
    Some((name.to_owned(), file.into()))
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is a folder in the workspace")
}

/// The profile that this test was built with: it is `target/PROFILE/deps/suite-HASH`.
fn profile() -> String {
    let program = env::current_exe().expect("the test knows its path");
    let profile = program
        .ancestors()
        .nth(2)
        .and_then(Path::file_name)
        .and_then(|name| name.to_str());
    match profile {
        Some("debug") | None => "dev".to_owned(),
        Some(profile) => profile.to_owned(),
    }
}
