//! `adopt`: makes a job go on from a checkpoint of its directory, whatever the log of its sinks says, and does not run
//! it. That is a decision like any other: a checkpoint that continues the chosen one.

use crate::checkpoints::{Directory, Restore, newest_decided};
use crate::runtime;
use crate::{Epoch, Error, ErrorKind, Job};

/// Adopts a checkpoint; without a number the newest that was decided for sure.
pub(crate) fn run(mut job: Job, id: Option<Epoch>, print: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let directory = Directory::new(&job.settings.data_dir, &job.name);
    let listing = directory.list()?;
    let id = id.or_else(|| newest_decided(&listing)).ok_or_else(|| {
        let text =
            format!("{} has no checkpoint that was decided for sure: there is nothing to adopt", directory.place());
        Error::new(ErrorKind::Usage, text)
    })?;
    (job.settings.restore, job.settings.allow_duplicates) = (Restore::Id(id), true);
    let now = runtime::adopt(job)?;
    print(&match now == id {
        true => format!("checkpoint {id} is what the job goes on from already\n"),
        false => format!("adopted checkpoint {id} as {now}: the next run goes on from it\n"),
    });
    Ok(())
}
