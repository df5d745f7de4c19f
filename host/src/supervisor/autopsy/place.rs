//! From addresses to functions, files and lines, by the symbols and debug information of the files that the code was
//! mapped from.

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

/// A function that was running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its name, or its address in the file where that has no names.
    pub function: String,
    /// The source file, and the line.
    pub source: Option<(String, u32)>,
    /// The file that its code is in.
    pub image: Option<PathBuf>,
    /// Whether that is an app's library.
    pub is_app: bool,
}

impl Frame {
    /// Whether it is the author's own code, as far as it can be told, and not of std or a crate.
    #[must_use]
    pub fn is_authors(&self) -> bool {
        let others = [
            "/rustc/",
            "/rustlib/",
            "/.cargo/registry/",
            "/.cargo/git/",
            "/plugin-api/src/",
            // Where a call of `exit` is written down.
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

impl fmt::Display for Frame {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.function)?;
        match &self.source {
            Some((file, line)) => write!(formatter, " ({file}:{line})"),
            None => Ok(()),
        }
    }
}

/// Files that are open, whatever becomes of their names.
#[derive(Clone, Debug, Default)]
pub struct Held(HashMap<PathBuf, Arc<File>>);

impl Held {
    /// Opens files. One that cannot be opened has no symbols.
    pub fn open<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let opened = files.into_iter().filter_map(|path| {
            let is_file = fs::metadata(path).ok()?.is_file();
            let file = is_file.then(|| File::open(path).ok()).flatten()?;
            Some((path.clone(), Arc::new(file)))
        });
        Self(opened.collect())
    }
}

/// The symbols of the files that were looked at. They are kept in memory as long as this is.
pub struct Symbols<'a> {
    held: &'a Held,
    images: HashMap<PathBuf, Option<Image>>,
}

/// A file with code.
struct Image {
    symbols: Loader,
    /// Of each segment: where it begins in the file, how long it is, and its address.
    segments: Vec<(u64, u64, u64)>,
}

impl<'a> Symbols<'a> {
    /// No symbols yet. What is held is not opened by its name.
    #[must_use]
    pub fn new(held: &'a Held) -> Self {
        Self {
            held,
            images: HashMap::new(),
        }
    }

    /// The functions at some addresses, with those that were made a part of others; the innermost first. `copies` are the
    /// apps' libraries: when some of the addresses are in these, only those are looked up.
    pub fn frames(&mut self, addresses: &[CodeAddress], copies: &[&Path]) -> Vec<Frame> {
        let is_in_app = |address: &CodeAddress| {
            let place = address.place.as_ref();
            place.is_some_and(|(file, _)| copies.contains(&file.as_path()))
        };
        // The host's and the system's way to the app takes as long to look up, and says nothing.
        let are_some_in_apps = addresses.iter().any(is_in_app);
        let mut frames = Vec::new();
        for (at, address) in addresses.iter().enumerate() {
            if are_some_in_apps && !is_in_app(address) {
                continue;
            }
            // A return address belongs to the call before it.
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
            frames.extend(found.into_iter().map(|frame| Frame {
                image: Some(image.clone()),
                is_app,
                ..frame
            }));
        }
        frames
    }

    fn image(&mut self, path: &Path) -> Option<&Image> {
        let held = self.held.0.get(path);
        let image = self.images.entry(path.to_owned()).or_insert_with(|| {
            let by_number = held.map(|file| format!("/proc/self/fd/{}", file.as_raw_fd()));
            let path = by_number.as_deref().map_or(path, Path::new);
            // The file is a plugin author's; what is wrong with it must not harm the server.
            panic::catch_unwind(|| Image::open(path)).ok().flatten()
        });
        image.as_ref()
    }
}

impl fmt::Debug for Symbols<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.images.keys()).finish()
    }
}

impl Image {
    fn open(path: &Path) -> Option<Self> {
        // The path was written by a process that may have been out of its mind. To open a FIFO would wait for ever.
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

    /// The functions at an offset in the file.
    fn functions(&self, offset: u64) -> Option<Vec<Frame>> {
        let address = self.segments.iter().find_map(|(start, len, address)| {
            let within = offset.checked_sub(*start)?;
            (within < *len).then(|| address.wrapping_add(within))
        })?;
        let found = panic::catch_unwind(AssertUnwindSafe(|| self.functions_at(address)));
        found.ok().filter(|frames| !frames.is_empty())
    }

    fn functions_at(&self, address: u64) -> Vec<Frame> {
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
        // Line tables alone have short names, without crate and module: the outermost function is the symbol's.
        if let Some((name, _)) = functions.last_mut() {
            *name = self.symbol(address).or_else(|| name.take());
        }
        let frames = functions.into_iter().filter_map(|(name, source)| {
            Some(Frame {
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

fn unknown(address: u64, image: Option<&Path>) -> Frame {
    let name = image.and_then(|image| image.file_name());
    let function = match name {
        Some(name) => format!("{address:#x} in {}", name.to_string_lossy()),
        None => format!("{address:#x}"),
    };
    Frame {
        function,
        source: None,
        image: None,
        is_app: false,
    }
}
