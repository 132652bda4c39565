//! `duragram ask`: one message, and what became of it.

use std::fmt;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use duragram_proto::client::FailReason;
use duragram_proto::codec::DATAGRAM_LEN_RECOMMENDED;
use duragram_proto::{ClientId, Epoch, Seq};
use humantime_serde::re::humantime;
use serde_json::{Value, json};

use super::answer_json::{add_body, status_name};
use super::client_args::{ClientArgs, obstacle, parse_client, runtime};
use super::{EXIT_USAGE, Failure, complain};
use crate::client::{Answer, Client, ConnectError, SendError, Status};

/// Exit code: the message was given up.
const EXIT_FAILED: u8 = 5;
/// Exit code: no answer will come, since it was had before, has expired or was lost.
const EXIT_GONE: u8 = 6;
/// Exit code: it is on the server's disk, and not answered in time.
const EXIT_UNANSWERED: u8 = 7;
/// How long the last word to the server, that the answer is had, may take to leave.
const FAREWELL: Duration = Duration::from_millis(200);
/// Silence after which a person is told that nothing came yet.
const SILENCE_TOLD: Duration = Duration::from_secs(5);

/// Send TEXT, or what FILE or stdin holds, as one message, and print the answer: what the server's handler made of it.
///
/// The message is on the server's disk before anything waits for its answer, and the answer waits on the server's disk until it is
/// taken. So either side may be killed in between: --take asks for the answer of an earlier run.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  duragram ask 'open valve 7'
  duragram ask --client 0xa1 --no-wait 'open valve 7'        prints EPOCH:SEQ when it is on the server's disk
  duragram ask --client 0xa1 --take 1767323045:1             later, perhaps in another process
  duragram ask --file request.json --timeout 30s --json

The answer's body goes to stdout as it is, often nothing; on a terminal a newline follows. Keys of --json: client, epoch, seq,
status (DONE, FAILED, GONE; PENDING where it was not waited for, or not answered in time), body or body_base64 (where it is no text),
length (in bytes, where it is longer than a datagram).

Exit codes:
  0  DONE: processed; or, with --no-wait, on the server's disk
  1  not on the server's disk, as far as is known
  2  usage
  5  FAILED: given up; an operator may still process it
  6  GONE: no answer will come: had before, expired, lost or passed over, forgotten by an operator, or never asked for
  7  on the server's disk, but the answer was not had: not there within --timeout, longer than --datagram-bytes-max
     lets it be, or stdout is full; take it later with --take, and do not send the message again. With --take also: nobody has replied")]
pub(super) struct AskArgs {
    #[command(flatten)]
    client: ClientArgs,

    /// The application's routing number
    #[arg(long, value_name = "N", default_value_t = 0)]
    channel: u16,

    /// Do not wait for the answer: print the name by which --take asks for it, as soon as the message is on the server's disk
    #[arg(long, conflicts_with = "take")]
    no_wait: bool,

    /// Send nothing; take the answer to an earlier message of this client, named EPOCH:SEQ or CLIENT:EPOCH:SEQ
    #[arg(long, value_name = "NAME", conflicts_with_all = ["text", "file", "channel"])]
    take: Option<Name>,

    /// Give up waiting after this long, such as "30s" [default: never]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,

    /// The longest datagram to send and to take, in bytes of UDP payload, 33 to 65507: an answer has 32 bytes less, 52 with a key
    #[arg(long, value_name = "BYTES", default_value_t = DATAGRAM_LEN_RECOMMENDED)]
    datagram_bytes_max: usize,

    /// For programs: one JSON object with the answer
    #[arg(long)]
    json: bool,

    /// The file whose content is the message
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,

    /// The message [default: what stdin holds]
    text: Option<String>,
}

/// What names an ask to a later run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Name {
    /// Where it is not the client that is named beside it.
    client: Option<ClientId>,
    epoch: Epoch,
    seq: Seq,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(client) = self.client {
            write!(f, "{client}:")?;
        }
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || "not EPOCH:SEQ or CLIENT:EPOCH:SEQ, as --no-wait prints it".to_owned();
        let mut parts = text.rsplitn(3, ':');
        let seq = parts.next().and_then(|seq| seq.parse().ok()).filter(|&seq| seq > 0).ok_or_else(problem)?;
        let epoch = parts.next().and_then(|epoch| epoch.parse().ok()).and_then(Epoch::new).ok_or_else(problem)?;
        Ok(Self { client: parts.next().map(parse_client).transpose()?, epoch, seq: Seq(seq) })
    }
}

/// The command ends with one of these.
enum Came {
    Answered(Answer),
    /// On the server's disk; not waited for, or not long enough, for this reason if it is known.
    Left {
        name: Name,
        timed_out: bool,
        why: Option<String>,
    },
    /// Nothing is known of it, for this reason.
    Failed(String),
}

/// What was said of it.
struct Told {
    code: u8,
    /// Whether the answer has come and was printed whole: the server may forget it.
    is_had: bool,
}

/// Asks, waits, and says by its exit code what became of the message.
pub(super) fn run(args: &AskArgs) -> ExitCode {
    match ask(args) {
        Ok(code) => ExitCode::from(code),
        Err(Failure::Failed { code, message }) => {
            complain(&message);
            ExitCode::from(code)
        }
        Err(Failure::OutputClosed) => ExitCode::SUCCESS,
    }
}

fn ask(args: &AskArgs) -> Result<u8, Failure> {
    let named = args.take.and_then(|name| name.client);
    if let (Some(named), Some(client)) = (named, args.client.client)
        && named != client
    {
        return Err(Failure::usage(format_args!("--take names client {named}, and --client {client}")));
    }
    let sealed = args.client.sealed()?;
    if args.take.is_some() && named.is_none() && args.client.client.is_none() && sealed.is_none() {
        return Err(Failure::usage("--take needs to know who asked: say --client, or CLIENT:EPOCH:SEQ"));
    }
    let message = if args.take.is_some() { Vec::new() } else { args.message()? };
    let mut builder = args.client.builder(sealed).datagram_bytes_max(args.datagram_bytes_max);
    if let Some(client) = named {
        builder = builder.client_id(client.0);
    }
    let id = builder.id();
    let runtime = runtime().map_err(|error| Failure::not_done(format_args!("cannot start its threads: {error}")))?;
    let told = runtime.block_on(async {
        let client = builder.connect().await?;
        let came = args.wait(&client, id, &message).await;
        let told = args.tell(id, came);
        if matches!(told, Ok(Told { is_had: true, .. })) {
            // What is said last is that the answer is had, so that the server need not keep it.
            if let Some(name) = args.take {
                say_had(&client, name).await;
            }
            client.close(Some(FAREWELL)).await.ok();
        }
        Ok(told)
    });
    runtime.shutdown_background();
    match told {
        Ok(told) => told.map(|told| told.code),
        Err(error @ (ConnectError::Limit { .. } | ConnectError::Server { .. })) => Err(Failure::usage(error)),
        Err(error) => Err(Failure::not_done(error)),
    }
}

impl AskArgs {
    fn message(&self) -> Result<Vec<u8>, Failure> {
        let unreadable = |what: &dyn fmt::Display, error: io::Error| Failure::Failed {
            code: EXIT_USAGE,
            message: format!("cannot read {what}: {error}"),
        };
        match (&self.text, &self.file) {
            (Some(text), _) => Ok(text.clone().into_bytes()),
            (None, Some(path)) => std::fs::read(path).map_err(|error| unreadable(&path.display(), error)),
            (None, None) => {
                let mut message = Vec::new();
                io::stdin().read_to_end(&mut message).map_err(|error| unreadable(&"stdin", error))?;
                Ok(message)
            }
        }
    }

    async fn wait(&self, client: &Client, id: ClientId, message: &[u8]) -> Came {
        let asking = async {
            let (name, answering) = match self.take {
                Some(name) => match client.take(name.epoch, name.seq) {
                    Ok(answering) => (name, Some(answering)),
                    Err(error) => return Came::Failed(error.to_string()),
                },
                None => {
                    let asked = match client.ask_on(self.channel, message).await {
                        Ok(asked) => asked,
                        Err(error) => return Came::Failed(why(&error)),
                    };
                    // Before the ack: an answer that came right after it would be had, and the server told to forget it.
                    let answering = if self.no_wait {
                        asked.answer.leave();
                        None
                    } else {
                        Some(asked.answer)
                    };
                    let receipt = match asked.receipt.await {
                        Ok(receipt) => receipt,
                        Err(error) => return Came::Failed(why(&error)),
                    };
                    // Who has drawn an id for this run cannot know it later.
                    let client = self.client.client.is_none().then_some(id);
                    (Name { client, epoch: receipt.epoch, seq: receipt.seq }, answering)
                }
            };
            let Some(mut answering) = answering else {
                return Came::Left { name, timed_out: false, why: None };
            };
            let answer = async { (&mut answering).await };
            match self.timeout {
                None => answer.await.map_or_else(|error| Came::Failed(why(&error)), Came::Answered),
                Some(timeout) => match tokio::time::timeout(timeout, answer).await {
                    Ok(answer) => answer.map_or_else(|error| Came::Failed(why(&error)), Came::Answered),
                    Err(_) => {
                        let unheard = self.hears_nothing(client);
                        answering.leave();
                        match unheard {
                            Some(why) => Came::Failed(why),
                            None => {
                                let why = obstacle(client.stats().refusal, client.trouble().as_deref());
                                Came::Left { name, timed_out: true, why }
                            }
                        }
                    }
                },
            }
        };
        tokio::select! {
            came = asking => came,
            () = self.tell_of_silence(client) => Came::Failed(format!("no reply from {} in time", self.client.server)),
        }
    }

    /// Why nothing is known of an earlier message: the server does not reply to who takes its answer.
    fn hears_nothing(&self, client: &Client) -> Option<String> {
        self.take?;
        let unheard = client.stats().takes_unheard.then(|| format!("no reply from {}", self.client.server));
        client.trouble().or(unheard)
    }

    /// Says once why nothing comes. Ends when the message was not acked in time.
    async fn tell_of_silence(&self, client: &Client) {
        let patience = SILENCE_TOLD.min(self.timeout.unwrap_or(SILENCE_TOLD));
        tokio::time::sleep(patience).await;
        let is_acked = || client.stats().acked > 0;
        if let Some(why) = self.hears_nothing(client) {
            complain(&format!("{why}; trying on"));
        } else if !is_acked() {
            let silence = || format!("no reply from {} for {} seconds", self.client.server, patience.as_secs());
            // Who takes hears nothing while the server holds the TAKE: that is no trouble.
            let why = obstacle(client.stats().refusal, client.trouble().as_deref())
                .or_else(|| self.take.is_none().then(silence));
            if let Some(why) = why {
                complain(&format!("{why}; trying on"));
            }
        }
        if let Some(timeout) = self.timeout {
            tokio::time::sleep(timeout.saturating_sub(patience)).await;
            if !is_acked() && self.take.is_none() {
                return;
            }
        }
        std::future::pending().await
    }

    fn tell(&self, client: ClientId, came: Came) -> Result<Told, Failure> {
        match came {
            Came::Answered(answer) => Ok(self.tell_answer(client, &answer)),
            Came::Left { name, timed_out, why } => {
                let left = |code| Told { code, is_had: false };
                if self.json {
                    let (epoch, seq) = (name.epoch.value(), name.seq.0);
                    let told = json!({"client": client.to_string(), "epoch": epoch, "seq": seq, "status": "PENDING"});
                    super::print_json(&told)?;
                }
                if timed_out {
                    let why = why.map_or_else(String::new, |why| format!(": {why}"));
                    complain(&format!("not answered in time{why}; take it later with --take {name}"));
                    return Ok(left(EXIT_UNANSWERED));
                }
                if !self.json {
                    super::print(format_args!("{name}\n"))?;
                }
                Ok(left(0))
            }
            Came::Failed(why) => Err(Failure::not_done(why)),
        }
    }

    fn tell_answer(&self, client: ClientId, answer: &Answer) -> Told {
        let name = Name { client: Some(client), epoch: answer.epoch, seq: answer.seq };
        let printed = if self.json { super::print_json(&as_json(client, answer)) } else { print_body(&answer.body) };
        let not_had = Told { code: EXIT_UNANSWERED, is_had: false };
        if let Err(Failure::Failed { message, .. }) = &printed {
            complain(&format!("{message}; take the answer again with --take {name}"));
            return not_had;
        }
        if answer.body.len() < answer.length as usize {
            complain(&format!(
                "the answer to {name} has {} bytes, more than a datagram of this client holds; take it with a larger --datagram-bytes-max and --take {name}",
                answer.length
            ));
            return not_had;
        }
        let code = match answer.status {
            Status::Done => 0,
            Status::Failed => {
                complain("FAILED: the message was given up; an operator may still process it");
                EXIT_FAILED
            }
            Status::Gone => {
                complain(
                    "GONE: no answer will come: it was had before, has expired, was passed over or forgotten, or was never asked for",
                );
                EXIT_GONE
            }
        };
        Told { code, is_had: printed.is_ok() }
    }
}

/// Tells the server that it need not keep the answer to an ask of an earlier run, by asking for the seq after it
/// (PROTOCOL.md#take). Whatever that one's answer is stays where it is.
async fn say_had(client: &Client, name: Name) {
    let next = Seq(name.seq.0.saturating_add(1));
    if let Ok(mut answering) = client.take(name.epoch, next) {
        // Lost or late, it does no harm: the server keeps the answer for a day at most.
        let _answered_or_late = tokio::time::timeout(FAREWELL, &mut answering).await;
        answering.leave();
    }
}

/// Why a message is not on the server's disk, as far as is known.
fn why(error: &SendError) -> String {
    let what_to_do = match error {
        SendError::Rejected(FailReason::Unsupported) => {
            "; its operator can allow it to be asked (asks_max), and without encryption over a network (plain_asks)"
        }
        _ => "",
    };
    format!("{error}{what_to_do}")
}

fn as_json(client: ClientId, answer: &Answer) -> Value {
    let mut told = json!({
        "client": client.to_string(),
        "epoch": answer.epoch.value(),
        "seq": answer.seq.0,
        "status": status_name(answer.status),
    });
    add_body(&mut told, answer);
    told
}

fn print_body(body: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let newline: &[u8] = if stdout.is_terminal() && !body.is_empty() && !body.ends_with(b"\n") { b"\n" } else { b"" };
    let written = stdout.write_all(body).and_then(|()| stdout.write_all(newline)).and_then(|()| stdout.flush());
    written.map_err(super::output_failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ask_is_named_as_it_is_printed() {
        for text in ["1767323045:1", "00000000000000a1:7:18446744073709551615"] {
            assert_eq!(text.parse::<Name>().map(|name| name.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("0xa1:7:5".parse::<Name>().map(|name| name.client), Ok(Some(ClientId(0xa1))));
        for text in ["", "5", "0:5", "5:0", "5:", ":5", "a1:7:5", "0xa1:7:5:6", "4294967296:1", "-1:1"] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }
}
