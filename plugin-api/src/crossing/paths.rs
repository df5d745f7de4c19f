//! The paths of requests: an app is asked for the same ones again and again.

use bytes::Bytes;
use http::uri::{InvalidUri, PathAndQuery};

use super::memo;

/// The path and query of these bytes; `/` when there are none.
///
/// # Errors
///
/// When they are not what RFC 3986 allows.
pub(crate) fn path_and_query(bytes: &[u8]) -> Result<PathAndQuery, InvalidUri> {
    if bytes.is_empty() {
        return Ok(PathAndQuery::from_static("/"));
    }
    // A query often holds what is of one request only, and may be a secret.
    if bytes.len() > memo::LONGEST || bytes.contains(&b'?') {
        return parse(bytes);
    }
    let hash = memo::hash(bytes);
    let known = memo::lend(|met| {
        let path = met.paths.get(hash)?;
        (path.as_str().as_bytes() == bytes).then(|| path.clone())
    });
    if let Some(Some(path)) = known {
        return Ok(path);
    }
    let path = parse(bytes)?;
    memo::lend(|met| met.paths.meet(hash, || path.clone()));
    Ok(path)
}

fn parse(bytes: &[u8]) -> Result<PathAndQuery, InvalidUri> {
    PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(bytes))
}
