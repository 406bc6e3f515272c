//! Counts words: for every occurrence of a word it writes the word's count so far, as a line of JSON.
//!
//! Kill it at any moment and start it again with the same flags: what it has written in the end is what it would have
//! written undisturbed.

use millstream::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(clap::Args, Serialize, Deserialize)]
struct Settings {
    /// A file, a directory or a glob
    #[arg(long)]
    input: PathBuf,
    /// A directory for the results
    #[arg(long)]
    output: PathBuf,
    /// Lines per second, for the whole job
    #[arg(long, value_name = "LINES_PER_SECOND")]
    rate: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Count {
    word: String,
    count: u64,
}

fn main() -> ExitCode {
    Job::new("word_count", topology).settings::<Settings>().main()
}

fn topology(t: &Topology) -> Result<(), BoxError> {
    let settings: Settings = t.config()?;
    t.source("text", Files::read(settings.input).lines().rate(settings.rate))
        .flat_map_into(|line, words| {
            let parts = line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
            words.extend(parts.map(str::to_lowercase));
        })
        .key_by(|word| word)
        .aggregate("counts", |of| of.count())
        .map(|(word, count)| Count { word, count })
        .sink("result", Files::write(settings.output).json());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream::testing::TestDriver;

    #[test]
    fn counts_words_in_any_case() {
        let settings = Settings { input: "none".into(), output: "none".into(), rate: None };
        let mut test = TestDriver::of(&Job::new("word_count", topology).config(settings));
        test.source("text").push("To be, or".to_owned()).push("not to be".to_owned());
        let counts: Vec<Count> = test.take("result");
        let counts: Vec<_> = counts.iter().map(|c| (c.word.as_str(), c.count)).collect();
        assert_eq!(counts, [("to", 1), ("be", 1), ("or", 1), ("not", 1), ("to", 2), ("be", 2)]);
    }
}
