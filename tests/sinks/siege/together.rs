//! Many sinks of one server, one of them dead and one slow: nobody waits for another.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use super::drive::{PLAN, config, drains, serve, view};
use super::judge::judge;
use super::target::{Kind, PASSWORD, write_secret};
use super::targets::appending::nobody;
use crate::common::server::Home;
use crate::common::wait_for;
use crate::faults::fast_dir;
use crate::faults::load::Crowd;

const PATIENCE: Duration = Duration::from_secs(60);

const KINDS: [Kind; 7] = [Kind::File, Kind::Exec, Kind::HttpBatch, Kind::Postgres, Kind::Nats, Kind::Redis, Kind::Mqtt];

/// Says of a record that it is done after a tenth of a second.
const SLOW: &str = "import json, sys, time\nfor line in sys.stdin:\n    record = json.loads(line)\n    time.sleep(0.1)\n    \
                    print(json.dumps({'offset': record['offset'], 'index': record['index'], 'done': True}), flush=True)\n";

#[test]
fn a_dead_sink_and_a_slow_one_hold_up_neither_seven_others_nor_the_acks() {
    let home = Home::below(&fast_dir(), "");
    let password = home.path().join("password");
    write_secret(&password, PASSWORD);
    let mut targets: Vec<_> = KINDS
        .into_iter()
        .enumerate()
        .map(|(n, kind)| {
            let directory = home.path().join(format!("target{n}"));
            fs::create_dir(&directory).unwrap();
            kind.start(&directory)
        })
        .collect();
    let names: Vec<String> = (0..KINDS.len()).map(|n| format!("sink{n}")).collect();
    let script = home.path().join("slow.py");
    fs::write(&script, SLOW).unwrap();
    let mut sinks: Vec<(&str, String)> =
        names.iter().zip(&targets).map(|(name, target)| (name.as_str(), target.sink(&password))).collect();
    sinks.insert(0, ("dead", format!("type = \"http\"\nurl = \"http://{}/\"\n", nobody())));
    sinks.push(("slow", format!("type = \"exec\"\ncommand = \"exec python3 {}\"\n", script.display())));
    home.configure(&config(&sinks));

    let mut server = serve(&home);
    let mut heard = vec![Default::default(); 3];
    for round in 1..=2 {
        let crowd = Crowd::go_on(server.udp, &heard, PLAN);
        assert!(crowd.wait_acked(2000, PATIENCE), "acks wait for a sink");
        crowd.stop();
        heard = crowd.finish(PATIENCE).unwrap();
        let acked: u64 = heard.iter().map(|heard| heard.acked()).sum();
        for ((kind, name), target) in KINDS.into_iter().zip(&names).zip(&mut targets) {
            drains(&server, name, PATIENCE).unwrap();
            let found = target.found(usize::try_from(acked).unwrap());
            let counts =
                judge(kind, &found, &heard, PLAN.bytes_max, 0).unwrap_or_else(|error| panic!("{kind}: {error}"));
            assert_eq!(counts.found, acked, "{kind}");
        }
        assert_eq!(view(&server, "dead")["lag"], acked, "the dead one has nothing, and loses nothing");
        assert!(view(&server, "slow")["lag"].as_u64().unwrap() > 0, "the slow one is slow");
        let told = wait_for("the dead one to be named", || {
            let ready = server.get("/readyz");
            ready.contains("sink dead: ").then_some(ready)
        });
        let others: HashSet<&String> = names.iter().filter(|name| told.contains(&format!("sink {name}: "))).collect();
        assert!(told.contains("\"ready\":true") && others.is_empty(), "{told}");
        if round == 1 {
            server.kill();
            server = serve(&home);
        }
    }
}
