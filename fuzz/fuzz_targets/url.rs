//! See `ferryfs::fuzzing::url`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferryfs::fuzzing::url(bytes));
