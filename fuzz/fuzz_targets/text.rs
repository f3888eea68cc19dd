//! Any bytes as a text module; see [`gs_fuzz::bodies::text`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gs_fuzz::bodies::text(data));
