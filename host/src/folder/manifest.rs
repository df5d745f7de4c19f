//! Reads the manifest of a library from the library's file without running any code of the library, and checks whether
//! this host can load the library.
//!
//! Loading a library maps the file and runs code of the library. A truncated file would kill the process with SIGBUS,
//! and a library that aborts on a panic would kill the process later. Therefore everything that can be checked in the
//! file is checked here before the library is loaded.

mod dynamic;

use std::{env::consts::ARCH, fs, io, path::Path};

use object::{
    NativeEndian, elf,
    read::elf::{FileHeader, ProgramHeader, SectionHeader},
};
use plugin_api::manifest::{self, AbiVersion, Manifest, NOTE_OWNER, NOTE_TYPE, SECTION};

pub use self::dynamic::uses_static_tls;

/// Reads the manifest of the library at `path`.
///
/// # Errors
///
/// When the file cannot be read, and in the cases of [`read_bytes`].
pub fn read(path: &Path) -> Result<Manifest, ManifestError> {
    // Checked before the file is opened, because opening a named pipe would block until another process writes to the
    // pipe.
    if !fs::metadata(path).map_err(ManifestError::Read)?.is_file() {
        return Err(ManifestError::NotFile);
    }
    read_bytes(&fs::read(path).map_err(ManifestError::Read)?)
}

/// Reads the manifest from `bytes`, the content of a library's file.
///
/// # Errors
///
/// When the bytes are not a complete shared object for this machine, or have no manifest.
pub fn read_bytes(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let header = checked_header(bytes)?;
    let note = find_note(header, bytes)
        .map_err(ManifestError::Malformed)?
        // A file with the root module was built as a plugin, and has lost only the manifest.
        .ok_or_else(|| match dynamic::has_root_module(bytes) {
            true => ManifestError::NoManifest,
            false => ManifestError::NoPlugin,
        })?;
    Ok(Manifest::parse(note)?)
}

/// Checks that this host can load a library with this manifest.
///
/// # Errors
///
/// When the library was built for another ABI, or aborts on a panic.
pub fn check_compatible(manifest: &Manifest) -> Result<(), ManifestError> {
    // The minor versions of one major version work with each other in both directions.
    if manifest.abi.major != AbiVersion::CURRENT.major {
        return Err(ManifestError::Abi {
            found: manifest.abi,
            expected: AbiVersion::CURRENT,
        });
    }
    // The plugin catches its panics with `catch_unwind`, which cannot catch an abort.
    if manifest.panic != "unwind" {
        return Err(ManifestError::PanicAbort {
            found: manifest.panic.clone(),
        });
    }
    Ok(())
}

/// The reason why a file is rejected before it is loaded. The messages do not name the file, because a caller prints
/// them after the path of the file and a colon.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The plugin was built for another ABI.
    #[error(
        "it was built for ABI {found}, this host has {expected}; build it with a plugin-api of ABI {}",
        expected.major
    )]
    Abi {
        /// The ABI version of the plugin.
        found: AbiVersion,
        /// The ABI version of this host.
        expected: AbiVersion,
    },
    /// The end of the file is missing. A program may still be copying the file.
    #[error("it is cut short: it has {found} bytes, expected at least {expected}; copy it again")]
    Incomplete {
        /// The number of bytes in the file.
        found: u64,
        /// The smallest number of bytes that the headers require.
        expected: u64,
    },
    /// The ELF headers contradict themselves.
    #[error("its ELF headers are damaged; build or copy it again")]
    Malformed(#[source] object::read::Error),
    /// The manifest does not have the format that this host reads.
    #[error("its manifest cannot be read; build it with the plugin-api of this host")]
    Manifest(#[from] manifest::ManifestError),
    /// The file is a shared object without a dynamic section. Files of debug information are such files.
    #[error(
        "it has no dynamic section, expected a shared object with its code; a file of debug information, as `objcopy \
         --only-keep-debug` makes it, belongs into another folder"
    )]
    NoDynamic,
    /// The file is a plugin whose manifest was removed.
    #[error(
        "it has no manifest, expected the ELF section {SECTION}, which `strip --remove-section=.note*` takes away; build it \
         without that"
    )]
    NoManifest,
    /// The file is a shared object but not a plugin.
    #[error(
        "it is no plugin: it has no manifest and no root module; does the crate call plugin_api::export_app! and build as \
         crate-type cdylib?"
    )]
    NoPlugin,
    /// The file is not an ELF file.
    #[error(
        "it is no ELF file, expected a shared object: a crate builds one with `[lib] crate-type = [\"cdylib\", \"rlib\"]` in \
         its Cargo.toml"
    )]
    NotElf,
    /// The path names a folder or a device.
    #[error("it is no regular file, expected a shared object")]
    NotFile,
    /// The file is an ELF file, but not a shared object.
    #[error("it is {found}, expected a shared object; build the crate as crate-type cdylib")]
    NotShared {
        /// The kind of the file.
        found: &'static str,
    },
    /// The file was built for another architecture.
    #[error("it was built for {found}, expected {expected}; build it for the machine of the host")]
    OtherMachine {
        /// The architecture of the file.
        found: String,
        /// The architecture of this host.
        expected: &'static str,
    },
    /// Panics of the plugin cannot be caught.
    #[error(
        "it was built with panic = {found:?}, expected \"unwind\": a panic in it would end the server; remove `panic` \
         from the profile in Cargo.toml"
    )]
    PanicAbort {
        /// The panic strategy of the plugin.
        found: String,
    },
    /// The file could not be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
}

impl ManifestError {
    /// Returns whether the file is intact but not meant to be a plugin, such as a library that plugins depend on, or
    /// the debug information of a plugin.
    #[must_use]
    pub fn is_no_plugin(&self) -> bool {
        matches!(self, Self::NoDynamic | Self::NoPlugin)
    }
}

type ElfHeader = elf::FileHeader64<NativeEndian>;

/// Returns the ELF header, after checking that the bytes are a complete shared object for this machine.
fn checked_header(bytes: &[u8]) -> Result<&ElfHeader, ManifestError> {
    // Compares only the bytes that exist, because a file of one byte may be the beginning of a library that a program
    // is still copying.
    if !elf::ELFMAG.starts_with(&bytes[..bytes.len().min(elf::ELFMAG.len())]) {
        return Err(ManifestError::NotElf);
    }
    check_len(bytes, size_of::<ElfHeader>() as u64)?;
    check_machine(bytes)?;
    let header = ElfHeader::parse(bytes).map_err(ManifestError::Malformed)?;
    check_complete(header, bytes)?;
    check_shared_object(header, bytes)?;
    Ok(header)
}

/// Checks that the file has at least `expected` bytes.
fn check_len(bytes: &[u8], expected: u64) -> Result<(), ManifestError> {
    let found = bytes.len() as u64;
    if found < expected {
        Err(ManifestError::Incomplete { found, expected })
    } else {
        Ok(())
    }
}

/// Checks the class (32 or 64 bits), the byte order and the machine of the header.
///
/// The check runs before the header is parsed, so that a library for another machine gets an error that says so. The
/// bytes that are read here have the same offsets in the headers of every class.
fn check_machine(bytes: &[u8]) -> Result<(), ManifestError> {
    let byte_order = if cfg!(target_endian = "little") {
        elf::ELFDATA2LSB
    } else {
        elf::ELFDATA2MSB
    };
    // The number is right only in the byte order of this host, so it is used only after the byte order was compared.
    let machine = elf::Machine(u16::from_ne_bytes([bytes[18], bytes[19]]));
    let found = if elf::FileClass(bytes[4]) != elf::ELFCLASS64 {
        "a machine of 32 bits".to_owned()
    } else if elf::DataEncoding(bytes[5]) != byte_order {
        "a machine of the other byte order".to_owned()
    } else {
        match machine {
            elf::EM_AARCH64 => "aarch64".to_owned(),
            elf::EM_X86_64 => "x86_64".to_owned(),
            other => format!("machine number {other}"),
        }
    };
    if found == ARCH {
        Ok(())
    } else {
        Err(ManifestError::OtherMachine {
            found,
            expected: ARCH,
        })
    }
}

/// Checks that the file has all bytes that its headers refer to. The dynamic linker does not check the length, and a
/// read past the end of a mapped file kills the process. The section table is not needed for loading. It is checked
/// because linkers write it at the end of the file, so a missing table reveals an incomplete copy.
fn check_complete(header: &ElfHeader, bytes: &[u8]) -> Result<(), ManifestError> {
    let table = |offset, count: u16, size: u16| (offset, u64::from(count) * u64::from(size));
    // The two tables come first, because their entries can be read only if the tables are in the file.
    check_len(
        bytes,
        max_end([
            table(
                header.e_phoff(NativeEndian),
                header.e_phnum(NativeEndian),
                header.e_phentsize(NativeEndian),
            ),
            table(
                header.e_shoff(NativeEndian),
                header.e_shnum(NativeEndian),
                header.e_shentsize(NativeEndian),
            ),
        ]),
    )?;
    let segments = header
        .program_headers(NativeEndian, bytes)
        .map_err(ManifestError::Malformed)?;
    let sections = header
        .section_headers(NativeEndian, bytes)
        .map_err(ManifestError::Malformed)?;
    check_len(
        bytes,
        max_end(
            segments
                .iter()
                .map(|segment| segment.file_range(NativeEndian)),
        ),
    )?;
    check_len(
        bytes,
        max_end(
            sections
                .iter()
                .filter_map(|section| section.file_range(NativeEndian)),
        ),
    )
}

/// Returns the largest end of `ranges`, which are pairs of offset and length. An empty range does not count, because
/// its offset may lie past the end of a complete file.
fn max_end(ranges: impl IntoIterator<Item = (u64, u64)>) -> u64 {
    let non_empty = ranges.into_iter().filter(|(_, len)| *len > 0);
    non_empty
        .map(|(offset, len)| offset.saturating_add(len))
        .max()
        .unwrap_or(0)
}

/// Checks that the file is a shared object with code, and not an executable or an object file.
fn check_shared_object(header: &ElfHeader, bytes: &[u8]) -> Result<(), ManifestError> {
    let segments = header
        .program_headers(NativeEndian, bytes)
        .map_err(ManifestError::Malformed)?;
    let has_interpreter = segments
        .iter()
        .any(|segment| segment.p_type(NativeEndian) == elf::PT_INTERP);
    let found = match header.e_type(NativeEndian) {
        // A position-independent executable has the same type ET_DYN, but names its dynamic linker (PT_INTERP). A file
        // of debug information has copies of its library's headers, but its dynamic segment has no bytes in the file.
        elf::ET_DYN if !has_interpreter => {
            let is_dynamic = |segment: &elf::ProgramHeader64<NativeEndian>| {
                segment.p_type(NativeEndian) == elf::PT_DYNAMIC
                    && segment.p_filesz(NativeEndian) > 0
            };
            return match segments.iter().any(is_dynamic) {
                true => Ok(()),
                false => Err(ManifestError::NoDynamic),
            };
        }
        elf::ET_DYN | elf::ET_EXEC => "an executable",
        elf::ET_REL => "an object file",
        _ => "another kind of ELF file",
    };
    Err(ManifestError::NotShared { found })
}

/// Returns the content of the ELF note that contains the manifest. Returns `None` if the file has no such note.
fn find_note<'bytes>(
    header: &ElfHeader,
    bytes: &'bytes [u8],
) -> Result<Option<&'bytes [u8]>, object::read::Error> {
    let sections = header.sections(NativeEndian, bytes)?;
    let Some((_, section)) = sections.section_by_name(NativeEndian, SECTION.as_bytes()) else {
        return Ok(None);
    };
    let Some(mut notes) = section.notes(NativeEndian, bytes)? else {
        return Ok(None);
    };
    while let Some(note) = notes.next()? {
        if note.name() == NOTE_OWNER.as_bytes() && note.n_type(NativeEndian).0 == NOTE_TYPE {
            return Ok(Some(note.desc()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
