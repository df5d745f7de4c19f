//! `host check FILE.so`: what a library says of itself, and the verdict.

use host_tests::{Exit, Library, Setup};

#[tokio::test]
async fn a_good_library_is_0_and_its_manifest_is_printed() {
    let exit = check(&Library::plugin("hello")).await;
    assert_eq!(exit.code, Some(0), "{exit}");
    assert_eq!(exit.stderr, [""; 0]);
    let printed = exit.stdout.join("\n");
    for fact in [
        "libchecked.so",
        "hello",
        "0.1.0",
        "mount",
        "1.4",
        "rustc",
        "-linux-",
        "unwind",
        "would load",
    ] {
        assert!(printed.contains(fact), "{fact}: {printed}");
    }
}

#[tokio::test]
async fn a_bad_library_is_1_and_the_reason() {
    let version = Library::version("v1");
    for (library, reason) in [
        (Library::new(""), "cut short"),
        (Library::new("text"), "no ELF"),
        (version.truncated(20_000), "cut short"),
        (version.truncated(version.bytes().len() - 1), "cut short"),
        (Library::executable(), "an executable"),
        (Library::foreign(), "no manifest"),
        (version.with_fact("abi", "99.0"), "ABI 99.0"),
        (Library::aborting(), "panic"),
    ] {
        let exit = check(&library).await;
        assert_eq!(
            (exit.code, exit.signal),
            (Some(1), None),
            "{reason}: {exit}"
        );
        let verdict = exit
            .stdout
            .iter()
            .chain(&exit.stderr)
            .find(|line| line.contains(reason));
        assert!(verdict.is_some(), "{reason}: {exit}");
    }
}

#[tokio::test]
async fn what_a_refused_library_says_of_itself_is_printed_too() {
    let exit = check(&Library::version("v1").with_fact("abi", "99.0")).await;
    assert!(
        exit.stdout.iter().any(|line| line.contains("versioned")),
        "{exit}"
    );
}

#[tokio::test]
async fn the_app_is_not_started() {
    let exit = check(&Library::plugin("panics").marked("init")).await;
    assert_eq!(exit.code, Some(0), "{exit}");
    let exit = check(&Library::plugin("init_hangs").marked("blocking")).await;
    assert_eq!(exit.code, Some(0), "{exit}");
}

#[tokio::test]
async fn a_file_that_is_missing_is_1() {
    let exit = Setup::new().arg("check").arg("/nowhere/lib.so").run().await;
    assert_eq!(exit.code, Some(1), "{exit}");
}

async fn check(library: &Library) -> Exit {
    let setup = Setup::new().library("libchecked.so", library);
    let file = setup.folder().join("libchecked.so");
    setup.arg("check").arg(file).run().await
}
