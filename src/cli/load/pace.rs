//! The timetable of an open loop: when each datagram is meant to be sent, whatever the server does.
//!
//! Clients take turns at even intervals; at its turn a client sends as many datagrams as one system call takes. Nothing
//! is stored for what is late: the timetable tells for each datagram when it was due.

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

    /// When the next turn is due.
    pub(super) fn next_ns(&self) -> u64 {
        self.turn_ns(self.next_turn)
    }

    /// The client whose turn has come; each turn is given once. Turns due exactly at `now_ns` have not come: a time
    /// that ends then does not contain them.
    pub(super) fn take_due(&mut self, now_ns: u64) -> Option<usize> {
        if self.next_ns() >= now_ns {
            return None;
        }
        let client = self.next_turn % self.clients;
        self.next_turn += 1;
        usize::try_from(client).ok()
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
            assert_eq!(pace.next_ns(), ms * 1_000_000);
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
