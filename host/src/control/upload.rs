//! A library that comes over the control socket: written into the plugins folder under a hidden name,
//! and checked as far as that goes without running it.

use std::{
    error,
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tempfile::{Builder, NamedTempFile};
use tokio::{fs::File, io::AsyncWriteExt, time};

use crate::{
    error_chain::chain,
    folder::{candidate, scan::is_library},
    supervisor::Upload,
    worker::load::LoadError,
};

/// Writes the body of a request to a file in `folder`, to be put there as `name`.
///
/// # Errors
///
/// When the name is none for a library, when the body breaks off, when the folder cannot be written
/// to, or when this host would not load the library. The file is gone then.
pub(super) async fn receive(
    folder: &Path,
    name: &str,
    body: Incoming,
) -> Result<Upload, UploadError> {
    if !is_plain(name) || !is_library(name.as_ref()) {
        return Err(UploadError::Name(name.to_owned()));
    }
    let failed = |source| UploadError::Write {
        folder: folder.to_owned(),
        source,
    };
    // A hidden name, which the watcher leaves alone; readable as other files are. The file is removed
    // when the value is dropped.
    let file = Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(".part")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(failed)?;
    let file = write(file, body, failed).await?;
    let examined = candidate::examine(file.path().to_owned()).await;
    let candidate = examined.map_err(|rejected| UploadError::Refused {
        name: name.to_owned(),
        source: Box::new(rejected.error),
    })?;
    Ok(Upload {
        file: file.into_temp_path(),
        candidate,
        name: name.to_owned(),
    })
}

async fn write(
    file: NamedTempFile,
    mut body: Incoming,
    failed: impl Fn(io::Error) -> UploadError,
) -> Result<NamedTempFile, UploadError> {
    let mut writer = File::from_std(file.as_file().try_clone().map_err(&failed)?);
    loop {
        let frame = time::timeout(PATIENCE, body.frame()).await;
        let frame = match frame.map_err(|_| UploadError::Slow)? {
            Some(frame) => frame.map_err(UploadError::Body)?,
            None => break,
        };
        if let Ok(bytes) = frame.into_data() {
            writer.write_all(&bytes).await.map_err(&failed)?;
        }
    }
    writer.flush().await.map_err(&failed)?;
    // A file that gets its name before its bytes are on the disk is empty after a loss of power.
    writer.sync_all().await.map_err(&failed)?;
    Ok(file)
}

/// Whether a file name needs no escapes in a path of a URL, and cannot name another folder.
fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~+".contains(&byte);
    name.bytes().all(is_plain)
}

/// A library that was not received.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("the library did not come whole")]
    Body(#[source] hyper::Error),
    #[error(
        "{0:?} is no name for a library, expected ASCII letters, digits, `-`, `_`, `.`, `~` or `+`, no dot at the start, and .so at the end"
    )]
    Name(String),
    #[error("this host would not load {name}: {}", chain(&**source as &dyn error::Error))]
    Refused {
        name: String,
        source: Box<LoadError>,
    },
    #[error("the library did not come within {PATIENCE:?} a part")]
    Slow,
    #[error("the host cannot write to the plugins folder {}: {source}", folder.display())]
    Write { folder: PathBuf, source: io::Error },
}

impl UploadError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Body(_) | Self::Name(_) => StatusCode::BAD_REQUEST,
            Self::Refused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Write { .. } => StatusCode::CONFLICT,
        }
    }
}

/// How long each part of a library may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
