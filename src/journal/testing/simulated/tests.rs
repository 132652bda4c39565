use super::*;
use crate::journal::dead_letter::tests::letter_of;
use crate::journal::testing::shared::sinks;
use crate::journal::{Checkpoint, DeadLetterId, Journal as _};

#[test]
fn sinks_and_their_letters_survive_a_power_cut_and_those_of_a_checkpoint_that_failed_do_not() {
    let fails = Arc::new(Mutex::new(false));
    let decide = {
        let fails = Arc::clone(&fails);
        move |_: Write<'_>| if *lock(&fails) { Fate::WriteFails(100) } else { Fate::Synced }
    };
    let disk = SimulatedDisk::new(Box::new(decide));
    let (Opened { mut journal, dead, .. }, _) = disk.open(&mut |_| {}).unwrap();
    for sink in [9, 0, 1 << 100] {
        dead.put(&letter_of(sink, 2, 0)).unwrap();
    }
    let mut kept = sinks(0);
    kept[2].mark.watermark = Offset(0);
    let retried = vec![letter_of(9, 2, 0).id];
    journal.checkpoint(&Checkpoint { sinks: kept.clone(), retried, ..Checkpoint::default() }).unwrap();
    *lock(&fails) = true;
    journal.checkpoint(&Checkpoint::default()).unwrap_err();
    *lock(&fails) = false;
    disk.cut_power(5);
    let (opened, _) = disk.open(&mut |_| {}).unwrap();
    assert_eq!(opened.sinks, kept);
    let left = opened.dead.list(DeadLetterId::FIRST, 9).unwrap();
    assert_eq!(left, [letter_of(0, 2, 0), letter_of(1 << 100, 2, 0)]);
}
