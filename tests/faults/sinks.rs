//! What a sink writes to, taken away under the server, or full, or slow: no record counts as processed that nobody can read,
//! and nothing but the sink waits.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use super::load::{self, Crowd, Plan};
use super::{CONFIG, PATIENCE, comes_back};
use crate::common::server::{Home, Server, duragram};
use crate::common::sink;
use crate::common::wait_for;
use crate::common::wire::Wire;

const PLAN: Plan = Plan { records: u64::MAX, window: 64, bytes_max: 900 };

/// The offsets of a file's whole lines, but for lines of somebody else's.
fn offsets(bytes: &[u8]) -> Vec<u64> {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    let lines = bytes[..whole].split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"{"));
    lines.map(|line| serde_json::from_slice::<Value>(line).unwrap()["offset"].as_u64().unwrap()).collect()
}

fn send(wire: &Wire, seqs: std::ops::RangeInclusive<u64>) {
    for seq in seqs {
        wire.ask_ack(&wire.data(seq, format!("record {seq}").as_bytes()));
    }
}

/// Waits until the file holds just these offsets.
fn wait_offsets(path: &Path, expected: std::ops::Range<u64>) {
    wait_for(&format!("entries {expected:?} in {}", path.display()), || {
        let found = offsets(&fs::read(path).unwrap_or_default());
        (found == expected.clone().collect::<Vec<_>>()).then_some(())
    });
}

/// Waits until all counts as processed: lines are visible a moment before their sync, and what is deleted in that moment is written
/// again.
fn settled(server: &Server) {
    wait_for("the lanes to come to the end", || (server.metric("duragram_lane_lag_entries", "") == 0.0).then_some(()));
}

fn limit_file_size(server: &Server, bytes: &str) {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &server.pid().to_string(), &format!("--fsize={bytes}:")]);
    assert!(command.status().expect("prlimit, of util-linux").success());
}

#[test]
fn a_sinks_file_that_is_deleted_or_replaced_under_the_server_is_made_anew() {
    let home = Home::with_config(CONFIG);
    let server = home.serve();
    let wire = Wire::new(&server, 1);
    send(&wire, 1..=20);
    wait_offsets(&home.out(), 0..20);
    settled(&server);
    fs::remove_file(home.out()).unwrap();
    send(&wire, 21..=40);
    wait_offsets(&home.out(), 20..40);
    settled(&server);
    fs::write(home.path().join("other"), "of somebody else's\n").unwrap();
    fs::rename(home.path().join("other"), home.out()).unwrap();
    send(&wire, 41..=60);
    wait_offsets(&home.out(), 40..60);
    assert!(server.log().contains("deleted or replaced"), "{}", server.log());
    // Killed before anything else is written: what is in the new file is not written again.
    server.kill();
    let server = home.serve();
    let wire = Wire::new(&server, 2);
    send(&wire, 1..=10);
    wait_offsets(&home.out(), 40..70);
}

#[test]
fn under_load_no_record_goes_only_to_a_file_that_is_deleted() {
    let home = Home::with_config(CONFIG);
    let server = home.serve();
    let crowd = Crowd::start(server.udp, 3, PLAN);
    let mut deleted = Vec::new();
    for _ in 0..8 {
        assert!(crowd.wait_acked(500, PATIENCE), "{:?}\n{}", crowd.heard(), server.log());
        deleted.push(File::open(home.out()).unwrap());
        fs::remove_file(home.out()).unwrap();
        wait_for("a new file", || home.out().exists().then_some(()));
    }
    assert!(crowd.wait_acked(500, PATIENCE));
    crowd.stop();
    crowd.finish(PATIENCE).unwrap();
    let end = server.metric("duragram_datagrams_total", "journaled");
    assert!(server.terminate().success());
    let last = offsets(&fs::read(home.out()).unwrap());
    let mut all: BTreeSet<u64> = last.iter().copied().collect();
    assert_eq!(all.len(), last.len(), "the file that is there holds no record twice");
    for mut file in deleted {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        all.extend(offsets(&bytes));
    }
    assert_eq!((all.len() as f64, all.last().map(|&last| last as f64)), (end, Some(end - 1.0)));
}

#[test]
fn without_its_directory_a_sinks_records_wait_and_acks_go_on() {
    let home = Home::with_config(CONFIG);
    let logs = home.disk().join("logs");
    fs::create_dir(&logs).unwrap();
    let out = logs.join("records");
    let server = home.serve_with(&["--sink", &format!("file:{}", out.display())]);
    let wire = Wire::new(&server, 1);
    send(&wire, 1..=10);
    wait_offsets(&out, 0..10);
    settled(&server);
    fs::remove_dir_all(&logs).unwrap();
    send(&wire, 11..=30);
    wait_for("the lane to say so", || (server.metric("duragram_lane_down", "") > 0.0).then_some(()));
    assert!(server.log().contains(&out.display().to_string()), "{}", server.log());
    fs::create_dir(&logs).unwrap();
    wait_offsets(&out, 10..30);
    assert!(server.terminate().success());
}

#[test]
fn rotation_by_rename_and_sighup_goes_on_as_it_is_documented() {
    let home = Home::with_config(CONFIG);
    let server = home.serve();
    let rotated = home.disk().join("out.1");
    let wire = Wire::new(&server, 1);
    send(&wire, 1..=10);
    wait_offsets(&home.out(), 0..10);
    fs::rename(home.out(), &rotated).unwrap();
    send(&wire, 11..=20);
    wait_offsets(&rotated, 0..20);
    assert!(!home.out().exists(), "until SIGHUP lines go on into the renamed file");
    server.signal("HUP");
    wait_for("a new file", || home.out().exists().then_some(()));
    send(&wire, 21..=30);
    wait_offsets(&home.out(), 20..30);
    server.kill();
    let server = home.serve();
    send(&Wire::new(&server, 2), 1..=1);
    wait_offsets(&home.out(), 20..31);
    wait_offsets(&rotated, 0..20);
}

#[test]
fn a_limit_of_the_files_size_that_a_sink_meets_is_that_sinks_failure() {
    let home = Home::with_config(CONFIG);
    let limited = home.disk().join("limited");
    // The journal's log begins below the limit, and so does the other sink's file.
    fs::write(&limited, "-\n".repeat(4 << 20)).unwrap();
    let server = home.serve_with(&["--sink", &format!("file:{}", limited.display())]);
    limit_file_size(&server, &(8 << 20).to_string());
    let wire = Wire::new(&server, 1);
    send(&wire, 1..=50);
    wait_for("the sink to fail", || (server.metric("duragram_sink_failures_total", "") > 1.0).then_some(()));
    send(&wire, 51..=60);
    assert!(server.is_running(), "{}", server.log());
    limit_file_size(&server, "unlimited");
    wait_offsets(&limited, 0..60);
    assert!(server.terminate().success());
    wait_offsets(&home.out(), 0..60);
}

#[test]
fn a_limit_of_the_files_size_that_the_journal_meets_ends_the_server_with_its_exit_code() {
    let home = Home::with_config(CONFIG);
    let server = home.serve();
    let crowd = Crowd::start(server.udp, 3, PLAN);
    assert!(crowd.wait_acked(100, PATIENCE));
    limit_file_size(&server, "1000000");
    let ended = server.wait();
    assert_eq!(ended.code(), Some(4), "{ended}\n{}", server.log());
    let heard = crowd.give_up();
    comes_back(&home, &heard, PLAN).unwrap();
}

#[test]
fn a_server_that_was_started_with_its_signals_blocked_or_ignored_obeys_them() {
    for how in ["--block-signal=TERM,HUP,INT,USR1", "--ignore-signal=TERM,HUP,INT,XFSZ", "--ignore-signal=PIPE"] {
        let home = Home::with_config(CONFIG);
        let serve = home.command(&home.data());
        let mut command = Command::new("env");
        command.arg(how).arg(serve.get_program()).args(serve.get_args());
        let server = Server::try_start(&home, command).unwrap();
        let wire = Wire::new(&server, 1);
        send(&wire, 1..=5);
        wait_offsets(&home.out(), 0..5);
        fs::rename(home.out(), home.disk().join("out.1")).unwrap();
        server.signal("HUP");
        wait_for("a new file", || home.out().exists().then_some(()));
        assert!(server.terminate().success(), "{how}");
    }
}

/// A FIFO, and a reader of it that does not wait for a writer.
fn read_fifo(path: &Path) -> File {
    File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).unwrap()
}

#[test]
fn the_next_reader_of_a_fifo_sink_begins_with_a_whole_record_and_none_is_lost() {
    let home = Home::with_config(CONFIG);
    let fifo = home.disk().join("fifo");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let mut reader = read_fifo(&fifo);
    let server = home.serve_with(&["--sink", &format!("file:{}", fifo.display())]);
    let wire = Wire::new(&server, 1);
    let mut seen = Vec::new();
    for round in 0..5u64 {
        send(&wire, 50 * round + 1..=50 * round + 50);
        let mut part = vec![0; 1234 + 77 * usize::try_from(round).unwrap()];
        let mut read = 0;
        wait_for("a part of the records", || {
            match reader.read(&mut part[read..]) {
                Ok(n) => read += n,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
            (read == part.len()).then_some(())
        });
        assert!(part.starts_with(b"{\"offset\":"), "{}", String::from_utf8_lossy(&part));
        seen.extend(offsets(&part));
        let before = server.log().matches("the reader has left").count();
        drop(reader);
        wait_for("the server to notice", || {
            (server.log().matches("the reader has left").count() > before).then_some(())
        });
        reader = read_fifo(&fifo);
    }
    let mut rest = Vec::new();
    wait_for("the other records", || {
        reader.read_to_end(&mut rest).ok();
        (seen.len() + offsets(&rest).len() >= 250).then_some(())
    });
    assert!(rest.starts_with(b"{\"offset\":"));
    seen.extend(offsets(&rest));
    seen.sort_unstable();
    assert_eq!(seen, (0..250).collect::<Vec<_>>(), "each record whole to one reader");
    assert!(server.terminate().success());
}

#[test]
fn standard_output_that_does_not_block_flows_at_its_readers_pace() {
    let home = Home::new();
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut serve = duragram();
    serve.args(["serve", "--listen", &port.to_string(), "--admin", "off", "--sink", "stdout", "--data"]);
    serve.arg(home.data()).stdin(Stdio::null()).stdout(writer).stderr(File::create(home.log_path()).unwrap());
    let mut child = serve.spawn().unwrap();
    drop(serve);
    let records = 4_000;
    let lines = format!("{}\n", "x".repeat(1000)).repeat(records);
    let sending = {
        let mut send = duragram();
        send.args(["send", "--server", &port.to_string()]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut sending = send.stderr(Stdio::null()).spawn().unwrap();
        let mut stdin = sending.stdin.take().unwrap();
        std::thread::spawn(move || {
            stdin.write_all(lines.as_bytes()).unwrap();
            drop(stdin);
            sending.wait().unwrap()
        })
    };
    // Some four megabytes, a pipe's content every twenty milliseconds.
    let started = Instant::now();
    let mut found = 0;
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    let mut line = String::new();
    let mut bytes = 0;
    while found < records {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "{}", fs::read_to_string(home.log_path()).unwrap());
        found += usize::from(line.starts_with("{\"offset\":"));
        bytes += line.len();
        if bytes > 64 << 10 {
            bytes = 0;
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(started.elapsed() < PATIENCE, "{found} of {records} after {:?}", started.elapsed());
    }
    assert!(sending.join().unwrap().success());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn with_another_number_of_lanes_after_each_kill_every_record_comes_out_once() {
    let home = Home::with_config(CONFIG);
    let rotated = |round: usize| home.disk().join(format!("out.{round}"));
    // Rarely a checkpoint: the lanes have come to different places.
    let configure = |lanes: u16| {
        home.configure(&format!("checkpoint_bytes = 1048576\ncheckpoint_interval = \"300ms\"\nlanes = {lanes}\n"));
    };
    let mut heard = Vec::new();
    for (round, lanes) in [2, 4, 1, 3, 3, 2, 5].into_iter().enumerate() {
        configure(lanes);
        let server = home.serve();
        let crowd = match round {
            0 => Crowd::start(server.udp, 5, PLAN),
            _ => Crowd::go_on(server.udp, &heard, PLAN),
        };
        assert!(crowd.wait_acked(1500, PATIENCE), "{:?}\n{}", crowd.heard(), server.log());
        if round % 3 == 1 {
            fs::rename(home.out(), rotated(round)).unwrap();
        }
        server.kill();
        heard = crowd.give_up();
    }
    configure(3);
    let server = home.serve();
    let crowd = Crowd::go_on(server.udp, &heard, PLAN);
    crowd.stop();
    let heard = crowd.finish(PATIENCE).unwrap();
    assert!(server.terminate().success());
    let lines: Vec<_> = [rotated(1), rotated(4), home.out()].iter().flat_map(|path| sink::read(path)).collect();
    load::judge(&lines, &heard, PLAN.bytes_max).unwrap();
}
