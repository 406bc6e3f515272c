//! Processes: this binary started again as a pipeline, and the examples. What they print goes to a file.

use millstream::clock;
use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How long anything may take before it counts as hanging, if nothing else is said.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) const MIB: u64 = 1 << 20;

/// The most bytes of memory that a process has needed so far.
pub(crate) fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")).unwrap();
    kib.trim().parse::<u64>().unwrap() * 1024
}

/// This binary, to run the one test `name`, which is ignored otherwise.
pub(crate) fn myself(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command
}

/// An example of this package, as `make test` has built it in the profile of this binary.
pub(crate) fn example(name: &str) -> Command {
    let deps = std::env::current_exe().unwrap();
    let path = deps.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: build it with `cargo build --workspace --examples`", path.display());
    Command::new(path)
}

/// How a process ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) printed: String,
}

impl Ended {
    /// That it ended with this exit code, and said this.
    #[track_caller]
    pub(crate) fn expect(self, code: i32, said: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}", self.printed);
        for said in said {
            assert!(self.printed.contains(said), "`{said}` is not in\n{}", self.printed);
        }
        self
    }

    /// Whether it ended well, and what it said.
    pub(crate) fn result(self) -> Result<String, String> {
        if self.code == 0 { Ok(self.printed) } else { Err(self.printed) }
    }
}

/// A process that is killed when this value goes.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    /// Where its output begins in the log.
    from: u64,
    patience: Duration,
}

impl Process {
    /// Starts it; what it prints is appended to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let from = file.metadata().unwrap().len();
        let other = file.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(file).stderr(other).spawn().unwrap();
        Self { child, log: log.to_owned(), from, patience: PATIENCE }
    }

    /// It may take so long.
    pub(crate) fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// SIGKILL. Whether that ended it, and not it itself before.
    pub(crate) fn kill(&mut self) -> bool {
        let _ = self.child.kill();
        self.child.wait().unwrap().signal() == Some(9)
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.id().to_string()]).status().unwrap();
        assert!(status.success(), "no process {}", self.id());
    }

    /// SIGSTOP, and waits until it has stopped, which takes its time where much else runs.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
        let runs = |thread: PathBuf| !std::fs::read_to_string(thread.join("status")).unwrap().contains("State:\tT");
        let threads = PathBuf::from(format!("/proc/{}/task", self.id()));
        while std::fs::read_dir(&threads).unwrap().any(|thread| runs(thread.unwrap().path())) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Waits for its end and gives its exit code; an error if it hangs or was killed.
    pub(crate) fn wait(&mut self) -> Result<i32, String> {
        let deadline = clock::now() + self.patience;
        loop {
            if let Some(status) = self.ended() {
                return status.code().ok_or_else(|| format!("ended by {status}:\n{}", self.tail()));
            }
            if clock::now() > deadline {
                self.kill();
                return Err(format!("did not end within {:?}:\n{}", self.patience, self.tail()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end, and gives with its exit code what it has printed.
    #[track_caller]
    pub(crate) fn end(&mut self) -> Ended {
        let code = self.wait().unwrap();
        Ended { code, printed: self.printed() }
    }

    /// SIGTERM, upon which it ends with exit code 0.
    #[track_caller]
    pub(crate) fn ends_well(&mut self) {
        self.terminate();
        assert_eq!(self.wait().unwrap(), 0, "{}", self.tail());
    }

    /// Waits until `holds`, or until the process has ended: then false.
    pub(crate) fn wait_until(&mut self, mut holds: impl FnMut() -> bool) -> Result<bool, String> {
        let deadline = clock::now() + self.patience;
        loop {
            if holds() {
                return Ok(true);
            }
            if self.ended().is_some() {
                return Ok(false);
            }
            if clock::now() > deadline {
                self.kill();
                return Err(format!("nothing happened within {:?}:\n{}", self.patience, self.tail()));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// All it has printed.
    pub(crate) fn printed(&self) -> String {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = File::open(&self.log).unwrap();
        file.seek(SeekFrom::Start(self.from)).unwrap();
        let mut text = Vec::new();
        file.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// How many attempts of its job have failed so far, as it says.
    pub(crate) fn failures(&self) -> usize {
        self.printed().matches("attempt failed, recovering").count()
    }

    /// The end of what it has printed.
    pub(crate) fn tail(&self) -> String {
        let text = self.printed();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
