//! The flags of `run` and `topology`, and how they change a job's settings.

use crate::checkpoints::Restore;
use crate::topology::Format;
use crate::{Epoch, Job};
use clap::{Args, Command, FromArgMatches};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What a command line asks for.
pub(crate) enum Cli {
    /// Run the job.
    Run(Box<Job>),
    /// Describe it.
    Topology(Box<Job>, Format),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Where checkpoints and working state live
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// How often a checkpoint is taken, such as 200ms or 10s
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    checkpoint_interval: Option<Duration>,
    /// Threads that run subtasks [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    workers: Option<usize>,
    /// Memory for state and for what is under way, such as 256MiB
    #[arg(long, value_name = "BYTES")]
    memory: Option<bytesize::ByteSize>,
    /// What to start from: latest, none, or the number of a checkpoint. Holds for one start: drop it from a script
    /// that starts the job again, or it goes back each time
    #[arg(long, value_name = "latest|none|ID", value_parser = restore)]
    restore: Option<Restore>,
    /// Start even where results may become visible twice
    #[arg(long)]
    allow_duplicates: bool,
}

#[derive(Debug, Args)]
struct SharedArgs {
    /// Subtasks of each operator that does not say itself [default: the number of workers]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    parallelism: Option<usize>,
}

#[derive(Debug, Args)]
struct TopologyArgs {
    /// How it is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number from 1 on is wanted".into()),
        Ok(n) => Ok(n),
    }
}

fn restore(text: &str) -> Result<Restore, String> {
    match text {
        "latest" => Ok(Restore::Latest),
        "none" => Ok(Restore::None),
        id => id
            .parse::<Epoch>()
            .map(Restore::Id)
            .map_err(|_| "latest, none or the number of a checkpoint is wanted".into()),
    }
}

fn command(job: &Job) -> Command {
    let own = |command: Command| match job.flags {
        Some(flags) => (flags.augment)(command),
        None => command,
    };
    let run =
        SharedArgs::augment_args(RunArgs::augment_args(Command::new("run"))).about("Run the job until its input ends");
    let topology = SharedArgs::augment_args(TopologyArgs::augment_args(Command::new("topology")));
    Command::new(job.name.clone())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(own(run))
        .subcommand(own(topology.about("Show the topology")))
}

impl Cli {
    /// Reads a command line.
    pub(crate) fn parse(mut job: Job, args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = command(&job);
        let matches = command.try_get_matches_from_mut(args)?;
        let Some((name, matches)) = matches.subcommand() else {
            return Err(command.error(clap::error::ErrorKind::MissingSubcommand, "name a command"));
        };
        if let Some(flags) = job.flags {
            job.flag_values =
                (flags.read)(matches).map_err(|e| command.error(clap::error::ErrorKind::ValueValidation, e))?;
        }
        let shared = SharedArgs::from_arg_matches(matches)?;
        job.settings.parallelism = shared.parallelism.or(job.settings.parallelism);
        if name == "topology" {
            let format = TopologyArgs::from_arg_matches(matches)?.format;
            return Ok(Self::Topology(Box::new(job), format));
        }
        RunArgs::from_arg_matches(matches)?.apply(&mut job);
        Ok(Self::Run(Box::new(job)))
    }
}

impl RunArgs {
    fn apply(self, job: &mut Job) {
        let settings = &mut job.settings;
        if let Some(directory) = self.data_dir {
            settings.data_dir = directory;
        }
        if let Some(interval) = self.checkpoint_interval {
            settings.checkpoint_interval = interval;
        }
        settings.workers = self.workers.or(settings.workers);
        if let Some(memory) = self.memory {
            settings.memory = memory.as_u64();
        }
        if let Some(restore) = self.restore {
            settings.restore = restore;
        }
        settings.allow_duplicates |= self.allow_duplicates;
    }
}
