#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| poolhouse_core::testing::bodies::session(bytes));
