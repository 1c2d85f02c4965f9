//! A linker option that makes the program smaller in memory.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // 1.6 MB of relocations, all of them read at the start, become 20 KB. musl and other systems may not know this form.
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if (target("OS").as_str(), target("ENV").as_str()) == ("linux", "gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
