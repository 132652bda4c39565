//! Where sinks write to, against what the other end takes. No error repeats a URL: there may be a password in it.

use crate::limits;
use crate::model::{
    HttpAuth, HttpTarget, MqttTarget, NatsAuth, NatsTarget, POSTGRES_PARAMETERS, PostgresTarget, RedisTarget,
    SinkTarget, SinkUrl, TlsConfig,
};

/// Adds a problem: the key below the sink, and the message.
type Add<'a> = dyn FnMut(&str, String) + 'a;

/// Checks what is particular to the type.
pub(super) fn check(target: &SinkTarget, add: &mut Add<'_>) {
    match target {
        SinkTarget::Null | SinkTarget::Stdout => {}
        SinkTarget::File(path) => {
            if path.as_os_str().is_empty() {
                add("path", "must name a file".into());
            }
        }
        SinkTarget::Exec(exec) => {
            if exec.command.trim().is_empty() || exec.command.contains('\0') {
                add("command", "must be a command for `sh -c`".into());
            }
        }
        SinkTarget::Http(http) => check_http(http, add),
        SinkTarget::Postgres(postgres) => check_postgres(postgres, add),
        SinkTarget::Nats(nats) => check_nats(nats, add),
        SinkTarget::Redis(redis) => check_redis(redis, add),
        SinkTarget::Mqtt(mqtt) => check_mqtt(mqtt, add),
    }
}

/// The key by which two sinks would write to the same place, if what each has written tells it how far it has come.
pub(super) fn shared(one: &SinkTarget, other: &SinkTarget) -> Option<&'static str> {
    match (one, other) {
        (SinkTarget::Stdout, SinkTarget::Stdout) => Some("type"),
        (SinkTarget::File(one), SinkTarget::File(other)) if one == other => Some("path"),
        (SinkTarget::Redis(one), SinkTarget::Redis(other))
            if one.key == other.key && database(&one.url) == database(&other.url) && meet(&one.url, &other.url) =>
        {
            Some("key")
        }
        (SinkTarget::Nats(one), SinkTarget::Nats(other))
            if (one.exclusive || other.exclusive) && one.stream == other.stream && meet(&one.url, &other.url) =>
        {
            Some("stream")
        }
        (SinkTarget::Mqtt(one), SinkTarget::Mqtt(other))
            if one.client_id.is_some() && one.client_id == other.client_id && meet(&one.url, &other.url) =>
        {
            Some("client_id")
        }
        _ => None,
    }
}

/// Whether two URLs name a server in common, by the same host and port.
fn meet(one: &str, other: &str) -> bool {
    let other = servers(other);
    servers(one).iter().any(|server| other.contains(server))
}

/// Each server that a URL names, in lower case and with its port, also where that is the default one.
fn servers(url: &str) -> Vec<String> {
    let mut port = "";
    let server = |part: &str| {
        // People write the scheme before each host, or once.
        let rest = match part.trim().split_once("://") {
            Some((before, rest)) => {
                port = match before {
                    "nats" | "tls" => ":4222",
                    "redis" | "rediss" => ":6379",
                    "mqtt" => ":1883",
                    "mqtts" => ":8883",
                    _ => "",
                };
                rest
            }
            None => part.trim(),
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        if has_port { host } else { host + port }
    };
    url.split(',').map(server).collect()
}

/// The number of the database that a URL of Redis names; without one it is 0.
fn database(url: &str) -> u32 {
    SinkUrl::parse(url).and_then(|url| url.path.parse().ok()).unwrap_or(0)
}

/// What `sslmode` in a URL says, and the URL without it.
pub(super) fn ssl_mode(url: &str) -> Result<Option<(bool, String)>, String> {
    let Some((base, query)) = url.split_once('?') else { return Ok(None) };
    let (modes, rest): (Vec<&str>, Vec<&str>) = query.split('&').partition(|part| part.starts_with("sslmode="));
    let encrypted = match modes.as_slice() {
        [] => return Ok(None),
        ["sslmode=disable"] => false,
        ["sslmode=require" | "sslmode=verify-ca" | "sslmode=verify-full"] => true,
        _ => {
            return Err("sslmode is require (encrypted, and the server's certificate is verified) or disable: nothing here falls \
                        back to plain text by itself"
                .into());
        }
    };
    Ok(Some((encrypted, if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) })))
}

/// The rules of a kind of URL.
struct Rules {
    /// The plain scheme stands first, and then the encrypted one.
    schemes: &'static [&'static str],
    such: &'static str,
    several: bool,
    user: bool,
    /// What stands behind a `?`.
    parameters: bool,
}

/// A URL that follows the rules, or what is wrong with it.
fn url<'a>(text: &'a str, rules: &Rules, add: &mut Add<'_>) -> Option<SinkUrl<'a>> {
    let such = rules.such;
    let Some(url) = SinkUrl::parse(text) else {
        add("url", format!("is no URL with a host: write one such as {such}"));
        return None;
    };
    if url.has_password {
        add(
            "url",
            "a password must not stand in a URL, which is shown: take it out, and write password = { file = \
             \"/etc/duragram/password\" }, { env = \"NAME\" } or { credential = \"NAME\" }"
                .into(),
        );
        return None;
    }
    if url.user.is_some() && !rules.user {
        add("url", "a user does not stand in this URL: take it out, and write user = \"NAME\"".into());
    }
    if !rules.schemes.contains(&url.scheme) {
        add("url", format!("begins with {}://: write one such as {such}", rules.schemes.join(":// or ")));
    }
    if text.contains(['?', '#']) && !rules.parameters {
        add(
            "url",
            format!("has parameters, which stand in the short form alone: each is a key of its own, beside {such}"),
        );
    }
    if url.hosts.contains(',') && !rules.several {
        add("url", format!("has several hosts: write one such as {such}"));
    }
    Some(url)
}

fn check_tls(tls: &TlsConfig, encrypted: bool, scheme: &str, add: &mut Add<'_>) {
    if tls.cert_file.is_some() && tls.key_file.is_none() {
        add("tls.cert_file", "needs tls.key_file, the key of that certificate".into());
    }
    if tls.key_file.is_some() && tls.cert_file.is_none() {
        add("tls.key_file", "needs tls.cert_file, the certificate of that key".into());
    }
    let files = [("tls.ca_file", &tls.ca_file), ("tls.cert_file", &tls.cert_file), ("tls.key_file", &tls.key_file)];
    for (key, file) in files {
        match file {
            Some(path) if path.as_os_str().is_empty() => add(key, "must name a file".into()),
            Some(_) if !encrypted => add(key, format!("is for an encrypted connection: write {scheme}:// in url")),
            _ => {}
        }
    }
}

fn check_http(http: &HttpTarget, add: &mut Add<'_>) {
    let rules = Rules {
        schemes: &["http", "https"],
        such: "https://example.com/records",
        several: false,
        user: false,
        parameters: true,
    };
    let url = url(&http.url, &rules, add);
    check_tls(&http.tls, url.is_none_or(|url| url.scheme == "https"), "https", add);
    if http.content_type.is_empty() || !is_header_value(&http.content_type) {
        add("content_type", "must be a media type, such as application/json".into());
    }
    for (name, value) in &http.headers {
        let key = format!("headers.{name}");
        let lower = name.to_ascii_lowercase();
        if !is_header_name(name) {
            add("headers", format!("{name:?} is no name of a header"));
        } else if lower == "authorization" {
            add(&key, format!("a secret must not stand in the configuration, which is shown: {}", BEARER));
        } else if is_secret_header(&lower) {
            add(&key, format!("is the name of a secret, and headers are shown: {}", BEARER));
        } else if is_ours(&lower) {
            add(&key, "is set by the sink itself (content_type sets Content-Type, gzip Content-Encoding)".into());
        } else if !is_header_value(value) {
            add(&key, "holds what no header may hold: it is text in one line".into());
        }
    }
    let user = matches!(&http.auth, Some(HttpAuth::Basic { user, .. }) if user.is_empty() || user.contains(':'));
    if user {
        add("user", "must be a name without a colon".into());
    }
}

const BEARER: &str = "write bearer = { file = \"/etc/duragram/token\" }, { env = \"NAME\" } or { credential = \"NAME\" }, or user \
                      and password; what another header needs, a proxy beside the server can add";

fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn is_header_value(value: &str) -> bool {
    value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

/// Whether a header of this name, in lower case, is there to carry a secret.
fn is_secret_header(name: &str) -> bool {
    ["token", "secret", "password", "api-key", "apikey", "api_key"].iter().any(|word| name.contains(word))
        || ["cookie", "proxy-authorization"].contains(&name)
}

fn is_ours(name: &str) -> bool {
    let ours = [
        "content-type",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "host",
        "connection",
        "expect",
        "idempotency-key",
    ];
    ours.contains(&name) || name.starts_with("duragram-")
}

fn check_postgres(postgres: &PostgresTarget, add: &mut Add<'_>) {
    let such = "postgres://ingest@127.0.0.1:5432/app";
    let rules = Rules { schemes: &["postgres", "postgresql"], such, several: true, user: true, parameters: true };
    if let Some(url) = url(&postgres.url, &rules, add) {
        if url.user.is_none() {
            add("url", format!("lacks its user: write one such as {such}"));
        }
        if url.path.contains('/') {
            add("url", format!("has more than one database: write one such as {such}"));
        }
        for (name, _) in url.parameters() {
            match name.as_str() {
                "table" | "payload" => {
                    add("url", format!("{name} is a key of its own here, and a parameter in the short form alone"))
                }
                "sslrootcert" => add("url", "sslrootcert is tls.ca_file here".into()),
                name if !POSTGRES_PARAMETERS.contains(&name) => {
                    add(
                        "url",
                        format!(
                            "has a parameter that is not known, {name:?}: there are sslmode, {}",
                            POSTGRES_PARAMETERS.join(", ")
                        ),
                    );
                }
                _ => {}
            }
        }
    }
    if let Some(tls) = &postgres.tls {
        check_tls(tls, true, "", add);
    }
    let part = |part: &str| {
        (1..=limits::SINK_TABLE_BYTES).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$'))
            && !part.starts_with(|first: char| first.is_ascii_digit() || first == '$')
    };
    if postgres.table.split('.').count() > 2 || !postgres.table.split('.').all(part) {
        add(
            "table",
            format!("{:?} is no table: write TABLE or SCHEMA.TABLE, of letters, digits and _", postgres.table),
        );
    }
}

fn check_nats(nats: &NatsTarget, add: &mut Add<'_>) {
    let rules = Rules {
        schemes: &["nats", "tls"],
        such: "nats://127.0.0.1:4222",
        several: true,
        user: false,
        parameters: false,
    };
    // People write the scheme before each host, or once. Whether plain or not, the server may ask for TLS.
    let schemes = rules.schemes.iter().find(|scheme| nats.url.starts_with(**scheme));
    let written_once = schemes.map(|scheme| nats.url.replace(&format!(",{scheme}://"), ","));
    url(written_once.as_deref().unwrap_or(&nats.url), &rules, add);
    check_tls(&nats.tls, true, "tls", add);
    let subject = &nats.subject;
    let tokens = subject.split('.').all(|token| !token.is_empty() && !token.contains(['*', '>']));
    if !tokens || !is_word(subject, limits::SINK_SUBJECT_BYTES) || subject.starts_with('$') {
        add("subject", format!("{subject:?} is no subject to write to: words with dots between them, without * and >"));
    }
    if !is_word(&nats.stream, limits::SINK_STREAM_BYTES) || nats.stream.contains(['.', '*', '>', '/', '\\']) {
        add("stream", format!("{:?} is no name of a stream: it has no blanks, dots, slashes, * and >", nats.stream));
    }
    if matches!(&nats.auth, Some(NatsAuth::User { user, .. }) if user.is_empty()) {
        add("user", "must be a name".into());
    }
}

fn check_redis(redis: &RedisTarget, add: &mut Add<'_>) {
    let rules = Rules {
        schemes: &["redis", "rediss"],
        such: "redis://127.0.0.1:6379/0",
        several: false,
        user: false,
        parameters: false,
    };
    let url = url(&redis.url, &rules, add);
    if url.is_some_and(|url| !url.path.is_empty() && url.path.parse::<u32>().is_err()) {
        add("url", "ends with the number of a database, or with none: redis://HOST:PORT/0".into());
    }
    check_tls(&redis.tls, url.is_none_or(|url| url.scheme == "rediss"), "rediss", add);
    if redis.user.is_some() && redis.password.is_none() {
        add("user", "needs its password".into());
    }
    if !(1..=limits::SINK_KEY_BYTES).contains(&redis.key.len()) {
        add("key", format!("must be 1 to {} bytes long", limits::SINK_KEY_BYTES));
    }
}

fn check_mqtt(mqtt: &MqttTarget, add: &mut Add<'_>) {
    let rules = Rules {
        schemes: &["mqtt", "mqtts"],
        such: "mqtt://127.0.0.1:1883",
        several: false,
        user: false,
        parameters: false,
    };
    let url = url(&mqtt.url, &rules, add);
    if url.is_some_and(|url| !url.path.is_empty()) {
        add("url", "ends with its port: the topic is a key of its own".into());
    }
    check_tls(&mqtt.tls, url.is_none_or(|url| url.scheme == "mqtts"), "mqtts", add);
    if mqtt.password.is_some() && mqtt.user.is_none() {
        add("password", "needs its user".into());
    }
    if let Some(problem) = problem_of_topic(&mqtt.topic) {
        add("topic", problem);
    }
    if mqtt.client_id.as_ref().is_some_and(|id| !is_word(id, limits::SINK_CLIENT_ID_BYTES)) {
        add("client_id", format!("must be 1 to {} bytes without blanks", limits::SINK_CLIENT_ID_BYTES));
    }
}

/// What stands for a record's own in a topic.
const PLACES: &[&str] = &["client", "epoch", "channel", "journal", "offset", "index", "seq"];

fn problem_of_topic(topic: &str) -> Option<String> {
    if !(1..=limits::SINK_TOPIC_BYTES).contains(&topic.len())
        || topic.contains(['+', '#'])
        || topic.contains(char::is_control)
        || topic.starts_with('$')
    {
        return Some(format!(
            "must be 1 to {} bytes long, without + and #, which are for who reads, and without control characters",
            limits::SINK_TOPIC_BYTES
        ));
    }
    let mut rest = topic;
    while let Some(at) = rest.find(['{', '}']) {
        let Some(after) = rest[at..].strip_prefix('{') else {
            return Some("holds a } without its {".to_owned());
        };
        let Some((name, after)) = after.split_once('}') else {
            return Some("holds a { without its }".to_owned());
        };
        if !PLACES.contains(&name) {
            return Some(format!("{{{name}}} stands for nothing: there are {{{}}}", PLACES.join("}, {")));
        }
        rest = after;
    }
    None
}

fn is_word(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}
