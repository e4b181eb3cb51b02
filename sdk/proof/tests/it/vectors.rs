use assay_proof::{GUMBEL_MAX, GUMBEL_MIN, Noise, Pairs, Width, gumbel};
use assay_types::B256;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    noise: Vec<Row>,
    words: Vec<Word>,
    pairs: Vec<OfStep>,
}

#[derive(Deserialize)]
struct OfStep {
    seed: B256,
    step: u64,
    vocabulary: u32,
    pairs: Vec<(u32, u32)>,
}

#[derive(Deserialize)]
struct Row {
    seed: B256,
    step: u64,
    token: u32,
    word: String,
    noise: String,
}

#[derive(Deserialize)]
struct Word {
    word: String,
    noise: String,
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

fn close(got: f64, want: &str) {
    let want: f64 = want.parse().unwrap();
    assert!((got - want).abs() <= 1e-13 * want.abs().max(1.0), "{got} is not {want}");
}

#[test]
fn noise_is_that_of_the_vectors() {
    let vectors: Vectors = serde_json::from_str(include_str!("../../vectors/noise.json")).unwrap();
    assert!(vectors.noise.len() > 100 && vectors.words.len() == 6);
    for row in vectors.noise {
        let mut noise = Noise::new(row.seed).row(row.step);
        assert_eq!(noise.word(row.token), hex(&row.word), "step {} token {}", row.step, row.token);
        close(noise.get(row.token), &row.noise);
    }
    for word in vectors.words {
        let got = gumbel(hex(&word.word));
        close(got, &word.noise);
        assert!((GUMBEL_MIN..=GUMBEL_MAX).contains(&got));
    }
}

#[test]
fn pairs_are_those_of_the_vectors() {
    let vectors: Vectors = serde_json::from_str(include_str!("../../vectors/noise.json")).unwrap();
    assert_eq!(vectors.pairs.len(), 30);
    for row in vectors.pairs {
        let pairs = Pairs::new(row.seed, row.vocabulary, Width::Four).at(row.step);
        assert_eq!(pairs.collect::<Vec<_>>(), row.pairs, "step {}", row.step);
    }
}
