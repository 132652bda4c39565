//! `redis`: a stream of Redis or Valkey, which keeps what it has confirmed when it is killed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::redis::FromRedisValue;
use ::redis::streams::StreamRangeReply;

use super::super::target::{Found, PASSWORD, Target};
use crate::sinks::redis;
use crate::sinks::support::proxy::Proxy;
use crate::sinks::support::server::Server;

pub(crate) struct Redis {
    server: Server,
    proxy: Proxy,
}

impl Redis {
    pub(crate) fn start(program: PathBuf) -> Self {
        let keeps = ["--appendonly", "yes", "--appendfsync", "always", "--requirepass", PASSWORD];
        let server = redis::start(program, &keeps);
        let proxy = Proxy::to(server.address());
        Self { server, proxy }
    }

    fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let client = ::redis::Client::open(format!("redis://:{PASSWORD}@{}", self.server.address())).expect("a URL");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = client.get_connection().and_then(|mut connection| {
                let mut asked = ::redis::cmd(command[0]);
                command[1..].iter().for_each(|argument| {
                    asked.arg(*argument);
                });
                asked.query(&mut connection)
            });
            match answer {
                Ok(answer) => return answer,
                // It reads its file.
                Err(error) => assert!(Instant::now() < deadline, "{command:?}: {error}"),
            }
        }
    }
}

impl Target for Redis {
    fn sink(&self, password: &Path) -> String {
        let (address, password) = (self.proxy.address(), password.display());
        format!(
            "type = \"redis\"\nurl = \"redis://{address}\"\nkey = \"siege\"\npassword = {{ file = \"{password}\" }}\n"
        )
    }

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }

    fn kill(&mut self) {
        self.server.kill();
    }

    fn start(&mut self) {
        self.server.restart();
    }

    fn found(&mut self, _expected: usize) -> Vec<Found> {
        let mut keys: Vec<String> = self.ask(&["KEYS", "siege:*"]);
        keys.retain(|key| key.ends_with('}'));
        assert!(keys.len() <= 1, "one journal has one stream: {keys:?}");
        let Some(key) = keys.pop() else { return Vec::new() };
        let range: StreamRangeReply = self.ask(&["XRANGE", &key, "-", "+"]);
        range.ids.into_iter().map(|entry| parse(&entry.id, &entry.map)).collect()
    }
}

fn parse(id: &str, fields: &HashMap<String, ::redis::Value>) -> Found {
    let (offset, index) = id.split_once('-').expect("an id");
    let bytes = |name: &str| match fields.get(name) {
        Some(::redis::Value::BulkString(bytes)) => bytes.clone(),
        other => panic!("{name}: {other:?}"),
    };
    let text = |name: &str| String::from_utf8(bytes(name)).expect("text");
    Found {
        offset: offset.parse().expect("a number"),
        index: index.parse::<u64>().expect("a number") - 1,
        client: u64::from_str_radix(&text("client"), 16).expect("16 hexadecimal digits"),
        epoch: text("epoch").parse().expect("a number"),
        seq: text("seq").parse().expect("a number"),
        payload: bytes("payload"),
    }
}
