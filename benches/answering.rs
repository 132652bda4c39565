//! `answering DATA [LANES]`: a server with a handler that answers each record with the record, for `scripts/bench answers`.
//!
//! Prints `answering ready udp=ADDR admin=ADDR` and serves until SIGTERM or SIGINT.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;

use duragram::config::Config;
use duragram::model::{Content, Record};
use duragram::process::{Handler, HandlerError, LaneStart, Outcomes};
use duragram::server;

struct Echo;

impl Handler for Echo {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        for (index, record) in records.iter().enumerate() {
            let done = match record.content {
                Content::Payload(payload) => outcomes.done_with(index, payload).is_ok(),
                Content::Gap { .. } => false,
            };
            if !done {
                outcomes.done(index);
            }
        }
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        Ok(Vec::new())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (data, lanes) = match args.as_slice() {
        [data] => (data, 1),
        [data, lanes] => (data, lanes.parse()?),
        _ => return Err("usage: answering DATA [LANES]".into()),
    };
    let loopback: SocketAddr = "127.0.0.1:0".parse()?;
    let config =
        Config { listen: vec![loopback], admin: Some(loopback), data: data.into(), lanes, ..Config::default() };
    let echo = |_start: &LaneStart<'_>| Ok(Box::new(Echo) as Box<dyn Handler>);
    server::run_with(config, echo, |ready| {
        let admin = ready.admin.map_or_else(|| "none".to_owned(), |admin| admin.to_string());
        let mut stdout = std::io::stdout();
        drop(writeln!(stdout, "answering ready udp={} admin={admin}", ready.udp[0]).and_then(|()| stdout.flush()));
    })?;
    Ok(())
}
