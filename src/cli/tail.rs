//! `duragram tail`: follows what is journaled, through the admin API, across restarts of the server.

use std::io::{self, BufRead, BufReader, BufWriter, Read, StdoutLock, Write};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use super::api::{AdminArgs, Api, ApiFailure};
use super::{Failure, complain, output_failure};

/// Between two attempts to find the server again.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// The longest line that is read: far above a record of the longest datagram, however it is escaped.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Follow what is journaled: one JSON line for each record, in the order of their offsets.
///
/// Shows entries as soon as they are on disk, processed or not. When the server stops, waits for it and goes on where
/// it was. When another journal answers there then, says so and begins anew: with the oldest entry that it holds where
/// --from or --from-start was given, else with what comes. Entries that were trimmed before they could be shown are reported on stderr; `retain-bytes` of the server keeps
/// more of them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct TailArgs {
    #[command(flatten)]
    admin: AdminArgs,

    /// Begin at this offset [default: the end, so only what comes]
    #[arg(long, value_name = "OFFSET", conflicts_with = "from_start")]
    from: Option<u64>,

    /// Begin with the oldest entry that the journal holds
    #[arg(long)]
    from_start: bool,

    /// Stop at what is the end now
    #[arg(long)]
    no_follow: bool,

    /// Print payloads alone, as they were sent, each with a newline
    #[arg(long)]
    payload: bool,
}

const AFTER_HELP: &str = "\
A line is what the sinks write:
  {\"offset\":7,\"index\":0,\"client\":\"00000000000000a1\",\"epoch\":3,\"seq\":9,\"channel\":0,
   \"received_at\":\"2026-01-02T03:04:05.678901Z\",\"payload\":\"text\"}
with \"payload_base64\" when the payload is not UTF-8, and \"gap\":{\"from\":5,\"to\":8} where a client holds acks for
data that this journal does not hold.

Examples:
  duragram tail | jq -r .payload
  duragram tail --from-start --no-follow > everything.ndjson

Exit codes:
  0  done, or stdout closed
  1  no server, or its journal ends before the offset
  2  usage";

/// The parts of a line that matter here.
#[derive(Debug, Deserialize)]
struct Line {
    offset: Option<u64>,
    #[serde(default)]
    index: u16,
    payload: Option<String>,
    payload_base64: Option<String>,
    gap: Option<Span>,
    trimmed: Option<Span>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Span {
    from: u64,
    to: u64,
}

/// Follows until stdout closes, or until the end with `--no-follow`.
pub(super) fn run(args: &TailArgs) -> Result<(), Failure> {
    let api = Api::new(&args.admin)?;
    let server = Server::ask(&api)?;
    let mut tail = Tail {
        out: BufWriter::new(io::stdout().lock()),
        payload: args.payload,
        quiet_trim: args.from_start,
        next: args.from.unwrap_or(if args.from_start { 0 } else { server.end }),
        last: None,
        journal: server.journal,
    };
    let mut lines = api.lines(&tail.path(args))?;
    loop {
        if tail.show(&mut lines)? && args.no_follow {
            return Ok(());
        }
        complain(&format!("the server at {} is gone; waiting for it", api.address()));
        lines = loop {
            thread::sleep(RETRY_EVERY);
            match tail.meet(&api, args).and_then(|()| api.lines(&tail.path(args))) {
                Ok(lines) => break lines,
                Err(failure) if failure.may_pass() => {}
                Err(failure) => return Err(failure.into()),
            }
        };
        complain(&format!("the server is back; going on at offset {}", tail.next));
    }
}

/// What a server says of its journal.
struct Server {
    /// Its name; `None` for a server of an earlier version.
    journal: Option<String>,
    /// The offset that the next entry will get.
    end: u64,
}

impl Server {
    fn ask(api: &Api) -> Result<Self, ApiFailure> {
        let status = api.get("/api/status")?;
        let journal = status["journal"].as_str().map(str::to_owned);
        match status["offsets"]["end"].as_u64() {
            Some(end) => Ok(Self { journal, end }),
            // It is starting, or something else answers.
            None => Err(ApiFailure::Unreachable("the server's status names no end of its journal".to_owned())),
        }
    }
}

/// What was shown and what comes next.
struct Tail {
    out: BufWriter<StdoutLock<'static>>,
    payload: bool,
    /// The first trim is no news: who asks for the start asks for what is left.
    quiet_trim: bool,
    /// Ask from here when the connection is lost.
    next: u64,
    /// The last record that was shown. Its entry may hold more, so `next` is still its offset.
    last: Option<(u64, u16)>,
    /// The journal that the offsets above are of.
    journal: Option<String>,
}

impl Tail {
    fn path(&self, args: &TailArgs) -> String {
        let journal = self.journal.as_ref().map_or_else(String::new, |journal| format!("&journal={journal}"));
        format!("/api/tail?from={}&follow={}{journal}", self.next, !args.no_follow)
    }

    /// Finds out whether the server that is back has the same journal; begins anew with another one.
    fn meet(&mut self, api: &Api, args: &TailArgs) -> Result<(), ApiFailure> {
        let server = Server::ask(api)?;
        if let (Some(before), Some(now)) = (&self.journal, &server.journal)
            && before != now
        {
            let from = if args.from.is_some() || args.from_start { 0 } else { server.end };
            complain(&format!(
                "another journal answers at {}: {now}, where {before} was; beginning anew",
                api.address()
            ));
            (self.next, self.last, self.quiet_trim) = (from, None, true);
        }
        self.journal = server.journal.or(self.journal.take());
        Ok(())
    }

    /// Shows lines until there is no further one. True when the server ended the answer in good order.
    fn show<R: Read>(&mut self, lines: &mut BufReader<R>) -> Result<bool, Failure> {
        let mut text = Vec::new();
        loop {
            text.clear();
            let read = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text);
            match read {
                Ok(0) => {
                    self.out.flush().map_err(output_failure)?;
                    return Ok(true);
                }
                Ok(_) if text.ends_with(b"\n") => self.line(&text)?,
                // Cut in the middle of a line: it is read again after the connection is back.
                Ok(_) | Err(_) => {
                    self.out.flush().map_err(output_failure)?;
                    return Ok(false);
                }
            }
            // Nothing more is here yet: what was written so far must be seen now.
            if lines.buffer().is_empty() {
                self.out.flush().map_err(output_failure)?;
            }
        }
    }

    fn line(&mut self, text: &[u8]) -> Result<(), Failure> {
        let line: Line = serde_json::from_slice(text)
            .map_err(|error| Failure::not_done(format_args!("a line that is not understood came: {error}")))?;
        if let Some(trimmed) = line.trimmed {
            if !std::mem::take(&mut self.quiet_trim) {
                self.tell_trimmed(&trimmed);
            }
            self.next = trimmed.to.saturating_add(1);
            return Ok(());
        }
        if let Some(error) = line.error {
            complain(&format!("the server cannot read its journal: {error}"));
            return Ok(());
        }
        let Some(offset) = line.offset else { return Ok(()) };
        self.quiet_trim = false;
        let place = (offset, line.index);
        if self.last.is_some_and(|last| place <= last) {
            return Ok(());
        }
        self.last = Some(place);
        self.next = offset;
        if self.payload {
            match (line.payload, line.payload_base64, line.gap) {
                (Some(payload), ..) => self.out.write_all(payload.as_bytes()),
                (_, Some(coded), _) => {
                    let payload = BASE64.decode(coded).map_err(|error| {
                        Failure::not_done(format_args!("the payload of offset {offset} is broken: {error}"))
                    })?;
                    self.out.write_all(&payload)
                }
                (_, _, Some(gap)) => {
                    complain(&format!("offset {offset}: seqs {} to {} of a client were lost", gap.from, gap.to));
                    return Ok(());
                }
                _ => return Ok(()),
            }
            .and_then(|()| self.out.write_all(b"\n"))
            .map_err(output_failure)
        } else {
            self.out.write_all(text).map_err(output_failure)
        }
    }
    fn tell_trimmed(&self, trimmed: &Span) {
        let Span { mut from, to } = *trimmed;
        // After a reconnection the last entry is asked for again, since its batch may hold records that did not come.
        if self.last.is_some_and(|(offset, _)| offset == from) {
            complain(&format!("if entry {from} holds more records, they were trimmed before they could be shown"));
            from += 1;
        }
        if from <= to {
            complain(&format!("entries {from} to {to} were trimmed before they could be shown"));
        }
    }
}
