//! Records the compiler and target of the build, for the manifest, and where the sources of the package are, for the
//! build script of `host`. And freezes what abi_stable takes from the package for the gate.

use std::{env, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(folder) = env::var("CARGO_MANIFEST_DIR") {
        // Cargo passes this on to packages that depend on this one, as DEP_HOST_PLUGIN_API_SOURCES.
        println!("cargo:sources={folder}");
    }
    // abi_stable compares the name and the version of the package that has the root module, as the compiler is told them. They
    // are a part of the ABI, frozen with `abi::v1`: another name or version of this package must not refuse older plugins.
    println!("cargo:rustc-env=CARGO_PKG_NAME=plugin-api");
    println!("cargo:rustc-env=CARGO_PKG_VERSION=0.1.0");
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(compiler)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned());
    println!("cargo:rustc-env=PLUGIN_API_RUSTC={version}");
    let target = env::var("TARGET").unwrap_or_else(|_| "unknown".to_owned());
    println!("cargo:rustc-env=PLUGIN_API_TARGET={target}");
}
