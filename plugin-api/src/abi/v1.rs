//! The root module of ABI version 1. abi_stable checks its layout when a library is loaded.
//!
//! This module is frozen. abi_stable accepts a root module with more fields than the host expects, but refuses a root
//! module with fewer. A new field would therefore exclude all older plugins. New functions are added to the table
//! [`Plugin`](crate::abi::Plugin) instead. An ABI version 2 gets a root module of its own, and a host first tries the
//! newest version.

use abi_stable::{
    StableAbi, declare_root_module_statics, library::RootModule, sabi_types::VersionStrings,
};

/// The root module that a library exports.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = RootRef)))]
#[sabi(missing_field(panic))]
pub struct Root {
    /// Returns a pointer to the library's table of functions, [`Plugin`](crate::abi::Plugin).
    // The pointer has no type, because abi_stable compares the types behind pointers as well, and the table grows.
    #[sabi(last_prefix_field)]
    pub plugin: extern "C" fn() -> *const (),
}

impl RootModule for RootRef {
    declare_root_module_statics! {RootRef}
    const BASE_NAME: &'static str = "plugin";
    const NAME: &'static str = "plugin";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}

#[cfg(test)]
mod tests {
    use abi_stable::{abi_stability::PrefixStableAbi, prefix_type::PrefixTypeTrait};

    use super::*;

    /// abi_stable refuses a library whose root module comes from a package with another name or an incompatible
    /// version. The build script therefore sets both to these fixed values, whatever name and version the package has.
    #[test]
    fn the_gate_has_the_name_and_version_that_it_was_frozen_with() {
        let layout = <<Root as PrefixTypeTrait>::PrefixFields as PrefixStableAbi>::LAYOUT;
        assert_eq!(layout.package(), "plugin-api");
        assert_eq!(layout.package_version().to_string(), "0.1.0");
    }
}
