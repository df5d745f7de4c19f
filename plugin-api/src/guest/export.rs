//! The one line that an author writes.

/// Makes a crate a plugin: exports the app that a function makes.
///
/// The function is a `fn` or an `async fn`, takes a [`Context`](crate::Context) or nothing, and
/// gives a tower service (an axum `Router` is one), a [native](crate::native) app, or a `Result` of
/// one. It runs in the plugin's own tokio runtime, once a load. Or it is a native handler, which
/// runs for each request. The crate is a `cdylib`; name and version are those of its
/// `Cargo.toml`.
///
/// - `name = "shop"`: another name, of ASCII letters, digits, `-` and `_`.
/// - `mount = "/"`: where the app is mounted unless the operator says otherwise; `/NAME` by
///   default. A mount is compared with a request's path byte by byte, up to the end of a segment:
///   `/%73hop` is not below `/shop`.
///
/// ```
/// use axum::{Router, routing::get};
///
/// fn app() -> Router {
///     Router::new().route("/", get(|| async { "hello" }))
/// }
///
/// plugin_api::export_app!(app, mount = "/");
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! export_app {
    ($app:path $(, name = $name:literal)? $(, mount = $mount:literal)? $(,)?) => {
        const _: () = {
            use $crate::__private as private;

            struct App;

            impl private::Entry for App {
                const VERSION: &'static str = ::core::env!("CARGO_PKG_VERSION");

                fn build(context: $crate::Context) -> private::Building {
                    private::build($app, context)
                }
            }

            const NAME: &str = $crate::__first!($($name,)? ::core::env!("CARGO_PKG_NAME"));
            const MOUNT: &str =
                $crate::__first!($($mount,)? ::core::concat!("/", $crate::__first!($($name,)? ::core::env!("CARGO_PKG_NAME"))));
            const FACTS: private::Facts<'static> =
                private::facts(NAME, ::core::env!("CARGO_PKG_VERSION"), MOUNT);

            #[used]
            #[unsafe(link_section = ".note.host.plugin")]
            static MANIFEST: private::Note<{ private::note_len(&FACTS) }> = private::Note::new(&FACTS);

            // The name that abi_stable looks for: `abi_stable::library::ROOT_MODULE_LOADER_NAME`.
            #[unsafe(no_mangle)]
            #[allow(non_upper_case_globals, reason = "the name is abi_stable's")]
            static _1as_0lib_1header_0root_bmodule_bloader: private::LibHeader = private::lib_header::<App>();
        };
    };
}

/// The first of its arguments.
#[doc(hidden)]
#[macro_export]
macro_rules! __first {
    ($first:expr $(, $rest:expr)* $(,)?) => {
        $first
    };
}
