plugin_api::main!(shop::app);
