//! A library as it was read, once, and what tells it from others.

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

/// The bytes of a library as they were at one moment.
///
/// They have pages of their own, which the system has back when the snapshot is dropped. On the heap
/// they would leave a hole of a library's size, in one thread's arena after the other: what is
/// allocated behind it keeps the process from giving it back.
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
    /// When it is no regular file, cannot be read, or [changed](StoreError::Changed) meanwhile.
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Read {
            path: path.to_owned(),
            source,
        };
        let before = fs::metadata(path).map_err(failed)?;
        // Opening a pipe would wait for a writer.
        if !before.is_file() {
            return Err(StoreError::NotFile {
                path: path.to_owned(),
            });
        }
        let bytes = read_exact(path, before.len()).map_err(failed)?;
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

    /// The library itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The hash of the bytes: equal for equal libraries, whatever their names and times.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        self.hash
    }
}

/// The first `len` bytes of the file at `path`; none when it has less.
fn read_exact(path: &Path, len: u64) -> io::Result<Option<Mmap>> {
    let len = usize::try_from(len).map_err(io::Error::other)?;
    let mut bytes = MmapMut::map_anon(len)?;
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
    /// The hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes))
    }

    /// The first 12 digits: enough for people to tell libraries apart, and for file names.
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
