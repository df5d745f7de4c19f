//! What makes builds fast, without a word in the author's manifest: settings of the profile that hold
//! for the session only, and the fastest linker that is there.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Options of Cargo that make builds fast.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Speed {
    linker: Option<Linker>,
}

/// A linker that is faster than the compiler's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Linker {
    Mold,
}

impl Speed {
    /// What is there for a workspace at `root`.
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

    /// The options.
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

/// Whether a configuration file of Cargo's says how to link or to compile, which an option would
/// overrule or be overruled by (The Cargo Book, Configuration: `build.rustflags`).
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

/// Settings of the profile `dev`. Line numbers are enough for a backtrace; the rest of debug
/// information is most of what a linker writes, and of what is copied at each swap.
const PROFILE: [&str; 3] = [
    "debug=\"line-tables-only\"",
    "package.\"*\".debug=false",
    "build-override.debug=false",
];

/// Takes mold as the linker of what runs on Linux.
const MOLD: &str =
    "--config=target.'cfg(target_os = \"linux\")'.rustflags=[\"-Clink-arg=-fuse-ld=mold\"]";

/// Variables by which an author says how to compile.
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
