//! A client: the real state machine, with an application that makes messages and now and then restarts.

use std::net::SocketAddr;

use duragram::proto::client::{AskConfig, Client, ClientConfig, Event, MessageId, Outgoing, Sealing, Slot};
use duragram::proto::codec::{self, Datagram, RejectCode};
use duragram::proto::seal::CounterStart;
use duragram::proto::{ClientId, Epoch};

use crate::asker::{Asker, Machine};
use crate::core::{Core, Sabotage};
use crate::oracle::Map;
use crate::plan::{ClientPlan, EpochKind, Plan};
use crate::rng::Rng;
use crate::sealed;

/// The channels that every server accepts.
pub(crate) const CHANNELS: [u16; 2] = [0, 3];
/// One that it may refuse.
const REFUSED_CHANNEL: u16 = 9;
const NEVER: u64 = u64::MAX;
/// The longest that a client waits between two tries: its longest interval, and up to a quarter more.
const CALM_WAIT_US_MAX: u64 = 75_000_000;
/// Of a clean path, with a sync and what else the server does.
const ROUND_TRIP_US_MAX: u64 = 50_000;
/// After that a message comes again that was refused since there were too many asks.
const BUSY_WAIT_US_MAX: u64 = 1_500_000;
/// What it takes to send again whatever was lost, in round trips.
const ROUND_TRIPS_CALM: u64 = 40;

struct Message {
    asks: bool,
    channel: u16,
    batch: bool,
    payload: Vec<u8>,
}

/// By when a client must have all its acks, once nothing fails any more: this follows from the state in which the faults left it.
///
/// The timer that runs expires, or is set anew by an ack before. The answer to what it sends tells of all that was lost, but for
/// what the answer has no room to tell of and was sent less than a timeout ago. That waits for one timeout more, which is not
/// doubled, since there was an answer, and up to a quarter longer at random. All else takes round trips.
#[derive(Clone, Copy)]
struct Calm {
    /// When the timer expires that ran when it became calm, or the last wait ends that the server asked for.
    from_us: u64,
    /// No timeout was longer than this since then.
    rto_us: u64,
    /// No timeout becomes longer: where the round trips have become short, their variance makes 2.75 of 1 at most.
    rto_us_max: u64,
}

impl Calm {
    fn of(from_us: u64, rto_us: u64) -> Self {
        Self { from_us, rto_us, rto_us_max: rto_us * 11 / 4 }
    }

    fn until_us(&self) -> u64 {
        self.from_us + self.rto_us * 5 / 4 + ROUND_TRIPS_CALM * ROUND_TRIP_US_MAX
    }
}

pub(crate) struct SimClient {
    id: u64,
    plan: ClientPlan,
    sealed: bool,
    rng: Rng,
    machine: Option<Machine>,
    asker: Option<Asker>,
    messages: Map<u64, Message>,
    /// The client has used no epoch above this.
    epoch: u32,
    addresses: u16,
    next_message_us: u64,
    made: u64,
    restart_us: Option<u64>,
    /// When what was under way as the faults ended has arrived, and is answered.
    quiet_us: u64,
    calm: Option<Calm>,
    /// With the sabotage of who sends again one datagram a timeout: whether that one was not sent yet.
    may_repeat: bool,
}

impl SimClient {
    pub(crate) fn new(index: usize, of: &Plan, mut rng: Rng) -> Self {
        let plan = of.clients[index].clone();
        let asks = of.asks.as_ref();
        let asker =
            asks.and_then(|asks| Some(Asker::new(asks.askers[index].clone()?, asks.may_starve, asks.is_crowded)));
        let first_us = rng.below(plan.pause_us.min(2_000_000));
        Self {
            id: index as u64 + 1,
            plan,
            sealed: of.mode.seals(index as u64 + 1),
            rng,
            machine: None,
            asker,
            messages: Map::default(),
            epoch: 0,
            addresses: 0,
            next_message_us: first_us,
            made: 0,
            restart_us: Some(0),
            quiet_us: 0,
            calm: None,
            may_repeat: false,
        }
    }

    /// The client sends from this address until it moves again.
    pub(crate) fn address(&self) -> SocketAddr {
        let port = u16::try_from(self.id).expect("few clients") * 1000 + self.addresses % 1000;
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    /// The client that has this address, or had it.
    pub(crate) fn index_at(address: SocketAddr) -> usize {
        usize::from(address.port() / 1000).wrapping_sub(1)
    }

    /// It is somewhere else, and may know of it.
    pub(crate) fn change_address(&mut self, core: &mut Core, out: &mut Vec<Vec<u8>>) {
        self.addresses += 1;
        if let (Some(machine), true) = (&mut self.machine, self.rng.one_in(2)) {
            machine.path_changed(core.now_us);
            self.drain(core, out);
        }
    }

    /// It loses what it has not delivered, and begins anew with another epoch.
    pub(crate) fn restart(&mut self, now_us: u64) {
        if let (Some(asker), Some(machine)) = (&mut self.asker, &self.machine) {
            asker.crash(machine);
        }
        self.machine = None;
        self.messages.clear();
        self.restart_us = Some(now_us + 2_000_000 + self.rng.wait(5_000_000));
    }

    /// Nothing more is made, and nothing fails any more; the last of what was under way for it, and from it, arrives then.
    pub(crate) fn finish(&mut self, last_arrival_us: u64) {
        self.next_message_us = NEVER;
        self.quiet_us = last_arrival_us + ROUND_TRIP_US_MAX;
    }

    /// The server is up, and stays.
    pub(crate) fn await_calm(&mut self, now_us: u64) {
        self.quiet_us = self.quiet_us.max(now_us);
        self.calm = None;
        if let Some(asker) = &mut self.asker {
            asker.await_calm(now_us);
        }
    }

    /// Whether it should have been done by now, though nothing fails.
    pub(crate) fn is_late(&mut self, now_us: u64) -> bool {
        if now_us < self.quiet_us {
            return false;
        }
        let rto_us = self.machine.as_ref().map_or(0, Client::rto_us);
        let next_us = self.due_us().min(now_us + CALM_WAIT_US_MAX).max(now_us);
        // What was refused may wait for its turn behind TAKEs, which have longer timers.
        let held_back_us = if self.asker.is_some() { now_us + CALM_WAIT_US_MAX } else { 0 };
        let calm = self.calm.get_or_insert(Calm::of(next_us.max(held_back_us), rto_us));
        calm.rto_us = calm.rto_us.max(rto_us).min(calm.rto_us_max);
        // As long as the server gives no credit it asks, ever less often.
        if self.machine.as_ref().is_some_and(|machine| machine.credit() == Some(0)) {
            calm.from_us = calm.from_us.max(next_us);
        }
        let all_acked = self.machine.as_ref().is_none_or(Client::is_idle);
        let is_crowded = self.asker.as_ref().is_some_and(Asker::is_crowded);
        now_us > calm.until_us() && !all_acked && !is_crowded
            || self.asker.as_ref().is_some_and(|asker| asker.is_late(now_us))
    }

    /// All is acked, and answered.
    pub(crate) fn is_idle(&self) -> bool {
        self.machine.as_ref().is_none_or(Client::is_idle) && self.asker.as_ref().is_none_or(Asker::is_done)
    }

    /// Client and epoch, as who listens on the wire knows them.
    pub(crate) fn name(&self) -> (u64, u32) {
        (self.id, self.epoch)
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed
    }

    pub(crate) fn describe(&self) -> String {
        let machine = self.machine.as_ref();
        let queued = machine.map_or(0, Client::queued);
        let waits = self.asker.as_ref().map_or(String::new(), |asker| format!(", and {}", asker.describe()));
        format!("client {} in epoch {:?} has {queued} messages left{waits}", self.id, machine.and_then(Client::epoch))
    }

    /// When it has something to do next.
    pub(crate) fn due_us(&self) -> u64 {
        match &self.machine {
            Some(machine) => {
                let wakes_us = self.asker.as_ref().map_or(NEVER, Asker::due_us);
                self.next_message_us.min(machine.poll_timeout().unwrap_or(NEVER)).min(wakes_us)
            }
            None => self.restart_us.unwrap_or(NEVER),
        }
    }

    /// Does what is due; what it sends goes to `out`.
    pub(crate) fn step(&mut self, core: &mut Core, out: &mut Vec<Vec<u8>>) {
        let now_us = core.now_us;
        if self.machine.is_none() {
            self.begin(core);
        }
        let Some(machine) = &mut self.machine else { return };
        if machine.poll_timeout().is_some_and(|at| at <= now_us) {
            machine.handle_timeout(now_us);
            self.may_repeat = true;
        }
        if let Some(asker) = &mut self.asker {
            asker.wake(machine, now_us, &mut self.rng);
        }
        if self.next_message_us <= now_us {
            self.make(now_us);
        }
        self.drain(core, out);
    }

    pub(crate) fn receive(&mut self, core: &mut Core, datagram: &[u8], out: &mut Vec<Vec<u8>>) {
        self.note_refusal(core.now_us, datagram);
        if let Some(machine) = &mut self.machine {
            // What does not concern it, it ignores.
            machine.handle_datagram(core.now_us, &mut datagram.to_vec()).ok();
            self.drain(core, out);
        }
    }

    /// A message that asks and is refused for want of room comes again after a while, as often as that takes.
    fn note_refusal(&mut self, now_us: u64, datagram: &[u8]) {
        let (Some(_), Some(calm)) = (&self.asker, &mut self.calm) else { return };
        let plain = sealed::read(datagram).map(|(plain, _)| plain).unwrap_or_default();
        let is_refused = match codec::decode(&plain) {
            Ok(Datagram::Reject(reject)) => reject.code == RejectCode::Busy,
            // There may be room after this, when it is told to be had.
            Ok(Datagram::Answer(_)) => true,
            _ => false,
        };
        if is_refused {
            calm.from_us = calm.from_us.max(now_us + 2 * BUSY_WAIT_US_MAX);
        }
    }

    fn begin(&mut self, core: &mut Core) {
        let unix_s = u32::try_from(core.true_unix_us() / 1_000_000).expect("before 2106");
        let epoch = match self.plan.epochs {
            EpochKind::Counter => Epoch::new(self.epoch + 1),
            EpochKind::Unix if unix_s <= self.epoch => {
                self.restart_us = Some(core.now_us + 1_000_000);
                return;
            }
            EpochKind::Unix => Epoch::new(unix_s),
            EpochKind::Hello => None,
        };
        self.epoch = epoch.map_or(0, Epoch::value);
        core.counts.epochs += 1;
        let config = ClientConfig {
            unix_us_at_zero: (self.plan.epochs == EpochKind::Unix).then(|| core.true_unix_us() - core.now_us),
            rto_max_us: self.plan.rto_max_us,
            datagram_len_max: self.plan.datagram_max,
            ..ClientConfig::new(ClientId(self.id), epoch)
        };
        let (slots, buffer) = (vec![Slot::EMPTY; self.plan.slots], vec![0; self.plan.buffer]);
        let machine = match self.sealed {
            false => Client::new(config, slots, buffer, self.rng.next()),
            true => {
                let sealing = Sealing { key: sealed::key(self.id), counter: CounterStart::random(self.rng.next()) };
                Client::sealed(config, sealing, slots, buffer, self.rng.next())
            }
        };
        self.machine = Some(match &mut self.asker {
            None => machine.with_asks(AskConfig::HELD, Vec::new(), Vec::new()),
            Some(asker) => {
                let mut machine = asker.lend(machine);
                asker.begin(&mut machine, core.now_us);
                machine
            }
        });
        self.restart_us = None;
    }

    /// Makes the next message, if there is room for it.
    fn make(&mut self, now_us: u64) {
        let Some(machine) = &mut self.machine else { return };
        if self.made == self.plan.messages {
            self.next_message_us = NEVER;
            return;
        }
        self.made += 1;
        let pause = self.made.is_multiple_of(self.plan.burst);
        self.next_message_us = now_us + 1 + self.rng.wait(if pause { self.plan.pause_us } else { self.plan.gap_us });
        if self.rng.ppm(self.plan.abandon) {
            machine.abandon_oldest();
        }
        let mut payload: Vec<u8> = Vec::new();
        let batch = self.plan.batches && self.rng.one_in(2);
        let len = self.rng.below(self.plan.payload_max + 1).max(self.plan.payload_min);
        let number = (self.id << 32 | self.made).to_le_bytes();
        if batch {
            let record_len = self.rng.within(0, 40);
            while (payload.len() as u64 + 2 + record_len) <= len {
                payload.extend_from_slice(&u16::try_from(record_len).expect("short").to_le_bytes());
                payload.extend(number.iter().cycle().take(usize::try_from(record_len).expect("short")));
            }
            if payload.is_empty() {
                payload.extend_from_slice(&[0, 0]);
            }
        } else {
            payload.extend(number.iter().cycle().take(usize::try_from(len).expect("short")));
        }
        let channel =
            if self.rng.ppm(self.plan.refused_channel) { REFUSED_CHANNEL } else { CHANNELS[self.rng.index(2)] };
        let asks = !batch && self.asker.as_ref().is_some_and(|asker| self.rng.ppm(asker.plan.share));
        let taken = match asks {
            true => machine.ask(now_us, channel, &payload),
            false => machine.send(now_us, Outgoing { channel, batch, payload: &payload }),
        };
        if let Ok(id) = taken {
            self.messages.insert(id.0, Message { asks, channel, batch, payload });
        }
        if self.made == self.plan.messages && self.asker.is_some() {
            machine.finish_asks();
        }
    }

    fn drain(&mut self, core: &mut Core, out: &mut Vec<Vec<u8>>) {
        let mut buffer = vec![0; self.plan.datagram_max];
        loop {
            self.take_events(core);
            let Some(machine) = &mut self.machine else { return };
            match machine.poll_transmit(core.now_us, &mut buffer) {
                Some(len) if core.sabotage == Some(Sabotage::OneATimeout) && self.withholds(&buffer[..len]) => {}
                Some(len) => {
                    core.oracle.sent(&buffer[..len]);
                    out.push(buffer[..len].to_vec());
                }
                None => return,
            }
        }
    }

    /// Whether who sends again one datagram a timeout does not send this one.
    fn withholds(&mut self, datagram: &[u8]) -> bool {
        let plain = sealed::read(datagram).map(|(plain, _)| plain).unwrap_or_default();
        let repeats = matches!(codec::decode(&plain), Ok(Datagram::Data(data)) if data.attempt > 0);
        repeats && !std::mem::take(&mut self.may_repeat)
    }

    fn take_events(&mut self, core: &mut Core) {
        let Some(machine) = &mut self.machine else { return };
        let mut waits_until_us = None;
        while let Some(event) = machine.poll_event() {
            match event {
                Event::Acked { message: MessageId(id), seq, epoch, .. } => {
                    core.counts.acked += 1;
                    core.trace.note(core.now_us, "believed", [self.id, seq.0], &[]);
                    let Some(Message { asks, channel, batch, payload }) = self.messages.remove(&id) else {
                        core.oracle.fail(|| format!("client {} is told twice of message {id}", self.id));
                        return;
                    };
                    core.oracle.believed((self.id, epoch.value()), seq.0, channel, batch, &payload);
                    if let (true, Some(asker)) = (asks, &mut self.asker) {
                        asker.acked(epoch, seq, core.now_us);
                    }
                }
                Event::Failed { message, .. } | Event::Abandoned { message } => {
                    self.messages.remove(&message.0);
                }
                // Stored before it is used: nothing has been transmitted in it.
                Event::EpochChanged { to, .. } => {
                    core.counts.epochs += 1;
                    self.epoch = to.value();
                    waits_until_us = Some(core.now_us);
                }
                Event::ServerWaits { until_us, .. } => waits_until_us = Some(until_us),
            }
        }
        if let Some(asker) = &mut self.asker {
            asker.drain(self.id, machine, core);
        }
        if let (Some(until_us), Some(calm)) = (waits_until_us, &mut self.calm) {
            calm.from_us = calm.from_us.max(until_us);
        }
    }
}
