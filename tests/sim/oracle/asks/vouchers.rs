//! TAKEs: each is a voucher for one datagram, no longer than itself, to where the session's acks went when it came.

use std::net::SocketAddr;

use duragram::limits;
use duragram::proto::codec::{Answer, AnswerStatus, Take};

use crate::oracle::{Oracle, RUDE, Sid};

/// What comes within this time may be judged in another order than it came in, in microseconds.
const MOMENT_US: u64 = 200_000;

/// A TAKE that the server's socket has got, and has not answered.
#[derive(Clone, Debug)]
pub(super) struct Voucher {
    /// Grows with each datagram that is delivered.
    pub(super) number: u64,
    len: usize,
    from: SocketAddr,
    /// The number under which it was sealed.
    counter: Option<u64>,
    /// Where its ANSWER may go.
    to: Vec<SocketAddr>,
    pub(super) arrived_us: u64,
    pub(super) wait_us: u64,
}

impl Voucher {
    /// When it is to be answered at the latest.
    pub(super) fn ends_us(&self) -> u64 {
        self.arrived_us + self.wait_us
    }
}

/// A TAKE that nobody has answered yet, for defects that tests build in.
pub(crate) struct Forgeable {
    pub(crate) to: SocketAddr,
    pub(crate) len: usize,
}

impl Oracle {
    /// Something of a session has come from there.
    pub(in crate::oracle) fn session_is_heard(&mut self, sid: Sid, counter: Option<u64>, from: SocketAddr) {
        if self.asks.answerer.is_none() {
            return;
        }
        self.asks.newest.insert(sid, from);
        if let Some(counter) = counter {
            // The sockets of a server are read in an order of their own: what has come a moment after a TAKE may be judged before it.
            let now_us = self.now_us;
            let open = self.asks.vouchers.range_mut((sid, 0)..=(sid, u64::MAX)).flat_map(|(_, vouchers)| vouchers);
            for voucher in open.filter(|voucher| now_us <= voucher.arrived_us + MOMENT_US) {
                if voucher.counter.is_some_and(|of_take| of_take <= counter) && !voucher.to.contains(&from) {
                    voucher.to.push(from);
                }
            }
            // The server counts the first that it takes: what came before may have been refused.
            let places = self.asks.heard.entry(sid).or_default().entry(counter).or_default();
            if !places.contains(&from) {
                places.push(from);
            }
        }
    }

    /// A TAKE of so many bytes has come.
    pub(in crate::oracle) fn take_is_delivered(
        &mut self,
        take: &Take,
        counter: Option<u64>,
        from: SocketAddr,
        len: usize,
    ) {
        let (sid, seq) = ((take.client.0, take.epoch.value()), take.seq.0);
        self.asks.number += 1;
        let number = self.asks.number;
        let base = seq - u64::from(take.span);
        // What comes plain in the name of who seals is GONE at most, to where it came from.
        let is_forged = counter.is_none() && sid.0 < RUDE && self.mode.is_some_and(|mode| mode.seals(sid.0));
        let had = self.asks.had.entry(sid).or_default();
        // A later one that says more says all.
        while !is_forged && had.last().is_some_and(|&(_, before)| before <= base) {
            had.pop();
        }
        had.extend((!is_forged).then_some((number, base)));
        let mut to: Vec<_> = match counter {
            None if is_forged => Vec::new(),
            None => vec![from],
            // Of a sealed session that is where the highest counter came from; what the server has refused is not heard.
            Some(counter) => {
                let heard = self.asks.heard.get(&sid);
                heard
                    .into_iter()
                    .flat_map(|heard| heard.range(counter..).flat_map(|(_, places)| places.iter().copied()))
                    .collect()
            }
        };
        to.dedup();
        let wait_us = u64::from(take.wait_ms.min(limits::TAKE_HOLD_MS)) * 1_000;
        let voucher = Voucher { number, len, from, counter, to, arrived_us: self.now_us, wait_us };
        self.asks.vouchers.entry((sid, seq)).or_default().push(voucher);
    }

    /// The TAKE that an ANSWER of so many bytes is for; each is good for one.
    pub(super) fn redeem(&mut self, to: SocketAddr, len: usize, answer: &Answer<'_>) -> Option<Voucher> {
        let name = ((answer.client.0, answer.epoch.value()), answer.seq.0);
        let (now_us, slack_us) = (self.now_us, self.asks.slack_us);
        let stopping = self.asks.stopping;
        let vouchers = self.asks.vouchers.get_mut(&name)?;
        vouchers.retain(|voucher| stopping || now_us <= voucher.ends_us() + slack_us);
        let is_gone = answer.status == AnswerStatus::Gone;
        let ended = answer.status == AnswerStatus::Pending && answer.number == 0;
        let fits = |voucher: &Voucher| {
            let is_there = voucher.to.contains(&to) || is_gone && voucher.from == to;
            let is_over = !ended || voucher.wait_us > 0 && voucher.ends_us() <= now_us;
            is_there && is_over && len <= voucher.len
        };
        // What is answered at once was not held: the newest one, since others may be held. Of those that were, the shortest, so that a
        // longer one is left for a longer ANSWER; of these one that is good for few places, and of these the one that ends first.
        let at_once = is_gone || answer.status == AnswerStatus::Pending && !ended;
        let key = |voucher: &Voucher| match at_once {
            // In an unknown session it goes where the TAKE came from.
            true if is_gone => (usize::from(voucher.from != to), 0, u64::MAX - voucher.number),
            true => (usize::from(voucher.wait_us > 0), 0, u64::MAX - voucher.number),
            false => (voucher.len, voucher.to.len(), voucher.ends_us()),
        };
        let candidates = vouchers.iter().enumerate().filter(|(_, voucher)| fits(voucher));
        let (at, _) = candidates.min_by_key(|(_, voucher)| key(voucher))?;
        Some(vouchers.remove(at))
    }

    /// A plain TAKE of this ask that is not answered.
    pub(crate) fn forgeable(&self, sid: Sid, seq: u64) -> Option<Forgeable> {
        let voucher = self.asks.vouchers.get(&(sid, seq))?.last()?;
        (voucher.to == [voucher.from]).then_some(Forgeable { to: voucher.from, len: voucher.len })
    }

    /// Where the newest datagram of a session came from.
    pub(crate) fn newest_address(&self, sid: Sid) -> Option<SocketAddr> {
        self.asks.newest.get(&sid).copied()
    }
}
