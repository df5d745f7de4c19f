//! The app as a program of its own: `cargo run --features standalone`.

plugin_api::main!(template_app::app);
