//! The libraries that tests put into plugins folders: plugins, plugins with changed bytes, and other files.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    process::{Command, Stdio},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use memchr::memmem;

use crate::artifacts;

/// The content of a library file. Clones share the bytes.
#[derive(Clone, Debug)]
pub struct Library(Arc<[u8]>);

impl Library {
    /// Returns the example plugin (a folder in `plugins`) or the fixture (a folder in `tests/fixtures`) of this name.
    #[must_use]
    pub fn plugin(name: &str) -> Self {
        static CACHE: Mutex<BTreeMap<String, Library>> = Mutex::new(BTreeMap::new());
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        let library = cache.entry(name.to_owned()).or_insert_with(|| {
            Self::new(fs::read(artifacts::plugin(name)).expect("cargo built it"))
        });
        library.clone()
    }

    /// Returns the fixture `versioned` with the mark `version`. The fixture answers requests with its mark.
    #[must_use]
    pub fn version(version: &str) -> Self {
        Self::plugin("versioned").marked(version)
    }

    /// Returns a plugin that is built with `panic = "abort"`.
    #[must_use]
    pub fn aborting() -> Self {
        Self::new(fs::read(artifacts::aborting_plugin()).expect("cargo built it"))
    }

    /// Returns the fixture `log_always`: its crate `tracing` has the feature `log-always`.
    #[must_use]
    pub fn log_always() -> Self {
        Self::new(fs::read(artifacts::plugin_with_log_always()).expect("cargo built it"))
    }

    /// Returns the program of the host, as an ELF file that is not a library.
    #[must_use]
    pub fn executable() -> Self {
        Self::new(fs::read(artifacts::host()).expect("cargo built it"))
    }

    /// Returns a shared object that is compiled from C and is not a plugin.
    #[must_use]
    pub fn foreign() -> Self {
        static FOREIGN: LazyLock<Library> = LazyLock::new(|| {
            let folder = tempfile::tempdir_in(artifacts::temporary_folder())
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
                .expect("the stream is piped")
                .write_all(source)
                .expect("the compiler reads its stdin");
            assert!(compiler.wait().expect("the compiler was started").success());
            Library::new(fs::read(path).expect("the compiler wrote it"))
        });
        FOREIGN.clone()
    }

    /// Returns a file with these bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into().into())
    }

    /// Returns the bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the fixture with another mark, so that it has other content and behaves as another version. A mark is
    /// the 27 bytes after `MARK=` in the library. The fixture reads its own mark at run time.
    ///
    /// # Panics
    ///
    /// Panics if the fixture has no mark, or `mark` is longer than 27 bytes.
    #[must_use]
    pub fn marked(&self, mark: &str) -> Self {
        assert!(mark.len() <= 27, "{mark:?} is too long");
        self.replaced(
            "MARK=unmarked                   ",
            &format!("MARK={mark:27}"),
        )
    }

    /// Returns the plugin with another value for a key of its manifest, such as its name. The value of `rustc` becomes
    /// longer or shorter, so that the length of the manifest stays the same.
    ///
    /// # Panics
    ///
    /// Panics if the plugin has no manifest, if the manifest does not contain `key`, or if `value` is too long.
    #[must_use]
    pub fn with_fact(&self, key: &str, value: &str) -> Self {
        // The layout of an ELF note: the size of the owner, the size of the content, the type, the owner, the content.
        // This constant begins with the type, so the size of the content is before it.
        const START: &[u8] = b"\x01\0\0\0host\0\0\0\0abi=";
        let mut bytes = self.0.to_vec();
        let note = memmem::find(&bytes, START).expect("the library has a manifest");
        let (len, start) = (&bytes[note - 4..note], note + START.len() - b"abi=".len());
        let len = u32::from_ne_bytes(len.try_into().expect("the slice has 4 bytes")) as usize;
        let manifest = String::from_utf8(bytes[start..][..len].to_vec());
        let manifest = manifest.expect("the manifest is text");
        assert!(manifest.contains(&format!("{key}=")), "{manifest}");

        let is_other =
            |line: &&str| !line.starts_with(&format!("{key}=")) && !line.starts_with("rustc=");
        let mut changed: String = manifest
            .lines()
            .filter(is_other)
            .map(|line| format!("{line}\n"))
            .collect();
        changed += &format!("{key}={value}\nrustc=");
        let compiler_len = len
            .checked_sub(changed.len() + 1)
            .expect("the value is short");
        changed += &format!("{}\n", "x".repeat(compiler_len));
        bytes[start..][..len].copy_from_slice(changed.as_bytes());
        Self::new(bytes)
    }

    /// Returns the library with every `from` replaced by `to`, a text of the same length.
    ///
    /// # Panics
    ///
    /// Panics if the library does not contain `from`, or the lengths differ.
    #[must_use]
    pub fn replaced(&self, from: &str, to: &str) -> Self {
        let mut bytes = self.0.to_vec();
        let offsets: Vec<_> = memmem::find_iter(&self.0[..], from).collect();
        assert!(!offsets.is_empty(), "{from:?} is not in the library");
        for offset in offsets {
            bytes[offset..][..from.len()].copy_from_slice(to.as_bytes());
        }
        Self::new(bytes)
    }

    /// Returns the plugin without symbols and debug information.
    ///
    /// # Panics
    ///
    /// Panics if `strip` is not installed.
    #[must_use]
    pub fn stripped(&self) -> Self {
        let folder = tempfile::tempdir_in(artifacts::temporary_folder())
            .expect("the target folder is writable");
        let path = folder.path().join("libstripped.so");
        fs::write(&path, self.bytes()).expect("there is space");
        let strip = Command::new("strip").arg(&path).status();
        assert!(strip.expect("strip can be run").success());
        Self::new(fs::read(path).expect("strip wrote it"))
    }

    /// Returns a file with only the debug information of the plugin. A debugger reads such a file together with a
    /// stripped library. The file has the headers of a library, but no code to load.
    ///
    /// # Panics
    ///
    /// Panics if `objcopy` is not installed.
    #[must_use]
    pub fn debug_information(&self) -> Self {
        let folder = tempfile::tempdir_in(artifacts::temporary_folder())
            .expect("the target folder is writable");
        let path = folder.path().join("libsplit.so");
        fs::write(&path, self.bytes()).expect("there is space");
        let mut objcopy = Command::new("objcopy");
        let objcopy = objcopy.arg("--only-keep-debug").arg(&path).status();
        assert!(objcopy.expect("objcopy can be run").success());
        Self::new(fs::read(path).expect("objcopy wrote it"))
    }

    /// Returns the first `len` bytes of the library.
    #[must_use]
    pub fn truncated(&self, len: usize) -> Self {
        Self::new(&self.0[..len])
    }
}
