//! Why a call gave no response.

/// The reason why an app gave no response to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The app's service returned an error, which is in the log.
    #[error("the app returned an error")]
    Failed,
    /// The app panicked, which is in the log.
    #[error("the app panicked")]
    Panicked,
    /// The response is not one that HTTP allows.
    #[error("the app's response is not one that HTTP allows")]
    Invalid,
}
