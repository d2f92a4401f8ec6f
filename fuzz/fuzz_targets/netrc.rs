//! See `ferryfs::fuzzing::netrc`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferryfs::fuzzing::netrc(bytes));
