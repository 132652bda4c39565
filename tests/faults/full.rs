//! A file system without space: a small one, mounted for the test (by root, and where the kernel permits it).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use duragram::limits::{MEMTABLE_BYTES, RESERVE_BYTES};

use super::load::{Crowd, Plan};
use super::{CONFIG, Long, PATIENCE, comes_back};
use crate::common::server::{Home, Server};
use crate::common::wait_for;
use crate::common::wire::Wire;

const PLAN: Plan = Plan { records: u64::MAX, window: 32, bytes_max: 1000 };
const MIB: u64 = 1 << 20;

/// A file system of its own for a home's disk. Unmounted when dropped.
struct SmallDisk {
    at: PathBuf,
    /// Removed when it is not mounted any more.
    _image: tempfile::TempDir,
}

impl SmallDisk {
    /// Says so where that is not permitted.
    fn mount(at: &Path, bytes: u64) -> Option<Self> {
        let image = tempfile::tempdir().expect("a temporary directory");
        let file = image.path().join("image");
        File::create(&file).and_then(|file| file.set_len(bytes)).expect("a sparse file");
        let run = |command: &mut Command| command.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        // No share for root: the test is root.
        let made = run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&file));
        let mounted = (made && run(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(at)))
            || run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"]).arg(at));
        if !mounted {
            eprintln!("SKIPPED: no file system can be mounted here (that takes root)");
            return None;
        }
        Some(Self { at: at.to_owned(), _image: image })
    }

    fn free_bytes(&self) -> u64 {
        let stat = nix::sys::statvfs::statvfs(&self.at).expect("a file system");
        stat.blocks_available() * stat.fragment_size()
    }

    /// Takes space until so much is left, or next to nothing.
    fn fill(&self, left: u64) {
        let mut step = 64 * MIB;
        let mut n = 0;
        while step >= 4096 {
            let over = self.free_bytes().saturating_sub(left);
            if over < step {
                step /= 2;
                continue;
            }
            n += 1;
            let name = self.at.join(format!("ballast-{left}-{n}"));
            let file = File::create(name).and_then(|file| {
                let len = i64::try_from(step).expect("a small step");
                nix::fcntl::posix_fallocate(&file, 0, len).map_err(std::io::Error::from)
            });
            if file.is_err() {
                step /= 2;
            }
        }
    }

    /// Gives back all the space that was taken.
    fn clear(&self) {
        for entry in fs::read_dir(&self.at).expect("it is mounted") {
            let path = entry.expect("it is mounted").path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ballast")) {
                fs::remove_file(path).expect("our own file");
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: where a test failed, its server may still be there.
        Command::new("umount").arg("-l").arg(&self.at).status().ok();
    }
}

/// Room for what a server lays out, and somewhat more above its reserve.
fn small_disk(home: &Home) -> Option<SmallDisk> {
    SmallDisk::mount(&home.disk(), RESERVE_BYTES.start() + MEMTABLE_BYTES as u64 * 11 / 10 + 200 * MIB)
}

fn small_home() -> Home {
    Home::with_config(&format!("{CONFIG}reserve_bytes = {}\n", RESERVE_BYTES.start()))
}

fn refused(crowd: &Crowd) -> u64 {
    crowd.heard().iter().filter_map(|heard| heard.rejects.get("Storage")).sum()
}

/// How many datagrams are journaled. Acks do not tell: one that a client has missed is given again also on a full disk.
fn journaled(server: &Server) -> f64 {
    server.metric("duragram_datagrams_total", "journaled")
}

/// The same when the last commit before the refusals is over.
fn settled(server: &Server) -> f64 {
    wait_for("the last commit", || {
        let before = journaled(server);
        std::thread::sleep(Duration::from_millis(300));
        (before > 0.0 && journaled(server) == before).then_some(before)
    })
}

#[test]
fn a_full_file_system_refuses_new_data_loses_nothing_and_resumes() {
    fills_up(1, Duration::from_secs(2));
}

fn fills_up(times: u64, full_for: Duration) {
    let home = small_home();
    let Some(disk) = small_disk(&home) else { return };
    let server = home.serve();
    let crowd = Crowd::start(server.udp, 3, PLAN);
    for _ in 0..times {
        assert!(crowd.wait_acked(1000, PATIENCE), "{:?}", crowd.heard());
        let refusals = refused(&crowd);
        disk.fill(RESERVE_BYTES.start() - MIB);
        wait_for("REJECT 7", || (refused(&crowd) > refusals).then_some(()));
        // Others take what is left, all of it.
        disk.fill(0);
        let before = settled(&server);
        std::thread::sleep(full_for);
        assert!(server.is_running(), "{}", server.log());
        assert!(disk.free_bytes() < MIB, "the disk is full");
        assert_eq!(journaled(&server), before, "nothing is taken any more");
        Wire::new(&server, 1).ping();
        disk.clear();
    }
    assert!(crowd.wait_acked(1000, PATIENCE), "service resumes: {:?}", crowd.heard());
    crowd.stop();
    let heard = crowd.finish(PATIENCE).unwrap();
    assert!(server.terminate().success());
    // A sink that waits to try again when the server is stopped goes on after the next start.
    comes_back(&home, &heard, PLAN).unwrap();
}

#[test]
fn a_start_without_any_space_fails_or_refuses_and_loses_nothing() {
    let home = small_home();
    let Some(disk) = small_disk(&home) else { return };
    let server = home.serve();
    let crowd = Crowd::start(server.udp, 3, PLAN);
    assert!(crowd.wait_acked(1000, PATIENCE));
    server.kill();
    let heard = crowd.give_up();
    disk.fill(0);
    for _ in 0..3 {
        match Server::try_start(&home, home.command(&home.data())) {
            Err(status) => assert_eq!(status.code(), Some(4), "{}", fs::read_to_string(home.log_path()).unwrap()),
            Ok(server) => {
                let wire = Wire::new(&server, 99);
                wire.ask_reject(&wire.data(1, b"no room"));
            }
        }
    }
    disk.clear();
    comes_back(&home, &heard, PLAN).unwrap();
}

/// `scripts/soak full`
#[test]
#[ignore = "long: scripts/soak full"]
fn a_file_system_that_fills_up_again_and_again() {
    let mut long = Long::start("full disk", 4);
    while long.goes_on() {
        fills_up(5, Duration::from_secs(3));
        long.round();
    }
    long.tell("5 times full in each; refused, and resumed");
}
