//! See `ferryfs::mail::fuzzing::message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferryfs::mail::fuzzing::message(bytes));
