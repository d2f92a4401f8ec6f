//! See `ferryfs::fuzzing::configuration`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferryfs::fuzzing::configuration(bytes));
