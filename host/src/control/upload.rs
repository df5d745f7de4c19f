//! Receives a library over the control socket: writes the library into the plugins folder under a hidden name, and
//! checks the file without running its code.

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
    folder::{
        candidate::{self, CandidateError},
        scan::is_library,
    },
    supervisor::Upload,
};

/// Writes the body of a request to a hidden file in `folder`, and checks the file. The supervisor renames the file to
/// `name` later.
///
/// # Errors
///
/// Fails when `name` is not valid for a library, when the connection is closed before the end of the body, when the
/// client is too slow, when the folder cannot be written, or when this host would not load the library. In all of these
/// cases the hidden file is removed.
pub(super) async fn receive(
    folder: &Path,
    name: &str,
    body: Incoming,
) -> Result<Upload, UploadError> {
    if !is_plain_name(name) || !is_library(name.as_ref()) {
        return Err(UploadError::Name(name.to_owned()));
    }
    let write_error = |source| UploadError::Write {
        folder: folder.to_owned(),
        source,
    };
    // The name begins with a dot because the watcher ignores hidden files. Set the mode, because a temporary file has
    // mode 0600 by default, and other users must be able to read a library.
    let file = Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(".part")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(write_error)?;
    let file = write_body(file, body, write_error).await?;
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

/// Writes the body to the file, and waits until the bytes are on the disk. `write_error` converts an error of the file
/// system.
async fn write_body(
    file: NamedTempFile,
    mut body: Incoming,
    write_error: impl Fn(io::Error) -> UploadError,
) -> Result<NamedTempFile, UploadError> {
    let mut writer = File::from_std(file.as_file().try_clone().map_err(&write_error)?);
    loop {
        // Limit the time of each frame, not of the whole body: a large library over a slow connection is allowed.
        let frame = time::timeout(FRAME_TIMEOUT, body.frame()).await;
        let frame = match frame.map_err(|_| UploadError::Timeout)? {
            Some(frame) => frame.map_err(UploadError::Body)?,
            None => break,
        };
        if let Ok(bytes) = frame.into_data() {
            writer.write_all(&bytes).await.map_err(&write_error)?;
        }
    }
    writer.flush().await.map_err(&write_error)?;
    // Sync before the rename: otherwise, after a power failure, the file could have its final name but not its
    // contents.
    writer.sync_all().await.map_err(&write_error)?;
    Ok(file)
}

/// Returns whether a file name contains only characters that need no escapes in a URL. The name then contains no slash,
/// so it cannot lead to another folder.
fn is_plain_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~+".contains(&byte);
    name.bytes().all(is_plain)
}

/// The reason why a library was not received.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// The connection was closed before the end of the body.
    #[error("the library was not received completely")]
    Body(#[source] hyper::Error),
    /// The name is not valid for a library.
    #[error(
        "{0:?} is no name for a library, expected ASCII letters, digits, `-`, `_`, `.`, `~` or `+`, no dot at the start, and .so at the end"
    )]
    Name(String),
    /// The file is not a library that this host would load.
    #[error("this host would not load {name}: {}", chain(&**source as &dyn error::Error))]
    Refused {
        name: String,
        source: Box<CandidateError>,
    },
    /// The client sent no part of the body within [`FRAME_TIMEOUT`].
    #[error("a part of the library did not arrive within {FRAME_TIMEOUT:?}")]
    Timeout,
    /// The file cannot be written.
    #[error("the host cannot write to the plugins folder {}: {source}", folder.display())]
    Write { folder: PathBuf, source: io::Error },
}

impl UploadError {
    /// Returns the status of the HTTP response for this error.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Body(_) | Self::Name(_) => StatusCode::BAD_REQUEST,
            Self::Refused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Write { .. } => StatusCode::CONFLICT,
        }
    }
}

/// The time that a client has to send each part of a body.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
