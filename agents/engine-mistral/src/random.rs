//! Models with random weights: the speed of a real shape does not depend on what its weights are.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Bytes of a bfloat16, in which weights are written.
const WEIGHT_BYTES: usize = 2;
/// Bytes drawn and written at once.
const PIECE_BYTES: usize = 1 << 16;
/// Bytes that a byte-level tokenizer writes as they are: `!` to `~`, and two ranges of Latin-1.
const PRINTABLE: [std::ops::RangeInclusive<u32>; 3] = [0x21..=0x7E, 0xA1..=0xAC, 0xAE..=0xFF];

/// The shape of a Qwen3 model, whose input embedding is its output layer too.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Width of a head.
    pub head: usize,
    /// Width of the feed-forward part.
    pub intermediate: usize,
    /// Logits of a row, all of them tokens of the tokenizer.
    pub vocabulary: usize,
    /// Standard deviation of the logits, in nats; published models have 2 to 4.
    pub logit_deviation: f32,
}

impl Shape {
    /// Qwen3-0.6B.
    pub const QWEN3_0_6B: Self = Self {
        hidden: 1024,
        layers: 28,
        heads: 16,
        kv_heads: 8,
        head: 128,
        intermediate: 3072,
        vocabulary: 151_936,
        logit_deviation: 3.0,
    };

    /// Small enough for thousands of answers within minutes on a CPU, with open choices at temperature 1.
    pub const SMALL: Self = Self {
        hidden: 256,
        layers: 4,
        heads: 4,
        kv_heads: 2,
        head: 64,
        intermediate: 512,
        vocabulary: 4096,
        logit_deviation: 3.0,
    };

    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let Self { hidden, head, intermediate, .. } = *self;
        let (queries, keys) = (self.heads * head, self.kv_heads * head);
        let mut all = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.vocabulary, hidden]),
            ("model.norm.weight".to_owned(), vec![hidden]),
        ];
        for layer in 0..self.layers {
            let parts = [
                ("input_layernorm", vec![hidden]),
                ("post_attention_layernorm", vec![hidden]),
                ("self_attn.q_norm", vec![head]),
                ("self_attn.k_norm", vec![head]),
                ("self_attn.q_proj", vec![queries, hidden]),
                ("self_attn.k_proj", vec![keys, hidden]),
                ("self_attn.v_proj", vec![keys, hidden]),
                ("self_attn.o_proj", vec![hidden, queries]),
                ("mlp.gate_proj", vec![intermediate, hidden]),
                ("mlp.up_proj", vec![intermediate, hidden]),
                ("mlp.down_proj", vec![hidden, intermediate]),
            ];
            let named = |(part, shape)| (format!("model.layers.{layer}.{part}.weight"), shape);
            all.extend(parts.into_iter().map(named));
        }
        all
    }

    fn config(&self) -> Value {
        json!({
            "architectures": ["Qwen3ForCausalLM"],
            "attention_bias": false,
            "eos_token_id": 0,
            "head_dim": self.head,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": 4096,
            "max_window_layers": self.layers,
            "model_type": "qwen3",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000.0,
            "sliding_window": null,
            "tie_word_embeddings": true,
            "torch_dtype": "bfloat16",
            "use_sliding_window": false,
            "vocab_size": self.vocabulary,
        })
    }

    /// A byte-level tokenizer whose tokens beyond the bytes are never met in text. Id 0 ends an answer.
    fn tokenizer(&self) -> Value {
        const END: &str = "<|end|>";
        let mut spare = 256_u32..;
        let byte = |byte: u32| match PRINTABLE.iter().any(|range| range.contains(&byte)) {
            true => char::from_u32(byte),
            false => spare.next().and_then(char::from_u32),
        };
        let bytes = (0..=255).filter_map(byte).map(String::from);
        let others = (257..self.vocabulary).map(|id| format!("t{id:06}"));
        let tokens = std::iter::once(END.to_owned()).chain(bytes).chain(others);
        let vocabulary: serde_json::Map<String, Value> =
            tokens.zip(0_u32..).map(|(token, id)| (token, id.into())).collect();
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [{
                "id": 0, "content": END, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            }],
            "normalizer": null,
            "pre_tokenizer": byte_level,
            "post_processor": byte_level,
            "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "vocab": vocabulary, "merges": [],
            },
        })
    }
}

/// Writes a model of this shape into `folder`, which is made if it is not there; its size is about two
/// bytes a parameter. The same seed gives the same bytes.
///
/// # Errors
/// If the folder cannot be written.
pub fn write_random_model(folder: &Path, shape: &Shape, seed: u64) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("config.json"), serde_json::to_vec_pretty(&shape.config())?)?;
    fs::write(folder.join("tokenizer.json"), serde_json::to_vec(&shape.tokenizer())?)?;
    let settings = json!({"eos_token": "<|end|>", "tokenizer_class": "PreTrainedTokenizerFast"});
    fs::write(folder.join("tokenizer_config.json"), serde_json::to_vec_pretty(&settings)?)?;

    let tensors = shape.tensors();
    let mut header = BTreeMap::new();
    let mut end = 0;
    for (name, dimensions) in &tensors {
        let begin = end;
        end += dimensions.iter().product::<usize>() * WEIGHT_BYTES;
        let entry = json!({"dtype": "BF16", "shape": dimensions, "data_offsets": [begin, end]});
        header.insert(name, entry);
    }
    let header = serde_json::to_vec(&header)?;
    let mut file = BufWriter::new(File::create(folder.join("model.safetensors"))?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for (name, dimensions) in &tensors {
        let count = dimensions.iter().product();
        if dimensions.len() == 1 {
            // Norms keep the scale.
            file.write_all(&bfloat16(1.0).repeat(count))?;
            continue;
        }
        // What a layer gets is normalised, and its output is as large as its input: with smaller weights
        // the state would stay the embedding of the last token, and that would be the next one.
        let inputs = dimensions.get(1).copied().unwrap_or(1) as f32;
        let scale =
            if name.starts_with("model.embed_tokens") { shape.logit_deviation } else { 1.0 };
        let deviation = scale / inputs.sqrt();
        // Uniform numbers of that deviation: sums of thousands of them are normal all the same.
        let bound = deviation * 3_f32.sqrt();
        let values: Vec<[u8; WEIGHT_BYTES]> = (0..=u16::MAX)
            .map(|word| bfloat16(bound * (f32::from(word) / 32767.5 - 1.0)))
            .collect();
        write_weights(&mut file, count, &values, &mut random)?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// bfloat16 is the upper half of an f32.
fn bfloat16(value: f32) -> [u8; WEIGHT_BYTES] {
    let [_, _, low, high] = value.to_le_bytes();
    [low, high]
}

/// Draws `count` of the 65,536 values.
fn write_weights(
    file: &mut impl Write,
    count: usize,
    values: &[[u8; WEIGHT_BYTES]],
    random: &mut ChaCha8Rng,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut left = count * WEIGHT_BYTES;
    while left > 0 {
        let piece = left.min(PIECE_BYTES);
        random.fill_bytes(&mut buffer);
        for word in buffer.as_chunks_mut().0 {
            if let Some(value) = values.get(usize::from(u16::from_le_bytes(*word))) {
                *word = *value;
            }
        }
        file.write_all(buffer.get(..piece).unwrap_or_default())?;
        left -= piece;
    }
    Ok(())
}
