//! Packs the sources of `plugin-api` into the program: `host new` unpacks them, so that a new crate
//! builds where there is nothing but Rust, a C compiler and the program.
//!
//! The archive is JSON, an object of file contents by path, compressed with gzip.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fs::{self, File},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use toml::{Table, Value};

fn main() -> Result<(), Box<dyn Error>> {
    // The package that this one is built with, be it of the workspace, of a registry, or vendored.
    let package = PathBuf::from(env::var("DEP_HOST_PLUGIN_API_SOURCES")?);
    for input in ["Cargo.toml", "build.rs"] {
        println!("cargo:rerun-if-changed={}", package.join(input).display());
    }
    println!("cargo:rerun-if-changed={}", package.join("src").display());
    println!("cargo:rerun-if-changed=build.rs");

    let mut files = BTreeMap::new();
    let manifest = standalone(
        fs::read_to_string(package.join("Cargo.toml"))?.parse()?,
        &workspace(&package)?,
    )?;
    files.insert("Cargo.toml".to_owned(), manifest.to_string());
    files.insert(
        "build.rs".to_owned(),
        fs::read_to_string(package.join("build.rs"))?,
    );
    collect(&package.join("src"), "src", &mut files)?;

    let archive = Path::new(&env::var("OUT_DIR")?).join("plugin-api.json.gz");
    let mut archive = GzEncoder::new(File::create(archive)?, Compression::best());
    serde_json::to_writer(&mut archive, &files)?;
    archive.finish()?;
    Ok(())
}

/// The manifest of the workspace that a package is in. A package of a registry is in none, and inherits
/// nothing.
fn workspace(package: &Path) -> Result<Table, Box<dyn Error>> {
    let path = package.join("../Cargo.toml");
    if !path.is_file() {
        return Ok(Table::new());
    }
    println!("cargo:rerun-if-changed={}", path.display());
    Ok(fs::read_to_string(path)?.parse()?)
}

/// Adds the files of a folder, below `name` in the archive.
fn collect(
    folder: &Path,
    name: &str,
    files: &mut BTreeMap<String, String>,
) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let file = path.file_name().and_then(|file| file.to_str());
        let name = format!("{name}/{}", file.ok_or("a file name is not UTF-8")?);
        if path.is_dir() {
            collect(&path, &name, files)?;
        } else {
            files.insert(name, fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// The manifest of a package as it is outside of its workspace: values that it inherits are in their
/// places, and tests, examples and lints, which authors do not run, are gone. Cargo does the same
/// for a package that it publishes.
fn standalone(mut manifest: Table, workspace: &Table) -> Result<Table, Box<dyn Error>> {
    let shared = |key: &str| {
        let shared = workspace.get("workspace").and_then(|table| table.get(key));
        shared.ok_or_else(|| format!("Cargo.toml has no workspace.{key}"))
    };
    for key in ["bench", "dev-dependencies", "example", "lints", "test"] {
        manifest.remove(key);
    }
    if let Some(Value::Table(package)) = manifest.get_mut("package") {
        for (key, value) in package.iter_mut() {
            if is_inherited(value) {
                let shared = shared("package")?.get(key);
                *value = shared
                    .ok_or_else(|| format!("no workspace.package.{key}"))?
                    .clone();
            }
        }
    }
    if let Some(Value::Table(dependencies)) = manifest.get_mut("dependencies") {
        for (name, dependency) in dependencies.iter_mut() {
            if is_inherited(dependency) {
                let shared = shared("dependencies")?.get(name);
                let shared = shared.ok_or_else(|| format!("no workspace.dependencies.{name}"))?;
                *dependency = inherit(dependency, shared);
            }
        }
    }
    Ok(manifest)
}

fn is_inherited(value: &Value) -> bool {
    value.get("workspace").and_then(Value::as_bool) == Some(true)
}

/// A dependency with what its workspace says of it: features of both are turned on.
fn inherit(dependency: &Value, shared: &Value) -> Value {
    let mut merged = match shared {
        Value::Table(table) => table.clone(),
        version => Table::from_iter([("version".to_owned(), version.clone())]),
    };
    let features = |value: &Value| {
        let features = value.get("features").and_then(Value::as_array);
        features.cloned().unwrap_or_default()
    };
    let all: Vec<_> = features(shared)
        .into_iter()
        .chain(features(dependency))
        .collect();
    for (key, value) in dependency.as_table().into_iter().flatten() {
        if key != "workspace" {
            merged.insert(key.clone(), value.clone());
        }
    }
    if !all.is_empty() {
        merged.insert("features".to_owned(), Value::Array(all));
    }
    Value::Table(merged)
}
