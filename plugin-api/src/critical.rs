//! The macro `critical!`, which logs at a level above `ERROR`. `tracing` and `log` have no such level.

/// Logs a critical error: the app or the server cannot continue in its present state, and a person must act at once.
///
/// The macro creates a `tracing` event with the level `ERROR` and the name `critical`. `--log-level=critical` shows
/// such events and hides other errors. The macro takes the arguments of [`tracing::error!`].
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
