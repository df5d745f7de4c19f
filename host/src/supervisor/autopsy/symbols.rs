//! Finds the functions, source files and lines of addresses, with the symbols and debug information of the mapped
//! files.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    fs::{self, File},
    os::fd::AsRawFd,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
};

use addr2line::Loader;
use object::{Object, ObjectSegment, ReadCache};

use crate::scoreboard::CodeAddress;

/// A frame of a backtrace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeFrame {
    /// The name of the function, or the address if the function is unknown.
    pub function: String,
    /// The source file and the line, if the file has debug information.
    pub source: Option<(String, u32)>,
    /// The mapped file that contains the code: the program or a library.
    pub image: Option<PathBuf>,
    /// Whether the file is the library of an app.
    pub is_app: bool,
}

impl CodeFrame {
    /// Returns whether the frame is probably code of the plugin's author, and not code of std or of a dependency.
    #[must_use]
    pub fn is_authors(&self) -> bool {
        // Parts of the paths of sources that the author of the plugin did not write.
        let foreign_sources = [
            "/rustc/",
            "/rustlib/",
            "/.cargo/registry/",
            "/.cargo/git/",
            "/plugin-api/src/",
            // The handler that records a call of `exit`.
            "host/src/worker/crash/",
        ];
        match &self.source {
            Some((file, _)) => !foreign_sources.iter().any(|part| file.contains(part)),
            // Without debug information, only the name of the function is known.
            None => {
                let name = self.function.trim_start_matches(['<', '&', '_']);
                let foreign_names = ["std::", "core::", "alloc::", "rust_", "tokio::", "0x"];
                !foreign_names.iter().any(|start| name.starts_with(start))
            }
        }
    }
}

impl fmt::Display for CodeFrame {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.function)?;
        match &self.source {
            Some((file, line)) => write!(formatter, " ({file}:{line})"),
            None => Ok(()),
        }
    }
}

/// Files that stay open, so that they can be read even after they were removed.
#[derive(Clone, Debug, Default)]
pub struct OpenFiles(HashMap<PathBuf, Arc<File>>);

impl OpenFiles {
    /// Opens files. A file that cannot be opened is left out.
    pub fn open<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let opened = files.into_iter().filter_map(|path| {
            let is_file = fs::metadata(path).ok()?.is_file();
            let file = is_file.then(|| File::open(path).ok()).flatten()?;
            Some((path.clone(), Arc::new(file)))
        });
        Self(opened.collect())
    }
}

/// A cache of symbols by file. The caller drops the cache soon, because the symbols of a large library take much
/// memory.
pub struct Symbols<'a> {
    open_files: &'a OpenFiles,
    /// The files that were parsed. `None` for a file that cannot be parsed.
    images: HashMap<PathBuf, Option<CodeImage>>,
}

/// A program or library file whose symbols are loaded.
struct CodeImage {
    symbols: Loader,
    /// Each segment's offset in the file, its length, and its address.
    segments: Vec<(u64, u64, u64)>,
}

impl<'a> Symbols<'a> {
    /// Creates an empty cache. The files in `open_files` are read through their open descriptors, other files by path.
    #[must_use]
    pub fn new(open_files: &'a OpenFiles) -> Self {
        Self {
            open_files,
            images: HashMap::new(),
        }
    }

    /// Returns the frames at these addresses, the innermost first, with inlined functions. `copies` are the private
    /// copies of the apps' libraries. If any address is in a copy, the addresses outside of the copies are left out.
    pub fn frames(&mut self, addresses: &[CodeAddress], copies: &[&Path]) -> Vec<CodeFrame> {
        let is_in_app = |address: &CodeAddress| {
            let location = address.location.as_ref();
            location.is_some_and(|(file, _)| copies.contains(&file.as_path()))
        };
        // Frames of the host and of system libraries take as long to look up, and do not help an author.
        let has_app_frames = addresses.iter().any(is_in_app);
        let mut frames = Vec::new();
        for (at, address) in addresses.iter().enumerate() {
            if has_app_frames && !is_in_app(address) {
                continue;
            }
            // All addresses but the first are return addresses. A return address is that of the instruction after the
            // call, which may belong to another line or function. One byte less is within the call.
            let correction = u64::from(at > 0);
            let Some((image, offset)) = &address.location else {
                frames.push(unknown_function(address.address, None));
                continue;
            };
            let is_app = copies.contains(&image.as_path());
            let found = self
                .image(image)
                .and_then(|symbols| symbols.functions(offset.saturating_sub(correction)));
            let found = found.unwrap_or_else(|| vec![unknown_function(*offset, Some(image))]);
            frames.extend(found.into_iter().map(|frame| CodeFrame {
                image: Some(image.clone()),
                is_app,
                ..frame
            }));
        }
        frames
    }

    /// Returns the parsed file at `path`, or `None` if the file cannot be parsed.
    fn image(&mut self, path: &Path) -> Option<&CodeImage> {
        let open_file = self.open_files.0.get(path);
        let image = self.images.entry(path.to_owned()).or_insert_with(|| {
            let descriptor_path =
                open_file.map(|file| format!("/proc/self/fd/{}", file.as_raw_fd()));
            let path = descriptor_path.as_deref().map_or(path, Path::new);
            // The file comes from a plugin author, so the parser may meet input that makes it panic. The panic must
            // not lose the report of the crash.
            panic::catch_unwind(|| CodeImage::open(path)).ok().flatten()
        });
        image.as_ref()
    }
}

impl fmt::Debug for Symbols<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.images.keys()).finish()
    }
}

impl CodeImage {
    /// Reads the symbols of a file. Returns `None` if the file is not a program or library.
    fn open(path: &Path) -> Option<Self> {
        // The path comes from the scoreboard, where a process with corrupt memory may have written any path. Opening a
        // FIFO would block forever.
        if !fs::metadata(path).ok()?.is_file() {
            return None;
        }
        let file = ReadCache::new(File::open(path).ok()?);
        let object = object::File::parse(&file).ok()?;
        let segments = object.segments().map(|segment| {
            let (start, len) = segment.file_range();
            (start, len, segment.address())
        });
        Some(Self {
            segments: segments.collect(),
            symbols: Loader::new(path).ok()?,
        })
    }

    /// Returns the frames at an offset in the file, the innermost first. Returns `None` if no function is known there.
    fn functions(&self, offset: u64) -> Option<Vec<CodeFrame>> {
        let address = self.segments.iter().find_map(|(start, len, address)| {
            let within = offset.checked_sub(*start)?;
            (within < *len).then(|| address.wrapping_add(within))
        })?;
        // The parser reads parts of the debug information only now, so it may panic here as well.
        let found = panic::catch_unwind(AssertUnwindSafe(|| self.functions_at(address)));
        found.ok().filter(|frames| !frames.is_empty())
    }

    /// Returns the frames at an address of the file's own address space.
    fn functions_at(&self, address: u64) -> Vec<CodeFrame> {
        let mut functions = Vec::new();
        if let Ok(mut frames) = self.symbols.find_frames(address) {
            while let Ok(Some(frame)) = frames.next() {
                let name = frame
                    .function
                    .as_ref()
                    .and_then(|name| name.demangle().ok());
                let name = name.map(Cow::into_owned);
                let source = frame
                    .location
                    .and_then(|location| Some((location.file?.to_owned(), location.line?)));
                functions.push((name, source));
            }
        }
        if functions.is_empty() {
            functions.push((None, None));
        }
        // If the debug information consists of line tables only, its names lack crate and module. The symbol table has
        // the full name, but only of the outermost function, because inlined functions have no symbol.
        if let Some((name, _)) = functions.last_mut() {
            *name = self.symbol(address).or_else(|| name.take());
        }
        let frames = functions.into_iter().filter_map(|(name, source)| {
            Some(CodeFrame {
                function: name?,
                source,
                image: None,
                is_app: false,
            })
        });
        frames.collect()
    }

    /// Returns the name of the function at an address from the symbol table.
    fn symbol(&self, address: u64) -> Option<String> {
        let name = self.symbols.find_symbol(address)?;
        Some(addr2line::demangle_auto(Cow::Borrowed(name), None).into_owned())
    }
}

/// Returns a frame that consists of the address, and of the file name if the file is known.
fn unknown_function(address: u64, image: Option<&Path>) -> CodeFrame {
    let name = image.and_then(|image| image.file_name());
    let function = match name {
        Some(name) => format!("{address:#x} in {}", name.to_string_lossy()),
        None => format!("{address:#x}"),
    };
    CodeFrame {
        function,
        source: None,
        image: None,
        is_app: false,
    }
}
