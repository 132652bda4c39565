use super::*;

fn read(text: &str) -> SinkConfig {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> String {
    text.parse::<SinkConfig>().expect_err(text).to_string()
}

#[test]
fn a_short_form_is_its_own_name_and_says_all_of_the_sink() {
    for (text, kind) in [
        ("null", "null"),
        ("stdout", "stdout"),
        ("file:/var/log/x.ndjson", "file"),
        ("file:a:b", "file"),
        ("exec:python3 handler.py --x", "exec"),
        ("http://127.0.0.1:8080/in?x=1", "http"),
        ("https://example.com", "http"),
        ("postgres://ingest@db:5432/app?table=records", "postgres"),
        ("postgresql://ingest@db/app?table=s.records", "postgres"),
        ("nats://h1,h2:4223/RECORDS?subject=a.b", "nats"),
        ("redis://h:6379/2?key=k", "redis"),
        ("rediss://h?key=k", "redis"),
        ("mqtt://h/duragram/{channel}", "mqtt"),
        ("mqtts://h:8883/t", "mqtt"),
    ] {
        let sink = read(text);
        assert_eq!((sink.name.as_str(), sink.target.kind()), (text, kind));
        assert!(sink.is_short(), "{text}");
    }
    assert_eq!(read("file:a:b").target, SinkTarget::File("a:b".into()));
}

#[test]
fn a_sink_that_differs_from_its_short_form_is_not_short() {
    let mut sink = read("stdout");
    sink.batch.records_max = 1;
    assert!(!sink.is_short());
    assert!(!SinkConfig::new("stdout", SinkTarget::Null).is_short());
}

#[test]
fn a_url_for_postgres_gives_user_table_password_and_encryption() {
    let text = "postgres://u@h1:1,h2/db?table=t&payload=jsonb&sslmode=verify-full&sslrootcert=%2Fca.pem\
                &password_env=PGPASS&options=-c%20a%3Db";
    let SinkTarget::Postgres(target) = read(text).target else { panic!("it is postgres") };
    assert_eq!(target.url, "postgres://u@h1:1,h2/db?options=-c%20a=b");
    assert_eq!((target.table.as_str(), target.payload), ("t", PostgresPayload::Jsonb));
    assert_eq!(target.password, Some(Secret::Env("PGPASS".into())));
    assert_eq!(target.tls.unwrap().ca_file, Some("/ca.pem".into()));
    let SinkTarget::Postgres(plain) = read("postgres://u@h/db?table=t&sslmode=disable").target else { panic!() };
    assert_eq!((plain.tls, plain.password), (None, None));
}

#[test]
fn urls_for_brokers_give_what_their_tables_give() {
    let SinkTarget::Nats(nats) = read("nats://u@h:4222/S?subject=a.b&password_file=/p&exclusive=true").target else {
        panic!("it is nats")
    };
    assert_eq!((nats.url.as_str(), nats.stream.as_str(), nats.subject.as_str()), ("nats://h:4222", "S", "a.b"));
    assert_eq!(nats.auth, Some(NatsAuth::User { user: "u".into(), password: Secret::File("/p".into()) }));
    assert!(nats.exclusive);
    let SinkTarget::Redis(redis) = read("redis://u@h:6379/2?key=k&password_credential=c&entries_max=9").target else {
        panic!("it is redis")
    };
    assert_eq!((redis.url.as_str(), redis.user.as_deref()), ("redis://h:6379/2", Some("u")));
    assert_eq!((redis.password, redis.entries_max), (Some(Secret::Credential("c".into())), Some(9)));
    let SinkTarget::Mqtt(mqtt) = read("mqtts://u@h/a/{client}/b?password_env=P&client_id=me").target else {
        panic!("it is mqtt")
    };
    assert_eq!((mqtt.url.as_str(), mqtt.topic.as_str()), ("mqtts://h", "a/{client}/b"));
    assert_eq!((mqtt.user.as_deref(), mqtt.client_id.as_deref()), (Some("u"), Some("me")));
}

#[test]
fn what_is_no_short_form_is_refused_with_what_there_is() {
    for (text, told) in [
        ("", "unknown sink \"\": there are stdout, file:PATH, null, http://HOST/PATH"),
        ("nul", "unknown sink \"nul\""),
        ("Stdout", "unknown sink \"Stdout\""),
        ("/var/log/x", "unknown sink \"/var/log/x\""),
        ("kafka://h/t", "unknown sink \"kafka://…\""),
        ("file:", "sink \"file:\" lacks its path: write file:PATH, such as file:/var/log/duragram.ndjson"),
        ("exec: ", "sink \"exec:\" lacks its command"),
        ("http://", "sink http://… is no URL with a host: write http://HOST:PORT/PATH"),
        ("postgres://u@h/db", "sink postgres://… lacks its table: write postgres://USER@HOST:PORT/DATABASE?table=NAME"),
        ("nats://h?subject=a", "sink nats://… lacks its stream"),
        ("nats://h/S", "sink nats://… lacks its subject"),
        ("redis://h", "sink redis://… lacks its key"),
        ("mqtt://h", "sink mqtt://… lacks its topic"),
        ("redis://h?key=k&kye=k", "sink redis://…: kye: is no parameter of this sink"),
        ("redis://h?key=k&key=l", "sink redis://…: key: is given twice"),
        ("redis://h?key=", "sink redis://…: key: says nothing"),
        ("redis://h?key=k&entries_max=x", "entries_max: is no whole number"),
        ("nats://h/S?subject=a&exclusive=yes", "exclusive: is either true or false"),
        ("nats://u@h/S?subject=a", "a server knows us by"),
        ("postgres://u@h/d?table=t&sslmode=prefer", "sslmode: write require"),
        ("postgres://u@h/d?table=t&payload=json", "payload: is either bytea or jsonb"),
        ("postgres://u@h/d?table=t&password_env=A&password_file=B", "password: take one of"),
    ] {
        let error = refused(text);
        assert!(error.contains(told), "{text}: expected {told:?} in {error:?}");
    }
}

#[test]
fn a_password_in_a_url_is_refused_and_never_repeated() {
    for text in [
        "postgres://u:hunter2@h/db?table=t",
        "postgres://u@h/db?table=t&password=hunter2",
        "nats://u:hunter2@h/S?subject=a",
        "redis://:hunter2@h?key=k",
        "mqtt://u:hunter2@h/t",
        "https://u:hunter2@h/x",
        "https://h/x?token=hunter2",
        "https://h/x?a=1&X-Amz-Signature=hunter2",
        "http://h/?api%5Fkey=hunter2",
        "postgress://u:hunter2@h/db",
        "redis://u:hunter2@@h:x",
        "u:hunter2@h",
    ] {
        let error = text.parse::<SinkConfig>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    assert!(refused("postgres://u:p@h/db?table=t").contains("password_env=NAME, password_file=PATH"));
    assert!(refused("http://u:p@h/").contains("[[sink]]"));
    assert!(refused("https://h/x?sig=a").contains("sig: looks like a secret"));
    assert!(refused("https://h/x?sig=a").contains("[[sink]]"));
}

#[test]
fn batches_are_put_together_where_a_call_costs_a_round_trip() {
    let delay = |text: &str| read(text).batch.delay_max;
    for text in ["postgres://u@h/d?table=t", "nats://h/S?subject=a", "redis://h?key=k"] {
        assert_eq!(delay(text), Duration::from_millis(20), "{text}");
    }
    for text in ["stdout", "file:x", "null", "exec:x", "http://h", "mqtt://h/t"] {
        assert_eq!(delay(text), Duration::ZERO, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_is_too_strange_to_be_read_or_refused(
        form in "(|file:|exec:|https?://|postgres://|nats://|redis://|mqtt://)",
        rest in "[a-z0-9:/@?&=%,\\[\\]{}é \\n]{0,60}",
    ) {
        let text = form + &rest;
        match text.parse::<SinkConfig>() {
            Ok(sink) => proptest::prop_assert!(sink.is_short()),
            Err(error) => proptest::prop_assert!(!error.to_string().is_empty()),
        }
    }
}
