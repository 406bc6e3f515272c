//! What the compiler says to a user who errs: each file in `cases/` fails to compile, and beside it stands what is
//! said. A text that is ours is part of the interface; a text of rustc's own stands here when it is as good as ours
//! would be.
//!
//! Compilers differ in wording, so goldens are those of one compiler: the workspace's `rust-version`. With another one
//! nothing is compared. After a deliberate change: `TRYBUILD=overwrite cargo test --package millstream-ui`, then read
//! the difference as a user would.

use std::process::Command;

/// The first words of `rustc --version` for the compiler that the goldens are of.
const COMPILER: &str = concat!("rustc ", env!("CARGO_PKG_RUST_VERSION"), ".");

#[test]
fn mistakes_are_explained() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().expect("rustc runs");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if !version.starts_with(COMPILER) {
        eprintln!("skipped: the goldens are those of `{COMPILER}`, and this is {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("cases/*.rs");
}
