#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // In messages texts end at their first zero byte.
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    if let Ok(sql) = std::str::from_utf8(text) {
        poolhouse_core::sql::scanner::compare_with_scanner(sql);
    }
});
