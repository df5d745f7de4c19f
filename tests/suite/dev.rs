//! `host dev`: a saved file is built, and the new version serves.

use std::{fs, net::TcpListener, path::Path, process::Command};

use host_tests::{Dev, Workbench, host_command};
use rustix::process::Signal;

#[tokio::test]
async fn a_saved_file_is_served_however_it_was_saved() {
    let bench = Workbench::new("saved");
    let source = bench.new_crate("dev-saved", "native").join("src/lib.rs");
    let session = Dev::start(&bench.path().join("dev-saved"), &[]).await;
    session.serves("/dev-saved", "hello world").await;
    session
        .stdout()
        .eventually(&["dev-saved is at http://127.0.0.1:", "/dev-saved"])
        .await;

    // Write the file in place, as most editors do.
    fs::write(&source, edited(&source, "hello world", "in place")).unwrap();
    session.serves("/dev-saved", "in place").await;
    let line = session
        .stdout()
        .eventually(&["src/lib.rs: built in", "edit → live"])
        .await;
    assert!(line.contains("dev-saved#2 swapped in after"), "{line}");

    // Rename the file away and write a new one, as vim does.
    let backup = source.with_file_name("lib.rs~");
    let text = edited(&source, "in place", "renamed");
    fs::rename(&source, &backup).unwrap();
    fs::write(&source, text).unwrap();
    fs::remove_file(&backup).unwrap();
    session.serves("/dev-saved", "renamed").await;

    // Write twice in a row, as a formatter does. The first version must not be served.
    fs::write(&source, edited(&source, "renamed", "once")).unwrap();
    fs::write(&source, edited(&source, "once", "twice")).unwrap();
    session.serves("/dev-saved", "twice").await;
    session
        .stdout()
        .eventually(&["dev-saved#4 swapped in"])
        .await;
    assert!(session.stdout().with(&["dev-saved#5"]).is_empty());
}

#[tokio::test]
async fn sources_that_do_not_compile_leave_the_old_version_serving() {
    let bench = Workbench::new("broken");
    let folder = bench.new_crate("dev-broken", "native");
    let source = folder.join("src/lib.rs");
    let good = fs::read_to_string(&source).unwrap();
    let mut session = Dev::start(&folder, &[]).await;
    session.serves("/dev-broken", "hello world").await;

    fs::write(
        &source,
        good.replace("fn hello() -> Response {", "fn hello() -> Response { oops;"),
    )
    .unwrap();
    session
        .stdout()
        .eventually(&["build failed after", "what served before serves on"])
        .await;
    session
        .log()
        .eventually(&["cannot find value `oops`"])
        .await;
    session.serves("/dev-broken", "hello world").await;

    // A module whose file is written later. Each run uses a new name, because the target folder is kept between runs:
    // with an old name, a dep-info file of an earlier run would list the file.
    let module = format!("words_{}", std::process::id());
    fs::write(
        &source,
        good.replace("fn hello()", &format!("mod {module};\n\nfn hello()"))
            .replace(
                "<h1>hello world</h1>\\n\"",
                &format!("<h1>hello world</h1>\\n\".replace(\"hello world\", {module}::HELLO)"),
            ),
    )
    .unwrap();
    session
        .log()
        .eventually(&[&format!("file not found for module `{module}`")])
        .await;
    fs::write(
        folder.join(format!("src/{module}.rs")),
        "pub const HELLO: &str = \"mended\";\n",
    )
    .unwrap();
    session.serves("/dev-broken", "mended").await;

    // A manifest that Cargo rejects.
    let manifest = folder.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, "[package").unwrap();
    session.log().eventually(&["unclosed table"]).await;
    fs::write(&manifest, text).unwrap();
    session.stdout().eventually(&["Cargo.toml: built in"]).await;
    session.serves("/dev-broken", "mended").await;

    // An app that does not start.
    let panics = edited(
        &source,
        "pub fn app(request",
        "pub fn app(_: plugin_api::Context) -> Result<plugin_api::native::App<fn(Request<'_>) -> Response>, plugin_api::BoxError> {\n    Err(\"no database\".into())\n}\n\nfn _old(request",
    );
    fs::write(&source, panics).unwrap();
    session
        .stdout()
        .eventually(&["libdev_broken.so does not start", "no database"])
        .await;
    session.serves("/dev-broken", "mended").await;

    session.type_line("l off");
    session.stdout().eventually(&["log level off"]).await;
    session.type_line("r");
    session
        .stdout()
        .eventually(&["built in", "and nothing is new"])
        .await;
    session.type_line("q");
    assert_eq!(session.exit().await.code(), Some(0));
}

#[tokio::test]
async fn another_branch_is_served_when_it_is_checked_out() {
    let bench = Workbench::new("branches");
    let folder = bench.new_crate("dev-branch", "native");
    let source = folder.join("src/lib.rs");
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=test", "-c", "user.email=test@example.org"]);
        let output = git.args(args).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    // `host new` has created a git repository for the crate.
    git(&["symbolic-ref", "HEAD", "refs/heads/main"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message=main"]);
    git(&["checkout", "--quiet", "-b", "other"]);
    fs::create_dir(folder.join("src/words")).unwrap();
    fs::write(
        folder.join("src/words/mod.rs"),
        "pub const HELLO: &str = \"other branch\";\n",
    )
    .unwrap();
    let text = edited(&source, "fn hello()", "mod words;\n\nfn hello()");
    fs::write(
        &source,
        text.replace(
            "<h1>hello world</h1>\\n\"",
            "<h1>hello world</h1>\\n\".replace(\"hello world\", words::HELLO)",
        ),
    )
    .unwrap();
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message=other"]);
    git(&["checkout", "--quiet", "main"]);

    let mut session = Dev::start(&folder, &[]).await;
    session.serves("/dev-branch", "hello world").await;
    // Switch twice, because only the first checkout creates the folder of the module.
    for _ in 0..2 {
        git(&["checkout", "--quiet", "other"]);
        session.serves("/dev-branch", "other branch").await;
        git(&["checkout", "--quiet", "main"]);
        session.serves("/dev-branch", "hello world").await;
    }

    session.signal(Signal::INT);
    assert_eq!(session.exit().await.code(), Some(0));
    assert!(
        TcpListener::bind(session.address()).is_ok(),
        "the server is gone"
    );
}

#[tokio::test]
async fn of_two_plugins_in_a_workspace_the_one_that_changed_is_swapped() {
    let bench = Workbench::new("two");
    let one = bench.new_crate("dev-one", "native").join("src/lib.rs");
    bench.new_crate("dev-two", "native");
    // `host dev` reads the configuration file of the server from the folder of the manifest.
    fs::write(
        bench.path().join("host.toml"),
        "mount = [\"/other=dev-two\"]\n",
    )
    .unwrap();
    let session = Dev::start(bench.path(), &[]).await;
    session.serves("/dev-one", "hello world").await;
    session.serves("/other", "hello world").await;
    fs::write(&one, edited(&one, "hello world", "changed")).unwrap();
    session.serves("/dev-one", "changed").await;
    let line = session
        .stdout()
        .eventually(&["dev-one/src/lib.rs: built in"])
        .await;
    assert!(
        line.contains("dev-one#2") && !line.contains("dev-two"),
        "{line}"
    );
    session.serves("/other", "hello world").await;
}

#[test]
fn a_session_is_refused_where_it_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |args: &[&str], folder: &Path| {
        let output = Dev::command(folder, args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let stderr = refused(&[], folder.path());
    assert!(stderr.contains("there is no Cargo.toml"), "{stderr}");

    let bench = Workbench::new("refused");
    let folder = bench.new_crate("dev-refused", "native");
    let stderr = refused(&["--bind=0.0.0.0:0"], &folder);
    assert!(
        stderr.contains("0.0.0.0:0 can be reached from other machines"),
        "{stderr}"
    );

    let manifest = folder.join("Cargo.toml");
    fs::write(&manifest, edited(&manifest, "\"cdylib\", ", "")).unwrap();
    let stderr = refused(&[], &folder);
    assert!(
        stderr.contains("add `[lib] crate-type = [\"cdylib\", \"rlib\"]`"),
        "{stderr}"
    );
    let output = host_command()
        .args(["dev", "--log-level=loud"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// Returns the text of a file in which `from` is replaced by `to`. The file itself does not change.
fn edited(file: &Path, from: &str, to: &str) -> String {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{text}");
    text.replace(from, to)
}
