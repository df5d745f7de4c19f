//! Reads the dynamic section of a library.

use abi_stable::library::ROOT_MODULE_LOADER_NAME;
use object::{
    NativeEndian, elf,
    read::elf::{Dyn, FileHeader, ProgramHeader, Sym},
};

use super::ElfHeader;

/// Returns whether the library uses static thread-local storage ("initial-exec", `DF_STATIC_TLS` in elf(5)). glibc has a
/// few hundred bytes of it for all libraries together, and never frees them. False for a file that is not a library.
#[must_use]
pub fn uses_static_tls(bytes: &[u8]) -> bool {
    flags(bytes).is_ok_and(|flags| flags & elf::DF_STATIC_TLS.0 != 0)
}

fn flags(bytes: &[u8]) -> Result<u64, object::read::Error> {
    let header = ElfHeader::parse(bytes)?;
    for segment in header.program_headers(NativeEndian, bytes)? {
        let entries = segment.dynamic(NativeEndian, bytes)?.unwrap_or_default();
        let mut entries = entries.iter();
        if let Some(entry) = entries.find(|entry| entry.tag(NativeEndian) == elf::DT_FLAGS) {
            return Ok(entry.val(NativeEndian));
        }
    }
    Ok(0)
}

/// Returns whether the library exports the root module of a plugin. False for a file that is not a library.
pub(super) fn has_root_module(bytes: &[u8]) -> bool {
    let has = || -> Result<bool, object::read::Error> {
        let sections = ElfHeader::parse(bytes)?.sections(NativeEndian, bytes)?;
        let symbols = sections.symbols(NativeEndian, bytes, elf::SHT_DYNSYM)?;
        let name = ROOT_MODULE_LOADER_NAME.as_bytes();
        Ok(symbols.iter().any(|symbol| {
            symbol
                .name(NativeEndian, symbols.strings())
                .is_ok_and(|other| other == name)
        }))
    };
    has().unwrap_or_default()
}
