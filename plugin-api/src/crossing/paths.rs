//! The paths of requests: an app is asked for the same ones again and again.

use bytes::Bytes;
use http::uri::{InvalidUri, PathAndQuery};

use super::memo::{self, Met};

/// The path and query of these bytes; `/` when there are none.
///
/// # Errors
///
/// When they are not what RFC 3986 allows.
pub(crate) fn path_and_query(
    bytes: &[u8],
    met: Option<&mut Met>,
) -> Result<PathAndQuery, InvalidUri> {
    if bytes.is_empty() {
        return Ok(PathAndQuery::from_static("/"));
    }
    let Some(met) = met.filter(|_| bytes.len() <= memo::LONGEST) else {
        return parse(bytes);
    };
    let hash = memo::hash(bytes);
    match met.paths.get(hash) {
        Some(path) if path.as_str().as_bytes() == bytes => Ok(path.clone()),
        _ => {
            let path = parse(bytes)?;
            // A query often holds what is of one request only, and may be a secret.
            if path.query().is_none() {
                met.paths.meet(hash, || path.clone());
            }
            Ok(path)
        }
    }
}

fn parse(bytes: &[u8]) -> Result<PathAndQuery, InvalidUri> {
    PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(bytes))
}
