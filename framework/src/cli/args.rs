//! The commands and their flags, and how a command line is read: once for what is the framework's, and, where the
//! pipeline has flags of its own, a second time for those (`own.rs`). What flags settings have is `config/table.rs`'s.

use super::checkpoints::Inspect;
use super::offsets::Reset;
use super::own;
use super::show_config::Form;
use crate::config::{SETTINGS, Setting, Takes, assignment};
use crate::runtime::{To, Wanted};
use crate::topology::Format;
use crate::values::Origin;
use crate::{Epoch, Error, Job};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use std::ffi::OsString;
use std::path::PathBuf;

/// What a command line asks for.
pub(crate) enum Cli {
    /// Run the job.
    Run(Box<Job>),
    /// Show its settings.
    ShowConfig(Box<Job>, Form),
    /// Describe it.
    Topology(Box<Job>, Format),
    /// Go on from a checkpoint, by its number, whatever the log of its sinks says.
    Adopt(Box<Job>, Option<Epoch>),
    /// Take over what a job has that had this name, in this directory.
    Rename(Box<Job>, String, Option<PathBuf>),
    /// Change where a source goes on.
    Reset(Box<Job>, Reset),
    /// See whether it could run; with its brokers.
    Check(Box<Job>, bool),
    /// Look at its checkpoints.
    Checkpoints(Box<Job>, Inspect),
}

/// Why a command line cannot be obeyed, or need not be: help is one of clap's errors, too.
pub(crate) enum Refusal {
    Clap(clap::Error),
    Ours(Error),
}

impl From<clap::Error> for Refusal {
    fn from(error: clap::Error) -> Self {
        Self::Clap(error)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration")]
struct ConfigArgs {
    /// A file of settings [default: millstream.toml, if it is there]
    #[arg(id = "millstream.config", long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration")]
struct SetArgs {
    /// A setting of the pipeline; the value as in TOML, else a text
    #[arg(id = "millstream.set", long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration")]
struct ShowConfigArgs {
    /// Show all settings and where each came from, and do not run
    #[arg(id = "millstream.show_config", long = "show-config", value_name = "json", value_enum)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "text", hide_possible_values = true)]
    form: Option<Form>,
}

#[derive(Debug, Args)]
struct TopologyArgs {
    /// How it is written
    #[arg(id = "millstream.format", long = "format", value_name = "text|mermaid|json", value_enum, default_value_t)]
    #[arg(hide_possible_values = true)]
    format: Format,
}

#[derive(Debug, Args)]
struct AdoptArgs {
    /// The number of a checkpoint [default: the newest that was decided for sure]
    #[arg(id = "millstream.epoch", value_name = "ID")]
    epoch: Option<Epoch>,
}

#[derive(Debug, Args)]
struct RenameArgs {
    /// The name that the job had
    #[arg(id = "millstream.old", value_name = "OLD")]
    old: String,
    /// Where its checkpoints are [default: --data-dir, or, if nothing is said of that, millstream-data/OLD]
    #[arg(id = "millstream.old_data_dir", long = "old-data-dir", value_name = "DIRECTORY")]
    from: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ResetArgs {
    /// A source, by its name [default: the one that has the splits, or the only one]
    #[arg(id = "millstream.source", long = "source", value_name = "NAME")]
    source: Option<String>,
    /// A split of it, such as TOPIC/PARTITION or a file; may be given more than once [default: all]
    #[arg(id = "millstream.split", long = "split", value_name = "SPLIT")]
    splits: Vec<String>,
    /// Where to go on: at the oldest record, after the newest, at a time (RFC 3339), or at an offset; or forget the
    /// split, which is read as a new one if it is there
    #[arg(id = "millstream.to", long = "to", value_name = "earliest|latest|TIME|NUMBER|forget")]
    to: To,
    /// Do it; without this, only say what would change
    #[arg(id = "millstream.execute", long = "execute")]
    execute: bool,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Try out, too, whether the brokers that exactly-once sinks write to keep what that rests on
    #[arg(id = "millstream.broker", long = "broker")]
    broker: bool,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Compare checksums, too, which reads all of the state
    #[arg(long)]
    verify: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The number of a checkpoint [default: the newest]
    epoch: Option<Epoch>,
    /// The manifest itself, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The number of a checkpoint [default: the newest]
    #[arg(conflicts_with = "all")]
    epoch: Option<Epoch>,
    /// All there are
    #[arg(long)]
    all: bool,
}

const LAYERS: &str = "\
Settings come from, the weakest first: the defaults, the program, the file, the
environment (--checkpoint-interval is MILLSTREAM_CHECKPOINT_INTERVAL there and
checkpoint_interval in the file), these flags. --show-config says from where.";

/// The whole command line. `relax` adds to the commands that take the pipeline's own flags.
fn command(job: &Job, relax: impl Fn(Command) -> Command) -> Command {
    let own = |command: Command| match job.flags {
        Some(flags) => relax((flags.augment)(command.next_help_heading("Pipeline")).next_help_heading(None::<&str>)),
        None => command,
    };
    let flag = |command, setting: &Setting| flag(command, setting, job);
    let all = |command, wanted: fn(&Setting) -> bool| SETTINGS.iter().filter(|s| wanted(s)).fold(command, flag);
    let run = all(own(Command::new("run").about("Run the job until its input ends")), |_| true);
    let run = ShowConfigArgs::augment_args(SetArgs::augment_args(ConfigArgs::augment_args(run)));
    let topology = own(Command::new("topology").about("Show the topology"));
    let topology = all(TopologyArgs::augment_args(topology), |s| ["workers", "parallelism"].contains(&s.key));
    let topology = SetArgs::augment_args(ConfigArgs::augment_args(topology));
    // what changes a job that does not run
    let lone = |name: &'static str, about: &'static str, augment: fn(Command) -> Command| {
        let command = all(own(Command::new(name).about(about)), |s| !["restore", "allow_duplicates"].contains(&s.key));
        SetArgs::augment_args(ConfigArgs::augment_args(augment(command)))
    };
    let adopt = "Make the job go on from a checkpoint of its directory, whatever the log of its sinks says; \
                 what was written since that checkpoint may be written again";
    let adopt = lone("adopt", adopt, AdoptArgs::augment_args);
    let rename = "Take over all that a job has under its old name, so that it goes on under this one";
    let rename = lone("rename", rename, RenameArgs::augment_args);
    let reset = "Change where a source goes on: a new checkpoint with the state of the newest one and other offsets; \
                 shows what would change, and with --execute changes it";
    let reset = lone("reset", reset, ResetArgs::augment_args);
    let offsets = Command::new("offsets").about("Change where the sources of the job go on, while it does not run");
    let check = own(Command::new("check").about("See whether the job could run, and do not run it"));
    let check = SetArgs::augment_args(ConfigArgs::augment_args(CheckArgs::augment_args(check)));
    Command::new(job.name.clone())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .max_term_width(100)
        .subcommand(run.after_help(LAYERS))
        .subcommand(topology)
        .subcommand(check)
        .subcommand(adopt)
        .subcommand(rename)
        .subcommand(offsets.subcommand_required(true).arg_required_else_help(true).subcommand(reset))
        .subcommand(checkpoints(job))
}

fn checkpoints(job: &Job) -> Command {
    let part = |command| {
        let command = Setting::find("data_dir").into_iter().fold(command, |command, s| flag(command, s, job));
        ConfigArgs::augment_args(command)
    };
    let list = Command::new("list").about("List them, and say which one the next start takes");
    let show = Command::new("show").about("Show what one consists of");
    let verify = Command::new("verify").about("Read all files of one and compare them with its manifest");
    Command::new("checkpoints")
        .about("Look at the checkpoints of the job; also while it runs")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(part(ListArgs::augment_args(list)))
        .subcommand(part(ShowArgs::augment_args(show)))
        .subcommand(part(VerifyArgs::augment_args(verify)))
}

/// Adds the flag of a setting. Its default is what the program says, if it says something.
fn flag(command: Command, setting: &Setting, job: &Job) -> Command {
    let arg = Arg::new(id(setting)).long(setting.flag().trim_start_matches('-').to_owned());
    let arg = arg.help_heading(setting.group.title());
    let own = setting.get(&job.settings).filter(|_| job.settings.origin(setting.key) != Origin::Default);
    let default = own.unwrap_or_else(|| setting.default.replace("<job>", &job.name));
    command.arg(match setting.takes {
        Takes::Switch => arg.action(ArgAction::SetTrue).help(setting.help),
        takes => arg.value_name(takes.name()).help(format!("{} [default: {default}]", setting.help)),
    })
}

/// What names a setting's flag within clap, and no field of a user's.
fn id(setting: &Setting) -> String {
    format!("millstream.{}", setting.key)
}

impl Cli {
    /// Reads a command line, and with it the file it names and the environment.
    pub(crate) fn parse(job: Job, args: impl IntoIterator<Item = OsString>) -> Result<Self, Refusal> {
        let args: Vec<OsString> = args.into_iter().collect();
        let strict = command(&job, |command| command);
        own::no_clash(&job, &strict)?;
        // what is required of the pipeline may come from the file; a mistake is told as if nothing could
        let relaxed = command(&job, |command| command.mut_args(|arg| arg.required(false)));
        let matches = relaxed.try_get_matches_from(&args);
        let matches = matches.map_err(|error| strict.clone().try_get_matches_from(&args).err().unwrap_or(error))?;
        match matches.subcommand() {
            Some(("topology", matches)) => {
                let job = own::read(layers(job, matches)?, &strict, &args, matches)?.named()?;
                Ok(Self::Topology(Box::new(job), TopologyArgs::from_arg_matches(matches)?.format))
            }
            Some(("adopt", matches)) => {
                let job = own::read(layers(job, matches)?, &strict, &args, matches)?.named()?;
                Ok(Self::Adopt(Box::new(job), AdoptArgs::from_arg_matches(matches)?.epoch))
            }
            Some(("rename", matches)) => {
                let job = own::read(layers(job, matches)?, &strict, &args, matches)?.named()?;
                let RenameArgs { old, from } = RenameArgs::from_arg_matches(matches)?;
                Ok(Self::Rename(Box::new(job), old, from))
            }
            Some(("offsets", matches)) => match matches.subcommand() {
                Some((_, matches)) => {
                    let job = own::read(layers(job, matches)?, &strict, &args, matches)?.named()?;
                    let ResetArgs { source, splits, to, execute } = ResetArgs::from_arg_matches(matches)?;
                    let wanted = Wanted { source, splits, to };
                    Ok(Self::Reset(Box::new(job), Reset { wanted, executes: execute }))
                }
                None => Err(missing(strict)),
            },
            Some(("check", matches)) => {
                let job = own::read(layers(job, matches)?, &strict, &args, matches)?.named()?;
                Ok(Self::Check(Box::new(job), CheckArgs::from_arg_matches(matches)?.broker))
            }
            Some(("checkpoints", matches)) => match matches.subcommand() {
                Some((name, matches)) => {
                    Ok(Self::Checkpoints(Box::new(layers(job, matches)?), inspect(name, matches)?))
                }
                None => Err(missing(strict)),
            },
            Some((_, matches)) => {
                let job = own::read(layers(job, matches)?, &strict, &args, matches)?.named()?;
                Ok(match ShowConfigArgs::from_arg_matches(matches)?.form {
                    Some(form) => Self::ShowConfig(Box::new(job), form),
                    None => Self::Run(Box::new(job)),
                })
            }
            None => Err(missing(strict)),
        }
    }
}

fn missing(mut command: Command) -> Refusal {
    command.error(clap::error::ErrorKind::MissingSubcommand, "name a command").into()
}

fn inspect(name: &str, matches: &ArgMatches) -> Result<Inspect, clap::Error> {
    Ok(match name {
        "list" => {
            let ListArgs { verify, json } = ListArgs::from_arg_matches(matches)?;
            Inspect::List { verify, json }
        }
        "show" => {
            let ShowArgs { epoch, json } = ShowArgs::from_arg_matches(matches)?;
            Inspect::Show { epoch, json }
        }
        _ => {
            let VerifyArgs { epoch, all } = VerifyArgs::from_arg_matches(matches)?;
            Inspect::Verify { epoch, all }
        }
    })
}

/// Puts the file, the environment, and the flags of settings over what the program has set.
fn layers(job: Job, matches: &ArgMatches) -> Result<Job, Error> {
    let file = matches.get_one::<PathBuf>("millstream.config");
    let mut job = job.load_config(file.map(PathBuf::as_path))?;
    for setting in &SETTINGS {
        if let Some(text) = given(matches, setting) {
            job.settings.put(setting, &text, Origin::Flag(setting.flag()))?;
        }
    }
    let sets = matches.try_get_many::<String>("millstream.set").ok().flatten();
    sets.into_iter().flatten().try_for_each(|text| assignment(&mut job.pipeline, text))?;
    Ok(job)
}

/// What a setting's flag was given, if the command has it and it was.
fn given(matches: &ArgMatches, setting: &Setting) -> Option<String> {
    let id = id(setting);
    let is_there = matches.try_contains_id(&id).is_ok_and(|is| is);
    if !is_there || matches.value_source(&id) != Some(ValueSource::CommandLine) {
        return None;
    }
    match setting.takes {
        Takes::Switch => matches.get_one::<bool>(&id).map(bool::to_string),
        _ => matches.get_one::<String>(&id).cloned(),
    }
}
