//! Turns addresses into functions, files and lines, by the symbols and debug information of the mapped files.

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
    /// The name of the function, or its address if the file has no symbols.
    pub function: String,
    /// The source file and the line.
    pub source: Option<(String, u32)>,
    /// The mapped file that has the code.
    pub image: Option<PathBuf>,
    /// Whether the file is the library of an app.
    pub is_app: bool,
}

impl CodeFrame {
    /// Returns whether the frame is probably the author's own code, and not that of std or another crate.
    #[must_use]
    pub fn is_authors(&self) -> bool {
        let others = [
            "/rustc/",
            "/rustlib/",
            "/.cargo/registry/",
            "/.cargo/git/",
            "/plugin-api/src/",
            // The handler that records a call of `exit`.
            "host/src/worker/crash/",
        ];
        match &self.source {
            Some((file, _)) => !others.iter().any(|other| file.contains(other)),
            None => {
                let name = self.function.trim_start_matches(['<', '&', '_']);
                let others = ["std::", "core::", "alloc::", "rust_", "tokio::", "0x"];
                !others.iter().any(|other| name.starts_with(other))
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

/// Files that are held open. They can be read even after they were removed.
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

/// A cache of symbols by file. Symbols of a large library take much memory, so the cache is short-lived.
pub struct Symbols<'a> {
    held: &'a OpenFiles,
    images: HashMap<PathBuf, Option<CodeImage>>,
}

/// A file with code.
struct CodeImage {
    symbols: Loader,
    /// Each segment's offset in the file, its length, and its address.
    segments: Vec<(u64, u64, u64)>,
}

impl<'a> Symbols<'a> {
    /// Creates an empty cache. Files in `held` are read through their open descriptors.
    #[must_use]
    pub fn new(held: &'a OpenFiles) -> Self {
        Self {
            held,
            images: HashMap::new(),
        }
    }

    /// Returns the frames at these addresses, the innermost first, inlined functions included. `copies` are the
    /// libraries of apps: if some addresses are in them, only those addresses are looked up.
    pub fn frames(&mut self, addresses: &[CodeAddress], copies: &[&Path]) -> Vec<CodeFrame> {
        let is_in_app = |address: &CodeAddress| {
            let place = address.place.as_ref();
            place.is_some_and(|(file, _)| copies.contains(&file.as_path()))
        };
        // Frames of the host and of the system take as long to look up, and do not help an author.
        let are_some_in_apps = addresses.iter().any(is_in_app);
        let mut frames = Vec::new();
        for (at, address) in addresses.iter().enumerate() {
            if are_some_in_apps && !is_in_app(address) {
                continue;
            }
            // A return address is the instruction after the call. One byte less is within the call.
            let back = u64::from(at > 0);
            let Some((image, offset)) = &address.place else {
                frames.push(unknown(address.address, None));
                continue;
            };
            let is_app = copies.contains(&image.as_path());
            let found = self
                .image(image)
                .and_then(|symbols| symbols.functions(offset.saturating_sub(back)));
            let found = found.unwrap_or_else(|| vec![unknown(*offset, Some(image))]);
            frames.extend(found.into_iter().map(|frame| CodeFrame {
                image: Some(image.clone()),
                is_app,
                ..frame
            }));
        }
        frames
    }

    fn image(&mut self, path: &Path) -> Option<&CodeImage> {
        let held = self.held.0.get(path);
        let image = self.images.entry(path.to_owned()).or_insert_with(|| {
            let by_number = held.map(|file| format!("/proc/self/fd/{}", file.as_raw_fd()));
            let path = by_number.as_deref().map_or(path, Path::new);
            // The file comes from a plugin author. A parser that panics on it must not end the server.
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
    fn open(path: &Path) -> Option<Self> {
        // A process with corrupt memory may have written the path. Opening a FIFO would wait for ever.
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

    /// Returns the frames at an offset in the file.
    fn functions(&self, offset: u64) -> Option<Vec<CodeFrame>> {
        let address = self.segments.iter().find_map(|(start, len, address)| {
            let within = offset.checked_sub(*start)?;
            (within < *len).then(|| address.wrapping_add(within))
        })?;
        let found = panic::catch_unwind(AssertUnwindSafe(|| self.functions_at(address)));
        found.ok().filter(|frames| !frames.is_empty())
    }

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
        // Line tables alone have short names, without crate and module. The symbol table has the full name of
        // the outermost function.
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

    fn symbol(&self, address: u64) -> Option<String> {
        let name = self.symbols.find_symbol(address)?;
        Some(addr2line::demangle_auto(Cow::Borrowed(name), None).into_owned())
    }
}

fn unknown(address: u64, image: Option<&Path>) -> CodeFrame {
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
