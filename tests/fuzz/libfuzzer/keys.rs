#![no_main]
#![allow(dead_code)] // each program has one of the targets

#[path = "../../damage/mod.rs"]
mod damage;
#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::keys(input));
