//! Dead letters of a server with a handler of its own, through its admin interface and the real command line.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use duragram::config::{Config, Retry};
use duragram::model::{Content, Record};
use duragram::process::{Handler, HandlerError, LaneStart, Outcomes};
use duragram::server::{Error, Server, ServerHandle};
use tempfile::TempDir;

use crate::cli::support::{duragram, text};
use crate::common::wait_for;

/// What the handler does with a record, by its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Does {
    GiveUp,
    Retry,
}

/// What the handlers of all lanes share.
#[derive(Default)]
struct World {
    /// Whatever is not in here is done.
    script: BTreeMap<String, Does>,
    seen: Vec<String>,
    open: bool,
    flushed_while_open: bool,
}

struct Scripted {
    world: Arc<Mutex<World>>,
    /// How many records this handler has done, in all its lives.
    done: u64,
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handler for Scripted {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        let mut world = lock(&self.world);
        world.open = false;
        for (i, record) in records.iter().enumerate() {
            let Content::Payload(payload) = record.content else { panic!("a gap") };
            let payload = text(payload);
            match world.script.get(&payload).copied() {
                Some(Does::GiveUp) => outcomes.give_up(i, "as told"),
                Some(Does::Retry) => {
                    world.open = true;
                    outcomes.retry(i, "later");
                }
                None => {
                    self.done += 1;
                    outcomes.done(i);
                }
            }
            world.seen.push(payload);
        }
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        let mut world = lock(&self.world);
        world.flushed_while_open |= world.open;
        Ok(self.done.to_le_bytes().to_vec())
    }
}

/// A server in this process.
struct Embedded {
    udp: SocketAddr,
    admin: SocketAddr,
    handle: ServerHandle,
    serving: Option<JoinHandle<Result<(), Error>>>,
}

fn config(data: &Path) -> Config {
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let second = std::time::Duration::from_secs(1);
    Config {
        listen: vec![loopback],
        admin: Some(loopback),
        data: data.to_owned(),
        lanes: 1,
        sessions_max: 100,
        retry: Retry { attempts_max: 1000, first_delay: second / 20, longest_delay: second / 20 },
        drain_timeout: second / 5,
        ..Config::default()
    }
}

impl Embedded {
    /// With what the handler had kept, as it is handed to it.
    fn start(config: Config, world: &Arc<Mutex<World>>) -> (Self, u64) {
        let kept = Arc::new(Mutex::new(0));
        let (world, kept_) = (Arc::clone(world), Arc::clone(&kept));
        let handlers = move |start: &LaneStart<'_>| {
            let states = start.inherited().filter_map(|state| state.first_chunk());
            let done = states.map(|state| u64::from_le_bytes(*state)).sum();
            *kept_.lock().unwrap() += done;
            Ok(Box::new(Scripted { world: Arc::clone(&world), done }) as Box<dyn Handler>)
        };
        let server = Server::start(config, handlers).unwrap();
        let (udp, admin) = (server.ready().udp[0], server.ready().admin.unwrap());
        let handle = server.handle();
        let serving = Some(std::thread::spawn(move || server.wait()));
        let kept = *kept.lock().unwrap();
        (Self { udp, admin, handle, serving }, kept)
    }

    fn stop(mut self) {
        self.handle.stop();
        self.serving.take().unwrap().join().unwrap().unwrap();
    }

    /// Sends these records, and waits for their acks.
    fn send(&self, records: &[&str]) {
        let mut command = duragram(&["send", "--server", &self.udp.to_string()]);
        let mut sending = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        sending.stdin.take().unwrap().write_all(format!("{}\n", records.join("\n")).as_bytes()).unwrap();
        assert!(sending.wait().unwrap().success());
    }

    fn dead(&self, data: &Path, args: &[&str]) -> Command {
        let mut command = duragram(&["dead"]);
        command.args(args).args(["--admin", &self.admin.to_string()]);
        command.env("DURAGRAM_ADMIN_TOKEN_FILE", data.join("admin-token"));
        command
    }

    fn begin_dead(&self, data: &Path, args: &[&str]) -> Child {
        self.dead(data, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The ids of the dead letters.
    fn letters(&self, data: &Path) -> Vec<String> {
        let listed = self.dead(data, &["list", "--json"]).output().unwrap();
        let id = |line: &str| {
            let letter: serde_json::Value = serde_json::from_str(line).unwrap();
            format!("{}/{}", letter["offset"], letter["index"])
        };
        text(&listed.stdout).lines().map(id).collect()
    }

    fn wait_letters(&self, data: &Path, n: usize) -> Vec<String> {
        wait_for(&format!("{n} dead letters"), || Some(self.letters(data)).filter(|letters| letters.len() == n))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(serving) = self.serving.take() {
            drop(serving.join());
        }
    }
}

fn outcome(child: Child) -> (i32, String, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn world() -> (TempDir, Arc<Mutex<World>>) {
    (tempfile::tempdir().unwrap(), Arc::default())
}

fn seen(world: &Mutex<World>, payload: &str) -> usize {
    lock(world).seen.iter().filter(|seen| *seen == payload).count()
}

#[test]
fn a_retry_waits_for_its_turn_and_a_letter_that_was_discarded_meanwhile_is_not_processed() {
    let (dir, world) = world();
    let data = dir.path().join("data");
    let (server, _) = Embedded::start(config(&data), &world);
    lock(&world).script = [("a", Does::GiveUp), ("b", Does::GiveUp), ("c", Does::Retry)]
        .map(|(payload, does)| (payload.to_owned(), does))
        .into();
    server.send(&["a", "b", "x"]);
    let letters = server.wait_letters(&data, 2);
    server.send(&["c"]);
    wait_for("a record to be open", || (seen(&world, "c") > 2).then_some(()));
    lock(&world).script.remove("a");
    lock(&world).script.remove("b");
    // The first is asked for twice, and the second discarded while it waits.
    let first = [server.begin_dead(&data, &["retry", &letters[0]]), server.begin_dead(&data, &["retry", &letters[0]])];
    let second = server.begin_dead(&data, &["retry", &letters[1]]);
    let tries = seen(&world, "c");
    wait_for("further tries", || (seen(&world, "c") > tries + 5).then_some(()));
    assert_eq!((seen(&world, "a"), seen(&world, "b")), (1, 1), "no letter comes while a record is open");
    assert!(server.dead(&data, &["discard", &letters[1]]).output().unwrap().status.success());
    server.handle.reopen();
    let tries = seen(&world, "c");
    wait_for("further tries", || (seen(&world, "c") > tries + 5).then_some(()));
    lock(&world).script.clear();
    for retry in first {
        let (code, out, err) = outcome(retry);
        // Whichever comes second may find it gone.
        assert!((code, out.as_str()) == (0, "0/0 retried\n") || err.contains("there is no dead letter"), "{err}");
    }
    let (code, _, err) = outcome(second);
    assert_eq!((code, err.contains("there is no dead letter")), (1, true), "{err}");
    assert_eq!((seen(&world, "a"), seen(&world, "b")), (2, 1), "once more, and never more");
    assert!(server.letters(&data).is_empty());
    assert!(!lock(&world).flushed_while_open, "a handler is flushed only when nothing is open");
    server.stop();
    let (_server, kept) = Embedded::start(config(&data), &world);
    assert_eq!(kept, 3, "x, c and a: what the state holds and what is dead fit together");
}

#[test]
fn a_server_that_is_stopped_while_a_record_is_open_has_flushed_no_half_of_it() {
    let (dir, world) = world();
    let data = dir.path().join("data");
    let (server, _) = Embedded::start(config(&data), &world);
    lock(&world).script.insert("c".to_owned(), Does::Retry);
    server.send(&["a", "b"]);
    wait_for("two records", || (seen(&world, "b") > 0).then_some(()));
    server.send(&["c"]);
    wait_for("a record to be open", || (seen(&world, "c") > 2).then_some(()));
    server.stop();
    assert!(!lock(&world).flushed_while_open);
    lock(&world).script.clear();
    let (server, kept) = Embedded::start(config(&data), &world);
    wait_for("the record", || (lock(&world).seen.last().is_some_and(|last| last == "c")).then_some(()));
    server.stop();
    let (_server, all) = Embedded::start(Config { lanes: 3, ..config(&data) }, &world);
    assert!(kept <= 2 && all == 3, "{kept}, {all}: also with another number of lanes");
}

#[test]
fn with_as_many_dead_letters_as_may_be_acks_go_on_and_processing_waits_for_an_operator() {
    let (dir, world) = world();
    let data = dir.path().join("data");
    let (server, _) = Embedded::start(Config { dead_letters_max: 2, ..config(&data) }, &world);
    let bad = ["a", "b", "c"].map(|payload| (payload.to_owned(), Does::GiveUp));
    lock(&world).script = bad.into();
    server.send(&["a", "b", "c", "d"]);
    server.wait_letters(&data, 2);
    server.send(&["e", "f"]);
    assert_eq!((server.letters(&data).len(), seen(&world, "e")), (2, 0));
    let status = ureq::get(format!("http://{}/api/status", server.admin)).call().unwrap();
    let status: serde_json::Value = serde_json::from_str(&status.into_body().read_to_string().unwrap()).unwrap();
    assert_eq!((&status["dead_letters"], &status["phase"]), (&2.into(), &"running".into()), "{status}");
    assert!(server.dead(&data, &["discard", "0"]).output().unwrap().status.success());
    wait_for("the lane to go on", || (seen(&world, "f") == 1).then_some(()));
    assert_eq!(server.letters(&data), ["1/0", "2/0"]);
    assert_eq!(["a", "b", "c", "d"].map(|payload| seen(&world, payload)), [1; 4], "nothing was shown again");
}
