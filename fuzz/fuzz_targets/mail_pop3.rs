//! See `ferryfs::mail::fuzzing::pop3`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferryfs::mail::fuzzing::pop3(bytes));
