//! The macro `critical!`, for errors that the macros of `tracing` and `log` have no level for.

/// Logs an error that needs somebody's attention at once: the app, or the server, cannot go on as
/// it is.
///
/// The macro makes an event of `tracing` at the level `ERROR` whose name is `critical`, so that
/// `--log-level=critical` shows it and leaves other errors out. The arguments are those of
/// [`tracing::error!`].
///
/// ```
/// plugin_api::critical!(disk = "/var", free = 0, "No space is left");
/// plugin_api::critical!(target: "shop::disk", "No space is left");
/// ```
#[macro_export]
macro_rules! critical {
    (target: $target:expr, parent: $parent:expr, $($argument:tt)+) => {
        $crate::__private::tracing::event!(
            name: "critical",
            target: $target,
            parent: $parent,
            $crate::__private::tracing::Level::ERROR,
            $($argument)+
        )
    };
    (target: $target:expr, $($argument:tt)+) => {
        $crate::__private::tracing::event!(
            name: "critical",
            target: $target,
            $crate::__private::tracing::Level::ERROR,
            $($argument)+
        )
    };
    (parent: $parent:expr, $($argument:tt)+) => {
        $crate::__private::tracing::event!(
            name: "critical",
            parent: $parent,
            $crate::__private::tracing::Level::ERROR,
            $($argument)+
        )
    };
    ($($argument:tt)+) => {
        $crate::__private::tracing::event!(
            name: "critical",
            $crate::__private::tracing::Level::ERROR,
            $($argument)+
        )
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_arguments_are_those_of_error() {
        // Compiling is the test: without a subscriber nothing is logged.
        let span = tracing::Span::none();
        crate::critical!("text");
        crate::critical!(field = 1, "text {}", 2);
        crate::critical!(target: "t", field = 1, "text");
        crate::critical!(parent: &span, "text");
        crate::critical!(target: "t", parent: &span, field = ?1);
    }
}
