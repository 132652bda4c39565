//! The bytes that PROTOCOL.md#worked-example shows are those of the golden datagrams and of the codec.

use std::collections::BTreeMap;

use duragram_proto::codec::decode;
use serde_json::Value;

const PROTOCOL: &str = include_str!("../../PROTOCOL.md");
const VECTORS: &str = include_str!("../../vectors/datagrams.json");

/// The blocks that begin with ```` ```hex NAME ````, without their comments: what follows two spaces.
fn examples() -> BTreeMap<String, String> {
    let mut examples = BTreeMap::new();
    let mut name = None;
    for line in PROTOCOL.lines() {
        if let Some(begins) = line.strip_prefix("```hex ") {
            name = Some(begins.to_owned());
        } else if line.starts_with("```") {
            name = None;
        } else if let Some(name) = &name {
            let bytes = line.split("  ").next().unwrap_or_default().replace(' ', "");
            examples.entry(name.clone()).or_insert_with(String::new).push_str(&bytes);
        }
    }
    examples
}

#[test]
fn the_worked_example_shows_the_bytes_of_the_golden_datagrams() {
    let file: Value = serde_json::from_str(VECTORS).expect("valid JSON");
    let examples = examples();
    assert!(examples.len() >= 6, "{examples:?}");
    for (name, hex) in examples {
        let mut golden = file["datagrams"].as_array().expect("a list").iter();
        let golden =
            golden.find(|vector| vector["name"] == *name).unwrap_or_else(|| panic!("no golden datagram {name}"));
        assert_eq!(golden["hex"], *hex, "{name}");
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal"))
            .collect();
        let datagram = decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let mut out = [0; 100];
        let len = datagram.encode(&mut out).expect("there is room");
        assert_eq!(out[..len], bytes, "{name}");
    }
}
