//! Holds the bytes of a library, which are read once, and computes their hash.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use memmap2::{Mmap, MmapMut};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::StoreError;
use crate::folder::scan::FileStamp;

/// The bytes of a library at one moment.
///
/// The bytes are in their own memory mapping, which the kernel gets back when the value is dropped. On the heap, such
/// large blocks would fragment the arena of each thread that reads a library: the allocator cannot return a freed block
/// to the kernel while a later allocation lies behind the block.
#[derive(Debug)]
pub struct LibraryBytes {
    bytes: Mmap,
    hash: ContentHash,
}

impl LibraryBytes {
    /// Reads the whole file at `path`, through symlinks.
    ///
    /// # Errors
    ///
    /// When the path is not a regular file, when the file cannot be read, or when the file
    /// [changed](StoreError::Changed) during the read.
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Read {
            path: path.to_owned(),
            source,
        };
        let before = fs::metadata(path).map_err(failed)?;
        // Checked before the file is opened, because opening a named pipe would block until another process writes to
        // the pipe.
        if !before.is_file() {
            return Err(StoreError::NotFile {
                path: path.to_owned(),
            });
        }
        let bytes = read_exact(path, before.len()).map_err(failed)?;
        // Metadata is read again by path, so that a file that was replaced during the read is noticed as well.
        let after = fs::metadata(path).map_err(failed)?;
        let Some(bytes) = bytes.filter(|_| FileStamp::of(&before) == FileStamp::of(&after)) else {
            return Err(StoreError::Changed {
                path: path.to_owned(),
            });
        };
        Ok(Self {
            hash: ContentHash::of(&bytes),
            bytes,
        })
    }

    /// Returns the content of the library.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the hash of the bytes. The name and the times of the file do not influence the hash.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        self.hash
    }
}

/// Reads the first `len` bytes of the file at `path`. Returns `None` when the file is shorter.
fn read_exact(path: &Path, len: u64) -> io::Result<Option<Mmap>> {
    let len = usize::try_from(len).map_err(io::Error::other)?;
    let mut bytes = MmapMut::map_anon(len)?;
    // The file may have become shorter since its length was read.
    match File::open(path)?.read_exact(&mut bytes) {
        Ok(()) => bytes.make_read_only().map(Some),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// The BLAKE3 hash of a library, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentHash(blake3::Hash);

impl ContentHash {
    /// Computes the hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes))
    }

    /// Returns the first 12 digits, which are enough to distinguish libraries in logs and file names.
    #[must_use]
    pub fn short(&self) -> String {
        self.0.to_hex()[..12].to_owned()
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl Ord for ContentHash {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_bytes().cmp(other.0.as_bytes())
    }
}

impl PartialOrd for ContentHash {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Serialize for ContentHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hash = blake3::Hash::from_hex(text).map_err(de::Error::custom)?;
        Ok(Self(hash))
    }
}
