//! What went wrong at the server, and what to do about it. All of it is the sink's trouble: Redis takes any record.

use std::io;

use ::redis::{ErrorKind, RedisError, ServerError};

/// Says in words why the connection failed.
pub(super) fn of_connection(error: &RedisError) -> String {
    if error.is_timeout() {
        return "it did not answer in time (timeout)".to_owned();
    }
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) => {
            format!("{error}: check user and password; a changed password is read at the next try")
        }
        (_, Some(code)) => with_advice(code, error.detail().unwrap_or_default()),
        _ => error.to_string(),
    }
}

/// What the server answered to a command.
pub(super) fn of_server(error: &ServerError) -> String {
    with_advice(error.code(), error.details().unwrap_or_default())
}

/// Whether an id was refused since the stream has come further.
pub(super) fn is_too_low_an_id(error: &ServerError) -> bool {
    error.code() == "ERR" && error.details().is_some_and(|details| details.contains("equal or smaller"))
}

/// Whether the server takes `NOMKSTREAM` for an id, since it does not know the word.
pub(super) fn is_unknown_word(error: &ServerError) -> bool {
    error.code() == "ERR" && error.details().is_some_and(|details| details.contains("Invalid stream ID"))
}

/// Whether there is no such key.
pub(super) fn is_no_such_key(error: &ServerError) -> bool {
    error.code() == "ERR" && error.details().is_some_and(|details| details.contains("no such key"))
}

/// An answer that no server gives.
pub(super) fn strange(what: &str) -> RedisError {
    RedisError::from(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a strange answer to {what}: is this Redis or Valkey?"),
    ))
}

fn with_advice(code: &str, details: &str) -> String {
    let advice = match code {
        "LOADING" => "it is loading its data; this ends by itself",
        "READONLY" => "it is a replica: name the primary, or wait for the failover to end",
        "MASTERDOWN" => "it is a replica that has lost its primary: name the primary",
        "CLUSTERDOWN" | "TRYAGAIN" => "the cluster is not whole: look at its nodes",
        "MOVED" | "ASK" => "the key belongs to another node of the cluster: name that node",
        "OOM" => "its memory is full: raise maxmemory, or bound the stream by entries_max",
        "NOAUTH" | "WRONGPASS" => "check user and password; a changed password is read at the next try",
        "NOPERM" => {
            "give the user the commands xadd, xinfo, multi, exec, watch, get, set and this key with what follows it"
        }
        "MISCONF" => "it cannot save its data: look at its disk and its log",
        "WRONGTYPE" => "the key holds something else than a stream: configure another key",
        "NOREPLICAS" => "too few replicas are connected to it: look at them",
        _ => return format!("{code} {details}"),
    };
    format!("{code} {details}: {advice}")
}

#[cfg(test)]
mod tests {
    use ::redis::{Value, parse_redis_value};

    use super::*;

    #[test]
    fn a_server_that_is_too_old_to_leave_a_stream_unmade_is_told_by_its_answer() {
        for (answer, expected) in [
            ("-ERR Invalid stream ID specified as stream command argument\r\n", true),
            ("-ERR The ID specified in XADD is equal or smaller than the target stream top item\r\n", false),
        ] {
            let Value::ServerError(error) = parse_redis_value(answer.as_bytes()).unwrap() else { panic!("{answer}") };
            assert_eq!(is_unknown_word(&error), expected, "{answer}");
        }
    }
}
