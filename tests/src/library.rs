//! The libraries that tests put into plugins folders: plugins, copies of them that differ in some bytes, and bad ones.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    process::{Command, Stdio},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use memchr::memmem;

use crate::artifacts;

/// The bytes of a library.
#[derive(Clone, Debug)]
pub struct Library(Arc<[u8]>);

impl Library {
    /// Returns an example plugin (a folder of `plugins`) or a fixture (one of `tests/fixtures`).
    #[must_use]
    pub fn plugin(name: &str) -> Self {
        static READ: Mutex<BTreeMap<String, Library>> = Mutex::new(BTreeMap::new());
        let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
        let library = read.entry(name.to_owned()).or_insert_with(|| {
            Self::new(fs::read(artifacts::plugin(name)).expect("cargo built it"))
        });
        library.clone()
    }

    /// Returns the fixture `versioned`, which answers with `version`.
    #[must_use]
    pub fn version(version: &str) -> Self {
        Self::plugin("versioned").marked(version)
    }

    /// Returns a plugin that is built with `panic = "abort"`.
    #[must_use]
    pub fn aborting() -> Self {
        Self::new(fs::read(artifacts::aborting_plugin()).expect("cargo built it"))
    }

    /// Returns the fixture `log_always`, whose `tracing` has the feature of that name.
    #[must_use]
    pub fn log_always() -> Self {
        Self::new(fs::read(artifacts::plugin_with_log_always()).expect("cargo built it"))
    }

    /// Returns a program: the host itself.
    #[must_use]
    pub fn executable() -> Self {
        Self::new(fs::read(artifacts::host()).expect("cargo built it"))
    }

    /// Compiles a shared object in C, which is no plugin.
    #[must_use]
    pub fn foreign() -> Self {
        static FOREIGN: LazyLock<Library> = LazyLock::new(|| {
            let folder = tempfile::tempdir_in(artifacts::temporary())
                .expect("the target folder is writable");
            let path = folder.path().join("libforeign.so");
            let mut command = Command::new("cc");
            command
                .args(["-shared", "-fPIC", "-x", "c", "-", "-o"])
                .arg(&path)
                .stdin(Stdio::piped());
            let mut compiler = command
                .spawn()
                .expect("Rust needs a C compiler to link, so there is one");
            let source = b"int answer(void) { return 42; }";
            compiler
                .stdin
                .take()
                .expect("it is piped")
                .write_all(source)
                .expect("the compiler reads");
            assert!(compiler.wait().expect("the compiler was started").success());
            Library::new(fs::read(path).expect("the compiler wrote it"))
        });
        FOREIGN.clone()
    }

    /// Returns a file of these bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into().into())
    }

    /// Returns the bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the fixture with another mark. A mark is the 27 bytes after `MARK=`, which the
    /// fixture reads when it runs.
    ///
    /// # Panics
    ///
    /// When the fixture has no mark, or `mark` is longer than 27 bytes.
    #[must_use]
    pub fn marked(&self, mark: &str) -> Self {
        assert!(mark.len() <= 27, "{mark:?} is too long");
        self.replaced(
            "MARK=unmarked                   ",
            &format!("MARK={mark:27}"),
        )
    }

    /// Returns the plugin with another fact in its manifest, such as its name. The name of the
    /// compiler becomes longer or shorter, so that the length of the manifest stays the same.
    ///
    /// # Panics
    ///
    /// When the plugin has no manifest or the manifest lacks the fact, or when the difference is
    /// too large.
    #[must_use]
    pub fn with_fact(&self, key: &str, value: &str) -> Self {
        // The layout of an ELF note: the sizes of owner and content, the type, the owner, the
        // content.
        const START: &[u8] = b"\x01\0\0\0host\0\0\0\0abi=";
        let mut bytes = self.0.to_vec();
        let note = memmem::find(&bytes, START).expect("the library has a manifest");
        let (len, start) = (&bytes[note - 4..note], note + START.len() - b"abi=".len());
        let len = u32::from_ne_bytes(len.try_into().expect("it is 4 bytes")) as usize;
        let manifest = String::from_utf8(bytes[start..][..len].to_vec()).expect("it is text");
        assert!(manifest.contains(&format!("{key}=")), "{manifest}");

        let is_other =
            |line: &&str| !line.starts_with(&format!("{key}=")) && !line.starts_with("rustc=");
        let mut changed: String = manifest
            .lines()
            .filter(is_other)
            .map(|line| format!("{line}\n"))
            .collect();
        changed += &format!("{key}={value}\nrustc=");
        let compiler = len
            .checked_sub(changed.len() + 1)
            .expect("the value is short");
        changed += &format!("{}\n", "x".repeat(compiler));
        bytes[start..][..len].copy_from_slice(changed.as_bytes());
        Self::new(bytes)
    }

    /// Returns the library with every `from` replaced by other bytes of the same length.
    ///
    /// # Panics
    ///
    /// When the library does not contain `from`, or the lengths differ.
    #[must_use]
    pub fn replaced(&self, from: &str, to: &str) -> Self {
        let mut bytes = self.0.to_vec();
        let places: Vec<_> = memmem::find_iter(&self.0[..], from).collect();
        assert!(!places.is_empty(), "{from:?} is not in the library");
        for place in places {
            bytes[place..][..from.len()].copy_from_slice(to.as_bytes());
        }
        Self::new(bytes)
    }

    /// Returns the plugin without symbols and debug information.
    ///
    /// # Panics
    ///
    /// When `strip` is not installed.
    #[must_use]
    pub fn stripped(&self) -> Self {
        let folder =
            tempfile::tempdir_in(artifacts::temporary()).expect("the target folder is writable");
        let path = folder.path().join("libstripped.so");
        fs::write(&path, self.bytes()).expect("there is space");
        let strip = Command::new("strip").arg(&path).status();
        assert!(strip.expect("strip can be run").success());
        Self::new(fs::read(path).expect("strip wrote it"))
    }

    /// Returns the plugin's debug information alone, the file that a debugger reads beside a
    /// stripped library. The file has the headers of a library, but nothing to load.
    ///
    /// # Panics
    ///
    /// When `objcopy` is not installed.
    #[must_use]
    pub fn debug_information(&self) -> Self {
        let folder =
            tempfile::tempdir_in(artifacts::temporary()).expect("the target folder is writable");
        let path = folder.path().join("libsplit.so");
        fs::write(&path, self.bytes()).expect("there is space");
        let mut objcopy = Command::new("objcopy");
        let objcopy = objcopy.arg("--only-keep-debug").arg(&path).status();
        assert!(objcopy.expect("objcopy can be run").success());
        Self::new(fs::read(path).expect("objcopy wrote it"))
    }

    /// Returns the first bytes of the library.
    #[must_use]
    pub fn truncated(&self, len: usize) -> Self {
        Self::new(&self.0[..len])
    }
}
