//! Opaque bytes of any size in a message: small ones in its JSON, large ones in a sealed memory
//! file beside it.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use serde::{Deserialize, Serialize};

/// Bytes within a message, or the number of the message's descriptor that holds them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blob {
    /// The bytes, as base64.
    Inline(String),
    /// The number of the descriptor, which is a sealed memory file.
    Descriptor(usize),
}

impl Blob {
    /// Up to how many bytes are part of the message itself.
    pub const INLINE: usize = 64 << 10;

    /// Packs bytes. Those above [`Blob::INLINE`] become one more of the message's descriptors.
    ///
    /// # Errors
    ///
    /// Returns the system's error when there is no memory or descriptor for them.
    pub fn pack(bytes: &[u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<Self> {
        if bytes.len() <= Self::INLINE {
            return Ok(Self::Inline(BASE64_STANDARD.encode(bytes)));
        }
        descriptors.push(bytes_to_fd(bytes)?);
        Ok(Self::Descriptor(descriptors.len() - 1))
    }

    /// Returns the bytes. `descriptors` are all of the message's.
    ///
    /// # Errors
    ///
    /// Fails when the text is no base64, or the descriptor is missing or no sealed memory file.
    pub fn unpack(&self, descriptors: &[OwnedFd]) -> io::Result<Vec<u8>> {
        match self {
            Self::Inline(text) => BASE64_STANDARD.decode(text).map_err(io::Error::other),
            Self::Descriptor(number) => {
                let missing = || io::Error::other(format!("descriptor {number} is not there"));
                fd_to_bytes(descriptors.get(*number).ok_or_else(missing)?)
            }
        }
    }
}

/// Returns a memory file with these bytes, which nobody can change any more (memfd_create(2),
/// F_SEAL_WRITE).
///
/// # Errors
///
/// Returns the system's error when there is no memory or descriptor for it.
pub fn bytes_to_fd(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("host-state", flags)?);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SEALS | SealFlags::SEAL)?;
    Ok(file.into())
}

/// Returns the bytes of a memory file from [`bytes_to_fd`].
///
/// # Errors
///
/// Fails when the descriptor is something else: a file that its writer can still change is refused.
pub fn fd_to_bytes(descriptor: &impl AsFd) -> io::Result<Vec<u8>> {
    let file = File::from(descriptor.as_fd().try_clone_to_owned()?);
    if !fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SEALS)) {
        return Err(io::Error::other("the descriptor is no sealed memory file"));
    }
    let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    bytes.resize(len, 0);
    // Reads at a place of its own: the offset is shared with whoever holds the same descriptor.
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// The seals of a memory file before its bytes are read (`F_ADD_SEALS`, fcntl(2)).
const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW);
