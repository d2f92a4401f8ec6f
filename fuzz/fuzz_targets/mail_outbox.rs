//! See `ferryfs::mail::fuzzing::outbox`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferryfs::mail::fuzzing::outbox(bytes));
