//! The commands that messages name, and commands that die.

#[cfg(debug_assertions)]
use super::Random;
#[cfg(debug_assertions)]
use std::process::Command;

/// The words of the command between backticks that begins like this, in what a refusal has said.
#[track_caller]
pub(crate) fn named(said: &str, begins: &str) -> Vec<String> {
    let found = said.split('`').skip(1).step_by(2).find(|quoted| quoted.starts_with(begins));
    let found = found.unwrap_or_else(|| panic!("it names no command `{begins} ..`: {said}"));
    found.split_whitespace().map(ToOwned::to_owned).collect()
}

/// Runs a command that dies, by SIGABRT, when it passes this place of the protocol, so many times passed over.
#[cfg(debug_assertions)]
#[track_caller]
pub(crate) fn dies_at(command: &mut Command, point: &str, skips: u32) {
    use std::os::unix::process::ExitStatusExt as _;
    let ended = command.env("FAILPOINTS", format!("{point}={skips}*off->return")).output().unwrap();
    let said = || format!("{point}: {}:\n{}", ended.status, String::from_utf8_lossy(&ended.stderr));
    assert_eq!(ended.status.signal(), Some(6), "{}", said());
}

/// Where four processes die that pass these places, one after the other: the first one while it works, the others while
/// they recover, each from the death of the one before.
#[cfg(debug_assertions)]
pub(crate) fn deaths_in_recoveries(random: &mut Random, passed: &[&'static str]) -> [&'static str; 4] {
    let (recovery, works): (Vec<_>, Vec<_>) = passed.iter().partition(|point| point.starts_with("recovery"));
    let mut one_of = |points: &[&'static str]| points[random.within(0..points.len() as u64) as usize];
    [one_of(&works), one_of(&recovery), one_of(&recovery), one_of(&recovery)]
}
