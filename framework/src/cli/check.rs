//! `check`: whether the job could run, without running it.

use crate::runtime::decider;
use crate::{Error, ErrorKind, Job};

/// Builds the topology and reads its secrets; with `broker`, tries out what its sinks decide with.
pub(crate) fn run(job: &Job, broker: bool, print: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let plan = job.plan()?;
    plan.graph.read_secrets()?;
    let decider = decider(&plan)?;
    print(&format!("{}: settings and topology are in order\n", job.name));
    match decider {
        Some(decider) if broker => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|e| Error::new(ErrorKind::Io, "cannot start a runtime").because(e))?;
            print(&format!("{}\n", runtime.block_on(decider.check())?));
        }
        Some(decider) => {
            print(&format!("it decides its checkpoints in {}: --broker tries that out\n", decider.place()))
        }
        None if broker => print("no sink writes exactly once by a transaction: there is no broker to try out\n"),
        None => {}
    }
    Ok(())
}
