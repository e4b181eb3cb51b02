//! A language model for tests: a small recurrent network with random weights, and numeric classes whose
//! logits differ by normal noise.

use assay_types::B256;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub const VOCABULARY: u32 = 512;
pub const END: u32 = 2;
const HIDDEN: usize = 24;
/// Logits deviate by about 2.2: a mean entropy of more than 3 nats.
const SPREAD: f32 = 1.3;
/// What honest classes differ by, in nats.
const NOISE: f32 = 0.001;
/// Makes the end token likely enough to end some answers.
const END_BIAS: f32 = 1.5;

/// Share of a token that stays.
const MEMORY: f32 = 0.1;

type Vector = [f32; HIDDEN];

#[derive(Clone)]
pub struct Model {
    embedding: Vec<Vector>,
    recurrent: Vec<Vector>,
    head: Vec<Vector>,
}

fn matrix(generator: &mut ChaCha8Rng, rows: usize, spread: f32) -> Vec<Vector> {
    (0..rows).map(|_| std::array::from_fn(|_| generator.random_range(-spread..spread))).collect()
}

fn dot(a: &Vector, b: &Vector) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Model {
    pub fn new(seed: u8) -> Self {
        let mut generator = ChaCha8Rng::from_seed([seed; 32]);
        Self {
            embedding: matrix(&mut generator, VOCABULARY as usize, 1.0),
            recurrent: matrix(&mut generator, HIDDEN, 0.4),
            head: matrix(&mut generator, VOCABULARY as usize, SPREAD),
        }
    }

    /// The same weights in so many bits, with a scale for each row.
    pub fn quantised(mut self, bits: u32) -> Self {
        let steps = ((1 << (bits - 1)) - 1) as f32;
        for row in self.embedding.iter_mut().chain(&mut self.recurrent).chain(&mut self.head) {
            let scale = row.iter().fold(0.0_f32, |most, weight| most.max(weight.abs())) / steps;
            row.iter_mut().for_each(|weight| *weight = (*weight / scale).round() * scale);
        }
        self
    }

    /// A run over `prompt`, in a numeric class of its own.
    pub fn run(&self, prompt: &[u32], class: B256) -> Run<'_> {
        let noise = ChaCha8Rng::from_seed(class.0);
        let mut run = Run { model: self, state: [0.0; HIDDEN], memory: [0.0; HIDDEN], noise };
        prompt.iter().for_each(|id| run.feed(*id));
        run
    }
}

pub struct Run<'a> {
    model: &'a Model,
    state: Vector,
    /// Everything that was fed, so that nothing of a prompt is forgotten.
    memory: Vector,
    noise: ChaCha8Rng,
}

impl Run<'_> {
    pub fn feed(&mut self, id: u32) {
        let input = &self.model.embedding[id as usize];
        self.memory.iter_mut().zip(input).for_each(|(sum, input)| *sum += MEMORY * input);
        self.state = std::array::from_fn(|place| {
            let mixed = dot(&self.model.recurrent[place], &self.state);
            (mixed + input[place] + self.memory[place]).tanh()
        });
    }

    pub fn logits(&mut self) -> Vec<f32> {
        let mut row: Vec<f32> = self.model.head.iter().map(|row| dot(row, &self.state)).collect();
        row[END as usize] += END_BIAS;
        for logit in &mut row {
            // A sum of uniforms is normal enough; this one's deviation is 1 / sqrt(3).
            let sum = (0..4).map(|_| self.noise.random::<f32>()).sum::<f32>() - 2.0;
            *logit += NOISE * 3_f32.sqrt() * sum;
        }
        row
    }
}
