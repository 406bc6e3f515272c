//! The command line that every pipeline gets from [`Job::main`].
//!
//! | file | what |
//! |---|---|
//! | `args.rs` | the commands and flags, and how they are read |
//! | `own.rs` | the flags of the pipeline's own |
//! | `show.rs` | what a person sees while a job runs |
//! | `show_config.rs` | `run --show-config` |
//! | `adopt.rs` | `adopt`: a checkpoint to go on from, whatever a log says |
//! | `offsets.rs` | `offsets reset`: where a source is to go on |
//! | `check.rs` | `check`: whether the job could run |
//! | `checkpoints.rs` | `checkpoints list`, `show`, `verify` |

mod adopt;
mod args;
mod check;
mod checkpoints;
mod offsets;
mod own;
mod show;
mod show_config;

use crate::{Error, ErrorKind, Job, runtime};
use args::{Cli, Refusal};
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

/// Runs one command and gives its exit code.
pub(crate) fn main(job: Job, args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let done = match Cli::parse(job, args) {
        Ok(cli) => execute(cli),
        Err(Refusal::Ours(error)) => Err(error),
        Err(Refusal::Clap(error)) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { ErrorKind::Usage.exit_code() } else { 0 });
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn execute(cli: Cli) -> Result<(), Error> {
    match cli {
        Cli::Run(job) => return show::run(*job),
        Cli::ShowConfig(job, form) => print(&show_config::show(&job, form)?),
        Cli::Topology(job, format) => print(&job.plan()?.describe(&job.name, format)),
        Cli::Adopt(job, id) => return adopt::run(*job, id, &mut |text| print(text)),
        Cli::Rename(job, old, from) => print(&runtime::rename(*job, &old, from)?),
        Cli::Reset(job, reset) => return offsets::run(*job, &reset, &mut |text| print(text)),
        Cli::Check(job, broker) => return check::run(&job, broker, &mut |text| print(text)),
        Cli::Checkpoints(job, inspect) => return checkpoints::run(&job, inspect, &mut |text| print(text)),
    }
    Ok(())
}

/// To standard output. Who reads it may have seen enough and gone.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
