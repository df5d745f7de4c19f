//! A library that cannot be loaded does not disturb the running app, and one log line names the reason.

use std::{fs, iter, os::unix::fs::symlink, process::Command};

use host_tests::{Library, Line, Setup};

#[tokio::test]
async fn an_empty_file_leaves_the_old_version_serving() {
    leaves_the_old_version_serving(&[("empty", Library::new(""), "cut short")]).await;
}

#[tokio::test]
async fn text_leaves_the_old_version_serving() {
    let text = Library::new("#!/bin/sh\necho this is no library\n");
    leaves_the_old_version_serving(&[("text", text, "no ELF")]).await;
}

#[tokio::test]
async fn random_bytes_leave_the_old_version_serving() {
    // Lehmer's random number generator, which produces the same bytes in each run.
    let numbers = iter::successors(Some(1_u64), |n| Some(n * 48_271 % 0x7fff_ffff));
    let bytes: Vec<_> = numbers.map(|n| n as u8).take(1 << 20).collect();
    let mut with_magic = bytes.clone();
    with_magic[..4].copy_from_slice(b"\x7fELF");
    let bad = [
        ("random", Library::new(bytes), "no ELF"),
        ("random ELF", Library::new(with_magic), "built for"),
    ];
    leaves_the_old_version_serving(&bad).await;
}

#[tokio::test]
async fn a_truncated_library_leaves_the_old_version_serving() {
    let whole = Library::version("truncated");
    let len = whole.bytes().len();
    // The files end within the ELF header, within the loaded segments (opening such a file would kill the process),
    // behind these segments, and one byte before the end.
    let bad = [40, 20_000, len / 2, len - 100_000, len - 1]
        .map(|len| ("truncated", whole.truncated(len), "cut short"));
    leaves_the_old_version_serving(&bad).await;
}

#[tokio::test]
async fn a_program_leaves_the_old_version_serving() {
    leaves_the_old_version_serving(&[("program", Library::executable(), "an executable")]).await;
}

#[tokio::test]
async fn a_library_that_is_no_plugin_leaves_the_old_version_serving() {
    leaves_the_old_version_serving(&[("C", Library::foreign(), "no manifest")]).await;
}

#[tokio::test]
async fn a_plugin_of_another_abi_leaves_the_old_version_serving() {
    let other = Library::version("other").with_fact("abi", "99.0");
    leaves_the_old_version_serving(&[("ABI", other, "ABI 99.0")]).await;
}

#[tokio::test]
async fn a_plugin_that_aborts_on_panic_leaves_the_old_version_serving() {
    let abort = as_versioned(&Library::aborting());
    leaves_the_old_version_serving(&[("abort", abort, "panic")]).await;
}

#[tokio::test]
async fn a_plugin_without_its_root_module_leaves_the_old_version_serving() {
    let rootless = Library::version("rootless").replaced("_1as_0lib_1header", "_1as_0lib_1hidden");
    leaves_the_old_version_serving(&[("rootless", rootless, "root module")]).await;
}

#[tokio::test]
async fn a_plugin_that_fails_to_start_leaves_the_old_version_serving() {
    let fails = as_versioned(&Library::plugin("init_fails"));
    leaves_the_old_version_serving(&[("fails", fails, "there is no database at db.example")]).await;
}

#[tokio::test]
async fn a_plugin_with_tokio_main_on_its_function_is_told_to_remove_it() {
    let setup = Setup::new().plugin("init_fails");
    let host = setup.env("INIT_FAILS", "tokio::main").start().await;
    let error = host.log().eventually(&["ERROR", "Not loaded"]).await;
    for part in [
        "starts a tokio runtime in init_fails::program",
        "init_fails/src/lib.rs:",
        "remove `#[tokio::main]` from the function",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_plugin_that_panics_in_its_start_leaves_the_old_version_serving() {
    let panics = as_versioned(&Library::plugin("panics").marked("init"));
    leaves_the_old_version_serving(&[("panics", panics, "panic in init")]).await;
}

#[tokio::test]
async fn a_plugin_that_waits_for_ever_in_its_start_leaves_the_old_version_serving() {
    let hangs = as_versioned(&Library::plugin("init_hangs").marked("pending"));
    let lines = leaves_the_old_version_serving(&[("hangs", hangs, "did not start within")]).await;
    // The host shuts down the runtime of the app, which ends the start that waits, so no thread of the app remains.
    assert!(!lines[0].text.contains("blocks a thread"), "{lines:?}");
}

#[tokio::test]
async fn a_plugin_that_blocks_in_its_start_leaves_the_old_version_serving() {
    let blocks = as_versioned(&Library::plugin("init_hangs").marked("blocking"));
    leaves_the_old_version_serving(&[("blocks", blocks, "blocks a thread")]).await;
}

#[tokio::test]
async fn a_folder_a_pipe_and_a_dangling_link_are_no_libraries() {
    let setup = Setup::new().library(FILE, &Library::version("v1"));
    fs::create_dir(setup.folder().join("folder.so")).unwrap();
    symlink("nowhere", setup.folder().join("link.so")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(setup.folder().join("pipe.so"))
            .status()
            .unwrap()
            .success()
    );
    let host = setup.start().await;
    host.folder().put(
        "libother.so",
        &Library::version("v2")
            .with_fact("name", "other")
            .with_fact("mount", "/other"),
    );
    host.serves("/other", "v2").await;
    assert_eq!(host.get("/versioned").await.text(), "v1");
}

#[tokio::test]
async fn a_library_that_never_was_good_is_named_by_plugin_file_and_hash() {
    let other = Library::version("v1").with_fact("abi", "99.0");
    let host = Setup::new().library(FILE, &other).start().await;
    let line = host.log().eventually(&["ERROR", "ABI 99.0"]).await;
    for part in ["plugin=versioned", FILE, "hash=", "step=manifest"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(host.get("/versioned").await.status, 404);
}

#[tokio::test]
async fn a_plugin_whose_first_load_fails_is_503_until_a_good_one_comes() {
    let setup = Setup::new()
        .library(FILE, &as_versioned(&Library::plugin("init_fails")))
        .plugin("hello");
    let host = setup.start().await;
    host.log().eventually(&["ERROR", FILE, "db.example"]).await;
    let reply = host.get("/versioned").await;
    assert_eq!(reply.status, 503);
    assert!(
        reply.header("retry-after").parse::<u32>().is_ok(),
        "{reply:?}"
    );
    assert_eq!(host.get("/quiet").await.status, 200);
    host.folder().put(FILE, &Library::version("v2"));
    host.serves("/versioned", "v2").await;
}

#[tokio::test]
async fn a_plugin_that_is_starting_is_503_and_holds_up_nobody() {
    let host = Setup::new()
        .plugin("init_hangs")
        .plugin("hello")
        .start()
        .await;
    host.log().eventually(&["init_hangs", "hangs: "]).await;
    assert_eq!(host.get("/init_hangs").await.status, 503);
    assert_eq!(host.get("/quiet").await.status, 200);
    host.folder().put(FILE, &Library::version("v1"));
    host.serves("/versioned", "v1").await;
    // A blocked start does not delay the stop of the host either.
    assert_eq!(host.stop().await.code, Some(0));
}

#[tokio::test]
async fn what_lies_beside_plugins_is_told_once_and_takes_no_name() {
    // The host reads the debug information before the library, because its path sorts first. Such a file must not take
    // the plugin's name.
    let library = Library::version("v1");
    let setup = Setup::new()
        .library("libversioned.debug.so", &library.debug_information())
        .library("libhelper.so", &Library::foreign())
        .library(FILE, &library);
    let host = setup.start().await;
    host.serves("/versioned", "v1").await;
    for file in ["libhelper.so", "libversioned.debug.so"] {
        host.log().eventually(&["INFO", "Not a plugin", file]).await;
    }
    host.folder().put("libhelper.so", &Library::foreign());
    host.folder().put(FILE, &Library::version("v2"));
    host.serves("/versioned", "v2").await;
    let exit = host.stop().await;
    let output = exit.to_string();
    assert!(!output.contains("ERROR"), "{output}");
    assert_eq!(output.matches("Not a plugin").count(), 2, "{output}");
}

/// Replaces a good library by each bad library in turn, and finally by a good library again. Asserts that the old
/// version serves in the meantime. Returns the host's error line for each bad library.
///
/// A bad library is a description for failures of the test, the library, and a part of the expected error.
async fn leaves_the_old_version_serving(bad: &[(&str, Library, &str)]) -> Vec<Line> {
    let setup = Setup::new().library(FILE, &Library::version("v1"));
    let host = setup.arg("--init-timeout=300ms").start().await;
    host.serves("/versioned", "v1").await;
    for (index, (description, library, reason)) in bad.iter().enumerate() {
        host.folder().put(FILE, library);
        let line = host.log().nth_with(index, &["ERROR"]).await;
        for part in [
            "plugin=versioned",
            FILE,
            "hash=",
            "step=",
            reason,
            "continues to serve",
        ] {
            assert!(line.contains(part), "{part} of {description}: {line}");
        }
        assert_eq!(host.get("/versioned").await.text(), "v1", "{description}");
    }
    host.folder().put(FILE, &Library::version("v2"));
    host.serves("/versioned", "v2").await;
    let exit = host.stop().await;
    let errors: Vec<_> = exit
        .log()
        .into_iter()
        .filter(|line| line.level == "ERROR")
        .collect();
    assert_eq!(errors.len(), bad.len(), "{errors:?}");
    errors
}

/// Returns the library with the name and mount of the fixture `versioned`, so that it replaces that fixture.
fn as_versioned(library: &Library) -> Library {
    library
        .with_fact("name", "versioned")
        .with_fact("mount", "/versioned")
}

const FILE: &str = "libversioned.so";
