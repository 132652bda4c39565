//! Drives all clients of a load over a few sockets, in one thread: receive what waits, send what may be sent, sleep.
//!
//! No pass sends more than a bounded number of datagrams before answers are looked at again, so that what an answer
//! waits here is not taken for the server's latency.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use duragram_proto::codec::{Ack, Answer, Data, Datagram, OPTION_ASK, Ping, Reject, RejectCode, Take};
use duragram_proto::seal::FleetKey;
use duragram_proto::{ClientId, Epoch, Seq};

use super::bulk::{BulkSocket, Burst, Inbox, Poller};
use super::flow::{Asks, Flow, Outgoing, Refused, Taking};
use super::pace::Pace;
use super::payloads::Payloads;
use super::tally::Tally;
use super::wire::{Reply, Wire};

const MS: u64 = 1_000_000;
/// A pass sends no more messages or datagrams than about these.
const PASS_MESSAGES: usize = 64;
const PASS_DATAGRAMS: usize = 1_024;
/// Timeouts are looked for this often, in nanoseconds, among so many flows at once, or a tenth of all.
const SWEEP_NS: u64 = 10 * MS;
const SWEEP_FLOWS: usize = 4_096;
/// With nothing to do it sleeps at least so long, in nanoseconds: an open loop that woke for each datagram would take from
/// the server the processor that they share. Latencies grow by half of it on average.
const WAIT_NS_MIN: u64 = 50_000;
/// Between two looks at the progress, in nanoseconds.
const GLANCE_NS: u64 = 100 * MS;
/// A server that has answered nothing for so long after the start is not there, in nanoseconds.
const FIRST_ANSWER_NS: u64 = 5_000 * MS;

/// What is to be done.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) server: SocketAddr,
    /// Clients have the ids from here on.
    pub(super) first_client: ClientId,
    pub(super) clients: u32,
    pub(super) epoch: Epoch,
    pub(super) window: u16,
    pub(super) sockets: usize,
    pub(super) payloads: Payloads,
    /// The key from which each client's key is derived; `None`: plain.
    pub(super) fleet: Option<FleetKey>,
    /// Bytes of each DATA datagram.
    pub(super) datagram_len: usize,
    /// Datagrams of one client that one system call sends.
    pub(super) gso: usize,
    /// Datagrams a second over all clients; `None`: as fast as acks come.
    pub(super) rate: Option<f64>,
    /// How long new datagrams are sent,
    pub(super) sending: Duration,
    /// and how long their acks may take after that.
    pub(super) draining: Duration,
    /// Each message asks, and an answer has room for so many bytes at first, and at most.
    pub(super) asking: Option<(usize, usize)>,
    /// The share of datagrams, both ways, that is dropped on purpose.
    pub(super) loss: f64,
    pub(super) seed: u64,
}

/// A load returns this when it has ended.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) tally: Tally,
    /// Acked while new ones were sent, and how long that was.
    pub(super) acked_in_time: u64,
    pub(super) seconds: f64,
    /// Not acked in the end; those of an open loop that were not even sent are among them.
    pub(super) unacked: u64,
    /// Answered while new ones were sent.
    pub(super) answered_in_time: u64,
    /// Asked, and not answered in the end.
    pub(super) unanswered: u64,
    /// The server refuses this load for good.
    pub(super) refused: Option<RejectCode>,
    /// Nothing came back at all.
    pub(super) silence: bool,
}

/// The state of a run, for whoever watches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Glance {
    pub(super) elapsed: Duration,
    pub(super) acked: u64,
    pub(super) under_way: u64,
    pub(super) resent: u64,
    pub(super) rejected: u64,
}

/// Runs the plan to its end.
///
/// # Errors
/// A socket failed for good.
pub(super) fn run(plan: &Plan, mut watch: impl FnMut(Glance)) -> io::Result<Done> {
    let socket = |_| BulkSocket::connect(plan.server, plan.datagram_len, plan.gso > 1);
    let sockets: Vec<BulkSocket> = (0..plan.sockets).map(socket).collect::<io::Result<_>>()?;
    let mut poller = Poller::new(&sockets)?;
    let mut inbox = Inbox::new(plan.asking.map_or(0, |(_, room)| room));
    let mut engine = Engine::new(plan, &sockets);
    let end_ns = nanos(plan.sending);
    let deadline_ns = end_ns.saturating_add(nanos(plan.draining));
    let mut next_glance_ns = GLANCE_NS;
    let mut ended: Option<(u64, u64, u64)> = None;
    loop {
        let now_ns = engine.now_ns();
        engine.release(now_ns.min(end_ns));
        if now_ns >= end_ns && ended.is_none() {
            ended = Some((now_ns, engine.tally.acked, engine.tally.answered));
            engine.release_no_more();
        }
        engine.sweep(now_ns);
        engine.send()?;
        let silence = !engine.heard && now_ns >= FIRST_ANSWER_NS;
        let drained = ended.is_some() && (engine.under_way() == 0 || now_ns >= deadline_ns);
        if drained || silence || engine.refused.is_some() {
            engine.tell_had()?;
            let (ended_ns, acked_in_time, answered_in_time) =
                ended.unwrap_or((now_ns, engine.tally.acked, engine.tally.answered));
            return Ok(Done {
                acked_in_time,
                answered_in_time,
                seconds: ended_ns as f64 / 1e9,
                unacked: engine.unacked(),
                unanswered: engine.unanswered(),
                refused: engine.refused,
                silence: !engine.heard,
                tally: engine.tally,
            });
        }
        if now_ns >= next_glance_ns {
            next_glance_ns = now_ns + GLANCE_NS;
            watch(engine.glance(now_ns));
        }
        let mut until_ns = next_glance_ns.min(engine.next_sweep_ns);
        if ended.is_none() {
            until_ns = until_ns.min(end_ns).min(engine.next_due_ns());
        }
        let wait_ns =
            if engine.ready.is_empty() { until_ns.saturating_sub(engine.now_ns()).max(WAIT_NS_MIN) } else { 0 };
        poller.wait(Duration::from_nanos(wait_ns))?;
        for socket in poller.readable() {
            engine.receive(&sockets[socket], &mut inbox)?;
        }
    }
}

struct Engine<'a> {
    plan: &'a Plan,
    sockets: &'a [BulkSocket],
    start: Instant,
    flows: Vec<Flow>,
    wire: Wire,
    ready: Ready,
    pace: Option<Pace>,
    /// Datagrams that the pace has released.
    released: u64,
    burst: Burst,
    tally: Tally,
    dice: Dice,
    next_sweep_ns: u64,
    sweep_at: usize,
    heard: bool,
    refused: Option<RejectCode>,
}

impl<'a> Engine<'a> {
    fn new(plan: &'a Plan, sockets: &'a [BulkSocket]) -> Self {
        let mut dice = Dice::new(plan.seed, plan.loss);
        let mut flow = |n| {
            let client = ClientId(plan.first_client.0.wrapping_add(u64::from(n)));
            let mut flow = Flow::new(client, plan.epoch, plan.window, dice.throw());
            flow.released = if plan.rate.is_some() { 0 } else { u64::MAX };
            if let Some((room, room_max)) = plan.asking {
                flow.ask(Asks::new(room, room_max));
            }
            flow
        };
        let flows: Vec<Flow> = (0..plan.clients).map(&mut flow).collect();
        let mut ready = Ready { queue: VecDeque::new(), queued: vec![false; flows.len()] };
        if plan.rate.is_none() {
            (0..flows.len()).for_each(|flow| ready.push(flow));
        }
        Self {
            plan,
            sockets,
            wire: Wire::new(plan.fleet.as_ref(), &flows, rand::random),
            flows,
            ready,
            pace: plan.rate.map(|rate| Pace::new(rate, u64::from(plan.clients), plan.gso as u64)),
            released: 0,
            burst: Burst::default(),
            tally: Tally::new(),
            dice,
            next_sweep_ns: SWEEP_NS,
            sweep_at: 0,
            heard: false,
            refused: None,
            start: Instant::now(),
        }
    }

    fn now_ns(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// Datagrams meant to be sent by now.
    fn meant(&self) -> u64 {
        if self.pace.is_some() { self.released } else { self.tally.started }
    }

    /// Datagrams meant to be sent by now and not acked.
    fn unacked(&self) -> u64 {
        self.meant() - self.tally.acked
    }

    /// Messages meant to be sent by now of which more is to be heard than an ack.
    fn unanswered(&self) -> u64 {
        if self.plan.asking.is_some() { self.meant() - self.tally.finished() } else { 0 }
    }

    fn under_way(&self) -> u64 {
        self.unacked().max(self.unanswered())
    }

    fn glance(&self, now_ns: u64) -> Glance {
        Glance {
            elapsed: Duration::from_nanos(now_ns),
            acked: self.tally.acked,
            under_way: self.under_way(),
            resent: self.tally.resent,
            rejected: self.tally.rejected,
        }
    }

    /// Lets the clients send what is due, in an open loop.
    fn release(&mut self, now_ns: u64) {
        let Some(pace) = &mut self.pace else { return };
        while let Some(flow) = pace.take_due(now_ns) {
            self.flows[flow].released += self.plan.gso as u64;
            self.released += self.plan.gso as u64;
            self.ready.push(flow);
        }
    }

    /// When something is due next that can be sent then, as far as is known.
    fn next_due_ns(&self) -> u64 {
        self.pace.as_ref().map_or(u64::MAX, |pace| pace.next_ns(|flow| self.flows[flow].is_behind()))
    }

    /// What has been begun is to be acked, nothing new is sent.
    fn release_no_more(&mut self) {
        if self.pace.is_none() {
            self.flows.iter_mut().for_each(Flow::stop);
        }
    }

    /// Tells the server that it need not keep what was had.
    fn tell_had(&mut self) -> io::Result<()> {
        for at in 0..self.flows.len() {
            if self.flows[at].tell_had() {
                self.ready.push(at);
            }
        }
        while !self.ready.is_empty() {
            self.send()?;
        }
        Ok(())
    }

    /// Looks for timeouts in a part of the flows, when that is due.
    fn sweep(&mut self, now_ns: u64) {
        if now_ns < self.next_sweep_ns {
            return;
        }
        self.next_sweep_ns = now_ns + SWEEP_NS;
        let part = self.flows.len().div_ceil(10).max(SWEEP_FLOWS);
        let end = (self.sweep_at + part).min(self.flows.len());
        for at in self.sweep_at..end {
            if self.flows[at].handle_time(now_ns) {
                self.ready.push(at);
            }
        }
        self.sweep_at = if end == self.flows.len() { 0 } else { end };
    }

    /// One pass over the flows that may have something to send.
    fn send(&mut self) -> io::Result<()> {
        let (mut messages, mut datagrams) = (0, 0);
        let mut to = 0;
        while messages < PASS_MESSAGES && datagrams < PASS_DATAGRAMS {
            let Some(flow) = self.ready.pop() else { break };
            let socket = flow * self.sockets.len() / self.flows.len();
            if socket != to {
                self.flush(to)?;
                to = socket;
            }
            loop {
                let count = self.write_message(flow);
                if count == 0 {
                    break;
                }
                messages += 1;
                datagrams += count;
                if self.burst.is_full() {
                    self.flush(to)?;
                }
                if messages >= PASS_MESSAGES || datagrams >= PASS_DATAGRAMS {
                    self.ready.push(flow);
                    break;
                }
            }
        }
        self.flush(to)
    }

    fn flush(&mut self, socket: usize) -> io::Result<()> {
        if !self.burst.is_empty() {
            self.tally.unsent += self.sockets[socket].send(&mut self.burst)? as u64;
        }
        Ok(())
    }

    /// Writes the next message of a flow: what one system call of its client would send. Returns its datagrams, those lost
    /// on purpose included.
    fn write_message(&mut self, at: usize) -> usize {
        let now_ns = self.now_ns();
        let Self { plan, flows, wire, pace, burst, tally, dice, .. } = self;
        let flow = &mut flows[at];
        let due_ns = |n| pace.as_ref().map_or(now_ns, |pace| pace.due_ns(at as u64, n));
        let mut count = 0;
        while count < plan.gso {
            let mut outgoing = flow.next(now_ns, due_ns, tally);
            if outgoing.is_none() && count == 0 {
                outgoing = flow.next_take(now_ns).map(Outgoing::Take);
            }
            let Some(outgoing) = outgoing else { break };
            count += 1;
            let lost = dice.lose();
            let (datagram, alone) = match outgoing {
                // Of another length than its neighbours would be.
                Outgoing::Ping => (Datagram::Ping(Ping { client: flow.client, epoch: flow.epoch }), true),
                Outgoing::Take(Taking { seq, span, wait_ms, room }) => {
                    let (client, epoch) = (flow.client, flow.epoch);
                    (Datagram::Take(Take { client, epoch, seq: Seq(seq), span, wait_ms, room }), true)
                }
                Outgoing::Data { seq, span, attempt } => {
                    let data = Data {
                        attempt,
                        batch: plan.payloads.is_batch(),
                        options: if flow.asks() { OPTION_ASK } else { 0 },
                        ..Data::whole(flow.client, flow.epoch, Seq(seq), span, plan.payloads.payload(seq))
                    };
                    (Datagram::Data(data), false)
                }
            };
            if !lost {
                let len = wire.encode(at, flow, &datagram, burst.space());
                burst.push(len);
            }
            if alone {
                break;
            }
        }
        burst.end_message();
        count
    }

    fn receive(&mut self, socket: &BulkSocket, inbox: &mut Inbox) -> io::Result<()> {
        loop {
            let mut now_ns = None;
            let more = socket.receive(inbox, |datagram| {
                let now_ns = *now_ns.get_or_insert_with(|| self.now_ns());
                if !self.dice.lose() {
                    self.take(now_ns, datagram);
                }
            })?;
            if !more {
                return Ok(());
            }
        }
    }

    fn take(&mut self, now_ns: u64, datagram: &mut [u8]) {
        let (plan, flows) = (self.plan, self.flows.len());
        match self.wire.decode(datagram, |client| flow_of(plan, flows, client)) {
            Some((at, Reply::Ack(ack))) => self.take_ack(now_ns, at, &ack),
            Some((at, Reply::Reject(reject))) => self.take_reject(now_ns, at, &reject),
            Some((at, Reply::Answer(answer))) => self.take_answer(now_ns, at, &answer),
            None => {}
        }
    }

    fn take_ack(&mut self, now_ns: u64, at: usize, ack: &Ack<'_>) {
        if self.flows[at].handle_ack(now_ns, ack, &mut self.tally) {
            self.heard = true;
            self.ready.push(at);
        }
    }

    fn take_answer(&mut self, now_ns: u64, at: usize, answer: &Answer<'_>) {
        if self.flows[at].handle_answer(now_ns, answer, &mut self.tally) {
            self.heard = true;
            self.ready.push(at);
        }
    }

    fn take_reject(&mut self, now_ns: u64, at: usize, reject: &Reject) {
        match self.flows[at].handle_reject(now_ns, reject, &mut self.tally) {
            Ok(false) => return,
            Ok(true) => self.ready.push(at),
            Err(Refused(code)) => self.refused = Some(code),
        }
        self.heard = true;
        self.tally.rejected += 1;
    }
}

fn flow_of(plan: &Plan, flows: usize, client: ClientId) -> Option<usize> {
    let index = usize::try_from(client.0.wrapping_sub(plan.first_client.0)).ok()?;
    (index < flows).then_some(index)
}

/// Flows that may have something to send, each once, in the order in which they became so.
struct Ready {
    queue: VecDeque<usize>,
    queued: Vec<bool>,
}

impl Ready {
    fn push(&mut self, flow: usize) {
        if !std::mem::replace(&mut self.queued[flow], true) {
            self.queue.push_back(flow);
        }
    }

    fn pop(&mut self) -> Option<usize> {
        let flow = self.queue.pop_front()?;
        self.queued[flow] = false;
        Some(flow)
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// Decides what is lost on purpose, and seeds the flows' jitter (xorshift64*: this needs no more).
struct Dice {
    state: u64,
    /// Datagrams that are lost on purpose, of 2³².
    loss: u64,
}

impl Dice {
    fn new(seed: u64, loss: f64) -> Self {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share from 0 to 1
        let loss = (loss.clamp(0.0, 1.0) * 4_294_967_296.0) as u64;
        Self { state: seed | 1, loss }
    }

    fn throw(&mut self) -> u32 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let scrambled = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        #[allow(clippy::cast_possible_truncation)] // 32 bits are left
        let high = scrambled as u32;
        high
    }

    fn lose(&mut self) -> bool {
        self.loss > 0 && u64::from(self.throw()) < self.loss
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
