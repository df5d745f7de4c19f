//! The options of a standalone program, from its command line, environment variables and the server's configuration
//! file.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
};

use crate::{BoxError, level::Directives};

/// The command of the program: what its arguments request.
#[derive(Debug)]
pub(super) enum Command {
    /// Serve the app.
    Serve(Options),
    /// Print this text, the help or the version, and exit.
    Print(String),
}

/// The options for serving.
#[derive(Debug)]
pub(super) struct Options {
    /// The addresses to listen on. Never empty.
    pub(super) bind: Vec<String>,
    pub(super) log_level: Directives,
    /// The configuration of the app as JSON, for [`Context::config`](crate::Context::config). `None` if the
    /// configuration file has no `config` for the app.
    pub(super) config: Option<Vec<u8>>,
}

impl Command {
    /// Returns the command of this process. `name` and `version` are those of the app. Returns an error if an option, a
    /// variable or the configuration file is wrong.
    pub(super) fn read(name: &str, version: &str) -> Result<Self, BoxError> {
        Self::parse(name, version, env::args_os().skip(1), |variable| {
            env::var_os(variable)
        })
    }

    /// Parses the arguments `args`, and reads environment variables with `variable`. The command line has precedence
    /// over the environment, and the environment over the configuration file.
    fn parse(
        name: &str,
        version: &str,
        mut args: impl Iterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, BoxError> {
        let (mut bind, mut log_level, mut config) = (Vec::new(), None, None);
        while let Some(arg) = args.next() {
            let arg = utf8(&arg)?;
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
                    Some(value) => utf8(&value)?,
                    None => return Err(format!("{flag} needs a value").into()),
                },
            };
            match flag {
                "--bind" => bind.extend(value.split(',').map(str::to_owned)),
                "--log-level" => log_level = Some(value),
                _ => config = Some(value),
            }
        }
        let variable = |name| variable(name).map(|value| utf8(&value)).transpose();
        let file = match config.map_or_else(|| variable("HOST_CONFIG"), |path| Ok(Some(path)))? {
            Some(path) => ConfigFile::read(&path, name)?,
            None => ConfigFile::default(),
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

/// The keys of the server's configuration file that a standalone program uses. All other keys are ignored.
#[derive(Debug, Default)]
struct ConfigFile {
    /// Empty if the file has no `bind`.
    bind: Vec<String>,
    log_level: Option<String>,
    /// The `config` of the table `[app.NAME]`, as JSON.
    config: Option<Vec<u8>>,
}

impl ConfigFile {
    /// Reads the file at `path`. `name` is the app's name. Returns an error if the file cannot be read, is not TOML, or
    /// has a used key of the wrong type.
    fn read(path: &str, name: &str) -> Result<Self, BoxError> {
        let text = fs::read_to_string(path)
            .map_err(|error| format!("could not read the configuration file {path}: {error}"))?;
        Self::parse(&text, name).map_err(|error| format!("{path}: {error}").into())
    }

    fn parse(text: &str, name: &str) -> Result<Self, BoxError> {
        let file: toml::Table = text.parse()?;
        let type_error = |key: &str, expected| format!("`{key}` is not {expected}");
        let string = |value: &toml::Value| value.as_str().map(str::to_owned);
        let bind = match file.get("bind") {
            None => Some(Vec::new()),
            Some(toml::Value::Array(values)) => values.iter().map(string).collect(),
            Some(value) => string(value).map(|bind| vec![bind]),
        };
        let log_level = file.get("log-level").map(|value| string(value).ok_or(()));
        let app = file.get("app").and_then(|apps| apps.get(name));
        let config = app.and_then(|app| app.get("config"));
        if config.is_some_and(|config| !config.is_table()) {
            return Err(type_error(&format!("app.{name}.config"), "a table").into());
        }
        Ok(Self {
            bind: bind.ok_or_else(|| type_error("bind", "an address, or a list of some"))?,
            log_level: log_level
                .transpose()
                .map_err(|()| type_error("log-level", "a string"))?,
            config: config.map(serde_json::to_vec).transpose()?,
        })
    }
}

/// Converts an argument or a variable to text. Returns an error if the value is not UTF-8.
fn utf8(value: &OsStr) -> Result<String, BoxError> {
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
        Command::parse("shop", "1.2.3", args.iter().map(Into::into), |variable| {
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

        let parsed = options(&["--bind", "[::1]:0"]);
        assert_eq!(parsed.bind, ["[::1]:0"]);
        assert_eq!(
            (&*parsed.log_level.to_string(), parsed.config),
            ("warn", None)
        );
        let parsed = options(&["--log-level=info,shop=debug", &config]);
        assert_eq!(parsed.bind, ["a:1", "b:2"]);
        assert_eq!(parsed.log_level.to_string(), "info,shop=debug");
        assert_eq!(parsed.config.unwrap(), br#"{"title":"Shop"}"#);
        let parsed = options(&["--bind=a:1,b:2", "--bind=c:3"]);
        assert_eq!(parsed.bind, ["a:1", "b:2", "c:3"]);
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
            let error = ConfigFile::parse(text, "shop").unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
