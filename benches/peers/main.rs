//! `peer_load`: puts a server that users might pick instead of Duragram under load, for `scripts/bench`.
//!
//! One thread drives all connections by epoll; each keeps its window of requests in flight, coalesces what it writes,
//! and reads much at once, so that the peer is what is measured and not this client. Each reply is parsed and checked:
//! what is counted was acked by the server, by its own protocol. The report has the keys of `duragram load --json`.

mod beanstalkd;
mod engine;
mod mqtt;
mod nats;
mod postgres;
mod protocol;
mod redis;
mod tally;

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::{Value, json};

use engine::{Done, Plan};
use postgres::By;
use protocol::Connect;

/// A run lasts no longer, in seconds.
const SECONDS_MAX: f64 = 3_600.0;

/// Put a peer of Duragram under load, and measure what it acks and how soon.
///
/// Redis and Valkey get `XADD`, NATS JetStream publishes that ask for an ack, beanstalkd `put`, PostgreSQL `INSERT` or `COPY`, an
/// MQTT broker publishes of QoS 1. Whether an ack means that the message is on the disk is up to the server's configuration.
#[derive(Debug, Parser)]
#[command(
    name = "peer_load",
    after_long_help = "\
Exit codes:
  0  every request was acked
  1  not every request was acked, or the server could not be reached, or it answered what its protocol does not allow
  2  usage"
)]
struct Args {
    /// Which server it is
    #[arg(long)]
    peer: Peer,

    /// Where it is: IP:PORT
    #[arg(long, value_name = "ADDR")]
    server: SocketAddr,

    /// TCP connections
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,

    /// Requests in flight on each
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,

    /// Bytes of each payload
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=65_000))]
    size: u32,

    /// How long to send, in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = parse_seconds)]
    seconds: f64,

    /// How long to wait for the last acks, in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = parse_seconds)]
    drain: f64,

    /// For programs: one JSON object with what was measured
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Peer {
    /// Redis Streams, also Valkey's
    Redis,
    /// NATS JetStream
    Nats,
    /// NATS JetStream, each message with the headers of Duragram's sink, behind the one before it: with one client only
    NatsChained,
    /// beanstalkd
    Beanstalkd,
    /// PostgreSQL, a transaction of one `INSERT` for each request, by the user `postgres` without a password
    PostgresInsert,
    /// PostgreSQL, a transaction of one `COPY` for as many requests as are in flight on a connection
    PostgresCopy,
    /// An MQTT 5 broker, publishes of QoS 1 to a subscriber that is away
    Mqtt,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("peer_load: {}: {error}", args.server);
            ExitCode::from(1)
        }
    }
}

/// Whether every request was acked.
fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    let connect: Box<dyn Connect> = match args.peer {
        Peer::Redis => Box::new(redis::Redis),
        Peer::Nats | Peer::NatsChained => {
            Box::new(nats::Nats::set_up(args.server, matches!(args.peer, Peer::NatsChained))?)
        }
        Peer::Beanstalkd => Box::new(beanstalkd::Beanstalkd),
        Peer::PostgresInsert => Box::new(postgres::Postgres::set_up(args.server, By::Insert)?),
        Peer::PostgresCopy => Box::new(postgres::Postgres::set_up(args.server, By::Copy)?),
        Peer::Mqtt => Box::new(mqtt::Mqtt::set_up(args.server)?),
    };
    let plan = Plan {
        server: args.server,
        clients: args.clients as usize,
        window: usize::from(args.window),
        size: args.size as usize,
        sending: Duration::from_secs_f64(args.seconds),
        draining: Duration::from_secs_f64(args.drain),
    };
    let done = engine::run(&plan, connect.as_ref())?;
    let report = report(&done, plan.size);
    let mut out = std::io::stdout();
    if args.json {
        writeln!(out, "{report}")?;
    } else {
        writeln!(out, "{report:#}")?;
    }
    if let Some(refusal) = &done.tally.first_refusal {
        eprintln!("peer_load: {} refused {} requests, the first with: {refusal}", args.server, done.tally.refused);
    }
    Ok(done.unacked == 0)
}

fn report(done: &Done, size: usize) -> Value {
    let Done { tally, acked_in_time, seconds, unacked } = done;
    let acked_per_s = *acked_in_time as f64 / seconds.max(1e-9);
    json!({
        "acked": tally.acked,
        "seconds": seconds,
        "acked_per_s": acked_per_s,
        "records_per_s": acked_per_s,
        "bytes_per_s": acked_per_s * size as f64,
        "p50_us": tally.quantile_us(0.5),
        "p90_us": tally.quantile_us(0.9),
        "p99_us": tally.quantile_us(0.99),
        "p999_us": tally.quantile_us(0.999),
        "max_us": tally.max_us(),
        // TCP does that.
        "resent": 0,
        "rejected": tally.refused,
        "unacked": unacked,
        "unsent": 0,
    })
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|seconds| *seconds > 0.0 && *seconds <= SECONDS_MAX)
        .ok_or_else(|| format!("no number of seconds above 0, at most {SECONDS_MAX}"))
}
