//! What an author may need beyond the macros of `tracing` and `log`.

/// Logs an error that needs somebody's attention at once: the app, or the server, cannot go on as
/// it is.
///
/// It is an event of `tracing` at the level `ERROR` whose name is `critical`, so that
/// `--log-level=critical` shows it and leaves other errors out. The arguments are those of
/// [`tracing::error!`].
///
/// ```
/// plugin_api::critical!(disk = "/var", free = 0, "No space is left");
/// ```
#[macro_export]
macro_rules! critical {
    ($($argument:tt)+) => {
        $crate::__private::tracing::event!(
            name: "critical",
            $crate::__private::tracing::Level::ERROR,
            $($argument)+
        )
    };
}
