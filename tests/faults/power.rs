//! Power cuts: at any moment of a run, whatever part of what was not synced survives, nothing acked is lost.
//!
//! A run is traced once and then cut at many of its moments: a cut leaves in the directory what [`Disk`] says, and a new
//! server has to go on from there. That this test would see a sync that is missing is shown by taking syncs away.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Disk, Survival};
use super::layer::{Action, Layer, Record, Rule, calls};
use super::load::{Crowd, Heard, Plan, overhear};
use super::{CONFIG, Long, OVERLAPPING, PATIENCE, comes_back, fast_dir};
use crate::common::lossy::{LossyPath, Weather};
use crate::common::server::{Home, Server};
use crate::common::wire::{Is, Wire};

/// Asks for epochs, one after the other; they must survive as well.
const GREETER: u64 = 0x6e11;
const CLIENTS: usize = 4;
const PLAN: Plan = Plan { records: 150, window: 16, bytes_max: 900 };

/// A run that was written down.
struct History {
    /// As it was before,
    disk: Disk,
    /// and what had been acked by then.
    heard: Vec<Heard>,
    epochs: BTreeMap<u64, u32>,
    records: Vec<Record>,
    /// What the clients knew when it ended.
    ended: Vec<Heard>,
    plan: Plan,
}

impl History {
    /// Runs a server on what is in the home, traced, until its clients have all acks, and ends it, well or by SIGKILL.
    fn record(home: &Home, rules: &[Rule], heard: Vec<Heard>, plan: Plan, kill: bool) -> Self {
        Self::record_behind(None, home, rules, heard, plan, kill)
    }

    /// The same with the clients behind a path of their own, so that they do not all wait for the same acks.
    fn record_behind(
        weather: Option<Weather>,
        home: &Home,
        rules: &[Rule],
        heard: Vec<Heard>,
        plan: Plan,
        kill: bool,
    ) -> Self {
        let disk = Disk::load(&home.disk()).unwrap();
        let layer = Layer::tracing(&home.disk());
        rules.iter().enumerate().for_each(|(index, rule)| layer.set(index, *rule));
        let mut command = home.command(&home.data());
        layer.under(&mut command);
        let server = Server::try_start(home, command).expect("a server without faults starts");
        let path = weather.map(|weather| LossyPath::to(server.udp, weather, 1));
        let crowd = Crowd::go_on(path.as_ref().map_or(server.udp, LossyPath::addr), &heard, plan);
        let greeter = Wire::new(&server, GREETER);
        for nonce in 0..20 {
            assert!(matches!(greeter.hello(nonce).is, Is::Welcome(_)));
        }
        let ended = crowd.finish(PATIENCE).unwrap();
        if kill {
            server.kill();
        } else {
            assert!(server.terminate().success());
        }
        Self { disk, heard, epochs: BTreeMap::new(), records: layer.trace(), ended, plan }
    }

    /// What the clients can have sent by now: what fits the window above what was acked.
    fn sent_by_now(&self) -> Vec<Heard> {
        let sent = |heard: &Heard, ended: &Heard| ended.sent.min(heard.floor + self.plan.window);
        let by_now = |(heard, ended): (&Heard, &Heard)| Heard { sent: sent(heard, ended), ..heard.clone() };
        self.heard.iter().zip(&self.ended).map(by_now).collect()
    }

    /// Goes on to the moment before record `to`.
    fn go_to(&mut self, at: &mut usize, to: usize) {
        for record in &self.records[*at..to] {
            self.disk.apply(record);
            if let Record::Replies(replies) = record {
                overhear(replies, &mut self.heard, &mut self.epochs);
            }
        }
        *at = to;
    }

    /// The moment after the first ack.
    fn first_ack(&self) -> usize {
        let mut heard = self.heard.clone();
        let news = |record: &Record| match record {
            Record::Replies(replies) => overhear(replies, &mut heard, &mut BTreeMap::new()),
            _ => false,
        };
        self.records.iter().position(news).expect("something was acked") + 1
    }

    /// Cuts the power so many times before the first ack, and so many times after it.
    fn cut_at_random(
        &mut self,
        home: &Home,
        random: &mut SmallRng,
        in_start: usize,
        at_work: usize,
        each: impl FnMut(usize, Result<(), String>),
    ) {
        let (acks, end) = (self.first_ack(), self.records.len());
        let mut moments = [moments(random, 0, acks, in_start), moments(random, acks, end, at_work)].concat();
        moments.dedup();
        self.cut(home, &moments, random, Survival::draw, each);
    }

    /// Cuts the power at each of these moments, in their order, and looks what comes back.
    fn cut(
        &mut self,
        home: &Home,
        moments: &[usize],
        random: &mut SmallRng,
        mut survival: impl FnMut(&mut SmallRng) -> Survival,
        mut each: impl FnMut(usize, Result<(), String>),
    ) {
        let mut at = 0;
        for &moment in moments {
            self.go_to(&mut at, moment);
            let survival = survival(random);
            let again = random.clone();
            self.disk.cut_power(survival, random, &home.out()).unwrap();
            let mut result = comes_back(home, &self.sent_by_now(), self.plan);
            if result.is_ok() {
                result = self.epochs_go_on(home);
            }
            let result = result.map_err(|problem| {
                self.disk.cut_power(survival, &mut again.clone(), &home.out()).unwrap();
                let before = self.records[..moment].last().map(brief);
                format!("cut at {moment} of {}, {survival:?}, after {before:?}: {problem}", self.records.len())
            });
            each(moment, result);
        }
    }

    /// An epoch that was given out is not given out again. Epochs follow the clock where they may: so many were asked for
    /// that they are ahead of it.
    fn epochs_go_on(&self, home: &Home) -> Result<(), String> {
        let Some(&highest) = self.epochs.get(&GREETER) else { return Ok(()) };
        let server = home.serve();
        let Is::Welcome(welcome) = Wire::new(&server, GREETER).hello(u64::MAX).is else {
            return Err("no WELCOME".into());
        };
        match welcome.epoch.value() > highest {
            true => Ok(()),
            false => Err(format!("epoch {highest} was given out, and now {}", welcome.epoch.value())),
        }
    }
}

/// A record without its bytes.
fn brief(record: &Record) -> String {
    match record {
        Record::Write { path, at, bytes } => format!("write of {} bytes at {at} to {}", bytes.len(), path.display()),
        Record::Replies(replies) => format!("{} replies", replies.len()),
        other => format!("{other:?}"),
    }
}

/// Moments spread over a history: `count`, and each with another chance.
fn moments(random: &mut SmallRng, from: usize, to: usize, count: usize) -> Vec<usize> {
    let mut moments: Vec<_> = (0..count).map(|_| random.random_range(from..=to)).collect();
    moments.sort_unstable();
    moments.dedup();
    moments
}

fn home() -> Home {
    Home::below(&fast_dir(), CONFIG)
}

fn never_again(_: usize, result: Result<(), String>) {
    if let Err(problem) = result {
        panic!("{problem}");
    }
}

#[test]
fn the_trace_holds_all_that_the_server_does_to_its_disk() {
    let home = home();
    let mut heard = vec![Heard::default(); CLIENTS];
    // A new database, and one that is recovered.
    for (run, kill) in (1..).zip([true, false]) {
        let plan = Plan { records: run * PLAN.records, ..PLAN };
        let mut history = History::record(&home, &[], heard, plan, kill);
        let end = history.records.len();
        history.go_to(&mut 0, end);
        // RocksDB's own log is written in a way that is not seen, and nobody reads it.
        let info_log = |name: &str| name.starts_with("LOG");
        assert_eq!(history.disk.differs(&info_log).unwrap(), None);
        assert_eq!(history.heard.iter().map(|heard| heard.floor).collect::<Vec<_>>(), [plan.records; CLIENTS]);
        assert!(history.epochs.contains_key(&GREETER));
        heard = history.ended;
    }
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing_that_was_acked() {
    cut_everywhere(&home(), &mut SmallRng::seed_from_u64(1), PLAN, 6, 16, never_again);
}

/// Commits so large that the journal writes one while it syncs the one before it.
const LARGE: Plan = Plan { records: 1000, window: 300, bytes_max: 1200 };
/// So many clients that some send while others wait for their acks.
const MANY_CLIENTS: usize = 16;

/// The moments at which a write to the log is done while a sync of it is under way, and those at which that sync then ends.
fn while_syncing(history: &History) -> Vec<usize> {
    let is_log = |path: &std::path::Path| path.extension().is_some_and(|extension| extension == "log");
    let (mut syncing, mut overtaken, mut moments) = (None, false, Vec::new());
    for (index, record) in history.records.iter().enumerate() {
        match record {
            Record::Sync { path, id } if is_log(path) => (syncing, overtaken) = (Some(*id), false),
            Record::Synced { id } if syncing == Some(*id) => {
                moments.extend(overtaken.then_some(index + 1));
                syncing = None;
            }
            Record::Write { path, .. } if is_log(path) && syncing.is_some() => {
                moments.push(index + 1);
                overtaken = true;
            }
            _ => {}
        }
    }
    moments
}

/// Makes writes and syncs of the log take their time, so that commits overtake syncs wherever the test runs.
fn slow_log() -> [Rule; 2] {
    let slow = |ms| std::time::Duration::from_millis(ms);
    [
        Rule::always(calls::SYNC, ".log", Action::Linger(slow(3))),
        Rule::always(calls::WRITE, ".log", Action::Delay(slow(2))),
    ]
}

#[test]
fn a_power_cut_while_one_commit_is_synced_and_the_next_is_written_loses_nothing_that_was_acked() {
    let (home, mut random) = (home(), SmallRng::seed_from_u64(4));
    cut_while_syncing(&home, &mut random, 16, never_again);
}

fn cut_while_syncing(home: &Home, random: &mut SmallRng, cuts: usize, each: impl FnMut(usize, Result<(), String>)) {
    home.configure(OVERLAPPING);
    let mut history = History::record_behind(
        Some(Weather::CLEAR),
        home,
        &slow_log(),
        vec![Heard::default(); MANY_CLIENTS],
        LARGE,
        true,
    );
    let all = while_syncing(&history);
    assert!(all.len() >= 6, "a sync was overtaken {} times", all.len());
    let chosen = moments(random, 0, all.len() - 1, cuts).into_iter().map(|nth| all[nth]);
    history.cut(home, &chosen.collect::<Vec<_>>(), random, Survival::draw, each);
}

/// Cuts the power while a journal is made, and while it is at work.
fn cut_everywhere(
    home: &Home,
    random: &mut SmallRng,
    plan: Plan,
    in_start: usize,
    at_work: usize,
    each: impl FnMut(usize, Result<(), String>),
) -> History {
    let kill = random.random();
    let mut history = History::record(home, &[], vec![Heard::default(); CLIENTS], plan, kill);
    history.cut_at_random(home, random, in_start, at_work, each);
    history
}

#[test]
fn a_power_cut_after_a_power_cut_loses_nothing_either() {
    cut_in_recovery(&home(), &mut SmallRng::seed_from_u64(2), PLAN, 10, 6, never_again);
}

/// Cuts the power once while the server is at work, and then while another one recovers from that, and goes on.
fn cut_in_recovery(
    home: &Home,
    random: &mut SmallRng,
    plan: Plan,
    in_start: usize,
    at_work: usize,
    each: impl FnMut(usize, Result<(), String>),
) {
    let mut first = History::record(home, &[], vec![Heard::default(); CLIENTS], plan, true);
    let moment = random.random_range(first.first_ack()..=first.records.len());
    first.go_to(&mut 0, moment);
    let survival = Survival::draw(random);
    first.disk.cut_power(survival, random, &home.out()).unwrap();
    let heard = first.sent_by_now();
    let more = Plan { records: plan.records + 100, ..plan };
    let kill = random.random();
    let mut second = History::record(home, &[], heard, more, kill);
    second.epochs = first.epochs;
    second.cut_at_random(home, random, in_start, at_work, each);
}

#[test]
fn a_power_cut_before_the_first_lines_are_in_a_checkpoint_leaves_none_of_them_torn() {
    let home = home();
    home.configure("checkpoint_bytes = 1073741824\ncheckpoint_interval = \"1h\"\nlanes = 2\n");
    let mut random = SmallRng::seed_from_u64(8);
    // So many that the sink writes several times.
    let plan = Plan { records: 4000, ..PLAN };
    let mut history = History::record(&home, &[], vec![Heard::default(); CLIENTS], plan, true);
    let writes = |(index, record): (usize, &Record)| match record {
        Record::Write { path, .. } if *path == home.out() => Some(index + 1),
        _ => None,
    };
    let mut moments: Vec<_> = history.records.iter().enumerate().filter_map(writes).collect();
    moments.truncate(8);
    assert!(!moments.is_empty());
    history.cut(&home, &moments, &mut random, |_| Survival::Some(0.5), never_again);
}

/// The positive control: with syncs that are not made, power cuts lose acked data, and that is seen, every time.
#[test]
fn where_syncs_are_a_lie_every_power_cut_after_an_ack_is_seen_to_lose_data() {
    let lost = |part: &'static str, kill: bool, moments_of: &dyn Fn(&History, &mut SmallRng) -> Vec<usize>| {
        let mut random = SmallRng::seed_from_u64(3);
        let home = home();
        let lie = Rule::always(calls::SYNC, part, Action::Lie);
        let mut history = History::record(&home, &[lie], vec![Heard::default(); CLIENTS], PLAN, kill);
        let moments = moments_of(&history, &mut random);
        let mut results = Vec::new();
        history.cut(&home, &moments, &mut random, |_| Survival::Nothing, |_, result| results.push(result));
        assert!(!results.is_empty());
        results.into_iter().map(|result| result.expect_err(&format!("no sync of {part:?} is missed"))).collect()
    };
    let any = |history: &History, random: &mut SmallRng| moments(random, history.first_ack(), history.records.len(), 4);
    let end = |history: &History, _: &mut SmallRng| vec![history.records.len()];
    // No sync at all, only those of the write-ahead log, only those of the database's directory.
    for part in ["", ".log", "/rocksdb"] {
        let problems: Vec<String> = lost(part, true, &any);
        let expected = ["had acks up to", "it does not start: exit status: 3"];
        assert!(problems.iter().all(|problem| expected.iter().any(|text| problem.contains(text))), "{problems:?}");
    }
    // Of the sink's file, once the journal has let go of what was written to it.
    let problems: Vec<String> = lost("out.ndjson", false, &end);
    assert!(problems.iter().all(|problem| problem.contains("has not come out")), "{problems:?}");
}

/// `scripts/soak power`: new runs, each cut at many moments.
#[test]
#[ignore = "long: scripts/soak power"]
fn power_cuts_for_long() {
    let mut long = Long::start("power cuts", 200);
    while long.goes_on() {
        let home = home();
        let mut random = SmallRng::seed_from_u64(long.random.random());
        let plan = Plan {
            records: random.random_range(20..400),
            window: random.random_range(1..200),
            bytes_max: random.random_range(1..1200),
        };
        let each = |_: usize, result: Result<(), String>| {
            never_again(0, result);
            long.round();
        };
        if random.random_ratio(1, 3) {
            cut_while_syncing(&home, &mut random, 10, each);
        } else if random.random() {
            cut_everywhere(&home, &mut random, plan, 5, 20, each);
        } else {
            cut_in_recovery(&home, &mut random, plan, 15, 10, each);
        }
    }
    long.tell("nothing lost");
}

/// `scripts/soak control`: without any sync, each cut after an ack has to be seen to lose something.
#[test]
#[ignore = "long: scripts/soak control"]
fn power_cuts_without_syncs_for_long() {
    let mut long = Long::start("power cuts without syncs", 200);
    while long.goes_on() {
        let home = home();
        let lie = Rule::always(calls::SYNC, ["", ".log"][usize::from(long.random.random::<bool>())], Action::Lie);
        let mut history = History::record(&home, &[lie], vec![Heard::default(); CLIENTS], PLAN, true);
        let moments = moments(&mut long.random, history.first_ack(), history.records.len(), 10);
        let mut random = SmallRng::seed_from_u64(long.random.random());
        history.cut(
            &home,
            &moments,
            &mut random,
            |_| Survival::Nothing,
            |moment, result| {
                assert!(result.is_err(), "{lie:?}: nothing was missed at {moment}");
                long.round();
            },
        );
    }
    long.tell("all of them lost acked data, and that was seen");
}

/// `scripts/soak big`: enough data for memtables to be flushed and logs to be recycled; cuts where files come, go and are
/// renamed.
#[test]
#[ignore = "long: scripts/soak big"]
fn power_cuts_around_flushes_and_recycled_logs() {
    let mut long = Long::start("power cuts around flushes", 40);
    let plan = Plan { records: 120_000, window: 256, bytes_max: 1400 };
    while long.goes_on() {
        let home = home();
        let mut history = History::record(&home, &[], vec![Heard::default(); CLIENTS], plan, true);
        let first_ack = history.first_ack();
        let names = |(index, record): (usize, &Record)| match record {
            Record::Create { path } | Record::Remove { path } | Record::Rename { to: path, .. } => {
                let matters = !path.ends_with("witness") && !path.ends_with("witness.new");
                (index > first_ack && matters).then_some(index)
            }
            _ => None,
        };
        let near: Vec<_> = history.records.iter().enumerate().filter_map(names).collect();
        let recycled = |record: &&Record| {
            let log = |path: &std::path::Path| path.extension().is_some_and(|extension| extension == "log");
            matches!(record, Record::Rename { from, to } if log(from) && log(to))
        };
        assert!(history.records.iter().any(|record| recycled(&record)), "no log was recycled");
        let mut moments: Vec<_> = (0..20)
            .map(|_| near[long.random.random_range(0..near.len())] + long.random.random_range(0..8))
            .filter(|&moment| moment <= history.records.len())
            .collect();
        moments.sort_unstable();
        moments.dedup();
        let mut random = SmallRng::seed_from_u64(long.random.random());
        history.cut(&home, &moments, &mut random, Survival::draw, |_, result| {
            never_again(0, result);
            long.round();
        });
    }
    long.tell("nothing lost");
}
