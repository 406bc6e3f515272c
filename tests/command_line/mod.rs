//! What people and programs ask of a pipeline's binary without running it, and what they tell it.
//!
//! | file | what |
//! |---|---|
//! | `settings.rs` | the file, the environment, flags, `--show-config`; secrets |
//! | `offsets.rs` | `offsets reset`, also where a refusal names it; that commands which refusals name are there |
//! | `checkpoints.rs` | `checkpoints list`, `show` and `verify`: of damaged directories, and while the job runs |

mod checkpoints;
mod offsets;
mod settings;

use crate::common::{Scratch, WordCount};

/// `word_count` with some text.
fn word_count(scratch: &Scratch) -> WordCount {
    let job = WordCount::new(scratch.path());
    job.append("a.txt", lines(0));
    job
}

/// A hundred lines of text.
fn lines(from: u64) -> impl Iterator<Item = String> {
    (from..from + 100).map(|n| format!("word{} and word{}\n", n % 7, n % 5))
}
