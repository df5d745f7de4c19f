//! `host check FILE.so` prints the manifest of a library, and whether a host would load the library.

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
        // The first bytes of an `ar` archive: a crate whose type is not `cdylib` builds an `.rlib`, which is such an
        // archive.
        (
            Library::new("!<arch>\n/               0           0     0     0       0         `\n"),
            "with `[lib] crate-type = [\"cdylib\", \"rlib\"]` in its Cargo.toml",
        ),
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

#[tokio::test]
async fn a_library_whose_constructor_does_not_end_well_is_refused() {
    for (mark, reason) in [
        ("hanging constructor", "did not end within 100ms"),
        ("crashing constructor", "ended the process with SIGABRT"),
        ("exiting constructor", "ended the process with exit code 0"),
    ] {
        let library = Library::plugin("process_wide").marked(mark);
        let setup = Setup::new().library("libchecked.so", &library);
        let file = setup.folder().join("libchecked.so");
        let exit = setup
            .args(&["check", "--timeout=100ms"])
            .arg(file)
            .run()
            .await;
        assert_eq!(exit.code, Some(1), "{exit}");
        let verdict = exit.stdout.last().unwrap();
        assert!(verdict.contains(reason), "{exit}");
    }
}

#[tokio::test]
async fn what_the_dynamic_linker_finds_beside_the_original_only_is_missing() {
    let library = Library::plugin("versioned").replaced("libgcc_s.so.1", "libmine_.so.1");
    let exit = check(&library).await;
    assert_eq!(exit.code, Some(1), "{exit}");
    let verdict = exit.stdout.last().unwrap();
    assert!(
        verdict.contains("libmine_.so.1") && verdict.contains("LD_LIBRARY_PATH"),
        "{verdict}"
    );
    assert!(!verdict.contains("noexec"), "{verdict}");
}

#[tokio::test]
async fn several_libraries_are_checked_and_nothing_is_left_behind() {
    let setup = Setup::new()
        .library("libgood.so", &Library::version("v1"))
        .library("libbad.so", &Library::foreign());
    let (good, bad) = (
        setup.folder().join("libgood.so"),
        setup.folder().join("libbad.so"),
    );
    let host = setup.arg("check").arg(&good).arg(&bad).spawn();
    let folder = host.folder().path().to_owned();
    host_tests::eventually("the verdicts", async || {
        (host.stdout().with(&["verdict"]).len() == 2).then_some(())
    })
    .await;
    host_tests::eventually("nothing is left", async || {
        (std::fs::read_dir(&folder).unwrap().count() == 2).then_some(())
    })
    .await;
    assert_eq!(host.exit().await.code, Some(1));
}

/// Runs `host check` for the library.
async fn check(library: &Library) -> Exit {
    let setup = Setup::new().library("libchecked.so", library);
    let file = setup.folder().join("libchecked.so");
    setup.arg("check").arg(file).run().await
}
