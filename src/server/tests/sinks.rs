//! Whole servers with configured sinks, on a journal in memory, over UDP. `/dev/full` stands for a sink that is away for good.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use duragram_proto::codec::{self, Data, Datagram, RejectCode};
use duragram_proto::{ClientId, Epoch, Seq};
use tempfile::TempDir;

use super::super::*;
use crate::journal::testing::memory::MemoryDisk;
use crate::model::{
    BacklogConfig, Offset, Record, RedisTarget, Secret, SinkConfig, SinkRecord, SinkTarget, TlsConfig, WhenFull,
};
use crate::process::{HandlerFactory, Outcomes};
use crate::server::processing::Processing;
use crate::sink;

const AWAY: &str = "file:/dev/full";

struct Rig {
    disk: MemoryDisk,
    state: Arc<ServerState>,
    handle: ServerHandle,
    serving: JoinHandle<Result<(), Error>>,
    client: UdpSocket,
    seq: u64,
}

/// A place for files, in memory where there is such a thing: no power is cut here.
fn directory() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

fn config(sinks: &[&str], lanes: u16) -> Config {
    Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        admin: None,
        lanes,
        sessions_max: 100,
        sink: sinks.iter().map(|sink| sink.parse().unwrap()).collect(),
        checkpoint_interval: Duration::from_millis(20),
        retain_bytes: 0,
        drain_timeout: Duration::from_millis(200),
        ..Config::default()
    }
}

/// The sinks, of which those that are away may hold so many bytes.
fn bounded(sinks: &[&str], bytes_max: u64, when_full: WhenFull) -> Vec<SinkConfig> {
    let mut configured = config(sinks, 1).sink;
    for sink in configured.iter_mut().filter(|sink| sink.name == AWAY) {
        sink.backlog = BacklogConfig { bytes_max: Some(bytes_max), when_full };
    }
    configured
}

impl Rig {
    fn on(disk: MemoryDisk, config: Config, processing: Processing, seq: u64) -> Result<Self, Error> {
        let server = Server::start_on(disk.clone(), Vec::new(), config, processing, Owner::Program)?;
        let client = UdpSocket::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
        client.connect(server.ready().udp[0]).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (state, handle) = (Arc::clone(&server.state), server.handle());
        let serving = std::thread::spawn(move || server.wait());
        Ok(Self { disk, state, handle, serving, client, seq })
    }

    fn with(sinks: Vec<SinkConfig>) -> Self {
        Self::again(MemoryDisk::default(), sinks, 0).unwrap()
    }

    fn again(disk: MemoryDisk, sinks: Vec<SinkConfig>, seq: u64) -> Result<Self, Error> {
        Self::on(disk, config(&["null"], 1), Processing::Sinks(sinks, Fifos::default()), seq)
    }

    /// On lanes that share a sink, as all sinks were shared up to format 3: so they are a program's own handlers.
    fn together(disk: MemoryDisk, sink: &str, lanes: u16, seq: u64) -> Self {
        Self::on(disk, config(&[sink], lanes), Processing::Embedded(together(sink)), seq).unwrap()
    }

    /// Sends the next record, of a client for each of four in turn; returns whether it was taken.
    fn offers(&mut self) -> bool {
        let (client, seq) = (ClientId(1 + self.seq % 4), Seq(1 + self.seq / 4));
        let mut buffer = [0; 400];
        let data = Data::whole(client, Epoch::new(1).unwrap(), seq, 0, &[b'x'; 100]);
        let len = Datagram::Data(data).encode(&mut buffer).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            self.client.send(&buffer[..len]).unwrap();
            let mut answer = [0; 1500];
            match self.client.recv(&mut answer).ok().map(|len| codec::decode(&answer[..len]).unwrap()) {
                Some(Datagram::Ack(ack)) if ack.client == client && ack.floor >= seq => {
                    self.seq += 1;
                    return true;
                }
                Some(Datagram::Reject(reject)) if reject.code == RejectCode::Storage => return false,
                _ => assert!(Instant::now() < deadline, "no answer"),
            }
        }
    }

    fn send(&mut self, records: u64) {
        (0..records).for_each(|n| assert!(self.offers(), "record {n} was refused"));
    }

    fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition(self) {
            assert!(Instant::now() < deadline, "{what}: not in time; {:?}", self.disk.sinks());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until a checkpoint says this of a sink.
    fn wait_stored(&self, what: &str, sink: &str, condition: impl Fn(&SinkRecord) -> bool) {
        self.wait(what, |rig| rig.disk.sinks().iter().any(|record| record.name == sink && condition(record)));
    }

    fn stop(self) -> MemoryDisk {
        self.handle.stop();
        self.serving.join().unwrap().unwrap();
        self.disk
    }
}

/// A lane's handler, to a sink that all lanes share.
struct Together {
    name: String,
    sink: Arc<Mutex<Box<dyn Handler>>>,
}

fn together(sink: &str) -> HandlerFactory {
    let config: SinkConfig = sink.parse().unwrap();
    let mut shared = None;
    Box::new(move |start| {
        let sink = match &shared {
            Some(shared) => Arc::clone(shared),
            None => {
                let alone = LaneStart { marks: &start.marks[..1], ..*start };
                Arc::clone(shared.insert(Arc::new(Mutex::new(sink::handler(&config, &alone)?))))
            }
        };
        Ok(Box::new(Together { name: config.name.clone(), sink }))
    })
}

impl Handler for Together {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        self.sink.lock().unwrap().process(records, outcomes);
    }

    /// Each sink's state under its name, in base64.
    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        let state = STANDARD.encode(self.sink.lock().unwrap().flush()?);
        serde_json::to_vec(&BTreeMap::from([(self.name.as_str(), state.as_str()), ("null", "")]))
            .map_err(HandlerError::new)
    }
}

/// The offsets of the lines of a file, each of which must be whole.
fn offsets(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    let offset = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["offset"].as_u64().unwrap();
    text.lines().map(offset).collect()
}

#[test]
fn one_sink_that_is_away_holds_nobody_up_and_keeps_its_records() {
    let dir = directory();
    let out = dir.path().join("out");
    let file = format!("file:{}", out.display());
    let sinks = || config(&[&file, AWAY], 1).sink;
    let mut rig = Rig::with(sinks());
    rig.send(40);
    rig.wait_stored("the file's place", &file, |sink| sink.mark.watermark == Offset(40));
    assert_eq!(offsets(&out), (0..40).collect::<Vec<_>>(), "a sink gets all records in the journal's order");
    rig.wait("a reason", |rig| rig.state.waiting().iter().any(|reason| reason.starts_with("sink file:/dev/full: ")));
    rig.send(10);
    let seq = rig.seq;
    let disk = rig.stop();
    assert_eq!(disk.low(), Offset(0), "trimming stops at the slowest sink");
    let mut rig = Rig::again(disk, sinks(), seq).unwrap();
    rig.send(10);
    rig.stop();
    assert_eq!(offsets(&out), (0..60).collect::<Vec<_>>());
}

#[test]
fn a_child_does_not_see_the_variables_in_which_other_sinks_have_their_secrets() {
    let dir = directory();
    let seen = dir.path().join("environment");
    let exec = format!("exec:env > {0}.new; mv {0}.new {0}; exit 1", seen.display());
    let mut sinks = config(&[&exec], 1).sink;
    // Every process has this variable; its value is nobody's password.
    let redis = RedisTarget {
        url: "redis://127.0.0.1:9".into(),
        user: None,
        password: Some(Secret::Env("PATH".into())),
        key: "records".into(),
        entries_max: None,
        tls: TlsConfig::default(),
    };
    sinks.push(SinkConfig::new("keeps-a-secret", SinkTarget::Redis(redis)));
    let mut rig = Rig::with(sinks);
    rig.send(1);
    rig.wait("the child", |_| seen.exists());
    rig.stop();
    let environment = fs::read_to_string(&seen).unwrap();
    let has = |name: &str| environment.lines().any(|line| line.starts_with(name));
    assert!(has("DURAGRAM_SINK_NAME=") && !has("PATH="), "{environment}");
}

#[test]
fn a_sink_that_blocks_makes_the_server_refuse_new_data_until_it_holds_less() {
    let mut rig = Rig::with(bounded(&["null", AWAY], 3_000, WhenFull::Block));
    let deadline = Instant::now() + Duration::from_secs(20);
    while rig.offers() {
        assert!(Instant::now() < deadline, "new data is never refused");
    }
    rig.wait("a reason", |rig| rig.state.not_ready() == ["sink file:/dev/full holds as much of the journal as it may"]);
    let answer = rig.state.sinks.remove(AWAY).unwrap();
    answer.recv_timeout(Duration::from_secs(20)).unwrap();
    while !rig.offers() {
        assert!(Instant::now() < deadline, "new data is refused for good");
    }
    rig.send(1);
    let disk = rig.stop();
    assert_eq!(disk.sinks().len(), 1);
    assert!(disk.low() > Offset(0), "what was removed holds nothing");
}

#[test]
fn when_the_only_sink_is_removed_trimming_goes_on() {
    let mut rig = Rig::with(config(&[AWAY], 1).sink);
    rig.send(40);
    let answer = rig.state.sinks.remove(AWAY).unwrap();
    answer.recv_timeout(Duration::from_secs(20)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    // Trimming is by extents.
    while rig.disk.low() <= Offset(40) {
        assert!(Instant::now() < deadline, "what nobody holds is not trimmed");
        rig.send(100);
    }
    rig.stop();
}

#[test]
fn a_sink_that_may_drop_loses_its_oldest_entries_on_the_record_and_new_data_is_taken() {
    let mut rig = Rig::with(bounded(&["null", AWAY], 3_000, WhenFull::DropOldest));
    rig.send(60);
    rig.wait_stored("a loss", AWAY, |sink| !sink.losses.is_empty());
    let stored = rig.disk.sinks().into_iter().find(|sink| sink.name == AWAY).unwrap();
    let lost: u64 = stored.losses.iter().map(|loss| loss.entries).sum();
    assert_eq!(lost, stored.mark.watermark.0, "what it has not lost it still has to process");
    assert!(rig.disk.low() <= stored.mark.watermark);
    rig.send(1);
    rig.stop();
}

#[test]
fn a_sink_that_detaches_holds_nothing_and_what_is_trimmed_is_its_loss() {
    let mut rig = Rig::with(bounded(&["null", AWAY], 3_000, WhenFull::Detach));
    rig.send(60);
    rig.wait_stored("its end", AWAY, |sink| !sink.holds);
    assert!(rig.state.waiting().iter().any(|reason| reason.contains("detached")), "{:?}", rig.state.waiting());
    rig.send(1);
    let seq = rig.seq;
    let rig = Rig::again(rig.stop(), config(&["null"], 1).sink, seq).unwrap();
    let told = rig.state.waiting().join("\n");
    assert!(told.contains("not configured any more, and detached at entry") && !told.contains("it holds"), "{told}");
    rig.stop();
}

#[test]
fn sinks_that_went_on_together_as_lanes_go_on_each_for_itself_and_nothing_is_lost_or_twice() {
    let dir = directory();
    let out = dir.path().join("out");
    let file = format!("file:{}", out.display());
    for lanes in [1, 3] {
        drop(fs::remove_file(&out));
        let mut rig = Rig::together(MemoryDisk::default(), &file, lanes, 0);
        rig.send(30);
        let (state, seq) = (Arc::clone(&rig.state), rig.seq);
        // Killed: what was written since the last checkpoint is in the file, and the marks do not say so.
        rig.disk.crash();
        drop(state);
        let disk = rig.disk.clone();
        rig.handle.stop();
        drop(rig.serving.join());
        let sinks = config(&[&file, "null"], 1).sink;
        let mut rig = Rig::again(disk, sinks, seq).unwrap();
        rig.send(30);
        let disk = rig.stop();
        let mut written = offsets(&out);
        written.sort_unstable();
        assert_eq!(written, (0..60).collect::<Vec<_>>(), "{lanes} lanes");
        assert_eq!((disk.lanes().len(), disk.sinks().len()), (0, 2));
        assert!(disk.sinks().iter().all(|sink| sink.mark.watermark == Offset(60) && sink.former.is_empty()));
    }
}

#[test]
fn a_program_with_a_handler_begins_at_the_lowest_entry_and_leaves_the_sinks_their_places() {
    let mut rig = Rig::with(config(&["null", AWAY], 1).sink);
    rig.send(10);
    let seq = rig.seq;
    let disk = rig.stop();
    let before = disk.sinks();
    let dir = directory();
    let out = dir.path().join("out");
    let mut rig = Rig::together(disk, &format!("file:{}", out.display()), 2, seq);
    rig.send(5);
    assert!(rig.state.waiting().iter().any(|reason| reason.starts_with("sink null: not configured")));
    let disk = rig.stop();
    let mut written = offsets(&out);
    written.sort_unstable();
    assert_eq!(written, (0..15).collect::<Vec<_>>());
    assert_eq!((disk.sinks(), disk.low()), (before, Offset(0)));
}

#[test]
fn a_sink_under_its_old_name_with_other_channels_is_refused_at_the_start() {
    let mut rig = Rig::with(config(&["null"], 1).sink);
    rig.send(1);
    let seq = rig.seq;
    let disk = rig.stop();
    let mut sinks = config(&["null"], 1).sink;
    sinks[0].channels = vec![1..=2];
    let error = Rig::again(disk.clone(), sinks, seq).err().unwrap();
    assert!(matches!(error, Error::Sinks(SinkRefusal::Changed { .. })), "{error}");
    assert_eq!(error.exit_code(), 2);
    Rig::again(disk, config(&["null"], 1).sink, seq).unwrap().stop();
}
