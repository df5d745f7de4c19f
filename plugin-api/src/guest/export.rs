//! The macro `export_app!`, the only line that an author must write to make a crate a plugin.

/// Makes a crate a plugin: exports the app that a function creates.
///
/// The function is a `fn` or an `async fn`. It takes a [`Context`](crate::Context) or no argument, and returns a tower
/// service such as an axum `Router`, a [native](crate::native) app, or a `Result` of either. The function runs once for
/// each load of the library, in the plugin's own tokio runtime, and therefore has no `#[tokio::main]`.
///
/// The function can instead be a native handler, which runs once for each request. See
/// [`AppFunction`](crate::AppFunction) for the details.
///
/// The crate must be a `cdylib`. The plugin has the name and version from its `Cargo.toml`. A library exports one app.
/// Code that two plugins share belongs in a crate without `export_app!`.
///
/// Keys may follow the function, in any order:
///
/// - `name = "shop"`: another name, of ASCII letters, digits, `-` and `_`.
/// - `mount = "/"`: the path prefix that the app serves, unless the operator configures another mount; by default
///   `/NAME`. The server compares a mount with the path of a request byte by byte, up to the end of a segment:
///   `/%73hop` is not below `/shop`.
/// - `reload = "process"`: a new version of the app starts in a new process, so that a process never contains two
///   versions. For an app whose C libraries must not be loaded twice, such as an embedded database that locks its
///   files. With `"auto"`, the default, the server starts a new process only if it finds such a C library in the
///   plugin's library. With `"swap"`, the server always reloads within the process. The operator can override this key
///   with `reload` in the table `[app.NAME]`.
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
        // A second `export_app!` in the crate would define this macro again. The compiler then reports the name of the
        // macro, which tells the author the rule.
        #[doc(hidden)]
        #[macro_export]
        macro_rules! a_library_exports_one_app_so_make_a_crate_for_each {
            () => {};
        }

        const _: () = {
            use $crate::__private as private;

            struct App;

            impl private::ExportedApp for App {
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

            // `#[used]`, because no code refers to the manifest. The host reads the manifest from the file.
            #[used]
            #[unsafe(link_section = ".note.host.plugin")]
            static MANIFEST: private::Note<{ private::note_len(&FACTS) }> = private::Note::new(&FACTS);

            // abi_stable loads the symbol with this name (`abi_stable::library::ROOT_MODULE_LOADER_NAME`).
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

/// Applies one key of [`export_app!`](crate::export_app) to the exported facts. An unknown key is a compile error.
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
