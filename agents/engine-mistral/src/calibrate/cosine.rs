//! The baseline: cosine similarity of answers, as networks do that compare embeddings of redundant answers.
//!
//! An answer's embedding is the mean of the model's own input embeddings over its tokens, less the mean
//! over all tokens of the vocabulary, which every answer shares.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use assay_engine::EngineError;
use serde_json::Value;

/// Names that architectures give their input embedding.
const NAMES: [&str; 3] =
    ["model.embed_tokens.weight", "transformer.wte.weight", "tok_embeddings.weight"];
/// Largest header of a safetensors file; those of the largest models have some megabytes.
const MAX_HEADER_BYTES: u64 = 256 << 20;
/// Largest embedding that is read: that of 150,000 tokens in 16 bits takes 1.2 GB at a width of 4,096.
const MAX_TABLE_BYTES: u64 = 2 << 30;

/// The input embedding of a model.
#[derive(Debug)]
pub struct Embedding {
    width: usize,
    values: Vec<f32>,
    mean: Vec<f32>,
}

impl Embedding {
    /// Reads it from the safetensors files of a folder; `None` if none of them has one that can be read.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>, EngineError> {
        let failed = |error: std::io::Error| {
            EngineError::Internal(format!("the embedding in {}: {error}", folder.display()))
        };
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|e| e == "safetensors")
                && let Some(found) = read_file(&path).map_err(failed)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn new(width: usize, values: Vec<f32>) -> Self {
        let rows = (values.len() / width.max(1)).max(1) as f32;
        let mut mean = vec![0.0; width];
        for row in values.chunks_exact(width.max(1)) {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / rows);
        }
        Self { width, values, mean }
    }

    /// The embedding of an answer.
    pub fn of(&self, ids: &[u32]) -> Vec<f64> {
        let mut sum = vec![0.0; self.width];
        for id in ids {
            let start = *id as usize * self.width;
            let row = self.values.get(start..start + self.width).unwrap_or_default();
            for ((sum, value), mean) in sum.iter_mut().zip(row).zip(&self.mean) {
                *sum += f64::from(value - mean);
            }
        }
        sum
    }
}

fn read_file(path: &PathBuf) -> std::io::Result<Option<Embedding>> {
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length).min(MAX_HEADER_BYTES);
    let mut header = Vec::new();
    file.by_ref().take(length).read_to_end(&mut header)?;
    let header: Value = serde_json::from_slice(&header)?;
    let Some(tensor) = NAMES.iter().find_map(|name| header.get(name)) else { return Ok(None) };
    let number = |pointer: &str| tensor.pointer(pointer).and_then(Value::as_u64);
    let (Some(width), Some(start), Some(end)) =
        (number("/shape/1"), number("/data_offsets/0"), number("/data_offsets/1"))
    else {
        return Ok(None);
    };
    let decode: fn(&[u8]) -> f32 = match tensor.get("dtype").and_then(Value::as_str) {
        Some("F32") => |bytes| bytes.try_into().map_or(0.0, f32::from_le_bytes),
        Some("BF16") => |bytes| {
            bytes.try_into().map_or(0.0, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16))
        },
        Some("F16") => |bytes| bytes.try_into().map_or(0.0, |b| half(u16::from_le_bytes(b))),
        _ => return Ok(None),
    };
    let (Ok(width), size) = (usize::try_from(width), end.saturating_sub(start)) else {
        return Ok(None);
    };
    if width == 0 || size > MAX_TABLE_BYTES {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(8 + length + start))?;
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes)?;
    let step = if tensor.get("dtype").and_then(Value::as_str) == Some("F32") { 4 } else { 2 };
    Ok(Some(Embedding::new(width, bytes.chunks_exact(step).map(decode).collect())))
}

/// A number of 16 bits: sign, 5 bits of exponent, 10 of mantissa.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let mantissa = f32::from(bits & 0x3FF) / 1024.0;
    match i32::from((bits >> 10) & 0x1F) {
        0 => sign * mantissa * 2_f32.powi(-14),
        exponent => sign * (1.0 + mantissa) * 2_f32.powi(exponent - 15),
    }
}

/// Cosine of the angle between two embeddings; 0 if one of them has no length.
pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits() {
        for (bits, value) in [
            (0x3C00, 1.0),
            (0xC000, -2.0),
            (0x3555, 0.333_251_95),
            (0x0001, 5.960_464_5e-8),
            (0x7BFF, 65504.0),
        ] {
            assert_eq!(half(bits), value);
        }
    }

    #[test]
    fn answers_of_the_same_words_are_alike() {
        let table = Embedding::new(2, vec![1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0, -1.0]);
        let same = cosine(&table.of(&[0, 1]), &table.of(&[1, 0]));
        assert!((same - 1.0).abs() < 1e-9);
        assert!(cosine(&table.of(&[0]), &table.of(&[1])).abs() < 1e-6);
        assert!((cosine(&table.of(&[0]), &table.of(&[2])) + 1.0).abs() < 1e-6);
        assert_eq!(cosine(&table.of(&[]), &table.of(&[99])), 0.0);
    }

    #[test]
    fn the_demo_models_embedding_is_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo-model/assay-demo");
        let table = Embedding::read(&folder).unwrap().unwrap();
        assert_eq!((table.width, table.values.len()), (256, 1024 * 256));
        assert!(table.values.iter().all(|value| value.abs() < 2.0));
    }
}
