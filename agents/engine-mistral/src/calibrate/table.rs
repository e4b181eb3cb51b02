//! What a calibration comes to: the thresholds of each pair of classes, as a file.

use std::{fs, path::Path};

use assay_engine::{B256, ModelId, NumericClass};
use assay_proof::{Calibration, CalibrationError};
use serde::{Deserialize, Serialize};

use crate::demo::DEMO_CALIBRATION;

/// The thresholds of a model's pairs of classes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Name of the model that was measured.
    pub model: String,
    /// Its id.
    pub model_id: ModelId,
    /// Engine and version.
    pub engine: String,
    /// What it was measured on.
    pub machine: String,
    /// At most one for each pair of classes.
    pub pairs: Vec<TablePair>,
}

/// The thresholds of one pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TablePair {
    pub miner_class: NumericClass,
    pub validator_class: NumericClass,
    /// As `ModelRegistry` keeps them.
    pub word: B256,
    /// The same thresholds.
    pub calibration: Calibration,
    /// Honest audits that the thresholds were tried on, and how many of them they accused.
    pub honest_audits: usize,
    pub honest_accused: usize,
}

/// Why a file is no table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("it cannot be read: {0}; check the path")]
    Io(#[from] std::io::Error),
    #[error("it is not what `assay model calibrate --report` writes: {0}")]
    Json(#[from] serde_json::Error),
    #[error("its word for miner {miner} and validator {validator} is none: {source}")]
    Word { miner: NumericClass, validator: NumericClass, source: CalibrationError },
    #[error("its word for miner {miner} and validator {validator} is not that of their thresholds")]
    OtherWord { miner: NumericClass, validator: NumericClass },
}

impl Table {
    /// Reads the file that [`Outcome::write`](super::Outcome::write) wrote.
    ///
    /// # Errors
    /// If it cannot be read, is something else, or a pair's word says something else than its thresholds.
    pub fn load(path: &Path) -> Result<Self, TableError> {
        Self::parse(&fs::read_to_string(path)?)
    }

    /// That of the demo model, which is part of this program.
    ///
    /// # Errors
    /// If the program was built with a file that is none.
    pub fn demo() -> Result<Self, TableError> {
        Self::parse(DEMO_CALIBRATION)
    }

    /// The one that this program brings along for a model: it has that of the demo model alone.
    pub fn shipped(model_id: ModelId) -> Option<Self> {
        Self::demo().ok().filter(|table| table.model_id == model_id)
    }

    fn parse(text: &str) -> Result<Self, TableError> {
        let table: Self = serde_json::from_str(text)?;
        for pair in &table.pairs {
            let (miner, validator) = (pair.miner_class, pair.validator_class);
            let read = Calibration::unpack(pair.word.into());
            let read = read.map_err(|source| TableError::Word { miner, validator, source })?;
            if read != pair.calibration {
                return Err(TableError::OtherWord { miner, validator });
            }
        }
        Ok(table)
    }

    /// The thresholds of a pair.
    pub fn of(&self, miner: NumericClass, validator: NumericClass) -> Option<&TablePair> {
        self.pairs.iter().find(|p| p.miner_class == miner && p.validator_class == validator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_whole_or_not_at_all() {
        let table = Table::demo().unwrap();
        assert_eq!(Table::shipped(table.model_id), Some(table.clone()));
        let text = serde_json::to_string(&table).unwrap();
        assert_eq!(Table::parse(&text).unwrap(), table);
        let class = "cpu-f32".parse().unwrap();
        assert_eq!(table.of(class, class).unwrap().miner_class, class);
        assert_eq!(table.of(class, "cpu-f99".parse().unwrap()), None);
        assert_eq!(Table::shipped(ModelId(B256::ZERO)), None);
        let mut other = table.clone();
        other.pairs[0].calibration.tau += 1;
        let error = Table::parse(&serde_json::to_string(&other).unwrap()).unwrap_err();
        assert!(error.to_string().contains("cpu-f32"), "{error}");
        for bad in ["", "{}", &text[..text.len() / 2]] {
            assert!(Table::parse(bad).is_err(), "{bad}");
        }
        assert!(matches!(Table::load(Path::new("/no/where")), Err(TableError::Io(_))));
    }
}
