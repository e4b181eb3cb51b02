//! The form of a safetensors file: a header of names, types, shapes and ranges, then the data.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use assay_engine::EngineError;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{DOWNLOAD_AGAIN, bad};

/// The format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;
const METADATA: &str = "__metadata__";

#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

fn type_bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F64" | "I64" | "U64" => 64,
        "F32" | "I32" | "U32" => 32,
        "F16" | "BF16" | "I16" | "U16" => 16,
        "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 8,
        "F4" => 4,
        _ => return None,
    })
}

/// Checks that the header is sane and that every byte of the data belongs to exactly one tensor.
pub(super) fn safetensors(path: &Path) -> Result<(), EngineError> {
    let broken = |reason: String| bad(path, reason, DOWNLOAD_AGAIN);
    let io = |error: std::io::Error| {
        bad(path, format!("it cannot be read: {error}"), "check that the file may be read")
    };
    let mut file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let mut length = [0; 8];
    if size < length.len() as u64 {
        return Err(broken(format!("it has only {size} bytes")));
    }
    file.read_exact(&mut length).map_err(io)?;
    let header_bytes = u64::from_le_bytes(length);
    let data_start = header_bytes.saturating_add(8);
    if header_bytes > MAX_HEADER_BYTES || data_start > size {
        let reason = format!("its header would have {header_bytes} bytes, the file has {size}");
        return Err(broken(reason));
    }
    let mut header = vec![0; header_bytes as usize];
    file.read_exact(&mut header).map_err(io)?;
    let raw: BTreeMap<String, &RawValue> = serde_json::from_slice(&header)
        .map_err(|error| broken(format!("its header is not JSON: {error}")))?;

    let mut ranges = Vec::with_capacity(raw.len());
    for (name, value) in raw.iter().filter(|(name, _)| *name != METADATA) {
        let tensor: Tensor = serde_json::from_str(value.get())
            .map_err(|error| broken(format!("its tensor {name:?} has no sane header: {error}")))?;
        let (start, end) = tensor.data_offsets;
        let elements = tensor.shape.iter().try_fold(1_u64, |n, dim| n.checked_mul(*dim));
        let bits = type_bits(&tensor.dtype).ok_or_else(|| {
            broken(format!("its tensor {name:?} has the type {:?}", tensor.dtype))
        })?;
        let bytes = elements.and_then(|n| n.checked_mul(bits)).map(|bits| bits.div_ceil(8));
        if end < start || Some(end - start) != bytes {
            return Err(broken(format!("its tensor {name:?} does not fill its range")));
        }
        ranges.push((start, end));
    }
    if ranges.is_empty() {
        return Err(broken("it has no tensors".into()));
    }
    ranges.sort_unstable();
    let mut at = 0;
    for (start, end) in ranges {
        if start != at {
            return Err(broken("its tensors overlap or leave gaps".into()));
        }
        at = end;
    }
    if at != size - data_start {
        let reason = format!("its tensors need {at} bytes, it holds {}", size - data_start);
        return Err(broken(reason));
    }
    Ok(())
}
