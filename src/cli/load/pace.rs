//! The timetable of an open loop: when each datagram is meant to be sent, whatever the server does.
//!
//! Clients take turns at even intervals; at its turn a client sends as many datagrams as one system call takes. Nothing
//! is stored for what is late: the timetable tells for each datagram when it was due.

/// Turns looked at for one that matters.
const TURNS_AHEAD: u64 = 64;

/// Who is to send when. Times are nanoseconds since the start.
#[derive(Debug)]
pub(super) struct Pace {
    interval_ns: f64,
    clients: u64,
    datagrams_a_turn: u64,
    next_turn: u64,
}

impl Pace {
    /// `rate` datagrams a second over all clients.
    pub(super) fn new(rate: f64, clients: u64, datagrams_a_turn: u64) -> Self {
        Self { interval_ns: datagrams_a_turn as f64 * 1e9 / rate, clients, datagrams_a_turn, next_turn: 0 }
    }

    /// When something is due next for a client that is not `behind`. One that is has already more to send than it may,
    /// and its turns change nothing; after some of those it is time to look again.
    pub(super) fn next_ns(&self, behind: impl Fn(usize) -> bool) -> u64 {
        let last = self.next_turn + TURNS_AHEAD;
        let turn = (self.next_turn..last).find(|turn| self.client(*turn).is_some_and(|client| !behind(client)));
        self.turn_ns(turn.unwrap_or(last))
    }

    /// The client whose turn has come; each turn is given once. Turns due exactly at `now_ns` have not come: a time
    /// that ends then does not contain them.
    pub(super) fn take_due(&mut self, now_ns: u64) -> Option<usize> {
        if self.turn_ns(self.next_turn) >= now_ns {
            return None;
        }
        let client = self.client(self.next_turn);
        self.next_turn += 1;
        client
    }

    fn client(&self, turn: u64) -> Option<usize> {
        usize::try_from(turn % self.clients).ok()
    }

    /// When the n-th datagram of a client, counted from 0, is due.
    pub(super) fn due_ns(&self, client: u64, n: u64) -> u64 {
        self.turn_ns(n / self.datagrams_a_turn * self.clients + client)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // below an hour, so far below 2⁵³
    fn turn_ns(&self, turn: u64) -> u64 {
        (turn as f64 * self.interval_ns).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_at_even_intervals_and_go_round() {
        let mut pace = Pace::new(1_000.0, 3, 1);
        let mut turns = Vec::new();
        for ms in 0..7u64 {
            assert_eq!(pace.next_ns(|_| false), ms * 1_000_000);
            assert_eq!(pace.take_due(ms * 1_000_000), None);
            turns.push(pace.take_due(ms * 1_000_000 + 1).unwrap());
        }
        assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn what_was_not_taken_in_time_is_due_at_its_own_time() {
        let mut pace = Pace::new(1_000_000.0, 2, 64);
        let mut taken = [0; 2];
        while let Some(client) = pace.take_due(1_000_000_000) {
            taken[client] += 64;
        }
        assert_eq!(taken.iter().sum::<u64>(), 1_000_000);
        // Client 1 has every second turn of 64 µs: its datagrams 128 to 191 belong to turn 5.
        for n in [128, 150, 191] {
            assert_eq!(pace.due_ns(1, n), 5 * 64_000);
        }
        assert_eq!(pace.due_ns(0, 0), 0);
    }

    #[test]
    fn turns_of_clients_that_are_behind_need_no_waking() {
        let mut pace = Pace::new(1_000.0, 3, 1);
        assert_eq!(pace.next_ns(|_| false), 0);
        assert_eq!(pace.next_ns(|client| client == 0), 1_000_000);
        assert_eq!(pace.next_ns(|_| true), TURNS_AHEAD * 1_000_000);
        assert_eq!(pace.take_due(1), Some(0), "they are taken all the same");
        assert_eq!(pace.next_ns(|client| client != 0), 3_000_000);
    }

    #[test]
    fn an_hour_at_a_high_rate_loses_no_turn() {
        let mut pace = Pace::new(7_000_000.0, 16, 64);
        let an_hour = 3_600_000_000_000;
        pace.next_turn = 393_749_990;
        let mut turns = 0;
        while pace.take_due(an_hour).is_some() {
            turns += 1;
        }
        assert_eq!(turns, 10, "7 million a second for an hour are 393,750,000 turns of 64");
    }
}
