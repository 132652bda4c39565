//! `duragram ask-status`: messages whose senders want an answer, as far as an operator sees them, through the admin API of a running
//! server.

use std::io::{self, IsTerminal, Write};

use duragram_proto::ClientId;
use serde_json::Value;

use super::api::{AdminArgs, Api};
use super::client_args::parse_client;
use super::{Failure, Report, age, complain, on_a_terminal, print, print_json};

/// Show which messages wait for an answer, and whose answers wait to be taken; or forget those of a client.
///
/// Shown is what is on the server's disk, and never the body of an answer: that is the client's. A client has at most 64 asks, the server
/// `asks_max`; what would be one more is refused until answers are taken, expire, or are forgotten here.
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct AskStatusArgs {
    #[command(flatten)]
    admin: AdminArgs,

    /// Show each ask of this client: 16 hexadecimal digits, or 0x and such digits, or a number
    #[arg(long, value_name = "ID", value_parser = parse_client, conflicts_with = "forget")]
    client: Option<ClientId>,

    /// Forget all asks of this client, which is gone for good. Who waits for one of their answers hears that none will come; messages that
    /// are not processed yet are processed all the same. Needs the admin token
    #[arg(long, value_name = "CLIENT", value_parser = parse_client)]
    forget: Option<ClientId>,

    /// With --forget: do not ask, where there is somebody to ask
    #[arg(long, requires = "forget")]
    yes: bool,

    /// For programs: one JSON object, as `/api/asks` gives it
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  duragram ask-status
  duragram ask-status --client 0xa1
  duragram ask-status --json | jq '.oldest_open.age_seconds'
  duragram ask-status --forget 0xa1

State of an ask: OPEN (on disk, not answered), DONE (processed; LENGTH bytes wait to be taken), FAILED (given up).

Exit codes:
  0  done; what was forgotten is forgotten on the server's disk
  1  not done: the client has no asks to forget, no server, no answer in time
  2  usage";

/// Shows what the server holds, or has it forget.
pub(super) fn run(args: &AskStatusArgs) -> Result<(), Failure> {
    let api = Api::new(&args.admin)?;
    match (args.forget, args.client) {
        (Some(client), _) => forget(&api, client, args),
        (None, Some(client)) => {
            let told = api.get_by("/api/asks", &[("client", &client.to_string())])?;
            if args.json { print_json(&told) } else { list(client, &told) }
        }
        (None, None) => {
            let told = api.get("/api/asks")?;
            if args.json { print_json(&told) } else { overview(&told) }
        }
    }
}

fn overview(told: &Value) -> Result<(), Failure> {
    let number = |name: &str| told[name].as_u64().ok_or_else(strange);
    let (open, answered, plain) = (number("open")?, number("answered")?, number("plain")?);
    let (asks_max, plain_max) = (number("asks_max")?, number("plain_max")?);
    if asks_max == 0 {
        complain("nobody may ask: asks_max is 0");
        return Ok(());
    }
    print(format_args!(
        "{} of {asks_max} asks (asks_max): {open} open, {answered} answered and not taken; {plain} of {plain_max} plain; {} TAKEs held\n",
        open + answered,
        number("held_takes")?,
    ))?;
    let oldest = &told["oldest_open"];
    if oldest.is_object() {
        print(format_args!(
            "The oldest open one: client {}, {}:{}, entry {}, {}\n",
            on_a_terminal(oldest["client"].as_str().unwrap_or_default()),
            oldest["epoch"],
            oldest["seq"],
            oldest["offset"],
            oldest["age_seconds"]
                .as_u64()
                .map_or_else(|| "of an age that is not known".to_owned(), |s| format!("{} old", age(s))),
        ))?;
    }
    let clients = told["clients"].as_array().ok_or_else(strange)?;
    if clients.is_empty() {
        return Ok(());
    }
    print(format_args!("{:<16} {:>5} {:>5} {:>8}\n", "CLIENT", "ASKS", "OPEN", "ANSWERED"))?;
    for of in clients {
        print(format_args!(
            "{:<16} {:>5} {:>5} {:>8}\n",
            on_a_terminal(of["client"].as_str().unwrap_or_default()),
            of["asks"].as_u64().unwrap_or_default(),
            of["open"].as_u64().unwrap_or_default(),
            of["answered"].as_u64().unwrap_or_default(),
        ))?;
    }
    let all = number("clients_with_asks")?;
    if all > clients.len() as u64 {
        complain(&format!("these have the most asks of {all} clients that have some"));
    }
    Ok(())
}

fn list(client: ClientId, told: &Value) -> Result<(), Failure> {
    let asks = told["asks"].as_array().ok_or_else(strange)?;
    if asks.is_empty() {
        complain(&format!("client {client} has no asks"));
        return Ok(());
    }
    print(format_args!(
        "{:<21} {:>12} {:<6} {:>6} {:>8} {:>12}\n",
        "EPOCH:SEQ", "ENTRY", "STATE", "LENGTH", "AGE", "ANSWERED FOR"
    ))?;
    let seconds = |ask: &Value, name: &str| ask[name].as_u64().map_or_else(|| "-".to_owned(), age);
    for ask in asks {
        print(format_args!(
            "{:<21} {:>12} {:<6} {:>6} {:>8} {:>12}\n",
            format!("{}:{}", ask["epoch"], ask["seq"]),
            ask["offset"].as_u64().unwrap_or_default(),
            on_a_terminal(ask["state"].as_str().unwrap_or_default()),
            ask["length"].as_u64().map_or_else(|| "-".to_owned(), |length| length.to_string()),
            seconds(ask, "age_seconds"),
            seconds(ask, "answered_seconds"),
        ))?;
    }
    Ok(())
}

fn forget(api: &Api, client: ClientId, args: &AskStatusArgs) -> Result<(), Failure> {
    if !args.yes && io::stdin().is_terminal() && !is_confirmed(api, client)? {
        return Err(Failure::not_done("nothing was forgotten"));
    }
    let told = api.delete(&format!("/api/asks/{client}"), &[])?;
    // What is done is done, whether or not anybody can read of it.
    let mut report = Report::default();
    if args.json {
        report.tell_json(&told);
    } else {
        let (forgotten, open) = (&told["forgotten"], &told["open"]);
        report.tell(format_args!("{forgotten} asks of client {client} are forgotten, {open} of them open\n"));
    }
    Ok(())
}

/// Asks on the terminal, where it says what would be forgotten.
fn is_confirmed(api: &Api, client: ClientId) -> Result<bool, Failure> {
    let told = api.get_by("/api/asks", &[("client", &client.to_string())])?;
    let asks = told["asks"].as_array().ok_or_else(strange)?;
    if asks.is_empty() {
        // The server refuses, and says why.
        return Ok(true);
    }
    let open = asks.iter().filter(|ask| ask["state"] == "OPEN").count();
    let mut stderr = io::stderr().lock();
    let all = asks.len();
    let asked = write!(stderr, "Forget {all} asks of client {client} for good, {open} of them open? [y/N] ");
    asked.and_then(|()| stderr.flush()).map_err(|error| Failure::not_done(format_args!("cannot ask: {error}")))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| Failure::not_done(format_args!("no answer: {error}")))?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

fn strange() -> Failure {
    Failure::not_done("the server's answer is not understood; is it of another version?")
}
