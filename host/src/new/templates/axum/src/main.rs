//! Runs the app as a program, without `host`: `cargo run --features standalone`.

plugin_api::main!(template_app::app);
