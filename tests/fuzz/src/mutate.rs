//! Changes that make parsers stumble.

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

/// Longest input: longer ones find nothing that shorter ones do not, and take longer.
const MAX_BYTES: usize = 64 << 10;
/// Changes of one input. Few keep it near to what is well formed, so that what lies behind the first check is reached.
const MAX_CHANGES: u32 = 4;
/// Bytes that mean something somewhere: ends of ranges, brackets, quotes, signs, ends of lines.
const BYTES: [u8; 16] =
    [0, 1, 0x7f, 0x80, 0xff, 0xc0, b'"', b'\\', b'{', b'[', b']', b'}', b'-', b'9', b'\n', b'\r'];
/// Numbers at which arithmetic ends.
const NUMBERS: [u64; 10] = [
    0,
    1,
    0x7f,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    0x2000_0000_0000_0000,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];
/// The same as text, and what is a number to some only.
const DIGITS: [&str; 12] = [
    "0",
    "-1",
    "-0",
    "1.5",
    "1e999",
    "1e-7",
    "4294967295",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "115792089237316195423570985008687907853269984665640564039457584007913129639936",
];
/// Pieces of JSON, hexadecimal, HTTP and paths.
const WORDS: [&str; 16] = [
    "null",
    "true",
    "{}",
    "[]",
    "\"\"",
    "\"\\ud800\"",
    "\\u0000",
    ",",
    ":",
    "0x",
    "0xf",
    "../",
    "\r\n",
    "\u{fffd}",
    "\u{202e}",
    "--",
];
/// How deep brackets are piled up: parsers that go down by recursion end before.
const DEPTH: usize = 600;

/// Makes damaged inputs of sound ones.
pub(crate) struct Mutator {
    random: ChaCha8Rng,
}

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// One of the inputs, changed.
    pub(crate) fn mutate(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = inputs.choose(&mut self.random).cloned().unwrap_or_default();
        for _ in 0..self.random.random_range(1..=MAX_CHANGES) {
            self.change(&mut input, inputs);
        }
        input.truncate(MAX_BYTES);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        let at = self.random.random_range(0..=input.len());
        let range = at..(at + self.length()).min(input.len());
        match self.random.random_range(0..11) {
            0 => {
                let bit = self.random.random_range(0..8);
                input.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << bit);
            }
            1 => {
                let byte = self.pick(&BYTES);
                input.get_mut(at).into_iter().for_each(|old| *old = byte);
            }
            2 => self.overwrite(input, at),
            3 => drop(input.drain(range)),
            4 => {
                let piece = input.get(range).unwrap_or_default().to_vec();
                insert(input, at, &piece);
            }
            5 => {
                let mut piece = vec![0; self.length()];
                self.random.fill(piece.as_mut_slice());
                insert(input, at, &piece);
            }
            6 => input.truncate(at),
            7 => {
                let other = inputs.choose(&mut self.random).cloned().unwrap_or_default();
                let from = self.random.random_range(0..=other.len());
                input.truncate(at);
                input.extend(other.get(from..).unwrap_or_default());
            }
            8 => self.number(input, at),
            9 => insert(input, at, self.pick(&WORDS).as_bytes()),
            _ => {
                let bracket = self.pick(&["[", "{\"a\":"]);
                insert(input, at, bracket.repeat(DEPTH).as_bytes());
            }
        }
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.random.random_range(0..all.len())]
    }

    /// Mostly short.
    fn length(&mut self) -> usize {
        let most = self.pick(&[4, 16, 64, 512]);
        self.random.random_range(1..=most)
    }

    /// A number in binary, of 2, 4 or 8 bytes, in one order or the other.
    fn overwrite(&mut self, input: &mut [u8], at: usize) {
        let number = self.pick(&NUMBERS);
        let width = self.pick(&[2_usize, 4, 8]);
        let mut bytes = number.to_le_bytes()[..width].to_vec();
        if self.random.random() {
            bytes.reverse();
        }
        input.iter_mut().skip(at).zip(bytes).for_each(|(old, new)| *old = new);
    }

    /// Another number in place of the first one in digits behind `at`.
    fn number(&mut self, input: &mut Vec<u8>, at: usize) {
        let digits = |byte: &u8| byte.is_ascii_digit();
        let Some(start) = input.iter().skip(at).position(digits).map(|place| at + place) else {
            return;
        };
        let length = input.iter().skip(start).take_while(|byte| digits(byte)).count();
        let other = self.pick(&DIGITS);
        input.splice(start..start + length, other.bytes());
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}
