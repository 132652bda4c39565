//! `duragram send`: each line of a file or of stdin is a record.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use duragram_proto::codec::{DATAGRAM_LEN_RECOMMENDED, MIN_LEN, SEALED_MIN_LEN};
use duragram_proto::seal::ClientKey;
use duragram_proto::{ClientId, Epoch};
use humantime_serde::re::humantime;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::answer_json::{add_body, status_name};
use super::client_args::{ClientArgs, obstacle, runtime};
use super::{EXIT_NOT_DONE, EXIT_USAGE, Failure, complain};
use crate::client::{Answer, Asked, Batching, Client, ConnectError, Pending, SendError, Stats, Status};

mod lines;
mod report;
mod troubles;

use lines::{Chunk, Line};
use report::Done;
use troubles::Troubles;

/// Silence after which a person is told that the server does not answer, and when nothing gets there at all.
const SILENCE_TOLD: Duration = Duration::from_secs(5);
const TROUBLE_TOLD: Duration = Duration::from_secs(1);
/// Between two looks at the progress.
const TICK: Duration = Duration::from_millis(100);

/// Send each line of FILE or stdin as a record; succeeds only when the server has all of them on its disk.
///
/// A record is the line's bytes without the newline, text or not; the last line may lack its newline. Waits for a server
/// that is away, whose name cannot be resolved, or that no network leads to, until --timeout.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  duragram send --server 127.0.0.1:7117 readings.txt
  journalctl -f -o json | duragram send --batch --client 0xa1
  duragram send --ask requests.txt
  duragram send --server ingest.example.org:7117 --key-file /etc/duragram/a1.key readings.txt

Keys of --json: client, epoch, records, bytes, acked, refused, too_long, unacked, epoch_used (see --epoch), refusal (the
server's last one, if nothing was acked since), trouble (why nothing gets there), seconds, records_per_second, transmissions,
retransmissions, rejects, rtt_us.

With --ask, stdout gets a line of JSON for each record as it is answered, in any order: line (its number, from 1), status (DONE,
FAILED, GONE), body or body_base64 (where it is no text), length (where it is longer than a datagram); the report goes to stderr.

The exit code tells of the records, whether or not the report can be written to stdout.

Exit codes:
  0  every record is on the server's disk; with --ask, every one is DONE, and its body was had
  1  not every record is; which, or how many, is on stderr
  2  usage, or FILE cannot be opened")]
pub(super) struct SendArgs {
    #[command(flatten)]
    client: ClientArgs,

    /// This run's number, above 0, never used before by this client: if it was, nothing is sent [default: the
    /// server gives one]
    #[arg(long, value_name = "N", value_parser = parse_epoch)]
    epoch: Option<Epoch>,

    /// The application's routing number
    #[arg(long, value_name = "N", default_value_t = 0)]
    channel: u16,

    /// Let small records share datagrams: faster, and less traffic
    #[arg(long, conflicts_with = "ask")]
    batch: bool,

    /// Ask for an answer with each record, and write the answers to stdout; at most 64 records are unanswered at once
    #[arg(long)]
    ask: bool,

    /// Datagrams that may be unacked at once, 1 to 65536
    #[arg(long, value_name = "N", default_value_t = 1024)]
    window: usize,

    /// The longest datagram to send, in bytes of UDP payload, 33 to 65507; 32 of them are not the record's, 52
    /// with a key
    #[arg(long, value_name = "BYTES", default_value_t = DATAGRAM_LEN_RECOMMENDED)]
    datagram_bytes_max: usize,

    /// Give up when no record has been acked for this long, such as "30s" [default: never]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,

    /// For programs: one JSON object with what was done
    #[arg(long)]
    json: bool,

    /// The file to read [default: stdin]
    file: Option<PathBuf>,
}

/// Sends, reports, and says by its exit code whether every record is on the server's disk.
pub(super) fn run(args: SendArgs) -> ExitCode {
    let (input, input_bytes): (Box<dyn Read + Send>, _) = match &args.file {
        None => (Box::new(io::stdin()), None),
        Some(path) => match File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata))) {
            Ok((_, metadata)) if metadata.is_dir() => return usage(&format!("{} is a directory", path.display())),
            Ok((file, metadata)) => (Box::new(file), metadata.is_file().then_some(metadata.len())),
            Err(error) => return usage(&format!("cannot read {}: {error}", path.display())),
        },
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start its threads: {error}"));
            return ExitCode::from(EXIT_NOT_DONE);
        }
    };
    let sealed = match args.client.sealed() {
        Ok(sealed) => sealed,
        Err(Failure::Failed { code, message }) => {
            complain(&message);
            return ExitCode::from(code);
        }
        Err(Failure::OutputClosed) => return ExitCode::from(EXIT_NOT_DONE),
    };
    let done = runtime.block_on(send(&args, sealed, input, input_bytes));
    runtime.shutdown_background();
    match done {
        Ok((done, troubles)) => {
            troubles.tell();
            let report = if args.json { done.as_json() } else { done.as_text() };
            if args.ask {
                eprint!("{report}");
            } else {
                super::Report::default().tell(report);
            }
            let complete = troubles.is_empty() && done.is_complete();
            if complete { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOT_DONE) }
        }
        Err(error @ ConnectError::Limit { .. }) => usage(&error.to_string()),
        Err(error @ ConnectError::Server { .. }) => usage(&format!("--server: {error}")),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(EXIT_NOT_DONE)
        }
    }
}

async fn send(
    args: &SendArgs,
    sealed: Option<(ClientId, ClientKey)>,
    input: Box<dyn Read + Send>,
    input_bytes: Option<u64>,
) -> Result<(Done, Troubles), ConnectError> {
    let overhead = if sealed.is_some() { SEALED_MIN_LEN } else { MIN_LEN };
    let mut builder = args.client.builder(sealed).window(args.window).datagram_bytes_max(args.datagram_bytes_max);
    if args.batch {
        builder = builder.batching(Batching::ON);
    }
    if let Some(epoch) = args.epoch {
        builder = builder.epoch(epoch);
    }
    let id = builder.id();
    let client = builder.connect().await?;

    let start = Instant::now();
    let mut feed =
        Feed { overhead, records: 0, bytes: 0, too_long: 0, done: 0, epoch_used: false, troubles: Troubles::default() };
    // The client's window bounds what waits here: a record enters only when it was taken.
    let (sent, receipts) = mpsc::unbounded_channel();
    let receipts = tokio::spawn(collect(receipts));
    let bar = progress_bar(input_bytes);
    // Why a server that is there may seem to be silent: it is to whom it has no key for, and answers the run with the higher
    // counters (PROTOCOL.md#sealed-address); and what it says of another run is ignored (PROTOCOL.md#epoch-used).
    let silence = |client: &Client| match (overhead == SEALED_MIN_LEN, args.epoch.is_some()) {
        (true, true) => " (is the key the server's? was the epoch used before?)",
        (true, false) => " (is the key the server's?)",
        (false, true) if client.stats().ignored > 0 => " (but strange ones come: was the epoch used before?)",
        (false, _) => "",
    };
    let gave_up = tokio::select! {
        () = feed.run(&client, args, lines::read(input), sent, &bar) => false,
        () = watch(&client, args.timeout, &silence, &bar) => true,
    };
    bar.finish_and_clear();
    let is_done = !args.ask || feed.done == feed.records;
    // What holds it up is forgotten at the end.
    let (refusal, trouble) = (client.stats().refusal, client.trouble());
    // Whatever is unacked is counted in the statistics.
    client.close(Some(Duration::ZERO)).await.ok();

    let mut troubles = feed.troubles;
    if gave_up {
        let why = match obstacle(refusal, trouble.as_deref()) {
            Some(why) => format!(": {why}"),
            None => silence(&client).to_owned(),
        };
        troubles.add(format!("gave up: {} did not ack a record in time{why}", args.client.server));
    }
    let mut epoch_used = feed.epoch_used;
    match receipts.await {
        Ok(refused) => {
            epoch_used |= refused.epoch_used;
            troubles.append(refused.troubles);
        }
        Err(error) => troubles.add(format!("the receipts are lost: {error}")),
    }
    let (records, bytes, too_long) = (feed.records, feed.bytes, feed.too_long);
    let stats = Stats { refusal, ..client.stats() };
    if let (true, Some(epoch)) = (epoch_used, args.epoch) {
        troubles.add(format!(
            "epoch {epoch} was used before by client {id}: the server holds other records under its numbers, so nothing of this \
             run counts as sent; give another --epoch, or none, to get one from the server"
        ));
    }
    if stats.unacked > 0 {
        troubles.add(format!("{} records were not acked; the server may have them or not", stats.unacked));
    }
    let elapsed = start.elapsed();
    Ok((Done { client: id, records, bytes, too_long, is_done, elapsed, stats, epoch_used, trouble }, troubles))
}

/// From the lines to the client.
struct Feed {
    /// Bytes of a datagram that are not the record's.
    overhead: usize,
    records: u64,
    bytes: u64,
    too_long: u64,
    /// Records whose answer is DONE.
    done: u64,
    epoch_used: bool,
    troubles: Troubles,
}

impl Feed {
    /// Until all is acked or refused.
    async fn run(
        &mut self,
        client: &Client,
        args: &SendArgs,
        mut chunks: mpsc::Receiver<io::Result<Chunk>>,
        sent: mpsc::UnboundedSender<(u64, Pending)>,
        bar: &ProgressBar,
    ) {
        // As many as are unanswered at once: the client takes no more.
        let mut answers = JoinSet::new();
        'input: loop {
            let chunk = tokio::select! {
                chunk = chunks.recv() => chunk,
                Some(answered) = answers.join_next() => {
                    self.tell(answered.ok());
                    continue;
                }
            };
            let chunk = match chunk {
                None => break,
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => {
                    self.troubles.add(format!("cannot read on after line {}: {error}", self.records));
                    break;
                }
            };
            for line in chunk.lines() {
                self.records += 1;
                let taken = match line {
                    Line::Whole(record) => {
                        self.bytes += record.len() as u64;
                        self.give(client, args, record, &mut answers).await
                    }
                    Line::TooLong { bytes } => {
                        Err(SendError::TooLarge { bytes, bytes_max: args.datagram_bytes_max - self.overhead })
                    }
                };
                match taken {
                    // The receiver ends after this sender: it takes until this one is dropped.
                    Ok(pending) => drop(sent.send((self.records, pending))),
                    // No later record can be sent either.
                    Err(SendError::EpochUsed(_)) => {
                        self.epoch_used = true;
                        break 'input;
                    }
                    Err(error) => {
                        self.too_long += 1;
                        self.troubles.add(format!("line {}: {error}", self.records));
                    }
                }
                while let Some(answered) = answers.try_join_next() {
                    self.tell(answered.ok());
                }
            }
            bar.inc(chunk.bytes_read());
        }
        client.flush().await;
        while let Some(answered) = answers.join_next().await {
            self.tell(answered.ok());
        }
    }

    /// Hands a record to the client.
    async fn give(
        &mut self,
        client: &Client,
        args: &SendArgs,
        record: &[u8],
        answers: &mut JoinSet<(u64, Result<Answer, SendError>)>,
    ) -> Result<Pending, SendError> {
        if !args.ask {
            return client.send_on(args.channel, record).await;
        }
        let Asked { receipt, answer } = client.ask_on(args.channel, record).await?;
        let line = self.records;
        answers.spawn(async move { (line, answer.await) });
        Ok(receipt)
    }

    /// Writes the line of an answer.
    fn tell(&mut self, answered: Option<(u64, Result<Answer, SendError>)>) {
        // Of a record without a receipt that is told.
        let Some((line, Ok(answer))) = answered else { return };
        let whole = answer.body.len() >= answer.length as usize;
        if !whole {
            self.troubles.add(format!("line {line}: its answer has {} bytes, which fit in no datagram", answer.length));
        }
        self.done += u64::from(whole && answer.status == Status::Done);
        let mut told = json!({"line": line, "status": status_name(answer.status)});
        add_body(&mut told, &answer);
        if let Err(error) = super::print(format_args!("{told}\n")) {
            self.troubles.add(match error {
                super::Failure::Failed { message, .. } => message,
                super::Failure::OutputClosed => "nobody reads the answers any more".to_owned(),
            });
        }
    }
}

/// What became of the records that the server did not take.
async fn collect(mut sent: mpsc::UnboundedReceiver<(u64, Pending)>) -> Refused {
    let mut refused = Refused::default();
    while let Some((line, pending)) = sent.recv().await {
        match pending.await {
            // Those without an answer are reported by their number: there may be many.
            Ok(_) | Err(SendError::Closed) => {}
            Err(SendError::EpochUsed(_)) => refused.epoch_used = true,
            Err(error) => refused.troubles.add(format!("line {line}: {error}")),
        }
    }
    refused
}

/// [`collect`] gathers here why records were not taken.
#[derive(Debug, Default)]
struct Refused {
    epoch_used: bool,
    troubles: Troubles,
}

/// Shows the progress; returns when there has been none for `timeout`.
async fn watch(
    client: &Client,
    timeout: Option<Duration>,
    silence_means: &impl Fn(&Client) -> &'static str,
    bar: &ProgressBar,
) {
    let mut ticks = tokio::time::interval(TICK);
    let (mut settled, mut since, mut told) = (0, Instant::now(), false);
    loop {
        ticks.tick().await;
        let stats = client.stats();
        let now_settled = stats.acked + stats.failed;
        if now_settled != settled || stats.unacked == 0 {
            (settled, since, told) = (now_settled, Instant::now(), false);
        }
        bar.set_message(format!("{} acked, {} under way", HumanCount(stats.acked), HumanCount(stats.unacked)));
        let silence = since.elapsed();
        if timeout.is_some_and(|timeout| silence >= timeout) {
            return;
        }
        let trouble = client.trouble();
        let patience = if trouble.is_some() { TROUBLE_TOLD } else { SILENCE_TOLD };
        if silence >= patience && !told {
            told = true;
            let what = obstacle(stats.refusal, trouble.as_deref())
                .unwrap_or_else(|| format!("no answer from the server for 5 seconds{}", silence_means(client)));
            bar.suspend(|| complain(&format!("{what}; trying on")));
        }
    }
}

/// On a terminal only; by the bytes of a file, or without an end for a stream.
fn progress_bar(input_bytes: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match input_bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{bar:30} {percent:>3} %  {msg}  {elapsed} (eta {eta})"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} read  {msg}  {elapsed}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn usage(message: &str) -> ExitCode {
    complain(message);
    ExitCode::from(EXIT_USAGE)
}

fn parse_epoch(text: &str) -> Result<Epoch, String> {
    text.parse().ok().and_then(Epoch::new).ok_or_else(|| "no number from 1 to 4294967295".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_0_is_refused() {
        assert!(parse_epoch("0").is_err());
        assert!(parse_epoch("4294967296").is_err());
        assert_eq!(parse_epoch("7"), Ok(Epoch::new(7).unwrap()));
    }
}
