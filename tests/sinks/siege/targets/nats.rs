//! `nats`: a JetStream stream, of the sink's own or one that others may write to as well, which syncs before it confirms.

use std::path::Path;

use async_nats::jetstream::{self, stream};
use async_nats::{ConnectOptions, HeaderMap};

use super::super::target::{Found, LONG, PASSWORD, Target};
use crate::sinks::nats;
use crate::sinks::support::proxy::Proxy;
use crate::sinks::support::server::Server;

pub(crate) struct Nats {
    server: Server,
    proxy: Proxy,
    exclusive: bool,
    /// What was read from the stream so far, and the next sequence.
    read: Vec<Found>,
    next: u64,
}

impl Nats {
    pub(crate) fn start(exclusive: bool) -> Self {
        let user = format!("authorization {{ user: ingest, password: \"{PASSWORD}\" }}");
        let server = nats::server(&format!("max_payload: {LONG}\n{user}"));
        let proxy = Proxy::to(server.address());
        let nats = Self { server, proxy, exclusive, read: Vec::new(), next: 1 };
        if !exclusive {
            nats.at(async |context| {
                let config = stream::Config {
                    name: "SIEGE".into(),
                    subjects: vec!["siege.records".into()],
                    ..stream::Config::default()
                };
                context.create_stream(config).await.expect("a stream");
            });
        }
        nats
    }

    fn at<T>(&self, work: impl AsyncFnOnce(jetstream::Context) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let options = ConnectOptions::with_user_and_password("ingest".into(), PASSWORD.into());
            let client = options.connect(format!("nats://{}", self.server.address())).await.expect("it is there");
            work(jetstream::new(client)).await
        })
    }
}

impl Target for Nats {
    fn sink(&self, password: &Path) -> String {
        let (address, exclusive, password) = (self.proxy.address(), self.exclusive, password.display());
        format!(
            "type = \"nats\"\nurl = \"nats://{address}\"\nsubject = \"siege.records\"\nstream = \"SIEGE\"\n\
             exclusive = {exclusive}\nuser = \"ingest\"\npassword = {{ file = \"{password}\" }}\n"
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
        let next = self.next;
        let (more, next) = self.at(async |context| {
            let Ok(stream) = context.get_stream("SIEGE").await else { return (Vec::new(), next) };
            let state = &stream.cached_info().state;
            assert!(state.last_sequence + 1 >= next, "the stream had {next} messages and has lost some");
            let mut more = Vec::new();
            for sequence in next..=state.last_sequence {
                let message = stream.get_raw_message(sequence).await.expect("nobody deletes a message");
                more.push(parse(&message.headers, message.payload.to_vec()));
            }
            (more, state.last_sequence + 1)
        });
        self.read.extend(more);
        self.next = next;
        self.read.clone()
    }
}

fn parse(headers: &HeaderMap, payload: Vec<u8>) -> Found {
    let text = |name: &str| headers.get(name).unwrap_or_else(|| panic!("{name} in {headers:?}")).as_str();
    let name: Vec<&str> = text("Duragram-Record").split('-').collect();
    let source = text("Duragram-Source");
    let of = |key: &str| {
        let pair = source.split(';').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        pair.unwrap_or_else(|| panic!("{key} in {source}"))
    };
    Found {
        offset: name[1].parse().expect("a number"),
        index: name[2].parse().expect("a number"),
        client: u64::from_str_radix(of("client"), 16).expect("16 hexadecimal digits"),
        epoch: of("epoch").parse().expect("a number"),
        seq: of("seq").parse().expect("a number"),
        payload,
    }
}
