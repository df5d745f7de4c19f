//! The errors of a call.

/// The reason why an app returned no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The app's service returned an error. The error is already logged.
    #[error("the app returned an error")]
    Failed,
    /// The app panicked. The panic is already logged.
    #[error("the app panicked")]
    Panicked,
    /// The response has a status or a header field that HTTP does not allow, or the plugin passed no response.
    #[error("the app's response is not one that HTTP allows")]
    Invalid,
}
