//! Finds the programs and libraries under test: the host and the plugins. Cargo builds them if they are missing or out
//! of date.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

/// Returns the path of the host's program. `HOST_TEST_HOST` may name a program that was built in another way, as in
/// `scripts/release`.
///
/// # Panics
///
/// Panics if the host cannot be built.
#[must_use]
pub fn host() -> &'static Path {
    static HOST: LazyLock<PathBuf> = LazyLock::new(|| match env::var_os("HOST_TEST_HOST") {
        // A relative path would not work, because tests have other working directories.
        Some(host) => fs::canonicalize(&host).expect("HOST_TEST_HOST names a host"),
        None => find(&build(&["--package=host-server"]), "host"),
    });
    &HOST
}

/// Returns the path of the library of an example plugin or a fixture. `HOST_TEST_PLUGINS` may name a folder with
/// libraries that were built in another way. It must then contain all of them.
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
    find(&PLUGINS, name)
}

/// Returns the `.rlib` of a dependency of the plugins, such as `axum`, for `rustc --extern`. The crate's own
/// dependencies are in the same folder.
#[must_use]
pub fn crate_of_plugins(name: &str) -> PathBuf {
    find(&PLUGINS, name)
}

/// The example plugins, the fixtures, and their dependencies.
static PLUGINS: LazyLock<Artifacts> = LazyLock::new(|| {
    // Build the plugins in a separate run of Cargo: in one run with the host, Cargo would enable the host's features of
    // shared crates for the plugins too.
    let packages: Vec<_> = ["plugins", "tests/fixtures"]
        .into_iter()
        .flat_map(packages)
        .collect();
    build(&packages.iter().map(String::as_str).collect::<Vec<_>>())
});

/// Returns the library of the fixture that is built with `panic = "abort"`.
pub(crate) fn aborting_plugin() -> PathBuf {
    static ABORTING: LazyLock<Artifacts> = LazyLock::new(|| {
        let profile = ["inherits='dev'", "panic='abort'"]
            .map(|setting| format!("--config=profile.panic-abort.{setting}"));
        build(&[
            "--package=abort",
            "--profile=panic-abort",
            &profile[0],
            &profile[1],
        ])
    });
    find(&ABORTING, "abort")
}

/// Returns the library of the fixture whose `tracing` has the feature `log-always`. The fixture is built in a separate
/// run of Cargo, because otherwise Cargo would enable the feature for the other plugins too.
pub(crate) fn plugin_with_log_always() -> PathBuf {
    static LOG_ALWAYS: LazyLock<Artifacts> = LazyLock::new(|| build(&["--package=log_always"]));
    find(&LOG_ALWAYS, "log_always")
}

/// Returns a folder for temporary files from which libraries and programs can be loaded. Not in `/tmp`, because `/tmp`
/// may be mounted noexec.
pub(crate) fn temporary_folder() -> PathBuf {
    let folder = host().with_file_name("host-tests");
    fs::create_dir_all(&folder).expect("the target folder is writable");
    folder
}

/// The files that Cargo has built, by the names of their targets.
type Artifacts = BTreeMap<String, PathBuf>;

fn find(artifacts: &Artifacts, name: &str) -> PathBuf {
    artifacts
        .get(name)
        .unwrap_or_else(|| panic!("there is no {name} among {:?}", artifacts.keys()))
        .clone()
}

/// Returns an option `--package` of Cargo for each package in a folder of the workspace, except `log_always`.
fn packages(folder: &str) -> Vec<String> {
    let folder = workspace().join(folder);
    let entries = fs::read_dir(&folder).expect("the folder is in the repository");
    let paths = entries.map(|entry| entry.expect("the folder is readable").path());
    paths
        .filter(|path| path.join("Cargo.toml").is_file() && !path.ends_with("log_always"))
        .filter_map(|path| Some(format!("--package={}", path.file_name()?.to_str()?)))
        .collect()
}

/// Runs `cargo build`, and returns the files that it reports. Several test processes may call this at the same time,
/// because Cargo locks the target folder.
fn build(args: &[&str]) -> Artifacts {
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

/// Returns the name and the file of the program or library that a message of Cargo reports.
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

/// Returns the Cargo profile of this test program, so that host and plugins are built with the same profile. The path
/// of the program is `target/PROFILE/deps/suite-HASH`.
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
