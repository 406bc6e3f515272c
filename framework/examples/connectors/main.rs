//! Connectors by a stranger, who depends on `millstream-framework` only and has read no more than its documentation:
//! two sources and a sink. Run them with `cargo run -p millstream-framework --example connectors`.
//!
//! On the way the connection to a source and the answer to a commit get lost. The job recovers in place, and every
//! record is in the journals once all the same.

mod journal_sink;
mod log_source;
mod paged_source;

use journal_sink::Journals;
use log_source::Log;
use millstream_framework::{BoxError, BySplit, Job, RestartPolicy};
use paged_source::{BOOKS, Library};
use std::sync::atomic::Ordering;
use std::time::Duration;

const SHELVES: u64 = 3;

fn main() -> Result<(), BoxError> {
    let directory = tempfile::tempdir()?;
    let journals = Journals(directory.path().join("journals"));
    std::fs::create_dir(&journals.0)?;
    let log = Log::default();

    let (to, from) = (journals.clone(), log.clone());
    let job = Job::new("connectors", move |t| {
        let books = t.source("books", BySplit::new(Library { shelves: SHELVES }));
        let log = t.source("log", from.clone());
        t.union([books, log]).sink("journals", to.clone());
        Ok(())
    });
    let restart = RestartPolicy { pause: Duration::from_millis(10), ..RestartPolicy::default() };
    let job = job.data_dir(directory.path().join("job")).parallelism(2).restart(restart);
    let job = job.checkpoint_interval(Duration::from_millis(10));

    let logged = SHELVES * BOOKS..SHELVES * BOOKS + 100;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for entry in logged.clone() {
                log.append(entry);
                std::thread::sleep(Duration::from_millis(1));
            }
            log.close();
        });
        job.clone().run()
    })?;
    check(&journals, logged.end)?;
    assert!(paged_source::LOST.load(Ordering::Relaxed) && journal_sink::LOST.load(Ordering::Relaxed));

    // a further run finds nothing new, and changes nothing
    job.run()?;
    check(&journals, logged.end)
}

/// Whether the journals hold all numbers up to `end`, each once.
fn check(journals: &Journals, end: u64) -> Result<(), BoxError> {
    let mut rows: Vec<_> = journals.read()?.into_iter().flat_map(|(_, rows)| rows).collect();
    rows.sort_unstable();
    assert!(rows.iter().copied().eq(0..end), "{} rows and not {end}", rows.len());
    Ok(())
}

#[test]
fn every_record_arrives_once() -> Result<(), BoxError> {
    main()
}
