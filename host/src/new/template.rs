//! The templates of new crates. Each template is a folder in `templates/` with a crate named `template-app`.

use super::SdkSource;

/// The kind of app that a new crate begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Template {
    /// An axum `Router`
    Axum,
    /// A handler without a framework, which sees requests as the server has them
    Native,
    /// An axum `Router` with a WebSocket, and a page that uses it
    Websocket,
    /// A gRPC service, from a .proto file
    Grpc,
}

/// A file of a new crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TemplateFile {
    /// The path in the crate.
    pub(super) path: &'static str,
    /// The text of the file.
    pub(super) contents: String,
}

impl Template {
    /// Returns the files of a crate with this name. In the texts of the template, the crate's name, the mount and the
    /// dependency on `plugin-api` are replaced.
    pub(super) fn files(self, name: &str, source: &SdkSource) -> Vec<TemplateFile> {
        let mount = match self {
            // The path of a gRPC call begins with the name of the service.
            Self::Grpc => "/greeter.Greeter".to_owned(),
            _ => format!("/{name}"),
        };
        let replace_placeholders = |text: &str| {
            text.replace("path = \"../plugin-api\"", &source.to_toml())
                .replace("template-app", name)
                .replace("template_app", &name.replace('-', "_"))
                .replace("MOUNT", &mount)
        };
        let files = self.template_files().iter().chain(SHARED_FILES);
        let files = files.map(|(path, text)| TemplateFile {
            path,
            contents: replace_placeholders(text),
        });
        files.collect()
    }

    /// Returns the path and the text of each file of the template.
    fn template_files(self) -> &'static [(&'static str, &'static str)] {
        /// Expands to the files of a template's folder. In that folder the manifest is named `manifest.toml`: Cargo
        /// treats a folder with a `Cargo.toml` as a separate package, and leaves it out of the package `host`.
        macro_rules! files {
            ($template:literal: $($path:literal),+) => {
                &[
                    (
                        "Cargo.toml",
                        include_str!(concat!("templates/", $template, "/manifest.toml")),
                    ),
                    $((
                        $path,
                        include_str!(concat!("templates/", $template, "/", $path)),
                    )),+
                ]
            };
        }
        match self {
            Self::Axum => files!("axum": "src/lib.rs", "src/main.rs", "tests/app.rs"),
            Self::Native => files!("native": "src/lib.rs", "src/main.rs", "tests/app.rs"),
            Self::Websocket => files!(
                "websocket": "src/lib.rs", "src/main.rs", "src/page.html", "tests/app.rs"
            ),
            Self::Grpc => files!(
                "grpc": "build.rs", "proto/greeter.proto", "src/lib.rs", "src/main.rs", "tests/app.rs"
            ),
        }
    }
}

/// The files that all templates have in common.
const SHARED_FILES: &[(&str, &str)] = &[
    ("README.md", include_str!("templates/README.md")),
    (".gitignore", "/target\n"),
];

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn no_placeholder_is_left_in_a_crate() {
        let source: SdkSource = "/sdk".parse().unwrap();
        for template in Template::value_variants() {
            for TemplateFile { path, contents } in template.files("my-shop", &source) {
                let left = ["template", "MOUNT", "../plugin-api"];
                assert!(
                    left.iter().all(|word| !contents.contains(word)),
                    "{template:?} {path}: {contents}"
                );
            }
            let files = template.files("my-shop", &source);
            let manifest: toml::Table = files[0].contents.parse().unwrap();
            assert_eq!(manifest["package"]["name"].as_str(), Some("my-shop"));
            assert_eq!(
                manifest["dependencies"]["host-plugin-api"]["path"].as_str(),
                Some("/sdk")
            );
        }
    }
}
