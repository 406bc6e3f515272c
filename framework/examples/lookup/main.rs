//! An operator without keys by a stranger, who depends on `millstream-framework` only: it asks a service about each
//! record. Run it with `cargo run -p millstream-framework --example lookup`.
//!
//! The process is killed with SIGKILL on the way, while calls are under way. The next one asks again for all that had
//! no answer, and every book has one price in the journals. Source and sink are those of the example `connectors`, so
//! connections get lost, too.

#[path = "../connectors/journal_sink.rs"]
mod journal_sink;
mod lookup;
#[path = "../connectors/paged_source.rs"]
mod paged_source;

use journal_sink::Journals;
use lookup::{Lookup, price};
use millstream_framework::{BoxError, BySplit, Job, RestartPolicy};
use paged_source::{BOOKS, Library};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SHELVES: u64 = 3;
/// Tells a process that it is one to be killed, and where it works.
const DIRECTORY: &str = "LOOKUP_DIRECTORY";

fn job(directory: &Path, parallelism: usize) -> Job {
    let journals = Journals(directory.join("journals"));
    let job = Job::new("lookup", move |t| {
        t.source("books", BySplit::new(Library { shelves: SHELVES }))
            .operator("prices", || Lookup::new(16))
            .sink("journals", journals.clone());
        Ok(())
    });
    let restart = RestartPolicy { pause: Duration::from_millis(10), ..RestartPolicy::default() };
    let job = job.data_dir(directory.join("job")).parallelism(parallelism).restart(restart);
    job.checkpoint_interval(Duration::from_millis(20))
}

fn main() -> Result<(), BoxError> {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return Ok(job(Path::new(&directory), 2).run()?);
    }
    let directory = tempfile::tempdir()?;
    let journals = Journals(directory.path().join("journals"));
    std::fs::create_dir(&journals.0)?;

    let mut first = Command::new(std::env::current_exe()?).env(DIRECTORY, directory.path()).spawn()?;
    while journals.read()?.is_empty() && first.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    first.kill()?;
    assert!(!first.wait()?.success(), "it was to be killed on the way");
    let before = journals.read()?.iter().map(|(_, rows)| rows.len() as u64).sum::<u64>();
    assert!((1..SHELVES * BOOKS).contains(&before), "{before} prices were there when it was killed");

    // at another parallelism: what had no answer is dealt round
    job(directory.path(), 3).run()?;
    let mut rows: Vec<_> = journals.read()?.into_iter().flat_map(|(_, rows)| rows).collect();
    rows.sort_unstable();
    assert!(rows.iter().copied().eq((0..SHELVES * BOOKS).map(price)), "{} prices", rows.len());
    Ok(())
}

#[test]
fn every_book_has_one_price_though_the_process_was_killed() -> Result<(), BoxError> {
    main()
}
