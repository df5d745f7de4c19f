use std::{env, fs, process, time::Duration};

use super::*;

/// Resolves flags, with a configuration file if there is one.
fn resolve_with(file: Option<&str>, flags: &[&str]) -> Result<Resolved, SettingsError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.toml");
    let mut args: Vec<OsString> = vec!["host".into()];
    if let Some(text) = file {
        fs::write(&path, text).unwrap();
        args.extend(["--config".into(), path.into()]);
    }
    args.extend(flags.iter().map(Into::into));
    let mut command = with_negative_numbers(ServerCommand::command());
    let matches = command.try_get_matches_from_mut(&args)?;
    resolve(command, matches, &args)
}

fn config(file: Option<&str>, flags: &[&str]) -> Config {
    match resolve_with(file, flags) {
        Ok(Resolved::Serve(settings)) => *settings.config,
        other => panic!("{other:?}"),
    }
}

fn error(file: Option<&str>, flags: &[&str]) -> String {
    resolve_with(file, flags).unwrap_err().to_string()
}

fn printed(file: Option<&str>, flags: &[&str]) -> String {
    match resolve_with(file, &[flags, &["--print-config"]].concat()) {
        Ok(Resolved::Print(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults_are_sane() {
    let config = config(None, &[]);
    let here = env::current_dir().unwrap();
    assert_eq!(config.plugins, here.join("plugins"));
    assert_eq!(config.state_dir(), here.join("plugins/.host"));
    assert!(config.is_default_folder);
    assert_eq!(config.app_threads(), config.threads.max(2));
    assert_eq!(config.bind, ["127.0.0.1:8000".parse().unwrap()]);
    assert_eq!(config.log_level.to_string(), "info");
    assert_eq!(config.mount, []);
    assert_eq!(config.limits.max_header_bytes, 16 << 10);
    assert_eq!(config.limits.max_body_size, 64 << 20);
    assert_eq!(config.limits.keep_alive, Duration::from_secs(75));
}

#[test]
fn every_option_can_be_a_flag_or_a_key() {
    let table = [
        ("plugins", "/srv/plugins", "\"/srv/plugins\""),
        ("bind", "localhost:0", "[\"localhost:0\"]"),
        ("log-level", "warning,shop=debug", "\"warning,shop=debug\""),
        ("control", "unix:/run/host.sock", "\"unix:/run/host.sock\""),
        ("mount", "/=hello", "[\"/=hello\"]"),
        ("state-dir", "/var/lib/host", "\"/var/lib/host\""),
        ("threads", "3", "3"),
        ("app-threads", "4", "4"),
        ("quiet-time", "0s", "\"0s\""),
        ("rescan", "5s", "\"5s\""),
        ("init-timeout", "1m", "\"1m\""),
        ("ready-timeout", "0s", "\"0s\""),
        ("panic-limit", "5", "5"),
        ("panic-window", "10s", "\"10s\""),
        ("graceful-timeout", "1m 30s", "\"1m 30s\""),
        ("workers", "2", "2"),
        ("crash-limit", "5", "5"),
        ("worker-max-memory", "1GiB", "\"1GiB\""),
        ("worker-max-age", "1h", "\"1h\""),
        ("worker-max-copies", "1GiB", "\"1GiB\""),
        ("worker-timeout", "1m", "\"1m\""),
        ("crash-window", "2m", "\"2m\""),
        ("watch", "poll", "\"poll\""),
        ("handover-timeout", "5s", "\"5s\""),
        ("auto-rollback", "true", "\"true\""),
        ("probation", "5s", "\"5s\""),
        ("rollback-failures", "3", "3"),
        ("rollback-percent", "20", "20"),
        ("max-header-bytes", "32KiB", "\"32KiB\""),
        ("max-headers", "50", "50"),
        ("header-timeout", "5s", "\"5s\""),
        ("body-timeout", "5s", "\"5s\""),
        ("max-body-size", "none", "\"none\""),
        ("keep-alive", "500ms", "\"500ms\""),
        ("max-connections", "100", "100"),
        ("log-format", "json", "\"json\""),
        ("log-file", "/var/log/host", "\"/var/log/host\""),
        ("debug-header", "x-debug=12345678", "\"x-debug=12345678\""),
        ("capture-output", "true", "\"true\""),
        ("access-log", "-", "\"-\""),
        ("access-log-format", "%(h)s %%", "\"%(h)s %%\""),
        ("access-log-skip", "/healthz", "[\"/healthz\"]"),
    ];
    let command = ServerCommand::command();
    assert_eq!(
        file::keys(&command)
            .filter_map(clap::Arg::get_long)
            .collect::<Vec<_>>(),
        table.map(|(key, ..)| key)
    );
    let lines = |source| {
        table
            .map(|(key, _, toml)| match key {
                "debug-header" => format!("# {key} is set, and not shown\n"),
                _ => format!("{key} = {toml}  # {source}\n"),
            })
            .concat()
    };
    let flags = table.map(|(key, value, _)| format!("--{key}={value}"));
    assert_eq!(
        printed(None, &flags.each_ref().map(String::as_str)),
        lines("flag")
    );
    // The printed text is a configuration file itself.
    let secret = "debug-header = 'x-debug=12345678'\n";
    let file = lines("flag") + secret;
    assert_eq!(printed(Some(&file), &[]), lines("file"));
}

#[test]
fn the_file_is_above_defaults_and_below_flags() {
    let file = "bind = ['[::1]:1', '[::1]:2']\nlog-level = 'debug'\nthreads = 7\nmount = '/a=a'";
    let text = printed(
        Some(file),
        &["--log-level", "warn", "--mount=/b=b,/c=c", "--mount=/d=d"],
    );
    for line in [
        r#"bind = ["[::1]:1", "[::1]:2"]  # file"#,
        r#"log-level = "warn"  # flag"#,
        r#"mount = ["/b=b", "/c=c", "/d=d"]  # flag"#,
        r"threads = 7  # file",
        r#"keep-alive = "75s"  # default"#,
        r"# state-dir is not set",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in {text}");
    }
}

// A test cannot set the environment of its own process. The test starts itself once more with the
// variables set, and the second process prints the settings.
#[test]
fn the_environment_is_above_the_file_and_below_flags() {
    let file = "log-level = 'debug'\nkeep-alive = '1s'\nrescan = '1s'";
    let flags = ["--keep-alive=3s"];
    if env::var_os("HOST_RESCAN").is_some() {
        return eprint!("{}", printed(Some(file), &flags));
    }
    let child = process::Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "--nocapture",
            "settings::tests::the_environment_is_above_the_file_and_below_flags",
        ])
        .envs([
            ("HOST_KEEP_ALIVE", "2s"),
            ("HOST_RESCAN", "2s"),
            ("HOST_BIND", "[::1]:1,[::1]:2"),
        ])
        .output()
        .unwrap();
    let text = String::from_utf8(child.stderr).unwrap();
    for line in [
        r#"log-level = "debug"  # file"#,
        r#"keep-alive = "3s"  # flag"#,
        r#"rescan = "2s"  # environment"#,
        r#"bind = ["[::1]:1", "[::1]:2"]  # environment"#,
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in {text}");
    }
}

#[test]
fn wrong_usage_names_the_value_and_what_is_valid() {
    let table: [(&[&str], &[&str]); 10] = [
        (
            &["--log-level=loud"],
            &[
                "'--log-level <LEVEL>'",
                "\"loud\" is not a log level, expected trace, debug",
            ],
        ),
        (
            &["--bind=8000"],
            &["\"8000\" is not an address", "127.0.0.1:8000"],
        ),
        (
            &["--keep-alive=0s"],
            &["\"0s\" is out of range, expected more than 0s"],
        ),
        (
            &["--max-headers=0"],
            &["\"0\" is not a number from 1 to 10000"],
        ),
        (&["--threads=x"], &["\"x\" is not a number from 1 to 1024"]),
        (
            &["--keep-alive", "-1"],
            &["\"-1\" is not a time, expected a number of seconds, or"],
        ),
        (
            &["--auto-rollback=maybe"],
            &["\"maybe\" is neither true nor false, expected true, yes, on, 1"],
        ),
        (&["--watch=never"], &["[possible values: events, poll]"]),
        (
            &["--mount=/a=x", "--mount=/a=y"],
            &["`/a` is mounted twice, for x and y, expected one app"],
        ),
        (&["--log-lvel=info"], &["--log-lvel", "--log-level"]),
    ];
    for (flags, parts) in table {
        let message = error(None, flags);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[test]
fn tables_describe_apps_and_are_printed_again() {
    let file = "[app.a]\nmount = \"/a\"\nplugin = \"shop\"\n\n\
                    [app.a.config]\ntitle = \"A\"\n\n[app.b]\nplugin = \"shop\"\n";
    let apps = config(Some(file), &[]).apps;
    assert_eq!([&*apps[0].name, &*apps[1].name], ["a", "b"]);
    assert_eq!(apps[0].config.as_deref(), Some(r#"{"title":"A"}"#));
    assert!(printed(Some(file), &[]).contains(file));
    assert_eq!(config(Some(&printed(Some(file), &[])), &[]).apps, apps);

    let message = error(Some(&file.replace("\"/a\"", "[\"/x\", \"/x\"]")), &[]);
    assert!(message.contains("`/x` is mounted twice"), "{message}");
}

#[test]
fn a_wrong_file_is_named_with_what_is_wrong() {
    let table = [
        ("a = 1\nb = ", "host.toml:2: "),
        (
            "log-lvel = 'info'",
            "there is no setting `log-lvel` (is `log-level` meant?), expected one of plugins, bind, log-level,",
        ),
        (
            "[apps.shop]\nplugin = 'shop'",
            "there is no setting `apps` (is `app` meant?), expected one of plugins,",
        ),
        (
            "log-level = 'info'\nlog_level = 'warn'",
            "`log-level` is set twice",
        ),
        (
            "log-format = 'xml'",
            "invalid value 'xml' for '--log-format <FORMAT>', expected text or json",
        ),
        ("config = 'x'", "there is no setting `config`"),
        (
            "[app.shop]\nplugins = 'shop'",
            "there is no setting `app.shop.plugins`, expected plugin, mount, config or reload",
        ),
        (
            "log-level = 'loud'",
            "\"loud\" is not a log level, expected",
        ),
        (
            "log-level = ['info', 'warn']",
            "cannot be used multiple times",
        ),
        (
            "keep-alive = 1.5",
            "\"1.5\" is not a time, expected a number of seconds, or numbers with units",
        ),
        ("bind = []", "the value of `bind` is of type array"),
        (
            "bind = 2026-11-23",
            "the value of `bind` is of type datetime",
        ),
    ];
    for (file, part) in table {
        // A flag that overrides the value does not hide the error.
        let message = error(Some(file), &["--log-level=info"]);
        assert!(
            message.contains("host.toml:") && message.contains(part),
            "{message}"
        );
        assert!(
            !message.contains('\n') && !message.contains("error:"),
            "{message}"
        );
    }
    assert_eq!(
        error(None, &["--config=/none.toml"]),
        "could not read the configuration file /none.toml"
    );
}

#[test]
fn what_is_meant_is_taken() {
    let config = config(
        Some("log_level = 'debug'\ngraceful-timeout = 30\nauto-rollback = 1\nlog_format = 'JSON'"),
        &[
            "--watch=Poll",
            "--max-body-size=16K",
            "--capture-output",
            "yes",
            "--control=/run/host.sock",
        ],
    );
    assert_eq!(config.log_level.to_string(), "debug");
    assert_eq!(config.graceful_timeout, Duration::from_secs(30));
    assert!(config.reload.auto_rollback && config.log.capture_output);
    assert_eq!(config.log.log_format, crate::config::LogFormat::Json);
    assert_eq!(config.reload.watch, crate::config::WatchMode::Poll);
    assert_eq!(config.limits.max_body_size, 16 << 10);
    assert_eq!(config.control.unwrap().to_string(), "unix:/run/host.sock");
}
