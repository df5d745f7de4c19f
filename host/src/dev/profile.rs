//! Options that make builds fast without a change of the author's manifest: settings of the `dev`
//! profile for this session only, and a fast linker if one is installed.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Options of Cargo that make builds fast.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BuildProfile {
    /// The linker to use in place of the compiler's default.
    linker: Option<Linker>,
}

/// A linker that is faster than the compiler's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Linker {
    Mold,
}

impl BuildProfile {
    /// Looks for a fast linker on PATH, unless the author has chosen how to link the workspace at `root`.
    pub(super) fn find(root: &Path) -> Self {
        let is_chosen =
            chooses_linker(root) || VARIABLES.iter().any(|name| env::var_os(name).is_some());
        let found = env::var_os("PATH").is_some_and(|path| {
            env::split_paths(&path).any(|folder| folder.join("mold").is_file())
        });
        Self {
            linker: (found && !is_chosen).then_some(Linker::Mold),
        }
    }

    /// Returns the options for Cargo's command line.
    pub(super) fn options(&self) -> Vec<String> {
        let mut options = PROFILE
            .map(|setting| format!("--config=profile.dev.{setting}"))
            .to_vec();
        if let Some(Linker::Mold) = self.linker {
            options.push(MOLD.to_owned());
        }
        options
    }
}

/// Returns whether a configuration file of Cargo's, beside `root`, above it or in Cargo's home, chooses a
/// linker or compiler flags. Of several sources of flags Cargo takes only one (The Cargo Book,
/// Configuration: `build.rustflags`), so ours would replace the author's.
fn chooses_linker(root: &Path) -> bool {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let folders = root
        .ancestors()
        .map(|folder| folder.join(".cargo"))
        .chain(home);
    let files = folders.flat_map(|folder| [folder.join("config.toml"), folder.join("config")]);
    let texts = files.filter_map(|file| fs::read_to_string(file).ok());
    texts
        .into_iter()
        .any(|text| text.contains("rustflags") || text.contains("linker"))
}

/// Settings of the profile `dev`. Backtraces need line numbers only. The rest of the debug information
/// would be most of what the linker writes and of what each swap copies.
const PROFILE: [&str; 3] = [
    "debug=\"line-tables-only\"",
    "package.\"*\".debug=false",
    "build-override.debug=false",
];

/// The option that selects mold for Linux targets.
const MOLD: &str =
    "--config=target.'cfg(target_os = \"linux\")'.rustflags=[\"-Clink-arg=-fuse-ld=mold\"]";

/// Environment variables with compiler flags of the author's, which would replace ours.
const VARIABLES: [&str; 3] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linker_that_the_author_chose_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        assert!(!chooses_linker(root.path()));
        fs::create_dir(root.path().join(".cargo")).unwrap();
        let config = "[target.x86_64-unknown-linux-gnu]\nlinker = \"clang\"\n";
        fs::write(root.path().join(".cargo/config.toml"), config).unwrap();
        assert!(chooses_linker(root.path()));
        assert!(chooses_linker(&root.path().join("plugins/shop")));
    }
}
