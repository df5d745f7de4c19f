//! Waits until the server serves or rejects the libraries that the session has put into the plugins folder.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::Value;
use tokio::time;

use super::control;

/// The result of a library's load by the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LibraryOutcome {
    /// All apps of the library serve.
    Serves(Vec<ServingApp>),
    /// The server rejected the library, or an app did not start. The text is the reason.
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

/// Waits until the server serves or rejects every library, and returns the outcomes by file name. `libraries` maps
/// file names to the hashes of the contents.
///
/// The wait has no time limit. If the server does not answer, the request is repeated, because the server may be
/// starting.
pub(super) async fn wait_for_outcomes(
    socket: &Path,
    libraries: &BTreeMap<String, String>,
) -> BTreeMap<String, LibraryOutcome> {
    loop {
        if let Ok(report) = control::fetch_report(socket).await {
            let outcomes = libraries
                .iter()
                .map(|(file, hash)| Some((file.clone(), find_outcome(&report, file, hash)?)));
            if let Some(outcomes) = outcomes.collect() {
                return outcomes;
            }
        }
        time::sleep(POLL_INTERVAL).await;
    }
}

/// Returns the outcome of the library `file` with the hash `hash` from the server's report, or `None` if the load has
/// not ended.
fn find_outcome(report: &Value, file: &str, hash: &str) -> Option<LibraryOutcome> {
    let is_file = |value: &Value| {
        let name = value.as_str().and_then(|path| Path::new(path).file_name());
        name.is_some_and(|name| name == file)
    };
    // Compare a prefix, because the report contains only the first letters of a hash.
    let is_hash = |value: &Value| {
        value
            .as_str()
            .is_some_and(|short| !short.is_empty() && hash.starts_with(short))
    };
    let apps = elements(&report["apps"]).iter();
    let apps: Vec<_> = apps.filter(|app| is_file(&app["file"])).collect();
    let failures = apps
        .iter()
        .map(|app| &app["last_error"])
        .chain(elements(&report["refused"]));
    // Compare the hash too: the report may still contain the failure of an earlier version of the library.
    for failure in failures {
        if is_file(&failure["file"]) && is_hash(&failure["hash"]) {
            let step = failure["step"].as_str().unwrap_or_default();
            let error = failure["error"].as_str().unwrap_or_default();
            return Some(LibraryOutcome::Failed(format!("{step}: {error}")));
        }
    }
    let serving = apps.iter().map(|app| {
        let serving = is_hash(&app["serving"]["hash"]).then_some(&app["serving"])?;
        let mounts = elements(&app["mounts"]).iter().filter_map(Value::as_str);
        Some(ServingApp {
            name: app["name"].as_str()?.to_owned(),
            generation: serving["generation"].as_u64()?,
            mounts: mounts.map(str::to_owned).collect(),
        })
    });
    // A library may become several apps. The load has ended when all of them serve the new version: `collect` returns
    // `None` if one of them does not.
    let serving: Vec<_> = serving.collect::<Option<_>>()?;
    (!serving.is_empty()).then_some(LibraryOutcome::Serves(serving))
}

/// Returns the elements of a JSON array, or an empty slice if the value is no array.
fn elements(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The pause between two requests for the report. The pause is short because the author waits for the swap.
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
        assert_eq!(find_outcome(&report, "libshop.so", hash), None);
        let report = json!({ "apps": [app("eu", "abcdef"), app("us", "abcdef")], "refused": [] });
        let Some(LibraryOutcome::Serves(serving)) = find_outcome(&report, "libshop.so", hash)
        else {
            panic!("{report}");
        };
        assert_eq!((&*serving[0].name, &*serving[1].name), ("eu", "us"));
        assert_eq!(
            find_outcome(&json!({ "apps": [], "refused": [] }), "libshop.so", hash),
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
        assert_eq!(
            find_outcome(&report(failure("123")), "libshop.so", hash),
            None
        );
        let failed = LibraryOutcome::Failed("init: no database".to_owned());
        assert_eq!(
            find_outcome(&report(failure("abc")), "libshop.so", hash),
            Some(failed.clone())
        );
        let refused = json!({ "apps": [], "refused": [failure("abc")] });
        assert_eq!(find_outcome(&refused, "libshop.so", hash), Some(failed));
    }
}
