//! The one line that an author writes.

/// Makes a crate a plugin: exports the app that a function makes.
///
/// The function is a `fn` or an `async fn`, takes a [`Context`](crate::Context) or nothing, and
/// gives a tower service (an axum `Router` is one), a [native](crate::native) app, or a `Result` of
/// one. It runs in the plugin's own tokio runtime, once a load, so it has no `#[tokio::main]`. Or it is a
/// native handler, which runs for each request. [`AppFunction`](crate::AppFunction) has the details.
///
/// The crate is a `cdylib`; name and version are those of its `Cargo.toml`. A library exports one app. Code that
/// two plugins share belongs into a crate without `export_app!`.
///
/// Keys may follow the function, in any order:
///
/// - `name = "shop"`: another name, of ASCII letters, digits, `-` and `_`.
/// - `mount = "/"`: where the app is mounted unless the operator says otherwise; `/NAME` by
///   default. A mount is compared with a request's path byte by byte, up to the end of a segment:
///   `/%73hop` is not below `/shop`.
/// - `reload = "process"`: a new version of the app starts in a fresh process, so that two versions are never in
///   one. For an app whose C libraries must not be loaded twice, such as an embedded database that locks its files.
///   By default (`"auto"`), the server does so only for libraries that it knows; `"swap"` has it always reload
///   within the process. The operator may overrule this by `reload` in the table `[app.NAME]`.
///
/// ```
/// use axum::{Router, routing::get};
///
/// fn app() -> Router {
///     Router::new().route("/", get(|| async { "hello" }))
/// }
///
/// plugin_api::export_app!(app, name = "shop", mount = "/", reload = "process");
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! export_app {
    ($app:path $(, $key:ident = $value:expr)* $(,)?) => {
        // Of a second `export_app!` in the library, the compiler says that this name is defined twice.
        #[doc(hidden)]
        #[macro_export]
        macro_rules! a_library_exports_one_app_so_make_a_crate_for_each {
            () => {};
        }

        const _: () = {
            use $crate::__private as private;

            struct App;

            impl private::Entry for App {
                const VERSION: &'static str = ::core::env!("CARGO_PKG_VERSION");

                fn build(context: $crate::Context) -> private::AppFuture {
                    private::build($app, context)
                }
            }

            const FACTS: private::Facts<'static> = {
                let export = private::Export::new(
                    ::core::env!("CARGO_PKG_NAME"),
                    ::core::env!("CARGO_PKG_VERSION"),
                );
                $(let export = $crate::__export_key!(export, $key, $value);)*
                export.facts()
            };

            #[used]
            #[unsafe(link_section = ".note.host.plugin")]
            static MANIFEST: private::Note<{ private::note_len(&FACTS) }> = private::Note::new(&FACTS);

            // The name that abi_stable looks for: `abi_stable::library::ROOT_MODULE_LOADER_NAME`.
            #[unsafe(no_mangle)]
            #[allow(non_upper_case_globals, reason = "the name is abi_stable's")]
            static _1as_0lib_1header_0root_bmodule_bloader: private::LibHeader = private::lib_header::<App>();
        };
    };
    ($($other:tt)*) => {
        ::core::compile_error!(
            "`export_app!` takes the path of a function, and then keys, as in `export_app!(app, name = \"shop\", mount = \"/\")`"
        );
    };
}

/// One key of [`export_app!`](crate::export_app).
#[doc(hidden)]
#[macro_export]
macro_rules! __export_key {
    ($export:ident, name, $value:expr) => {
        $export.name($value)
    };
    ($export:ident, mount, $value:expr) => {
        $export.mount($value)
    };
    ($export:ident, reload, $value:expr) => {
        $export.reload($value)
    };
    ($export:ident, $key:ident, $value:expr) => {
        ::core::compile_error!(::core::concat!(
            "`export_app!` has no key `",
            ::core::stringify!($key),
            "`, expected `name`, `mount` or `reload`"
        ))
    };
}
