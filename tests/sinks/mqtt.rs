//! `mqtt` against mosquitto: every record arrives with its name, whatever becomes of broker, network and password; and one bad
//! record costs one dead letter.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use duragram::model::{LaneMark, MqttTarget, Secret, SinkConfig, SinkTarget, TlsConfig};
use duragram::process::{Content, Handler, Outcome, Outcomes, Record};
use duragram::proto::Seq;
use duragram::sink;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Packet, Publish};
use rumqttc::v5::{Client, Event, MqttOptions};
use tempfile::TempDir;

use super::support::lane::{self, DeadLetters, Message, drive, journal, messages, records, start};
use super::support::proxy::Proxy;
use crate::common::{PATIENCE, wait_for};

/// A mosquitto of the test's own.
pub(super) struct Broker {
    directory: TempDir,
    pub(super) address: SocketAddr,
    process: Child,
}

impl Broker {
    /// Starts one on a free port, with these lines in its configuration.
    pub(super) fn start(settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let place = directory.path().display();
        // Started by root it would become another user, who cannot write there.
        let user = if nix::unistd::geteuid().is_root() { "user root\n" } else { "" };
        let general = format!(
            "listener {} 127.0.0.1\npersistence true\npersistence_location {place}/\n{user}log_dest file {place}/log\nlog_type error\nlog_type notice\n",
            address.port()
        );
        fs::write(directory.path().join("conf"), general + settings).unwrap();
        let process = Self::run(&directory);
        let mut broker = Self { directory, address, process };
        broker.wait_until_it_listens();
        broker
    }

    fn run(directory: &TempDir) -> Child {
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(directory.path().join("conf")).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("mosquitto, of the package of that name")
    }

    fn wait_until_it_listens(&mut self) {
        wait_for("mosquitto to listen", || {
            assert!(self.process.try_wait().unwrap().is_none(), "mosquitto has ended: {}", self.log());
            TcpStream::connect(self.address).ok()
        });
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Ends it, so that it writes down what it knows.
    pub(super) fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.process.wait().unwrap();
    }

    pub(super) fn start_again(&mut self) {
        self.process = Self::run(&self.directory);
        self.wait_until_it_listens();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Keeps what arrives, also across restarts of the broker.
pub(super) struct Subscriber {
    pub(super) seen: Arc<Mutex<Vec<Publish>>>,
    is_over: Arc<AtomicBool>,
    client: Client,
    listener: Option<JoinHandle<()>>,
}

impl Subscriber {
    pub(super) fn new(broker: &Broker) -> Self {
        let mut options = MqttOptions::new("subscriber", "127.0.0.1", broker.address.port());
        let properties = ConnectProperties { session_expiry_interval: Some(3600), ..ConnectProperties::new() };
        options.set_clean_start(false).set_connect_properties(properties);
        let (client, mut connection) = Client::new(options, 10);
        client.subscribe("dg/#", QoS::AtLeastOnce).unwrap();
        let (seen, is_over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let subscribed = Arc::new(AtomicBool::new(false));
        let listener = thread::spawn({
            let (seen, is_over, subscribed) = (Arc::clone(&seen), Arc::clone(&is_over), Arc::clone(&subscribed));
            move || {
                for event in connection.iter() {
                    match event {
                        Ok(Event::Incoming(Packet::Publish(message))) => seen.lock().unwrap().push(message),
                        Ok(Event::Incoming(Packet::SubAck(_))) => subscribed.store(true, Ordering::SeqCst),
                        Ok(_) => {}
                        Err(_) if is_over.load(Ordering::SeqCst) => break,
                        Err(_) => thread::sleep(Duration::from_millis(20)),
                    }
                }
            }
        });
        wait_for("the subscription", || subscribed.load(Ordering::SeqCst).then_some(()));
        Self { seen, is_over, client, listener: Some(listener) }
    }

    /// Waits until each of these records has arrived, and returns all messages.
    fn wait_for(&self, messages: &[Message]) -> Vec<Publish> {
        wait_for("all records", || {
            let seen = self.seen.lock().unwrap().clone();
            let names: BTreeSet<String> = seen.iter().map(name).collect();
            messages.iter().all(|message| names.contains(&name_of(message))).then_some(seen)
        })
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(self.client.disconnect());
        drop(self.listener.take().map(JoinHandle::join));
    }
}

fn property(message: &Publish, key: &str) -> Option<String> {
    let properties = message.properties.as_ref()?;
    properties.user_properties.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
}

pub(super) fn name(message: &Publish) -> String {
    property(message, "duragram-record").expect("a name")
}

fn name_of(message: &Message) -> String {
    format!("{:032x}-{}-{}", 0xabc, message.offset, message.index)
}

fn target(address: SocketAddr) -> MqttTarget {
    MqttTarget {
        url: format!("mqtt://{address}"),
        user: None,
        password: None,
        topic: "dg/{channel}/{client}".into(),
        client_id: None,
        tls: TlsConfig::default(),
    }
}

fn config(target: MqttTarget, timeout: Duration) -> SinkConfig {
    lane::config("the-sink", SinkTarget::Mqtt(target), timeout)
}

fn open(target: MqttTarget, timeout: Duration) -> Box<dyn Handler> {
    let mark = LaneMark::default();
    sink::handler(&config(target, timeout), &start(journal(0xabc), 1, &mark)).unwrap()
}

fn mqtt(address: SocketAddr) -> Box<dyn Handler> {
    open(target(address), PATIENCE)
}

fn process(handler: &mut dyn Handler, messages: &[Message]) -> Outcomes {
    let mut outcomes = Outcomes::new(messages.len());
    handler.process(&records(messages), &mut outcomes);
    outcomes
}

fn drive_all(handler: &mut dyn Handler, messages: &[Message]) -> DeadLetters {
    drive(handler, &records(messages), 200, Duration::from_secs(60))
}

const ANONYMOUS: &str = "allow_anonymous true\n";

#[test]
fn every_record_arrives_once_in_order_with_its_name_and_topic() {
    let broker = Broker::start(ANONYMOUS);
    let subscriber = Subscriber::new(&broker);
    let mut messages = messages(5, 500);
    messages[3].payload = b"\xff\x00".to_vec();
    messages[4].payload = Vec::new();
    messages[5].channel = 9;
    assert_eq!(drive_all(&mut *mqtt(broker.address), &messages), []);
    let seen = subscriber.wait_for(&messages);
    assert_eq!(seen.len(), messages.len());
    for (message, seen) in messages.iter().zip(&seen) {
        assert_eq!(name(seen), name_of(message));
        assert_eq!(seen.payload, message.payload);
        assert_eq!(seen.topic, format!("dg/{}/00000000000000a1", message.channel));
    }
}

#[test]
fn the_news_of_a_gap_is_an_empty_message_that_says_so() {
    let broker = Broker::start(ANONYMOUS);
    let subscriber = Subscriber::new(&broker);
    let messages = messages(5, 1);
    let gap = Record { content: Content::Gap { from: Seq(3), to: Seq(6) }, ..messages[0].record() };
    let mut outcomes = Outcomes::new(1);
    mqtt(broker.address).process(&[gap], &mut outcomes);
    assert_eq!(outcomes.outcome(0), &Outcome::Done);
    let seen = subscriber.wait_for(&messages);
    assert_eq!((seen[0].payload.len(), property(&seen[0], "duragram-gap").as_deref()), (0, Some("3-6")));
}

#[test]
fn a_broker_that_is_away_for_a_while_gets_everything_afterwards() {
    let mut broker = Broker::start(ANONYMOUS);
    let subscriber = Subscriber::new(&broker);
    let mut sink = mqtt(broker.address);
    let messages = messages(0, 600);
    assert_eq!(drive_all(&mut *sink, &messages[..300]), []);
    broker.stop();
    let away = process(&mut *sink, &messages[300..]);
    assert!((0..300).all(|i| *away.outcome(i) == Outcome::Unanswered));
    let reason = away.unavailable_reason().expect("a reason");
    assert!(reason.starts_with(&format!("connecting to the broker at {}: ", broker.address)), "{reason}");
    broker.start_again();
    assert_eq!(drive_all(&mut *sink, &messages[300..]), []);
    subscriber.wait_for(&messages);
}

#[test]
fn a_connection_that_freezes_costs_the_timeout_and_no_record() {
    let broker = Broker::start(ANONYMOUS);
    let subscriber = Subscriber::new(&broker);
    let proxy = Proxy::to(broker.address);
    let timeout = Duration::from_millis(300);
    let mut sink = open(target(proxy.address()), timeout);
    let messages = messages(0, 100);
    assert_eq!(drive_all(&mut *sink, &messages[..50]), []);
    proxy.freeze(true);
    let started = Instant::now();
    let frozen = process(&mut *sink, &messages[50..]);
    assert!(started.elapsed() >= timeout && started.elapsed() < PATIENCE);
    assert_eq!(frozen.unavailable_reason(), Some("no answer in time"));
    proxy.freeze(false);
    assert_eq!(drive_all(&mut *sink, &messages[50..]), []);
    subscriber.wait_for(&messages);
}

#[test]
fn what_arrived_without_our_knowing_comes_again_under_the_same_name() {
    let broker = Broker::start(ANONYMOUS);
    let subscriber = Subscriber::new(&broker);
    let proxy = Proxy::to(broker.address);
    let mut sink = open(target(proxy.address()), Duration::from_millis(300));
    let messages = messages(0, 30);
    assert_eq!(drive_all(&mut *sink, &messages[..10]), []);
    proxy.lose_replies(true);
    assert!(process(&mut *sink, &messages[10..]).unavailable_reason().is_some());
    proxy.lose_replies(false);
    assert_eq!(drive_all(&mut *sink, &messages[10..]), []);
    let mut times = BTreeMap::new();
    subscriber.wait_for(&messages).iter().for_each(|message| *times.entry(name(message)).or_insert(0) += 1);
    assert_eq!(times.len(), messages.len());
    assert!(times[&name_of(&messages[10])] > 1, "it was sent twice: {times:?}");
}

#[test]
fn a_record_that_is_too_large_for_the_broker_is_one_dead_letter() {
    // The broker says its limit when we connect, or refuses the message.
    for setting in ["max_packet_size 2000\n", "message_size_limit 2000\n"] {
        let broker = Broker::start(&format!("{ANONYMOUS}{setting}"));
        let subscriber = Subscriber::new(&broker);
        let mut messages = messages(0, 20);
        messages[7].payload = vec![b'x'; 3000];
        let dead = drive_all(&mut *mqtt(broker.address), &messages);
        assert_eq!(dead.len(), 1, "{dead:?}");
        assert_eq!(dead[0].0, (7, 0));
        assert!(dead[0].1.contains("the broker takes at most 2000") || dead[0].1.contains("too large"), "{dead:?}");
        messages.remove(7);
        assert_eq!(subscriber.wait_for(&messages).len(), messages.len());
    }
}

#[test]
fn a_wrong_password_is_named_and_not_shown_and_the_right_one_is_taken_without_a_restart() {
    let secrets = tempfile::tempdir().unwrap();
    let (users, password) = (secrets.path().join("users"), secrets.path().join("password"));
    let made =
        Command::new("mosquitto_passwd").arg("-b").arg("-c").arg(&users).args(["ingest", "right-s3cret"]).status();
    assert!(made.unwrap().success());
    let write = |text: &str| {
        fs::write(&password, text).unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("wrong-s3cret");
    let broker = Broker::start(&format!("allow_anonymous false\npassword_file {}\n", users.display()));
    let target = MqttTarget {
        user: Some("ingest".into()),
        password: Some(Secret::File(password.clone())),
        ..target(broker.address)
    };
    let mut sink = open(target, PATIENCE);
    let messages = messages(0, 3);
    let outcomes = process(&mut *sink, &messages);
    let reason = outcomes.unavailable_reason().expect("a reason");
    assert!(reason.contains("does not let us in") && reason.contains("check user and password"), "{reason}");
    assert!(!reason.contains("s3cret"), "{reason}");
    write("right-s3cret\n");
    assert_eq!(drive_all(&mut *sink, &messages), []);
}

#[test]
fn an_encrypted_connection_is_made_to_a_broker_that_is_known_and_to_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let [known, key, other] = ["known.pem", "key.pem", "other.pem"].map(|name| directory.path().join(name));
    for certificate in [&other, &known] {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=broker", "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(certificate)
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("openssl, of the package of that name").success());
    }
    let broker = Broker::start(&format!("{ANONYMOUS}certfile {}\nkeyfile {}\n", known.display(), key.display()));
    let encrypted = |ca_file: &PathBuf| MqttTarget {
        url: format!("mqtts://{}", broker.address),
        tls: TlsConfig { ca_file: Some(ca_file.clone()), ..TlsConfig::default() },
        ..target(broker.address)
    };
    let messages = messages(0, 300);
    assert_eq!(drive_all(&mut *open(encrypted(&known), PATIENCE), &messages), []);
    let outcomes = process(&mut *open(encrypted(&other), PATIENCE), &messages);
    let reason = outcomes.unavailable_reason().expect("a reason");
    assert!(reason.contains("certificate"), "{reason}");
}

#[test]
fn what_the_broker_forbids_is_the_sinks_failure_and_no_records() {
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("list");
    fs::write(&list, "topic write dg/7/#\n").unwrap();
    let broker = Broker::start(&format!("{ANONYMOUS}acl_file {}\n", list.display()));
    let mut sink = mqtt(broker.address);
    let mut messages = messages(0, 3);
    messages[1].channel = 8;
    let outcomes = process(&mut *sink, &messages);
    assert_eq!([0, 1, 2].map(|i| outcomes.outcome(i).clone()), [Outcome::Done, Outcome::Unanswered, Outcome::Done]);
    let reason = outcomes.unavailable_reason().expect("a reason");
    assert!(reason.starts_with("the broker refuses messages: not authorized"), "{reason}");
}

#[test]
fn a_process_that_was_left_behind_loses_its_connection_to_the_new_one() {
    let broker = Broker::start(ANONYMOUS);
    let subscriber = Subscriber::new(&broker);
    let proxy = Proxy::to(broker.address);
    let mut zombie = open(target(proxy.address()), PATIENCE);
    let messages = messages(0, 2);
    assert_eq!(drive_all(&mut *zombie, &messages[..1]), []);
    proxy.freeze(true);
    assert_eq!(drive_all(&mut *mqtt(broker.address), &messages[1..]), []);
    wait_for("the broker to end the old connection", || {
        broker.log().contains("already connected, closing old connection").then_some(())
    });
    subscriber.wait_for(&messages);
    proxy.cut(false);
}

#[test]
fn a_server_that_is_no_broker_of_mqtt_5_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        // The beginning is read, so that closing does not reset the connection.
        drop(std::io::Read::read(&mut connection, &mut [0; 1024]));
    });
    let outcomes = process(&mut *mqtt(address), &messages(0, 1));
    let reason = outcomes.unavailable_reason().expect("a reason");
    assert!(reason.contains("does it speak MQTT 5?"), "{reason}");
    server.join().unwrap();
}

#[test]
fn a_topic_or_url_that_cannot_be_meant_is_refused_at_the_start() {
    let address: SocketAddr = "127.0.0.1:1883".parse().unwrap();
    for (target, wrong) in [
        (MqttTarget { topic: "dg/{chanel}".into(), ..target(address) }, "the-sink: topic: "),
        (MqttTarget { url: "mqtt://me:s3cret@broker".into(), ..target(address) }, "the-sink: url: "),
        (MqttTarget { client_id: Some(String::new()), ..target(address) }, "the-sink: client_id: "),
    ] {
        let mark = LaneMark::default();
        let error =
            sink::handler(&config(target, PATIENCE), &start(journal(1), 1, &mark)).map(drop).unwrap_err().to_string();
        assert!(error.starts_with(wrong) && !error.contains("s3cret"), "{error}");
    }
}

#[test]
#[ignore = "a measurement, for a machine that does nothing else"]
fn how_many_records_a_second_a_broker_takes() {
    // By default mosquitto takes 20 before it has acknowledged the first of them.
    for setting in ["", "max_inflight_messages 1000\n"] {
        let broker = Broker::start(&format!("{ANONYMOUS}{setting}"));
        let mut sink = mqtt(broker.address);
        let mut messages = messages(0, 1000);
        messages.iter_mut().for_each(|message| message.payload = vec![b'x'; 100]);
        let records = records(&messages);
        let started = Instant::now();
        for _ in 0..100 {
            assert_eq!(drive(&mut *sink, &records, 1000, PATIENCE), []);
        }
        eprintln!("{setting:?}: {:.0} records a second", 100_000.0 / started.elapsed().as_secs_f64());
    }
}
