//! [`Job`]: a name and a topology function, and what it runs with. How it runs is in `runtime/`, its command line in
//! `cli/`.

use crate::config::{self, RestartPolicy, Settings};
use crate::runtime::JobHandle;
use crate::topology::{Graph, Plan, Topology, validate};
use crate::values::{Origin, Values};
use crate::{BoxError, Error, ErrorKind, Name, secret};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::ffi::OsString;
use std::fmt;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

type NameFrom = Arc<dyn Fn(&Topology) -> Result<String, Error> + Send + Sync>;
type Build = Arc<dyn Fn(&Topology) -> Result<(), BoxError> + Send + Sync>;

/// Flags of the user's own: how they extend a command line, and how they become settings.
#[derive(Clone, Copy)]
pub(crate) struct Flags {
    pub(crate) augment: fn(clap::Command) -> clap::Command,
    pub(crate) read: fn(&clap::ArgMatches) -> Result<Value, BoxError>,
}

/// A topology with its name and settings. The name is the identity of the job: its state belongs to it.
///
/// Setters give defaults. [`main`](Self::main) puts the configuration file over them, then the environment, then the
/// command line; `docs/configuration.md` of the repository lists all settings.
#[derive(Clone)]
#[must_use = "call `.main()`, `.run()` or `.start()`"]
pub struct Job {
    pub(crate) name: String,
    build: Build,
    /// How its settings name it, if they do.
    name_from: Option<NameFrom>,
    pub(crate) flags: Option<Flags>,
    /// Settings of its own from the file and the command line.
    pub(crate) pipeline: Values,
    /// From [`Job::config`], stronger than all else; or why they cannot be used.
    pub(crate) config: Result<Values, String>,
    pub(crate) settings: Settings,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("name", &self.name).field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Job {
    /// A job that runs what `topology` builds. The function is called at each start, at each recovery in place, and to
    /// describe the job, so it does nothing but build.
    pub fn new(name: impl Name, topology: impl Fn(&Topology) -> Result<(), BoxError> + Send + Sync + 'static) -> Self {
        let name = name.into_name();
        let settings = Settings::new(&name);
        let (pipeline, config) = (Values::default(), Ok(Values::default()));
        Self { name, build: Arc::new(topology), name_from: None, flags: None, pipeline, config, settings }
    }

    /// Settings of the job's own, as flags of its commands `run` and `topology`; the topology reads them with
    /// [`Topology::config`]. What is not given as a flag may stand in the configuration file, in the table `[pipeline]`
    /// and written as for the flag, or be given with `--set`.
    pub fn settings<T: clap::Args + Serialize>(mut self) -> Self {
        self.flags = Some(Flags {
            augment: T::augment_args,
            read: |matches| Ok(secret::to_value(&T::from_arg_matches(matches)?)?),
        });
        self
    }

    /// Names the job after its settings, for a program that is to run as several jobs, such as one for each topic: what
    /// `name` gives takes the place of the name it was made with, and has to be the same at every start. Without a data
    /// directory of its own, each lives in `millstream-data/<job>`.
    pub fn name_from<T: DeserializeOwned>(mut self, name: impl Fn(&T) -> String + Send + Sync + 'static) -> Self {
        self.name_from = Some(Arc::new(move |settings| Ok(name(&settings.config()?))));
        self
    }

    /// Under the name that its settings give it.
    ///
    /// # Errors
    /// If they do not fit.
    pub(crate) fn named(mut self) -> Result<Self, Error> {
        let Some(name_from) = self.name_from.take() else { return Ok(self) };
        let name = name_from(&Topology::new(&self.name, self.values()?))?;
        if self.settings.data_dir == config::data_dir(&self.name) {
            self.settings.data_dir = config::data_dir(&name);
        }
        self.name = name;
        Ok(self)
    }

    /// Whether the name is still to come from its settings.
    pub(crate) fn is_unnamed(&self) -> bool {
        self.name_from.is_some()
    }

    /// Values for [`Topology::config`], stronger than the command line: for tests and for programs that embed the job.
    /// What cannot be turned into JSON is a mistake that is said when the job starts.
    #[track_caller]
    pub fn config(mut self, value: impl Serialize) -> Self {
        let origin = Origin::Program(Location::caller());
        self.config = match secret::to_value(&value) {
            Ok(tree @ (Value::Object(_) | Value::Null)) => Ok(Values::of(&tree, &origin)),
            Ok(_) => Err(format!("{origin}: the settings of a pipeline are a struct or a map")),
            Err(error) => Err(format!("{origin}: the settings of the pipeline cannot be used: {error}")),
        };
        self
    }

    /// Puts a configuration file and then the variables `MILLSTREAM_...` of the environment over what is set so far,
    /// as [`main`](Self::main) does: for programs that embed the job. Without a path `millstream.toml` in the working
    /// directory is read, if it is there.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the file cannot be read; [`ErrorKind::Usage`], naming file and line or the variable, for
    /// keys that do not exist and values that do not fit.
    pub fn load_config(mut self, path: Option<&Path>) -> Result<Self, Error> {
        let usual = Path::new(config::FILE);
        if let Some(path) = path.or_else(|| usual.exists().then_some(usual)) {
            config::file(&mut self.settings, &mut self.pipeline, path)?;
        }
        config::environment(&mut self.settings, std::env::vars_os())?;
        Ok(self)
    }

    /// Where checkpoints and working state live; `millstream-data/<job>` if not set. One running instance per
    /// directory.
    #[track_caller]
    pub fn data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.settings.data_dir = directory.into();
        self.settings.set_by_program(&["data_dir"]);
        self
    }

    /// How often a checkpoint is taken, start to start; 1 s if not set. What it costs grows with what changes in
    /// between, not with the state.
    #[track_caller]
    pub fn checkpoint_interval(mut self, every: Duration) -> Self {
        self.settings.checkpoint_interval = every;
        self.settings.set_by_program(&["checkpoint_interval"]);
        self
    }

    /// The least time between the end of a checkpoint and the start of the next; 0 if not set.
    #[track_caller]
    pub fn checkpoint_pause(mut self, pause: Duration) -> Self {
        self.settings.checkpoint_pause = pause;
        self.settings.set_by_program(&["checkpoint_pause"]);
        self
    }

    /// After so long a checkpoint counts as failed and is warned of; 1 min if not set. It is waited for `tolerated`
    /// times more (2 if not set) before the attempt fails.
    #[track_caller]
    pub fn checkpoint_timeout(mut self, timeout: Duration, tolerated: u32) -> Self {
        self.settings.checkpoint_timeout = timeout;
        self.settings.tolerated_timeouts = tolerated;
        self.settings.set_by_program(&["checkpoint_timeout", "tolerated_timeouts"]);
        self
    }

    /// How many checkpoints are kept; 3 if not set, at least 1.
    #[track_caller]
    pub fn keep(mut self, checkpoints: usize) -> Self {
        self.settings.keep = checkpoints.max(1);
        self.settings.set_by_program(&["keep"]);
        self
    }

    /// Subtasks of each operator that does not say itself; as many as workers if not set.
    #[track_caller]
    pub fn parallelism(mut self, subtasks: usize) -> Self {
        self.settings.parallelism = Some(subtasks);
        self.settings.set_by_program(&["parallelism"]);
        self
    }

    /// Threads that run subtasks; as many as cores if not set.
    #[track_caller]
    pub fn workers(mut self, threads: usize) -> Self {
        self.settings.workers = Some(threads);
        self.settings.set_by_program(&["workers"]);
        self
    }

    /// Bytes for all that grows with state and load; 512 MiB if not set. State may be many times larger.
    #[track_caller]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.settings.memory = bytes;
        self.settings.set_by_program(&["memory"]);
        self
    }

    /// Rows that each subtask of a keyed operator may keep in memory, in place of what its share of the memory gives:
    /// for tests that want rows to be evicted and read back all the time.
    #[track_caller]
    pub fn cache_rows(mut self, rows: usize) -> Self {
        self.settings.cache_rows = Some(rows);
        self.settings.set_by_program(&["cache_rows"]);
        self
    }

    /// How far, in event time, one input of an operator may run ahead of the slowest; 1 min if not set, `None` for any
    /// distance. What lies further ahead is not read yet, or its records would pile up in state until the others have
    /// followed. Inputs that are idle, have ended, have no event time or come from the same source are not waited for,
    /// nor is anybody for longer than 5 s in which nothing comes: then the distance doubles. No result depends on it.
    #[track_caller]
    pub fn watermark_drift(mut self, drift: impl Into<Option<Duration>>) -> Self {
        self.settings.watermark_drift = drift.into();
        self.settings.set_by_program(&["watermark_drift"]);
        self
    }

    /// What happens when an attempt fails.
    #[track_caller]
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.settings.restart = policy;
        self.settings.set_by_program(&["restart_attempts", "restart_pause", "restart_pause_max"]);
        self
    }

    /// The command line of the job: `run`, `check`, `adopt`, `rename`, `offsets`, `topology` and `checkpoints`. The
    /// exit codes are 0 finished or stopped, 1 failed, 2 wrong usage, 75 start again after a pause, 77 superseded by
    /// another instance, 78 refused: needs a person.
    #[must_use]
    pub fn main(self) -> ExitCode {
        self.main_with(std::env::args_os())
    }

    /// The same for these arguments, of which the first is the name of the program and not looked at; for tests, and
    /// for programs that have a command line of their own: `job.main_with(["orders", "run", "--workers", "2"])`. The
    /// exit codes are those of [`main`](Self::main).
    #[must_use]
    pub fn main_with(self, args: impl IntoIterator<Item = impl Into<OsString>>) -> ExitCode {
        crate::cli::main(self, args.into_iter().map(Into::into))
    }

    /// Runs the job in this process until its input has ended; blocks.
    ///
    /// # Errors
    /// What ended it; [`ErrorKind`] says what to do.
    pub fn run(self) -> Result<(), Error> {
        crate::runtime::run(self.named()?)
    }

    /// Starts the job inside a program that goes on with its own work. It has threads and runtimes of its own, so this
    /// works within any runtime of the caller's and without one. Gives the handle when the topology is built and the
    /// directory of the job is held; recovery and all else come after that. Dropped before, the job does not run.
    ///
    /// # Errors
    /// What can be known by then: a topology that cannot be built, a directory that is busy or cannot be used. Whatever
    /// comes later is told by [`JobHandle::wait`].
    pub async fn start(self) -> Result<JobHandle, Error> {
        crate::runtime::start(self.named()?).await
    }

    /// The settings of the job's own, all layers together.
    pub(crate) fn values(&self) -> Result<Values, Error> {
        let config = self.config.as_ref().map_err(|why| Error::new(ErrorKind::Usage, why.clone()))?;
        let mut values = self.pipeline.clone();
        values.overlay(config);
        Ok(values)
    }

    /// Builds the topology and checks it.
    pub(crate) fn graph(&self) -> Result<Graph, Error> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.');
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.chars().all(good) {
            let text = format!("the job is named `{}`: write a name of a-z, 0-9, `_`, `-` and `.`", self.name);
            return Err(Error::new(ErrorKind::Topology, text));
        }
        let topology = Topology::new(&self.name, self.values()?);
        let (built, secrets) = secret::collect(|| (self.build)(&topology));
        built.map_err(|e| match e.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::new(ErrorKind::Topology, "the topology cannot be built").because(error),
        })?;
        topology.all_read()?;
        let graph = Graph { secrets, ..topology.into_graph() };
        validate(&graph)?;
        Ok(graph)
    }

    /// The topology with its subtasks.
    pub(crate) fn plan(&self) -> Result<Plan, Error> {
        Ok(Plan::new(self.graph()?, self.settings.parallelism()))
    }
}
