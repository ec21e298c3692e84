//! The model that foreshock brings along: `models/synthetic.json`, part of the binary.

use super::artifact::{Artifact, Limits, ModelError};

/// The bytes of the file.
pub const BYTES: &[u8] = include_bytes!("../../models/synthetic.json");

/// The seed that the file was made with.
pub const SEED: u64 = 20_261_101;

/// The built-in model, checked like any other.
///
/// # Errors
///
/// Those of [`Artifact::parse`]; a test proves that there are none.
pub fn built_in() -> Result<Artifact, ModelError> {
    Artifact::parse(BYTES, &Limits::default())
}

#[cfg(test)]
mod tests;
