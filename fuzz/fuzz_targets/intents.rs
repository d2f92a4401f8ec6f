//! See `ferryfs::fuzzing::intents`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferryfs::fuzzing::intents(bytes));
