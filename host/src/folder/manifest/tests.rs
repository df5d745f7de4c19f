use plugin_api::manifest::{Export, is_mount, is_name};

use super::*;
use crate::{
    error_chain::chain,
    fuzz::{Random, one_line},
};

const HEADER: usize = 64;
const SEGMENT: usize = 56;
const SECTION_HEADER: usize = 64;
const DYNAMIC: usize = 32;

/// The smallest library that has a manifest: headers, a dynamic section with these flags, the note, the names of the
/// sections, and the section table.
fn library(note: &[u8]) -> Vec<u8> {
    with_flags(note, 0)
}

fn with_flags(note: &[u8], flags: usize) -> Vec<u8> {
    let names = format!("\0{SECTION}\0.shstrtab\0");
    let dynamic_at = HEADER + 2 * SEGMENT;
    let note_at = dynamic_at + DYNAMIC;
    let names_at = note_at + note.len();
    let table_at = names_at + names.len();
    let machine = if ARCH == "x86_64" {
        elf::EM_X86_64
    } else {
        elf::EM_AARCH64
    };
    let mut file = vec![
        0x7f,
        b'E',
        b'L',
        b'F',
        2,
        if cfg!(target_endian = "little") { 1 } else { 2 },
        1,
    ];
    file.resize(16, 0);
    half_words(&mut file, &[elf::ET_DYN.0, machine.0, 1, 0]);
    words(&mut file, &[0, HEADER, table_at]);
    half_words(&mut file, &[0, 0, 64, 56, 2, 64, 3, 2]);
    half_words(&mut file, &[1, 0, 4, 0]);
    words(&mut file, &[0, 0, 0, table_at, table_at, 4096]);
    half_words(&mut file, &[elf::PT_DYNAMIC.0 as u16, 0, 4, 0]);
    words(&mut file, &[dynamic_at, 0, 0, DYNAMIC, DYNAMIC, 8]);
    words(&mut file, &[elf::DT_FLAGS.0 as usize, flags, 0, 0]);
    file.extend_from_slice(note);
    file.extend_from_slice(names.as_bytes());
    file.resize(file.len() + SECTION_HEADER, 0);
    for (name, kind, at, len) in [
        (1, elf::SHT_NOTE, note_at, note.len()),
        (SECTION.len() + 2, elf::SHT_STRTAB, names_at, names.len()),
    ] {
        words(
            &mut file,
            &[name | (kind.0 as usize) << 32, 0, 0, at, len, 0, 4, 0],
        );
    }
    file
}

fn words(file: &mut Vec<u8>, words: &[usize]) {
    file.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
}

fn half_words(file: &mut Vec<u8>, words: &[u16]) {
    file.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
}

/// A manifest's note, with one fact replaced.
fn note(key: &str, value: &str) -> Vec<u8> {
    let mut text = String::new();
    for (fact, [start, end]) in Export::new("shop", "1.2.3").facts() {
        let usual = format!("{start}{end}");
        text += &format!("{fact}={}\n", if fact == key { value } else { &usual });
    }
    let mut note = Vec::new();
    note.extend(
        [5, text.len() as u32, NOTE_TYPE]
            .iter()
            .flat_map(|word| word.to_ne_bytes()),
    );
    note.extend(b"host\0\0\0\0");
    note.extend(text.as_bytes());
    note
}

#[test]
fn a_manifest_is_read_from_a_whole_library() {
    let manifest = read_bytes(&library(&note("", ""))).unwrap();
    assert_eq!((&*manifest.name, &*manifest.mount), ("shop", "/shop"));
    // A newer minor has more than this host knows, which it need not use.
    assert!(
        read_bytes(&library(&note(
            "abi",
            &format!("{}.999", AbiVersion::CURRENT.major)
        )))
        .is_ok()
    );
}

#[test]
fn a_library_that_needs_static_tls_is_told_apart() {
    let note = note("", "");
    assert!(uses_static_tls(&with_flags(&note, 0x10)));
    assert!(uses_static_tls(&with_flags(&note, 0x18)));
    assert!(!uses_static_tls(&with_flags(&note, 0x08)));
    assert!(!uses_static_tls(b"text"));
}

#[test]
fn a_file_of_debug_information_is_no_library() {
    let mut file = library(&note("", ""));
    // The length of the dynamic section in the file.
    let at = HEADER + SEGMENT + 32;
    file[at..at + 8].fill(0);
    let error = read_bytes(&file).unwrap_err();
    assert!(matches!(error, ManifestError::NoDynamic), "{error}");
    assert!(error.is_no_plugin());
}

#[test]
fn a_library_cut_anywhere_is_incomplete() {
    let library = library(&note("", ""));
    for len in 0..library.len() {
        let error = read_bytes(&library[..len]).unwrap_err();
        assert!(
            matches!(error, ManifestError::Incomplete { .. }),
            "{len} bytes: {error}"
        );
    }
}

#[test]
fn no_damage_makes_the_reader_panic() {
    let library = library(&note("", ""));
    for at in 0..library.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = library.clone();
            damaged[at] = value;
            let _ = read_bytes(&damaged);
        }
    }
}

#[test]
fn random_damage_is_an_error_of_one_line_or_leaves_a_valid_manifest() {
    let mut random = Random::new(1);
    let whole = [note("", ""), note("abi", "1.999"), note("panic", "abort")].map(|n| library(&n));
    let samples = whole.each_ref().map(Vec::as_slice);
    let (mut read, mut rejected) = (0, 0);
    for _ in 0..20_000 {
        let file = random.input(&samples);
        let _ = uses_static_tls(&file);
        match read_bytes(&file) {
            Ok(manifest) => {
                read += 1;
                assert!(is_name(manifest.name.as_bytes()), "{manifest:?}");
                assert!(is_mount(manifest.mount.as_bytes()), "{manifest:?}");
                if let Err(error) = check_compatible(&manifest) {
                    one_line(error, &manifest);
                }
            }
            Err(error) => {
                rejected += 1;
                one_line(chain(&error), &file);
            }
        }
    }
    // The damage is neither so slight nor so heavy that only one of the two is tested.
    assert!(read > 1_000 && rejected > 1_000, "{read} {rejected}");
}

#[test]
fn what_this_host_cannot_load_is_refused() {
    let refusal = |key, value| {
        check_compatible(&read_bytes(&library(&note(key, value))).unwrap()).unwrap_err()
    };
    let abi = refusal("abi", "99.0");
    assert!(
        abi.to_string()
            .starts_with("it was built for ABI 99.0, this host has "),
        "{abi}"
    );
    let abort = refusal("panic", "abort");
    assert!(
        abort
            .to_string()
            .contains("remove `panic` from the profile"),
        "{abort}"
    );
    let mount = read_bytes(&library(&note("mount", "shop"))).unwrap_err();
    assert!(
        matches!(
            mount,
            ManifestError::Manifest(manifest::ManifestError::Mount(_))
        ),
        "{mount}"
    );
    let none = read_bytes(&library(b"")).unwrap_err();
    assert!(matches!(none, ManifestError::NoPlugin), "{none}");
}

#[test]
fn what_is_no_library_is_told_apart() {
    assert!(matches!(
        read_bytes(b"#!/bin/sh\n"),
        Err(ManifestError::NotElf)
    ));
    let library = library(&note("", ""));
    let damaged = |at: usize, value: u8| {
        let mut library = library.clone();
        library[at] = value;
        read_bytes(&library).unwrap_err().to_string()
    };
    assert!(damaged(4, 1).starts_with("it was built for a machine of 32 bits, expected "));
    let other_order = if cfg!(target_endian = "little") { 2 } else { 1 };
    assert!(
        damaged(5, other_order).starts_with("it was built for a machine of the other byte order")
    );
    let type_at = if cfg!(target_endian = "little") {
        16
    } else {
        17
    };
    assert!(damaged(type_at + 2, 8).starts_with("it was built for machine number 8, expected "));
    assert!(damaged(type_at, 1).starts_with("it is an object file, expected a shared object"));
}

#[test]
fn an_executable_is_no_library() {
    let error = read(&std::env::current_exe().unwrap()).unwrap_err();
    assert!(
        matches!(
            error,
            ManifestError::NotShared {
                found: "an executable"
            }
        ),
        "{error}"
    );
}

#[test]
fn a_folder_is_no_library() {
    assert!(matches!(read(Path::new("/")), Err(ManifestError::NotFile)));
    assert!(matches!(
        read(Path::new("/nowhere.so")),
        Err(ManifestError::Read(_))
    ));
}
