//! Three WebP decoders: each gives the same pixels as the others, or refuses the file like them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cameo_fuzz::webp::compare(data));
