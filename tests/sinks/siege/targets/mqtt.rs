//! `mqtt`: mosquitto, and a subscriber with a session that outlives it. Mosquitto forgets what it has acknowledged when it is killed, so
//! it is asked to end instead: then it writes down what it knows.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::v5::Publish;
use tempfile::TempDir;

use super::super::target::{Found, LONG, PASSWORD, Target};
use crate::sinks::mqtt::{Broker, Subscriber, name};
use crate::sinks::support::proxy::Proxy;

pub(crate) struct Mosquitto {
    proxy: Proxy,
    subscriber: Subscriber,
    broker: Broker,
    _users: TempDir,
}

impl Mosquitto {
    pub(crate) fn start() -> Self {
        let users = tempfile::tempdir().expect("a directory");
        let file = users.path().join("users");
        let made = Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&file).args(["ingest", PASSWORD]).status();
        assert!(made.expect("mosquitto_passwd, of mosquitto").success());
        let broker = Broker::start(&format!(
            "allow_anonymous true\npassword_file {}\nmax_queued_messages 0\nmessage_size_limit {LONG}\n",
            file.display()
        ));
        let subscriber = Subscriber::new(&broker);
        let proxy = Proxy::to(broker.address);
        Self { proxy, subscriber, broker, _users: users }
    }
}

impl Target for Mosquitto {
    fn sink(&self, password: &Path) -> String {
        let (address, password) = (self.proxy.address(), password.display());
        format!(
            "type = \"mqtt\"\nurl = \"mqtt://{address}\"\ntopic = \"dg/{{client}}/{{epoch}}/{{seq}}\"\nuser = \"ingest\"\n\
             password = {{ file = \"{password}\" }}\n"
        )
    }

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }

    fn kill(&mut self) {
        self.broker.stop();
    }

    fn start(&mut self) {
        self.broker.start_again();
    }

    fn found(&mut self, expected: usize) -> Vec<Found> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let seen = self.subscriber.seen.lock().expect("no panic holds it").clone();
            let names: BTreeSet<String> = seen.iter().map(name).collect();
            if names.len() >= expected || Instant::now() > deadline {
                return seen.iter().map(parse).collect();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn parse(message: &Publish) -> Found {
    let name = name(message);
    let name: Vec<&str> = name.split('-').collect();
    let topic = str::from_utf8(&message.topic).expect("text");
    let topic: Vec<&str> = topic.split('/').collect();
    Found {
        offset: name[1].parse().expect("a number"),
        index: name[2].parse().expect("a number"),
        client: u64::from_str_radix(topic[1], 16).expect("16 hexadecimal digits"),
        epoch: topic[2].parse().expect("a number"),
        seq: topic[3].parse().expect("a number"),
        payload: message.payload.to_vec(),
    }
}
