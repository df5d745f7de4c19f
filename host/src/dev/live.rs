//! Finds out when a library that was put into the plugins folder serves, or why it does not.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header::HOST};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::UnixStream, time};

/// What became of a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// These apps of it serve: name, generation, and mounts.
    Serves(Vec<Served>),
    /// It was not loaded, for this reason.
    Failed(String),
}

/// An app that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Served {
    /// Its name.
    pub(super) name: String,
    /// Its generation.
    pub(super) generation: u64,
    /// Where it is mounted.
    pub(super) mounts: Vec<String>,
}

/// Waits until each library serves or was refused. They are given by their file names, with the
/// hashes of their contents.
pub(super) async fn wait(
    control: &Path,
    libraries: &BTreeMap<String, String>,
) -> BTreeMap<String, Fate> {
    loop {
        if let Ok(report) = plugins(control).await {
            let fates = libraries
                .iter()
                .map(|(file, hash)| Some((file.clone(), fate(&report, file, hash)?)));
            if let Some(fates) = fates.collect() {
                return fates;
            }
        }
        time::sleep(LOOK).await;
    }
}

/// What the host reports of its apps (`host ctl plugins --json`).
async fn plugins(control: &Path) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
    ask(
        control,
        Request::get("/plugins")
            .header(HOST, "host")
            .body(Empty::<Bytes>::new())?,
    )
    .await
}

/// Sends a request to the control socket of a host, and reads the answer.
///
/// # Errors
///
/// When the host is not there, or its answer is no JSON.
pub(super) async fn ask<B>(
    control: &Path,
    request: Request<B>,
) -> Result<Value, Box<dyn std::error::Error + Send + Sync>>
where
    B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + 'static,
{
    let stream = UnixStream::connect(control).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        Ok::<_, hyper::Error>(response.into_body().collect().await?.to_bytes())
    };
    let body = tokio::select! {
        body = exchange => body?,
        ended = connection => return Err(ended.map_or_else(Into::into, |()| "the host hung up".into())),
    };
    Ok(serde_json::from_slice(&body)?)
}

/// What became of the library in `file`; none while it is on its way.
fn fate(report: &Value, file: &str, hash: &str) -> Option<Fate> {
    let is_this = |value: &Value| {
        value
            .as_str()
            .is_some_and(|text| Path::new(text).file_name() == PathBuf::from(file).file_name())
    };
    let is_hash = |value: &Value| {
        value
            .as_str()
            .is_some_and(|short| !short.is_empty() && hash.starts_with(short))
    };
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let apps = list(&report["apps"]);
    let apps: Vec<_> = apps.iter().filter(|app| is_this(&app["file"])).collect();
    let failures = apps
        .iter()
        .map(|app| app["last_error"].clone())
        .chain(list(&report["refused"]));
    for failure in failures {
        if is_this(&failure["file"]) && is_hash(&failure["hash"]) {
            let step = failure["step"].as_str().unwrap_or_default();
            let error = failure["error"].as_str().unwrap_or_default();
            return Some(Fate::Failed(format!("{step}: {error}")));
        }
    }
    let served = apps.iter().map(|app| {
        let serving = is_hash(&app["serving"]["hash"]).then_some(&app["serving"])?;
        Some(Served {
            name: app["name"].as_str()?.to_owned(),
            generation: serving["generation"].as_u64()?,
            mounts: list(&app["mounts"])
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        })
    });
    let served: Vec<_> = served.collect::<Option<_>>()?;
    (!served.is_empty()).then_some(Fate::Serves(served))
}

/// How often to look.
const LOOK: Duration = Duration::from_millis(4);

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
        assert_eq!(fate(&report, "libshop.so", hash), None);
        let report = json!({ "apps": [app("eu", "abcdef"), app("us", "abcdef")], "refused": [] });
        let Some(Fate::Serves(served)) = fate(&report, "libshop.so", hash) else {
            panic!("{report}");
        };
        assert_eq!((&*served[0].name, &*served[1].name), ("eu", "us"));
        assert_eq!(
            fate(&json!({ "apps": [], "refused": [] }), "libshop.so", hash),
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
        assert_eq!(fate(&report(failure("123")), "libshop.so", hash), None);
        let failed = Fate::Failed("init: no database".to_owned());
        assert_eq!(
            fate(&report(failure("abc")), "libshop.so", hash),
            Some(failed.clone())
        );
        let refused = json!({ "apps": [], "refused": [failure("abc")] });
        assert_eq!(fate(&refused, "libshop.so", hash), Some(failed));
    }
}
