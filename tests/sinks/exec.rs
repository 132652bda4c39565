//! `exec`: what a child gets, what its answers do, and that no child, however bad, costs more than its own records' time.

mod answers;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use duragram::model::{ExecTarget, LaneMark, SinkConfig, SinkTarget};
use duragram::process::{Handler, Outcome, Outcomes};
use duragram::sink;
use nix::sys::signal::{SigSet, Signal};
use tempfile::TempDir;

use super::support::lane::{self, DeadLetters, Message, drive, journal, messages, records, start};
use crate::common::{PATIENCE, wait_for};

/// What the Python children begin with.
const PRELUDE: &str = r#"
import json, os, signal, sys, time
def records():
    for line in sys.stdin:
        yield json.loads(line)
def say(record, **verdict):
    print(json.dumps({"offset": record["offset"], "index": record["index"], **verdict}), flush=True)
"#;

/// A directory that a child works in.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A command that runs this Python program in the directory.
    fn python(&self, program: &str) -> String {
        let path = self.path("handler.py");
        fs::write(&path, format!("{PRELUDE}os.chdir({:?})\n{program}", self.0.path())).unwrap();
        format!("exec python3 '{}'", path.display())
    }

    /// A command that runs this shell program in the directory.
    fn shell(&self, program: &str) -> String {
        format!("cd '{}'; {program}", self.0.path().display())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The offsets in the file `seen`, each where it came first.
    fn seen(&self) -> Vec<u64> {
        let mut seen: Vec<u64> = Vec::new();
        for line in self.read("seen").lines() {
            let offset = line.parse().unwrap();
            if !seen.contains(&offset) {
                seen.push(offset);
            }
        }
        seen
    }

    /// The process ids in a file, one a line.
    fn pids(&self, name: &str) -> Vec<u32> {
        self.read(name).lines().map(|line| line.trim().parse().unwrap()).collect()
    }
}

fn config(target: SinkTarget, timeout: Duration) -> SinkConfig {
    lane::config("the-sink", target, timeout)
}

fn open(target: SinkTarget, timeout: Duration) -> Box<dyn Handler> {
    let mark = LaneMark::default();
    sink::handler(&config(target, timeout), &start(journal(0xabc), 5, &mark)).unwrap()
}

fn exec(command: String) -> Box<dyn Handler> {
    exec_within(command, PATIENCE)
}

fn exec_within(command: String, timeout: Duration) -> Box<dyn Handler> {
    open(SinkTarget::Exec(ExecTarget { command, withheld: Vec::new() }), timeout)
}

/// Presents all in one call.
fn process(handler: &mut dyn Handler, messages: &[Message]) -> Outcomes {
    let mut outcomes = Outcomes::new(messages.len());
    handler.process(&records(messages), &mut outcomes);
    outcomes
}

fn drive_all(handler: &mut dyn Handler, messages: &[Message]) -> DeadLetters {
    drive(handler, &records(messages), 1000, Duration::from_secs(60))
}

/// Presents one record to a child that is no good, and returns the reason that is given for it.
fn reason(command: String, timeout: Duration) -> String {
    let mut handler = exec_within(command, timeout);
    let outcomes = process(&mut *handler, &messages(7, 1));
    assert_eq!(outcomes.outcome(0), &Outcome::Unanswered);
    outcomes.unavailable_reason().expect("a reason").to_owned()
}

/// Whether nothing is left of a process, not even its entry in the list of processes.
fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether a process runs no more; whoever has adopted it may not have looked yet how it ended.
fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

#[test]
fn a_child_gets_the_very_lines_of_the_file_sink() {
    let place = Place::new();
    let mut messages = messages(3, 20);
    messages[4].payload = b"\xff\x00 no text".to_vec();
    messages[5].index = 9;
    let mut child = exec(place.python(
        r#"
out = open("lines", "w")
for line in sys.stdin:
    out.write(line); out.flush()
    say(json.loads(line), done=True)
"#,
    ));
    assert_eq!(drive_all(&mut *child, &messages), []);
    let mut file = open(SinkTarget::File(place.path("file")), PATIENCE);
    assert_eq!(drive_all(&mut *file, &messages), []);
    assert_eq!(place.read("lines"), place.read("file"));
    assert_eq!(place.read("lines").lines().count(), 20);
}

#[test]
fn full_pipes_in_both_directions_stop_nobody() {
    let place = Place::new();
    let mut child = exec(place.python(
        r#"
for record in records():
    say(record, done=True, answer="x" * 4000)
"#,
    ));
    let messages = messages(0, 3000);
    let outcomes = process(&mut *child, &messages);
    assert_eq!(outcomes.unavailable_reason(), None);
    assert!((0..messages.len()).all(|i| *outcomes.outcome(i) == Outcome::Done));
}

#[test]
fn a_child_that_says_much_on_standard_error_is_not_held_up() {
    let place = Place::new();
    let mut child = exec(place.python(
        r#"
for record in records():
    sys.stderr.write("words\n" * 200_000 + "y" * 1_000_000)
    say(record, done=True)
"#,
    ));
    assert_eq!(drive_all(&mut *child, &messages(0, 2)), []);
}

#[test]
fn a_child_that_ends_is_replaced_and_what_it_left_comes_again() {
    let place = Place::new();
    let mut child = exec(place.python(
        r#"
life = len(os.listdir("."))
open(f"life-{life}", "w")
for n, record in enumerate(records()):
    if n == 10 and life < 3:
        sys.exit(3)
    with open("seen", "a") as seen: seen.write(f"{record['offset']}\n")
    say(record, done=True)
"#,
    ));
    assert_eq!(drive_all(&mut *child, &messages(0, 40)), []);
    let seen: Vec<u64> = place.read("seen").lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(seen, (0..40).collect::<Vec<_>>(), "no record was lost or done twice");
}

#[test]
fn how_a_child_ended_and_its_last_words_are_told() {
    let place = Place::new();
    let reason = reason(place.shell("echo first >&2; echo 'no \x1b[31m disk' >&2; read line; exit 3"), PATIENCE);
    assert_eq!(reason, "the sink's child ended with exit status 3; its last words: no  [31m disk");
    let reason = self::reason("no-such-program-anywhere".into(), PATIENCE);
    assert!(
        reason.contains("exit status 127; its last words: ") && reason.contains("no-such-program-anywhere"),
        "{reason}"
    );
    let reason = self::reason("read line; kill -9 $$".into(), PATIENCE);
    assert_eq!(reason, "the sink's child was ended by SIGKILL");
}

#[test]
fn a_record_that_kills_each_child_becomes_a_dead_letter_and_the_others_go_on() {
    let place = Place::new();
    let mut child = exec(place.python(
        r#"
for record in records():
    if record["offset"] == 4:
        sys.exit("cannot read this")
    with open("seen", "a") as seen: seen.write(f"{record['offset']}\n")
    say(record, done=True)
"#,
    ));
    let dead = drive_all(&mut *child, &messages(0, 12));
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0].0, (4, 0));
    assert!(dead[0].1.ends_with("its last words: cannot read this; it had record 4-0 alone"), "{dead:?}");
    assert_eq!(place.seen(), (0..12).filter(|offset| *offset != 4).collect::<Vec<_>>(), "in order");
    assert_eq!(drive_all(&mut *child, &messages(12, 50)), []);
}

#[test]
fn records_that_kill_each_child_become_dead_letters_though_each_is_the_only_one_that_is_presented() {
    let place = Place::new();
    let mut child = exec(place.python(
        r#"
for record in records():
    if record["offset"] in (2, 3):
        sys.exit("cannot read this")
    with open("seen", "a") as seen: seen.write(f"{record['offset']}\n")
    say(record, done=True)
"#,
    ));
    let dead = drive(&mut *child, &records(&messages(0, 6)), 1, Duration::from_secs(60));
    assert_eq!(dead.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [(2, 0), (3, 0)]);
    assert_eq!(place.seen(), [0, 1, 4, 5], "in order");
}

#[test]
fn after_a_restart_a_record_that_kills_each_child_is_told_from_an_outage_as_before() {
    let place = Place::new();
    let command = place.python(
        r#"
for record in records():
    if record["offset"] == 2:
        sys.exit("cannot read this")
    say(record, done=True)
"#,
    );
    let mut child = exec(command.clone());
    assert_eq!(drive_all(&mut *child, &messages(0, 2)), []);
    let state = child.flush().unwrap();
    drop(child);
    let config = config(SinkTarget::Exec(ExecTarget { command, withheld: Vec::new() }), PATIENCE);
    let dead = drive_all(&mut *lane::handler(&config, 2, &state, 3), &messages(2, 1));
    assert_eq!(dead.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [(2, 0)]);
}

#[test]
fn an_outage_that_begins_after_records_were_done_makes_no_dead_letters() {
    let place = Place::new();
    let mut child = exec(place.python(
        r#"
for record in records():
    if os.path.exists("away"):
        sys.exit("the database is away")
    with open("seen", "a") as seen: seen.write(f"{record['offset']}\n")
    say(record, done=True)
"#,
    ));
    assert_eq!(drive_all(&mut *child, &messages(0, 3)), []);
    fs::write(place.path("away"), "").unwrap();
    for _ in 0..12 {
        let outcomes = process(&mut *child, &messages(3, 3));
        assert!((0..3).all(|i| *outcomes.outcome(i) == Outcome::Unanswered));
        assert!(outcomes.unavailable_reason().expect("a reason").contains("the database is away"));
    }
    fs::remove_file(place.path("away")).unwrap();
    assert_eq!(drive_all(&mut *child, &messages(3, 3)), []);
    assert_eq!(place.read("seen"), "0\n1\n2\n3\n4\n5\n", "nothing was given twice either");
}

#[test]
fn a_child_that_can_do_nothing_makes_no_dead_letters_however_often_it_is_tried() {
    let place = Place::new();
    let mut child = exec(place.shell("test -e up && exec python3 up; read line; exit 1"));
    let messages = messages(0, 3);
    for _ in 0..12 {
        let outcomes = process(&mut *child, &messages);
        assert!((0..3).all(|i| *outcomes.outcome(i) == Outcome::Unanswered));
        assert!(outcomes.unavailable_reason().expect("a reason").contains("exit status 1"));
    }
    fs::write(place.path("up"), format!("{PRELUDE}for record in records(): say(record, done=True)")).unwrap();
    assert_eq!(drive_all(&mut *child, &messages), []);
}

#[test]
fn a_child_that_ends_after_each_record_is_as_good_as_any() {
    let place = Place::new();
    let mut child = exec(place.python(
        r#"
record = json.loads(sys.stdin.readline())
with open("seen", "a") as seen: seen.write(f"{record['offset']}\n")
say(record, done=True)
"#,
    ));
    assert_eq!(drive_all(&mut *child, &messages(0, 8)), []);
    assert_eq!(place.seen(), (0..8).collect::<Vec<_>>(), "in order");
}

#[test]
fn a_child_that_does_nothing_costs_the_timeout_and_is_gone_then() {
    let timeout = Duration::from_millis(300);
    for program in [
        // Never reads.
        "echo $$ >> pids; exec sleep 1000",
        // Reads, and never answers.
        "echo $$ >> pids; cat >/dev/null; exit",
        // Does not let itself be told to end, and has started another that does not either.
        "trap '' TERM; echo $$ >> pids; (echo $$ >/dev/null; sleep 1000) & echo $! >> pids; wait; sleep 1000",
    ] {
        let place = Place::new();
        let mut child = exec_within(place.shell(program), timeout);
        // More than a pipe holds.
        let messages = messages(0, 5000);
        let started = Instant::now();
        let outcomes = process(&mut *child, &messages);
        let reason = outcomes.unavailable_reason().expect("a reason");
        assert!(started.elapsed() >= timeout && started.elapsed() < PATIENCE, "{:?}: {reason}", started.elapsed());
        assert!(reason.starts_with("the sink's child gave no answer for 300ms, and "), "{reason}");
        let pids = place.pids("pids");
        assert!(!pids.is_empty());
        assert!(is_gone(pids[0]));
        wait_for("the processes to end", || pids.iter().all(|pid| has_ended(*pid)).then_some(()));
    }
}

#[test]
fn a_child_that_closes_its_standard_output_is_replaced_without_waiting_for_the_timeout() {
    let started = Instant::now();
    let reason = reason("exec >&-; cat >/dev/null; exit 5".into(), PATIENCE);
    assert_eq!(reason, "the sink's child ended with exit status 5");
    assert!(started.elapsed() < PATIENCE);
}

#[test]
fn what_a_child_has_started_ends_with_it() {
    let place = Place::new();
    let started = Instant::now();
    let reason = reason(place.shell("sleep 1000 & echo $! > pids; exit 0"), PATIENCE);
    assert_eq!(reason, "the sink's child ended with exit status 0");
    assert!(started.elapsed() < PATIENCE, "it holds the pipes open, and is not waited for");
    let pid = place.pids("pids")[0];
    wait_for("the process to end", || has_ended(pid).then_some(()));
}

#[test]
fn a_child_is_asked_to_end_by_the_end_of_its_input() {
    let place = Place::new();
    let program = r#"
open("pids", "w").write(f"{os.getpid()}\n")
for record in records(): say(record, done=True)
open("goodbye", "w")
"#;
    let mut child = exec(place.python(program));
    assert_eq!(drive_all(&mut *child, &messages(0, 3)), []);
    drop(child);
    assert!(place.path("goodbye").exists());
    assert!(is_gone(place.pids("pids")[0]), "it is no zombie either");
}

#[test]
fn reopening_starts_a_new_child_and_repeats_nothing() {
    let place = Place::new();
    let program = r#"
for record in records():
    with open("seen", "a") as seen: seen.write(f"{record['offset']}\n")
    say(record, done=True)
open("pids", "a").write(f"{os.getpid()}\n")
"#;
    let mut child = exec(place.python(program));
    assert_eq!(drive_all(&mut *child, &messages(0, 2)), []);
    child.reopen().unwrap();
    assert_eq!(place.pids("pids").len(), 1, "the first one has ended in good order");
    assert_eq!(drive_all(&mut *child, &messages(2, 2)), []);
    drop(child);
    let pids = place.pids("pids");
    assert!(pids.len() == 2 && pids[0] != pids[1], "{pids:?}");
    assert_eq!(place.read("seen"), "0\n1\n2\n3\n");
}

#[test]
fn a_child_starts_with_no_signal_blocked_or_ignored_and_knows_whose_it_is() {
    let place = Place::new();
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGIO);
    blocked.add(Signal::SIGXFSZ);
    blocked.thread_block().unwrap();
    let program = "env > environment; exec cat /proc/self/status > status";
    process(&mut *exec(place.shell(program)), &messages(0, 1));
    blocked.thread_unblock().unwrap();
    let status = place.read("status");
    for mask in ["SigBlk:", "SigIgn:"] {
        let line = status.lines().find(|line| line.starts_with(mask)).unwrap();
        let signals = u64::from_str_radix(line.trim_start_matches(mask).trim(), 16).unwrap();
        // The C library ignores two signals of its own (32 and 33) in what it starts.
        assert_eq!(signals & !(0b11 << 31), 0, "{line}");
    }
    let environment = place.read("environment");
    for variable in
        ["DURAGRAM_JOURNAL=00000000000000000000000000000abc", "DURAGRAM_SINK_NAME=the-sink", "DURAGRAM_SINK_INSTANCE=5"]
    {
        assert!(environment.lines().any(|line| line == variable), "{environment}");
    }
}

#[test]
#[ignore = "a measurement, for a machine that does nothing else"]
fn how_many_records_a_second_a_trivial_child_takes() {
    let place = Place::new();
    let mut child = exec(place.python("for record in records():\n    say(record, done=True)\n"));
    let mut messages = messages(0, 1000);
    messages.iter_mut().for_each(|message| message.payload = vec![b'x'; 100]);
    let records = records(&messages);
    let started = Instant::now();
    for _ in 0..100 {
        assert_eq!(drive(&mut *child, &records, 1000, PATIENCE), []);
    }
    eprintln!("{:.0} records a second", 100_000.0 / started.elapsed().as_secs_f64());
}
