//! What goes over the wires: nothing is answered that did not come, acked that is not durable, or given out twice.

use std::net::SocketAddr;

use duragram::journal::testing::simulated::Family;
use duragram::proto::codec::{self, Ack, Datagram, RejectCode, Welcome};

use super::{Oracle, RUDE, Sid, content, index};
use crate::sealed;

impl Oracle {
    /// A client, or whoever, has sent this.
    pub(crate) fn sent(&mut self, datagram: &[u8]) {
        let Some((datagram, _)) = sealed::read(datagram) else { return };
        if let Ok(Datagram::Data(data)) = codec::decode(&datagram) {
            self.sent_asking(&data);
            let sid = (data.client.0, data.epoch.value());
            let hash = content(data.channel, data.batch, data.payload);
            let hashes = self.sent.entry((sid, data.seq.0)).or_default();
            if !hashes.contains(&hash) {
                hashes.push(hash);
            }
            if hashes.len() > 1 && sid.0 < RUDE {
                self.fail(|| format!("client {sid:?} has sent two messages as seq {}", data.seq));
            }
        }
    }

    /// The server's socket has got this.
    pub(crate) fn delivered(&mut self, from: SocketAddr, datagram: &[u8]) {
        let len = datagram.len() as u64;
        let Some((datagram, counter)) = sealed::read(datagram) else { return };
        match (counter, codec::decode(&datagram)) {
            (None, _) => self.bytes.entry(from).or_default().0 += len,
            (Some(_), Ok(said)) => self.sessions.entry(sealed_for(&said)).or_default().sealed_bytes.0 += len,
            (Some(_), Err(_)) => {}
        }
        match codec::decode(&datagram) {
            Ok(Datagram::Ping(ping)) => self.session_is_heard((ping.client.0, ping.epoch.value()), counter, from),
            Ok(Datagram::Take(take)) => {
                self.session_is_heard((take.client.0, take.epoch.value()), counter, from);
                self.take_is_delivered(&take, counter, from, usize::try_from(len).expect("a datagram"));
            }
            Ok(Datagram::Data(data)) => {
                self.session_is_heard((data.client.0, data.epoch.value()), counter, from);
                if data.asks() {
                    self.ask_is_delivered(&data);
                }
                let base = data.base().0;
                let session = self.sessions.entry((data.client.0, data.epoch.value())).or_default();
                session.base = session.base.max(base);
                if data.skip {
                    session.skip_base = session.skip_base.max(base);
                }
            }
            Ok(Datagram::Hello(hello)) if counter.is_some() => {
                let given = self.given.entry(hello.client.0).or_default();
                let last = given.last();
                given.heard.entry(hello.nonce).or_insert(last);
            }
            _ => {}
        }
    }

    /// The server has sent this.
    pub(crate) fn replied(&mut self, to: SocketAddr, datagram: &[u8]) {
        let len = datagram.len() as u64;
        let Some((datagram, counter)) = sealed::read(datagram) else {
            return self.fail(|| format!("the server has sent to {to} what no key opens"));
        };
        if let Some(counter) = counter {
            let before = std::mem::replace(&mut self.counter, counter);
            if counter <= before {
                self.fail(|| format!("the server seals with number {counter}, and had come to {before}"));
            }
        }
        let said = codec::decode(&datagram);
        let (received, sent) = match (counter, &said) {
            // The acks of a sealed session go to its client, wherever they are asked for from.
            (Some(_), Ok(said)) => &mut self.sessions.entry(sealed_for(said)).or_default().sealed_bytes,
            _ => self.bytes.entry(to).or_default(),
        };
        *sent += len;
        let (received, sent) = (*received, *sent);
        if sent > received {
            self.fail(|| format!("{sent} bytes were sent to {to} for {received} that came"));
        }
        match said {
            Ok(Datagram::Ack(ack)) => self.acked(&ack),
            Ok(Datagram::Welcome(welcome)) if counter.is_some() => self.welcomed_sealed(&welcome),
            Ok(Datagram::Welcome(welcome)) => {
                let sid = (welcome.client.0, welcome.epoch.value());
                if self.failed {
                    self.fail(|| format!("WELCOME {sid:?} after a failed commit"));
                }
                // A later epoch of the client may have taken its place by now: this one is not given again either way.
                let keys = session_key(sid)..=session_key((sid.0, u32::MAX));
                if self.values[Family::Meta as usize].range(keys).next().is_none() {
                    self.fail(|| format!("WELCOME {sid:?}: neither the epoch nor a later one is on disk"));
                }
                let session = self.sessions.entry(sid).or_default();
                let other = session.nonce.is_some_and(|nonce| nonce != welcome.nonce);
                session.nonce = Some(welcome.nonce);
                if other && !self.clock_wild {
                    self.fail(|| format!("epoch {sid:?} is given out a second time"));
                }
            }
            Ok(Datagram::Reject(reject)) if reject.code == RejectCode::Storage => self.refused_for_room(),
            Ok(Datagram::Reject(reject)) if reject.code == RejectCode::Busy => self.refused_busy(&reject),
            Ok(Datagram::Reject(_)) => {}
            Ok(Datagram::Answer(answer)) => self.told(to, usize::try_from(len).expect("a datagram"), &answer),
            other => self.fail(|| format!("the server has sent {other:?}")),
        }
    }

    fn welcomed_sealed(&mut self, welcome: &Welcome) {
        let (client, epoch) = (welcome.client.0, welcome.epoch.value());
        if self.failed {
            self.fail(|| format!("WELCOME {client} {epoch} after a failed commit"));
        }
        // In no session yet, so the epochs on disk are those that the journal holds for the client.
        let stored = self.values[Family::Meta as usize].get(&client_key(client));
        let highest = stored.and_then(|value| value.last_chunk()).map_or(0, |given| u32::from_le_bytes(*given));
        if highest < epoch {
            self.fail(|| format!("WELCOME {client} {epoch}: on disk it was given {highest}"));
        }
        let given = self.given.entry(client).or_default();
        let heard = given.heard.get(&welcome.nonce).copied();
        match (given.nonces.insert(epoch, welcome.nonce), heard) {
            (Some(nonce), _) if nonce != welcome.nonce => {
                self.fail(|| format!("epoch {epoch} of {client} is given out a second time"));
            }
            (_, None) => self.fail(|| format!("WELCOME {client} {epoch}: it did not ask")),
            (Some(_), _) => {}
            // Answers may overtake each other, so what was given since it asked can be higher.
            (None, Some(last)) if epoch > last => {}
            (None, Some(last)) => self.fail(|| format!("client {client} is given epoch {epoch} after {last}")),
        }
    }

    fn acked(&mut self, ack: &Ack<'_>) {
        self.acks += 1;
        let sid = (ack.client.0, ack.epoch.value());
        if ack.ready {
            self.is_ready(sid);
        }
        let floor = ack.floor.0;
        if self.failed {
            return self.fail(|| format!("an ack to {sid:?} after a failed commit"));
        }
        if ack.credit == 0 || ack.credit > self.window {
            self.fail(|| format!("an ack to {sid:?} gives credit {}", ack.credit));
        }
        let mut missing = None;
        self.known(sid);
        let session = self.sessions.entry(sid).or_default();
        let back = (floor < session.floor).then_some(session.floor);
        session.floor = session.floor.max(floor);
        // What the client itself gave up; of someone who does as he likes, also what he claims.
        let allowed = if sid.0 < RUDE { session.skip_base } else { session.base };
        session.verified = session.verified.max(allowed.saturating_sub(1).min(floor));
        while session.verified < floor {
            let seq = session.verified + 1;
            let gap = session.gaps.iter().any(|&(from, to)| from <= seq && seq <= to);
            if !gap && !self.offset_of.contains_key(&(sid, seq)) {
                missing = Some(seq);
                break;
            }
            session.verified = seq;
        }
        let end = floor.saturating_add(8 * ack.bitmap.len() as u64);
        let concealed = (ack.complete && session.told > end).then_some(session.told);
        session.told = session.told.max(floor);
        for (at, byte) in (0u64..).zip(ack.bitmap) {
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                let seq = floor + 1 + at * 8 + bit;
                session.told = session.told.max(seq);
                if !self.offset_of.contains_key(&(sid, seq)) {
                    missing = Some(seq);
                }
            }
        }
        if let Some(seq) = missing {
            self.fail(|| format!("seq {seq} of {sid:?} is acked and not durable"));
        }
        if let Some(seq) = concealed {
            self.fail(|| format!("an ack of {sid:?} is complete up to {end}, and an earlier one told of {seq}"));
        }
        if let Some(before) = back {
            self.fail(|| format!("the floor of {sid:?} goes back from {before} to {floor}"));
        }
    }

    /// A client counts this message as delivered.
    pub(crate) fn believed(&mut self, sid: Sid, seq: u64, channel: u16, batch: bool, payload: &[u8]) {
        let hash = content(channel, batch, payload);
        match self.offset_of.get(&(sid, seq)).map(|&offset| &self.entries[index(offset)]) {
            Some(entry) if entry.hash == hash => {}
            Some(_) => {
                self.fail(|| format!("{sid:?} believes seq {seq} delivered; another message is journaled as it"))
            }
            None => self.fail(|| format!("{sid:?} believes seq {seq} delivered; it is not durable")),
        }
    }
}

fn session_key((client, epoch): Sid) -> Vec<u8> {
    [&b"s"[..], &client.to_be_bytes(), &epoch.to_be_bytes()].concat()
}

fn client_key(client: u64) -> Vec<u8> {
    [&b"e"[..], &client.to_be_bytes()].concat()
}

/// For which session something sealed is reckoned: HELLOs and what answers them, for none.
fn sealed_for(said: &Datagram<'_>) -> Sid {
    match said {
        Datagram::Data(data) => (data.client.0, data.epoch.value()),
        Datagram::Ping(ping) => (ping.client.0, ping.epoch.value()),
        Datagram::Take(take) => (take.client.0, take.epoch.value()),
        Datagram::Answer(answer) => (answer.client.0, answer.epoch.value()),
        Datagram::Ack(ack) => (ack.client.0, ack.epoch.value()),
        Datagram::Reject(reject) => (reject.client.0, reject.epoch),
        Datagram::Hello(hello) => (hello.client.0, 0),
        Datagram::Welcome(welcome) => (welcome.client.0, 0),
    }
}
