//! Has the linker resolve all of Envoy's callbacks when the module is loaded, and not each when it is called first.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,now");
}
