//! The commands that messages name.

/// The words of the command between backticks that begins like this, in what a refusal has said.
#[track_caller]
pub(crate) fn named(said: &str, begins: &str) -> Vec<String> {
    let found = said.split('`').skip(1).step_by(2).find(|quoted| quoted.starts_with(begins));
    let found = found.unwrap_or_else(|| panic!("it names no command `{begins} ..`: {said}"));
    found.split_whitespace().map(ToOwned::to_owned).collect()
}
