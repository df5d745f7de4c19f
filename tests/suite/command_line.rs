//! Flags, variables and the configuration file, and what happens to wrong ones.

use std::fs;

use host_tests::Setup;

#[tokio::test]
async fn wrong_usage_is_exit_code_2_and_names_what_is_wrong() {
    for (arg, named) in [
        ("--no-such-flag", "--no-such-flag"),
        ("--bind=nowhere", "nowhere"),
        ("--mount=shop", "shop"),
        ("--graceful-timeout=30", "30"),
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
    let told = &exit.stderr[0];
    assert!(
        told.starts_with("error: HOST_KEEP_ALIVE: ") && told.contains("soon"),
        "{told}"
    );
    // A flag takes its place, and is wrong itself.
    let exit = setup().arg("--keep-alive=late").run().await;
    let told = exit.stderr.join("\n");
    assert!(!told.contains("HOST_") && told.contains("late"), "{told}");
}

#[tokio::test]
async fn a_wrong_file_is_exit_code_2_and_told_once() {
    let setup = Setup::new();
    let file = setup.folder().join("host.toml");
    fs::write(&file, "[app.shop]\nplugn = 'shop'").unwrap();
    let exit = setup.arg("--config").arg(&file).run().await;
    assert_eq!(exit.code, Some(2), "{exit}");
    let told = exit.stderr.join("\n");
    assert_eq!(told.matches("app.shop.plugn").count(), 1, "{told}");
    assert!(told.contains("host.toml: "), "{told}");
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
