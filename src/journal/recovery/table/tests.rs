use std::collections::BTreeMap;

use super::rows::{ROWS, rows};
use super::*;

/// Every combination of inputs, also those that no directory can show.
fn all() -> impl Iterator<Item = Facts> {
    let formats = [Known, Unreadable, Older(0), Newer(2)];
    let rest = move |format| {
        let databases = [Absent, Closed, Readable].into_iter();
        let witnesses = [Missing, Damaged, Reached, Beyond];
        let lasts = [Whole, Torn, NoBlock];
        let bads = [Bad::None, Last, BeforeGood];
        let checkpoints = [NoCheckpoint, Behind, Ahead];
        let facts = Facts { format, ..Facts::default() };
        databases
            .map(move |database| Facts { database, ..facts })
            .flat_map(move |facts| witnesses.map(|witness| Facts { witness, ..facts }))
            .flat_map(move |facts| lasts.map(|last| Facts { last, ..facts }))
            .flat_map(move |facts| bads.map(|bad| Facts { bad, ..facts }))
            .flat_map(move |facts| checkpoints.map(|checkpoint| Facts { checkpoint, ..facts }))
            .flat_map(|facts| [false, true].map(|hole| Facts { hole, ..facts }))
            .flat_map(|facts| [false, true].map(|chain_broken| Facts { chain_broken, ..facts }))
            .flat_map(|facts| [false, true].map(|record_bad| Facts { record_bad, ..facts }))
    };
    formats.into_iter().flat_map(rest)
}

#[test]
fn every_combination_of_facts_has_exactly_one_row_and_every_row_is_reached() {
    let mut reached = BTreeMap::<_, usize>::new();
    for facts in all() {
        let rows = rows(&facts);
        assert_eq!(rows.len(), 1, "{facts:?} has {rows:?}");
        *reached.entry(rows[0]).or_default() += 1;
    }
    assert_eq!(reached.values().sum::<usize>(), 4 * 3 * 4 * 3 * 3 * 3 * 2 * 2 * 2);
    for row in ROWS {
        assert!(reached.contains_key(row), "nothing leads to {row}");
    }
}

#[test]
fn a_start_goes_on_only_when_nothing_speaks_against_it_and_makes_a_journal_only_where_none_was() {
    for facts in all() {
        let ours = facts.format == Known;
        let promised = matches!(facts.witness, Damaged | Beyond);
        let entire = facts.bad == Bad::None && !facts.hole && !facts.chain_broken && !facts.record_bad;
        let reaches = facts.witness == Reached && facts.checkpoint == Behind;
        match decide(&facts) {
            Outcome::GoOn | Outcome::DropTorn => {
                assert!(ours && facts.database == Readable && entire && reaches, "{facts:?}");
            }
            Outcome::Create => assert!(ours && facts.database == Absent && !promised, "{facts:?}"),
            Outcome::NewerFormat => assert!(matches!(facts.format, Newer(_)), "{facts:?}"),
            Outcome::Refuse(_) => {
                let sound = facts.database == Readable && entire && reaches;
                let new = facts.database == Absent && !promised;
                assert!(!ours || !sound && !new, "{facts:?}");
            }
        }
    }
}

#[test]
fn a_torn_write_is_dropped_only_when_nothing_that_was_durable_is_missing() {
    let torn = Facts { last: Torn, ..Facts::default() };
    assert_eq!(decide(&torn), Outcome::DropTorn);
    let below = Facts { witness: Beyond, ..torn };
    assert_eq!(decide(&below), Outcome::Refuse(DamageKind::BelowWitness));
    let ahead = Facts { checkpoint: Ahead, ..torn };
    assert_eq!(decide(&ahead), Outcome::Refuse(DamageKind::BelowCheckpoint));
}
