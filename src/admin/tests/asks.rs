//! Tests of what operators see of asks, and have forgotten.

use duragram_proto::{ClientId, Seq};
use serde_json::{Value, json};

use super::{Fake, change, get_json, session, start};
use crate::model::{AskId, AskState, AskTotals, AskView, AsksReport, AsksRequest, ClientAsks, Offset};

const AUTHORIZED: &str = "Authorization: Bearer 0123456789abcdef\r\n";

fn view(seq: u64, offset: u64, state: AskState, asked_s: Option<u64>) -> AskView {
    let id = AskId { session: session(), seq: Seq(seq) };
    AskView { id, offset: Offset(offset), state, asked_s, answered_s: (state != AskState::Open).then_some(4) }
}

#[test]
fn an_overview_tells_how_many_asks_there_are_whose_and_which_open_one_is_the_oldest() {
    let state = Fake::new();
    state.commit(&[b"0", b"1"]);
    let totals = AskTotals { open: 3, answered: 2, held_takes: 1, plain: 4, asks_max: 100, plain_max: 50 };
    let clients = vec![ClientAsks { client: ClientId(0xa1), open: 1, answered: 2 }];
    let oldest = Some(view(7, 1, AskState::Open, Some(9)));
    *state.asks.lock().unwrap() = AsksReport { totals, oldest, clients, clients_len: 3, asks: Vec::new() };
    let admin = start(&state);
    let expected = json!({
        "open": 3, "answered": 2, "held_takes": 1, "plain": 4, "asks_max": 100, "plain_max": 50,
        "oldest_open": { "client": "00000000000000a1", "epoch": 3, "seq": 7, "offset": 1, "age_seconds": 9 },
        "clients": [{ "client": "00000000000000a1", "asks": 3, "open": 1, "answered": 2 }],
        "clients_with_asks": 3,
    });
    assert_eq!(get_json(&admin, "/api/asks"), (200, expected));
    let status = get_json(&admin, "/api/status").1;
    let totals = json!({ "open": 3, "answered": 2, "held_takes": 1, "plain": 4, "asks_max": 100, "plain_max": 50 });
    assert_eq!(status["asks"], totals);

    // Of one that was asked before the start, its entry tells the age, as long as that is kept.
    state.asks.lock().unwrap().oldest = Some(view(7, 1, AskState::Open, None));
    let age = get_json(&admin, "/api/asks").1["oldest_open"]["age_seconds"].clone();
    assert!(age.as_u64().unwrap() > 86_400, "entry 1 came in 2023: {age}");
    state.commit(&[b"2"]);
    state.trim(2);
    assert_eq!(get_json(&admin, "/api/asks").1["oldest_open"]["age_seconds"], Value::Null);
    state.asks.lock().unwrap().oldest = None;
    assert_eq!(get_json(&admin, "/api/asks").1["oldest_open"], Value::Null);
}

#[test]
fn of_one_client_each_ask_is_shown_without_its_body() {
    let state = Fake::new();
    let asks = vec![
        view(1, 10, AskState::Open, Some(5)),
        view(2, 11, AskState::Done(1024), Some(5)),
        view(3, 12, AskState::Failed, Some(5)),
    ];
    *state.asks.lock().unwrap() = AsksReport { asks, ..AsksReport::default() };
    let admin = start(&state);
    for client in ["0xa1", "161", "00000000000000a1"] {
        let (code, told) = get_json(&admin, &format!("/api/asks?client={client}"));
        assert_eq!((code, &told["client"]), (200, &json!("00000000000000a1")), "{told}");
        let ask = |seq: u64, offset: u64, state: &str, length: Value, answered: Value| {
            json!({ "epoch": 3, "seq": seq, "offset": offset, "state": state, "length": length, "age_seconds": 5,
                    "answered_seconds": answered })
        };
        let expected = [
            ask(1, 10, "OPEN", Value::Null, Value::Null),
            ask(2, 11, "DONE", json!(1024), json!(4)),
            ask(3, 12, "FAILED", json!(0), json!(4)),
        ];
        assert_eq!(told["asks"], json!(expected));
    }
    let wanted = AsksRequest::Of(ClientId(0xa1));
    assert_eq!(*state.asks_wanted.lock().unwrap(), [wanted; 3]);
}

#[test]
fn the_asks_of_a_client_are_forgotten_for_who_has_the_token_alone() {
    let state = Fake::new();
    let asks = vec![view(1, 10, AskState::Open, None), view(2, 11, AskState::Failed, None)];
    *state.asks.lock().unwrap() = AsksReport { asks, ..AsksReport::default() };
    let admin = start(&state);
    assert_eq!(change(&admin, "DELETE", "/api/asks/0xa1", "").0, 401);
    assert_eq!(change(&admin, "DELETE", "/api/asks/a1", AUTHORIZED).0, 400);
    assert_eq!(change(&admin, "DELETE", "/api/asks", AUTHORIZED).0, 405, "nobody means all of them");
    assert_eq!(*state.asks_wanted.lock().unwrap(), []);
    let (status, answer) = change(&admin, "DELETE", "/api/asks/0xa1", AUTHORIZED);
    assert!(status == 200 && answer.ends_with(r#"{"client":"00000000000000a1","forgotten":2,"open":1}"#), "{answer}");
    assert_eq!(*state.asks_wanted.lock().unwrap(), [AsksRequest::Forget(ClientId(0xa1))]);
    state.asks.lock().unwrap().asks.clear();
    let (status, answer) = change(&admin, "DELETE", "/api/asks/0xa1", AUTHORIZED);
    assert!(status == 404 && answer.contains("client 00000000000000a1 has no asks"), "{answer}");
}

#[test]
fn what_cannot_be_asked_now_and_what_makes_no_sense_is_refused_with_the_reason() {
    let state = Fake::new();
    let admin = start(&state);
    for (query, told) in [("client=a1", "16 hexadecimal digits"), ("klient=1", "klient"), ("client=", "hexadecimal")] {
        let (code, answer) = get_json(&admin, &format!("/api/asks?{query}"));
        assert!(code == 400 && answer["error"].as_str().unwrap().contains(told), "{query}: {answer}");
    }
    *state.asks_refusal.lock().unwrap() = Some("too many requests about asks wait".into());
    assert_eq!(get_json(&admin, "/api/asks"), (503, json!({ "error": "too many requests about asks wait" })));
}
