//! `offsets reset`: shows what would change of where a source goes on, and changes it if that is ordered.

use crate::checkpoints::Directory;
use crate::runtime::{self, Wanted};
use crate::{Error, Job};

/// What is to be done about offsets.
#[derive(Debug)]
pub(crate) struct Reset {
    pub(crate) wanted: Wanted,
    pub(crate) executes: bool,
}

pub(crate) fn run(job: Job, reset: &Reset, print: &mut dyn FnMut(&str)) -> Result<(), Error> {
    // a directory that is none is a mistake, and is not to be made
    Directory::new(&job.settings.data_dir, &job.name).list()?;
    print(&runtime::reset(job, &reset.wanted, reset.executes)?);
    Ok(())
}
