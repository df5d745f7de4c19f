//! Flags, environment variables and the configuration file, and the errors for wrong values.

use std::{fs, os::unix::fs::symlink};

use host_tests::{Ctl, Library, Setup};
use rustix::process::Signal;

#[tokio::test]
async fn wrong_usage_is_exit_code_2_and_names_what_is_wrong() {
    for (arg, named) in [
        ("--no-such-flag", "--no-such-flag"),
        ("--bind=nowhere", "nowhere"),
        ("--mount=shop", "shop"),
        ("--graceful-timeout=soon", "soon"),
        ("--max-body-size=much", "much"),
        ("--threads=0", "0"),
        ("--access-log-skip=healthz", "/healthz"),
        ("no-such-command", "no-such-command"),
    ] {
        let exit = Setup::new().arg(arg).run().await;
        assert_eq!(exit.code, Some(2), "{arg}: {exit}");
        assert!(exit.stderr.join("\n").contains(named), "{arg}: {exit}");
        assert_eq!(exit.stdout, [""; 0], "{arg}");
    }
}

#[tokio::test]
async fn a_wrong_variable_is_exit_code_2() {
    let setup = || Setup::new().env("HOST_KEEP_ALIVE", "soon");
    let exit = setup().run().await;
    assert_eq!(exit.code, Some(2), "{exit}");
    assert_eq!(exit.stderr.len(), 1, "{exit}");
    let stderr = &exit.stderr[0];
    assert!(
        stderr.starts_with("error: HOST_KEEP_ALIVE: ") && stderr.contains("soon"),
        "{stderr}"
    );
    // The flag overrides the variable, so only the wrong value of the flag is reported.
    let exit = setup().arg("--keep-alive=late").run().await;
    let stderr = exit.stderr.join("\n");
    assert!(
        !stderr.contains("HOST_") && stderr.contains("late"),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_wrong_file_is_exit_code_2_and_told_once() {
    let setup = Setup::new();
    let file = setup.folder().join("host.toml");
    fs::write(&file, "[app.shop]\nplugn = 'shop'").unwrap();
    let exit = setup.arg("--config").arg(&file).run().await;
    assert_eq!(exit.code, Some(2), "{exit}");
    let stderr = exit.stderr.join("\n");
    assert_eq!(stderr.matches("app.shop.plugn").count(), 1, "{stderr}");
    assert!(stderr.contains("host.toml: "), "{stderr}");
}

#[tokio::test]
async fn help_and_version_are_on_stdout_with_0() {
    for (arg, part) in [("--help", "--log-level"), ("--version", "host 0.")] {
        let exit = Setup::new().arg(arg).run().await;
        assert_eq!(exit.code, Some(0), "{exit}");
        assert!(exit.stdout.join("\n").contains(part), "{exit}");
        assert_eq!(exit.stderr, [""; 0]);
    }
}

#[tokio::test]
async fn a_configuration_file_sets_what_flags_do() {
    let setup = Setup::new().plugin("echo");
    let file = setup.folder().join("host.toml");
    fs::write(&file, "mount = ['/from-file=echo']\nlog-level = 'off'\n").unwrap();
    let host = setup.arg("--config").arg(&file).start().await;
    assert_eq!(host.get("/from-file/x").await.json()["mount"], "/from-file");
    assert_eq!(host.stop().await.stderr, [""; 0]);
}

#[tokio::test]
async fn a_wrong_configuration_file_is_exit_code_2_and_one_line() {
    for (text, named) in [
        ("log-lvel = 'info'", "log-lvel"),
        ("log-level = 'loud'", "loud"),
        ("= what", "host.toml:1"),
    ] {
        let setup = Setup::new();
        let file = setup.folder().join("host.toml");
        fs::write(&file, text).unwrap();
        let exit = setup.arg("--config").arg(&file).run().await;
        assert_eq!((exit.code, exit.stderr.len()), (Some(2), 1), "{exit}");
        assert!(
            exit.stderr[0].contains(named) && exit.stderr[0].contains("host.toml"),
            "{exit}"
        );
    }
}

#[tokio::test]
async fn print_config_tells_where_each_value_comes_from() {
    let setup = Setup::new()
        .env("HOST_KEEP_ALIVE", "5s")
        .arg("--threads=3")
        .arg("--print-config");
    let exit = setup.run().await;
    assert_eq!(exit.code, Some(0), "{exit}");
    for line in [
        "keep-alive = \"5s\"  # environment",
        "threads = 3  # flag",
        "log-level = \"info\"  # default",
    ] {
        assert!(
            exit.stdout.iter().any(|printed| printed == line),
            "{line}: {exit}"
        );
    }
}

#[tokio::test]
async fn variables_of_the_server_do_not_disturb_check_and_ctl() {
    let setup = || {
        Setup::new()
            .env("HOST_THREADS", "x")
            .env("HOST_CONTROL", "")
    };
    let setup_of_check = setup().library("libshop.so", &Library::version("v1"));
    let file = setup_of_check.folder().join("libshop.so");
    let exit = setup_of_check.arg("check").arg(file).run().await;
    assert_eq!(exit.code, Some(0), "{exit}");
    let exit = setup().args(&["ctl", "plugins"]).run().await;
    assert_eq!(exit.code, Some(2), "{exit}");
    assert!(exit.to_string().contains("no control socket"), "{exit}");
    // The server, unlike `host check` and `host ctl`, reads HOST_THREADS.
    assert!(setup().run().await.to_string().contains("HOST_THREADS: "));
}

#[tokio::test]
async fn an_empty_variable_is_one_that_is_not_set() {
    let setup = Setup::new()
        .env("HOST_LOG_LEVEL", "")
        .env("HOST_LOG_FILE", "");
    let exit = setup.env("HOST_CONTROL", "").start().await.stop().await;
    assert_eq!(exit.code, Some(0), "{exit}");
}

#[tokio::test]
async fn a_wrong_word_is_told_with_its_variable_and_the_words_that_are_right() {
    for (variable, value, words) in [
        ("HOST_AUTO_ROLLBACK", "maybe", "true, yes, on, 1"),
        ("HOST_LOG_FORMAT", "xml", "expected text or json"),
        ("HOST_THREADS", "many", "a number from 1 to 1024"),
    ] {
        let exit = Setup::new().env(variable, value).run().await;
        let stderr = exit.stderr.join("\n");
        assert!(
            stderr.starts_with(&format!("error: {variable}: ")) && stderr.contains(words),
            "{stderr}"
        );
        assert_eq!((exit.code, exit.stderr.len()), (Some(2), 1), "{exit}");
    }
}

#[tokio::test]
async fn a_variable_that_is_nearly_a_setting_is_named() {
    let setup = Setup::new()
        .env("HOST_LOGLEVEL", "debug")
        .env("HOST_PORT", "1");
    let host = setup.env("RUST_LOG", "debug").start().await;
    host.log()
        .eventually(&[
            "WARN",
            "HOST_LOGLEVEL sets nothing; is HOST_LOG_LEVEL meant?",
        ])
        .await;
    host.log().eventually(&["RUST_LOG has no effect"]).await;
    let exit = host.stop().await;
    assert!(!exit.to_string().contains("HOST_PORT"), "{exit}");
}

#[tokio::test]
async fn a_reader_that_has_gone_is_no_error() {
    let ctl = Ctl::new();
    let _host = Setup::new().arg(ctl.option()).start().await;
    let library = Setup::new().library("libshop.so", &Library::version("v1"));
    let file = library.folder().join("libshop.so");
    for setup in [
        Setup::new().arg("--print-config"),
        Setup::new().arg("--help"),
        Setup::new().args(&["ctl", "plugins", &ctl.option()]),
        Setup::new().args(&["ctl", "plugins", "--json", &ctl.option()]),
        library.arg("check").arg(file),
    ] {
        let exit = setup.run_unread().await;
        assert_eq!((exit.code, exit.stderr.len()), (Some(0), 0), "{exit}");
    }
}

#[tokio::test]
async fn a_plugins_folder_that_is_not_there_is_not_made() {
    let setup = || Setup::new().env("HOST_PLUGINS", "");
    let parent = Setup::new();
    let folder = parent.folder();
    fs::write(folder.join("file"), "").unwrap();
    symlink("nowhere", folder.join("link")).unwrap();
    for name in ["typo/plugins", "file", "link"] {
        let path = folder.join(name);
        let exit = setup().arg("--plugins").arg(&path).run().await;
        assert_eq!((exit.code, exit.stdout.len()), (Some(1), 0), "{exit}");
        let stderr = exit.to_string();
        let error = format!("cannot read the plugins folder {}", path.display());
        assert!(
            stderr.contains(&error) && stderr.contains("--plugins"),
            "{stderr}"
        );
    }
    assert!(!folder.join("typo").exists() && !folder.join("nowhere").exists());

    // The host creates the default folder if it is missing, and logs that the folder is empty.
    let host = setup().directory(folder.path()).start().await;
    host.log()
        .eventually(&[
            "No plugins yet",
            &folder.join("plugins").display().to_string(),
        ])
        .await;
    fs::write(
        folder.join("plugins/libversioned.so"),
        Library::version("v1").bytes(),
    )
    .unwrap();
    host.serves("/versioned", "v1").await;
}

#[tokio::test]
async fn ctl_does_not_wait_for_a_host_that_is_stopped() {
    let ctl = Ctl::new();
    let host = Setup::new().arg(ctl.option()).start().await;
    host.freeze();
    let refusal = ctl.refusal(&["plugins", "--timeout=100ms"]).await;
    assert!(
        refusal.contains("does not answer within 100ms"),
        "{refusal}"
    );
    host.signal(Signal::CONT);
    ctl.text(&["plugins"]).await;
}

#[tokio::test]
async fn relative_paths_lead_from_where_the_host_was_started() {
    let setup = Setup::new().plugin("process_wide").plugin("versioned");
    let place = setup.folder().path().to_owned();
    fs::write(
        place.join("host.toml"),
        "plugins = '.'\nlog-file = 'host.log'\ncontrol = 'unix:ctl'\nstate-dir = 'state'",
    )
    .unwrap();
    let setup = setup.directory(&place).env("HOST_PLUGINS", "");
    let host = setup
        .args(&["--config=host.toml", "--rescan=20ms"])
        .start()
        .await;
    assert_eq!(host.get("/process_wide/leave").await.text(), "left");
    // An app has changed the working directory. The host restores it, so it still finds new plugins in the folder ".".
    host.folder().put("libother.so", &other());
    host.serves("/other", "v2").await;
    assert_eq!(host.get("/versioned").await.text(), "unmarked");
    for (signal, line) in [
        (Signal::USR1, "Log files reopened"),
        (Signal::HUP, "Configuration reloaded"),
    ] {
        host.signal(signal);
        host_tests::eventually(line, async || {
            let log = fs::read_to_string(place.join("host.log")).unwrap();
            log.contains(line).then_some(())
        })
        .await;
    }
    host.signal(Signal::TERM);
    host_tests::eventually("the socket is gone", async || {
        (!place.join("ctl").exists()).then_some(())
    })
    .await;
    let log = fs::read_to_string(place.join("host.log")).unwrap();
    assert!(!log.contains("Removed") && !log.contains("ERROR"), "{log}");
    assert_eq!(host.exit().await.code, Some(0));
}

/// Returns a plugin with another name and mount than `versioned`.
fn other() -> Library {
    Library::version("v2")
        .with_fact("name", "other")
        .with_fact("mount", "/other")
}
