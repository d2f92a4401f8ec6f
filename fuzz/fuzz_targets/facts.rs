//! See `ferryfs::fuzzing::facts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferryfs::fuzzing::facts(bytes));
