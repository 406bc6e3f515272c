//! The command line that every pipeline gets from [`Job::main`]: `run` and `topology`.
//!
//! `args.rs` has the flags, `show.rs` what a person sees while a job runs.

mod args;
mod show;

use crate::{Error, ErrorKind, Job};
use args::Cli;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs one command and gives its exit code.
pub(crate) fn main(job: Job, args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::parse(job, args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { ErrorKind::Usage.exit_code() } else { 0 });
        }
    };
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn execute(cli: Cli) -> Result<(), Error> {
    match cli {
        Cli::Run(job) => show::run(*job),
        Cli::Topology(job, format) => {
            print!("{}", job.plan()?.describe(&job.name, format));
            Ok(())
        }
    }
}
