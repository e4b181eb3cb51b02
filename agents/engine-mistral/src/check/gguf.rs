//! The form of a GGUF file: counted key-value pairs, tensor descriptions, then aligned data.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use assay_engine::EngineError;

use super::{DOWNLOAD_AGAIN, ModelFacts, bad};

/// Pairs and tensors: a hundred times those of the largest models.
const MAX_COUNT: u64 = 1 << 18;
/// Elements of an array: tokens of a vocabulary, with room.
const MAX_ARRAY: u64 = 1 << 22;
/// Bytes of a string: chat templates are the longest.
const MAX_STRING: u64 = 1 << 22;
const MAX_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 20;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
/// Architectures whose GGUF form mistral.rs runs.
const ARCHITECTURES: [&str; 8] =
    ["llama", "mistral3", "phi2", "phi3", "starcoder2", "qwen2", "qwen3", "qwen3moe"];
/// Keys that mistral.rs cannot load a tokenizer without.
const TOKENIZER_KEYS: [&str; 3] =
    ["tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.eos_token_id"];

/// Name, elements and bytes of a block of each tensor type that can be run.
fn tensor_type(id: u32) -> Option<(&'static str, u64, u64)> {
    Some(match id {
        0 => ("F32", 1, 4),
        1 => ("F16", 1, 2),
        2 => ("Q4_0", 32, 18),
        3 => ("Q4_1", 32, 20),
        6 => ("Q5_0", 32, 22),
        7 => ("Q5_1", 32, 24),
        8 => ("Q8_0", 32, 34),
        9 => ("Q8_1", 32, 36),
        10 => ("Q2_K", 256, 84),
        11 => ("Q3_K", 256, 110),
        12 => ("Q4_K", 256, 144),
        13 => ("Q5_K", 256, 176),
        14 => ("Q6_K", 256, 210),
        15 => ("Q8_K", 256, 292),
        30 => ("BF16", 1, 2),
        _ => return None,
    })
}

fn value_bytes(kind: u32) -> Option<u64> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}

/// Reads no further than the file's end, and says what was wrong in words.
struct Reader {
    file: BufReader<File>,
    left: u64,
}

impl Reader {
    fn take(&mut self, bytes: u64) -> Result<Vec<u8>, String> {
        if bytes > self.left {
            return Err("it ends in the middle of its header".into());
        }
        self.left -= bytes;
        let mut buffer = vec![0; bytes as usize];
        self.file.read_exact(&mut buffer).map_err(|error| format!("it cannot be read: {error}"))?;
        Ok(buffer)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), String> {
        if bytes > self.left {
            return Err("it ends in the middle of its header".into());
        }
        self.left -= bytes;
        let skipped = std::io::copy(&mut self.file.by_ref().take(bytes), &mut std::io::sink());
        match skipped {
            Ok(n) if n == bytes => Ok(()),
            Ok(_) => Err("it ends in the middle of its header".into()),
            Err(error) => Err(format!("it cannot be read: {error}")),
        }
    }

    fn u32(&mut self) -> Result<u32, String> {
        let bytes = self.take(4)?;
        Ok(bytes.try_into().map(u32::from_le_bytes).unwrap_or_default())
    }

    fn u64(&mut self) -> Result<u64, String> {
        let bytes = self.take(8)?;
        Ok(bytes.try_into().map(u64::from_le_bytes).unwrap_or_default())
    }

    fn string(&mut self) -> Result<String, String> {
        let length = self.u64()?;
        if length > MAX_STRING {
            return Err(format!("a string in its header would have {length} bytes"));
        }
        String::from_utf8(self.take(length)?).map_err(|_| "its header is not UTF-8".into())
    }
}

/// A value of the header, as far as it matters here.
enum Value {
    Text(String),
    Number(u64),
    Other,
}

fn value(reader: &mut Reader) -> Result<Value, String> {
    let kind = reader.u32()?;
    match kind {
        STRING => reader.string().map(Value::Text),
        ARRAY => {
            let (kind, count) = (reader.u32()?, reader.u64()?);
            if count > MAX_ARRAY {
                return Err(format!("an array in its header would have {count} elements"));
            }
            if kind == STRING {
                for _ in 0..count {
                    let length = reader.u64()?;
                    reader.skip(length)?;
                }
            } else {
                let size = value_bytes(kind)
                    .ok_or_else(|| format!("its header has an array of the unknown type {kind}"))?;
                reader.skip(size * count)?;
            }
            Ok(Value::Other)
        }
        // `split.count` is the only 16-bit value that matters.
        2 => reader
            .take(2)
            .map(|b| Value::Number(b.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))),
        4 => reader.u32().map(|n| Value::Number(n.into())),
        10 => reader.u64().map(Value::Number),
        _ => {
            let size = value_bytes(kind)
                .ok_or_else(|| format!("its header has a value of the unknown type {kind}"))?;
            reader.skip(size).map(|()| Value::Other)
        }
    }
}

struct Header {
    values: BTreeMap<String, Value>,
    /// Bytes of the weights by type.
    types: BTreeMap<&'static str, u64>,
}

fn header(file: File, size: u64) -> Result<Header, String> {
    let mut reader = Reader { file: BufReader::new(file), left: size };
    if size < 24 || reader.take(4)? != b"GGUF" {
        return Err("it does not begin like a GGUF file".into());
    }
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("it is of GGUF version {version}, readable are 2 and 3"));
    }
    let (tensors, pairs) = (reader.u64()?, reader.u64()?);
    if tensors == 0 || tensors > MAX_COUNT || pairs > MAX_COUNT {
        return Err(format!("it would have {tensors} tensors and {pairs} header entries"));
    }
    let mut values = BTreeMap::new();
    for _ in 0..pairs {
        let key = reader.string()?;
        values.insert(key, value(&mut reader)?);
    }
    let alignment = match values.get("general.alignment") {
        Some(Value::Number(n)) => *n,
        _ => DEFAULT_ALIGNMENT,
    };
    if alignment == 0 || alignment > MAX_ALIGNMENT {
        return Err(format!("its alignment would be {alignment}"));
    }
    let mut types = BTreeMap::new();
    let mut end = 0;
    for _ in 0..tensors {
        let (kind, tensor_end) = tensor(&mut reader, alignment)?;
        let bytes: &mut u64 = types.entry(kind.0).or_default();
        *bytes = bytes.saturating_add(kind.1);
        end = end.max(tensor_end);
    }
    let data_start = (size - reader.left).next_multiple_of(alignment);
    let end = data_start.saturating_add(end);
    if end > size {
        return Err(format!("its tensors end at byte {end}, the file at {size}"));
    }
    Ok(Header { values, types })
}

/// Type and bytes of a tensor, and where it ends in the data.
fn tensor(reader: &mut Reader, alignment: u64) -> Result<((&'static str, u64), u64), String> {
    let name = reader.string()?;
    let dimensions = reader.u32()?;
    if dimensions == 0 || dimensions > MAX_DIMENSIONS {
        return Err(format!("its tensor {name:?} would have {dimensions} dimensions"));
    }
    let mut elements = 1_u64;
    let mut first = 0;
    for index in 0..dimensions {
        let dimension = reader.u64()?;
        if index == 0 {
            first = dimension;
        }
        elements = elements
            .checked_mul(dimension)
            .filter(|n| *n > 0)
            .ok_or_else(|| format!("its tensor {name:?} has an impossible shape"))?;
    }
    let (kind, offset) = (reader.u32()?, reader.u64()?);
    let (kind, block, block_bytes) = tensor_type(kind).ok_or_else(|| {
        format!("its tensor {name:?} is of the type {kind}, which cannot be run: use Q4_0 to Q8_0, Q2_K to Q6_K, F16, BF16 or F32")
    })?;
    if first % block != 0 || offset % alignment != 0 {
        return Err(format!("its tensor {name:?} does not fit its type {kind}"));
    }
    let bytes = (elements / block).checked_mul(block_bytes);
    let end = bytes.and_then(|n| n.checked_add(offset));
    match (bytes, end) {
        (Some(bytes), Some(end)) => Ok(((kind, bytes), end)),
        _ => Err(format!("its tensor {name:?} has an impossible size")),
    }
}

/// Checks the file and says what it holds.
pub(crate) fn gguf(path: &Path) -> Result<ModelFacts, EngineError> {
    let io = |error: std::io::Error| {
        let remedy = "check the path and that the file may be read";
        bad(path, format!("it cannot be opened: {error}"), remedy)
    };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(bad(path, "it is not a file", "point to one .gguf file"));
    }
    let Header { values, types } =
        header(file, metadata.len()).map_err(|reason| bad(path, reason, DOWNLOAD_AGAIN))?;
    if matches!(values.get("split.count"), Some(Value::Number(n)) if *n > 1) {
        let remedy = "join the parts with `llama-gguf-split --merge`";
        return Err(bad(path, "it is one of several parts", remedy));
    }
    let Some(Value::Text(architecture)) = values.get("general.architecture") else {
        return Err(bad(path, "it names no architecture", DOWNLOAD_AGAIN));
    };
    let name = architecture.to_ascii_lowercase();
    if !ARCHITECTURES.contains(&name.as_str()) {
        let remedy =
            format!("use one of {}, or the model's safetensors files", ARCHITECTURES.join(", "));
        return Err(bad(path, format!("its architecture {name:?} cannot be run"), &remedy));
    }
    let blocks = format!("{architecture}.block_count");
    let needed = TOKENIZER_KEYS.into_iter().chain([blocks.as_str()]);
    if let Some(key) = needed.into_iter().find(|key| !values.contains_key(*key)) {
        let remedy = "convert the model again with a current llama.cpp, tokenizer included";
        return Err(bad(path, format!("its header has no {key}"), remedy));
    }
    let quantisation =
        types.iter().max_by_key(|(_, bytes)| **bytes).map_or("none", |(name, _)| name);
    let chat_template = match values.get("tokenizer.chat_template") {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    Ok(ModelFacts {
        architecture: architecture.clone(),
        chat_template,
        quantisation: quantisation.to_owned(),
        files: vec![path.to_owned()],
        tokenizer: path.to_owned(),
    })
}
