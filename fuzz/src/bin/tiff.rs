//! Fuzzes TIFF.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cameo_fuzz::run(data, &[cameo_imaging::SourceFormat::Tiff]);
});
