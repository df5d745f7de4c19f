//! Marker types for the `Kind` parameters of the traits that authors' types implement, such as
//! [`IntoApp`](super::IntoApp) and [`AppResult`](super::AppResult). A marker names the kind of an app, of a result of
//! the author's function, or of an answer of a native handler.
//!
//! The compiler rejects two implementations of the same trait if one type could match both. A tower service, a
//! `Result` and a future may overlap in this way. Each implementation therefore has its own marker as the `Kind`
//! parameter. The compiler infers the marker, and no code creates a value of a marker.

/// Marks a tower service.
#[derive(Debug)]
pub struct Tower;

/// Marks a native app or handler.
#[derive(Debug)]
pub struct Native;

/// Marks an app or a response that is neither in a `Result` nor in a future. `Kind` is the marker of the app, or `()`
/// for a response.
#[derive(Debug)]
pub struct Direct<Kind>(Kind);

/// Marks a `Result` of an app or of a response. `Kind` is the marker of the app, or `()` for a response.
#[derive(Debug)]
pub struct ResultOf<Kind>(Kind);

/// Marks a `Result` of an app whose error cannot be shared between threads. `Kind` is the marker of the app.
#[derive(Debug)]
pub struct LocalResultOf<Kind>(Kind);

/// Marks a future of an app, a response or a `Result`. `Kind` is the marker of the output, or `()` for an answer of a
/// native handler.
#[derive(Debug)]
pub struct FutureOf<Kind>(Kind);
