//! What a program is told: by its command line, by variables, and by the server's configuration file.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
};

use crate::{BoxError, level::Directives};

/// The command of the program.
#[derive(Debug)]
pub(super) enum Command {
    /// Serve.
    Serve(Options),
    /// Print this.
    Print(String),
}

/// How to serve.
#[derive(Debug)]
pub(super) struct Options {
    /// Addresses.
    pub(super) bind: Vec<String>,
    pub(super) log_level: Directives,
    /// For [`Context::config`](crate::Context::config), as JSON.
    pub(super) config: Option<Vec<u8>>,
}

impl Command {
    /// What the process was told.
    pub(super) fn read(name: &str, version: &str) -> Result<Self, BoxError> {
        Self::of(name, version, env::args_os().skip(1), |variable| {
            env::var_os(variable)
        })
    }

    /// The options of the program. The command line counts before the environment, and the environment before the
    /// configuration file.
    fn of(
        name: &str,
        version: &str,
        mut args: impl Iterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, BoxError> {
        let (mut bind, mut log_level, mut config) = (Vec::new(), None, None);
        while let Some(arg) = args.next() {
            let arg = text(&arg)?;
            let (flag, value) = match arg.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (&*arg, None),
            };
            match flag {
                "-h" | "--help" => return Ok(Self::Print(help(name))),
                "-V" | "--version" => return Ok(Self::Print(format!("{name} {version}"))),
                "--bind" | "--log-level" | "--config" => {}
                _ => {
                    let usage = "expected --bind, --log-level, --config, --help or --version";
                    return Err(format!("unexpected argument {arg:?}, {usage}").into());
                }
            }
            let value = match value {
                Some(value) => value,
                None => match args.next() {
                    Some(value) => text(&value)?,
                    None => return Err(format!("{flag} needs a value").into()),
                },
            };
            match flag {
                "--bind" => bind.extend(value.split(',').map(str::to_owned)),
                "--log-level" => log_level = Some(value),
                _ => config = Some(value),
            }
        }
        let variable = |name| variable(name).map(|value| text(&value)).transpose();
        let file = match config.map_or_else(|| variable("HOST_CONFIG"), |path| Ok(Some(path)))? {
            Some(path) => File::read(&path, name)?,
            None => File::default(),
        };
        if let Some(value) = variable("HOST_BIND")?.filter(|_| bind.is_empty()) {
            bind.extend(value.split(',').map(str::to_owned));
        }
        if bind.is_empty() {
            bind = file.bind;
        }
        if bind.is_empty() {
            bind.push("127.0.0.1:8000".to_owned());
        }
        let log_level = log_level.map_or_else(|| variable("HOST_LOG_LEVEL"), |text| Ok(Some(text)));
        Ok(Self::Serve(Options {
            bind,
            log_level: match log_level?.or(file.log_level) {
                Some(text) => text.parse()?,
                None => Directives::default(),
            },
            config: file.config,
        }))
    }
}

/// What the configuration file of the server says that is of use here.
#[derive(Debug, Default)]
struct File {
    bind: Vec<String>,
    log_level: Option<String>,
    config: Option<Vec<u8>>,
}

impl File {
    /// The file at `path`, and the table `[app.NAME]` in it.
    fn read(path: &str, name: &str) -> Result<Self, BoxError> {
        let text = fs::read_to_string(path)
            .map_err(|error| format!("could not read the configuration file {path}: {error}"))?;
        Self::parse(&text, name).map_err(|error| format!("{path}: {error}").into())
    }

    fn parse(text: &str, name: &str) -> Result<Self, BoxError> {
        let file: toml::Table = text.parse()?;
        let wrong = |key: &str, expected| format!("`{key}` is not {expected}");
        let one = |value: &toml::Value| value.as_str().map(str::to_owned);
        let bind = match file.get("bind") {
            None => Some(Vec::new()),
            Some(toml::Value::Array(values)) => values.iter().map(one).collect(),
            Some(value) => one(value).map(|bind| vec![bind]),
        };
        let log_level = file.get("log-level").map(|value| one(value).ok_or(()));
        let app = file.get("app").and_then(|apps| apps.get(name));
        let config = app.and_then(|app| app.get("config"));
        if config.is_some_and(|config| !config.is_table()) {
            return Err(wrong(&format!("app.{name}.config"), "a table").into());
        }
        Ok(Self {
            bind: bind.ok_or_else(|| wrong("bind", "an address, or a list of some"))?,
            log_level: log_level
                .transpose()
                .map_err(|()| wrong("log-level", "a string"))?,
            config: config.map(serde_json::to_vec).transpose()?,
        })
    }
}

fn text(value: &OsStr) -> Result<String, BoxError> {
    let text = value.to_str().map(str::to_owned);
    text.ok_or_else(|| format!("{value:?} is not UTF-8").into())
}

fn help(name: &str) -> String {
    format!(
        "Usage: {name} [OPTIONS]\n\n\
         Serves the app {name} by itself, without the server that it is a plugin for.\n\n\
         Options:\n  \
         --bind <ADDRESS>     Where to serve (repeatable, or separated by commas) [default: 127.0.0.1:8000]\n  \
         --log-level <LEVEL>  What is logged, as in info,{name}=debug [default: info]\n  \
         --config <FILE>      The server's configuration file: bind, log-level, and [app.{name}] config\n  \
         -h, --help           Print help\n  \
         -V, --version        Print version\n\n\
         Each is a variable as well: HOST_BIND, HOST_LOG_LEVEL, HOST_CONFIG."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Command, BoxError> {
        Command::of("shop", "1.2.3", args.iter().map(Into::into), |variable| {
            (variable == "HOST_LOG_LEVEL").then(|| "warning".into())
        })
    }

    fn options(args: &[&str]) -> Options {
        match read(args).unwrap() {
            Command::Serve(options) => options,
            Command::Print(text) => panic!("{text}"),
        }
    }

    #[test]
    fn flags_go_before_variables_these_before_the_file_and_that_before_defaults() {
        let file = env::temp_dir().join(format!("standalone-{}.toml", std::process::id()));
        let text = "bind = ['a:1', 'b:2']\nlog-level = 'error'\nthreads = 3\n\
                    [app.shop]\nmount = '/'\nconfig = { title = 'Shop' }\n[app.other]\nconfig = { n = 1 }";
        fs::write(&file, text).unwrap();
        let config = format!("--config={}", file.display());

        let given = options(&["--bind", "[::1]:0"]);
        assert_eq!(given.bind, ["[::1]:0"]);
        assert_eq!(
            (&*given.log_level.to_string(), given.config),
            ("warn", None)
        );
        let given = options(&["--log-level=info,shop=debug", &config]);
        assert_eq!(given.bind, ["a:1", "b:2"]);
        assert_eq!(given.log_level.to_string(), "info,shop=debug");
        assert_eq!(given.config.unwrap(), br#"{"title":"Shop"}"#);
        let given = options(&["--bind=a:1,b:2", "--bind=c:3"]);
        assert_eq!(given.bind, ["a:1", "b:2", "c:3"]);
        assert_eq!(options(&[]).bind, ["127.0.0.1:8000"]);
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn help_and_version_are_printed() {
        for (args, part) in [(["--help"], "--config <FILE>"), (["-V"], "shop 1.2.3")] {
            let Command::Print(text) = read(&args).unwrap() else {
                panic!("{args:?}");
            };
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn wrong_usage_says_what_was_expected() {
        for (args, part) in [
            (
                &["--log-level=loud"][..],
                "\"loud\" is not a log level, expected trace",
            ),
            (&["--bind"], "--bind needs a value"),
            (
                &["--port=1"],
                "unexpected argument \"--port=1\", expected --bind",
            ),
            (&["--config=/none"], "configuration file /none"),
        ] {
            let error = read(args).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        for (text, part) in [
            ("bind = 1", "`bind` is not an address"),
            ("log-level = 1", "`log-level` is not a string"),
            ("[app.shop]\nconfig = 1", "`app.shop.config` is not a table"),
        ] {
            let error = File::parse(text, "shop").unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
