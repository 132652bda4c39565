//! Servers, services and both killed at any moment while clients ask through them, on a bad network: whatever was acked is answered
//! once, and rightly, also to a client that sleeps or is restarted meanwhile.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use duragram::client::{Builder, Client, Status};
use duragram_proto::client::AskConfig;
use duragram_proto::{Epoch, Seq};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::{Long, PATIENCE, fast_dir};
use crate::common::lossy::{LossyPath, Weather};
use crate::common::server::{Home, Server};
use crate::common::wait_for;

const CLIENTS: u64 = 3;
/// Asks of a client that it leaves at the server for its next run: its last, since at most 64 lie above one that is not had.
const LEFT: usize = 8;
const CONFIG: &str = "checkpoint_bytes = 65536\ncheckpoint_interval = \"20ms\"\nretain_bytes = 0\n\
                      [retry]\nattempts_max = 65535\nfirst_delay = \"2ms\"\nlongest_delay = \"20ms\"\n";

/// Answers in capitals, and gives up what begins with `no`.
const CHILD: &str = r#"
import json, os, sys
with open("pid", "w") as file: file.write(str(os.getpid()))
for line in sys.stdin:
    record = json.loads(line)
    text = record["payload"]
    verdict = {"give_up": "why"} if text.startswith("no ") else {"done": True, "answer": text.upper()}
    print(json.dumps({"offset": record["offset"], "index": record["index"], **verdict}), flush=True)
"#;

/// This program answers the same over HTTP.
const SERVICE: &str = r#"
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        answer = text.upper().encode()
        self.send_response(422 if text.startswith("no ") else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
"#;

/// The answers come from one of these.
enum Service {
    /// A child of the server, which writes its process id into this file.
    Exec { command: String, pid: PathBuf },
    /// A process of its own.
    Http { program: PathBuf, port: u16, process: Option<Child> },
}

impl Service {
    fn exec(home: &Home) -> Self {
        let program = home.path().join("child.py");
        std::fs::write(&program, CHILD).unwrap();
        let command = format!("exec:cd '{}'; exec python3 child.py", home.path().display());
        Self::Exec { command, pid: home.path().join("pid") }
    }

    fn http(home: &Home) -> Self {
        let program = home.path().join("service.py");
        std::fs::write(&program, SERVICE).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut service = Self::Http { program, port, process: None };
        service.start();
        service
    }

    fn sink(&self) -> String {
        match self {
            Self::Exec { command, .. } => command.clone(),
            Self::Http { port, .. } => format!("http://127.0.0.1:{port}/"),
        }
    }

    /// SIGKILL. A child is started again by the server.
    fn kill(&mut self) {
        match self {
            Self::Exec { pid: file, .. } => {
                // None has been started yet, or it is just being replaced: then there is nobody to kill.
                let Ok(pid) = std::fs::read_to_string(&*file) else { return };
                // Its number may be another process's by now.
                let works_in = std::fs::read_link(format!("/proc/{pid}/cwd")).ok();
                if works_in.as_deref() == file.parent() {
                    drop(Command::new("kill").args(["-9", &pid]).stderr(Stdio::null()).status());
                }
            }
            Self::Http { process, .. } => {
                if let Some(mut process) = process.take() {
                    process.kill().unwrap();
                    process.wait().unwrap();
                }
            }
        }
    }

    fn start(&mut self) {
        if let Self::Http { program, port, process } = self {
            let started = Command::new("python3").arg(program).arg(port.to_string()).stderr(Stdio::null()).spawn();
            *process = Some(started.expect("python3"));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One client's asks, acked or not.
struct Member {
    id: u64,
    path: SocketAddr,
}

impl Member {
    fn builder(&self) -> Builder {
        // What a kill has lost is sent again soon.
        let asks = AskConfig { first_wait_ms: 200, wait_ms: 400, ..AskConfig::HELD };
        let builder = Client::builder(self.path.to_string()).client_id(self.id).asks(asks);
        builder.retry_interval_max(Duration::from_millis(200))
    }

    fn text(&self, n: usize) -> String {
        if n % 7 == 3 { format!("no order {n} of {}", self.id) } else { format!("order {n} of {}", self.id) }
    }

    /// Asks until it is told to stop, and hears every answer; then asks some more, sleeps, and takes their answers in its next run.
    /// Returns how many it has asked.
    async fn run(self, stop: Arc<AtomicBool>, answered: Arc<AtomicU64>) -> usize {
        let client = self.builder().connect().await.unwrap();
        let (mut answers, mut asked) = (JoinSet::new(), 0);
        while !stop.load(Ordering::Relaxed) {
            let text = self.text(asked);
            let one = client.ask(text.as_bytes()).await.unwrap();
            let answered = Arc::clone(&answered);
            answers.spawn(async move {
                let receipt = one.receipt.await.unwrap();
                let answer = one.answer.await.unwrap();
                assert_eq!((receipt.epoch, receipt.seq), (answer.epoch, answer.seq), "{text}");
                judge(&text, answer.status, &answer.body);
                answered.fetch_add(1, Ordering::Relaxed);
            });
            asked += 1;
        }
        let mut left = Vec::<(Epoch, Seq, usize)>::new();
        for n in asked..asked + LEFT {
            let one = client.ask(self.text(n).as_bytes()).await.unwrap();
            let receipt = one.receipt.await.unwrap();
            one.answer.leave();
            left.push((receipt.epoch, receipt.seq, n));
        }
        while let Some(told) = answers.join_next().await {
            told.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
        client.close(None).await.unwrap();
        // It wakes up, and takes what it has left.
        let client = self.builder().connect().await.unwrap();
        let taking: Vec<_> =
            left.into_iter().map(|(epoch, seq, n)| (client.take(epoch, seq).unwrap(), self.text(n))).collect();
        for (answering, text) in taking {
            let answer = answering.await.unwrap();
            judge(&text, answer.status, &answer.body);
        }
        client.close(Some(PATIENCE)).await.unwrap();
        asked + LEFT
    }
}

fn judge(text: &str, status: Status, body: &[u8]) {
    let said = (status, String::from_utf8_lossy(body).into_owned());
    let expected =
        if text.starts_with("no ") { (Status::Failed, String::new()) } else { (Status::Done, text.to_uppercase()) };
    assert_eq!(said, expected, "{text}");
}

/// Kills at random until so many rounds are over, then lets all be answered. Returns how many asks that were.
fn siege(make: fn(&Home) -> Service, seed: u64, rounds: u32) -> usize {
    let mut random = SmallRng::seed_from_u64(seed);
    let home = Home::below(&fast_dir(), CONFIG);
    let mut service = make(&home);
    let mut server = home.serve_sinks(&[&service.sink()]);
    let path = LossyPath::open((Ipv4Addr::LOCALHOST, 0).into(), server.udp, Weather::FOUL, seed, None).unwrap();
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let members: Vec<_> = (1..=CLIENTS)
        .map(|id| Member { id, path: path.addr() })
        .map(|member| runtime.spawn(member.run(Arc::clone(&stop), Arc::clone(&answered))))
        .collect();
    let start = |service: &Service| -> Server {
        let server = home.serve_sinks(&[&service.sink()]);
        path.set_server(server.udp);
        server
    };
    for round in 0..rounds {
        // So that there is something to lose, and then at any moment.
        let before = answered.load(Ordering::Relaxed);
        wait_for(&format!("answers in round {round}, seed {seed}"), || {
            (answered.load(Ordering::Relaxed) > before || members.iter().any(|member| member.is_finished()))
                .then_some(())
        });
        std::thread::sleep(Duration::from_micros(random.random_range(0..20_000)));
        assert!(server.is_running(), "it ended by itself, seed {seed}");
        match random.random_range(0..4) {
            0 => {
                service.kill();
                service.start();
            }
            1 => {
                server.kill();
                server = start(&service);
            }
            2 => {
                server.kill();
                service.kill();
                server = start(&service);
                service.start();
            }
            _ => {
                assert!(server.terminate().success());
                server = start(&service);
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    path.set_weather(Weather::CLEAR);
    let asked = runtime.block_on(async {
        let mut asked = 0;
        for member in members {
            let done = tokio::time::timeout(2 * PATIENCE, member).await;
            let done = done.unwrap_or_else(|_| panic!("asks without an answer, seed {seed}"));
            asked += done.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        asked
    });
    let open = server.metric("duragram_asks_open", "");
    assert!(open == 0.0, "{open} asks are open though all are answered, seed {seed}");
    asked
}

#[test]
fn every_ask_through_a_child_is_answered_once_whatever_is_killed() {
    assert!(siege(Service::exec, 21, 10) > 100);
}

#[test]
fn every_ask_over_http_is_answered_once_whatever_is_killed() {
    assert!(siege(Service::http, 22, 10) > 100);
}

/// `scripts/soak asks`
#[test]
#[ignore = "long: scripts/soak asks"]
fn asks_for_long() {
    let mut long = Long::start("asks", 60);
    let mut asked = 0;
    while long.goes_on() {
        let make = if long.random.random() { Service::exec } else { Service::http };
        asked += siege(make, long.random.random(), 20);
        long.round();
    }
    long.tell(&format!("{asked} asks, each answered once and rightly"));
}
