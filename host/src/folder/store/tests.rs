use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::*;

fn snapshot(folder: &Path, bytes: &[u8]) -> LibraryBytes {
    let path = folder.join("libshop.so");
    fs::write(&path, bytes).unwrap();
    LibraryBytes::read(&path).unwrap()
}

#[test]
fn the_same_bytes_are_a_new_file_for_each_generation() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("copies")).unwrap();
    let snapshot = snapshot(folder.path(), b"code");
    let [first, second] =
        [1, 2].map(|generation| store.stage(&snapshot, "shop", generation).unwrap());
    let hash = snapshot.hash();
    assert!(
        first.ends_with(format!("shop.g1.{}.so", hash.short())),
        "{}",
        first.display()
    );
    assert!(hash.to_string().starts_with(&hash.short()) && hash.to_string().len() == 64);
    assert_eq!(fs::read(&first).unwrap(), b"code");
    let [first, second] = [first, second].map(|path| fs::metadata(path).unwrap());
    assert_ne!(first.ino(), second.ino());
    assert_eq!(first.permissions().mode() & 0o777, 0o500);
}

#[test]
fn a_staged_path_is_never_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let snapshot = snapshot(folder.path(), b"code");
    let path = store.stage(&snapshot, "shop", 1).unwrap();
    assert!(matches!(
        store.stage(&snapshot, "shop", 1),
        Err(StoreError::Write { .. })
    ));
    assert!(path.exists());
}

#[test]
fn a_folder_that_somebody_removed_is_made_anew_and_locked() {
    let parent = tempfile::tempdir().unwrap();
    let store = Store::open(&parent.path().join("a/b")).unwrap();
    let snapshot = snapshot(parent.path(), b"code");
    fs::remove_dir_all(parent.path().join("a/b")).unwrap();
    let path = store.stage(&snapshot, "shop", 1).unwrap();
    // Another host leaves it alone.
    Store::open(&parent.path().join("a/b")).unwrap();
    assert_eq!(fs::read(path).unwrap(), b"code");
}

#[test]
fn the_folder_of_a_release_that_was_removed_does_not_come_back() {
    let deployed = tempfile::tempdir().unwrap();
    let release = |name: &str| deployed.path().join(name);
    let current = deployed.path().join("current");
    for name in ["41", "42"] {
        fs::create_dir(release(name)).unwrap();
    }
    std::os::unix::fs::symlink("41", &current).unwrap();
    let store = Store::open(&current.join(".host")).unwrap();
    let snapshot = snapshot(deployed.path(), b"code");
    let first = store.stage(&snapshot, "shop", 1).unwrap();
    assert!(first.starts_with(fs::canonicalize(release("41")).unwrap()));

    fs::remove_file(&current).unwrap();
    std::os::unix::fs::symlink("42", &current).unwrap();
    fs::remove_dir_all(release("41")).unwrap();
    let second = store.stage(&snapshot, "shop", 2).unwrap();
    assert!(second.starts_with(fs::canonicalize(release("42")).unwrap()));
    assert!(!release("41").exists());
    store.remove().unwrap();
    assert!(!second.exists() && !release("41").exists());
    fs::remove_dir_all(release("42")).unwrap();
    assert!(matches!(
        store.stage(&snapshot, "shop", 3),
        Err(StoreError::Create { .. })
    ));
}

#[test]
fn copies_are_where_the_system_says_that_they_are_mapped_from() {
    let parent = tempfile::tempdir().unwrap();
    let link = parent.path().join("link");
    fs::create_dir(parent.path().join("folder")).unwrap();
    std::os::unix::fs::symlink("folder", &link).unwrap();
    let store = Store::open(&link).unwrap();
    let real = fs::canonicalize(parent.path()).unwrap();
    assert!(store.folder().starts_with(real.join("folder")));
}

#[test]
fn copies_are_private_and_go_when_told() {
    let parent = tempfile::tempdir().unwrap();
    let parent = parent.path().join("a/b");
    let store = Store::open(&parent).unwrap();
    let folder = store.folder();
    assert_eq!(
        fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
        0o700
    );
    store.remove().unwrap();
    assert!(!folder.exists());
}

#[test]
fn only_folders_without_an_owner_are_swept() {
    let parent = tempfile::tempdir().unwrap();
    let living = Store::open(parent.path()).unwrap();
    let ended = Store::open(parent.path()).unwrap();
    ended
        .stage(&snapshot(parent.path(), b"code"), "shop", 1)
        .unwrap();
    let ended_folder = ended.folder();
    drop(ended);
    let killed_early = parent.path().join("host-1-2");
    let strange = parent.path().join("host-notes");
    fs::create_dir(&killed_early).unwrap();
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join("todo"), "").unwrap();

    let _next = Store::open(parent.path()).unwrap();
    assert!(living.folder().exists() && strange.exists());
    assert!(!ended_folder.exists() && !killed_early.exists());
}

#[test]
fn a_file_that_changes_while_it_is_read_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libshop.so");
    let file = File::create(&path).unwrap();
    let is_told = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut len = 0;
            while !is_told.load(Ordering::Relaxed) {
                len = (len + 4096) % (1 << 20);
                file.set_len(len).unwrap();
            }
        });
        while !matches!(LibraryBytes::read(&path), Err(StoreError::Changed { .. })) {}
        is_told.store(true, Ordering::Relaxed);
    });
    assert!(LibraryBytes::read(&path).is_ok());
}

#[test]
fn only_regular_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        LibraryBytes::read(folder.path()),
        Err(StoreError::NotFile { .. })
    ));
    let link = folder.path().join("link.so");
    std::os::unix::fs::symlink("libshop.so", &link).unwrap();
    assert!(matches!(
        LibraryBytes::read(&link),
        Err(StoreError::Read { .. })
    ));
    snapshot(folder.path(), b"code");
    assert_eq!(LibraryBytes::read(&link).unwrap().bytes(), b"code");
}
