//! Where an atom's standard input comes from.

use serde::{Deserialize, Serialize};

use super::bytes::Bytes;

/// Where an atom's standard input comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stdin {
    /// From `/dev/null`: there is none.
    #[default]
    Null,
    /// From a file.
    File(Bytes),
    /// From a pipe that the host writes to.
    Pipe,
}
