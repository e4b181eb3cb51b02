//! Feeds a parser with damaged inputs.
//!
//! A [`Target`] begins with inputs that are well formed, which its test makes, and with those that once broke it, which
//! stand in `corpus/<target>`. Then it changes them at random: from one seed and as many as the target says, or from
//! another seed and for so many seconds as `ASSAY_FUZZ_SECONDS` says (`script/bench/fuzz`). Whatever makes the parser panic
//! is written into its corpus, and fails the test.

mod mutate;

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};

use crate::mutate::Mutator;

/// Seconds for each target, instead of a number of inputs.
const SECONDS: &str = "ASSAY_FUZZ_SECONDS";
/// What a target begins with unless it runs for a time.
const SEED: u64 = 7;

/// Something that reads untrusted bytes.
#[derive(Clone, Debug)]
pub struct Target {
    name: &'static str,
    inputs: Vec<Vec<u8>>,
    rounds: u32,
}

impl Target {
    /// A target that begins with these inputs, and makes so many others of them.
    pub const fn new(name: &'static str, inputs: Vec<Vec<u8>>, rounds: u32) -> Self {
        Self { name, inputs, rounds }
    }

    /// Feeds the parser.
    ///
    /// # Errors
    /// When it panics: the error names the file with the input that made it.
    pub fn run(mut self, parse: impl Fn(&[u8])) -> Result<()> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(self.name);
        let mut files: Vec<PathBuf> =
            fs::read_dir(&folder).into_iter().flatten().flatten().map(|file| file.path()).collect();
        files.sort();
        for file in files {
            self.inputs.push(fs::read(&file).with_context(|| file.display().to_string())?);
        }
        let try_one = |input: &[u8]| match catch_unwind(AssertUnwindSafe(|| parse(input))) {
            Ok(()) => Ok(()),
            Err(_) => self.broken(&folder, input),
        };
        self.inputs.iter().try_for_each(|input| try_one(input))?;
        let seconds = std::env::var(SECONDS).ok().map(|text| text.parse()).transpose();
        let seconds: Option<u64> = seconds.with_context(|| format!("{SECONDS} is no number"))?;
        let seed = match seconds {
            Some(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64,
            None => SEED,
        };
        let mut mutator = Mutator::new(seed);
        let began = Instant::now();
        let mut round = 0_u32;
        while match seconds {
            Some(seconds) => began.elapsed() < Duration::from_secs(seconds),
            None => round < self.rounds,
        } {
            try_one(&mutator.mutate(&self.inputs))?;
            round = round.saturating_add(1);
        }
        Ok(())
    }

    fn broken(&self, folder: &Path, input: &[u8]) -> Result<()> {
        let mut hasher = DefaultHasher::new();
        input.hash(&mut hasher);
        let file = folder.join(format!("{:016x}", hasher.finish()));
        fs::create_dir_all(folder)?;
        fs::write(&file, input)?;
        bail!("{} panics at {}: mend it, and commit the file", self.name, file.display());
    }
}
