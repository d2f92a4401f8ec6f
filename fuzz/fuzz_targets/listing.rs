//! See `ferryfs::fuzzing::listing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferryfs::fuzzing::listing(bytes));
