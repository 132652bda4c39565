//! What other programs call the keys of a sink. Who comes from Vector, Fluent Bit or Telegraf writes what they know, and is told
//! the name that it has here, or why there is nothing of the kind.

/// A key of another program.
struct Foreign {
    /// As it is written there; what stands below it is meant too.
    name: &'static str,
    /// One program or several call it so.
    whose: &'static str,
    /// Here it has another name, or there is nothing of the kind.
    here: Here,
}

enum Here {
    /// The key of this name does the same here.
    Key(&'static str),
    /// It is something else, or not needed.
    Note(&'static str),
}

const fn is(name: &'static str, whose: &'static str, here: &'static str) -> Foreign {
    Foreign { name, whose, here: Here::Key(here) }
}

const fn note(name: &'static str, whose: &'static str, here: &'static str) -> Foreign {
    Foreign { name, whose, here: Here::Note(here) }
}

const VECTOR: &str = "Vector";
const FLUENT_BIT: &str = "Fluent Bit";
const TELEGRAF: &str = "Telegraf";
const OTHERS: &str = "others";

const SECRET: &str = "here it is user and password, or a token, each from a file, a variable or a credential";

/// The longer of two names that begin alike stands first.
const FOREIGN: &[Foreign] = &[
    note("inputs", VECTOR, "here every sink gets all records, or those of its channels (channels = [1, \"10-19\"])"),
    note(
        "encoding",
        VECTOR,
        "here a payload is written as it came; http has mode and content_type, postgres has payload",
    ),
    is("endpoint", VECTOR, "url"),
    is("endpoints", VECTOR, "url"),
    is("uri", VECTOR, "url"),
    is("auth.user", VECTOR, "user"),
    is("auth.password", VECTOR, "password"),
    is("auth.bearer", OTHERS, "bearer"),
    is("auth.token", VECTOR, "bearer (http) or token (nats)"),
    note("auth", VECTOR, SECRET),
    is("batch.max_events", VECTOR, "batch.records_max"),
    is("batch.max_bytes", VECTOR, "batch.bytes_max"),
    is("batch.max_size", VECTOR, "batch.bytes_max"),
    is("batch.timeout_secs", VECTOR, "batch.delay_max (with a unit, such as \"1s\")"),
    is("batch.timeout", VECTOR, "batch.delay_max"),
    is("buffer.max_size", VECTOR, "backlog.bytes_max"),
    note("buffer.max_events", VECTOR, "here the journal is the buffer, and its bound is in bytes: backlog.bytes_max"),
    note(
        "buffer.when_full",
        VECTOR,
        "here it is backlog.when_full = \"block\", \"drop_oldest\" or \"detach\": what is newest is never dropped",
    ),
    note("buffer", VECTOR, "here the journal is the only buffer; backlog.bytes_max bounds what a sink may hold of it"),
    note(
        "acknowledgements",
        VECTOR,
        "here clients are always acked when their data is on disk, and it stays there until the sink has it",
    ),
    note("compression", VECTOR, "here it is gzip = true, for http"),
    is("request.timeout_secs", VECTOR, "timeout (with a unit, such as \"30s\")"),
    is("request.retry_attempts", VECTOR, "retry.attempts_max"),
    is("request.concurrency", VECTOR, "in_flight_max"),
    is("request.in_flight_limit", VECTOR, "in_flight_max"),
    is("request.headers", VECTOR, "headers"),
    note("request", VECTOR, "here it is timeout, retry.attempts_max, and in_flight_max for http"),
    note(
        "healthcheck",
        VECTOR,
        "here a sink connects when it starts, never fails the start, and /readyz tells of one that is away",
    ),
    is("tls.crt_file", VECTOR, "tls.cert_file"),
    note("tls.key_pass", VECTOR, "here the key's file is readable for its owner alone, and not encrypted"),
    note("tls.verify_certificate", VECTOR, "here certificates are always verified; tls.ca_file names who signs them"),
    note("tls.verify_hostname", VECTOR, "here certificates are always verified; tls.ca_file names who signs them"),
    note("tls.enabled", VECTOR, "here the URL says it: https://, rediss://, mqtts://, tls://, or sslmode=require"),
    note("database", VECTOR, "here it is part of the URL: postgres://USER@HOST/DATABASE, redis://HOST/DB"),
    is("dead_letters_max", OTHERS, "dead_letters_max, outside of [[sink]]"),
    is("pool_size", VECTOR, "in_flight_max, which http alone has: one connection keeps the order"),
    is("connection_string", VECTOR, "url"),
    is("data_type", VECTOR, "payload (postgres)"),
    is("match", FLUENT_BIT, "channels"),
    note("host", FLUENT_BIT, "here it is part of url"),
    note("port", FLUENT_BIT, "here it is part of url"),
    is("http_user", FLUENT_BIT, "user"),
    is("http_passwd", FLUENT_BIT, "password"),
    is("passwd", FLUENT_BIT, "password"),
    is("header", FLUENT_BIT, "headers"),
    is("retry_limit", FLUENT_BIT, "retry.attempts_max"),
    is("storage.total_limit_size", FLUENT_BIT, "backlog.bytes_max"),
    note(
        "storage",
        FLUENT_BIT,
        "here the journal is the only buffer; backlog.bytes_max bounds what a sink may hold of it",
    ),
    is("tls.crt", FLUENT_BIT, "tls.cert_file"),
    is("tls.ca_path", FLUENT_BIT, "tls.ca_file"),
    note("tls.verify", FLUENT_BIT, "here certificates are always verified; tls.ca_file names who signs them"),
    note("compress", FLUENT_BIT, "here it is gzip = true, for http"),
    note("workers", FLUENT_BIT, "here each sink has one thread, which keeps the order; in_flight_max for http"),
    note(
        "format",
        FLUENT_BIT,
        "here a payload is written as it came; http has mode and content_type, postgres has payload",
    ),
    is("urls", TELEGRAF, "url"),
    is("servers", TELEGRAF, "url (several hosts are separated by commas)"),
    is("address", TELEGRAF, "url"),
    is("connection", TELEGRAF, "url"),
    is("username", TELEGRAF, "user"),
    is("tls_ca", TELEGRAF, "tls.ca_file"),
    is("tls_cert", TELEGRAF, "tls.cert_file"),
    is("tls_key", TELEGRAF, "tls.key_file"),
    note("insecure_skip_verify", TELEGRAF, "here certificates are always verified; tls.ca_file names who signs them"),
    note(
        "data_format",
        TELEGRAF,
        "here a payload is written as it came; http has mode and content_type, postgres has payload",
    ),
    is("metric_batch_size", TELEGRAF, "batch.records_max"),
    is("metric_buffer_limit", TELEGRAF, "backlog.bytes_max"),
    is("flush_interval", TELEGRAF, "batch.delay_max"),
    is("content_encoding", TELEGRAF, "gzip"),
    note("qos", TELEGRAF, "here it is always 1: what is not acknowledged is sent again"),
    is("files", TELEGRAF, "path"),
    is("dsn", OTHERS, "url"),
    is("server", OTHERS, "url"),
    is("brokers", OTHERS, "url"),
    is("filename", OTHERS, "path"),
    is("file", OTHERS, "path"),
    is("cmd", OTHERS, "command"),
    is("schema", OTHERS, "part of table: SCHEMA.TABLE"),
    is("queue", OTHERS, "stream (nats) or key (redis)"),
    is("clientid", OTHERS, "client_id"),
    is("maxlen", OTHERS, "entries_max"),
    is("id", OTHERS, "name"),
    is("delivery", OTHERS, "nothing that is chosen: `duragram check-config` says what each sink promises"),
];

/// What to say of a key that this program does not know, if another one does.
pub(super) fn told(name: &str) -> Option<String> {
    // Fluent Bit does not tell upper case from lower.
    let name = name.to_ascii_lowercase();
    let matches = |foreign: &&Foreign| {
        foreign.name == name || name.strip_prefix(foreign.name).is_some_and(|rest| rest.starts_with('.'))
    };
    let foreign = FOREIGN.iter().find(matches)?;
    Some(match foreign.here {
        Here::Key(here) => format!("unknown key; {} call{} it so, here it is {here}", foreign.whose, s(foreign.whose)),
        Here::Note(note) => format!("unknown key, known from {}; {note}", foreign.whose),
    })
}

fn s(whose: &str) -> &'static str {
    if whose == OTHERS { "" } else { "s" }
}

/// The type that another program's name for it means.
pub(super) fn kind(name: &str) -> Option<&'static str> {
    match name {
        "console" | "print" => Some("stdout"),
        "blackhole" | "discard" | "drop" => Some("null"),
        "postgresql" | "pg" | "pgsql" | "sql" | "timescaledb" => Some("postgres"),
        "https" | "webhook" | "http_client" => Some("http"),
        "jetstream" => Some("nats"),
        "valkey" | "redis_streams" => Some("redis"),
        "command" | "process" | "subprocess" => Some("exec"),
        "mosquitto" => Some("mqtt"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::known::SINK_KEYS;
    use super::*;

    #[test]
    fn what_is_said_of_a_foreign_key_names_one_that_is_there() {
        for foreign in FOREIGN {
            let Here::Key(here) = foreign.here else { continue };
            let named = here.split([' ', ',']).next().unwrap();
            let known = SINK_KEYS.iter().any(|key| key.name == named);
            assert!(known || ["part", "dead_letters_max", "nothing"].contains(&named), "{}: {here}", foreign.name);
        }
    }

    #[test]
    fn a_foreign_key_is_known_by_its_longest_name() {
        assert!(told("buffer.max_size").unwrap().contains("backlog.bytes_max"));
        assert!(told("buffer.type").unwrap().contains("the only buffer"));
        assert_eq!(told("bufferless"), None);
        for (n, foreign) in FOREIGN.iter().enumerate() {
            let hidden = FOREIGN[..n].iter().find(|earlier| foreign.name.starts_with(&format!("{}.", earlier.name)));
            assert!(
                hidden.is_none() && !FOREIGN[..n].iter().any(|earlier| earlier.name == foreign.name),
                "{}",
                foreign.name
            );
        }
    }
}
