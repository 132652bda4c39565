//! Trying out whether the system gives threads, where whoever is to start them can only panic or abort without.

use std::io;
use std::thread::{self, JoinHandle};

/// Starts so many threads at once and lets them end.
///
/// # Errors
/// The system does not give so many.
pub fn are_granted(threads: usize) -> io::Result<()> {
    let parked = || thread::Builder::new().name("probe".to_owned()).spawn(thread::park);
    let mut granted = Ok(());
    let mut started: Vec<JoinHandle<()>> = Vec::with_capacity(threads);
    while granted.is_ok() && started.len() < threads {
        granted = parked().map(|thread| started.push(thread));
    }
    for thread in started {
        thread.thread().unpark();
        drop(thread.join());
    }
    granted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_tried_out_end_again() {
        for _ in 0..50 {
            are_granted(20).unwrap();
        }
    }
}
