//! Fuzzes BMP.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cameo_fuzz::run(data, &[cameo_imaging::SourceFormat::Bmp]);
});
