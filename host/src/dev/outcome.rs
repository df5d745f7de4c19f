//! Waits until the server serves a library that was put into the plugins folder, or rejects it.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::Value;
use tokio::time;

use super::control;

/// What the server did with a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LibraryOutcome {
    /// These apps of the library serve.
    Serves(Vec<ServingApp>),
    /// The library was rejected or did not start, for this reason.
    Failed(String),
}

/// An app that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServingApp {
    pub(super) name: String,
    pub(super) generation: u64,
    /// The path prefixes that the app serves.
    pub(super) mounts: Vec<String>,
}

/// Waits until the server serves or rejects every library. `libraries` maps file names to the hashes of
/// the contents.
///
/// The future ends only then. A server that does not answer is asked again, because it may be starting.
pub(super) async fn wait(
    socket: &Path,
    libraries: &BTreeMap<String, String>,
) -> BTreeMap<String, LibraryOutcome> {
    loop {
        if let Ok(report) = control::plugins(socket).await {
            let outcomes = libraries
                .iter()
                .map(|(file, hash)| Some((file.clone(), outcome(&report, file, hash)?)));
            if let Some(outcomes) = outcomes.collect() {
                return outcomes;
            }
        }
        time::sleep(POLL_INTERVAL).await;
    }
}

/// Returns the outcome of the library `file` with this hash, by the server's report. `None` means that
/// the load has not ended.
fn outcome(report: &Value, file: &str, hash: &str) -> Option<LibraryOutcome> {
    let is_file = |value: &Value| {
        let name = value.as_str().and_then(|path| Path::new(path).file_name());
        name.is_some_and(|name| name == file)
    };
    // The report shows the first letters of a hash only.
    let is_hash = |value: &Value| {
        value
            .as_str()
            .is_some_and(|short| !short.is_empty() && hash.starts_with(short))
    };
    let apps = list(&report["apps"]).iter();
    let apps: Vec<_> = apps.filter(|app| is_file(&app["file"])).collect();
    let failures = apps
        .iter()
        .map(|app| &app["last_error"])
        .chain(list(&report["refused"]));
    // Look at the hash too: the failure may be that of an earlier version of the library.
    for failure in failures {
        if is_file(&failure["file"]) && is_hash(&failure["hash"]) {
            let step = failure["step"].as_str().unwrap_or_default();
            let error = failure["error"].as_str().unwrap_or_default();
            return Some(LibraryOutcome::Failed(format!("{step}: {error}")));
        }
    }
    let serving = apps.iter().map(|app| {
        let serving = is_hash(&app["serving"]["hash"]).then_some(&app["serving"])?;
        let mounts = list(&app["mounts"]).iter().filter_map(Value::as_str);
        Some(ServingApp {
            name: app["name"].as_str()?.to_owned(),
            generation: serving["generation"].as_u64()?,
            mounts: mounts.map(str::to_owned).collect(),
        })
    });
    // One library may be several apps. The load has ended when every one of them serves the new contents.
    let serving: Vec<_> = serving.collect::<Option<_>>()?;
    (!serving.is_empty()).then_some(LibraryOutcome::Serves(serving))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The time between two requests for the report.
const POLL_INTERVAL: Duration = Duration::from_millis(4);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_library_serves_when_all_its_apps_do() {
        let app = |name: &str, hash: &str| {
            json!({
                "name": name, "file": "libshop.so", "mounts": ["/shop"],
                "serving": { "generation": 3, "hash": hash }, "last_error": null,
            })
        };
        let hash = "abcdef012345";
        let report = json!({ "apps": [app("eu", "abcdef"), app("us", "999999")], "refused": [] });
        assert_eq!(outcome(&report, "libshop.so", hash), None);
        let report = json!({ "apps": [app("eu", "abcdef"), app("us", "abcdef")], "refused": [] });
        let Some(LibraryOutcome::Serves(serving)) = outcome(&report, "libshop.so", hash) else {
            panic!("{report}");
        };
        assert_eq!((&*serving[0].name, &*serving[1].name), ("eu", "us"));
        assert_eq!(
            outcome(&json!({ "apps": [], "refused": [] }), "libshop.so", hash),
            None
        );
    }

    #[test]
    fn a_failure_counts_when_it_is_of_these_bytes() {
        let failure = |hash: &str| {
            json!({
                "file": "libshop.so", "hash": hash, "step": "init", "error": "no database",
            })
        };
        let report = |failure: Value| {
            json!({
                "apps": [{ "name": "shop", "file": "libshop.so", "serving": null, "last_error": failure }],
            })
        };
        let hash = "abcdef012345";
        assert_eq!(outcome(&report(failure("123")), "libshop.so", hash), None);
        let failed = LibraryOutcome::Failed("init: no database".to_owned());
        assert_eq!(
            outcome(&report(failure("abc")), "libshop.so", hash),
            Some(failed.clone())
        );
        let refused = json!({ "apps": [], "refused": [failure("abc")] });
        assert_eq!(outcome(&refused, "libshop.so", hash), Some(failed));
    }
}
