//! The ways in which a library can be written into the plugins folder.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::symlink,
    process::Command,
    time::Duration,
};

use host_tests::{Library, Setup};
use tokio::time::sleep;

#[tokio::test]
async fn every_way_of_writing_a_file_is_seen() {
    let host = Setup::new()
        .library(FILE, &Library::version("v1"))
        .start()
        .await;
    let (folder, other) = (
        host.folder(),
        tempfile::tempdir_in(host.folder().path()).unwrap(),
    );
    let outside = other.path().join("lib.so");
    let write_outside =
        |version: &str| fs::write(&outside, Library::version(version).bytes()).unwrap();
    let run = |program: &str, args: &[&str]| {
        let command = Command::new(program)
            .args(args)
            .arg(&outside)
            .arg(folder.join(FILE))
            .status();
        assert!(command.unwrap().success(), "{program}");
    };

    folder.copy(FILE, &Library::version("written over"));
    host.serves("/versioned", "written over").await;

    for (version, program, args) in [
        ("cp", "cp", &[][..]),
        (
            "cp -f --remove-destination",
            "cp",
            &["-f", "--remove-destination"],
        ),
        ("install", "install", &[]),
        ("mv", "mv", &[]),
    ] {
        write_outside(version);
        run(program, args);
        host.serves("/versioned", version).await;
    }

    let other = Library::version("cp, new")
        .with_fact("name", "other")
        .with_fact("mount", "/other");
    fs::write(&outside, other.bytes()).unwrap();
    let copied = Command::new("cp")
        .arg(&outside)
        .arg(folder.join("libother.so"))
        .status();
    assert!(copied.unwrap().success());
    host.serves("/other", "cp, new").await;

    // Remove the old file and link the new one, as Cargo does.
    write_outside("unlink, link");
    folder.remove(FILE);
    fs::hard_link(&outside, folder.join(FILE)).unwrap();
    host.serves("/versioned", "unlink, link").await;
}

#[tokio::test]
async fn a_file_that_comes_slowly_is_loaded_once_when_it_is_whole() {
    let setup = Setup::new().library(FILE, &Library::version("v1"));
    let setup = setup.arg("--quiet-time=200ms").arg("--log-level=debug");
    let host = setup.start().await;
    host.serves("/versioned", "v1").await;
    let library = Library::version("v2");
    let pieces = library.bytes().chunks(library.bytes().len() / 40);
    fs::remove_file(host.folder().join(FILE)).unwrap();
    let mut file = File::create(host.folder().join(FILE)).unwrap();
    for piece in pieces {
        file.write_all(piece).unwrap();
        assert_eq!(host.get("/versioned").await.text(), "v1");
        // The pause is longer than the quiet time, so after each piece the host takes the file for complete and reads
        // it. All pieces together take ten seconds.
        sleep(Duration::from_millis(250)).await;
    }
    host.serves("/versioned", "v2").await;
    host.log()
        .eventually(&["DEBUG", "Incomplete, reading it again later"])
        .await;
    host.log().eventually(&["Loaded", "generation=2"]).await;
    assert_eq!(host.log().with(&["ERROR"]), [""; 0]);
    assert_eq!(host.log().with(&["Loaded"]).len(), 2);
}

#[tokio::test]
async fn a_write_through_another_hard_link_is_seen_though_there_is_no_event() {
    let setup = Setup::new().arg("--rescan=100ms");
    let other = tempfile::tempdir_in(setup.folder().path()).unwrap();
    let outside = other.path().join("lib.so");
    fs::write(&outside, Library::version("v1").bytes()).unwrap();
    fs::hard_link(&outside, setup.folder().join(FILE)).unwrap();
    let host = setup.start().await;
    host.serves("/versioned", "v1").await;
    fs::write(&outside, Library::version("v2").bytes()).unwrap();
    host.serves("/versioned", "v2").await;
}

#[tokio::test]
async fn a_symlink_is_followed_to_another_target_and_to_new_content() {
    let setup = Setup::new().arg("--rescan=100ms");
    let other = tempfile::tempdir_in(setup.folder().path()).unwrap();
    let target = |name: &str| other.path().join(name);
    fs::write(target("one"), Library::version("v1").bytes()).unwrap();
    fs::write(target("two"), Library::version("v2").bytes()).unwrap();
    symlink(target("one"), setup.folder().join(FILE)).unwrap();
    let host = setup.start().await;
    host.serves("/versioned", "v1").await;

    symlink(target("two"), target("link")).unwrap();
    fs::rename(target("link"), host.folder().join(FILE)).unwrap();
    host.serves("/versioned", "v2").await;

    fs::write(target("three"), Library::version("v3").bytes()).unwrap();
    fs::rename(target("three"), target("two")).unwrap();
    host.serves("/versioned", "v3").await;
}

const FILE: &str = "libversioned.so";
