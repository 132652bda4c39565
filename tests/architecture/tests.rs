//! The rules refuse what they should: held against small texts.

use std::path::Path;

use crate::graph::{Target, arrows, circles, resolve, step};
use crate::rules::{Finding, forbidden, of_circle, of_file};
use crate::source::{Modules, read_text, tokens, without_comments};

/// A crate from its modules' paths and texts.
fn crate_of(files: &[(&str, &str)]) -> Modules {
    let mut modules = Modules::new();
    for (path, text) in files {
        let segments: Vec<String> = path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect();
        let file = format!("src/{}.rs", if path.is_empty() { "lib" } else { path });
        read_text(text, Path::new(&file), segments, &mut modules);
    }
    modules
}

fn forbidden_in(files: &[(&str, &str)]) -> Vec<Finding> {
    let modules = crate_of(files);
    forbidden(&modules, &arrows(&modules))
}

fn circles_in(files: &[(&str, &str)]) -> Vec<String> {
    circles(&arrows(&crate_of(files))).iter().map(|circle| of_circle("src", circle).what).collect()
}

const ROOT: (&str, &str) = ("", "pub mod journal; pub mod model; pub mod net;");

#[test]
fn an_arrow_that_is_not_allowed_is_refused_with_its_line_and_the_rule() {
    let found = forbidden_in(&[
        ROOT,
        ("journal", "use crate::model::Entry;\n\npub fn write() {\n    crate::net::send(0);\n}"),
        ("model", "pub struct Entry;"),
        ("net", "pub fn send(_: u8) {}"),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].what, "src/journal.rs knows net");
    assert!(found[0].explained.contains("src/journal.rs:4: crate::net::send"), "{}", found[0].explained);
    assert!(found[0].explained.contains("journal may know host, limits, model."), "{}", found[0].explained);
}

#[test]
fn an_arrow_is_found_however_it_is_written() {
    for text in [
        "use crate::{model::Entry, net::{self, send}};",
        "use super::net as sockets;",
        "fn f() { super::net::send(0) }",
        "pub(crate) use crate::net::send;",
        "mod inner { use crate::net::send; }",
        "use crate::door::send;",
    ] {
        let door = ("door", "pub use crate::net::send;");
        let root = ("", "mod door; mod journal; mod model; mod net;");
        let found = forbidden_in(&[
            root,
            door,
            ("journal", text),
            ("model", "pub struct Entry;"),
            ("net", "pub fn send(_: u8) {}"),
        ]);
        assert!(found.iter().any(|finding| finding.what == "src/journal.rs knows net"), "{text}: {found:?}");
    }
}

#[test]
fn what_only_looks_like_an_arrow_is_none() {
    for text in [
        "// crate::net::send",
        "/// See [`send`](crate::net::send).\nstruct S;",
        "const S: &str = \"crate::net::send\";",
        "const S: &str = r#\"crate::net\"::send\"#;",
        "#[cfg(test)]\nmod tests { use crate::net::send; }",
        "#[cfg(test)]\nuse crate::net::send;",
        "#[cfg(test)]\nfn f<A, B>(a: A, b: B) { crate::net::send(0) }",
        "pub(in crate::net) struct S;",
        "const C: char = '\"'; /* \" */ fn f<'a>(_: &'a str) {} // crate::net::send",
    ] {
        let found = forbidden_in(&[ROOT, ("journal", text), ("model", ""), ("net", "pub fn send(_: u8) {}")]);
        assert_eq!(found, [], "{text}");
    }
}

#[test]
fn a_crate_is_named_only_where_it_may_be() {
    let files = [
        ("", "mod cli; mod journal; mod net;"),
        ("journal", "mod rocksdb; mod store;"),
        ("journal/rocksdb", "use rocksdb::DB;"),
        ("journal/store", "fn f() { ::rocksdb::DB::open() }"),
        ("net", "use socket2::Socket;"),
        ("cli", "mod load; mod send;"),
        ("cli/load", "use socket2::Socket;"),
        ("cli/send", "use socket2::Socket;"),
    ];
    let found: Vec<String> = forbidden_in(&files).into_iter().map(|finding| finding.what).collect();
    assert_eq!(found, ["src/cli/send.rs knows the crate socket2", "src/journal/store.rs knows the crate rocksdb"]);
}

#[test]
fn what_a_part_has_made_its_own_is_not_the_other_crates() {
    let found = forbidden_in(&[
        ("", "mod model; mod journal;"),
        ("model", "pub use duragram_proto::Seq;"),
        ("journal", "use crate::model::Seq;"),
    ]);
    assert_eq!(found, []);
}

#[test]
fn ids_are_everyones_and_the_rest_of_the_protocols_crate_is_not() {
    let root = ("", "mod journal;");
    assert_eq!(forbidden_in(&[root, ("journal", "use duragram_proto::{ClientId, Epoch, Seq};")]), []);
    let found = forbidden_in(&[root, ("journal", "use duragram_proto::Seq;\nuse duragram_proto::codec::Ack;")]);
    assert_eq!(found.iter().map(|finding| finding.what.as_str()).collect::<Vec<_>>(), ["src/journal.rs knows proto"]);
}

#[test]
fn a_part_without_a_row_is_refused() {
    let found = forbidden_in(&[
        ("", "mod model; mod novelty;"),
        ("model", "pub struct A;"),
        ("novelty", "use crate::model::A;"),
    ]);
    assert_eq!(found.len(), 1);
    assert!(found[0].explained.contains("Add novelty."), "{found:?}");
}

#[test]
fn neighbours_that_know_each_other_are_a_circle_also_through_their_parents_door() {
    let two = |first: &'static str, second: &'static str| {
        [
            ("", "mod net;"),
            ("net", "mod gate; mod batch; pub use batch::Batch;\npub use gate::Gate;"),
            ("net/gate", first),
            ("net/batch", second),
        ]
    };
    let gate = "use super::batch::Batch; pub struct Gate;";
    assert_eq!(circles_in(&two(gate, "use crate::net::Gate; pub struct Batch;")), ["circle in src/net: batch, gate"]);
    assert_eq!(
        circles_in(&two(gate, "pub struct Batch { gate: super::gate::Gate }")),
        ["circle in src/net: batch, gate"]
    );
    assert_eq!(circles_in(&two(gate, "pub struct Batch;")), [""; 0]);
}

#[test]
fn a_circle_of_three_folders_is_found_in_the_folder_that_holds_them() {
    let found = circles_in(&[
        ("", "mod a; mod b; mod c;"),
        ("a", "mod deep;"),
        ("a/deep", "use crate::b::B; pub struct A;"),
        ("b", "pub struct B(crate::c::C);"),
        ("c", "pub struct C; fn f() { crate::a::deep::A; }"),
    ]);
    assert_eq!(found, ["circle in src: a, b, c"]);
}

#[test]
fn parent_and_child_are_no_circle() {
    let files = [
        ("", "mod net;"),
        ("net", "mod gate; use gate::Gate; pub struct Seal(Gate);"),
        ("net/gate", "pub struct Gate; fn f(_: super::Seal) {}"),
    ];
    assert_eq!(circles_in(&files), [""; 0]);
}

#[test]
fn a_name_leads_to_the_module_that_defines_it() {
    let modules = crate_of(&[
        ("", "pub mod net; pub mod cli;"),
        ("net", "mod gate; mod all; pub use gate::Gate as Door; pub use all::*;"),
        ("net/gate", "pub struct Gate;"),
        ("net/all", "pub fn everything() {}"),
        ("cli", "use crate::net;"),
    ]);
    let at = ["cli".to_owned()];
    let leads = |name: &str| {
        let segments: Vec<String> = name.split("::").map(str::to_owned).collect();
        match resolve(&modules, &at, &segments, 0) {
            Some(Target::Module(to)) => to.join("/"),
            other => format!("{other:?}"),
        }
    };
    assert_eq!(leads("crate::net::Door"), "net/gate");
    assert_eq!(leads("net::Door::new"), "net/gate");
    assert_eq!(leads("super::net::everything"), "net/all");
    assert_eq!(leads("crate::net::unknown"), "net");
    assert_eq!(leads("Vec::new"), "None");
    let arrows = arrows(&modules);
    assert!(arrows.iter().all(|arrow| step(arrow).from == "cli"), "doors are no arrows: {arrows:?}");
}

#[test]
fn a_long_file_a_fragment_and_a_file_of_tests_in_another_style_are_refused() {
    let found = |file: &str, text: &str| -> Vec<String> {
        of_file(Path::new(file), text).into_iter().map(|finding| finding.what).collect()
    };
    assert_eq!(found("src/a.rs", &"\n".repeat(500)), [""; 0]);
    assert_eq!(found("src/a.rs", &"\n".repeat(501)), ["src/a.rs is too long"]);
    for fragment in [
        "/// Whose.\nx",
        "    /// The file.\n    x",
        "///\n/// Why.",
        "/// Who\n/// asks.\nx",
        "/// Which of its runs.\nx",
        "//! Bytes to datagrams.\n\nx",
    ] {
        assert_eq!(found("src/a.rs", fragment), ["src/a.rs has comments of a few words"], "{fragment}");
    }
    for told in [
        "/// The server sends it here.\nx",
        "/// Who asks\n/// is answered here.\nx",
        "/// `stdout`.\nx",
        "/// From 1.\nx",
        "// Whose.\nx",
        "/// Which shell\nx",
        "/// See:\n/// - that one.",
    ] {
        assert_eq!(found("src/a.rs", told), [""; 0], "{told}");
    }
    assert_eq!(found("src/gate_tests.rs", ""), ["src/gate_tests.rs has a name of another style"]);
    assert_eq!(found("tests/gate_tests.rs", ""), [""; 0]);
}

#[test]
fn comments_and_literals_are_blank_and_lines_stay() {
    let text = "a /* b /* c */ d */ e\n\"f\\\" g\" h 'i' '\\'' 'j\nr#\"k\"\" l\"# m // n\no";
    let blank = without_comments(text);
    assert_eq!(blank.lines().count(), 4);
    let words: Vec<(usize, String)> = tokens(&blank).into_iter().map(|token| (token.line, token.text)).collect();
    let expected = [(1, "a"), (1, "e"), (2, "h"), (2, "'"), (2, "j"), (3, "m"), (4, "o")];
    assert_eq!(words, expected.map(|(line, word)| (line, word.to_owned())));
}
