//! The `cameo` program.
fn main() {}
