//! Reads the dynamic section and the dynamic symbols of a library.

use abi_stable::library::ROOT_MODULE_LOADER_NAME;
use object::{
    NativeEndian, elf,
    read::elf::{Dyn, FileHeader, ProgramHeader, Sym},
};

use super::ElfHeader;

/// Returns whether the library uses static thread-local storage (the "initial-exec" model, flag `DF_STATIC_TLS`).
/// Returns false for a file that is not a library.
///
/// glibc reserves a few hundred bytes of static storage for all libraries that a process opens at run time. This host
/// never unloads a library, so each load of such a library uses up a part of these bytes for good.
#[must_use]
pub fn uses_static_tls(bytes: &[u8]) -> bool {
    dynamic_flags(bytes).is_ok_and(|flags| flags & elf::DF_STATIC_TLS.0 != 0)
}

/// Returns the `DT_FLAGS` of the dynamic section, or 0 when the library has none.
fn dynamic_flags(bytes: &[u8]) -> Result<u64, object::read::Error> {
    let header = ElfHeader::parse(bytes)?;
    for segment in header.program_headers(NativeEndian, bytes)? {
        // `dynamic` returns `None` for every segment except PT_DYNAMIC.
        let entries = segment.dynamic(NativeEndian, bytes)?.unwrap_or_default();
        let mut entries = entries.iter();
        if let Some(entry) = entries.find(|entry| entry.tag(NativeEndian) == elf::DT_FLAGS) {
            return Ok(entry.val(NativeEndian));
        }
    }
    Ok(0)
}

/// Returns whether the library exports the root module of a plugin. Returns false for a file that is not a library.
pub(super) fn has_root_module(bytes: &[u8]) -> bool {
    let find = || -> Result<bool, object::read::Error> {
        let sections = ElfHeader::parse(bytes)?.sections(NativeEndian, bytes)?;
        let symbols = sections.symbols(NativeEndian, bytes, elf::SHT_DYNSYM)?;
        let name = ROOT_MODULE_LOADER_NAME.as_bytes();
        Ok(symbols.iter().any(|symbol| {
            symbol
                .name(NativeEndian, symbols.strings())
                .is_ok_and(|other| other == name)
        }))
    };
    find().unwrap_or_default()
}
