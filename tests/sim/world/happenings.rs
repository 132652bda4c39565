//! What happens to clients, server, disk, clock and network while there are faults.

use std::net::SocketAddr;

use duragram::journal::OpenError;
use duragram::journal::testing::simulated::{Fate, Image};

use super::World;
use crate::asks::AskSeen;
use crate::core::Sabotage;
use crate::server::{Life, Start};

/// ANSWERs that an attacker keeps.
const ANSWERS_KEPT: usize = 32;

/// Something that happens to the world as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Happening {
    Crash,
    Stop,
    ClientRestart,
    AddressChange,
    ClockJump,
    Outage,
    OutageEnds,
    ShortSpace,
    SpaceIsBack,
    Rude,
    Overload,
    SinkCommand,
    Start,
    FaultsEnd,
    Deadline,
}

/// Something at rest was damaged.
struct Damaged {
    what: String,
    /// The disk before that, and after.
    before: Image,
    with: Image,
}

impl World {
    pub(super) fn at(&mut self, wait_us: u64, happening: Happening) {
        let now_us = self.core.lock().now_us;
        self.happenings.push((now_us + wait_us, happening));
    }

    /// It happens again after a while of this mean; never for 0.
    pub(super) fn again(&mut self, mean_us: u64, happening: Happening) {
        if mean_us > 0 && self.faults {
            let wait_us = self.rng.wait(mean_us) + 1;
            self.at(wait_us, happening);
        }
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        {
            let mut core = self.core.lock();
            let now_us = core.now_us;
            core.trace.note(now_us, "happens", [happening as u64, 0], &[]);
            core.trace.say(now_us, || format!("{happening:?}"));
        }
        let means = self.plan.means;
        match happening {
            Happening::Start => self.start(),
            Happening::Crash => {
                self.crash();
                self.again(means.crash, happening);
            }
            Happening::Stop => {
                self.stop();
                self.again(means.stop, happening);
            }
            Happening::ClientRestart => {
                let index = self.rng.index(self.clients.len());
                let now_us = self.core.lock().now_us;
                self.clients[index].restart(now_us);
                self.again(means.client_restart, happening);
            }
            Happening::AddressChange => {
                let index = self.rng.index(self.clients.len());
                let mut out = Vec::new();
                self.clients[index].change_address(&mut self.core.lock(), &mut out);
                self.sent_by(index, out);
                self.again(means.address_change, happening);
            }
            Happening::ClockJump => {
                let most = if self.plan.clock_wild { 40_000 } else { self.plan.dialect.session_ttl_s / 4 };
                let by = i64::try_from(self.rng.magnitude(1_000, most * 1_000_000)).expect("hours");
                self.core.lock().skew_us = if self.rng.one_in(2) { by } else { -by };
                self.again(means.clock_jump, happening);
            }
            Happening::Outage => {
                self.outage = true;
                let wait_us = self.rng.wait(means.outage / 4);
                self.at(wait_us, Happening::OutageEnds);
                self.again(means.outage, happening);
            }
            Happening::OutageEnds => self.outage = false,
            Happening::ShortSpace => {
                self.disk.set_free_bytes(self.plan.committer.reserve_bytes - 1);
                let wait_us = self.rng.wait(means.short_space / 4);
                self.at(wait_us, Happening::SpaceIsBack);
                self.again(means.short_space, happening);
            }
            Happening::SpaceIsBack => self.disk.set_free_bytes(u64::MAX),
            Happening::Rude => {
                self.be_rude(1);
                self.again(means.rude, happening);
            }
            Happening::Overload => {
                let datagrams = self.rng.magnitude(50, 500);
                self.be_rude(datagrams);
                self.again(means.overload, happening);
            }
            Happening::SinkCommand => {
                if let Some(life) = &mut self.life {
                    life.command(&mut self.rng);
                }
                let mean_us = self.plan.sinks.as_ref().map_or(0, |sinks| sinks.command_us);
                self.again(mean_us, happening);
            }
            Happening::FaultsEnd => self.end_faults(),
            Happening::Deadline => self.stuck(),
        }
    }

    fn be_rude(&mut self, datagrams: u64) {
        for _ in 0..datagrams {
            if self.plan.asks.is_some() && self.rng.one_in(4) {
                self.be_rude_about_asks();
                continue;
            }
            let (from, datagram) = match self.plan.mode.has_keys() && self.rng.one_in(2) {
                true => self.rude.sealed(&self.recorded, &self.clients),
                false => self.rude.datagram(&self.captured, &self.clients),
            };
            self.core.lock().oracle.sent(&datagram);
            self.carry(true, from, datagram);
        }
    }

    /// TAKEs and asks that nobody sent who may, and ANSWERs that were sent before, or never.
    fn be_rude_about_asks(&mut self) {
        self.core.lock().oracle.asks.saw(AskSeen::Forged);
        if self.rng.one_in(2) {
            let (from, datagram) = self.rude.about_asks(&self.clients);
            self.core.lock().oracle.sent(&datagram);
            return self.carry(true, from, datagram);
        }
        let again = self.rng.one_in(2) && !self.answers.is_empty();
        let (to, datagram) = match again {
            true => self.answers[self.rng.index(self.answers.len())].clone(),
            false => self.rude.answer(&self.clients),
        };
        self.carry(false, to, datagram);
    }

    /// What may be played back to a client. GONE may not: of a seq that asks later it would be a lie that nobody can see through.
    pub(super) fn keep_answer(&mut self, to: SocketAddr, datagram: &[u8]) {
        let is_kept = datagram.first().is_some_and(|first| first & 15 == 7) && datagram.get(2..4) != Some(&[3, 0]);
        if self.plan.asks.is_none() || !is_kept {
            return;
        }
        if self.answers.len() == ANSWERS_KEPT {
            self.answers.pop_front();
        }
        self.answers.push_back((to, datagram.to_vec()));
    }

    fn crash(&mut self) {
        let Some(life) = &mut self.life else { return };
        if self.rng.one_in(4) {
            // In the middle of sending acks, if it comes to that.
            self.core.lock().dies_after_replies = Some(self.rng.within(1, 4));
            return;
        }
        if life.has_flight() && self.rng.one_in(2) {
            let seed = self.rng.next();
            let fates = [Fate::Killed, Fate::SyncedThenKilled, Fate::PowerFails(seed)];
            self.core.lock().forced = Some(fates[self.rng.index(3)]);
            life.run_flight(&self.plan);
            self.core.lock().forced = None;
        }
        if self.rng.one_in(2) {
            let seed = self.rng.next();
            self.disk.cut_power(seed);
            self.core.lock().counts.power_cuts += 1;
        } else {
            self.core.lock().counts.kills += 1;
        }
        self.end_life();
    }

    fn stop(&mut self) {
        let Some(life) = &mut self.life else { return };
        let stopped = life.stop();
        {
            let core = self.core.lock();
            core.trace.say(core.now_us, || format!("stopped: {stopped:?}"));
        }
        self.carry_replies();
        self.end_life();
    }

    pub(super) fn end_life(&mut self) {
        self.disk.kill();
        self.life = None;
        let mut core = self.core.lock();
        core.dead = false;
        core.write_failed = false;
        core.dies_after_replies = None;
        core.forced = None;
        core.replies.clear();
        drop(core);
        let wait_us = if self.faults { self.rng.wait(self.plan.downtime_us) } else { 1_000 };
        self.at(wait_us, Happening::Start);
    }

    pub(super) fn start(&mut self) {
        if self.life.is_some() {
            return;
        }
        let damaged = self.damage();
        let started = Life::start(&self.core, &self.plan, &self.disk, self.rng.fork());
        let opened = matches!(started, Start::WithoutSink);
        let mut core = self.core.lock();
        core.trace.say(core.now_us, || match &started {
            Start::Up(_) => "the server starts".to_owned(),
            Start::Refused(error) => format!("the server does not start: {error}"),
            Start::WithoutSink => "the server does not start: a sink is away".to_owned(),
            Start::Broken => "the server starts and is broken".to_owned(),
        });
        match started {
            Start::Up(life) => {
                core.counts.starts += 1;
                drop(core);
                self.life = Some(life);
                if self.plan.disk.damage > 0 && (self.old.is_none() || self.rng.one_in(4)) {
                    self.old = Some((self.disk.image(), self.disk.changes()));
                }
                return;
            }
            Start::Broken => {
                let found = core.oracle.violation.take().unwrap_or_default();
                let damage = damaged.map(|damaged| damaged.what);
                return core.oracle.fail(|| format!("{found} (damage: {damage:?})"));
            }
            Start::Refused(OpenError::Damaged(damage)) => match &damaged {
                Some(Damaged { what, with, .. }) => {
                    core.counts.refused_starts += 1;
                    if self.disk.image() != *with {
                        return core.oracle.fail(|| format!("{what}; the start is refused and the disk is changed"));
                    }
                }
                None => {
                    return core.oracle.fail(|| format!("a start is refused, though nothing was damaged: {damage}"));
                }
            },
            Start::Refused(_) | Start::WithoutSink => {}
        }
        drop(core);
        // The operator has a copy. What opened was written anew: no damage is left, and an older copy would lose what is new.
        if let Some(damaged) = damaged.filter(|_| !opened) {
            self.disk.put_back(&damaged.before, false);
        }
        self.end_life();
    }

    /// Now and then damages what is at rest.
    fn damage(&mut self) -> Option<Damaged> {
        let (chance, sabotage) = {
            let core = self.core.lock();
            (core.disk.damage, core.sabotage)
        };
        if !self.rng.ppm(chance) {
            return None;
        }
        let before = self.disk.image();
        let seed = self.rng.next();
        let what = match &self.old {
            Some((image, changes)) if self.rng.one_in(8) && self.disk.witnessed() > *changes => {
                self.disk.put_back(image, true);
                Some("an old state of the database is back".to_owned())
            }
            _ => self.disk.damage(seed),
        }?;
        {
            let mut core = self.core.lock();
            core.counts.damages += 1;
            core.trace.say(core.now_us, || format!("damage: {what}"));
        }
        if sabotage == Some(Sabotage::DamageSkipped) {
            self.disk.skip_damage();
        }
        Some(Damaged { what, before, with: self.disk.image() })
    }
}
