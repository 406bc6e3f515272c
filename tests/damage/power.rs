//! F3: power that is cut. A job works on a file system in a file, which is shut down under it as if the machine had
//! stopped: what was not synced is gone. Then it is mounted again, and the job goes on. Takes root and loop devices.

use super::{tool, with_mounts};
use crate::common::{Output, Process, Random, Scratch, WordCount, is_soak, mix, seed};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An ext4 in a file, mounted for as long as this value lives.
struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    fn new(directory: &Path) -> Result<Self, String> {
        let disk = Self { image: directory.join("image"), at: directory.join("disk") };
        std::fs::create_dir_all(&disk.at).map_err(|e| e.to_string())?;
        let file = std::fs::File::create(&disk.image).map_err(|e| e.to_string())?;
        file.set_len(512 << 20).map_err(|e| e.to_string())?;
        tool("mkfs.ext4", &["-q", disk.image.to_str().unwrap()])?;
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        tool("mount", &["-o", "loop", self.image.to_str().unwrap(), self.at.to_str().unwrap()]).map(drop)
    }

    /// All that is not on the disk is gone, its journal included; what still works on it meets errors.
    fn cut_power(&self) {
        // FS_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH
        let shutdown = r#"my $flags = pack("L", 2); open(my $d, "<", $ARGV[0]) or die $!; ioctl($d, 0x8004587d, $flags) or die $!"#;
        tool("perl", &["-e", shutdown, self.at.to_str().unwrap()]).unwrap();
    }

    /// Nobody works on it any more.
    fn mount_again(&self) {
        tool("umount", &[self.at.to_str().unwrap()]).unwrap();
        self.mount().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = tool("umount", &["-l", self.at.to_str().unwrap_or_default()]);
    }
}

/// Cuts the power so many times.
fn campaign(disk: &Disk, log: &Path, cuts: u64, random: &mut Random) {
    let job = WordCount::new(&disk.at);
    let start = |more: &[&str], random: &mut Random| {
        let parallelism = random.within(1..4).to_string();
        let mut command = job.command();
        command.args(["--checkpoint-interval", "10ms", "--memory", "64MiB", "--parallelism", &parallelism]).args(more);
        Process::start(&mut command, log)
    };
    let (mut ended, mut shown) = ([0; 2], Output::default());
    for cut in 0..cuts {
        let line = |n: u64| format!("word{} and word{}\n", mix(n) % 3000, mix(n + 1) % 50);
        job.append("a.txt", (cut * 4000..cut * 4000 + 4000).map(line));
        tool("sync", &["--file-system", disk.at.to_str().unwrap()]).unwrap();
        let mut process = start(&["--rate", "4000", "--restart-attempts", "2", "--restart-pause", "10ms"], random);
        std::thread::sleep(random.up_to(Duration::from_millis(600)));
        // whoever has read it has read it
        shown = Output::of(&job.output());
        disk.cut_power();
        if random.within(0..2) == 0 {
            ended[0] += u64::from(process.kill());
        } else {
            let code = process.wait().unwrap();
            assert!([0, 1].contains(&code), "{code}: {}", process.tail());
            ended[1] += u64::from(code == 1);
        }
        disk.mount_again();
        if random.within(0..3) == 0 {
            start(&[], random).end().expect(0, &[]);
            let output = job.shown();
            output.continues(&shown).unwrap();
            job.check(&output).unwrap();
        }
    }
    start(&[], random).end().expect(0, &[]);
    job.shown().continues(&shown).unwrap();
    job.check(&job.shown()).unwrap();
    println!("{cuts} cuts, {} killed after them, {} failed by themselves", ended[0], ended[1]);
}

#[test]
fn f3_soak_power_that_is_cut_loses_nothing() {
    with_mounts("damage::power::process", "MILLSTREAM_TEST_POWER", Duration::from_mins(10));
}

/// Not a test: the process with mounts of its own.
#[test]
#[ignore = "started by another test"]
fn process() {
    let Ok(directory) = std::env::var("MILLSTREAM_TEST_POWER").map(PathBuf::from) else { return };
    let disk = match Disk::new(&directory) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: there are no loop devices here ({why})"),
    };
    let (seed, logs) = (seed(), Scratch::new());
    println!("seed {seed}");
    campaign(&disk, &logs.join("log"), if is_soak() { 150 } else { 8 }, &mut Random::new(seed));
}
