//! The compiler's errors for plugins with typical mistakes. Each error says how to correct the plugin.

use std::{env, fs, process::Command};

use host_tests::crate_of_plugins;

/// A part of the error for a function that returns neither a service nor a native handler.
const NOT_AN_APP: &str = "is no function that `export_app!` takes";

#[test]
fn a_router_without_its_state_is_told_of_with_state() {
    let app = "
        #[derive(Clone)]
        struct Shelf;
        async fn list(_: axum::extract::State<Shelf>) {}
        fn app() -> axum::Router<Shelf> {
            axum::Router::new().route(\"/\", axum::routing::get(list))
        }
        plugin_api::export_app!(app);";
    let stderr = errors(app);
    for part in [
        "`fn() -> Router<Shelf> {app}` is no function that `export_app!` takes",
        "end it with `.with_state(state)`",
        "export_app!(app);",
    ] {
        assert!(stderr.contains(part), "{stderr}");
    }
    assert!(
        errors(
            &app.replace("list))", "list)).with_state(Shelf)")
                .replace("r<Shelf> {", "r {")
        )
        .is_empty()
    );
}

#[test]
fn what_makes_services_is_no_service() {
    let app = "
        async fn app() -> axum::routing::IntoMakeService<axum::Router> {
            axum::Router::new().into_make_service()
        }
        plugin_api::export_app!(app);";
    assert_errors(
        app,
        &[
            "IntoMakeService<Router>",
            NOT_AN_APP,
            "leave out `.into_make_service()`",
        ],
    );
}

#[test]
fn a_service_that_threads_cannot_share_is_told_so() {
    let app = "
        use std::{cell::Cell, convert::Infallible, future::{Ready, ready}, task::{Context, Poll}};
        #[derive(Clone)]
        struct Shop(Cell<u32>);
        impl tower_service::Service<http::Request<plugin_api::Body>> for Shop {
            type Response = http::Response<String>;
            type Error = Infallible;
            type Future = Ready<Result<Self::Response, Infallible>>;
            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }
            fn call(&mut self, _: http::Request<plugin_api::Body>) -> Self::Future {
                ready(Ok(http::Response::new(self.0.get().to_string())))
            }
        }
        fn app() -> Result<Shop, String> {
            Ok(Shop(Cell::new(0)))
        }
        plugin_api::export_app!(app);";
    assert_errors(
        app,
        &[
            "Result<Shop, String>",
            NOT_AN_APP,
            "take `BoxCloneSyncService`",
        ],
    );
    assert_eq!(
        errors(
            &app.replace("Shop(Cell<u32>)", "Shop(std::sync::Arc<u32>)")
                .replace("self.0.get()", "self.0")
                .replace("Cell::new(0)", "0.into()")
        ),
        ""
    );
}

#[test]
fn a_router_of_another_axum_is_told_of_versions() {
    let app = "
        mod axum_0_6 { pub struct Router; }
        async fn app(_: plugin_api::Context) -> axum_0_6::Router { axum_0_6::Router }
        plugin_api::export_app!(app);";
    assert_errors(
        app,
        &[NOT_AN_APP, "use axum 0.7 or later", "`cargo tree -d`"],
    );
}

#[test]
fn a_native_handler_that_keeps_the_request_or_gives_no_response_is_told_what_it_may_give() {
    let handler = "
        use plugin_api::native::{Request, Response};
        async fn handler(request: Request<'_>) -> Response {
            Response::text(request.path().to_owned())
        }
        plugin_api::export_app!(handler);";
    assert_errors(
        handler,
        &[
            NOT_AN_APP,
            "does not borrow the request, as that of an `async fn` would",
        ],
    );
    let handler = "
        use plugin_api::native::{self, Request};
        fn app() -> impl Fn(Request<'_>) -> String {
            native::app(|_: Request<'_>| String::new());
            |_: Request<'_>| String::new()
        }
        plugin_api::export_app!(app);";
    assert_errors(
        handler,
        &[
            "`String` is no answer of a native handler",
            "neither a `native::Response`",
        ],
    );
}

#[test]
fn a_hook_that_gives_no_state_is_told_what_it_may_give() {
    let app = "
        fn app(context: plugin_api::Context) -> axum::Router {
            context.on_handover(|| 5_u32);
            axum::Router::new()
        }
        plugin_api::export_app!(app);";
    assert_errors(
        app,
        &["is no hook for a handover", "gives bytes, text or `()`"],
    );
}

#[test]
fn the_keys_of_export_app_come_in_any_order_and_once() {
    let errors_of = |keys: &str| {
        errors(&format!(
            "fn app() -> axum::Router {{ axum::Router::new() }}\nplugin_api::export_app!(app{keys});"
        ))
    };
    for good in [
        "",
        ", mount = \"/\", name = \"shop\"",
        ", reload = \"process\", name = \"shop\", mount = \"/a\",",
    ] {
        assert_eq!(errors_of(good), "", "{good}");
    }
    for (bad, part) in [
        (
            ", colour = \"blue\"",
            "`export_app!` has no key `colour`, expected `name`, `mount` or `reload`",
        ),
        (
            ", mount = \"/a\", mount = \"/b\"",
            "the key `mount` is there twice",
        ),
        (
            ", reload = \"fork\"",
            "`reload` is `auto`, `process` or `swap`",
        ),
        (
            ", mount = \"shop\"",
            "a mount is `/`, or a path such as `/shop`",
        ),
        (
            ", name = \"a shop\"",
            "a plugin's name is up to 64 ASCII letters",
        ),
        (
            " \"shop\"",
            "`export_app!` takes the path of a function, and then keys, as in `export_app!(app, name",
        ),
    ] {
        let stderr = errors_of(bad);
        assert!(stderr.contains(part), "{bad}: {stderr}");
    }
}

#[test]
fn a_library_exports_one_app() {
    let apps = "
        fn app() -> axum::Router { axum::Router::new() }
        plugin_api::export_app!(app);
        mod other {
            plugin_api::export_app!(super::app, name = \"other\");
        }";
    assert_errors(
        apps,
        &["`a_library_exports_one_app_so_make_a_crate_for_each` is defined multiple times"],
    );
}

/// Asserts that the compiler's errors for a plugin with this source contain all the parts.
fn assert_errors(source: &str, parts: &[&str]) {
    let stderr = errors(source);
    for part in parts {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
}

/// Returns the compiler's errors for a plugin with this source; empty if it compiles.
fn errors(source: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lib.rs");
    fs::write(&file, source).unwrap();
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc
        .args(["--edition=2024", "--crate-type=cdylib", "--crate-name=shop"])
        .args(["--emit=metadata", "--cap-lints=allow"])
        .env("CARGO_PKG_NAME", "shop")
        .env("CARGO_PKG_VERSION", "1.0.0")
        .arg("--out-dir")
        .arg(folder.path());
    for name in ["axum", "http", "plugin_api", "tower_service"] {
        let file = crate_of_plugins(name);
        rustc.arg(format!("--extern={name}={}", file.display()));
        rustc.arg(format!("-Ldependency={}", file.parent().unwrap().display()));
    }
    let output = rustc.arg(file).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.success(), stderr.is_empty(), "{stderr}");
    stderr
}
