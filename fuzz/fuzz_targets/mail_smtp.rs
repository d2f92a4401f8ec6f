//! See `ferryfs::mail::fuzzing::smtp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferryfs::mail::fuzzing::smtp(bytes));
