//! See `ferryfs::fuzzing::packed`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferryfs::fuzzing::packed(bytes));
