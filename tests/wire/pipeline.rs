//! Raw UDP against the real binary with receivers and committer in threads of their own, which `auto` chooses only on
//! machines with more cores.

use std::collections::BTreeSet;

use crate::common::server::Home;
use crate::common::wire::Wire;

const PIPELINE: &str = "threading = \"pipeline\"\nreceivers = 2\n";

#[test]
fn the_pipeline_acks_what_is_durable_and_survives_kills() {
    let home = Home::with_config(PIPELINE);
    let mut expected = BTreeSet::new();
    for round in 0..3 {
        let server = home.serve();
        // Each its own source port, so that both sockets get some.
        let wires: Vec<_> = (0..8).map(|client| Wire::new(&server, 0x60 + client)).collect();
        for step in 1..=20 {
            let seq = round * 20 + step;
            for wire in &wires {
                let ack = wire.ask_ack(&wire.data(seq, &seq.to_le_bytes()));
                assert_eq!((ack.floor, ack.duplicate), (seq, false));
                expected.insert((wire.client.to_string(), seq));
            }
        }
        for wire in &wires {
            let last = round * 20 + 20;
            let ack = wire.ask_ack(&wire.data(last, &last.to_le_bytes()));
            assert_eq!((ack.floor, ack.duplicate), (last, true));
        }
        server.kill();
    }
    let server = home.serve();
    let lines = home.wait_lines(expected.len());
    assert_eq!(lines.len(), expected.len());
    assert_eq!(lines.iter().map(|line| (line.client.clone(), line.seq)).collect::<BTreeSet<_>>(), expected);
    assert!(server.terminate().success(), "SIGTERM ends the pipeline too");
}
