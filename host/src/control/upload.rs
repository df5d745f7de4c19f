//! Receives a library over the control socket: writes it into the plugins folder under a hidden name, and
//! checks it without running its code.

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

/// Writes the body of a request to a hidden file in `folder`. The caller renames it to `name` later.
///
/// # Errors
///
/// Fails when the name is not valid for a library, when the body breaks off or comes too slowly, when the
/// folder cannot be written, or when this host would not load the library. The file is removed then.
pub(super) async fn receive(
    folder: &Path,
    name: &str,
    body: Incoming,
) -> Result<Upload, UploadError> {
    if !is_plain_name(name) || !is_library(name.as_ref()) {
        return Err(UploadError::Name(name.to_owned()));
    }
    let failed = |source| UploadError::Write {
        folder: folder.to_owned(),
        source,
    };
    // The watcher ignores hidden names. Temporary files have mode 0600 by default, but a library is to be
    // readable as other files are.
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

/// Copies the body into the file, and waits until the bytes are on the disk.
async fn write(
    file: NamedTempFile,
    mut body: Incoming,
    failed: impl Fn(io::Error) -> UploadError,
) -> Result<NamedTempFile, UploadError> {
    let mut writer = File::from_std(file.as_file().try_clone().map_err(&failed)?);
    loop {
        let frame = time::timeout(FRAME_TIMEOUT, body.frame()).await;
        // The limit is on each frame and not on the whole body: a large library over a slow link is fine.
        let frame = match frame.map_err(|_| UploadError::Slow)? {
            Some(frame) => frame.map_err(UploadError::Body)?,
            None => break,
        };
        if let Ok(bytes) = frame.into_data() {
            writer.write_all(&bytes).await.map_err(&failed)?;
        }
    }
    writer.flush().await.map_err(&failed)?;
    // Sync before the rename: after a loss of power, a file could have its name but not its bytes.
    writer.sync_all().await.map_err(&failed)?;
    Ok(file)
}

/// Returns whether a file name needs no escapes in the path of a URL, and cannot lead to another folder.
fn is_plain_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~+".contains(&byte);
    name.bytes().all(is_plain)
}

/// The reason why a library was not received.
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
    #[error("the library did not come within {FRAME_TIMEOUT:?} a part")]
    Slow,
    #[error("the host cannot write to the plugins folder {}: {source}", folder.display())]
    Write { folder: PathBuf, source: io::Error },
}

impl UploadError {
    /// Returns the status of the response.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Body(_) | Self::Name(_) => StatusCode::BAD_REQUEST,
            Self::Refused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Write { .. } => StatusCode::CONFLICT,
        }
    }
}

/// The time that a client has to send each part of a body.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
