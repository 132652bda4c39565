//! Tests of what several sinks tell of records that asked, and of what one tells that has lost some.

use super::super::answers::answers;
use super::*;
use crate::model::{EntryMeta, LaneMessage, Processed};

impl Sinks {
    fn answering(names: &[&str], answering: Answering) -> Self {
        Self::start(MemoryDisk::default(), names, BTreeMap::new(), 0, &Setup { answering, ..Setup::default() })
    }

    fn ask_on(&mut self, entries: u64, channel: u16) {
        let mut builder = BlockBuilder::default();
        for _ in 0..entries {
            self.seqs += 1;
            builder.push(&EntryMeta { channel, asks: true, ..meta(1, self.seqs) }, b"a question");
        }
        let durable = self.journal.commit(&mut builder, &[]).unwrap();
        self.lanes.fanout.publish(durable.block().unwrap());
    }

    fn messages(&mut self) -> Vec<LaneMessage> {
        std::iter::from_fn(|| self.lanes.cursors.next_message()).collect()
    }

    fn processed(&mut self) -> Vec<Processed> {
        self.messages();
        self.lanes.cursors.processed()
    }
}

#[test]
fn of_several_sinks_each_tells_when_it_has_come_further_and_done_is_what_all_have() {
    let mut sinks = Sinks::answering(&["a", "b"], Answering::Receipts);
    sinks.target("a").away = true;
    sinks.ask_on(3, 0);
    sinks.settle(0);
    assert_eq!(sinks.messages(), [LaneMessage::Processed], "of the one that is there, at once");
    assert_eq!(sinks.lanes.cursors.processed(), vec![]);
    sinks.target("a").away = false;
    sinks.settle(1_000_000);
    assert_eq!(sinks.messages(), [LaneMessage::Processed]);
    assert_eq!(sinks.lanes.cursors.processed(), vec![Processed::ByAll(Offset(3))]);
    sinks.publish(3);
    sinks.settle(1_000_000);
    sinks.settle(2_000_000);
    assert_eq!(sinks.messages(), [], "nobody has asked");
}

#[test]
fn what_one_of_several_sinks_gives_up_has_failed_whatever_the_others_say() {
    let mut sinks = Sinks::answering(&["a", "b"], Answering::Receipts);
    sinks.target("a").gives_up = Some(1);
    sinks.ask_on(3, 0);
    sinks.settle(0);
    let told: Vec<_> = sinks.messages().into_iter().flat_map(answers).collect();
    assert_eq!(told, [(1, true, String::new())]);
}

#[test]
fn a_sink_that_does_not_take_a_channel_has_processed_its_asks_as_soon_as_it_has_seen_them() {
    let channels = Some(ChannelSet::of([7]));
    let setup = Setup { channels, answering: Answering::Receipts, ..Setup::default() };
    let mut sinks = Sinks::start(MemoryDisk::default(), &["a", "b"], BTreeMap::new(), 0, &setup);
    sinks.ask_on(2, 0);
    sinks.settle(0);
    assert_eq!(sinks.messages(), [LaneMessage::Processed, LaneMessage::Processed]);
    assert_eq!(sinks.lanes.cursors.processed(), vec![Processed::ByAll(Offset(2))]);
    sinks.publish_on(1, 7);
    sinks.ask_on(1, 0);
    sinks.settle(0);
    assert_eq!(
        sinks.processed(),
        vec![Processed::ByAll(Offset(4))],
        "with the record before it, which is flushed at once"
    );
}

#[test]
fn asks_that_the_answering_sink_has_lost_are_passed_and_nothing_is_said_of_them() {
    let mut sinks = Sinks::answering(&["a"], Answering::Bodies);
    sinks.ask_on(5, 0);
    assert_eq!(sinks.processed(), vec![Processed::Passed(Offset(0))]);
    // What is presented already is finished first; this is not.
    sinks.lose_below("a", 5);
    assert_eq!(sinks.processed(), vec![Processed::Passed(Offset(0))], "a crash would take the loss back");
    sinks.checkpoint().unwrap();
    assert_eq!(sinks.messages(), [LaneMessage::Processed], "the committer has to hear of it");
    assert_eq!(sinks.lanes.cursors.processed(), vec![Processed::Passed(Offset(5))]);
    sinks.ask_on(2, 0);
    sinks.settle(1_000_000);
    let told: Vec<_> = sinks.messages().into_iter().flat_map(answers).map(|(offset, ..)| offset).collect();
    assert_eq!(told, [5, 6]);
}

#[test]
fn asks_that_an_operator_lets_the_answering_sink_pass_over_are_passed_and_what_was_not_flushed_is_not_told() {
    let mut sinks = Sinks::answering(&["a"], Answering::Bodies);
    sinks.target("a").flush_fails = true;
    sinks.ask_on(5, 0);
    sinks.settle(0);
    let _answer = sinks.control.seek("a", Offset(4)).unwrap();
    sinks.target("a").flush_fails = false;
    sinks.settle(0);
    let told: Vec<_> = sinks.messages().into_iter().flat_map(answers).map(|(offset, ..)| offset).collect();
    assert_eq!(told, [4]);
    assert_eq!(sinks.processed(), vec![Processed::Passed(Offset(0))], "a crash would take it back");
    sinks.checkpoint().unwrap();
    assert_eq!(sinks.processed(), vec![Processed::Passed(Offset(5))]);
}

#[test]
fn where_the_answering_sink_is_removed_nobody_waits_any_more() {
    let mut sinks = Sinks::answering(&["a"], Answering::Bodies);
    sinks.target("a").away = true;
    sinks.ask_on(5, 0);
    sinks.settle(0);
    drop(sinks.control.remove("a").unwrap());
    assert_eq!(sinks.processed(), vec![Processed::Passed(Offset(0))], "a crash would bring it back");
    sinks.checkpoint().unwrap();
    assert_eq!(sinks.processed(), vec![Processed::Passed(Offset(5))]);
}

#[test]
fn of_several_sinks_those_that_are_removed_or_hold_nothing_are_not_waited_for() {
    let mut sinks = Sinks::answering(&["a", "b", "c"], Answering::Receipts);
    sinks.target("a").away = true;
    sinks.target("b").away = true;
    sinks.ask_on(5, 0);
    sinks.settle(0);
    assert_eq!(sinks.processed(), vec![]);
    drop(sinks.control.remove("a").unwrap());
    let cursor = |sinks: &Sinks, name: &str, holds| {
        sinks.lanes.cursors.named(name).unwrap().cursor().unwrap().set_holds(holds);
    };
    cursor(&sinks, "b", false);
    assert_eq!(sinks.processed(), vec![], "a crash would take both back");
    sinks.checkpoint().unwrap();
    assert_eq!(sinks.processed(), vec![Processed::ByAll(Offset(5))]);
    cursor(&sinks, "c", false);
    sinks.checkpoint().unwrap();
    assert_eq!(sinks.processed(), vec![Processed::Passed(Offset(0))], "nobody holds anything: what is lost is gone");
}

#[test]
fn what_one_of_several_sinks_has_lost_is_not_said_to_be_processed() {
    let mut sinks = Sinks::answering(&["a", "b"], Answering::Receipts);
    sinks.ask_on(2, 0);
    sinks.settle(0);
    assert_eq!(sinks.processed(), vec![Processed::ByAll(Offset(2))]);
    sinks.target("a").away = true;
    sinks.ask_on(5, 0);
    sinks.settle(0);
    sinks.lose_below("a", 4);
    sinks.checkpoint().unwrap();
    assert_eq!(sinks.processed(), vec![Processed::Passed(Offset(4))], "2 and 3 are lost to it");
    sinks.target("a").away = false;
    sinks.settle(1_000_000);
    assert_eq!(sinks.processed(), vec![Processed::ByAll(Offset(7))], "the rest it has got");
    sinks.target("a").away = true;
    sinks.ask_on(3, 0);
    sinks.settle(1_000_000);
    let _answer = sinks.control.seek("a", Offset(9)).unwrap();
    sinks.settle(1_000_000);
    sinks.checkpoint().unwrap();
    assert_eq!(sinks.processed(), vec![Processed::Passed(Offset(9))], "an operator has let it pass over 7 and 8");
}

/// A server is started again that has five asks, of which sink `a` has lost the first four, while these sinks are away.
fn started_after_a_loss(away: &[&str]) -> Sinks {
    let setup = Setup { answering: Answering::Receipts, ..Setup::default() };
    let mut sinks = Sinks::start(MemoryDisk::default(), &["a", "b"], BTreeMap::new(), 0, &setup);
    away.iter().for_each(|name| sinks.target(name).away = true);
    sinks.ask_on(5, 0);
    sinks.settle(0);
    sinks.lose_below("a", 4);
    sinks.checkpoint().unwrap();
    Sinks::start(sinks.disk, &["a", "b"], sinks.targets, sinks.seqs, &setup)
}

#[test]
fn what_a_sink_had_lost_before_a_start_is_not_said_to_be_processed_after_it() {
    let mut sinks = started_after_a_loss(&["a"]);
    assert_eq!(
        sinks.processed(),
        vec![Processed::Passed(Offset(4))],
        "what is open below the marks of a start is gone"
    );
    sinks.target("a").away = false;
    sinks.settle(1_000_000);
    assert_eq!(sinks.processed(), vec![Processed::ByAll(Offset(5))], "the rest it has got");
}

#[test]
fn a_record_that_one_of_several_sinks_cannot_finish_holds_no_receipt_of_those_around_it() {
    let mut sinks = Sinks::answering(&["a", "b"], Answering::Receipts);
    let told = |sinks: &mut Sinks| {
        sinks.messages();
        let processed = sinks.lanes.cursors.processed();
        let told: Vec<_> = sinks.messages().into_iter().flat_map(answers).collect();
        (processed, told)
    };
    let receipts = |offsets: &[u64]| offsets.iter().map(|&offset| (offset, false, String::new())).collect::<Vec<_>>();
    sinks.target("a").retries = Some(1);
    sinks.target("b").retries = Some(3);
    sinks.ask_on(4, 0);
    sinks.settle(0);
    assert_eq!(told(&mut sinks), (vec![], receipts(&[0, 2])), "both have these");
    assert_eq!(told(&mut sinks).1, [], "once");
    sinks.target("b").retries = None;
    sinks.settle(1_000_000);
    assert_eq!(told(&mut sinks), (vec![], receipts(&[3])), "the mark of one is beyond it");
    sinks.target("a").retries = None;
    sinks.settle(2_000_000);
    assert_eq!(told(&mut sinks), (vec![Processed::ByAll(Offset(4))], vec![]));
}

#[test]
fn what_one_of_several_sinks_has_early_and_another_gives_up_has_failed() {
    let mut sinks = Sinks::answering(&["a", "b"], Answering::Receipts);
    sinks.target("a").gives_up = Some(1);
    sinks.target("b").retries = Some(0);
    sinks.ask_on(2, 0);
    sinks.settle(0);
    sinks.lanes.cursors.processed();
    let told: Vec<_> = sinks.messages().into_iter().flat_map(answers).collect();
    assert_eq!(told.first(), Some(&(1, true, String::new())), "the first answer stands");
}

#[test]
fn of_what_one_of_several_sinks_has_early_and_another_has_lost_nothing_is_said() {
    let mut sinks = Sinks::answering(&["a", "b"], Answering::Receipts);
    sinks.target("a").retries = Some(0);
    sinks.target("b").away = true;
    sinks.ask_on(3, 0);
    sinks.settle(0);
    sinks.lose_below("b", 3);
    sinks.checkpoint().unwrap();
    sinks.messages();
    assert_eq!(sinks.lanes.cursors.processed(), vec![]);
    assert_eq!(sinks.messages(), []);
}

#[test]
fn what_a_sink_had_lost_before_a_start_is_not_said_to_be_processed_when_a_slower_one_comes_to_it() {
    let mut sinks = started_after_a_loss(&["a", "b"]);
    assert_eq!(sinks.processed(), []);
    sinks.target("a").away = false;
    sinks.target("b").away = false;
    sinks.settle(1_000_000);
    assert_eq!(sinks.processed(), [Processed::Passed(Offset(4)), Processed::ByAll(Offset(5))]);
}

#[test]
fn what_a_sink_has_early_is_kept_of_one_batch_alone() {
    let mut sinks = Sinks::answering(&["a", "b"], Answering::Receipts);
    sinks.target("b").away = true;
    for batch in 0..20 {
        // The last of each waits for a retry, and then is done.
        sinks.target("a").retries = Some(batch * 5 + 4);
        sinks.ask_on(5, 0);
        sinks.settle(batch * 10_000_000);
        sinks.target("a").retries = None;
        sinks.settle(batch * 10_000_000 + 5_000_000);
        sinks.processed();
    }
    let early = sinks.lanes.cursors.named("a").unwrap().place().early.len();
    assert!(early <= 5, "{early}");
}
