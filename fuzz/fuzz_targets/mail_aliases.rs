//! See `ferryfs::mail::fuzzing::aliases`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferryfs::mail::fuzzing::aliases(bytes));
