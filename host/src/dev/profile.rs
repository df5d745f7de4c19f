//! Options of Cargo that make builds faster without a change of the author's manifest: settings of the `dev` profile
//! for this session only, and a fast linker if one is installed.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Options of Cargo that make builds faster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BuildProfile {
    /// The linker to use, or `None` for the compiler's default.
    linker: Option<Linker>,
}

/// A linker that is faster than the compiler's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Linker {
    Mold,
}

impl BuildProfile {
    /// Searches PATH for a fast linker. Leaves the linker at its default if the author has chosen a linker or compiler
    /// flags for the workspace at `root`.
    pub(super) fn find(root: &Path) -> Self {
        let is_chosen = chooses_linker(root)
            || FLAG_VARIABLES
                .iter()
                .any(|name| env::var_os(name).is_some());
        let is_installed = env::var_os("PATH").is_some_and(|path| {
            env::split_paths(&path).any(|folder| folder.join("mold").is_file())
        });
        Self {
            linker: (is_installed && !is_chosen).then_some(Linker::Mold),
        }
    }

    /// Returns the options for Cargo's command line.
    pub(super) fn options(&self) -> Vec<String> {
        let mut options = PROFILE_SETTINGS
            .map(|setting| format!("--config=profile.dev.{setting}"))
            .to_vec();
        if let Some(Linker::Mold) = self.linker {
            options.push(MOLD_OPTION.to_owned());
        }
        options
    }
}

/// Returns whether a configuration file of Cargo chooses a linker or compiler flags. Cargo reads such files in `root`,
/// in the folders above, and in Cargo's home. If several sources set flags, Cargo uses only one of them (The Cargo
/// Book, Configuration: `build.rustflags`), so the session's flags would replace the author's.
fn chooses_linker(root: &Path) -> bool {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let folders = root
        .ancestors()
        .map(|folder| folder.join(".cargo"))
        .chain(home);
    // Cargo still reads the old file name `config` without an extension.
    let files = folders.flat_map(|folder| [folder.join("config.toml"), folder.join("config")]);
    let texts = files.filter_map(|file| fs::read_to_string(file).ok());
    // A search for the words is enough: after a false match the session only uses the default linker.
    texts
        .into_iter()
        .any(|text| text.contains("rustflags") || text.contains("linker"))
}

/// Settings of the profile `dev`. Backtraces need only line numbers. The full debug information would make a library
/// several times as large, and the linker and each swap would have to write all of it.
const PROFILE_SETTINGS: [&str; 3] = [
    "debug=\"line-tables-only\"",
    "package.\"*\".debug=false",
    "build-override.debug=false",
];

/// The option that selects mold for Linux targets.
const MOLD_OPTION: &str =
    "--config=target.'cfg(target_os = \"linux\")'.rustflags=[\"-Clink-arg=-fuse-ld=mold\"]";

/// Environment variables that set compiler flags. Cargo would use these flags and ignore the session's.
const FLAG_VARIABLES: [&str; 3] = [
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
