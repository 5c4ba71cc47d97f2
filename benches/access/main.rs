//! Measures the cost of access control: verifying a token, and reading a private image by its signed
//! URL.
//!
//! ```text
//! cargo bench --bench access [-- [--rounds N] [tokens|images]]
//! ```
//!
//! `tokens` measures in this process how long it takes to verify a token, and how long the check of
//! its signature alone takes. `images` starts two programs, one with public and one with private
//! avatars, and reads one image of each with `wrk` on 32 connections. All rounds are interleaved, and
//! the figures are medians of the rounds.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark prints its figures, and a panic ends it"
)]

mod images;
mod tokens;

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let (mut rounds, mut part) = (9, None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--rounds" => {
                let value = words.next().and_then(|number| number.parse().ok());
                rounds = value.expect("--rounds needs a number");
            }
            "tokens" | "images" => part = Some(word),
            other => panic!("unknown word {other}; there are tokens, images and --rounds N"),
        }
    }
    assert!(rounds > 0, "at least one round");
    let wants = |name: &str| part.as_deref().is_none_or(|part| part == name);
    if wants("tokens") {
        tokens::run(rounds);
    }
    if wants("images") {
        images::run(rounds);
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
