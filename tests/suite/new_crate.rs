//! `host new`, and the crates that it writes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use host_tests::{Workbench, host_command};

const TEMPLATES: [&str; 4] = ["axum", "native", "websocket", "grpc"];

#[test]
fn every_template_is_formatted_builds_and_passes_its_tests_as_plugin_and_as_program() {
    let bench = Workbench::new("templates");
    for template in TEMPLATES {
        let name = format!("new-{template}");
        let output = new(bench.path(), &[&name, "--template", template]);
        assert!(output.status.success(), "{output:?}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(stdout.contains(&format!("`host dev {name}`")), "{stdout}");
        assert!(stdout.contains("as member of workspace"), "{stdout}");
    }
    bench.cargo(&["fmt", "--all", "--check"]);
    let features = TEMPLATES.map(|template| format!("new-{template}/standalone"));
    let features = format!("--features={}", features.join(","));
    bench.cargo(&["test", "--quiet", "--workspace", &features]);
    // `cargo test` has compiled the plugins, but only `cargo build` writes their libraries into the target folder.
    bench.cargo(&["build", "--quiet", "--workspace", &features]);
    for template in TEMPLATES {
        let library = bench.target().join(format!("debug/libnew_{template}.so"));
        let output = host_command().arg("check").arg(library).output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{stdout}");
        assert!(stdout.contains(&format!("new-{template}")), "{stdout}");
    }
}

#[test]
fn nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("shop")).unwrap();
    let output = new(folder.path(), &["shop"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("shop exists already"), "{stderr}");
    assert_eq!(fs::read_dir(folder.path().join("shop")).unwrap().count(), 0);
}

#[test]
fn a_name_that_no_app_has_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, reason) in [
        ("a shop", "expected up to 64 ASCII letters"),
        ("fn", "cargo did not make the package"),
    ] {
        let output = new(folder.path(), &[name]);
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(reason), "{stderr}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn plugin_api_comes_from_where_the_author_says() {
    let folder = tempfile::tempdir().unwrap();
    let git = r#"{ git = "https://example.org/host" }"#;
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let path = repository.join("plugin-api");
    for (name, spec, dependency) in [
        (
            "of-git",
            git,
            r#"host-plugin-api = { git = "https://example.org/host" }"#.to_owned(),
        ),
        (
            "of-folder",
            path.to_str().unwrap(),
            format!("host-plugin-api = {{ path = {path:?} }}"),
        ),
    ] {
        let output = new(folder.path(), &[name, "--plugin-api", spec]);
        assert!(output.status.success(), "{output:?}");
        let manifest = fs::read_to_string(folder.path().join(name).join("Cargo.toml")).unwrap();
        assert!(manifest.contains(&dependency), "{manifest}");
    }
    let output = new(folder.path(), &["shop", "--plugin-api", "nowhere"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("--plugin-api nowhere has no Cargo.toml"),
        "{stderr}"
    );
    assert!(!folder.path().join("shop").exists());
}

#[test]
fn a_crate_in_the_repository_uses_its_plugin_api() {
    // A temporary workspace with the same packages, because `host new` would change the manifest of the real
    // repository.
    let folder = tempfile::tempdir().unwrap();
    for package in ["host", "plugin-api"] {
        let path: PathBuf = folder.path().join(package);
        fs::create_dir_all(path.join("src")).unwrap();
        fs::write(path.join("src/lib.rs"), "").unwrap();
        let manifest = format!("[package]\nname = {package:?}\nedition = \"2024\"\n");
        fs::write(path.join("Cargo.toml"), manifest).unwrap();
    }
    let workspace = "[workspace]\nresolver = \"3\"\nmembers = [\"host\", \"plugin-api\"]\n";
    fs::write(folder.path().join("Cargo.toml"), workspace).unwrap();
    let output = new(folder.path(), &["plugins/shop"]);
    assert!(output.status.success(), "{output:?}");
    let manifest = fs::read_to_string(folder.path().join("plugins/shop/Cargo.toml")).unwrap();
    assert!(
        manifest.contains(r#"{ path = "../../plugin-api" }"#),
        "{manifest}"
    );
    let workspace = fs::read_to_string(folder.path().join("Cargo.toml")).unwrap();
    assert!(workspace.contains("plugins/shop"), "{workspace}");
}

/// Runs `host new` in a folder. `host_command` sets the cache folder of the tests.
fn new(folder: &Path, args: &[&str]) -> Output {
    host_command()
        .arg("new")
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap()
}
