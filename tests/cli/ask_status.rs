//! `duragram ask-status`, the real program against a real admin interface, and against a whole server.

use duragram::model::{AskId, AskState, AskTotals, AskView, AsksReport, ClientAsks, Offset, SessionId};
use duragram::proto::{ClientId, Epoch, Seq};
use serde_json::{Value, json};

use crate::cli::dead::outcome_with_token;
use crate::cli::support::{FakeServer, duragram, outcome, text};
use crate::common::server::{Home, Server};
use crate::common::wait_for;

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn view(seq: u64, state: AskState, asked_s: Option<u64>) -> AskView {
    let session = SessionId { client: ClientId(0xa1), epoch: Epoch::new(3).unwrap() };
    let answered_s = (state != AskState::Open).then_some(7200);
    AskView { id: AskId { session, seq: Seq(seq) }, offset: Offset(seq + 100), state, asked_s, answered_s }
}

#[test]
fn an_overview_is_two_sentences_and_a_line_for_each_client() {
    let server = FakeServer::new();
    let admin = server.admin(None);
    let address = admin.address().to_string();
    let (code, stdout, stderr) = outcome(&["ask-status", "--admin", &address]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", "duragram: nobody may ask: asks_max is 0\n"));

    let totals = AskTotals { open: 3, answered: 2, held_takes: 1, plain: 4, asks_max: 100, plain_max: 50 };
    let clients = vec![ClientAsks { client: ClientId(0xa1), open: 1, answered: 2 }];
    let oldest = Some(view(7, AskState::Open, Some(300)));
    server.set_asks(AsksReport { totals, oldest, clients, clients_len: 2, asks: Vec::new() });
    let (code, stdout, stderr) = outcome(&["ask-status", "--admin", &address]);
    let lines: Vec<&str> = stdout.lines().collect();
    let first = "5 of 100 asks (asks_max): 3 open, 2 answered and not taken; 4 of 50 plain; 1 TAKEs held";
    assert_eq!((code, lines[0]), (0, first));
    assert_eq!(lines[1], "The oldest open one: client 00000000000000a1, 3:7, entry 107, 5 min old");
    assert_eq!(words(lines[2]), ["CLIENT", "ASKS", "OPEN", "ANSWERED"]);
    assert_eq!((words(lines[3]), lines.len()), (words("00000000000000a1 3 1 2"), 4));
    assert_eq!(stderr, "duragram: these have the most asks of 2 clients that have some\n");

    let (code, stdout, _) = outcome(&["ask-status", "--json", "--admin", &address]);
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &told["oldest_open"]["seq"], &told["clients_with_asks"]), (0, &json!(7), &json!(2)));
}

#[test]
fn of_a_client_there_is_a_line_for_each_ask() {
    let server = FakeServer::new();
    let admin = server.admin(None);
    let address = admin.address().to_string();
    let (code, stdout, stderr) = outcome(&["ask-status", "--client", "0xa1", "--admin", &address]);
    let none = "duragram: client 00000000000000a1 has no asks\n";
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", none));
    let asks = vec![
        view(1, AskState::Open, None),
        view(2, AskState::Done(11), Some(7200)),
        view(3, AskState::Failed, Some(7200)),
    ];
    server.set_asks(AsksReport { asks, ..AsksReport::default() });
    let (code, stdout, _) = outcome(&["ask-status", "--client", "0xa1", "--admin", &address]);
    let lines: Vec<Vec<String>> = stdout.lines().map(words).collect();
    let expected = [
        words("EPOCH:SEQ ENTRY STATE LENGTH AGE ANSWERED FOR"),
        words("3:1 101 OPEN - - -"),
        words("3:2 102 DONE 11 2 h 2 h"),
        words("3:3 103 FAILED 0 2 h 2 h"),
    ];
    assert_eq!((code, lines), (0, expected.to_vec()), "{stdout}");
}

#[test]
fn asks_are_forgotten_with_the_token_and_what_is_not_done_is_exit_code_1() {
    let server = FakeServer::new();
    let asks = vec![view(1, AskState::Open, None), view(2, AskState::Failed, None)];
    server.set_asks(AsksReport { asks, ..AsksReport::default() });
    let admin = server.admin(None);
    let address = admin.address().to_string();
    let forget = ["ask-status", "--forget", "161", "--admin", &address];
    let (code, stdout, stderr) = outcome(&forget);
    assert_eq!((code, stdout.as_str(), stderr.contains("needs the admin token")), (1, "", true), "{stderr}");
    let (code, stdout, _) = outcome_with_token(&forget);
    assert_eq!((code, stdout.as_str()), (0, "2 asks of client 00000000000000a1 are forgotten, 1 of them open\n"));
    let (code, stdout, stderr) = outcome_with_token(&forget);
    assert_eq!((code, stdout.as_str(), stderr.contains("has no asks")), (1, "", true), "{stderr}");
    for args in [&["--client", "a1"][..], &["--forget", "x"], &["--yes"], &["--client", "1", "--forget", "1"]] {
        assert_eq!(outcome(&[&["ask-status"], args].concat()).0, 2, "{args:?}");
    }
    drop(admin);
    let (code, _, stderr) = outcome(&["ask-status", "--admin", &address]);
    assert_eq!((code, stderr.contains("is the server running")), (1, true), "{stderr}");
}

fn tell(home: &Home, server: &Server, args: &[&str]) -> (i32, String, String) {
    let mut command = duragram(&[&["ask-status"], args].concat());
    command.env("DURAGRAM_DATA", home.data()).env("DURAGRAM_ADMIN", server.admin.to_string());
    let output = command.output().unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn told(home: &Home, server: &Server, args: &[&str]) -> Value {
    let (code, stdout, stderr) = tell(home, server, &[args, &["--json"]].concat());
    assert_eq!(code, 0, "{args:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// One sink of two is away, so that nothing is answered.
const AWAY: [&str; 2] = ["--sink", "file:/dev/full"];

#[test]
fn an_operator_sees_what_waits_and_what_he_has_forgotten_is_gone_also_after_a_kill() {
    let home = Home::with_config("asks_max = 2\n");
    let server = home.serve_with(&AWAY);
    let ask = |server: &Server, args: &[&str]| {
        let address = server.udp.to_string();
        outcome(&[&["ask", "--server", &address, "--client", "0xa1"], args].concat())
    };
    let (code, first, stderr) = ask(&server, &["--no-wait", "open valve 7"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(ask(&server, &["--no-wait", "open valve 8"]).0, 0);
    let all = wait_for("both asks", || Some(told(&home, &server, &[])).filter(|all| all["open"] == 2));
    assert_eq!((&all["answered"], &all["asks_max"], &all["clients"][0]["asks"]), (&json!(0), &json!(2), &json!(2)));
    assert_eq!((&all["oldest_open"]["client"], &all["oldest_open"]["offset"]), (&json!("00000000000000a1"), &json!(0)));
    assert!(all["oldest_open"]["age_seconds"].as_u64().unwrap() < 3600, "{all}");
    assert!(server.get("/readyz").contains("asks: 2 of 2 (asks_max)"), "{}", server.get("/readyz"));
    assert!(server.get("/readyz").starts_with(r#"{"ready":true"#), "it is no reason to send nothing");

    // The age of what was asked before the start is told by its entry.
    server.kill();
    let server = home.serve_with(&AWAY);
    let of = told(&home, &server, &["--client", "0xa1"]);
    assert_eq!((of["asks"].as_array().unwrap().len(), &of["asks"][0]["state"]), (2, &json!("OPEN")));
    assert!(of["asks"][0]["age_seconds"].as_u64().unwrap() < 3600, "{of}");

    let (code, stdout, stderr) = tell(&home, &server, &["--forget", "0xa1"]);
    assert_eq!(
        (code, stdout.as_str()),
        (0, "2 asks of client 00000000000000a1 are forgotten, 2 of them open\n"),
        "{stderr}"
    );
    server.kill();
    let server = home.serve_with(&AWAY);
    assert_eq!(told(&home, &server, &[])["open"], 0);
    assert!(!server.get("/readyz").contains("asks_max"));
    let (code, _, stderr) = ask(&server, &["--take", first.trim(), "--timeout", "20s"]);
    assert_eq!(code, 6, "gone: {stderr}");
}
