//! `duragram load`: the load generator, a program of its own within the command line.
//!
//! [`bulk`] is its sockets, and knows no protocol; a flow (`flow`) is one client without socket and clock; `engine` drives
//! them. Nothing here knows the server: only what its datagrams mean.

use std::io::{self, IsTerminal};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use duragram_proto::codec::{DATAGRAM_LEN_MAX, Datagram, MIN_LEN, Ping, SEALED_MIN_LEN};
use duragram_proto::{ClientId, Epoch};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use rand::Rng as _;
use serde_json::{Value, json};

use super::key_file::KeyFileArgs;
use super::{Failure, Report};
use crate::client::address::ServerName;
use crate::config::UDP_PORT;
use crate::limits::GSO_SEGMENTS_MAX;

pub mod bulk;
mod engine;
mod flow;
mod pace;
mod payloads;
mod sent_times;
mod tally;
mod wire;

use engine::{Done, Glance, Plan};
use flow::UNFINISHED_MAX;
use payloads::Payloads;
use wire::Wire;

/// A run lasts no longer, in seconds.
const SECONDS_MAX: f64 = 3_600.0;
/// Datagrams that all clients together may have unacked: 24 bytes each are kept.
const UNACKED_MAX: u64 = 1 << 24;
/// Bytes of body that an answer may have where no other number was asked for, and none was told.
const ANSWER_BYTES_MAX: usize = 4_096;
/// How long a server whose name has several addresses gets to answer at one of them.
const PROBE_PATIENCE: Duration = Duration::from_millis(300);
/// Clients share sockets when there are more.
const SOCKETS_DEFAULT: u32 = 64;
const CLIENTS_MAX: u32 = 1_000_000;
/// The ids of a run's clients differ in these bits alone; the others are random.
const CLIENT_BITS: u64 = (1 << 20) - 1;

/// Put a server under load, and measure what it acks and how soon.
///
/// Many clients in one process, each with its own session; one core drives millions of datagrams a second. Every datagram
/// is numbered, checksummed (or sealed), sent until it is acked, and missed if it is not. There is no congestion control: the
/// load is what was asked for. Each run uses new client ids, so what it journals stays in the server's journal
/// as records of unknown clients: use it on servers that may be filled with noise.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  duragram load --clients 8 --window 64                      as fast as the acks come
  duragram load --clients 16 --window 1024 --gso 64          bulk: 64 datagrams a system call
  duragram load --key-file fleet.key                         sealed, each client with its key derived from the fleet key
  duragram load --ask --clients 512 --window 64              each message asks for an answer and takes it
  duragram load --rate 100000 --clients 100 --seconds 60     open loop: a datagram each 10 microseconds

Latency is the time from a datagram's first sending to its ack; with --rate, from the time when it was due,
so that a server that stalls is not measured by the datagrams that it kept from being sent.

Keys of --json: acked, seconds, acked_per_s, records_per_s, bytes_per_s (payload), p50_us, p90_us, p99_us,
p999_us, max_us (null when nothing was acked), resent, rejected, unacked, unsent (refused by this machine's kernel).
With --ask also: answered (DONE and FAILED), failed, gone, unfit (longer than there is room for), pending (asked too early),
unanswered, answered_per_s, answer_p50_us, answer_p90_us, answer_p99_us, answer_max_us (from the first sending).
Rates are over `seconds`, the time in which new datagrams were sent; what is acked while draining counts in `acked` alone.

Exit codes:
  0  every datagram was acked, and with --ask answered
  1  not every datagram was acked or answered, or the server could not be reached
  2  usage")]
pub(super) struct LoadArgs {
    /// Where the server is: HOST:PORT; HOST is a name or an address, IPv6 in brackets: [fe80::1%eth0]:7117
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7117", env = "DURAGRAM_SERVER")]
    server: String,

    #[command(flatten)]
    key: KeyFileArgs,

    /// Clients, 1 to 1,000,000
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    clients: u32,

    /// Datagrams that each client may have unacked, 1 to 65535
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,

    /// Bytes of each record
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    size: usize,

    /// Records in each datagram; above 1 they are sent as a batch
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,

    /// How long to send, in seconds, at most 3600
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = parse_seconds)]
    seconds: f64,

    /// Datagrams that a client hands to the kernel in one system call (UDP GSO), 1 to 64; fewer when they do not fit
    #[arg(long, value_name = "N", default_value_t = 1)]
    gso: usize,

    /// Send so many datagrams a second over all clients, whatever the server does [default: as fast as acks come]
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<f64>,

    /// Ask for an answer with each message, and take it; of a client at most 64 are unfinished
    #[arg(long)]
    ask: bool,

    /// With --ask: bytes of body that an answer is expected to have; what is longer costs a second round trip [default: --size]
    #[arg(long, value_name = "BYTES", requires = "ask")]
    answer_bytes: Option<usize>,

    /// Drop this share of the datagrams on purpose, both ways, such as 0.1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    loss: f64,

    /// How long to wait for the last acks, in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = parse_seconds)]
    drain: f64,

    /// Sockets, each with its own port, 1 to 512 [default: one for each client, at most 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    sockets: Option<u32>,

    /// Needed when the server is not on this machine: load without congestion control harms networks and servers
    #[arg(long)]
    i_own_this_server: bool,

    /// For programs: one JSON object with what was measured
    #[arg(long)]
    json: bool,
}

/// Loads the server, reports, and fails unless every datagram was acked.
pub(super) fn run(args: &LoadArgs) -> Result<(), Failure> {
    let plan = args.plan()?;
    let bar = progress_bar(args);
    let done = engine::run(&plan, |glance| show(&bar, args, glance));
    bar.finish_and_clear();
    let done = done.map_err(|error| Failure::not_done(format_args!("sending to {}: {error}", plan.server)))?;
    let measured = Measured { args, done: &done };
    let mut report = Report::default();
    if args.json {
        report.tell_json(&measured.as_json());
    } else {
        report.tell(measured.as_text());
    }
    match measured.problem() {
        None => Ok(()),
        Some(problem) => Err(Failure::not_done(problem)),
    }
}

impl LoadArgs {
    /// Checks what clap cannot, and makes the plan of the load.
    fn plan(&self) -> Result<Plan, Failure> {
        let server = self.resolve()?;
        if !server.ip().to_canonical().is_loopback() && !self.i_own_this_server {
            return Err(Failure::usage(format_args!(
                "{server} is not on this machine, and this load knows no congestion control; \
                 say --i-own-this-server if it may be filled with noise, and the network too"
            )));
        }
        if u64::from(self.clients) * u64::from(self.window) > UNACKED_MAX {
            return Err(Failure::usage(format_args!("--clients times --window is above {UNACKED_MAX}")));
        }
        if self.batch == 0 || !(1..=GSO_SEGMENTS_MAX).contains(&self.gso) {
            return Err(Failure::usage(format_args!("--batch is 1 or more, --gso 1 to {GSO_SEGMENTS_MAX}")));
        }
        if self.ask && (self.batch > 1 || self.gso > 1) {
            return Err(Failure::usage(
                "--ask goes with neither --batch nor --gso: a batch has no answer, and a TAKE another length",
            ));
        }
        let payload_len =
            self.batch.checked_mul(self.size.saturating_add(2)).map(|_| Payloads::len_of(self.size, self.batch));
        let fleet = self.key.fleet()?;
        let of = |payload| Wire::datagram_len(fleet.is_some(), payload);
        let datagram_len = payload_len.map(of).filter(|len| *len <= DATAGRAM_LEN_MAX);
        let datagram_len = datagram_len.ok_or_else(|| {
            Failure::usage(format_args!("a datagram holds at most {} bytes of records", DATAGRAM_LEN_MAX - of(0)))
        })?;
        let mut random = rand::rng();
        let payloads = Payloads::new(self.size, self.batch, |bytes| random.fill_bytes(bytes))
            .ok_or_else(|| Failure::usage("a record of a batch has at most 65,535 bytes"))?;
        Ok(Plan {
            server,
            first_client: ClientId(random.next_u64() & !CLIENT_BITS),
            clients: self.clients,
            epoch: epoch_now(),
            window: if self.ask { self.window.min(UNFINISHED_MAX) } else { self.window },
            sockets: self.sockets.unwrap_or(SOCKETS_DEFAULT).min(self.clients) as usize,
            payloads,
            fleet,
            datagram_len,
            gso: self.gso.min(DATAGRAM_LEN_MAX / datagram_len),
            rate: self.rate,
            asking: self.ask.then(|| self.answer_room()),
            sending: Duration::from_secs_f64(self.seconds),
            draining: Duration::from_secs_f64(self.drain),
            loss: self.loss,
            seed: random.next_u64(),
        })
    }

    /// Bytes of body that a TAKE has room for at first, and at most.
    fn answer_room(&self) -> (usize, usize) {
        let first = self.answer_bytes.unwrap_or(self.size).min(DATAGRAM_LEN_MAX - SEALED_MIN_LEN);
        (first, first.max(ANSWER_BYTES_MAX))
    }

    fn resolve(&self) -> Result<SocketAddr, Failure> {
        let name = ServerName::parse(&self.server, UDP_PORT)
            .map_err(|problem| Failure::usage(format_args!("--server: {problem}")))?;
        let addresses = name.resolve();
        let unresolved = |error: io::Error| format!("cannot resolve {:?}: {error}", self.server);
        let addresses = addresses.map_err(|error| Failure::not_done(unresolved(error)))?;
        // A name may have an address where nobody listens first, as `localhost` with ::1.
        let chosen = match &addresses[..] {
            [only] => Some(*only),
            several => several.iter().copied().find(|address| answers(*address)).or(several.first().copied()),
        };
        chosen.ok_or_else(|| Failure::not_done(format_args!("{:?} has no address", self.server)))
    }
}

/// Whether a server is there: it answers a PING of anyone's, be it to refuse it (PROTOCOL.md#ping).
fn answers(server: SocketAddr) -> bool {
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let ping = Ping { client: ClientId(rand::random()), epoch: epoch_now() };
    let asked = || -> io::Result<()> {
        let socket = UdpSocket::bind(local)?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(PROBE_PATIENCE))?;
        let mut bytes = [0; MIN_LEN];
        let len = Datagram::Ping(ping).encode(&mut bytes).map_err(|_| io::Error::other("a PING has 32 bytes"))?;
        socket.send(&bytes[..len])?;
        socket.recv(&mut [0; MIN_LEN]).map(drop)
    };
    asked().is_ok()
}

/// Clients count their own epochs by the clock (PROTOCOL.md#epochs): no HELLO is needed.
fn epoch_now() -> Epoch {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(unix.as_secs()).ok().and_then(Epoch::new).unwrap_or(const { Epoch::new(1).unwrap() })
}

/// What was done, for people and programs.
struct Measured<'a> {
    args: &'a LoadArgs,
    done: &'a Done,
}

impl Measured<'_> {
    /// Why not every datagram was acked.
    fn problem(&self) -> Option<String> {
        let Done { refused, silence, unacked, unanswered, tally, .. } = self.done;
        let server = &self.args.server;
        match (refused, unacked) {
            (Some(code), _) => Some(format!("{server} refuses this load: {code:?}")),
            (None, 0) if *unanswered > 0 => Some(format!("{unanswered} messages were not answered in time")),
            (None, 0) if tally.gone > 0 || tally.unfit > 0 => {
                Some(format!("the answers of {} messages are gone, of {} too long", tally.gone, tally.unfit))
            }
            (None, 0) => None,
            _ if *silence => Some(format!("no reply from {server}")),
            _ => Some(format!("{unacked} datagrams were not acked in time")),
        }
    }

    fn acked_per_s(&self) -> f64 {
        self.done.acked_in_time as f64 / self.done.seconds.max(1e-9)
    }

    fn answered_per_s(&self) -> f64 {
        self.done.answered_in_time as f64 / self.done.seconds.max(1e-9)
    }

    fn records_per_s(&self) -> f64 {
        self.acked_per_s() * self.args.batch as f64
    }

    fn bytes_per_s(&self) -> f64 {
        self.records_per_s() * self.args.size as f64
    }

    fn as_json(&self) -> Value {
        let Done { tally, seconds, unacked, .. } = self.done;
        let mut measured = json!({
            "acked": tally.acked,
            "seconds": seconds,
            "acked_per_s": self.acked_per_s(),
            "records_per_s": self.records_per_s(),
            "bytes_per_s": self.bytes_per_s(),
            "p50_us": tally.quantile_us(0.5),
            "p90_us": tally.quantile_us(0.9),
            "p99_us": tally.quantile_us(0.99),
            "p999_us": tally.quantile_us(0.999),
            "max_us": tally.max_us(),
            "resent": tally.resent,
            "rejected": tally.rejected,
            "unacked": unacked,
            "unsent": tally.unsent,
        });
        if self.args.ask {
            measured["answered"] = tally.answered.into();
            measured["failed"] = tally.failed.into();
            measured["gone"] = tally.gone.into();
            measured["unfit"] = tally.unfit.into();
            measured["pending"] = tally.pending.into();
            measured["unanswered"] = self.done.unanswered.into();
            measured["answered_per_s"] = self.answered_per_s().into();
            measured["answer_p50_us"] = tally.answer_quantile_us(0.5).into();
            measured["answer_p90_us"] = tally.answer_quantile_us(0.9).into();
            measured["answer_p99_us"] = tally.answer_quantile_us(0.99).into();
            measured["answer_max_us"] = tally.answer_max_us().into();
        }
        measured
    }

    fn as_text(&self) -> String {
        let Done { tally, seconds, unacked, .. } = self.done;
        let latency = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{us:.1}"));
        let per_s = |rate: f64| HumanCount(whole(rate)).to_string();
        let mut text = format!(
            "{} datagrams acked in {seconds:.2} s and the wait for the last acks\n\
             a second:     {} datagrams, {} records, {} bytes of records\n\
             latency (us): p50 {}  p90 {}  p99 {}  p99.9 {}  max {}\n\
             {} resent, {} rejects, {unacked} unacked\n",
            HumanCount(tally.acked),
            per_s(self.acked_per_s()),
            per_s(self.records_per_s()),
            per_s(self.bytes_per_s()),
            latency(tally.quantile_us(0.5)),
            latency(tally.quantile_us(0.9)),
            latency(tally.quantile_us(0.99)),
            latency(tally.quantile_us(0.999)),
            latency(tally.max_us()),
            tally.resent,
            tally.rejected,
        );
        if self.args.ask {
            text += &format!(
                "{} answered, {} a second; to the answer (us): p50 {}  p90 {}  p99 {}  max {}\n\
                 {} failed, {} gone, {} too long, {} asked too early, {} unanswered\n",
                HumanCount(tally.answered),
                per_s(self.answered_per_s()),
                latency(tally.answer_quantile_us(0.5)),
                latency(tally.answer_quantile_us(0.9)),
                latency(tally.answer_quantile_us(0.99)),
                latency(tally.answer_max_us()),
                tally.failed,
                tally.gone,
                tally.unfit,
                tally.pending,
                self.done.unanswered,
            );
        }
        text
    }
}

/// Shows the progress on a terminal only: a file gets no bars.
fn progress_bar(args: &LoadArgs) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(whole(args.seconds * 1_000.0));
    match ProgressStyle::with_template("{bar:20} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn show(bar: &ProgressBar, args: &LoadArgs, glance: Glance) {
    if bar.is_hidden() {
        return;
    }
    let seconds = glance.elapsed.as_secs_f64();
    bar.set_position(whole(seconds * 1_000.0));
    let draining = if seconds > args.seconds { ", waiting for the last acks" } else { "" };
    bar.set_message(format!(
        "{seconds:.1} s: {} acked, {} a second, {} under way, {} resent, {} rejects{draining}",
        HumanCount(glance.acked),
        HumanCount(whole(glance.acked as f64 / seconds.max(1e-9))),
        HumanCount(glance.under_way),
        HumanCount(glance.resent),
        HumanCount(glance.rejected),
    ));
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // for display; the cast saturates
fn whole(number: f64) -> u64 {
    number.round() as u64
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    parse_number(text, |s| s > 0.0 && s <= SECONDS_MAX, &format!("no number of seconds above 0, at most {SECONDS_MAX}"))
}

fn parse_rate(text: &str) -> Result<f64, String> {
    parse_number(text, |rate| (0.001..=1e9).contains(&rate), "no number of datagrams a second")
}

fn parse_share(text: &str) -> Result<f64, String> {
    parse_number(text, |share| (0.0..=0.9).contains(&share), "no share from 0 to 0.9")
}

fn parse_number(text: &str, valid: impl Fn(f64) -> bool, problem: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number| valid(*number)).ok_or_else(|| problem.to_owned())
}
