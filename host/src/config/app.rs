//! The tables `[app.NAME]` of the configuration file: the plugin, the mounts and the configuration of an app.

use plugin_api::manifest::{ReloadBy, is_mount, is_name};
use serde_json::Value as Json;

/// A table `[app.NAME]`: the operator's settings of one app.
///
/// A plugin without a table becomes one app with the plugin's name. A plugin with tables becomes one app for
/// each table, so the same plugin can run twice with different configurations.
#[derive(Clone, Debug, PartialEq)]
pub struct AppConfig {
    /// The app's name, as used in the log, in `--log-level` and by `host ctl`.
    pub name: String,
    /// The name of the app's plugin.
    pub plugin: String,
    /// The path prefixes that the app serves. An empty list means the default: the plugin's own mount, or
    /// `/NAME` if the names of app and plugin differ.
    pub mounts: Vec<String>,
    /// The app's configuration, as the text of a JSON object. The plugin reads it with `Context::config`.
    pub config: Option<String>,
    /// How a new version replaces the previous one. `None` means: as the plugin's manifest requests.
    pub reload: Option<ReloadBy>,
}

impl AppConfig {
    /// Parses the table `[app.NAME]`, of which `name` is the name and `value` the contents.
    ///
    /// # Errors
    ///
    /// Fails when the name is not valid, when a key is unknown, or when a value is not valid for its key.
    pub(crate) fn parse(name: &str, value: &toml::Value) -> Result<Self, AppError> {
        let value_error = |key: &str, found: &toml::Value, expected| AppError::Value {
            key: format!("app.{name}{key}"),
            // Escape line breaks, because `toml` writes some strings in several lines and an error is one line.
            found: found.to_string().replace('\n', "\\n").replace('\r', "\\r"),
            expected,
        };
        if !is_name(name.as_bytes()) {
            return Err(AppError::Name(name.to_owned()));
        }
        let Some(table) = value.as_table() else {
            return Err(value_error("", value, "a table"));
        };
        let mut app = Self {
            name: name.to_owned(),
            plugin: name.to_owned(),
            mounts: Vec::new(),
            config: None,
            reload: None,
        };
        for (key, value) in table {
            match key.as_str() {
                "plugin" => {
                    app.plugin = value
                        .as_str()
                        .filter(|plugin| is_name(plugin.as_bytes()))
                        .ok_or_else(|| value_error(".plugin", value, "the name of a plugin"))?
                        .to_owned();
                }
                "mount" => {
                    app.mounts = parse_mounts(value).ok_or_else(|| {
                        value_error(
                            ".mount",
                            value,
                            "`/`, a path such as `/shop`, or a list of them",
                        )
                    })?;
                }
                "reload" => {
                    let reload = value.as_str().and_then(ReloadBy::parse);
                    let expected = "auto, process or swap";
                    app.reload =
                        Some(reload.ok_or_else(|| value_error(".reload", value, expected))?);
                }
                "config" if value.is_table() => {
                    let config = to_json(value).ok_or_else(|| {
                        value_error(".config", value, "only numbers that are finite")
                    })?;
                    app.config = Some(config.to_string());
                }
                "config" => return Err(value_error(".config", value, "a table")),
                _ => {
                    return Err(AppError::Key {
                        app: name.to_owned(),
                        key: key.clone(),
                    });
                }
            }
        }
        Ok(app)
    }
}

/// Parses one mount or a list of mounts. Returns `None` if an element is not a mount, or if the list is empty.
fn parse_mounts(value: &toml::Value) -> Option<Vec<String>> {
    let mount = |value: &toml::Value| {
        let path = value.as_str().filter(|path| is_mount(path.as_bytes()))?;
        Some(path.to_owned())
    };
    match value {
        toml::Value::Array(values) if !values.is_empty() => values.iter().map(mount).collect(),
        value => Some(vec![mount(value)?]),
    }
}

/// Converts TOML to JSON. Dates and times become strings. Returns `None` if the value contains an infinite
/// number or NaN, because JSON cannot express either.
fn to_json(value: &toml::Value) -> Option<Json> {
    Some(match value {
        toml::Value::String(text) => Json::from(text.as_str()),
        toml::Value::Integer(number) => Json::from(*number),
        toml::Value::Float(number) => Json::Number(serde_json::Number::from_f64(*number)?),
        toml::Value::Boolean(is) => Json::from(*is),
        toml::Value::Datetime(time) => Json::from(time.to_string()),
        toml::Value::Array(values) => {
            Json::Array(values.iter().map(to_json).collect::<Option<_>>()?)
        }
        toml::Value::Table(table) => {
            let entries = table
                .iter()
                .map(|(key, value)| Some((key.clone(), to_json(value)?)));
            Json::Object(entries.collect::<Option<_>>()?)
        }
    })
}

/// The reason why a table `[app.NAME]` is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// A key is unknown.
    #[error(
        "there is no setting `app.{app}.{}`, expected plugin, mount, config or reload",
        key.escape_debug()
    )]
    Key {
        /// The app's name.
        app: String,
        /// The key.
        key: String,
    },
    /// The name is not valid for an app.
    #[error(
        "the app {0:?} cannot have this name, expected up to 64 ASCII letters, digits, `-` and `_`"
    )]
    Name(String),
    /// A value is not valid for its key.
    #[error("the value of `{key}` is {found}, expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// The value, as TOML.
        found: String,
        /// The valid values.
        expected: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Random, one_line};

    fn parse(text: &str) -> Result<AppConfig, AppError> {
        let table: toml::Table = text.parse().unwrap();
        let (name, value) = table.iter().next().unwrap();
        AppConfig::parse(name, value)
    }

    #[test]
    fn a_table_may_say_nothing_or_all() {
        let app = parse("[shop]").unwrap();
        assert_eq!((&*app.name, &*app.plugin), ("shop", "shop"));
        assert_eq!((app.mounts, app.config), (vec![], None));

        let text = "[a]\nplugin = 'shop'\nmount = ['/a', '/']\n\
                    config = { title = 'A', n = 1.5, list = [1, true], at = 1979-05-27 }";
        let app = parse(text).unwrap();
        assert_eq!(
            (&*app.plugin, app.mounts),
            ("shop", vec!["/a".to_owned(), "/".to_owned()])
        );
        let config = r#"{"at":"1979-05-27","list":[1,true],"n":1.5,"title":"A"}"#;
        assert_eq!(app.config.as_deref(), Some(config));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("[shop]\nmounts = '/a'", "no setting `app.shop.mounts`"),
            (
                "[shop]\nmount = 'a'",
                "`app.shop.mount` is \"a\", expected `/`",
            ),
            (
                "[shop]\nplugin = 'a b'",
                "`app.shop.plugin` is \"a b\", expected the name",
            ),
            (
                "[shop]\nconfig = 1",
                "`app.shop.config` is 1, expected a table",
            ),
            (
                "[shop]\nconfig = { n = nan }",
                "expected only numbers that are finite",
            ),
            ("['a b']", "the app \"a b\" cannot have this name"),
            ("shop = 1", "`app.shop` is 1, expected a table"),
            ("[shop]\n\"a\\nb\" = 1", r"no setting `app.shop.a\nb`"),
            (
                "[shop]\nplugin = \"a\\nb\"",
                "expected the name of a plugin",
            ),
        ] {
            let message = one_line(parse(text).unwrap_err(), text);
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_random_table_is_an_app_or_an_error_of_one_line() {
        let mut random = Random::new(9);
        let samples = [
            "[shop]\nplugin = 'shop'\nmount = ['/a', '/']",
            "[a-b_c]\nmount = '/%2e'\nreload = \"swap\"",
            "[a]\nconfig = { title = \"A\\n\", n = 1.5, list = [1, true], at = 1979-05-27 }",
        ];
        let (mut accepted, mut rejected) = (0, 0);
        for _ in 0..10_000 {
            let text = random.text(&samples);
            let table = text.parse::<toml::Table>().unwrap_or_default();
            for (name, value) in &table {
                match AppConfig::parse(name, value) {
                    Ok(app) => {
                        accepted += 1;
                        assert!(is_name(app.name.as_bytes()) && is_name(app.plugin.as_bytes()));
                        assert!(app.mounts.iter().all(|mount| is_mount(mount.as_bytes())));
                        let config = app.config.as_deref().unwrap_or("{}");
                        assert!(serde_json::from_str::<Json>(config).unwrap().is_object());
                    }
                    Err(error) => {
                        rejected += 1;
                        one_line(error, &text);
                    }
                }
            }
        }
        assert!(accepted > 300 && rejected > 300, "{accepted} {rejected}");
    }
}
