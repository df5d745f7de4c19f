//! The build script of the package. Sets environment variables for the compilation:
//!
//! - the compiler and the target, which the manifest of a plugin contains,
//! - the name and the version of the package as abi_stable compares them, which are frozen.
//!
//! Also passes the folder of this package's sources to the build script of `host`.

use std::{env, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(folder) = env::var("CARGO_MANIFEST_DIR") {
        // Cargo passes this value to the build scripts of dependent packages, as DEP_HOST_PLUGIN_API_SOURCES.
        println!("cargo:sources={folder}");
    }
    // abi_stable compares the name and the version of the package that contains the root module, and reads both from
    // these variables at compile time. The values are part of the ABI and frozen together with `abi::v1`. Otherwise the
    // host would reject older plugins after this package gets another name or version.
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
