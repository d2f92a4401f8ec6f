//! See `ferryfs::fuzzing::replies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferryfs::fuzzing::replies(bytes));
